/// What an API key may be used for. A key has any number of these; none includes another.
public enum KeyScope: String, Sendable, CaseIterable {
    /// Generating, tokenising, looking at models and adapters, saying what an answer was worth.
    case infer
    /// Uploaded files and kept exchanges.
    case files
    /// Fine-tuning jobs, and changes of adapters.
    case train
    /// Keys, metrics, and what all owners share.
    case admin

    /// What a key gets when nobody says: everything that concerns its owner alone.
    public static let standard: Set<KeyScope> = [.infer, .files, .train]
}

extension Set<KeyScope> {
    /// In the order of declaration.
    public var sorted: [KeyScope] { KeyScope.allCases.filter { contains($0) } }
    /// `infer files`.
    public var text: String { sorted.map(\.rawValue).joined(separator: " ") }
}

/// How much one key may ask for. `nil`: what the server's settings say; 0: as much as it likes.
public struct KeyLimits: Sendable, Equatable {
    public var requestsPerMinute: Int?
    public var tokensPerMinute: Int?

    public init(requestsPerMinute: Int? = nil, tokensPerMinute: Int? = nil) {
        self.requestsPerMinute = requestsPerMinute
        self.tokensPerMinute = tokensPerMinute
    }
}
