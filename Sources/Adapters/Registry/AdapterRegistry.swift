import GGUF
import Glibc
import InstructionStore
import Kernels
import Modeling
import Synchronization

/// The adapters of this process: rows in the store, files in a directory, packed adapters in memory.
///
/// **Publishing.** The canonical PEFT directory goes to a temporary folder, which is synced, renamed to `<owner>/<name>/<number>`, and its parents are
/// synced; then the bytes are read back from there, their digest is compared and they are packed; only then is the row committed, and the table in memory
/// changed. The commit is the last step that can fail, so a failure anywhere leaves the old state, and a process that dies leaves at most a folder without
/// a row, which the next start removes. **Deleting** goes the other way: the row first, then the files.
///
/// Locks: `table` is held for look-ups only, never while anything waits for the disk. `changes` is held through a whole change, so that changes
/// follow one another. A `LoadTicket` is held while a version is read. The order is ticket, changes, table.
public final class AdapterRegistry: AdapterService {
    /// A moment of a change, for tests that interrupt it there.
    package enum Stage: Sendable, CaseIterable {
        // Publishing; an error thrown at any of these undoes everything.
        case written, synced, parentsMade, renamed, parentsSynced, verified
        // After the point of no return: errors are ignored.
        case committed
        // Deleting, likewise: the rows are gone and the files still there.
        case rowsDeleted
        // Loading: the files were read and are not packed yet.
        case filesRead
    }

    package typealias StageHook = @Sendable (Stage) throws(AdapterError) -> Void

    public let base: AdapterBase
    let store: InstructionStore
    let folders: AdapterFolders
    let table: Mutex<AdapterTable>
    private let changes = Mutex<Void>(())
    private let reservedNames: Set<String>
    private let now: @Sendable () -> Int
    private let onStage: StageHook?

    /// Opens the directory: checks that the files of every version are there, quarantines what is not, removes what interrupted changes left.
    ///
    /// - Parameters:
    ///   - directory: of all adapters; made if it is not there. It belongs to `store` from then on, and nobody else can open it as long as this object lives.
    ///   - budgetBytes: memory for packed adapters. One that is asked for is loaded even if it is larger.
    ///   - reservedNames: refused as names of adapters, beside `default` and the base's own.
    ///   - now: seconds since 1970 UTC.
    /// - Throws: when the directory or the store cannot be used at all. A version that cannot be served is no reason.
    public convenience init(
        directory: String, store: InstructionStore, base: AdapterBase, budgetBytes: Int, reservedNames: Set<String>,
        now: @escaping @Sendable () -> Int = { Int(Glibc.time(nil)) }
    ) throws(AdapterError) {
        try self.init(directory: directory, store: store, base: base, budgetBytes: budgetBytes, reservedNames: reservedNames, now: now, onStage: nil)
    }

    package init(
        directory: String, store: InstructionStore, base: AdapterBase, budgetBytes: Int, reservedNames: Set<String>, now: @escaping @Sendable () -> Int,
        onStage: StageHook?
    ) throws(AdapterError) {
        self.base = base
        self.store = store
        self.reservedNames = reservedNames.union(["default", base.name])
        self.now = now
        self.onStage = onStage
        folders = try AdapterFolders(claiming: directory, for: store.id)
        table = Mutex(try Self.open(folders, store: store, base: base, budgetBytes: budgetBytes))
    }

    func reach(_ stage: Stage) throws(AdapterError) {
        try onStage?(stage)
    }

    /// Runs one change at a time.
    func changing<Value: Sendable>(_ body: () throws(AdapterError) -> Value) throws(AdapterError) -> Value {
        try changes.withLock { _ throws(AdapterError) in try body() }
    }

    var currentTime: Int { now() }

    // MARK: Looking

    public func resolve(_ reference: AdapterReference, owner: String, stickyKey: String?) -> AdapterVersion? {
        guard let record = record(named: reference.name, owner: owner) else { return nil }
        switch reference.selector {
        case .number(let number): return record.versions.first { $0.number == number }
        case .latest: return record.versions.last
        case .promoted:
            if let canary = record.canary, let version = record.versions.first(where: { $0.number == canary.number }),
                // A canary that turned out to be damaged must not fail its share of the requests.
                unusable(version) == nil, draw(stickyKey, record.name, canary.number) < canary.share
            {
                return version
            }
            return record.versions.first { $0.number == record.promoted }
        }
    }

    private func draw(_ stickyKey: String?, _ name: String, _ number: Int) -> Double {
        guard let stickyKey else { return Double.random(in: 0..<1) }
        return CanaryDraw.position(stickyKey: stickyKey, name: name, number: number)
    }

    public func record(id: Int, owner: String) -> AdapterRecord? {
        table.withLock { $0.record(id: id, owner: owner) }
    }

    public func record(named name: String, owner: String) -> AdapterRecord? {
        table.withLock { $0.record(NameKey(owner: owner, name: name)) }
    }

    public func version(alias: String, owner: String) -> AdapterVersion? {
        table.withLock { $0.version(alias: NameKey(owner: owner, name: alias)) }
    }

    public func records() -> [AdapterRecord] {
        table.withLock { $0.allRecords() }
    }

    public func records(owner: String) -> [AdapterRecord] {
        table.withLock { $0.records(owner: owner) }
    }

    public var statistics: AdapterStatistics {
        table.withLock { table in
            var statistics = AdapterStatistics()
            statistics.resident = table.resident.keys
                .sorted { ($0.name.name, $0.number, $0.name.owner) < ($1.name.name, $1.number, $1.name.owner) }
                .map { AdapterStatistics.Resident(name: $0.name.name, number: $0.number, byteCount: table.resident.adapter($0)?.byteCount ?? 0) }
            statistics.budgetBytes = table.resident.budgetBytes
            statistics.loads = table.resident.loads
            statistics.evictions = table.resident.evictions
            return statistics
        }
    }

    // MARK: Checks

    /// Why a version cannot be computed with here; `nil` when it can.
    func unusable(_ version: AdapterVersion) -> AdapterError? {
        if version.baseDigest != base.digest {
            return AdapterError(
                .wrongBase,
                "adapter \(version.qualifiedName): was made for the base \(version.baseName) (\(version.baseDigest.prefix(12))), "
                    + "found \(base.name) (\(base.digest.prefix(12))); serve that base, or publish an adapter for this one")
        }
        if let reason = version.quarantine {
            return AdapterError(
                .quarantined,
                "adapter \(version.qualifiedName): is quarantined: \(reason); restore the file and restart, "
                    + "or publish it again and delete this version")
        }
        return nil
    }

    /// Names that would mean something else in a request or a path.
    public func check(name: String) throws(AdapterError) {
        if name.hasPrefix("ft:") {
            throw AdapterError(.invalidName, "adapter \(shown(name)): names that begin with ft: are made by tuning jobs; choose another")
        }
        guard AdapterReference.isValidName(name), name.utf8.contains(where: { $0 != UInt8(ascii: ".") }) else {
            throw AdapterError(
                .invalidName, "an adapter's name: found \(name.utf8.count) bytes, expected 1 to 64 of A-Z a-z 0-9 . _ - that are not only dots; choose another")
        }
        guard !reservedNames.contains(name) else {
            throw AdapterError(.invalidName, "adapter '\(name)': the name is reserved, because requests mean a model by it; choose another")
        }
    }

    /// Aliases are no names of folders: they only must not be mistaken for names, and must fit into a header and a line of the log.
    func check(alias: String) throws(AdapterError) {
        guard alias.hasPrefix("ft:"), alias.utf8.count <= Self.longestAlias, alias.utf8.allSatisfy({ (0x21...0x7E).contains($0) }) else {
            throw AdapterError(
                .invalidName,
                "the alias \(shown(alias)): found \(alias.utf8.count) bytes, expected ft: and up to \(Self.longestAlias - 3) "
                    + "printable ASCII characters without spaces")
        }
    }

    private static let longestAlias = 512

    func notFound(_ name: String, _ number: Int? = nil) -> AdapterError {
        AdapterError(.notFound, "adapter \(shown(name)): there is no \(number.map { "version \($0) of it" } ?? "adapter of that name")")
    }
}

extension AdapterError {
    init(_ error: InstructionStoreError) {
        let code: Code =
            switch error.code {
            case .storageFull: .storageFull
            case .storage, .failed, .damaged, .newerSchema, .busy: .storage
            case .conflict: .conflict
            case .notFound: .notFound
            case .invalidArgument: .invalidArgument
            }
        self.init(code, error.message)
    }
}

/// Runs a call of the store, with its errors as those of adapters.
func stored<Value>(_ body: () throws(InstructionStoreError) -> Value) throws(AdapterError) -> Value {
    do {
        return try body()
    } catch {
        throw AdapterError(error)
    }
}
