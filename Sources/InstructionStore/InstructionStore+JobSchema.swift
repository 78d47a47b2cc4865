import GRDB

extension InstructionStore {
    /// The tables of fine-tuning jobs, and the names that they give to what they publish.
    static func registerJobs(_ migrator: inout DatabaseMigrator) {
        migrator.registerMigration("fine-tuning-jobs") { db in
            try db.execute(
                sql: """
                    -- Further names of versions, each of exactly one and for good.
                    CREATE TABLE adapter_aliases (
                        owner TEXT NOT NULL,
                        alias TEXT NOT NULL,
                        adapter_id INTEGER NOT NULL,
                        number INTEGER NOT NULL,
                        PRIMARY KEY (owner, alias),
                        FOREIGN KEY (adapter_id, owner) REFERENCES adapters (id, owner) ON DELETE CASCADE,
                        FOREIGN KEY (adapter_id, number) REFERENCES adapter_versions (adapter_id, number) ON DELETE CASCADE
                    ) STRICT;
                    CREATE INDEX adapter_aliases_by_version ON adapter_aliases (adapter_id, number);

                    CREATE TABLE fine_tuning_jobs (
                        number INTEGER PRIMARY KEY AUTOINCREMENT,
                        id TEXT NOT NULL UNIQUE,
                        owner TEXT NOT NULL REFERENCES owners (name),
                        created_at INTEGER NOT NULL,
                        request TEXT NOT NULL,
                        metadata TEXT,
                        status TEXT NOT NULL
                            CHECK (status IN ('validating_files', 'queued', 'running', 'succeeded', 'failed', 'cancelled')),
                        paused INTEGER NOT NULL CHECK (paused IN (0, 1)),
                        storage TEXT,
                        plan TEXT,
                        starts_without_snapshot INTEGER NOT NULL CHECK (starts_without_snapshot >= 0),
                        step INTEGER NOT NULL CHECK (step >= 0),
                        step_count INTEGER NOT NULL CHECK (step_count >= 0),
                        trained_token_count INTEGER NOT NULL CHECK (trained_token_count >= 0),
                        started_at INTEGER,
                        finished_at INTEGER,
                        estimated_finish INTEGER,
                        fine_tuned_model TEXT,
                        adapter TEXT,
                        result_file TEXT,
                        error_code TEXT,
                        error_message TEXT,
                        error_parameter TEXT,
                        UNIQUE (number, owner),
                        CHECK ((finished_at IS NULL) = (status IN ('validating_files', 'queued', 'running'))),
                        CHECK ((error_code IS NULL) = (error_message IS NULL))
                    ) STRICT;
                    CREATE INDEX fine_tuning_jobs_by_owner ON fine_tuning_jobs (owner, number);

                    CREATE TABLE fine_tuning_events (
                        number INTEGER PRIMARY KEY AUTOINCREMENT,
                        job INTEGER NOT NULL,
                        owner TEXT NOT NULL,
                        created_at INTEGER NOT NULL,
                        level TEXT NOT NULL CHECK (level IN ('info', 'warn', 'error')),
                        type TEXT NOT NULL CHECK (type IN ('message', 'metrics')),
                        message TEXT NOT NULL,
                        data TEXT,
                        step INTEGER,
                        FOREIGN KEY (job, owner) REFERENCES fine_tuning_jobs (number, owner) ON DELETE CASCADE
                    ) STRICT;
                    CREATE INDEX fine_tuning_events_by_job ON fine_tuning_events (job, number);

                    CREATE TABLE fine_tuning_checkpoints (
                        job INTEGER NOT NULL,
                        owner TEXT NOT NULL,
                        step INTEGER NOT NULL CHECK (step > 0),
                        created_at INTEGER NOT NULL,
                        alias TEXT NOT NULL,
                        adapter TEXT NOT NULL,
                        version INTEGER NOT NULL,
                        train_loss REAL NOT NULL,
                        train_accuracy REAL NOT NULL,
                        valid_loss REAL,
                        valid_accuracy REAL,
                        reward_margin REAL,
                        removed_at INTEGER,
                        PRIMARY KEY (job, step),
                        FOREIGN KEY (job, owner) REFERENCES fine_tuning_jobs (number, owner) ON DELETE CASCADE
                    ) STRICT;
                    """)
        }
    }
}
