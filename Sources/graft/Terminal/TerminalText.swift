/// Text that somebody else wrote (a model, a model file), made fit for a terminal.
package enum TerminalText {
    /// Line ends and tabs stay, carriage returns go; other control characters, which could move the cursor, change the window's title or send
    /// keys, become U+FFFD.
    package static func sanitized(_ text: String) -> String {
        guard text.unicodeScalars.contains(where: isControl) else { return text }
        var result = ""
        result.reserveCapacity(text.utf8.count)
        for scalar in text.unicodeScalars where scalar != "\r" { result.unicodeScalars.append(isControl(scalar) ? "\u{FFFD}" : scalar) }
        return result
    }

    /// The same for one line: line ends and tabs become spaces.
    package static func oneLine(_ text: String) -> String {
        String(String.UnicodeScalarView(sanitized(text).unicodeScalars.map { $0 == "\n" || $0 == "\t" ? " " : $0 }))
    }

    private static func isControl(_ scalar: Unicode.Scalar) -> Bool {
        scalar.value < 0x20 ? scalar != "\n" && scalar != "\t" : (0x7F..<0xA0).contains(scalar.value)
    }
}
