import GRDB

extension InstructionStore {
    /// The row of a file that has not expired.
    func file(id: String, owner: String, at time: Int) throws(InstructionStoreError) -> StoredFile? {
        try read { db in
            try Row.fetchOne(
                db, sql: "SELECT * FROM files WHERE id = ? AND owner = ? AND (expires_at IS NULL OR expires_at > ?)", arguments: [id, owner, time]
            ).map { try StoredFile($0) }
        }
    }

    /// One more than `limit`, if there are so many. Their reports lack the list of problems, which can be long.
    func files(owner: String, purpose: String?, after: String?, limit: Int, ascending: Bool, at time: Int) throws(InstructionStoreError) -> [StoredFile] {
        var conditions = ["owner = ?", "(expires_at IS NULL OR expires_at > ?)"]
        var arguments: StatementArguments = [owner, time]
        if let purpose {
            conditions.append("purpose = ?")
            arguments += [purpose]
        }
        if let after {
            conditions.append(ascending ? "id > ?" : "id < ?")
            arguments += [after]
        }
        arguments += [limit < .max ? limit + 1 : limit]
        let sql = """
            SELECT id, owner, name, purpose, byte_count, digest, created_at, expires_at, status,
                CASE WHEN json_valid(report) THEN json_remove(report, '$.problems') END AS report
            FROM files WHERE \(conditions.joined(separator: " AND ")) ORDER BY id \(ascending ? "ASC" : "DESC") LIMIT ?
            """
        let bound = arguments
        return try read { db in try Row.fetchAll(db, sql: sql, arguments: bound).map { try StoredFile($0) } }
    }

    func insertFile(_ file: StoredFile) throws(InstructionStoreError) {
        try write { db in
            try db.execute(
                sql: """
                    INSERT INTO files (id, owner, name, purpose, byte_count, digest, created_at, expires_at, status, report)
                    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
                    """,
                arguments: [
                    file.id, file.owner, file.name, file.purpose, file.byteCount, file.digest, file.createdAt, file.expiresAt, file.status.rawValue,
                    file.report,
                ])
        }
    }

    /// - Returns: the digest of the file that was removed; `nil` when there was none.
    func deleteFile(id: String, owner: String, at time: Int) throws(InstructionStoreError) -> String? {
        try write { db in
            try String.fetchOne(
                db, sql: "DELETE FROM files WHERE id = ? AND owner = ? AND (expires_at IS NULL OR expires_at > ?) RETURNING digest",
                arguments: [id, owner, time])
        }
    }

    /// Removes the rows whose time is over.
    /// - Returns: their digests.
    func deleteExpiredFiles(at time: Int) throws(InstructionStoreError) -> [String] {
        // Mostly there are none, and then nothing has to reach the disk.
        let hasExpired = try read { db in
            try Bool.fetchOne(db, sql: "SELECT EXISTS (SELECT 1 FROM files WHERE expires_at <= ?)", arguments: [time]) == true
        }
        guard hasExpired else { return [] }
        return try write { db in try String.fetchAll(db, sql: "DELETE FROM files WHERE expires_at <= ? RETURNING digest", arguments: [time]) }
    }

    func hasFile(digest: String) throws(InstructionStoreError) -> Bool {
        try read { db in try Bool.fetchOne(db, sql: "SELECT EXISTS (SELECT 1 FROM files WHERE digest = ?)", arguments: [digest]) == true }
    }

    /// Of all rows.
    func fileDigests() throws(InstructionStoreError) -> Set<String> {
        try read { db in Set(try String.fetchAll(db, sql: "SELECT DISTINCT digest FROM files")) }
    }
}

extension StoredFile {
    fileprivate init(_ row: Row) throws {
        let word: String = try row.value("status")
        guard let status = Status(rawValue: word) else {
            throw DatabaseError(resultCode: .SQLITE_CORRUPT, message: "column status holds another word than it should")
        }
        try self.init(
            id: row.value("id"), owner: row.value("owner"), name: row.value("name"), purpose: row.value("purpose"), byteCount: row.value("byte_count"),
            digest: row.value("digest"), createdAt: row.value("created_at"), expiresAt: row.optional("expires_at"), status: status,
            report: row.optional("report"))
    }
}
