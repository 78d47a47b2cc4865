import Tokenization

/// Promises: ids are of the vocabulary; what is not trusted never becomes a control token; where pieces of one origin are cut changes nothing; tokens
/// spell the text that they were made of; the text of a stream of tokens does not depend on its cuts.
func fuzzTokenizer(_ input: [UInt8]) throws(FuzzFinding) {
    guard let choice = input.first else { return }
    let tokenizer = TestVocabulary.all[Int(choice) % TestVocabulary.all.count]
    let pieces = String(decoding: input.dropFirst(), as: UTF8.self).split(separator: "\u{1}", omittingEmptySubsequences: false).enumerated()
        .map { TextPiece(text: String($1), isTrusted: $0 % 2 == 1) }
    let text = pieces.map(\.text).joined()

    let ids = tokenizer.encode(pieces, addSpecial: false)
    try checkIDs(ids, tokenizer)
    let halves = pieces.flatMap { piece in
        let middle = piece.text.unicodeScalars.index(piece.text.startIndex, offsetBy: piece.text.unicodeScalars.count / 2)
        return [piece.text[..<middle], piece.text[middle...]].map { TextPiece(text: String($0), isTrusted: piece.isTrusted) }
    }
    try promise(tokenizer.encode(halves, addSpecial: false) == ids, "pieces cut in two give other tokens")

    let plain = tokenizer.encode(text, addSpecial: false, parseSpecial: false)
    try checkIDs(plain, tokenizer)
    try promise(plain == tokenizer.encode([TextPiece(text: text, isTrusted: false)], addSpecial: false), "text and piece give other tokens")
    for id in plain {
        try promise(id == unknown(of: tokenizer) || !tokenizer.isControl(id), "untrusted text became the control token \(id)")
    }
    try checkSpelling(of: plain, text: text, tokenizer)
    let trusted = tokenizer.encode(text, addSpecial: true, parseSpecial: true)
    try checkIDs(trusted, tokenizer)
    try checkStream(of: trusted, tokenizer)
}

private func checkIDs(_ ids: [Int32], _ tokenizer: Tokenizer) throws(FuzzFinding) {
    for id in ids { try promise(id >= 0 && Int(id) < tokenizer.vocabularySize, "token \(id) of a vocabulary of \(tokenizer.vocabularySize)") }
}

/// The token for bytes that have no other, which is the only one of its kind that plain text may become.
private func unknown(of tokenizer: Tokenizer) -> Int32? {
    (0..<Int32(min(tokenizer.vocabularySize, 8))).first { tokenizer.tokenText($0) == "<unk>" }
}

private func checkSpelling(of ids: [Int32], text: String, _ tokenizer: Tokenizer) throws(FuzzFinding) {
    guard !ids.contains(where: { tokenizer.isControl($0) }) else { return }
    let decoded = tokenizer.decode(ids, skipSpecial: false)
    // SentencePiece spells a space as U+2581, so that the two are one to it.
    var expected = text.unicodeScalars
    if isSentencePiece(tokenizer) { expected = String.UnicodeScalarView(text.unicodeScalars.map { $0 == "\u{2581}" ? " " : $0 }) }
    try promise(decoded.unicodeScalars.elementsEqual(expected), "decoding gives \(Array(decoded.utf8)) for \(Array(text.utf8))")
}

private func isSentencePiece(_ tokenizer: Tokenizer) -> Bool {
    tokenizer.encode("\u{2581}", addSpecial: false, parseSpecial: false).contains { tokenizer.tokenText($0).contains(" ") }
}

private func checkStream(of ids: [Int32], _ tokenizer: Tokenizer) throws(FuzzFinding) {
    var assembler = UTF8Assembler()
    var bytes: [UInt8] = []
    var streamed = ""
    for id in ids {
        var token: [UInt8] = []
        tokenizer.appendBytes(of: id, to: &token, includeSpecial: true)
        assembler.append(token, to: &streamed)
        bytes += token
    }
    streamed += assembler.finish()
    try promise(streamed.utf8.elementsEqual(String(decoding: bytes, as: UTF8.self).utf8), "the text of a stream is \(Array(streamed.utf8)) for \(bytes)")
}
