import Tokenization

/// A model as the API sees it: its name, how text becomes tokens, and what the model's card says.
public struct ServedModel: Sendable {
    /// The canonical name: in answers, in metrics and in `GET /v1/models`.
    public var name: String
    /// Further names that requests may use.
    public var aliases: [String]
    public var tokenizer: Tokenizer
    /// `nil` for a base model, whose conversations are written as a plain transcript (`PlainTranscript`).
    public var chatTemplate: ChatTemplate?
    /// The most tokens of prompt and answer together.
    public var contextLength: Int
    /// Seconds since 1970 UTC.
    public var created: Int
    /// The model file's SHA-256 in lower-case hexadecimal; its beginning is the `system_fingerprint`.
    public var digest: String

    public init(
        name: String, aliases: [String] = [], tokenizer: Tokenizer, chatTemplate: ChatTemplate?, contextLength: Int, created: Int, digest: String
    ) {
        self.name = name
        self.aliases = aliases
        self.tokenizer = tokenizer
        self.chatTemplate = chatTemplate
        self.contextLength = contextLength
        self.created = created
        self.digest = digest
    }

    /// OpenAI's `system_fingerprint`: equal as long as the weights are.
    var fingerprint: String { "fp_" + digest.prefix(12) }
}

/// What a model name in a request stands for. A request keeps what it got until it ends.
public struct ModelTarget: Sendable {
    /// The name that answers and metrics carry; always from a bounded set, never the client's own spelling.
    public var name: String
    public var base: ServedModel

    public init(name: String, base: ServedModel) {
        self.name = name
        self.base = base
    }
}

/// One entry of `GET /v1/models`.
public struct ModelCard: Sendable {
    public var id: String
    /// Seconds since 1970 UTC.
    public var created: Int
    public var ownedBy: String
    /// The base of an adapter; `nil` for a base.
    public var parent: String?
    public var contextLength: Int
    public var digest: String

    public init(id: String, created: Int, ownedBy: String, parent: String?, contextLength: Int, digest: String) {
        self.id = id
        self.created = created
        self.ownedBy = ownedBy
        self.parent = parent
        self.contextLength = contextLength
        self.digest = digest
    }
}

/// Finds what a model name stands for. Called on the server's thread and on the preparing threads; must not block.
public protocol ModelResolver: Sendable {
    /// - Parameter name: `nil` and `default` ask for the configured default.
    /// - Returns: `nil` for a name that is not served.
    func resolve(_ name: String?) -> ModelTarget?
    /// All models that a client may name.
    func cards() -> [ModelCard]
}

/// Resolves the names and aliases of a fixed list of models; the first one is the default.
public struct FixedModels: ModelResolver {
    private let models: [ServedModel]
    private let byName: [String: Int]

    /// - Parameter models: at least one. Where two share a name or alias, the earlier one has it, and a name goes before an alias.
    public init(_ models: [ServedModel]) {
        precondition(!models.isEmpty, "there must be a model to serve")
        self.models = models
        var byName: [String: Int] = [:]
        for (index, model) in models.enumerated() where byName[model.name] == nil { byName[model.name] = index }
        for (index, model) in models.enumerated() {
            for alias in model.aliases where byName[alias] == nil { byName[alias] = index }
        }
        self.byName = byName
    }

    public func resolve(_ name: String?) -> ModelTarget? {
        guard let index = name == nil || name == "default" ? 0 : byName[name!] else { return nil }
        return ModelTarget(name: models[index].name, base: models[index])
    }

    public func cards() -> [ModelCard] {
        models.map {
            ModelCard(id: $0.name, created: $0.created, ownedBy: "graft", parent: nil, contextLength: $0.contextLength, digest: $0.digest)
        }
    }
}
