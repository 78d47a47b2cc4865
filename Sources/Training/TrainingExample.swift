/// Tokens that a model is trained on, as it would read and write them when serving.
public struct TokenizedExample: Sendable, Equatable {
    public var tokens: [Int32]
    /// Whether the loss counts how well token i is predicted from those before it: the assistant's words and the tokens that end its turns.
    /// As long as `tokens`; never set for the first token, which nothing predicts.
    public var isTrained: [Bool]

    public init(tokens: [Int32], isTrained: [Bool]) {
        precondition(tokens.count == isTrained.count && isTrained.first != true, "one mark for each token, and none on the first")
        self.tokens = tokens
        self.isTrained = isTrained
    }

    public var trainedCount: Int { isTrained.reduce(0) { $0 + ($1 ? 1 : 0) } }
}

/// Two answers to the same prompt, of which one is better.
public struct PreferencePair: Sendable, Equatable {
    public var chosen, rejected: TokenizedExample

    public init(chosen: TokenizedExample, rejected: TokenizedExample) {
        self.chosen = chosen
        self.rejected = rejected
    }
}

/// What a run learns from. All examples of a set are of one kind.
public enum TrainingExamples: Sendable, Equatable {
    case supervised([TokenizedExample])
    case preference([PreferencePair])

    public var count: Int {
        switch self {
        case .supervised(let examples): examples.count
        case .preference(let pairs): pairs.count
        }
    }

    /// Bytes that the examples take in memory: a token and its mark, and what an array costs.
    public var byteCount: Int {
        func bytes(_ example: TokenizedExample) -> Int { example.tokens.count * Self.tokenBytes + 2 * (MemoryLayout<[Int32]>.size + 32) }
        return switch self {
        case .supervised(let examples): examples.reduce(0) { $0 + bytes($1) }
        case .preference(let pairs): pairs.reduce(0) { $0 + bytes($1.chosen) + bytes($1.rejected) }
        }
    }

    /// Bytes of a token with its mark.
    public static let tokenBytes = MemoryLayout<Int32>.size + MemoryLayout<Bool>.size
}
