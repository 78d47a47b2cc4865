import GRDB

extension InstructionStore {
    /// Uploaded files; exchanges that were kept, what clients wrote on them, and what people said about them.
    ///
    /// The ids of all of these sort by time (`TimedIdentifiers`), so that lists need no column for their order.
    static func registerFilesAndExchanges(in migrator: inout DatabaseMigrator) {
        migrator.registerMigration("files-and-exchanges") { db in
            try db.execute(
                sql: """
                    -- The bytes are in a file that is named after the digest; rows may share it.
                    CREATE TABLE files (
                        id TEXT PRIMARY KEY NOT NULL,
                        owner TEXT NOT NULL REFERENCES owners (name),
                        name TEXT NOT NULL,
                        purpose TEXT NOT NULL,
                        byte_count INTEGER NOT NULL CHECK (byte_count >= 0),
                        digest TEXT NOT NULL CHECK (length(digest) = 64),
                        created_at INTEGER NOT NULL,
                        expires_at INTEGER,
                        status TEXT NOT NULL CHECK (status IN ('uploaded', 'processed', 'error')),
                        report TEXT
                    ) STRICT;
                    CREATE INDEX files_by_owner ON files (owner, id);
                    CREATE INDEX files_by_digest ON files (digest);
                    CREATE INDEX files_by_end ON files (expires_at) WHERE expires_at IS NOT NULL;

                    CREATE TABLE exchanges (
                        id TEXT PRIMARY KEY NOT NULL,
                        owner TEXT NOT NULL REFERENCES owners (name),
                        created_at INTEGER NOT NULL,
                        model TEXT NOT NULL,
                        label TEXT NOT NULL,
                        user TEXT,
                        messages TEXT NOT NULL,
                        tools TEXT,
                        choices TEXT NOT NULL,
                        details TEXT NOT NULL,
                        UNIQUE (id, owner)
                    ) STRICT;
                    CREATE INDEX exchanges_by_owner ON exchanges (owner, id);
                    CREATE INDEX exchanges_by_user ON exchanges (owner, user) WHERE user IS NOT NULL;
                    CREATE INDEX exchanges_by_time ON exchanges (created_at);

                    CREATE TABLE exchange_metadata (
                        exchange_id TEXT NOT NULL,
                        owner TEXT NOT NULL,
                        position INTEGER NOT NULL,
                        key TEXT NOT NULL,
                        value TEXT NOT NULL,
                        PRIMARY KEY (exchange_id, key),
                        FOREIGN KEY (exchange_id, owner) REFERENCES exchanges (id, owner) ON DELETE CASCADE
                    ) STRICT, WITHOUT ROWID;

                    CREATE TABLE exchange_feedback (
                        id TEXT PRIMARY KEY NOT NULL,
                        exchange_id TEXT NOT NULL,
                        owner TEXT NOT NULL,
                        metric TEXT NOT NULL,
                        -- JSON; the number beside it is that of a score, or 1 and 0 for true and false.
                        value TEXT NOT NULL,
                        number REAL,
                        created_at INTEGER NOT NULL,
                        FOREIGN KEY (exchange_id, owner) REFERENCES exchanges (id, owner) ON DELETE CASCADE
                    ) STRICT;
                    CREATE INDEX exchange_feedback_by_exchange ON exchange_feedback (exchange_id, metric);
                    """)
        }
    }
}
