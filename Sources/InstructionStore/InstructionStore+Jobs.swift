import GRDB

extension InstructionStore {
    // MARK: Reading

    /// `nil`: no such job, or another owner's.
    public func job(id: String, owner: String) throws(InstructionStoreError) -> JobRow? {
        try read { db in
            try Row.fetchOne(db, sql: "SELECT * FROM fine_tuning_jobs WHERE id = ? AND owner = ?", arguments: [id, owner]).map { try JobRow($0) }
        }
    }

    public func job(number: Int) throws(InstructionStoreError) -> JobRow {
        try read { db in try Self.job(db, number) }
    }

    /// An owner's jobs, newest first.
    /// - Parameter number: only those that were made before this one; `nil`: from the newest on.
    public func jobs(owner: String, before number: Int?, limit: Int, metadata: JobMetadataFilter = .any) throws(InstructionStoreError) -> [JobRow] {
        var conditions = ["owner = ?", "number < ?"]
        var arguments: StatementArguments = [owner, number ?? Int.max]
        switch metadata {
        case .any: break
        case .none: conditions.append("metadata IS NULL")
        case .pairs(let pairs):
            for (key, value) in pairs {
                conditions.append("EXISTS (SELECT 1 FROM json_each(metadata) AS pair WHERE pair.key = ? AND pair.value = ?)")
                arguments += [key, value]
            }
        }
        arguments += [limit]
        let sql = "SELECT * FROM fine_tuning_jobs WHERE \(conditions.joined(separator: " AND ")) ORDER BY number DESC LIMIT ?"
        return try read { [arguments] db in try Row.fetchAll(db, sql: sql, arguments: arguments).map { try JobRow($0) } }
    }

    /// All owners' jobs that have not ended, oldest first.
    public func unfinishedJobs() throws(InstructionStoreError) -> [JobRow] {
        try read { db in
            try Row.fetchAll(db, sql: "SELECT * FROM fine_tuning_jobs WHERE finished_at IS NULL ORDER BY number").map { try JobRow($0) }
        }
    }

    /// How many jobs of all owners are in each status.
    public func jobCounts() throws(InstructionStoreError) -> [String: Int] {
        try read { db in
            try Row.fetchAll(db, sql: "SELECT status, count(*) AS count FROM fine_tuning_jobs GROUP BY status")
                .reduce(into: [:]) { try $0[$1.value("status")] = $1.value("count") }
        }
    }

    /// The newest events of a job that come before a number, newest first.
    public func jobEvents(job: Int, before number: Int?, limit: Int) throws(InstructionStoreError) -> [JobEventRow] {
        try read { db in
            try Row.fetchAll(
                db, sql: "SELECT * FROM fine_tuning_events WHERE job = ? AND number < ? ORDER BY number DESC LIMIT ?",
                arguments: [job, number ?? Int.max, limit]
            ).map { try JobEventRow($0) }
        }
    }

    /// The events of a job that come after a number, oldest first.
    public func jobEvents(job: Int, after number: Int, limit: Int) throws(InstructionStoreError) -> [JobEventRow] {
        try read { db in
            try Row.fetchAll(
                db, sql: "SELECT * FROM fine_tuning_events WHERE job = ? AND number > ? ORDER BY number LIMIT ?", arguments: [job, number, limit]
            ).map { try JobEventRow($0) }
        }
    }

    /// In the order of their steps.
    public func jobCheckpoints(job: Int) throws(InstructionStoreError) -> [JobCheckpointRow] {
        try read { db in
            try Row.fetchAll(db, sql: "SELECT * FROM fine_tuning_checkpoints WHERE job = ? ORDER BY step", arguments: [job]).map { try JobCheckpointRow($0) }
        }
    }

    // MARK: Changing

    /// Enters a job behind all others, with its first events.
    /// - Returns: the row with its number.
    public func insertJob(_ row: JobRow, events: [JobEventRow]) throws(InstructionStoreError) -> JobRow {
        try write { db in
            try db.execute(
                sql: """
                    INSERT INTO fine_tuning_jobs
                        (id, owner, created_at, request, metadata, status, paused, starts_without_snapshot, step, step_count, trained_token_count)
                    VALUES (?, ?, ?, ?, ?, ?, 0, 0, 0, 0, 0)
                    """,
                arguments: [row.id, row.owner, row.createdAt, row.request, row.metadata, row.status])
            let entered = try Self.job(db, Int(db.lastInsertedRowID))
            for event in events { try Self.insert(db, event, of: entered) }
            return entered
        }
    }

    /// One step of a job's life: its row as it is from now on, with what else belongs to the same moment.
    ///
    /// - Parameters:
    ///   - events: come after all others.
    ///   - checkpoint: one that was published; takes the place of the one of its step.
    ///   - step: goes back to this one: events and checkpoints of later steps are removed first.
    public func updateJob(
        _ row: JobRow, events: [JobEventRow] = [], checkpoint: JobCheckpointRow? = nil, rewindingTo step: Int? = nil
    ) throws(InstructionStoreError) {
        try write { db in
            if let step {
                try db.execute(sql: "DELETE FROM fine_tuning_events WHERE job = ? AND step > ?", arguments: [row.number, step])
                try db.execute(sql: "DELETE FROM fine_tuning_checkpoints WHERE job = ? AND step > ?", arguments: [row.number, step])
            }
            try db.execute(
                sql: """
                    UPDATE fine_tuning_jobs SET status = ?, paused = ?, storage = ?, plan = ?, starts_without_snapshot = ?, step = ?, step_count = ?,
                        trained_token_count = ?, started_at = ?, finished_at = ?, estimated_finish = ?, fine_tuned_model = ?, adapter = ?,
                        result_file = ?, error_code = ?, error_message = ?, error_parameter = ?
                    WHERE number = ?
                    """,
                arguments: [
                    row.status, row.isPaused, row.storage, row.plan, row.startsWithoutSnapshot, row.step, row.stepCount, row.trainedTokenCount,
                    row.startedAt, row.finishedAt, row.estimatedFinish, row.fineTunedModel, row.adapter, row.resultFile, row.errorCode, row.errorMessage,
                    row.errorParameter, row.number,
                ])
            guard db.changesCount == 1 else { throw Self.absentJob(row.number) }
            for event in events { try Self.insert(db, event, of: row) }
            if let checkpoint { try Self.insert(db, checkpoint, of: row) }
        }
    }

    /// Notes that the adapter of a checkpoint is gone.
    public func setJobCheckpointRemoved(job: Int, step: Int, at time: Int) throws(InstructionStoreError) {
        try write { db in
            try db.execute(sql: "UPDATE fine_tuning_checkpoints SET removed_at = ? WHERE job = ? AND step = ?", arguments: [time, job, step])
            guard db.changesCount == 1 else { throw Self.absentJob(job) }
        }
    }

    // MARK: Inside a transaction

    private static func job(_ db: Database, _ number: Int) throws -> JobRow {
        guard let row = try Row.fetchOne(db, sql: "SELECT * FROM fine_tuning_jobs WHERE number = ?", arguments: [number]) else { throw absentJob(number) }
        return try JobRow(row)
    }

    private static func absentJob(_ number: Int) -> InstructionStoreError {
        InstructionStoreError(.notFound, "there is no job with the number \(number), or not that checkpoint of it")
    }

    private static func insert(_ db: Database, _ event: JobEventRow, of job: JobRow) throws {
        try db.execute(
            sql: "INSERT INTO fine_tuning_events (job, owner, created_at, level, type, message, data, step) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            arguments: [job.number, job.owner, event.createdAt, event.level, event.type, event.message, event.data, event.step])
    }

    private static func insert(_ db: Database, _ checkpoint: JobCheckpointRow, of job: JobRow) throws {
        try db.execute(
            sql: """
                INSERT OR REPLACE INTO fine_tuning_checkpoints
                    (job, owner, step, created_at, alias, adapter, version, train_loss, train_accuracy, valid_loss, valid_accuracy, reward_margin, removed_at)
                VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
                """,
            arguments: [
                job.number, job.owner, checkpoint.step, checkpoint.createdAt, checkpoint.alias, checkpoint.adapter, checkpoint.version, checkpoint.trainLoss,
                checkpoint.trainAccuracy, checkpoint.validLoss, checkpoint.validAccuracy, checkpoint.rewardMargin, checkpoint.removedAt,
            ])
    }
}

extension JobRow {
    fileprivate init(_ row: Row) throws {
        try self.init(
            id: row.value("id"), owner: row.value("owner"), createdAt: row.value("created_at"), request: row.value("request"),
            metadata: row.optional("metadata"), status: row.value("status"))
        number = try row.value("number")
        isPaused = try row.value("paused")
        storage = try row.optional("storage")
        plan = try row.optional("plan")
        startsWithoutSnapshot = try row.value("starts_without_snapshot")
        step = try row.value("step")
        stepCount = try row.value("step_count")
        trainedTokenCount = try row.value("trained_token_count")
        startedAt = try row.optional("started_at")
        finishedAt = try row.optional("finished_at")
        estimatedFinish = try row.optional("estimated_finish")
        fineTunedModel = try row.optional("fine_tuned_model")
        adapter = try row.optional("adapter")
        resultFile = try row.optional("result_file")
        errorCode = try row.optional("error_code")
        errorMessage = try row.optional("error_message")
        errorParameter = try row.optional("error_parameter")
    }
}

extension JobEventRow {
    fileprivate init(_ row: Row) throws {
        try self.init(
            createdAt: row.value("created_at"), level: row.value("level"), type: row.value("type"), message: row.value("message"), data: row.optional("data"),
            step: row.optional("step"))
        number = try row.value("number")
    }
}

extension JobCheckpointRow {
    fileprivate init(_ row: Row) throws {
        try self.init(
            step: row.value("step"), createdAt: row.value("created_at"), alias: row.value("alias"), adapter: row.value("adapter"),
            version: row.value("version"),
            trainLoss: row.value("train_loss"), trainAccuracy: row.value("train_accuracy"), validLoss: row.optional("valid_loss"),
            validAccuracy: row.optional("valid_accuracy"), rewardMargin: row.optional("reward_margin"), removedAt: row.optional("removed_at"))
    }
}
