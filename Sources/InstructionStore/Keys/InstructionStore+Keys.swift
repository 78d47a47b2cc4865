import GRDB
import TLS

extension InstructionStore {
    /// API keys. Rows stay when keys are revoked or expire: a server on which there was a key once never becomes one without.
    static func registerKeys(_ migrator: inout DatabaseMigrator) {
        migrator.registerMigration("api-keys") { db in
            try db.execute(
                sql: """
                    CREATE TABLE api_keys (
                        number INTEGER PRIMARY KEY AUTOINCREMENT,
                        -- Public: it is part of the key's text.
                        id TEXT NOT NULL UNIQUE CHECK (length(id) = 16),
                        owner TEXT NOT NULL REFERENCES owners (name),
                        name TEXT NOT NULL,
                        -- SHA-256 of the text, which is kept nowhere.
                        digest TEXT NOT NULL CHECK (length(digest) = 64),
                        last_four TEXT NOT NULL CHECK (length(last_four) = 4),
                        scopes TEXT NOT NULL,
                        requests_per_minute INTEGER CHECK (requests_per_minute >= 0),
                        tokens_per_minute INTEGER CHECK (tokens_per_minute >= 0),
                        created_at INTEGER NOT NULL,
                        expires_at INTEGER,
                        revoked_at INTEGER
                    ) STRICT;
                    """)
        }
    }

    /// The largest limit of a key.
    public static let largestKeyLimit = 1_000_000_000
    /// The longest name of a key, in bytes of UTF-8.
    public static let longestKeyName = 128

    /// Keeps a key and makes its owner if there is none.
    /// - Returns: the row. The text is with the caller, who shows it once.
    public func insertKey(_ text: APIKeyText, _ grant: StoredKey.Grant, at time: Int) throws(InstructionStoreError) -> StoredKey {
        try Self.check(grant, at: time)
        return try write { db in
            try db.execute(sql: "INSERT INTO owners (name, created_at) VALUES (?, ?) ON CONFLICT DO NOTHING", arguments: [grant.owner, time])
            try db.execute(
                sql: """
                    INSERT INTO api_keys (id, owner, name, digest, last_four, scopes, requests_per_minute, tokens_per_minute, created_at, expires_at)
                    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
                    """,
                arguments: [
                    text.id, grant.owner, grant.name, hexadecimal(text.digest), text.lastFour, grant.scopes.text, grant.limits.requestsPerMinute,
                    grant.limits.tokensPerMinute, time, grant.expiresAt,
                ])
            guard let row = try Row.fetchOne(db, sql: "SELECT * FROM api_keys WHERE id = ?", arguments: [text.id]) else {
                throw InstructionStoreError(.storage, "a key that was just written is not there")
            }
            return try StoredKey(row)
        }
    }

    /// All keys of all owners in the order in which they were made, those that open nothing any more included.
    public func keys() throws(InstructionStoreError) -> [StoredKey] {
        try read { db in try Row.fetchAll(db, sql: "SELECT * FROM api_keys ORDER BY number").map { try StoredKey($0) } }
    }

    /// Ends a key. One that was revoked before keeps the time of that.
    /// - Returns: the row; `nil`: there is no such key.
    public func revokeKey(id: String, at time: Int) throws(InstructionStoreError) -> StoredKey? {
        try write { db in
            try db.execute(sql: "UPDATE api_keys SET revoked_at = coalesce(revoked_at, ?) WHERE id = ?", arguments: [time, id])
            return try Row.fetchOne(db, sql: "SELECT * FROM api_keys WHERE id = ?", arguments: [id]).map { try StoredKey($0) }
        }
    }

    private static func check(_ grant: StoredKey.Grant, at time: Int) throws(InstructionStoreError) {
        guard (1...longestKeyName).contains(grant.name.utf8.count), grant.name.unicodeScalars.allSatisfy({ $0.properties.generalCategory != .control }) else {
            throw InstructionStoreError(
                .invalidArgument, "a key's name: found \(grant.name.utf8.count) bytes, expected 1 to \(longestKeyName) without control characters")
        }
        guard isValidOwner(grant.owner) else {
            throw InstructionStoreError(
                .invalidArgument, "an owner's name: found \(grant.owner.utf8.count) bytes, expected 1 to 64 of A-Z a-z 0-9 . _ - that do not begin with a dot")
        }
        guard !grant.scopes.isEmpty else {
            throw InstructionStoreError(
                .invalidArgument, "a key's scopes: found none, expected at least one of \(KeyScope.allCases.map(\.rawValue).joined(separator: ", "))")
        }
        for limit in [grant.limits.requestsPerMinute, grant.limits.tokensPerMinute] {
            guard let limit, !(0...largestKeyLimit).contains(limit) else { continue }
            throw InstructionStoreError(.invalidArgument, "a key's limit: found \(limit), expected 0 (none) to \(largestKeyLimit) a minute")
        }
        if let end = grant.expiresAt, end <= time {
            throw InstructionStoreError(.invalidArgument, "a key's end: found a time that has passed, expected one to come")
        }
    }
}
