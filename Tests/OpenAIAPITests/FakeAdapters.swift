import Adapters
import GGUF
import Modeling
import OpenAIAPI
import Synchronization
import Testing

/// Adapters without files: what is published stays in memory as a name and numbers. Numbers and packed objects go by name alone, so owners must not share names.
final class FakeAdapters: AdapterService {
    struct Publication {
        var content: AdapterContent
        var name: String
        var source: AdapterSource
        var promote: Bool
    }

    struct State {
        var records: [AdapterRecord] = []
        var lastID = 0
        var lastNumbers: [String: Int] = [:]
        var history: [String: [Int]] = [:]
        var resident: [String: Adapter] = [:]
        var loads: [String] = []
        var evictions: [String: UInt64] = [:]
        var publications: [Publication] = []
        /// Further names, each of a version.
        var aliases: [String: String] = [:]
        /// The sticky keys of all calls of `resolve`.
        var stickyKeys: [String?] = []
        /// The next blocking call throws this.
        var failure: AdapterError?
        /// While set, `load` and `publish` wait.
        var isHeld = false
        var heldCalls = 0
    }

    let base: AdapterBase
    let state = Mutex(State())

    init(baseDigest: String = String(repeating: "b", count: 64)) throws {
        let metadata: [(String, GGUFValue)] = [
            ("general.architecture", .string("llama")), ("llama.block_count", .uint32(1)), ("llama.embedding_length", .uint32(32)),
            ("llama.feed_forward_length", .uint32(32)), ("llama.attention.head_count", .uint32(2)), ("llama.attention.head_count_kv", .uint32(1)),
            ("llama.context_length", .uint32(512)), ("llama.attention.layer_norm_rms_epsilon", .float32(1e-5)), ("llama.vocab_size", .uint32(259)),
        ]
        base = AdapterBase(name: "tiny", digest: baseDigest, configuration: try ModelConfiguration(metadata: GGUFMetadata(metadata)), numerics: .exact)
    }

    /// A digest that tells versions apart.
    static func digest(_ name: String, _ number: Int) -> String {
        let tail = "\(name.utf8.reduce(0) { $0 + Int($1) })\(number)"
        return String(repeating: "d", count: 64 - tail.count) + tail
    }

    // MARK: For tests

    /// Adds versions, the last one promoted and all in memory.
    func add(_ name: String, owner: String = Owner.local, versions: Int = 1, promoted: Int? = nil, change: (inout AdapterVersion) -> Void = { _ in }) throws {
        let empty = AdapterContent(pairs: [], storage: .float32, baseModelName: nil)
        for number in 1...versions {
            let version = try publish(empty, as: name, owner: owner, source: .peft, promote: promoted == nil || number == promoted)
            edit(name) { record in change(&record.versions[record.versions.count - 1]) }
            _ = try load(version)
        }
        state.withLock { state in
            state.publications = []
            state.loads = []
        }
    }

    func edit(_ name: String, _ change: (inout AdapterRecord) -> Void) {
        state.withLock { state in
            guard let index = state.records.firstIndex(where: { $0.name == name }) else { return }
            change(&state.records[index])
        }
    }

    func evict(_ name: String, _ number: Int) {
        state.withLock { state in
            if state.resident.removeValue(forKey: "\(name)@\(number)") != nil { state.evictions[name, default: 0] += 1 }
        }
    }

    func fail(_ code: AdapterError.Code, _ message: String = "for a reason") {
        state.withLock { $0.failure = AdapterError(code, message) }
    }

    func hold(_ isHeld: Bool) { state.withLock { $0.isHeld = isHeld } }

    /// The packed object of a version.
    func object(_ name: String, _ number: Int) -> Adapter? { state.withLock { $0.resident["\(name)@\(number)"] } }

    private func enter() throws(AdapterError) {
        state.withLock { $0.heldCalls += 1 }
        while state.withLock({ $0.isHeld }) { nap() }
        let failure = state.withLock { state in
            defer { state.failure = nil }
            return state.failure
        }
        if let failure { throw failure }
    }

    // MARK: AdapterService

    func resolve(_ reference: AdapterReference, owner: String, stickyKey: String?) -> AdapterVersion? {
        state.withLock { $0.stickyKeys.append(stickyKey) }
        guard let record = record(named: reference.name, owner: owner) else { return nil }
        let number: Int?
        switch reference.selector {
        case .promoted:
            // Everybody whose key begins with a "c" is the canary's.
            if let canary = record.canary, stickyKey?.hasPrefix("c") == true { number = canary.number } else { number = record.promoted }
        case .latest: number = record.versions.last?.number
        case .number(let wanted): number = wanted
        }
        return record.versions.first { $0.number == number }
    }

    func record(id: Int, owner: String) -> AdapterRecord? { records(owner: owner).first { $0.id == id } }
    func record(named name: String, owner: String) -> AdapterRecord? { records(owner: owner).first { $0.name == name } }

    func version(alias: String, owner: String) -> AdapterVersion? {
        guard let name = state.withLock({ $0.aliases[alias] }), let reference = AdapterReference(name) else { return nil }
        return records(owner: owner).first { $0.name == reference.name }?.versions.first { $0.qualifiedName == name }
    }

    func check(name: String) throws(AdapterError) {
        if name == "default" { throw AdapterError(.invalidName, "adapter 'default': the name is reserved") }
    }

    func content(of version: AdapterVersion) throws(AdapterError) -> AdapterContent {
        try enter()
        return AdapterContent(pairs: [], storage: .float32, baseModelName: version.qualifiedName)
    }

    func records() -> [AdapterRecord] { state.withLock { $0.records } }

    func records(owner: String) -> [AdapterRecord] {
        state.withLock { $0.records.filter { $0.owner == owner } }
    }

    var statistics: AdapterStatistics {
        state.withLock { state in
            var statistics = AdapterStatistics()
            statistics.resident = state.resident.values.map { AdapterStatistics.Resident(name: $0.name, number: $0.version, byteCount: 1000 + $0.version) }
            statistics.budgetBytes = 5000
            statistics.loads = UInt64(state.loads.count)
            statistics.evictions = state.evictions
            return statistics
        }
    }

    func resident(_ version: AdapterVersion) -> Adapter? { object(version.name, version.number) }

    func load(_ version: AdapterVersion) throws(AdapterError) -> Adapter {
        try enter()
        state.withLock { $0.loads.append(version.qualifiedName) }
        if let adapter = resident(version) { return adapter }
        let adapter: Adapter
        do {
            adapter = try Adapter(
                name: version.name, version: version.number, digest: version.digest, configuration: base.configuration, numerics: base.numerics, pairs: [])
        } catch {
            throw AdapterError(.outOfMemory, "\(error)")
        }
        state.withLock { $0.resident[version.qualifiedName] = adapter }
        return adapter
    }

    func publish(
        _ content: AdapterContent, as name: String, owner: String, source: AdapterSource, promote: Bool, alias: String?
    ) throws(AdapterError) -> AdapterVersion {
        try enter()
        return state.withLock { state in
            state.publications.append(Publication(content: content, name: name, source: source, promote: promote))
            let number = (state.lastNumbers[name] ?? 0) + 1
            state.lastNumbers[name] = number
            if let alias { state.aliases[alias] = "\(name)@\(number)" }
            let version = AdapterVersion(
                owner: owner, name: name, number: number, digest: FakeAdapters.digest(name, number), baseName: base.name, baseDigest: base.digest, rank: 4,
                pairCount: 7, source: source, createdAt: 1_800_000_000 + number, byteCount: 100 * number)
            if let index = state.records.firstIndex(where: { $0.name == name }) {
                state.records[index].versions.append(version)
                if promote { state.records[index].promoted = number }
            } else {
                state.lastID += 1
                state.records.append(
                    AdapterRecord(id: state.lastID, owner: owner, name: name, promoted: number, canary: nil, isPinned: false, versions: [version]))
            }
            return version
        }
    }

    private func change(_ name: String, _ owner: String, _ body: (inout AdapterRecord, inout State) -> AdapterError?) throws(AdapterError) -> AdapterRecord {
        try enter()
        let result = state.withLock { state -> Result<AdapterRecord, AdapterError> in
            guard let index = state.records.firstIndex(where: { $0.name == name && $0.owner == owner }) else { return .failure(AdapterError(.notFound, "there is no '\(name)'")) }
            var record = state.records[index]
            if let error = body(&record, &state) { return .failure(error) }
            state.records[index] = record
            return .success(record)
        }
        return try result.get()
    }

    func promote(_ name: String, number: Int?, share: Double?, owner: String) throws(AdapterError) -> AdapterRecord {
        try change(name, owner) { record, state in
            let number = number ?? record.versions[record.versions.count - 1].number
            if let share, share < 1 {
                record.canary = share == 0 ? nil : AdapterCanary(number: number, share: share)
            } else {
                if let old = record.promoted { state.history[name, default: []].append(old) }
                record.promoted = number
                record.canary = nil
            }
            return nil
        }
    }

    func rollback(_ name: String, owner: String) throws(AdapterError) -> AdapterRecord {
        try change(name, owner) { record, state in
            if record.canary != nil {
                record.canary = nil
                return nil
            }
            guard let last = state.history[name]?.popLast() else { return AdapterError(.conflict, "there is nothing to roll back to") }
            record.promoted = last
            return nil
        }
    }

    func setPinned(_ name: String, _ isPinned: Bool, owner: String) throws(AdapterError) -> AdapterRecord {
        try change(name, owner) { record, _ in
            record.isPinned = isPinned
            return nil
        }
    }

    func delete(_ name: String, number: Int?, owner: String) throws(AdapterError) {
        try enter()
        state.withLock { state in
            guard let index = state.records.firstIndex(where: { $0.name == name && $0.owner == owner }) else { return }
            for version in state.records[index].versions where number == nil || version.number == number { state.resident[version.qualifiedName] = nil }
            state.records[index].versions.removeAll { number == nil || $0.number == number }
            if state.records[index].versions.isEmpty { state.records.remove(at: index) }
        }
    }

    func export(_ version: AdapterVersion, as format: AdapterFormat) throws(AdapterError) -> ExportedAdapter {
        try enter()
        let names = format == .gguf ? ["\(version.name).gguf"] : ["adapter_config.json", "adapter_model.safetensors"]
        return ExportedAdapter(files: names.map { ExportedAdapter.File(name: $0, bytes: Array("\($0) of \(version.qualifiedName)".utf8)) })
    }
}

extension AdapterFormats {
    /// Readers that keep the bytes as the content's base name, and refuse those that begin with "bad".
    static let fake = AdapterFormats(
        readPEFT: { config, weights, _ throws(AdapterError) in
            let (config, weights) = (String(decoding: config, as: UTF8.self), String(decoding: weights, as: UTF8.self))
            if config.hasPrefix("bad") { throw AdapterError(.unsupported, "adapter_config.json asks for use_dora") }
            if weights.hasPrefix("bad base") { throw AdapterError(.wrongBase, "layer 30 of 30") }
            if weights.hasPrefix("bad") { throw AdapterError(.unreadable, "adapter_model.safetensors: no header") }
            return AdapterContent(pairs: [], storage: .float32, baseModelName: "\(config)|\(weights)")
        },
        readGGUF: { bytes, _ throws(AdapterError) in
            let text = String(decoding: bytes.prefix(100), as: UTF8.self)
            if text.hasPrefix("bad") { throw AdapterError(.unsupported, "token_embd.weight.lora_a") }
            return AdapterContent(pairs: [], storage: .float32, baseModelName: "gguf \(bytes.count) \(text)")
        },
        readArchive: { bytes throws(AdapterError) in
            let halves = bytes.split(separator: UInt8(ascii: "|"))
            guard halves.count == 2 else { throw AdapterError(.unreadable, "the archive has no adapter_config.json") }
            return (Array(halves[0]), Array(halves[1]))
        },
        writeArchive: { $0.flatMap { Array("[\($0.name)]".utf8) + $0.bytes } })
}
