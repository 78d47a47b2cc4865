/// Who has had how much of the engine, by which it is decided whose work comes next.
///
/// Each owner has an account of the rows that were computed for it: a virtual token counter, as in Sheng et al., "Fairness in Serving Large Language
/// Models" (OSDI 2024), with equal weights for prompt and answer. The owner with the fewest rows comes first. One that comes back from a pause starts no
/// lower than the least of those that are there: time in which it wanted nothing earns it no credit to starve the others with.
struct OwnerShares: Sendable {
    private struct Account: Sendable {
        var rows: UInt64 = 0
        /// Sequences that wait or run.
        var sequences = 0
    }

    private var accounts: [String: Account] = [:]
    /// How many owners have sequences that wait or run.
    private(set) var ownerCount = 0

    /// The rows that count against an owner.
    func rows(of owner: String) -> UInt64 { accounts[owner]?.rows ?? 0 }

    /// The sequences of each owner that wait or run; no entry is 0.
    var sequences: [String: Int] { accounts.compactMapValues { $0.sequences > 0 ? $0.sequences : nil } }

    /// A sequence of this owner came.
    mutating func join(_ owner: String) {
        var account = accounts[owner] ?? Account()
        if account.sequences == 0 {
            account.rows = max(account.rows, leastRows ?? 0)
            ownerCount += 1
        }
        account.sequences += 1
        accounts[owner] = account
    }

    /// A sequence of this owner ended, however it did.
    mutating func leave(_ owner: String) {
        guard var account = accounts[owner], account.sequences > 0 else { preconditionFailure("a sequence of an owner that has none ended") }
        account.sequences -= 1
        accounts[owner] = account
        guard account.sequences == 0 else { return }
        ownerCount -= 1
        // An absent owner at or below the least is as good as a new one. With nobody here, all are.
        if let least = leastRows {
            accounts = accounts.filter { $0.value.sequences > 0 || $0.value.rows > least }
        } else {
            accounts.removeAll()
        }
    }

    /// Rows are computed for this owner, for the first time: it is not for the preempted to pay for it.
    mutating func charge(_ owner: String, rows: Int) {
        accounts[owner]?.rows += UInt64(rows)
    }

    private var leastRows: UInt64? {
        accounts.values.lazy.filter { $0.sequences > 0 }.map(\.rows).min()
    }
}
