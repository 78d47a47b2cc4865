import GRDB

extension InstructionStore {
    /// Notes what somebody said about an exchange. Of every metric but `comment` the last word counts, and takes the place of those before.
    /// - Returns: whether there is such an exchange.
    public func insertFeedback(_ feedback: StoredFeedback) throws(InstructionStoreError) -> Bool {
        try write { db in
            guard try Self.exchange(db, feedback.exchangeID, feedback.owner) != nil else { return false }
            if feedback.metric != StoredFeedback.comment {
                try db.execute(
                    sql: "DELETE FROM exchange_feedback WHERE exchange_id = ? AND metric = ?", arguments: [feedback.exchangeID, feedback.metric])
            }
            try db.execute(
                sql: "INSERT INTO exchange_feedback (id, exchange_id, owner, metric, value, number, created_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
                arguments: [
                    feedback.id, feedback.exchangeID, feedback.owner, feedback.metric, feedback.value, feedback.number, feedback.createdAt,
                ])
            return true
        }
    }

    /// What was said about an exchange, in order.
    public func feedback(exchangeID: String, owner: String) throws(InstructionStoreError) -> [StoredFeedback] {
        try read { db in
            try Row.fetchAll(db, sql: "SELECT * FROM exchange_feedback WHERE exchange_id = ? AND owner = ? ORDER BY id", arguments: [exchangeID, owner])
                .map { try StoredFeedback($0) }
        }
    }
}

extension StoredFeedback {
    fileprivate init(_ row: Row) throws {
        try self.init(
            id: row.value("id"), exchangeID: row.value("exchange_id"), owner: row.value("owner"), metric: row.value("metric"), value: row.value("value"),
            number: row.optional("number"), createdAt: row.value("created_at"))
    }
}
