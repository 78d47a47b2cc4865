import GRDB

extension InstructionStore {
    /// Tables that are looked through at every start. They stay small; what grows with traffic is checked when it is read.
    static let checkedTables = [
        "store", "owners", "adapters", "adapter_versions", "adapter_names", "adapter_promotions", "adapter_aliases", "fine_tuning_jobs",
        "fine_tuning_checkpoints", "api_keys",
    ]

    /// Rule: a migration that was released is never changed. Every object has an owner; references name the owner again, so that no row can belong to one
    /// owner and point at another's.
    static var migrator: DatabaseMigrator {
        var migrator = DatabaseMigrator()
        migrator.registerMigration("1-adapters") { db in
            try db.execute(
                sql: """
                    CREATE TABLE store (id TEXT NOT NULL) STRICT;
                    INSERT INTO store VALUES (lower(hex(randomblob(16))));

                    CREATE TABLE owners (
                        name TEXT PRIMARY KEY,
                        created_at INTEGER NOT NULL
                    ) STRICT;
                    INSERT INTO owners VALUES ('local', CAST(strftime('%s', 'now') AS INTEGER));

                    CREATE TABLE adapters (
                        id INTEGER PRIMARY KEY AUTOINCREMENT,
                        owner TEXT NOT NULL REFERENCES owners (name),
                        name TEXT NOT NULL,
                        promoted INTEGER,
                        canary INTEGER,
                        canary_share REAL CHECK (canary_share > 0 AND canary_share < 1),
                        pinned INTEGER NOT NULL DEFAULT 0 CHECK (pinned IN (0, 1)),
                        created_at INTEGER NOT NULL,
                        UNIQUE (owner, name),
                        UNIQUE (id, owner),
                        CHECK ((canary IS NULL) = (canary_share IS NULL)),
                        FOREIGN KEY (id, promoted) REFERENCES adapter_versions (adapter_id, number) DEFERRABLE INITIALLY DEFERRED,
                        FOREIGN KEY (id, canary) REFERENCES adapter_versions (adapter_id, number) DEFERRABLE INITIALLY DEFERRED
                    ) STRICT;

                    CREATE TABLE adapter_versions (
                        adapter_id INTEGER NOT NULL,
                        owner TEXT NOT NULL,
                        number INTEGER NOT NULL CHECK (number > 0),
                        digest TEXT NOT NULL,
                        base_name TEXT NOT NULL,
                        base_digest TEXT NOT NULL,
                        rank INTEGER NOT NULL,
                        pair_count INTEGER NOT NULL,
                        source TEXT NOT NULL,
                        created_at INTEGER NOT NULL,
                        config_byte_count INTEGER NOT NULL CHECK (config_byte_count >= 0),
                        weights_byte_count INTEGER NOT NULL CHECK (weights_byte_count >= 0),
                        folder TEXT NOT NULL UNIQUE,
                        quarantine TEXT,
                        PRIMARY KEY (adapter_id, number),
                        FOREIGN KEY (adapter_id, owner) REFERENCES adapters (id, owner) ON DELETE CASCADE
                    ) STRICT;

                    -- Outlives the adapters: a number that a name once had is never given to other content.
                    CREATE TABLE adapter_names (
                        owner TEXT NOT NULL REFERENCES owners (name),
                        name TEXT NOT NULL,
                        last_number INTEGER NOT NULL CHECK (last_number > 0),
                        PRIMARY KEY (owner, name)
                    ) STRICT;

                    -- What the bare name stood for, one row after the other; those that were rolled back keep the time of that.
                    CREATE TABLE adapter_promotions (
                        id INTEGER PRIMARY KEY AUTOINCREMENT,
                        adapter_id INTEGER NOT NULL,
                        owner TEXT NOT NULL,
                        number INTEGER NOT NULL,
                        promoted_at INTEGER NOT NULL,
                        rolled_back_at INTEGER,
                        FOREIGN KEY (adapter_id, owner) REFERENCES adapters (id, owner) ON DELETE CASCADE,
                        FOREIGN KEY (adapter_id, number) REFERENCES adapter_versions (adapter_id, number) ON DELETE CASCADE
                    ) STRICT;
                    CREATE INDEX adapter_promotions_by_version ON adapter_promotions (adapter_id, number);
                    """)
        }
        registerFilesAndExchanges(in: &migrator)
        registerJobs(&migrator)
        registerKeys(&migrator)
        return migrator
    }
}
