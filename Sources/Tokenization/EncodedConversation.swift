/// A conversation as a model is trained on it.
public struct EncodedConversation: Sendable, Equatable {
    /// Tokens that the model reads and writes in one go.
    public struct Stretch: Sendable, Equatable {
        public var tokens: [Int32]
        /// In rising order.
        public var answers: [Answer]

        public init(tokens: [Int32], answers: [Answer]) {
            self.tokens = tokens
            self.answers = answers
        }
    }

    /// What the model should write for one message: its content and the token that ends the turn. The tokens before it are those that serving
    /// feeds to the model when it asks for this message.
    public struct Answer: Sendable, Equatable {
        /// The place of the message in the conversation.
        public var message: Int
        public var tokens: Range<Int>

        public init(message: Int, tokens: Range<Int>) {
            self.message = message
            self.tokens = tokens
        }
    }

    /// A message that was to be trained and cannot be.
    public struct Untrained: Sendable, Equatable {
        public var message: Int
        public var reason: String

        public init(message: Int, reason: String) {
            self.message = message
            self.reason = reason
        }
    }

    /// One, unless the template writes an answer differently once the conversation has gone on (templates of reasoning models leave out
    /// earlier thoughts): then the conversation up to that answer is a stretch of its own. Each answer is in one stretch only.
    public var stretches: [Stretch] = []
    public var untrained: [Untrained] = []
    /// Answers that begin beyond the limit.
    public var skippedAnswerCount = 0
    /// Tokens of the whole conversation.
    public var wholeTokenCount = 0

    public init() {}
}
