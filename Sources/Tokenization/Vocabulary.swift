/// What a model file says about its tokens, before any table is built from it.
public struct Vocabulary: Sendable {
    /// The part that a token plays; the numbers are those of `tokenizer.ggml.token_type`.
    public enum TokenType: UInt8, Sendable {
        case undefined = 0
        case normal = 1
        case unknown = 2
        /// Never written by a user: beginning and end of text, turn borders.
        case control = 3
        /// Matched as a whole in any text before it is split, and shown in answers.
        case userDefined = 4
        case unused = 5
        /// One byte, spelled `<0x0A>`.
        case byte = 6
    }

    public enum Model: Sendable, Equatable {
        /// Byte-level byte-pair encoding as GPT-2's: `merges` decide. With `ignoresMerges`, a word that is itself a token is taken whole.
        case bytePairs(PreTokenizer, ignoresMerges: Bool)
        /// SentencePiece's byte-pair encoding: `scores` decide, characters without a token become bytes. A space is spelled U+2581; with
        /// `addsSpacePrefix` one is put before text that stands at the beginning or follows a special token.
        case sentencePiece(addsSpacePrefix: Bool)
    }

    public var model: Model
    /// Spelling of each token, by id.
    public var tokens: [String]
    /// One per token.
    public var types: [TokenType]
    /// One per token for `.sentencePiece`; higher merges first.
    public var scores: [Float] = []
    /// For `.bytePairs`, most urgent first: `left right`, in GPT-2's byte alphabet.
    public var merges: [String] = []

    public var bos: Int32?
    public var eos: Int32?
    /// End of a turn, of a message: generation ends there too.
    public var eot: Int32?
    public var eom: Int32?
    public var unknown: Int32?
    /// Fill-in-the-middle markers after which nothing of the asked-for text follows (padding, repository, file separator).
    public var fillEnds: [Int32] = []
    /// Whether `encode(addSpecial: true)` puts `bos` first, `eos` last.
    public var addsBOS = false
    public var addsEOS = false

    public init(model: Model, tokens: [String], types: [TokenType]) {
        self.model = model
        self.tokens = tokens
        self.types = types
    }
}

extension Vocabulary {
    /// - Throws: `.invalidVocabulary` when the parts do not fit together.
    func validate() throws(TokenizationError) {
        guard !tokens.isEmpty, tokens.count <= Self.maximumTokenCount else {
            throw TokenizationError(
                code: .invalidVocabulary,
                message: "the vocabulary has \(tokens.count) tokens, expected 1 to \(Self.maximumTokenCount); use a GGUF file that carries its tokenizer")
        }
        guard types.count == tokens.count else {
            throw TokenizationError(
                code: .invalidVocabulary, message: "\(types.count) token types for \(tokens.count) tokens, expected one each; convert the model again")
        }
        let named = [("bos", bos), ("eos", eos), ("eot", eot), ("eom", eom), ("unknown", unknown)] + fillEnds.map { ("fill end", $0) }
        for (name, id) in named {
            guard let id, id < 0 || Int(id) >= tokens.count else { continue }
            throw TokenizationError(
                code: .invalidVocabulary, message: "the \(name) token is \(id), expected an id below \(tokens.count); convert the model again")
        }
    }

    /// Far beyond published vocabularies, so that a hostile file cannot overflow the 32-bit tables.
    private static let maximumTokenCount = 1 << 24
}
