import GGUF

extension Vocabulary {
    /// Reads the `tokenizer.*` keys of a GGUF file.
    ///
    /// - Throws: `.missingMetadata`, `.invalidMetadata`, `.unsupportedModel`, `.unsupportedPreTokenizer`.
    public init(metadata: GGUFMetadata) throws(TokenizationError) {
        let reader = TokenizerMetadata(metadata)
        let kind = try reader.required(Key.model) { (key) throws(GGUFError) in try metadata.string(key) }
        let tokens = try reader.required(Key.tokens) { (key) throws(GGUFError) in try metadata.strings(key) }
        let types = try Self.types(of: tokens, reader)
        switch kind {
        case "gpt2":
            let (preTokenizer, name) = try Self.preTokenizer(reader)
            let ignoresMerges = Self.namesThatIgnoreMerges.contains(name)
            self.init(model: .bytePairs(preTokenizer, ignoresMerges: ignoresMerges), tokens: tokens, types: types)
            merges = try reader.required(Key.merges) { (key) throws(GGUFError) in try metadata.strings(key) }
            addsBOS = ignoresMerges
        case "llama":
            let addsSpacePrefix = try reader.optional(Key.addsSpacePrefix) { (key) throws(GGUFError) in try metadata.bool(key) } ?? true
            self.init(model: .sentencePiece(addsSpacePrefix: addsSpacePrefix), tokens: tokens, types: types)
            scores = try reader.required(Key.scores) { (key) throws(GGUFError) in try metadata.floats(key) }
            addsBOS = true
            if tokens.count > 2 { (unknown, bos, eos) = (0, 1, 2) }
        default:
            throw TokenizationError(
                code: .unsupportedModel,
                message: """
                    \(Key.model) is "\(kind)", expected "gpt2" (byte-pair encoding) or "llama" (SentencePiece); choose a model with one of these \
                    tokenizers
                    """)
        }
        bos = try reader.tokenID(Key.bos, count: tokens.count) ?? bos
        eos = try reader.tokenID(Key.eos, count: tokens.count) ?? eos
        eot = try reader.tokenID(Key.eot, count: tokens.count)
        eom = try reader.tokenID(Key.eom, count: tokens.count)
        unknown = try reader.tokenID(Key.unknown, count: tokens.count) ?? unknown
        for key in Key.fillEnds {
            if let id = try reader.tokenID(key, count: tokens.count) { fillEnds.append(id) }
        }
        addsBOS = try reader.optional(Key.addsBOS) { (key) throws(GGUFError) in try metadata.bool(key) } ?? addsBOS
        addsEOS = try reader.optional(Key.addsEOS) { (key) throws(GGUFError) in try metadata.bool(key) } ?? addsEOS
    }

    private enum Key {
        static let model = "tokenizer.ggml.model"
        static let preTokenizer = "tokenizer.ggml.pre"
        static let tokens = "tokenizer.ggml.tokens"
        static let types = "tokenizer.ggml.token_type"
        static let scores = "tokenizer.ggml.scores"
        static let merges = "tokenizer.ggml.merges"
        static let bos = "tokenizer.ggml.bos_token_id"
        static let eos = "tokenizer.ggml.eos_token_id"
        static let eot = "tokenizer.ggml.eot_token_id"
        static let eom = "tokenizer.ggml.eom_token_id"
        static let unknown = "tokenizer.ggml.unknown_token_id"
        static let fillEnds = ["tokenizer.ggml.fim_pad_token_id", "tokenizer.ggml.fim_rep_token_id", "tokenizer.ggml.fim_sep_token_id"]
        static let addsBOS = "tokenizer.ggml.add_bos_token"
        static let addsEOS = "tokenizer.ggml.add_eos_token"
        static let addsSpacePrefix = "tokenizer.ggml.add_space_prefix"
    }

    /// Llama 3's own names: there a word that is a token is taken whole, and `bos` is added unless the file says otherwise.
    private static let namesThatIgnoreMerges: Set<String> = ["llama-bpe", "llama3", "llama-v3"]

    private static func preTokenizer(_ reader: TokenizerMetadata) throws(TokenizationError) -> (PreTokenizer, name: String) {
        let metadata = reader.metadata
        let name = try reader.optional(Key.preTokenizer) { (key) throws(GGUFError) in try metadata.string(key) } ?? "default"
        guard let preTokenizer = PreTokenizer(name: name) else {
            let known = PreTokenizer.names.map { $0.name }.joined(separator: ", ")
            throw TokenizationError(
                code: .unsupportedPreTokenizer,
                message: """
                    \(Key.preTokenizer) is "\(name)", expected one of \(known); another splitter would give the model other tokens than it \
                    learnt, so choose a model with one of these
                    """)
        }
        return (preTokenizer, name)
    }

    private static func types(of tokens: [String], _ reader: TokenizerMetadata) throws(TokenizationError) -> [TokenType] {
        let metadata = reader.metadata
        guard let numbers = try reader.optional(Key.types, { (key) throws(GGUFError) in try metadata.integers(key) }) else {
            // Old files carry no types.
            return tokens.map { token in
                if SentencePieceEncoder.byte(spelledBy: token) != nil { return .byte }
                return SpecialTokenRoles.isBracketed(token) ? .control : .normal
            }
        }
        guard numbers.count == tokens.count else {
            throw TokenizationError(
                code: .invalidMetadata,
                message: "\(Key.types) has \(numbers.count) entries for the \(tokens.count) of \(Key.tokens), expected as many; convert the model again")
        }
        return numbers.map { UInt8(exactly: $0).flatMap(TokenType.init(rawValue:)) ?? .undefined }
    }
}

/// Reads metadata with this target's errors.
private struct TokenizerMetadata {
    let metadata: GGUFMetadata

    init(_ metadata: GGUFMetadata) { self.metadata = metadata }

    func optional<Value>(_ key: String, _ read: (String) throws(GGUFError) -> Value?) throws(TokenizationError) -> Value? {
        do throws(GGUFError) {
            return try read(key)
        } catch {
            throw TokenizationError(code: .invalidMetadata, message: error.message)
        }
    }

    func required<Value>(_ key: String, _ read: (String) throws(GGUFError) -> Value?) throws(TokenizationError) -> Value {
        guard let value = try optional(key, read) else {
            throw TokenizationError(
                code: .missingMetadata,
                message: "the file has no \(key), without which text cannot become tokens; use a GGUF file that carries its tokenizer")
        }
        return value
    }

    /// A token id; an id outside of the vocabulary is as good as none.
    func tokenID(_ key: String, count: Int) throws(TokenizationError) -> Int32? {
        guard let id = try optional(key, { (key) throws(GGUFError) in try metadata.integer(key) }), id >= 0, id < count else { return nil }
        return Int32(id)
    }
}
