import GRDB

extension InstructionStore {
    // MARK: Reading

    /// All owners' names in order of their ids.
    public func adapters() throws(InstructionStoreError) -> [AdapterRow] {
        try read { db in try Row.fetchAll(db, sql: "SELECT * FROM adapters ORDER BY id").map { try AdapterRow($0) } }
    }

    /// All versions of all names, in order of ids and numbers.
    public func adapterVersions() throws(InstructionStoreError) -> [AdapterVersionRow] {
        try read { db in try Row.fetchAll(db, sql: "SELECT * FROM adapter_versions ORDER BY adapter_id, number").map { try AdapterVersionRow($0) } }
    }

    /// All further names of versions.
    public func adapterAliases() throws(InstructionStoreError) -> [AdapterAliasRow] {
        try read { db in try Row.fetchAll(db, sql: "SELECT * FROM adapter_aliases ORDER BY owner, alias").map { try AdapterAliasRow($0) } }
    }

    /// The number that the next version of a name gets: one more than any that it ever had.
    /// - Throws: `notFound` when there is no such owner.
    public func nextAdapterNumber(owner: String, name: String) throws(InstructionStoreError) -> Int {
        try read { db in
            guard try Bool.fetchOne(db, sql: "SELECT EXISTS (SELECT 1 FROM owners WHERE name = ?)", arguments: [owner]) == true else {
                throw InstructionStoreError(.notFound, "there is no such owner; make it first")
            }
            return try Self.nextNumber(db, owner, name)
        }
    }

    /// The version that was promoted before the present one and still exists.
    public func adapterBeforePromoted(id: Int) throws(InstructionStoreError) -> Int? {
        try read { db in try Self.before(db, Self.adapter(db, id)) }
    }

    // MARK: Changing

    /// Enters a version, and its name if that is new. The first version of a name is promoted anyway.
    /// - Parameter alias: a further name of exactly this version.
    /// - Throws: `conflict` when `number` is not the next one, or the owner has the alias already.
    public func insertAdapterVersion(
        _ content: AdapterVersionContent, owner: String, name: String, number: Int, promote: Bool, alias: String? = nil, at time: Int
    ) throws(InstructionStoreError) -> AdapterRow {
        try write { db in
            let next = try Self.nextNumber(db, owner, name)
            guard number == next else { throw InstructionStoreError(.conflict, "adapter '\(name)': found version number \(number), expected \(next)") }
            try db.execute(
                sql: "INSERT INTO adapter_names (owner, name, last_number) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET last_number = excluded.last_number",
                arguments: [owner, name, number])
            try db.execute(sql: "INSERT INTO adapters (owner, name, created_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", arguments: [owner, name, time])
            guard let id = try Int.fetchOne(db, sql: "SELECT id FROM adapters WHERE owner = ? AND name = ?", arguments: [owner, name]) else {
                throw InstructionStoreError(.notFound, "adapter '\(name)': its row is missing right after it was written")
            }
            try db.execute(
                sql: """
                    INSERT INTO adapter_versions
                        (adapter_id, owner, number, digest, base_name, base_digest, rank, pair_count, source, created_at,
                         config_byte_count, weights_byte_count, folder)
                    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
                    """,
                arguments: [
                    id, owner, number, content.digest, content.baseName, content.baseDigest, content.rank, content.pairCount, content.source, time,
                    content.configByteCount, content.weightsByteCount, content.folder,
                ])
            let row = try Self.adapter(db, id)
            if promote || row.promoted == nil { try Self.promote(db, row, number, time) }
            if let alias {
                try db.execute(
                    sql: "INSERT INTO adapter_aliases (owner, alias, adapter_id, number) VALUES (?, ?, ?, ?)", arguments: [owner, alias, id, number])
            }
            return try Self.adapter(db, id)
        }
    }

    /// Lets the bare name stand for a version, and ends a canary.
    public func promoteAdapter(id: Int, number: Int, at time: Int) throws(InstructionStoreError) -> AdapterRow {
        try change(id) { db, row in try Self.promote(db, row, number, time) }
    }

    /// Sends a share of the bare name's traffic to a version; `nil` ends that.
    public func setAdapterCanary(id: Int, _ canary: (number: Int, share: Double)?) throws(InstructionStoreError) -> AdapterRow {
        try change(id) { db, row in
            try db.execute(sql: "UPDATE adapters SET canary = ?, canary_share = ? WHERE id = ?", arguments: [canary?.number, canary?.share, row.id])
        }
    }

    /// Lets the bare name stand for what it stood for before, as if the present promotion had not happened.
    /// - Throws: `conflict` when there was nothing before.
    public func rollBackAdapter(id: Int, at time: Int) throws(InstructionStoreError) -> AdapterRow {
        try change(id) { db, row in
            guard let number = try Self.before(db, row) else {
                throw InstructionStoreError(.conflict, "adapter '\(row.name)': no version was promoted before the present one")
            }
            try db.execute(
                sql: """
                    UPDATE adapter_promotions SET rolled_back_at = :time WHERE adapter_id = :id AND rolled_back_at IS NULL AND id >
                        (SELECT max(id) FROM adapter_promotions WHERE adapter_id = :id AND rolled_back_at IS NULL AND number = :number)
                    """,
                arguments: ["time": time, "id": row.id, "number": number])
            try db.execute(sql: "UPDATE adapters SET promoted = ? WHERE id = ?", arguments: [number, row.id])
        }
    }

    public func setAdapterPinned(id: Int, _ isPinned: Bool) throws(InstructionStoreError) -> AdapterRow {
        try change(id) { db, row in try db.execute(sql: "UPDATE adapters SET pinned = ? WHERE id = ?", arguments: [isPinned, row.id]) }
    }

    /// Removes one version, and its canary if it is that.
    /// - Throws: `conflict` when the bare name stands for it.
    public func deleteAdapterVersion(id: Int, number: Int) throws(InstructionStoreError) -> AdapterRow {
        try change(id) { db, row in
            guard row.promoted != number else { throw InstructionStoreError(.conflict, "adapter '\(row.name)': version \(number) is the promoted one") }
            if row.canary == number { try db.execute(sql: "UPDATE adapters SET canary = NULL, canary_share = NULL WHERE id = ?", arguments: [row.id]) }
            try db.execute(sql: "DELETE FROM adapter_versions WHERE adapter_id = ? AND number = ?", arguments: [row.id, number])
            guard db.changesCount == 1 else { throw InstructionStoreError(.notFound, "adapter '\(row.name)': there is no version \(number)") }
        }
    }

    /// Removes a name with all of its versions. Its numbers stay used.
    public func deleteAdapter(id: Int) throws(InstructionStoreError) {
        try write { db in
            try db.execute(sql: "DELETE FROM adapters WHERE id = ?", arguments: [id])
            guard db.changesCount == 1 else { throw Self.absent(id) }
        }
    }

    /// Notes why a version is not served; `nil` when it is again.
    public func setAdapterQuarantine(id: Int, number: Int, _ reason: String?) throws(InstructionStoreError) {
        try write { db in
            try db.execute(sql: "UPDATE adapter_versions SET quarantine = ? WHERE adapter_id = ? AND number = ?", arguments: [reason, id, number])
            guard db.changesCount == 1 else { throw Self.absent(id) }
        }
    }

    // MARK: Inside a transaction

    /// Changes the row of a name and returns it as it is then.
    private func change(_ id: Int, _ body: (Database, AdapterRow) throws -> Void) throws(InstructionStoreError) -> AdapterRow {
        try write { db in
            try body(db, Self.adapter(db, id))
            return try Self.adapter(db, id)
        }
    }

    private static func adapter(_ db: Database, _ id: Int) throws -> AdapterRow {
        guard let row = try Row.fetchOne(db, sql: "SELECT * FROM adapters WHERE id = ?", arguments: [id]) else { throw absent(id) }
        return try AdapterRow(row)
    }

    private static func absent(_ id: Int) -> InstructionStoreError {
        InstructionStoreError(.notFound, "there is no adapter with the id \(id), or not that version of it")
    }

    private static func nextNumber(_ db: Database, _ owner: String, _ name: String) throws -> Int {
        let last = try Int.fetchOne(db, sql: "SELECT last_number FROM adapter_names WHERE owner = ? AND name = ?", arguments: [owner, name]) ?? 0
        let (next, overflow) = last.addingReportingOverflow(1)
        guard !overflow else { throw InstructionStoreError(.conflict, "adapter '\(name)': there is no number after \(last)") }
        return next
    }

    private static func promote(_ db: Database, _ row: AdapterRow, _ number: Int, _ time: Int) throws {
        try db.execute(sql: "UPDATE adapters SET promoted = ?, canary = NULL, canary_share = NULL WHERE id = ?", arguments: [number, row.id])
        guard number != row.promoted else { return }
        try db.execute(
            sql: "INSERT INTO adapter_promotions (adapter_id, owner, number, promoted_at) VALUES (?, ?, ?, ?)", arguments: [row.id, row.owner, number, time])
    }

    /// Promotions of deleted versions are gone with them, so that equal ones may follow one another.
    private static func before(_ db: Database, _ row: AdapterRow) throws -> Int? {
        try Int.fetchOne(
            db, sql: "SELECT number FROM adapter_promotions WHERE adapter_id = ? AND rolled_back_at IS NULL AND number IS NOT ? ORDER BY id DESC LIMIT 1",
            arguments: [row.id, row.promoted])
    }
}

extension AdapterRow {
    fileprivate init(_ row: Row) throws {
        try self.init(
            id: row.value("id"), owner: row.value("owner"), name: row.value("name"), promoted: row.optional("promoted"), canary: row.optional("canary"),
            canaryShare: row.optional("canary_share"), isPinned: row.value("pinned"), createdAt: row.value("created_at"))
    }
}

extension AdapterVersionRow {
    fileprivate init(_ row: Row) throws {
        try self.init(
            adapterID: row.value("adapter_id"), number: row.value("number"),
            content: AdapterVersionContent(
                digest: row.value("digest"), baseName: row.value("base_name"), baseDigest: row.value("base_digest"), rank: row.value("rank"),
                pairCount: row.value("pair_count"), source: row.value("source"), configByteCount: row.value("config_byte_count"),
                weightsByteCount: row.value("weights_byte_count"), folder: row.value("folder")),
            createdAt: row.value("created_at"), quarantine: row.optional("quarantine"))
    }
}

extension AdapterAliasRow {
    fileprivate init(_ row: Row) throws {
        try self.init(owner: row.value("owner"), alias: row.value("alias"), adapterID: row.value("adapter_id"), number: row.value("number"))
    }
}
