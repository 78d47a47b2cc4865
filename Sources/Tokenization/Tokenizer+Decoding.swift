extension Tokenizer {
    /// The text of a sequence of tokens; bytes that form no character become U+FFFD. Ids outside of the vocabulary stand for nothing.
    ///
    /// Where the model puts a space before text (`Vocabulary.Model.sentencePiece`), the one at the beginning is taken off again.
    ///
    /// - Parameter skipSpecial: leave control tokens out.
    public func decode(_ ids: some Sequence<Int32>, skipSpecial: Bool) -> String {
        var bytes: [UInt8] = []
        for id in ids { appendBytes(of: id, to: &bytes, includeSpecial: !skipSpecial) }
        let isPrefixed = stripsSpacePrefix && bytes.first == UInt8(ascii: " ")
        return String(decoding: isPrefixed ? bytes[1...] : bytes[...], as: UTF8.self)
    }

    /// Appends the bytes that a token stands for; they need not be whole characters (`UTF8Assembler`). An id outside of the vocabulary
    /// appends nothing, a control token only with `includeSpecial`.
    public func appendBytes(of id: Int32, to out: inout [UInt8], includeSpecial: Bool) {
        guard id >= 0, Int(id) < vocabularySize, includeSpecial || !isControl(id) else { return }
        let start = Int(tokenOffsets[Int(id)])
        out.append(contentsOf: UnsafeBufferPointer(start: tokenBytes.base + start, count: Int(tokenOffsets[Int(id) + 1]) - start))
    }

    /// Whether a token is not part of the text: control tokens and the unknown token.
    public func isControl(_ id: Int32) -> Bool {
        guard id >= 0, Int(id) < vocabularySize else { return false }
        return types[Int(id)] == .control || types[Int(id)] == .unknown
    }

    /// The text of one token alone, control tokens spelled out; bytes that form no character become U+FFFD.
    public func tokenText(_ id: Int32) -> String {
        var bytes: [UInt8] = []
        appendBytes(of: id, to: &bytes, includeSpecial: true)
        return String(decoding: bytes, as: UTF8.self)
    }
}
