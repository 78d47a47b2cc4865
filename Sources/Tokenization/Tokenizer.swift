import GGUF

/// Turns text into the token ids of one model and back. Immutable: any number of threads may use one at once.
///
/// **Special tokens.** User-defined tokens (type 4 of `tokenizer.ggml.token_type`: runs of white space, `<tool_call>`) are parts of the
/// text: they are matched whole in any text before it is split, as Hugging Face's added tokens and llama.cpp do. Control tokens and the
/// unknown token, and every token that is spelled like one (`<|…|>`), are matched only in trusted text; elsewhere their spelling is
/// encoded like any other characters. The leftmost match wins, then the longest.
///
/// Text is not normalised: decoding gives back what was encoded, but for bytes that a vocabulary has no token for.
public final class Tokenizer: Sendable {
    /// How many ids there are; ids run from 0.
    public let vocabularySize: Int
    /// Beginning of text, where the model has one.
    public let bos: Int32?
    /// End of text, where the model has one.
    public let eos: Int32?
    /// The tokens after which generation stops: end of text, of a turn, of a message, and others known by their spelling.
    public let endOfGeneration: Set<Int32>
    /// Whether `encode(addSpecial: true)` begins with `bos`.
    public let addsBOS: Bool
    /// Whether `encode(addSpecial: true)` ends with `eos`.
    public let addsEOS: Bool

    enum Encoder: Sendable {
        case bytePairs(BytePairEncoder)
        case sentencePiece(SentencePieceEncoder)
    }

    let encoder: Encoder
    let specialTokens: SpecialTokenMatcher
    let stripsSpacePrefix: Bool
    /// Bytes that each token stands for in text: `offsets[id]..<offsets[id + 1]`.
    let tokenBytes: ConstantBuffer<UInt8>
    let tokenOffsets: ConstantBuffer<UInt32>
    let types: [Vocabulary.TokenType]

    /// Builds the tokenizer that a GGUF file describes.
    ///
    /// - Throws: `.missingMetadata`, `.invalidMetadata`, `.unsupportedModel`, `.unsupportedPreTokenizer`, `.invalidVocabulary`.
    public convenience init(metadata: GGUFMetadata) throws(TokenizationError) {
        try self.init(vocabulary: Vocabulary(metadata: metadata))
    }

    /// - Throws: `.invalidVocabulary` when tokens, types, scores or merges contradict one another.
    public init(vocabulary original: Vocabulary) throws(TokenizationError) {
        try original.validate()
        let roles = SpecialTokenRoles(original)
        var vocabulary = original
        vocabulary.types = roles.types
        let spellings = TokenSpellings(vocabulary)
        func ids(of types: Vocabulary.TokenType...) -> [Int32] {
            vocabulary.types.indices.filter { types.contains(vocabulary.types[$0]) }.map { Int32($0) }
        }
        // A normal token is what merging means when another one has the same bytes.
        let mergeable = ids(of: .normal, .undefined) + ids(of: .userDefined)
        switch vocabulary.model {
        case .bytePairs(let preTokenizer, let ignoresMerges):
            let words = TokenTable(bytes: spellings.bytes, offsets: spellings.offsets, ids: mergeable + ids(of: .unused))
            encoder = .bytePairs(try BytePairEncoder(vocabulary, preTokenizer: preTokenizer, ignoresMerges: ignoresMerges, words: words))
            stripsSpacePrefix = false
        case .sentencePiece(let addsSpacePrefix):
            let escaped = TokenSpellings(escapingSpacesOf: vocabulary)
            let pieces = TokenTable(bytes: escaped.bytes, offsets: escaped.offsets, ids: mergeable)
            encoder = .sentencePiece(try SentencePieceEncoder(vocabulary, addsSpacePrefix: addsSpacePrefix, pieces: pieces))
            stripsSpacePrefix = addsSpacePrefix
        }
        specialTokens = SpecialTokenMatcher(roles.matched.map { (vocabulary.tokens[Int($0.id)], $0.id, $0.isGuarded) })
        tokenBytes = ConstantBuffer(spellings.bytes)
        tokenOffsets = ConstantBuffer(spellings.offsets)
        types = vocabulary.types
        vocabularySize = vocabulary.tokens.count
        bos = vocabulary.bos
        eos = vocabulary.eos
        endOfGeneration = roles.endOfGeneration
        addsBOS = vocabulary.addsBOS && vocabulary.bos != nil
        addsEOS = vocabulary.addsEOS && vocabulary.eos != nil
    }

    // MARK: Encoding

    /// The token ids of a text.
    ///
    /// - Parameters:
    ///   - addSpecial: put `bos` first and `eos` last where the model asks for them; not a second time where the text itself has them.
    ///   - parseSpecial: the text is trusted: control tokens that it spells are recognised.
    public func encode(_ text: String, addSpecial: Bool, parseSpecial: Bool) -> [Int32] {
        var text = text
        return text.withUTF8 { encode($0, trusted: parseSpecial && !$0.isEmpty ? [0..<$0.count] : [], addSpecial: addSpecial) }
    }

    /// The token ids of a prompt whose parts are trusted or not.
    ///
    /// The pieces are one text: words and user-defined tokens form over their borders as if there were none. Only control tokens look at
    /// the borders: all of their characters must be trusted.
    public func encode(_ pieces: [TextPiece], addSpecial: Bool) -> [Int32] {
        let (bytes, trusted) = Self.joined(pieces)
        return bytes.withUnsafeBufferPointer { encode($0, trusted: trusted, addSpecial: addSpecial) }
    }

    /// Tokens, and where among them stand the special tokens whose every character was trusted.
    struct MarkedTokens {
        var ids: [Int32]
        var marks: [Int]
    }

    /// The token ids of a prompt's parts without the ones that `addSpecial` would add, and the places of the special tokens that are surely
    /// the template's own.
    ///
    /// - Parameter continuesText: the pieces go on behind other text, so that no space is put before them.
    func encodeMarked(_ pieces: [TextPiece], continuesText: Bool = false) -> MarkedTokens {
        let (bytes, trusted) = Self.joined(pieces)
        var marked = MarkedTokens(ids: [], marks: [])
        marked.ids.reserveCapacity(bytes.count / 3 + 4)
        bytes.withUnsafeBufferPointer { text in
            guard let base = text.baseAddress else { return }
            encode(base, count: text.count, trusted: trusted, continuesText: continuesText, into: &marked.ids) { marked.marks.append($0) }
        }
        return marked
    }

    /// The text of all pieces, and the trusted ranges of it, in rising order, no two of them touching.
    private static func joined(_ pieces: [TextPiece]) -> (bytes: [UInt8], trusted: [Range<Int>]) {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(pieces.reduce(0) { $0 + $1.text.utf8.count })
        var trusted: [Range<Int>] = []
        for piece in pieces {
            let start = bytes.count
            bytes += piece.text.utf8
            guard piece.isTrusted, bytes.count > start else { continue }
            if let last = trusted.last, last.upperBound == start {
                trusted[trusted.count - 1] = last.lowerBound..<bytes.count
            } else {
                trusted.append(start..<bytes.count)
            }
        }
        return (bytes, trusted)
    }

    /// - Parameter trusted: byte ranges in rising order, no two of them touching.
    private func encode(_ text: UnsafeBufferPointer<UInt8>, trusted: [Range<Int>], addSpecial: Bool) -> [Int32] {
        var ids: [Int32] = []
        ids.reserveCapacity(text.count / 3 + 4)
        if let base = text.baseAddress { encode(base, count: text.count, trusted: trusted, continuesText: false, into: &ids) { _ in } }
        if addSpecial {
            if addsBOS, let bos, ids.first != bos { ids.insert(bos, at: 0) }
            if addsEOS, let eos, ids.last != eos { ids.append(eos) }
        }
        return ids
    }

    /// - Parameter mark: gets the place among `ids` of each special token that is trusted as a whole.
    @inline(__always)
    private func encode(
        _ text: UnsafePointer<UInt8>, count: Int, trusted: [Range<Int>], continuesText: Bool, into ids: inout [Int32], mark: (Int) -> Void
    ) {
        var scratch = SymbolMerger()
        var range = 0
        var plainStart = 0
        var followsSpecial = !continuesText
        var offset = 0
        while true {
            offset = specialTokens.candidate(in: text, from: offset, to: count)
            if offset >= count { break }
            while range < trusted.count, trusted[range].upperBound <= offset { range += 1 }
            let trustedEnd = range < trusted.count && trusted[range].lowerBound <= offset ? trusted[range].upperBound : 0
            guard let match = specialTokens.longestMatch(in: text, at: offset, to: count, trustedEnd: trustedEnd) else {
                offset += 1
                continue
            }
            encodePlain(text, plainStart, offset, followsSpecial, &scratch, &ids)
            if match.end <= trustedEnd { mark(ids.count) }
            ids.append(match.id)
            followsSpecial = true
            offset = match.end
            plainStart = offset
        }
        encodePlain(text, plainStart, count, followsSpecial, &scratch, &ids)
    }

    private func encodePlain(
        _ text: UnsafePointer<UInt8>, _ start: Int, _ end: Int, _ followsSpecial: Bool, _ scratch: inout SymbolMerger, _ ids: inout [Int32]
    ) {
        if start >= end { return }
        switch encoder {
        case .bytePairs(let encoder):
            encoder.encode(text, from: start, to: end, scratch: &scratch, into: &ids)
        case .sentencePiece(let encoder):
            encoder.encode(text, from: start, to: end, followsSpecial: followsSpecial, scratch: &scratch, into: &ids)
        }
    }
}
