import InstructionStore
import Modeling
import Synchronization

/// A name of one owner.
struct NameKey: Hashable, Sendable {
    var owner: String
    var name: String
}

/// A version. Numbers are never reused, so this means the same content for ever.
struct VersionKey: Hashable, Sendable {
    var name: NameKey
    var number: Int

    init(_ name: NameKey, _ number: Int) {
        self.name = name
        self.number = number
    }

    init(_ version: AdapterVersion) {
        self.init(NameKey(owner: version.owner, name: version.name), version.number)
    }
}

/// One reading of a version that all who ask for it meanwhile share: whoever locks `outcome` first reads, the others find the result.
final class LoadTicket: Sendable {
    let outcome = Mutex<Result<Adapter, AdapterError>?>(nil)
}

/// What the registry knows without asking the disk. It lives under a lock that is held for look-ups only.
struct AdapterTable: Sendable {
    /// Where a version's files are.
    struct Files: Sendable {
        var folder: String
        var sizes: AdapterFolders.Sizes
    }

    private var records: [NameKey: AdapterRecord] = [:]
    private var namesByID: [Int: NameKey] = [:]
    private var files: [VersionKey: Files] = [:]
    /// Further names, each of one version.
    private var aliases: [NameKey: VersionKey] = [:]
    private var aliasesByVersion: [VersionKey: [NameKey]] = [:]
    private var loading: [VersionKey: LoadTicket] = [:]
    var resident: ResidentSet

    init(budgetBytes: Int) {
        resident = ResidentSet(budgetBytes: budgetBytes)
    }

    // MARK: Looking

    func record(_ name: NameKey) -> AdapterRecord? { records[name] }

    func record(id: Int, owner: String) -> AdapterRecord? {
        guard let name = namesByID[id], name.owner == owner else { return nil }
        return records[name]
    }

    func records(owner: String) -> [AdapterRecord] {
        records.values.filter { $0.owner == owner }.sorted { $0.id < $1.id }
    }

    func allRecords() -> [AdapterRecord] { records.values.sorted { $0.id < $1.id } }

    func version(_ key: VersionKey) -> AdapterVersion? {
        records[key.name]?.versions.first { $0.number == key.number }
    }

    func version(alias: NameKey) -> AdapterVersion? { aliases[alias].flatMap { version($0) } }

    func files(_ key: VersionKey) -> Files? { files[key] }

    // MARK: Changing

    /// Enters a name as the store has it now, with its versions in order.
    mutating func set(_ row: AdapterRow, versions: [AdapterVersion]) -> [Adapter] {
        let name = NameKey(owner: row.owner, name: row.name)
        let canary: AdapterCanary? = if let number = row.canary, let share = row.canaryShare { AdapterCanary(number: number, share: share) } else { nil }
        let record = AdapterRecord(
            id: row.id, owner: row.owner, name: row.name, promoted: row.promoted, canary: canary, isPinned: row.isPinned, versions: versions)
        records[name] = record
        namesByID[row.id] = name
        // What the bare name stands for.
        let pinned = row.isPinned ? [row.promoted, canary?.number].compactMap { $0 } : []
        return resident.setPinned(name, Set(pinned))
    }

    mutating func setFiles(_ key: VersionKey, _ value: Files) {
        files[key] = value
    }

    mutating func setAlias(_ alias: NameKey, _ key: VersionKey) {
        aliases[alias] = key
        aliasesByVersion[key, default: []].append(alias)
    }

    private mutating func removeAliases(of key: VersionKey) {
        for alias in aliasesByVersion.removeValue(forKey: key) ?? [] { aliases[alias] = nil }
    }

    mutating func quarantine(_ key: VersionKey, _ reason: String?) {
        guard let index = records[key.name]?.versions.firstIndex(where: { $0.number == key.number }) else { return }
        records[key.name]?.versions[index].quarantine = reason
    }

    /// - Returns: the packed adapters that nothing here holds any more.
    mutating func remove(_ key: VersionKey) -> [Adapter] {
        records[key.name]?.versions.removeAll { $0.number == key.number }
        removeAliases(of: key)
        files[key] = nil
        loading[key] = nil
        return resident.remove(key)
    }

    mutating func remove(_ name: NameKey) -> [Adapter] {
        guard let record = records.removeValue(forKey: name) else { return [] }
        namesByID[record.id] = nil
        for version in record.versions {
            let key = VersionKey(name, version.number)
            removeAliases(of: key)
            files[key] = nil
            loading[key] = nil
        }
        if !records.keys.contains(where: { $0.name == name.name }) { resident.forgetEvictions(of: name.name) }
        return resident.remove(all: name)
    }

    // MARK: Loading

    enum Load {
        case resident(Adapter)
        case ticket(LoadTicket)
    }

    mutating func beginLoad(_ key: VersionKey) -> Load {
        if let adapter = resident.use(key) { return .resident(adapter) }
        if let ticket = loading[key] { return .ticket(ticket) }
        let ticket = LoadTicket()
        loading[key] = ticket
        return .ticket(ticket)
    }

    /// Ends a load; whoever asks from now on finds the adapter, or begins anew.
    /// - Returns: what was let go of, or `nil` when the version was deleted meanwhile.
    mutating func endLoad(_ key: VersionKey, _ ticket: LoadTicket, _ adapter: Adapter?) -> [Adapter]? {
        if loading[key] === ticket { loading[key] = nil }
        guard files[key] != nil else { return nil }
        return adapter.map { resident.insert($0, as: key) } ?? []
    }
}
