/// Why a vocabulary could not be used. The message names the key or token, what was found, what was expected and the way out.
public struct TokenizationError: Error, Sendable, Equatable, CustomStringConvertible {
    public enum Code: String, Sendable {
        /// A metadata key that the tokenizer cannot do without is absent.
        case missingMetadata
        /// A metadata key has another type, length or value range than its meaning allows.
        case invalidMetadata
        /// `tokenizer.ggml.model` names a kind of tokenizer that is not implemented.
        case unsupportedModel
        /// `tokenizer.ggml.pre` names a pre-tokenizer that is not implemented.
        case unsupportedPreTokenizer
        /// The tokens, merges or scores contradict one another.
        case invalidVocabulary
    }

    public let code: Code
    public let message: String

    public init(code: Code, message: String) {
        self.code = code
        self.message = message
    }

    public var description: String { message }
}
