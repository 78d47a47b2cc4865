/// Turns the bytes of a token stream into text that never ends inside a character.
///
/// The bytes of a character that is still incomplete are held back (three at most) until it is whole or known to be broken. Whatever
/// the cuts, the concatenated output is `String(decoding: allBytes, as: UTF8.self)`: each maximal invalid part becomes one U+FFFD.
public struct UTF8Assembler: Sendable {
    private var held: [UInt8] = []

    public init() { held.reserveCapacity(4) }

    /// Whether bytes of an incomplete character are waiting.
    public var isHolding: Bool { !held.isEmpty }

    /// Takes the next bytes of the stream and appends every character that they complete.
    public mutating func append(_ bytes: some BidirectionalCollection<UInt8>, to out: inout String) {
        if held.isEmpty {
            let tail = Self.incompleteTail(of: bytes)
            let end = bytes.index(bytes.endIndex, offsetBy: -tail)
            out += String(decoding: bytes[..<end], as: UTF8.self)
            held.append(contentsOf: bytes[end...])
        } else {
            held.append(contentsOf: bytes)
            let tail = Self.incompleteTail(of: held)
            out += String(decoding: held[..<(held.count - tail)], as: UTF8.self)
            held.removeFirst(held.count - tail)
        }
    }

    /// Ends the stream: what is still held is not going to become a character any more.
    public mutating func finish() -> String {
        defer { held.removeAll(keepingCapacity: true) }
        return held.isEmpty ? "" : String(decoding: held, as: UTF8.self)
    }

    /// How many bytes at the end are a proper beginning of a character that the next bytes may complete: 0 to 3.
    private static func incompleteTail(of bytes: some BidirectionalCollection<UInt8>) -> Int {
        var index = bytes.endIndex
        var second: UInt8?
        for distance in 1...3 {
            guard index != bytes.startIndex else { return 0 }
            bytes.formIndex(before: &index)
            let byte = bytes[index]
            if byte & 0xC0 == 0x80 {
                second = byte
                continue
            }
            guard let length = sequenceLength(lead: byte), distance < length else { return 0 }
            // Only the second byte has a narrower range than 80…BF (table 3-7 of the Unicode standard).
            if let second, !secondByteRange(lead: byte).contains(second) { return 0 }
            return distance
        }
        return 0
    }

    private static func sequenceLength(lead: UInt8) -> Int? {
        switch lead {
        case 0xC2...0xDF: 2
        case 0xE0...0xEF: 3
        case 0xF0...0xF4: 4
        default: nil
        }
    }

    private static func secondByteRange(lead: UInt8) -> ClosedRange<UInt8> {
        switch lead {
        case 0xE0: 0xA0...0xBF
        case 0xED: 0x80...0x9F
        case 0xF0: 0x90...0xBF
        case 0xF4: 0x80...0x8F
        default: 0x80...0xBF
        }
    }
}
