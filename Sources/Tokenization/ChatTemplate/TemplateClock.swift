#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// A date and time of day as a wall clock and a calendar show it.
public struct TemplateTime: Sendable, Equatable {
    public var year: Int
    /// 1…12
    public var month: Int
    /// 1…31
    public var day: Int
    public var hour: Int
    public var minute: Int
    public var second: Int

    public init(year: Int, month: Int, day: Int, hour: Int = 0, minute: Int = 0, second: Int = 0) {
        self.year = year
        self.month = month
        self.day = day
        self.hour = hour
        self.minute = minute
        self.second = second
    }
}

/// Where a template's `strftime_now` gets the time from; many models are told today's date.
public struct TemplateClock: Sendable {
    /// The present time in the zone that the template shall see.
    public var now: @Sendable () -> TemplateTime

    public init(now: @escaping @Sendable () -> TemplateTime) { self.now = now }

    /// The machine's clock in its local time zone, as Python's `datetime.now()`.
    public static let system = TemplateClock {
        var seconds = time(nil)
        var parts = tm()
        localtime_r(&seconds, &parts)
        return TemplateTime(
            year: Int(parts.tm_year) + 1900, month: Int(parts.tm_mon) + 1, day: Int(parts.tm_mday), hour: Int(parts.tm_hour),
            minute: Int(parts.tm_min), second: Int(parts.tm_sec))
    }

    /// A clock that stands still.
    public static func fixed(_ time: TemplateTime) -> TemplateClock { TemplateClock { time } }
}

extension TemplateTime {
    private static let months = [
        "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December",
    ]
    private static let weekdays = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"]

    /// Days since 1970-01-01 in the Gregorian calendar.
    private var dayNumber: Int {
        // Years begin in March here, so that the leap day is their last.
        let shifted = month > 2 ? year : year - 1
        let era = (shifted >= 0 ? shifted : shifted - 399) / 400
        let yearOfEra = shifted - era * 400
        let dayOfYear = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1
        return era * 146_097 + yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear - 719_468
    }

    /// 0 is Sunday.
    private var weekday: Int { ((dayNumber + 4) % 7 + 7) % 7 }

    /// From 1.
    private var dayOfYear: Int { dayNumber - TemplateTime(year: year, month: 1, day: 1).dayNumber + 1 }

    /// The week of ISO 8601 and the year it belongs to.
    private var isoWeek: (year: Int, week: Int) {
        let thursday = dayNumber - (weekday + 6) % 7 + 3
        var isoYear = year
        if thursday < TemplateTime(year: year, month: 1, day: 1).dayNumber { isoYear -= 1 }
        if thursday >= TemplateTime(year: year + 1, month: 1, day: 1).dayNumber { isoYear += 1 }
        return (isoYear, (thursday - TemplateTime(year: isoYear, month: 1, day: 1).dayNumber) / 7 + 1)
    }

    /// C's `strftime` in the C locale; unknown conversions stay as they are.
    func formatted(_ format: String) -> String {
        var result = ""
        var rest = format.unicodeScalars[...]
        while let scalar = rest.popFirst() {
            guard scalar == "%", let first = rest.popFirst() else {
                result.unicodeScalars.append(scalar)
                continue
            }
            var conversion = first
            var pads = true
            // glibc's "%-d" is the number without padding.
            if first == "-", let next = rest.popFirst() {
                conversion = next
                pads = false
            }
            result += converted(conversion, pads: pads) ?? "%" + (pads ? "" : "-") + String(conversion)
        }
        return result
    }

    private func converted(_ conversion: Unicode.Scalar, pads: Bool) -> String? {
        func padded(_ value: Int, _ width: Int = 2, _ fill: String = "0") -> String {
            let text = String(value)
            return pads ? String(repeating: fill, count: max(0, width - text.count)) + text : text
        }
        let hour12 = hour % 12 == 0 ? 12 : hour % 12
        let month = Self.months[min(max(month - 1, 0), 11)]
        switch conversion {
        case "Y": return String(year)
        case "C": return padded(year / 100)
        case "y": return padded(year % 100)
        case "m": return padded(self.month)
        case "B": return month
        case "b", "h": return String(month.prefix(3))
        case "d": return padded(day)
        case "e": return padded(day, 2, " ")
        case "j": return padded(dayOfYear, 3)
        case "A": return Self.weekdays[weekday]
        case "a": return String(Self.weekdays[weekday].prefix(3))
        case "w": return String(weekday)
        case "u": return String(weekday == 0 ? 7 : weekday)
        case "U": return padded((dayOfYear + 6 - weekday) / 7)
        case "W": return padded((dayOfYear + 6 - (weekday + 6) % 7) / 7)
        case "V": return padded(isoWeek.week)
        case "G": return String(isoWeek.year)
        case "H": return padded(hour)
        case "k": return padded(hour, 2, " ")
        case "I": return padded(hour12)
        case "l": return padded(hour12, 2, " ")
        case "M": return padded(minute)
        case "S": return padded(second)
        case "f": return "000000"
        case "p": return hour < 12 ? "AM" : "PM"
        case "P": return hour < 12 ? "am" : "pm"
        case "D", "x": return formatted("%m/%d/%y")
        case "F": return formatted("%Y-%m-%d")
        case "T", "X": return formatted("%H:%M:%S")
        case "R": return formatted("%H:%M")
        case "r": return formatted("%I:%M:%S %p")
        case "c": return formatted("%a %b %e %H:%M:%S %Y")
        // The time is one without zone, for which Python writes nothing.
        case "Z", "z": return ""
        case "n": return "\n"
        case "t": return "\t"
        case "%": return "%"
        default: return nil
        }
    }
}
