import Adapters
import InstructionStore
import Synchronization
import Training

extension JobQueue {
    // MARK: Validating

    /// Looks at the files of the first job that waits for that, and makes its plan.
    package func checkNext() -> Turn {
        let waiting: JobRow?
        do throws(InstructionStoreError) {
            waiting = try workable().first { $0.status == JobState.Status.validatingFiles.rawValue }
        } catch {
            notice("-", error.message)
            return .storageLost
        }
        guard let row = waiting else { return .nothing }
        let interruption = Interruption()
        let isStopping = state.withLock { state in
            if !state.isStopping { state.checked = (row.number, interruption) }
            return state.isStopping
        }
        if isStopping { return .nothing }
        defer { state.withLock { $0.checked = nil } }
        do throws(Halt) {
            // Examples may be more than memory holds: a process that dies of them must not die for ever.
            try refuseCrashLoop(row)
            try halting { () throws(TuningError) in try adjust(row.number) { $0.startsWithoutSnapshot += 1 } }
            try check(row, interruption)
            return .worked
        } catch {
            if error != .died { try? adjust(row.number) { row in if row.finishedAt == nil { row.startsWithoutSnapshot = 0 } } }
            return settle(row, error)
        }
    }

    /// - Throws: when the process died too often over this job.
    private func refuseCrashLoop(_ row: JobRow) throws(Halt) {
        guard row.startsWithoutSnapshot >= configuration.maximumStarts else { return }
        throw .failed(
            "crash_loop",
            "the process died \(row.startsWithoutSnapshot) times in a row while it worked on this job, without a new snapshot in between; "
                + "look into the server's log, and lower lora.max_length or batch_size if memory ran out")
    }

    private func check(_ row: JobRow, _ interruption: Interruption) throws(Halt) {
        let request = try halting { () throws(TuningError) in try row.parsedRequest() }
        let (plan, data) = try prepare(request, id: row.id, owner: row.owner, interruption: interruption)
        if let limit = configuration.memoryLimitBytes {
            let estimate = trainer.memoryEstimate(for: data.trainingPlan(plan))
            if estimate > limit { throw .failed("memory_limit_exceeded", Self.memoryMessage(estimate, limit, plan), "lora.max_length") }
        }
        let report = data.training.report
        var found = "Files validated: \(plan.trainingCount) examples to train on"
        found += plan.heldOutCount > 0 ? ", \(plan.heldOutCount) held out" : data.validation.map { ", \($0.examples.count) to validate with" } ?? ""
        found += "; \(report.tokenCount) tokens, \(report.trainedTokenCount) of them trained"
        if report.truncatedCount > 0 { found += "; \(report.truncatedCount) examples cut to \(plan.maximumLength) tokens" }
        try halting { () throws(TuningError) in
            _ = try change(row.number, .validated) { row, companions throws(TuningError) in
                row.plan = Self.text(plan.json)
                row.storage = nil
                row.startsWithoutSnapshot = 0
                companions.events = data.notes.map { self.event($0, level: .warn) } + [event(found), event("The job is queued")]
            }
        }
        wake()
        try reach(.validated, row.id)
    }

    // MARK: Running

    /// Runs the first job that is ready, to its end or until it stops: one that a process left in the middle before those that have not begun.
    package func runNext() -> Turn {
        let ready: [JobRow]
        do throws(InstructionStoreError) {
            ready = try workable()
        } catch {
            notice("-", error.message)
            return .storageLost
        }
        let candidates = ready.filter { (try? $0.state().isReady) ?? false }
        guard let row = candidates.first(where: { $0.status == JobState.Status.running.rawValue }) ?? candidates.first else { return .nothing }
        let interruption = Interruption()
        let isStopping = state.withLock { state in
            if !state.isStopping { state.current = (row.number, interruption) }
            return state.isStopping
        }
        if isStopping { return .nothing }
        let run = JobRun(row, queue: self, interruption: interruption)
        let turn: Turn
        do throws(Halt) {
            try run.carryOut()
            turn = .worked
        } catch {
            if error == .interrupted || error == .superseded { run.secure() }
            turn = settle(row, error)
        }
        state.withLock { $0.current = nil }
        // Between the last word of the run and here somebody may have cancelled the job.
        if hasEnded(row) { snapshotFile(row.id).remove() }
        return turn
    }

    /// Whether a job has ended and its folder is of no use.
    private func hasEnded(_ row: JobRow) -> Bool {
        ((try? store.job(number: row.number)).flatMap { try? $0.state().status.isFinal }) ?? false
    }

    /// Takes a job up: from here on it is running, and a death counts.
    func claim(_ row: JobRow) throws(Halt) -> JobRow {
        let isCounted = state.withLock { $0.counted.contains(row.number) }
        if !isCounted { try refuseCrashLoop(row) }
        let claimed = try halting { () throws(TuningError) in
            try change(row.number, .started) { row, companions throws(TuningError) in
                if row.startedAt == nil {
                    row.startedAt = now()
                    companions.events = [event("Fine-tuning job started")]
                }
                if !isCounted { row.startsWithoutSnapshot += 1 }
            }
        }
        state.withLock { _ = $0.counted.insert(row.number) }
        return claimed
    }

    /// What becomes of a job whose work stopped.
    private func settle(_ row: JobRow, _ reason: Halt) -> Turn {
        switch reason {
        case .interrupted, .superseded: return .worked
        case .died: return .nothing
        case .failed(let failure):
            do throws(TuningError) {
                try change(row.number, .failed) { row, companions throws(TuningError) in
                    row.errorCode = failure.code
                    row.errorMessage = failure.message
                    row.errorParameter = failure.parameter
                    companions.events = [event("The job failed: \(failure.message)", level: .error)]
                }
                snapshotFile(row.id).remove()
                return .worked
            } catch {
                if error.code == .conflict { return .worked }
                return lose(row, .failed, error.message)
            }
        case .storage(let storage, let message):
            return lose(row, storage, message)
        }
    }

    /// A job waits for the disk; when that takes nothing at all, only this process knows.
    private func lose(_ row: JobRow, _ storage: JobState.Storage, _ message: String) -> Turn {
        notice(row.id, message)
        do throws(TuningError) {
            try change(row.number, .storageLost(storage)) { row, companions throws(TuningError) in
                row.estimatedFinish = nil
                let reason = storage == .full ? "The server's disk is full" : "The server's disk failed"
                let message = "\(reason): the job waits and goes on by itself when there is room"
                // A wait of many tries is one event.
                let last = try stored { () throws(InstructionStoreError) in try store.jobEvents(job: row.number, before: nil, limit: 1) }.first
                if last?.message != message { companions.events = [event(message, level: .warn)] }
                // The process lives: nothing is to be counted against the job.
                row.startsWithoutSnapshot = 0
            }
            state.withLock { _ = $0.counted.remove(row.number) }
        } catch {
            if error.code == .conflict { return .worked }
            state.withLock { $0.storage[row.number] = storage }
            tell(row.id)
        }
        return .storageLost
    }
}

extension JobQueue {
    /// An interrupted job waits for its next start: this one was no death.
    func setAside(_ number: Int, isKept: Bool) {
        let isCounted = state.withLock { $0.counted.remove(number) != nil }
        guard isCounted else { return }
        // A job that was cancelled or has ended needs no number; on a full disk the old one stays, which is on the safe side.
        try? adjust(number) { row in
            if row.finishedAt == nil { row.startsWithoutSnapshot = isKept ? 0 : max(0, row.startsWithoutSnapshot - 1) }
        }
    }

    /// `ft:<base>:<owner>:<suffix>:<job>`: the name of what comes of a job.
    func alias(of row: JobRow, plan: JobPlan?) -> String {
        "ft:\(Self.word(adapters.base.name)):\(row.owner):\(plan?.suffix ?? "ft-\(row.id)"):\(row.id)"
    }

    /// A base's name without what would end a part of an alias, or be unfit for a header.
    private static func word(_ name: String) -> String {
        String(decoding: name.utf8.prefix(128).map { (0x21...0x7E).contains($0) && $0 != UInt8(ascii: ":") ? $0 : UInt8(ascii: "_") }, as: UTF8.self)
    }
}
