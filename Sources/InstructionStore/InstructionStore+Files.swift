import GRDB

extension InstructionStore {
    /// The row of a file that has not expired.
    func file(id: String, owner: String, at time: Int) throws(InstructionStoreError) -> StoredFile? {
        try read { db in
            try Row.fetchOne(
                db, sql: "SELECT * FROM files WHERE id = ? AND owner = ? AND (expires_at IS NULL OR expires_at > ? OR EXISTS (SELECT 1 \(Self.jobsInNeed)))",
                arguments: [id, owner, time]
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

    /// Jobs that have not ended and will read the file again: after a restart they begin with it.
    private static let jobsInNeed = """
        FROM fine_tuning_jobs WHERE finished_at IS NULL
        AND files.id IN (json_extract(request, '$.training_file'), json_extract(request, '$.validation_file'))
        """

    /// - Returns: the digest of the file that was removed; `nil` when there was none.
    /// - Throws: `conflict` while a job needs it.
    func deleteFile(id: String, owner: String, at time: Int) throws(InstructionStoreError) -> String? {
        try write { db in
            if let job = try String.fetchOne(
                db, sql: "SELECT job FROM (SELECT (SELECT fine_tuning_jobs.id \(Self.jobsInNeed)) AS job FROM files WHERE id = ? AND owner = ?) WHERE job IS NOT NULL",
                arguments: [id, owner])
            {
                throw InstructionStoreError(.conflict, "the file is in use by the fine-tuning job \(job); cancel it first, or delete the file when it has ended")
            }
            return try String.fetchOne(
                db, sql: "DELETE FROM files WHERE id = ? AND owner = ? AND (expires_at IS NULL OR expires_at > ?) RETURNING digest",
                arguments: [id, owner, time])
        }
    }

    /// Removes the rows whose time is over.
    /// - Returns: their digests.
    func deleteExpiredFiles(at time: Int) throws(InstructionStoreError) -> [String] {
        // Mostly there are none, and then nothing has to reach the disk.
        let hasExpired = try read { db in
            try Bool.fetchOne(db, sql: "SELECT EXISTS (SELECT 1 FROM files WHERE expires_at <= ? AND NOT EXISTS (SELECT 1 \(Self.jobsInNeed)))", arguments: [time]) == true
        }
        guard hasExpired else { return [] }
        return try write { db in
            try String.fetchAll(
                db, sql: "DELETE FROM files WHERE expires_at <= ? AND NOT EXISTS (SELECT 1 \(Self.jobsInNeed)) RETURNING digest", arguments: [time])
        }
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
