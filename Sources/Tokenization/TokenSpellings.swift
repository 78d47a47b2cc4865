/// The bytes of all tokens in one block: those of `id` are `offsets[id]..<offsets[id + 1]`.
struct TokenSpellings {
    var bytes: [UInt8] = []
    var offsets: [UInt32] = [0]

    /// The bytes that tokens stand for in text.
    init(_ vocabulary: Vocabulary) {
        reserve(vocabulary)
        let isSentencePiece = if case .sentencePiece = vocabulary.model { true } else { false }
        for (id, token) in vocabulary.tokens.enumerated() {
            switch vocabulary.types[id] {
            case .byte:
                if let byte = SentencePieceEncoder.byte(spelledBy: token) { bytes.append(byte) } else { bytes += token.utf8 }
            case .normal, .undefined, .unused:
                if isSentencePiece {
                    appendUnescaped(token)
                } else if !ByteAlphabet.decode(token, into: &bytes) {
                    // A token outside of the byte alphabet was added to the vocabulary as plain text.
                    bytes += token.utf8
                }
            case .control, .unknown, .userDefined:
                bytes += token.utf8
            }
            offsets.append(UInt32(bytes.count))
        }
    }

    /// The spellings that SentencePiece merges: user-defined tokens hold spaces as they are, its text holds U+2581 for them.
    init(escapingSpacesOf vocabulary: Vocabulary) {
        reserve(vocabulary)
        for token in vocabulary.tokens {
            for byte in token.utf8 {
                if byte == UInt8(ascii: " ") { bytes += SentencePieceEncoder.spaceMark } else { bytes.append(byte) }
            }
            offsets.append(UInt32(bytes.count))
        }
    }

    private mutating func reserve(_ vocabulary: Vocabulary) {
        bytes.reserveCapacity(vocabulary.tokens.count * 8)
        offsets.reserveCapacity(vocabulary.tokens.count + 1)
    }

    private mutating func appendUnescaped(_ token: String) {
        let start = bytes.count
        for byte in token.utf8 {
            bytes.append(byte)
            if byte == 0x81, bytes.count - start >= 3, bytes[bytes.count - 2] == 0x96, bytes[bytes.count - 3] == 0xE2 {
                bytes.removeLast(3)
                bytes.append(UInt8(ascii: " "))
            }
        }
    }
}
