import Adapters
import InstructionStore
import JSON
import Modeling
import Training

/// One job in the hands of the training thread, from taking it up to its end or to whatever stops it. Used by one thread.
///
/// The order of writes is what makes it survive: a step's event; then, where the run is looked at, the snapshot of that step, the published checkpoint, and
/// the checkpoint's row with its events. Whatever is missing after a death is made again from the snapshot and comes out the same.
final class JobRun {
    let queue: JobQueue
    let interruption: Interruption
    let file: SnapshotFile
    /// As it was last written.
    private(set) var row: JobRow
    private var run: (any TrainingRun)?
    private var schedule = EvaluationSchedule(stepCount: 0, stepsPerEpoch: 0)
    private var plan: JobPlan?
    private var checkpoints: [JobCheckpointRow] = []
    private var lastSnapshot: (step: Int, time: ContinuousClock.Instant)
    private var pace = Pace()

    init(_ row: JobRow, queue: JobQueue, interruption: Interruption) {
        self.row = row
        self.queue = queue
        self.interruption = interruption
        file = queue.snapshotFile(row.id)
        lastSnapshot = (0, queue.uptime())
    }

    // MARK: The course of a job

    func carryOut() throws(Halt) {
        row = try queue.claim(row)
        try queue.reach(.claimed, row.id)
        let plan = try halting { () throws(TuningError) in try row.parsedPlan() }
        guard let plan else { throw .failed("invalid_request", "the job has no plan although its files were validated; make it anew") }
        self.plan = plan
        let run = try begin(plan)
        self.run = run
        try queue.reach(.begun, row.id)
        // Outside of the pace, by which the time left is told; kept, because it can take long.
        if try halting({ () throws(TrainingError) in try run.prepare() }) { try saveSnapshot(run) }
        if let missed = try missedEvaluation(run) { try evaluate(run, trainLoss: missed.loss, trainAccuracy: missed.accuracy) }
        while run.completedSteps < run.stepCount, !CheckpointPolicy.isExhausted(checkpoints, patience: plan.patience) {
            let began = queue.uptime()
            let metrics = try halting { () throws(TrainingError) in try run.step() }
            pace.add(step: queue.uptime() - began, tokens: metrics.tokenCount)
            try record(metrics, run)
            let isLookedAt = schedule.contains(metrics.step)
            if isLookedAt || isSnapshotDue(metrics.step) { try saveSnapshot(run) }
            if isLookedAt { try evaluate(run, trainLoss: metrics.loss, trainAccuracy: metrics.accuracy) }
        }
        try finish(run, plan)
    }

    /// Reads the data and sets the run up where the last snapshot left it.
    private func begin(_ plan: JobPlan) throws(Halt) -> any TrainingRun {
        let request = try halting { () throws(TuningError) in try row.parsedRequest() }
        let data = try queue.reader.data(for: request, owner: row.owner, maximumLength: plan.maximumLength, interruption: interruption)
        guard data.trainingDigest == plan.trainingDigest, data.validationDigest == plan.validationDigest, data.initial == plan.initial,
            data.training.examples.count == plan.exampleCount
        else {
            throw .failed("invalid_training_file", "the job's files are not those that it was validated with; make a new job", "training_file")
        }
        let trainingPlan = data.trainingPlan(plan)
        let (run, note) = try start(trainingPlan, from: readSnapshot())
        let steps = run.completedSteps
        let isResumed = row.step > 0 || steps > 0
        schedule = EvaluationSchedule(stepCount: run.stepCount, stepsPerEpoch: run.stepsPerEpoch)
        lastSnapshot = (steps, queue.uptime())
        try record { row, companions in
            companions.rewindingTo = steps
            if let note { companions.events.append(self.queue.event(note, level: .warn)) }
            if isResumed { companions.events.append(self.queue.event("Going on after step \(steps)/\(run.stepCount)")) }
            row.step = steps
            row.stepCount = run.stepCount
            row.trainedTokenCount = run.trainedTokenCount
        }
        checkpoints = try halting { () throws(TuningError) in
            try stored { () throws(InstructionStoreError) in try self.queue.store.jobCheckpoints(job: self.row.number) }
        }
        try thinOut()
        return run
    }

    private func readSnapshot() throws(Halt) -> (SnapshotFile.Content?, note: String?) {
        do throws(SnapshotFile.ReadError) {
            return (try file.read(), nil)
        } catch {
            switch error {
            case .storage(let message): throw .storage(.failed, message)
            case .damaged(let message): return (nil, "The job's snapshot is damaged (\(message)): the job begins anew, and comes to the same result")
            }
        }
    }

    private func start(_ plan: TrainingPlan, from snapshot: (content: SnapshotFile.Content?, note: String?)) throws(Halt) -> (any TrainingRun, note: String?) {
        if let content = snapshot.content {
            do throws(TrainingError) {
                return (try queue.trainer.start(plan, from: content.bytes, interruption: interruption), snapshot.note)
            } catch {
                guard error.code == .invalidSnapshot else { throw Halt(error) }
                let run = try halting { () throws(TrainingError) in try queue.trainer.start(plan, from: nil, interruption: interruption) }
                return (run, "The job's snapshot cannot be used (\(error.message)): the job begins anew")
            }
        }
        return (try halting { () throws(TrainingError) in try queue.trainer.start(plan, from: nil, interruption: interruption) }, snapshot.note)
    }

    // MARK: Steps

    /// Writes the row of the running job.
    private func record(_ edit: (inout JobRow, inout JobQueue.Companions) -> Void) throws(Halt) {
        row = try halting { () throws(TuningError) in try queue.change(row.number, nil) { row, companions throws(TuningError) in edit(&row, &companions) } }
    }

    private func record(_ metrics: StepMetrics, _ run: any TrainingRun) throws(Halt) {
        let secondsLeft = pace.secondsLeft(steps: run.stepCount - metrics.step, evaluations: schedule.steps.count { $0 >= metrics.step })
        var data: JSONObject = [
            "step": .integer(Int64(metrics.step)), "total_steps": .integer(Int64(run.stepCount)), "train_loss": .number(metrics.loss),
            "train_mean_token_accuracy": .number(metrics.accuracy), "learning_rate": .number(metrics.learningRate),
            "gradient_norm": .number(metrics.gradientNorm), "tokens": .integer(Int64(metrics.tokenCount)),
            "trained_tokens": .integer(Int64(metrics.trainedTokenCount)), "epoch": .number(Double(metrics.step) / Double(max(1, run.stepsPerEpoch))),
            "tokens_per_second": .number(Self.rounded(pace.tokensPerSecond)), "seconds_left": .number(Self.rounded(secondsLeft)),
        ]
        data["train_reward_margin"] = metrics.rewardMargin.map { .number($0) }
        let event = JobEventRow(
            createdAt: queue.now(), level: JobEvent.Level.info.rawValue, type: JobEvent.Kind.metrics.rawValue,
            message: "Step \(metrics.step)/\(run.stepCount): training loss=\(Self.short(metrics.loss))", data: JobQueue.text(.object(data)), step: metrics.step)
        try record { row, companions in
            row.step = metrics.step
            row.trainedTokenCount = run.trainedTokenCount
            row.estimatedFinish = self.queue.now() + Int(min(secondsLeft, 1e9))
            companions.events = [event]
        }
        queue.state.withLock { state in
            state.statistics.steps += 1
            state.statistics.tokens += UInt64(max(0, metrics.tokenCount))
            state.statistics.trainedTokens += UInt64(max(0, metrics.trainedTokenCount))
        }
        try queue.reach(.stepRecorded, row.id)
    }

    private func isSnapshotDue(_ step: Int) -> Bool {
        step - lastSnapshot.step >= queue.configuration.snapshotSteps || queue.uptime() - lastSnapshot.time >= queue.configuration.snapshotInterval
    }

    private func saveSnapshot(_ run: any TrainingRun) throws(Halt) {
        let content = SnapshotFile.Content(step: run.completedSteps, bytes: run.snapshot())
        try queue.reach(.snapshotDue, row.id)
        try halting { () throws(TuningError) in try file.write(content) }
        lastSnapshot = (content.step, queue.uptime())
        try queue.reach(.snapshotWritten, row.id)
        if row.startsWithoutSnapshot > 0 { try record { row, _ in row.startsWithoutSnapshot = 0 } }
    }

    /// Keeps what is done for the next start of a job that is interrupted. What fails here is done again then.
    func secure() {
        var isKept = false
        // A step whose figures were not recorded any more is done again.
        if let run, run.completedSteps > lastSnapshot.step, run.completedSteps == row.step, let row = try? queue.store.job(number: row.number), row.finishedAt == nil {
            do throws(TuningError) {
                try file.write(SnapshotFile.Content(step: run.completedSteps, bytes: run.snapshot()))
                isKept = true
            } catch {
                queue.notice(row.id, error.message)
            }
        }
        queue.setAside(row.number, isKept: isKept)
    }

    // MARK: Checkpoints

    /// What the last step said of itself, when the run was to be looked at after it and that did not come to its end.
    private func missedEvaluation(_ run: any TrainingRun) throws(Halt) -> (loss: Double, accuracy: Double)? {
        let step = run.completedSteps
        guard schedule.contains(step), !checkpoints.contains(where: { $0.step == step }) else { return nil }
        let events = try halting { () throws(TuningError) in
            try stored { () throws(InstructionStoreError) in try self.queue.store.jobEvents(job: self.row.number, before: nil, limit: 100) }
        }
        for event in events where event.step == step && event.type == JobEvent.Kind.metrics.rawValue {
            guard let data = event.data.flatMap({ try? JSONValue(parsing: Array($0.utf8)) }), let loss = data["train_loss"]?.number,
                let accuracy = data["train_mean_token_accuracy"]?.number
            else { continue }
            return (loss, accuracy)
        }
        return (0, 0)
    }

    /// Looks at the run as it stands, and publishes it.
    private func evaluate(_ run: any TrainingRun, trainLoss: Double, trainAccuracy: Double) throws(Halt) {
        let step = run.completedSteps
        let began = queue.uptime()
        let metrics = try halting { () throws(TrainingError) in try run.evaluate() }
        pace.add(evaluation: queue.uptime() - began)
        let alias = "\(queue.alias(of: row, plan: plan)):ckpt-step-\(step)"
        let content = AdapterContent(pairs: run.pairs, storage: .float32, baseModelName: nil)
        let version = try halting { () throws(AdapterError) in
            try queue.adapters.publish(content, as: row.id, owner: row.owner, source: .job(row.id), promote: true, alias: alias)
        }
        try queue.reach(.checkpointPublished, row.id)
        let checkpoint = JobCheckpointRow(
            step: step, createdAt: queue.now(), alias: alias, adapter: version.name, version: version.number, trainLoss: Self.finite(trainLoss),
            trainAccuracy: Self.finite(trainAccuracy), validLoss: metrics.map { Self.finite($0.loss) }, validAccuracy: metrics.map { Self.finite($0.accuracy) },
            rewardMargin: metrics?.rewardMargin)
        var events: [JobEventRow] = []
        if let metrics {
            var data: JSONObject = [
                "step": .integer(Int64(step)), "total_steps": .integer(Int64(run.stepCount)), "valid_loss": .number(metrics.loss),
                "valid_mean_token_accuracy": .number(metrics.accuracy), "full_valid_loss": .number(metrics.loss),
                "full_valid_mean_token_accuracy": .number(metrics.accuracy),
            ]
            data["full_valid_reward_margin"] = metrics.rewardMargin.map { .number($0) }
            events.append(
                JobEventRow(
                    createdAt: queue.now(), level: JobEvent.Level.info.rawValue, type: JobEvent.Kind.metrics.rawValue,
                    message: "Step \(step)/\(run.stepCount): validation loss=\(Self.short(metrics.loss))", data: JobQueue.text(.object(data)), step: step))
        }
        var created = queue.event("Checkpoint created at step \(step): \(alias)")
        created.step = step
        events.append(created)
        try record { _, companions in
            companions.checkpoint = checkpoint
            companions.events = events
        }
        checkpoints.append(checkpoint)
        try queue.reach(.checkpointRecorded, row.id)
        try thinOut()
    }

    /// Removes the adapters of checkpoints that are neither the best nor among the last.
    private func thinOut() throws(Halt) {
        for checkpoint in CheckpointPolicy.superfluous(checkpoints) {
            do throws(AdapterError) {
                try queue.adapters.delete(checkpoint.adapter, number: checkpoint.version, owner: row.owner)
            } catch {
                switch error.code {
                case .notFound: break
                // Somebody promoted it by hand: it stays theirs, and is counted no more.
                case .conflict: break
                default: throw Halt(error)
                }
            }
            let time = queue.now()
            try halting { () throws(TuningError) in
                try stored { () throws(InstructionStoreError) in
                    try self.queue.store.setJobCheckpointRemoved(job: self.row.number, step: checkpoint.step, at: time)
                }
            }
            if let index = checkpoints.firstIndex(where: { $0.step == checkpoint.step }) { checkpoints[index].removedAt = time }
            try queue.reach(.checkpointsThinned, row.id)
        }
    }

    // MARK: The end

    /// Publishes the best checkpoint, writes the table of metrics, and closes the job's books.
    private func finish(_ run: any TrainingRun, _ plan: JobPlan) throws(Halt) {
        let alias = queue.alias(of: row, plan: plan)
        let request = try halting { () throws(TuningError) in try row.parsedRequest() }
        let (content, step) = try result(run)
        if row.resultFile == nil {
            let table = MetricsTable.bytes(of: try allEvents())
            let stored: StoredFile
            do throws(InstructionStoreError) {
                stored = try queue.files.add(
                    table, name: "step_metrics.csv", purpose: "fine-tune-results", owner: row.owner, status: .processed, report: nil)
            } catch {
                throw Halt(TuningError(error))
            }
            try record { row, _ in row.resultFile = stored.id }
        }
        try queue.reach(.resultsStored, row.id)
        // The job succeeds or not while nobody else can change its row: what was cancelled publishes nothing. After a death the alias finds what is there.
        var halt: Halt?
        do throws(TuningError) {
            row = try queue.change(row.number, .succeeded) { row, companions throws(TuningError) in
                do throws(Halt) {
                    let version = try halting { () throws(AdapterError) in
                        try queue.adapters.publish(content, as: plan.suffix, owner: row.owner, source: .job(row.id), promote: request.promotes, alias: alias)
                    }
                    try queue.reach(.published, row.id)
                    row.adapter = version.qualifiedName
                } catch {
                    halt = error
                    throw TuningError(.storage, "the adapter could not be published")
                }
                row.fineTunedModel = alias
                row.startsWithoutSnapshot = 0
                if run.completedSteps < run.stepCount {
                    companions.events.append(
                        queue.event("Stopped early after step \(run.completedSteps)/\(run.stepCount): \(plan.patience) evaluations without improvement"))
                }
                companions.events.append(queue.event("New fine-tuned model created: \(alias) (adapter \(row.adapter ?? ""), from step \(step))"))
                companions.events.append(queue.event("The job has successfully completed"))
            }
        } catch {
            throw halt ?? Halt(error)
        }
        try queue.reach(.succeeded, row.id)
        file.remove()
    }

    /// The best checkpoint that can still be read; the run as it stands when there is none.
    private func result(_ run: any TrainingRun) throws(Halt) -> (AdapterContent, step: Int) {
        for checkpoint in CheckpointPolicy.ranked(checkpoints) where checkpoint.removedAt == nil {
            guard let version = queue.adapters.version(alias: checkpoint.alias, owner: row.owner) else { continue }
            do throws(AdapterError) {
                return (try queue.adapters.content(of: version), checkpoint.step)
            } catch {
                switch error.code {
                case .storage, .storageFull, .outOfMemory: throw Halt(error)
                default: queue.notice(row.id, error.message)
                }
            }
        }
        return (AdapterContent(pairs: run.pairs, storage: .float32, baseModelName: nil), run.completedSteps)
    }

    private func allEvents() throws(Halt) -> [JobEventRow] {
        var events: [JobEventRow] = []
        while true {
            let last = events.last?.number ?? 0
            let page = try halting { () throws(TuningError) in
                try stored { () throws(InstructionStoreError) in try self.queue.store.jobEvents(job: self.row.number, after: last, limit: 1000) }
            }
            events += page
            if page.count < 1000 { return events }
        }
    }

    // MARK: Numbers

    /// SQLite has no NaN, and a loss that overflowed is worse than any other.
    private static func finite(_ value: Double) -> Double { value.isFinite ? value : .greatestFiniteMagnitude }
    private static func rounded(_ value: Double) -> Double { value.isFinite ? (value * 10).rounded() / 10 : 0 }

    /// Two decimals, as people read losses.
    private static func short(_ value: Double) -> String {
        guard value.isFinite, abs(value) < 1e9 else { return "\(value)" }
        let hundredths = Int((abs(value) * 100).rounded())
        let digits = hundredths % 100
        return "\(value < 0 && hundredths > 0 ? "-" : "")\(hundredths / 100).\(digits < 10 ? "0" : "")\(digits)"
    }
}

/// How fast a run goes, since it was last taken up.
private struct Pace {
    private var steps = 0, tokens = 0, evaluations = 0
    private var stepTime = Duration.zero, evaluationTime = Duration.zero

    mutating func add(step time: Duration, tokens count: Int) {
        steps += 1
        tokens += count
        stepTime += time
    }

    mutating func add(evaluation time: Duration) {
        evaluations += 1
        evaluationTime += time
    }

    var tokensPerSecond: Double {
        let seconds = Self.seconds(stepTime)
        return seconds > 0 ? Double(tokens) / seconds : 0
    }

    func secondsLeft(steps stepsLeft: Int, evaluations evaluationsLeft: Int) -> Double {
        let step = steps > 0 ? Self.seconds(stepTime) / Double(steps) : 0
        let evaluation = evaluations > 0 ? Self.seconds(evaluationTime) / Double(evaluations) : 0
        return step * Double(stepsLeft) + evaluation * Double(evaluationsLeft)
    }

    private static func seconds(_ duration: Duration) -> Double {
        Double(duration.components.seconds) + Double(duration.components.attoseconds) * 1e-18
    }
}
