/// GPT-2's spelling of bytes as printable characters: printable Latin-1 bytes stand for themselves, the other 68 take U+0100 and up
/// in order, so that a vocabulary file holds no white space and no control character.
enum ByteAlphabet {
    /// The code point that spells each byte.
    static let codePoints: [UInt32] = {
        var spelled = [UInt32](repeating: 0, count: 256)
        var next: UInt32 = 0x100
        for byte in 0..<256 {
            switch byte {
            case 0x21...0x7E, 0xA1...0xAC, 0xAE...0xFF:
                spelled[byte] = UInt32(byte)
            default:
                spelled[byte] = next
                next += 1
            }
        }
        return spelled
    }()

    /// The byte that a code point below 0x144 spells, -1 when none.
    private static let bytes: [Int16] = {
        var table = [Int16](repeating: -1, count: 0x144)
        for (byte, codePoint) in codePoints.enumerated() { table[Int(codePoint)] = Int16(byte) }
        return table
    }()

    /// Appends the bytes that a spelling in UTF-8 stands for; appends nothing and returns false when a character is outside of the alphabet.
    static func decode(_ spelling: Slice<UnsafeBufferPointer<UInt8>>, into out: inout [UInt8]) -> Bool {
        let start = out.count
        var offset = spelling.startIndex
        while offset < spelling.endIndex {
            var codePoint = Int(spelling[offset])
            offset += 1
            // The alphabet ends at U+0143: its characters take one byte of UTF-8 or two.
            if codePoint >= 0xC2, codePoint <= 0xC5, offset < spelling.endIndex {
                codePoint = (codePoint & 0x1F) << 6 | Int(spelling[offset]) & 0x3F
                offset += 1
            } else if codePoint >= 0x80 {
                codePoint = bytes.count
            }
            guard codePoint < bytes.count, bytes[codePoint] >= 0 else {
                out.removeLast(out.count - start)
                return false
            }
            out.append(UInt8(truncatingIfNeeded: bytes[codePoint]))
        }
        return true
    }

    /// `decode(_:into:)` of a whole token.
    static func decode(_ token: String, into out: inout [UInt8]) -> Bool {
        var token = token
        return token.withUTF8 { decode($0[...], into: &out) }
    }
}
