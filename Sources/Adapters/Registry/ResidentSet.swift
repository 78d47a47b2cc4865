import Modeling

/// The packed adapters in memory, within a budget: those that were not used for the longest time are let go of first. Whoever still computes with one
/// keeps it alive; it then counts no longer.
struct ResidentSet: Sendable {
    private struct Entry: Sendable {
        let adapter: Adapter
        var lastUse: UInt64
    }

    let budgetBytes: Int
    private(set) var byteCount = 0
    /// Since the start.
    private(set) var loads: UInt64 = 0
    private(set) var evictions: [String: UInt64] = [:]
    private var entries: [VersionKey: Entry] = [:]
    /// Of each pinned name the numbers that stay: older versions of it give their memory back like all others.
    private var pinned: [NameKey: Set<Int>] = [:]
    private var clock: UInt64 = 0

    init(budgetBytes: Int) {
        self.budgetBytes = budgetBytes
    }

    var keys: some Collection<VersionKey> { entries.keys }

    func adapter(_ key: VersionKey) -> Adapter? { entries[key]?.adapter }

    /// The adapter, if it is here; it is the last that will be let go of.
    mutating func use(_ key: VersionKey) -> Adapter? {
        clock += 1
        entries[key]?.lastUse = clock
        return entries[key]?.adapter
    }

    /// Takes in what was just read, and keeps it whatever the budget.
    /// - Returns: what was let go of; to be released outside of locks, because that gives memory back to the system.
    mutating func insert(_ adapter: Adapter, as key: VersionKey) -> [Adapter] {
        clock += 1
        loads += 1
        var released = remove(key)
        entries[key] = Entry(adapter: adapter, lastUse: clock)
        byteCount += adapter.byteCount
        released += trim(keeping: key)
        return released
    }

    mutating func remove(_ key: VersionKey) -> [Adapter] {
        guard let entry = entries.removeValue(forKey: key) else { return [] }
        byteCount -= entry.adapter.byteCount
        return [entry.adapter]
    }

    /// Takes all of a name out, with what was counted for it.
    mutating func remove(all name: NameKey) -> [Adapter] {
        pinned[name] = nil
        return entries.keys.filter { $0.name == name }.flatMap { remove($0) }
    }

    mutating func forgetEvictions(of name: String) {
        evictions[name] = nil
    }

    /// - Parameter numbers: the versions of the name that stay whatever the budget; none for a name that is not pinned.
    mutating func setPinned(_ name: NameKey, _ numbers: Set<Int>) -> [Adapter] {
        pinned[name] = numbers.isEmpty ? nil : numbers
        return trim(keeping: nil)
    }

    private mutating func trim(keeping kept: VersionKey?) -> [Adapter] {
        func isPinned(_ key: VersionKey) -> Bool { pinned[key.name]?.contains(key.number) ?? false }
        var released: [Adapter] = []
        while byteCount > budgetBytes {
            let candidates = entries.filter { $0.key != kept && !isPinned($0.key) }
            guard let oldest = candidates.min(by: { $0.value.lastUse < $1.value.lastUse })?.key else { break }
            released += remove(oldest)
            evictions[oldest.name.name, default: 0] += 1
        }
        return released
    }
}
