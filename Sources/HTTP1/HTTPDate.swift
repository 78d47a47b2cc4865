/// The date format of HTTP (RFC 9110 5.6.7), made from Unix time without the C library's locale or time zone.
public enum HTTPDate {
    private static let days: [StaticString] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"]
    private static let months: [StaticString] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ]

    /// For example `Sun, 06 Nov 1994 08:49:37 GMT`.
    /// - Parameter seconds: since 1970, not negative.
    public static func format(unixSeconds seconds: Int) -> [UInt8] {
        let day = seconds / 86400
        let second = seconds % 86400
        let (year, month, dayOfMonth) = civil(day)
        var out: [UInt8] = []
        out.reserveCapacity(29)
        func text(_ s: StaticString) { out.append(contentsOf: UnsafeBufferPointer(start: s.utf8Start, count: s.utf8CodeUnitCount)) }
        func digits(_ n: Int, _ width: Int) {
            var divisor = 1
            for _ in 1..<width { divisor *= 10 }
            while divisor > 0 {
                out.append(0x30 + UInt8(n / divisor % 10))
                divisor /= 10
            }
        }
        text(days[day % 7])
        text(", ")
        digits(dayOfMonth, 2)
        text(" ")
        text(months[month - 1])
        text(" ")
        digits(year, 4)
        text(" ")
        digits(second / 3600, 2)
        text(":")
        digits(second / 60 % 60, 2)
        text(":")
        digits(second % 60, 2)
        text(" GMT")
        return out
    }

    /// Year, month and day of a day number since 1970-01-01 in the Gregorian calendar. Years begin in March here, so that the leap
    /// day is the last of its year, and repeat in eras of 400 years or 146,097 days.
    private static func civil(_ day: Int) -> (year: Int, month: Int, day: Int) {
        let shifted = day + 719_468
        let era = shifted / 146_097
        let dayOfEra = shifted % 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let shiftedMonth = (5 * dayOfYear + 2) / 153
        let month = shiftedMonth < 10 ? shiftedMonth + 3 : shiftedMonth - 9
        return (yearOfEra + era * 400 + (month <= 2 ? 1 : 0), month, dayOfYear - (153 * shiftedMonth + 2) / 5 + 1)
    }
}
