/// How long a key lasts, as the command line spells it: a whole number with s, m, h or d.
package enum KeyLifetime {
    /// A hundred years.
    private static let longest = 3_153_600_000

    /// `90d` in seconds; `nil` for what is no such text.
    package static func seconds(_ text: String) -> Int? {
        let units: [Character: Int] = ["s": 1, "m": 60, "h": 3600, "d": 86_400]
        guard let unit = text.last.flatMap({ units[$0] }), let number = Int(text.dropLast()), (1...longest / unit).contains(number) else { return nil }
        return number * unit
    }
}
