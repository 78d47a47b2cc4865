import Adapters
import Modeling

/// Resolves the names of one base model and of the adapters that are published for it.
///
/// `name` is the adapter's promoted version (or its canary, for the canary's share of the requests), `name@3` that version, `name@latest` the
/// newest. A base's name or alias goes before an adapter's. Each owner has names of his own; the configured default is the operator's, and everybody's.
public struct AdapterModels: ModelResolver {
    private let base: ServedModel
    private let adapters: any AdapterService
    private let defaultAdapter: AdapterReference?

    /// - Parameter defaultAdapter: what requests get that name no model or `default`; `nil` is the base.
    public init(base: ServedModel, adapters: any AdapterService, defaultAdapter: AdapterReference? = nil) {
        self.base = base
        self.adapters = adapters
        self.defaultAdapter = defaultAdapter
    }

    public func isBase(_ name: String) -> Bool { name == base.name || base.aliases.contains(name) }

    public func resolve(_ query: ModelQuery) throws(APIError) -> ModelTarget {
        if let blend = query.blend {
            if let name = query.name, name != defaultModelName, !isBase(name) {
                if adapters.version(alias: name, owner: query.owner) != nil { throw .blendAndAdapter(name, base: base.name) }
                guard let reference = AdapterReference(name), adapters.record(named: reference.name, owner: query.owner)?.version(reference.selector) != nil
                else {
                    throw .modelNotFound(name)
                }
                throw .blendAndAdapter(name, base: base.name)
            }
            return try target(blend, owner: query.owner, stickyKey: query.stickyKey)
        }
        if let name = query.name, name != defaultModelName {
            if isBase(name) { return ModelTarget(base: base) }
            if let version = adapters.version(alias: name, owner: query.owner) {
                try check(version, param: "model")
                return ModelTarget(name: name, label: version.name, base: base, parts: [ModelTarget.Part(version: version, weight: 1)])
            }
            guard let reference = AdapterReference(name) else { throw .modelNotFound(name) }
            return try target(reference, owner: query.owner, stickyKey: query.stickyKey)
        }
        guard let defaultAdapter else { return ModelTarget(base: base) }
        return try target(defaultAdapter, owner: Owner.local, stickyKey: query.stickyKey)
    }

    private func target(_ reference: AdapterReference, owner: String, stickyKey: String?) throws(APIError) -> ModelTarget {
        guard let version = adapters.resolve(reference, owner: owner, stickyKey: stickyKey) else {
            throw .modelNotFound(reference.description)
        }
        try check(version, param: "model")
        return ModelTarget(
            name: reference.selector == .promoted ? version.name : version.qualifiedName, label: version.name, base: base,
            parts: [ModelTarget.Part(version: version, weight: 1)])
    }

    private func target(_ blend: [BlendEntry], owner: String, stickyKey: String?) throws(APIError) -> ModelTarget {
        var target = ModelTarget(base: base)
        target.isBlend = true
        var bareNames: Set<String> = []
        var versions: Set<String> = []
        for entry in blend {
            let reference: AdapterReference? =
                switch entry.adapter {
                case .reference(let reference): reference
                case .id(let id): adapters.record(id: id, owner: owner).map { AdapterReference(name: $0.name) }
                }
            guard let reference, let version = adapters.resolve(reference, owner: owner, stickyKey: stickyKey) else {
                throw .adapterNotFound(entry.spelling, param: entry.param)
            }
            // One adapter can be spelt in several ways, and one bare name can be drawn differently twice.
            let isNew = versions.insert(version.qualifiedName).inserted && (reference.selector != .promoted || bareNames.insert(reference.name).inserted)
            guard isNew else { throw .duplicateAdapter(entry.spelling, param: entry.param) }
            // What is not applied need not be servable.
            if entry.scale == 0 { continue }
            try check(version, param: entry.param)
            target.parts.append(ModelTarget.Part(version: version, weight: entry.scale))
        }
        guard target.parts.count <= AdapterSet.maximumCount else {
            throw .invalidValue("lora", "'lora' applies \(target.parts.count) adapters, expected at most \(AdapterSet.maximumCount) with a scale other than 0")
        }
        return target
    }

    private func check(_ version: AdapterVersion, param: String?) throws(APIError) {
        if let reason = version.quarantine { throw .adapterQuarantined(version.qualifiedName, reason, param: param) }
        guard version.baseDigest == adapters.base.digest else {
            throw .adapterWrongBase(version, served: adapters.base, param: param)
        }
    }

    // MARK: - Cards

    public func cards(owner: String) -> [ModelCard] {
        [base.card]
            + adapters.records(owner: owner).compactMap { record in
                guard let version = record.promotedVersion, version.quarantine == nil, version.baseDigest == adapters.base.digest else { return nil }
                return card(of: version, id: record.name)
            }
    }

    public func card(_ name: String?, owner: String) throws(APIError) -> ModelCard {
        let reference: AdapterReference
        var owner = owner
        if let name, name != defaultModelName {
            if isBase(name) { return base.card }
            if let version = adapters.version(alias: name, owner: owner) {
                try check(version, param: "model")
                return card(of: version, id: name)
            }
            guard let named = AdapterReference(name) else { throw .modelNotFound(name) }
            reference = named
        } else {
            guard let defaultAdapter else { return base.card }
            reference = defaultAdapter
            owner = Owner.local
        }
        // The promoted version, also while a canary takes some of its requests: a card is not drawn by lot.
        guard let version = adapters.record(named: reference.name, owner: owner)?.version(reference.selector) else {
            throw .modelNotFound(name ?? reference.name)
        }
        try check(version, param: "model")
        return card(of: version, id: reference.selector == .promoted ? version.name : version.qualifiedName)
    }

    private func card(of version: AdapterVersion, id: String) -> ModelCard {
        ModelCard(
            id: id, root: version.name, created: version.createdAt, ownedBy: version.owner, parent: base.name, contextLength: base.contextLength,
            digest: version.digest,
            version: version.number)
    }
}

extension AdapterRecord {
    /// The version that the bare name stands for, canaries left aside.
    var promotedVersion: AdapterVersion? { version(.promoted) }

    func version(_ selector: AdapterReference.Selector) -> AdapterVersion? {
        switch selector {
        case .promoted: promoted.flatMap { number in versions.first { $0.number == number } }
        case .latest: versions.last
        case .number(let number): versions.first { $0.number == number }
        }
    }
}
