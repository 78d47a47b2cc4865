import Adapters
import Tokenization

/// A model as the API sees it: its name, how text becomes tokens, and what the model's card says.
public struct ServedModel: Sendable {
    /// The canonical name: in answers, in metrics and in `GET /v1/models`.
    public var name: String
    /// Further names that requests may use.
    public var aliases: [String]
    /// How text and conversations become tokens.
    public var encoder: ConversationEncoder
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
        encoder = ConversationEncoder(tokenizer: tokenizer, chatTemplate: chatTemplate)
        self.contextLength = contextLength
        self.created = created
        self.digest = digest
    }

    public var tokenizer: Tokenizer { encoder.tokenizer }
    /// `nil` for a base model, whose conversations are written as a plain transcript.
    public var chatTemplate: ChatTemplate? { encoder.chatTemplate }

    /// OpenAI's `system_fingerprint`: equal as long as the weights are.
    var fingerprint: String { "fp_" + digest.prefix(12) }

    /// The card of the model itself.
    var card: ModelCard {
        ModelCard(id: name, created: created, ownedBy: "graft", parent: nil, contextLength: contextLength, digest: digest)
    }
}

/// What a request says about the model that is to answer it.
public struct ModelQuery: Sendable {
    /// `nil` and `default` ask for the configured default.
    public var name: String?
    /// Whose adapters may be named.
    public var owner: String
    /// The base model with these adapters; an empty list is the base model alone. `nil`: what the name stands for.
    public var blend: [BlendEntry]?
    /// Equal keys get the same version of an adapter whose traffic is divided; `nil` draws anew for each request.
    public var stickyKey: String?

    public init(name: String?, owner: String, blend: [BlendEntry]? = nil, stickyKey: String? = nil) {
        self.name = name
        self.owner = owner
        self.blend = blend
        self.stickyKey = stickyKey
    }
}

/// What a request's words stand for. Found once, when the request comes; it keeps what it got until it ends.
public struct ModelTarget: Sendable {
    /// One version of an adapter, and how strongly it is applied.
    public struct Part: Sendable {
        public var version: AdapterVersion
        public var weight: Float

        public init(version: AdapterVersion, weight: Float) {
            self.version = version
            self.weight = weight
        }
    }

    /// The name that answers carry: the base's, an adapter's, or an adapter's with the number of the version that the request asked for.
    public var name: String
    /// The name that metrics carry: the base's or an adapter's, never the client's own spelling.
    public var label: String
    public var base: ServedModel
    /// In the order of the request; empty for the base alone.
    public var parts: [Part]
    /// Chosen by `lora` and not by name.
    public var isBlend: Bool

    public init(name: String, label: String, base: ServedModel, parts: [Part] = [], isBlend: Bool = false) {
        self.name = name
        self.label = label
        self.base = base
        self.parts = parts
        self.isBlend = isBlend
    }

    /// The base model alone.
    public init(base: ServedModel) {
        self.init(name: base.name, label: base.name, base: base)
    }
}

/// One entry of `GET /v1/models`.
public struct ModelCard: Sendable {
    public var id: String
    /// The name without a version.
    public var root: String
    /// Seconds since 1970 UTC.
    public var created: Int
    public var ownedBy: String
    /// The base of an adapter; `nil` for a base.
    public var parent: String?
    public var contextLength: Int
    public var digest: String
    /// The version of an adapter.
    public var version: Int?

    /// - Parameter root: `nil` is `id`.
    public init(
        id: String, root: String? = nil, created: Int, ownedBy: String, parent: String?, contextLength: Int, digest: String, version: Int? = nil
    ) {
        self.id = id
        self.root = root ?? id
        self.created = created
        self.ownedBy = ownedBy
        self.parent = parent
        self.contextLength = contextLength
        self.digest = digest
        self.version = version
    }
}

/// Finds what a request's words stand for. Called on the server's thread and on the preparing threads; must not block.
public protocol ModelResolver: Sendable {
    /// - Throws: `model_not_found` for a name that is not served, and other refusals that say why a known one is not.
    func resolve(_ query: ModelQuery) throws(APIError) -> ModelTarget
    /// All models that an owner may name.
    func cards(owner: String) -> [ModelCard]
    /// The card of one name; `nil` and `default` ask for the configured default. Another owner's adapter is `model_not_found` like what there is not.
    func card(_ name: String?, owner: String) throws(APIError) -> ModelCard
    /// Whether a name is that of a base model, or one of its aliases.
    func isBase(_ name: String) -> Bool
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

    public func resolve(_ query: ModelQuery) throws(APIError) -> ModelTarget {
        if query.blend?.isEmpty == false {
            throw .unsupportedParameter("lora", "this server runs without adapters; leave it out")
        }
        return ModelTarget(base: try model(query.name))
    }

    public func cards(owner: String) -> [ModelCard] { models.map(\.card) }

    public func card(_ name: String?, owner: String) throws(APIError) -> ModelCard { try model(name).card }

    public func isBase(_ name: String) -> Bool { byName[name] != nil }

    private func model(_ name: String?) throws(APIError) -> ServedModel {
        guard let name, name != defaultModelName else { return models[0] }
        guard let index = byName[name] else { throw .modelNotFound(name) }
        return models[index]
    }
}

/// The name that stands for the configured default.
let defaultModelName = "default"
