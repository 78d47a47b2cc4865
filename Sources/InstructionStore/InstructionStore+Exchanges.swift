import GRDB

extension InstructionStore {
    // MARK: Changing

    /// Keeps exchanges, all or none; durable on return.
    public func insertExchanges(_ exchanges: [StoredExchange]) throws(InstructionStoreError) {
        try write { db in
            for exchange in exchanges {
                try db.execute(
                    sql: """
                        INSERT INTO exchanges (id, owner, created_at, model, label, user, messages, tools, choices, details)
                        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
                        """,
                    arguments: [
                        exchange.id, exchange.owner, exchange.createdAt, exchange.model, exchange.label, exchange.user, exchange.messages, exchange.tools,
                        exchange.choices, exchange.details,
                    ])
                try Self.insertMetadata(db, exchange.metadata, of: exchange.id, owner: exchange.owner)
            }
        }
    }

    /// Replaces all of an exchange's metadata.
    /// - Returns: the exchange as it is then; `nil` when there is no such.
    public func setExchangeMetadata(
        _ metadata: [(key: String, value: String)], id: String, owner: String
    ) throws(InstructionStoreError) -> StoredExchange? {
        try write { db in
            guard var exchange = try Self.exchange(db, id, owner) else { return nil }
            try db.execute(sql: "DELETE FROM exchange_metadata WHERE exchange_id = ?", arguments: [id])
            exchange.metadata = metadata
            try Self.insertMetadata(db, exchange.metadata, of: id, owner: owner)
            return exchange
        }
    }

    /// With what was said about it.
    /// - Returns: whether there was such an exchange.
    public func deleteExchange(id: String, owner: String) throws(InstructionStoreError) -> Bool {
        try write { db in
            try db.execute(sql: "DELETE FROM exchanges WHERE id = ? AND owner = ?", arguments: [id, owner])
            return db.changesCount > 0
        }
    }

    /// Removes all exchanges of an end user.
    /// - Returns: how many there were.
    public func deleteExchanges(user: String, owner: String) throws(InstructionStoreError) -> Int {
        try write { db in
            try db.execute(sql: "DELETE FROM exchanges WHERE owner = ? AND user = ?", arguments: [owner, user])
            return db.changesCount
        }
    }

    /// Removes exchanges that are too old, and the oldest of those that are too many, whoever owns them.
    /// - Returns: how many went.
    @discardableResult
    public func pruneExchanges(_ retention: ExchangeRetention, at time: Int) throws(InstructionStoreError) -> Int {
        let (seconds, isEndless) = retention.days.multipliedReportingOverflow(by: 86_400)
        let oldest = isEndless ? Int.min : time.subtractingReportingOverflow(seconds).partialValue
        let (isDue, excess) = try read { db in
            let isDue = try Bool.fetchOne(db, sql: "SELECT EXISTS (SELECT 1 FROM exchanges WHERE created_at < ?)", arguments: [oldest]) == true
            return (isDue, (try Int.fetchOne(db, sql: "SELECT count(*) FROM exchanges") ?? 0) - retention.maximum)
        }
        guard isDue || excess > 0 else { return 0 }
        return try write { db in
            try db.execute(sql: "DELETE FROM exchanges WHERE created_at < ?", arguments: [oldest])
            var count = db.changesCount
            let excess = (try Int.fetchOne(db, sql: "SELECT count(*) FROM exchanges") ?? 0) - retention.maximum
            if excess > 0 {
                try db.execute(sql: "DELETE FROM exchanges WHERE id IN (SELECT id FROM exchanges ORDER BY id LIMIT ?)", arguments: [excess])
                count += db.changesCount
            }
            return count
        }
    }

    // MARK: Reading

    public func exchange(id: String, owner: String) throws(InstructionStoreError) -> StoredExchange? {
        try read { db in try Self.exchange(db, id, owner) }
    }

    /// A page of an owner's exchanges, by the time of their requests.
    /// - Parameter after: the id of the last exchange of the page before; it need not exist any more.
    public func exchanges(
        _ filter: ExchangeFilter, owner: String, after: String?, limit: Int, ascending: Bool
    ) throws(InstructionStoreError) -> (exchanges: [StoredExchange], hasMore: Bool) {
        var (conditions, arguments) = Self.conditions(filter, owner: owner)
        if let after {
            conditions.append(ascending ? "exchanges.id > ?" : "exchanges.id < ?")
            arguments += [after]
        }
        arguments += [limit < .max ? limit + 1 : limit]
        let sql = "SELECT * FROM exchanges WHERE \(conditions.joined(separator: " AND ")) ORDER BY id \(ascending ? "ASC" : "DESC") LIMIT ?"
        let bound = arguments
        return try read { db in
            let found = try Row.fetchAll(db, sql: sql, arguments: bound)
            return (try found.prefix(limit).map { try StoredExchange($0, metadata: Self.metadata(db, of: $0.value("id"))) }, found.count > limit)
        }
    }

    // MARK: Inside a transaction

    static func exchange(_ db: Database, _ id: String, _ owner: String) throws -> StoredExchange? {
        guard let row = try Row.fetchOne(db, sql: "SELECT * FROM exchanges WHERE id = ? AND owner = ?", arguments: [id, owner]) else { return nil }
        return try StoredExchange(row, metadata: metadata(db, of: id))
    }

    private static func metadata(_ db: Database, of id: String) throws -> [(key: String, value: String)] {
        try Row.fetchAll(db, sql: "SELECT key, value FROM exchange_metadata WHERE exchange_id = ? ORDER BY position", arguments: [id]).map {
            (key: try $0.value("key"), value: try $0.value("value"))
        }
    }

    private static func insertMetadata(_ db: Database, _ metadata: [(key: String, value: String)], of id: String, owner: String) throws {
        for (position, pair) in metadata.enumerated() {
            try db.execute(
                sql: "INSERT INTO exchange_metadata (exchange_id, owner, position, key, value) VALUES (?, ?, ?, ?, ?)",
                arguments: [id, owner, position, pair.key, pair.value])
        }
    }

    private static func conditions(_ filter: ExchangeFilter, owner: String) -> ([String], StatementArguments) {
        var conditions = ["exchanges.owner = ?"]
        var arguments: StatementArguments = [owner]
        func add(_ condition: String, _ values: (any DatabaseValueConvertible)?...) {
            conditions.append(condition)
            arguments += StatementArguments(values)
        }
        if let model = filter.model { add("(model = ? OR label = ?)", model, model) }
        if let user = filter.user { add("user = ?", user) }
        if let earliest = filter.earliest { add("created_at >= ?", earliest) }
        if let latest = filter.latest { add("created_at <= ?", latest) }
        for (key, value) in filter.metadata.sorted(by: { $0.key < $1.key }) {
            add("EXISTS (SELECT 1 FROM exchange_metadata WHERE exchange_id = exchanges.id AND key = ? AND value = ?)", key, value)
        }
        if let metric = filter.metric {
            var test = "EXISTS (SELECT 1 FROM exchange_feedback WHERE exchange_id = exchanges.id AND metric = ?"
            var values: [(any DatabaseValueConvertible)?] = [metric.name]
            switch metric.condition {
            case .present: break
            case .range(let least, let most):
                test += " AND number IS NOT NULL"
                if let least {
                    test += " AND number >= ?"
                    values.append(least)
                }
                if let most {
                    test += " AND number <= ?"
                    values.append(most)
                }
            case .number(let number):
                test += " AND number = ? AND value NOT IN ('true', 'false')"
                values.append(number)
            case .json(let json):
                test += " AND value = ?"
                values.append(json)
            }
            conditions.append(test + ")")
            arguments += StatementArguments(values)
        }
        return (conditions, arguments)
    }
}

extension StoredExchange {
    fileprivate init(_ row: Row, metadata: [(key: String, value: String)]) throws {
        try self.init(
            id: row.value("id"), owner: row.value("owner"), createdAt: row.value("created_at"), model: row.value("model"), label: row.value("label"),
            user: row.optional("user"), messages: row.value("messages"), tools: row.optional("tools"), choices: row.value("choices"),
            details: row.value("details"), metadata: metadata)
    }
}
