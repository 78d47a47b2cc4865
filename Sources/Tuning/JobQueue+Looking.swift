import Adapters
import InstructionStore
import JSON

extension JobQueue {
    func find(_ id: String, _ owner: String) throws(TuningError) -> JobRow {
        guard let row = try stored({ () throws(InstructionStoreError) in try store.job(id: id, owner: owner) }) else {
            throw TuningError(.notFound, "there is no fine-tuning job of this id; GET /v1/fine_tuning/jobs lists those that there are")
        }
        return row
    }

    public func job(_ id: String, owner: String) throws(TuningError) -> FineTuningJob {
        try job(find(id, owner))
    }

    public func jobs(owner: String, after: String?, limit: Int, metadata: JobMetadataFilter) throws(TuningError) -> JobPage<FineTuningJob> {
        var before: Int?
        if let after {
            guard let row = try stored({ () throws(InstructionStoreError) in try store.job(id: after, owner: owner) }) else {
                throw TuningError(.invalidArgument, "'after' names no fine-tuning job, expected the id of the last one of the page before", parameter: "after")
            }
            before = row.number
        }
        let rows = try stored { () throws(InstructionStoreError) in try store.jobs(owner: owner, before: before, limit: limit + 1, metadata: metadata) }
        var jobs: [FineTuningJob] = []
        for row in rows.prefix(limit) { jobs.append(try job(row)) }
        return JobPage(elements: jobs, hasMore: rows.count > limit)
    }

    public func events(of id: String, owner: String, after: String?, limit: Int) throws(TuningError) -> JobPage<JobEvent> {
        let number = try find(id, owner).number
        var before: Int?
        if let after {
            guard let last = JobEvent.number(after) else {
                throw TuningError(.invalidArgument, "'after' names no event, expected the id of the last one of the page before", parameter: "after")
            }
            before = last
        }
        let rows = try stored { () throws(InstructionStoreError) in try store.jobEvents(job: number, before: before, limit: limit + 1) }
        return JobPage(elements: rows.prefix(limit).map(JobEvent.init), hasMore: rows.count > limit)
    }

    public func news(of id: String, owner: String, after number: Int, limit: Int) throws(TuningError) -> JobNews {
        // The row first: what is written after it was read is news of another time.
        let row = try find(id, owner)
        let events = try stored { () throws(InstructionStoreError) in try store.jobEvents(job: row.number, after: number, limit: limit) }
        return JobNews(events: events.map(JobEvent.init), isOver: try row.state().status.isFinal && events.count < limit)
    }

    public func checkpoints(of id: String, owner: String, after: String?, limit: Int) throws(TuningError) -> JobPage<JobCheckpoint> {
        let row = try find(id, owner)
        let rows = try stored { () throws(InstructionStoreError) in try store.jobCheckpoints(job: row.number) }
        let best = CheckpointPolicy.best(rows)?.step
        var checkpoints = rows.reversed().map { JobCheckpoint($0, of: row, isBest: $0.step == best) }[...]
        if let after {
            guard let index = checkpoints.firstIndex(where: { $0.id == after }) else {
                throw TuningError(
                    .invalidArgument, "'after' names no checkpoint of this job, expected the id of the last one of the page before", parameter: "after")
            }
            checkpoints = checkpoints[(index + 1)...]
        }
        return JobPage(elements: Array(checkpoints.prefix(limit)), hasMore: checkpoints.count > limit)
    }

    /// A row as callers see it.
    func job(_ row: JobRow) throws(TuningError) -> FineTuningJob {
        var state = try row.state()
        if let storage = self.state.withLock({ $0.storage[row.number] }) {
            state.storage = storage
            if state.status == .running { state.status = .queued }
        }
        let request = try row.parsedRequest()
        var job = FineTuningJob(id: row.id, owner: row.owner, request: request, state: state, plan: try row.parsedPlan(), createdAt: row.createdAt)
        job.startedAt = row.startedAt
        job.finishedAt = row.finishedAt
        job.estimatedFinish = state.status == .running ? row.estimatedFinish : nil
        job.step = row.step
        job.stepCount = row.stepCount
        job.trainedTokenCount = row.trainedTokenCount
        job.fineTunedModel = row.fineTunedModel
        job.adapter = row.adapter
        job.resultFiles = row.resultFile.map { [$0] } ?? []
        if let code = row.errorCode, let message = row.errorMessage {
            job.failure = FineTuningJob.Failure(code: code, message: message, parameter: row.errorParameter)
        }
        return job
    }
}

extension JobRow {
    func parsedRequest() throws(TuningError) -> JobRequest {
        guard let json = try? JSONValue(parsing: Array(request.utf8)), let parsed = JobRequest(json) else { throw damaged("request") }
        return parsed
    }

    func parsedPlan() throws(TuningError) -> JobPlan? {
        guard let plan else { return nil }
        guard let json = try? JSONValue(parsing: Array(plan.utf8)), let parsed = JobPlan(json) else { throw damaged("plan") }
        return parsed
    }

    private func damaged(_ what: String) -> TuningError {
        TuningError(.storage, "the job \(id): its \(what) is damaged; restore the data directory from a backup")
    }
}

extension JobEvent {
    init(_ row: JobEventRow) {
        let data = row.data.flatMap { try? JSONValue(parsing: Array($0.utf8)) }?.object
        self.init(
            number: row.number, createdAt: row.createdAt, level: Level(rawValue: row.level) ?? .info, kind: Kind(rawValue: row.type) ?? .message,
            message: row.message, data: data ?? JSONObject())
    }
}

extension JobCheckpoint {
    init(_ row: JobCheckpointRow, of job: JobRow, isBest: Bool) {
        self.init(
            id: "ftckpt_\(job.id.dropFirst("ftjob-".count))-\(row.step)", job: job.id, createdAt: row.createdAt, step: row.step, model: row.alias,
            adapter: "\(row.adapter)@\(row.version)", trainLoss: row.trainLoss, trainAccuracy: row.trainAccuracy, validLoss: row.validLoss,
            validAccuracy: row.validAccuracy, rewardMargin: row.rewardMargin, isKept: row.removedAt == nil, isBest: isBest)
    }
}
