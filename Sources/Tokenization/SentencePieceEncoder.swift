/// SentencePiece's byte-pair encoding: characters merge into whatever neighbouring pair is a token, the best score first; what is no
/// token in the end becomes byte tokens.
struct SentencePieceEncoder: Sendable {
    private let addsSpacePrefix: Bool
    /// By spelling (a space is U+2581); without control, unknown and byte tokens, which no text can merge into.
    private let pieces: TokenTable
    /// Of each token: lower merges first.
    private let priorities: ConstantBuffer<UInt32>
    private let wholeWords: WholeWords
    /// Token of each byte, -1 where the vocabulary lacks it.
    private let byteTokens: [Int32]
    private let unknown: Int32?
    /// Last bytes of characters that some token holds right before a U+2581; elsewhere a text can be cut there.
    private let joinsSpaceAfter: [Bool]

    /// Bytes of U+2581, which spells a space.
    static let spaceMark: [UInt8] = [0xE2, 0x96, 0x81]

    private struct Rule: MergeRule {
        let text: UnsafePointer<UInt8>
        let pieces: TokenTable
        let priorities: ConstantBuffer<UInt32>

        @inline(__always)
        func candidate(_ left: Symbol, _ right: Symbol) -> MergeCandidate {
            let id = pieces.id(of: text + Int(left.start), count: Int(right.end - left.start))
            return id < 0 ? .none : MergeCandidate(priority: priorities[Int(id)], id: id)
        }
    }

    init(_ vocabulary: Vocabulary, addsSpacePrefix: Bool, pieces: TokenTable) throws(TokenizationError) {
        guard vocabulary.scores.count == vocabulary.tokens.count else {
            throw TokenizationError(
                code: .invalidVocabulary,
                message: "\(vocabulary.scores.count) scores for \(vocabulary.tokens.count) tokens, expected one each; convert the model again")
        }
        self.addsSpacePrefix = addsSpacePrefix
        self.pieces = pieces
        var priorities: [UInt32] = []
        priorities.reserveCapacity(vocabulary.scores.count)
        for (id, score) in vocabulary.scores.enumerated() {
            guard !score.isNaN else {
                throw TokenizationError(
                    code: .invalidVocabulary,
                    message: "the score of token \(id) is not a number, expected a finite one; convert the model again")
            }
            priorities.append(Self.priority(of: score))
        }
        self.priorities = ConstantBuffer(priorities)
        wholeWords = WholeWords(tokenCount: vocabulary.tokens.count)
        var byteTokens = [Int32](repeating: -1, count: 256)
        var joins = [Bool](repeating: false, count: 256)
        for (id, token) in vocabulary.tokens.enumerated() {
            switch vocabulary.types[id] {
            case .byte:
                if let byte = Self.byte(spelledBy: token) { byteTokens[Int(byte)] = Int32(id) }
            case .normal, .userDefined:
                Self.noteJoins(in: token, &joins)
            default:
                break
            }
        }
        self.byteTokens = byteTokens
        joinsSpaceAfter = joins
        unknown = vocabulary.unknown
    }

    /// The value of `<0x0A>`.
    static func byte(spelledBy token: String) -> UInt8? {
        let utf8 = Array(token.utf8)
        guard utf8.count == 6, token.hasPrefix("<0x"), utf8[5] == UInt8(ascii: ">") else { return nil }
        return UInt8(token.dropFirst(3).dropLast(), radix: 16)
    }

    /// Maps scores to integers that rise as the scores fall.
    private static func priority(of score: Float) -> UInt32 {
        // Adding zero makes -0 and 0 the same.
        let bits = (score + 0).bitPattern
        let rising = bits & 0x8000_0000 == 0 ? bits | 0x8000_0000 : ~bits
        return ~rising
    }

    private static func noteJoins(in token: String, _ joins: inout [Bool]) {
        let utf8 = Array(token.utf8)
        guard utf8.count > 3 else { return }
        for offset in 1..<utf8.count - 2 where utf8[offset] == 0xE2 && utf8[offset + 1] == 0x96 && utf8[offset + 2] == 0x81 {
            let endsMark = offset >= 3 && utf8[offset - 3] == 0xE2 && utf8[offset - 2] == 0x96 && utf8[offset - 1] == 0x81
            if !endsMark { joins[Int(utf8[offset - 1])] = true }
        }
    }

    /// Appends the tokens of `text[start..<end]`, a stretch without special tokens.
    ///
    /// - Parameter followsSpecial: the stretch stands at the beginning or after a special token, where the space prefix belongs.
    func encode(
        _ text: UnsafePointer<UInt8>, from start: Int, to end: Int, followsSpecial: Bool, scratch: inout SymbolMerger, into ids: inout [Int32]
    ) {
        var escaped: [UInt8] = []
        escaped.reserveCapacity((end - start) * 3 / 2 + 3)
        if addsSpacePrefix, followsSpecial { escaped += Self.spaceMark }
        for offset in start..<end {
            if text[offset] == UInt8(ascii: " ") { escaped += Self.spaceMark } else { escaped.append(text[offset]) }
        }
        escaped.withUnsafeBufferPointer { buffer in
            guard let base = buffer.baseAddress else { return }
            var wordStart = 0
            while wordStart < buffer.count {
                let wordEnd = wordEnd(base, from: wordStart, to: buffer.count)
                encodeWord(base, wordStart, wordEnd, &scratch, &ids)
                wordStart = wordEnd
            }
        }
    }

    /// The first place after `start` at which a run of U+2581 begins that no token joins to the character before it.
    private func wordEnd(_ text: UnsafePointer<UInt8>, from start: Int, to end: Int) -> Int {
        var offset = start
        var afterMark = true
        while offset < end {
            if text[offset] == 0xE2, offset + 2 < end, text[offset + 1] == 0x96, text[offset + 2] == 0x81 {
                if !afterMark, !joinsSpaceAfter[Int(text[offset - 1])] { return offset }
                afterMark = true
                offset += 3
            } else {
                afterMark = false
                offset += 1
            }
        }
        return end
    }

    @inline(__always)
    private func encodeWord(_ text: UnsafePointer<UInt8>, _ start: Int, _ end: Int, _ scratch: inout SymbolMerger, _ ids: inout [Int32]) {
        let whole = pieces.id(of: text + start, count: end - start)
        if whole >= 0, wholeWords[whole] == .merges {
            ids.append(whole)
            return
        }
        mergeWord(text, start, end, &scratch)
        if whole >= 0, wholeWords[whole] == .unknown {
            wholeWords[whole] = scratch.symbols.count == 1 ? .merges : .staysSplit
        }
        var followsUnknown = false
        for symbol in scratch.symbols {
            if symbol.id >= 0 {
                ids.append(symbol.id)
                followsUnknown = false
            } else {
                followsUnknown = appendBytes(text, symbol, followsUnknown, &ids)
            }
        }
    }

    private func mergeWord(_ text: UnsafePointer<UInt8>, _ start: Int, _ end: Int, _ scratch: inout SymbolMerger) {
        scratch.symbols.removeAll(keepingCapacity: true)
        var offset = start
        while offset < end {
            let length = Self.characterLength(lead: text[offset])
            let id = pieces.id(of: text + offset, count: length)
            scratch.symbols.append(Symbol(id: id, start: Int32(offset), end: Int32(offset + length)))
            offset += length
        }
        scratch.merge(by: Rule(text: text, pieces: pieces, priorities: priorities))
    }

    @inline(__always)
    private static func characterLength(lead: UInt8) -> Int {
        if lead < 0x80 { return 1 }
        if lead < 0xE0 { return 2 }
        return lead < 0xF0 ? 3 : 4
    }

    /// Appends a character that is no token as bytes; without byte tokens, one unknown token stands for a whole run of such characters.
    /// Returns whether that is how it ended.
    private func appendBytes(_ text: UnsafePointer<UInt8>, _ symbol: Symbol, _ followsUnknown: Bool, _ ids: inout [Int32]) -> Bool {
        let bytes = Int(symbol.start)..<Int(symbol.end)
        if bytes.allSatisfy({ byteTokens[Int(text[$0])] >= 0 }) {
            for offset in bytes { ids.append(byteTokens[Int(text[offset])]) }
            return false
        }
        if let unknown, !followsUnknown { ids.append(unknown) }
        return true
    }
}
