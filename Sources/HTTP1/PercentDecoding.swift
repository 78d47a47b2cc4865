/// Percent-decoding of paths and queries (RFC 3986 2.1).
public enum PercentDecoding {
    /// Decodes `%41` to `A`; bytes that are not UTF-8 become U+FFFD.
    /// - Parameter plusIsSpace: as in queries and forms.
    /// - Returns: nil when a `%` is not followed by two hexadecimal digits.
    public static func decode(_ text: some StringProtocol, plusIsSpace: Bool = false) -> String? {
        if !text.utf8.contains(where: { $0 == UInt8(ascii: "%") || (plusIsSpace && $0 == UInt8(ascii: "+")) }) {
            return String(text)
        }
        var out: [UInt8] = []
        out.reserveCapacity(text.utf8.count)
        var rest = text.utf8.makeIterator()
        while let byte = rest.next() {
            switch byte {
            case UInt8(ascii: "%"):
                guard let high = rest.next().flatMap(digit), let low = rest.next().flatMap(digit) else { return nil }
                out.append(high << 4 | low)
            case UInt8(ascii: "+") where plusIsSpace:
                out.append(UInt8(ascii: " "))
            default:
                out.append(byte)
            }
        }
        return String(decoding: out, as: UTF8.self)
    }

    /// The pairs of a query or form: `a=1&b=%20&c` is a = "1", b = " ", c = "". A wrong escape is kept as it was sent.
    public static func pairs(_ query: some StringProtocol) -> [(name: String, value: String)] {
        query.split(separator: "&").map { pair in
            let halves = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            let decoded = halves.map { decode($0, plusIsSpace: true) ?? String($0) }
            return (name: decoded[0], value: decoded.count > 1 ? decoded[1] : "")
        }
    }

    private static func digit(_ byte: UInt8) -> UInt8? {
        switch byte {
        case 0x30...0x39: byte - 0x30
        case 0x41...0x46: byte - 0x37
        case 0x61...0x66: byte - 0x57
        default: nil
        }
    }
}
