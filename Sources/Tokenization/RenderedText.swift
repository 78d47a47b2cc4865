/// A rendered conversation as bytes, whose beginnings can be compared and cut off.
struct RenderedText {
    let pieces: [TextPiece]
    let bytes: [UInt8]

    init(_ pieces: [TextPiece]) {
        self.pieces = pieces
        var bytes: [UInt8] = []
        bytes.reserveCapacity(pieces.reduce(0) { $0 + $1.text.utf8.count })
        for piece in pieces { bytes += piece.text.utf8 }
        self.bytes = bytes
    }

    func hasPrefix(_ other: RenderedText) -> Bool { bytes.starts(with: other.bytes) }

    /// How many bytes both begin with, whole characters only.
    func commonPrefixCount(with other: RenderedText) -> Int {
        var count = 0
        while count < min(bytes.count, other.bytes.count), bytes[count] == other.bytes[count] { count += 1 }
        func splitsCharacter(_ bytes: [UInt8]) -> Bool { count < bytes.count && bytes[count] & 0xC0 == 0x80 }
        while count > 0, splitsCharacter(bytes) || splitsCharacter(other.bytes) { count -= 1 }
        return count
    }

    /// What is left behind the first bytes; `count` must end a character.
    func dropping(first count: Int) -> [TextPiece] {
        var rest: [TextPiece] = []
        var remaining = count
        for piece in pieces {
            let length = piece.text.utf8.count
            if remaining >= length {
                remaining -= length
            } else {
                rest.append(TextPiece(text: String(decoding: piece.text.utf8.dropFirst(remaining), as: UTF8.self), isTrusted: piece.isTrusted))
                remaining = 0
            }
        }
        return rest
    }
}
