import Adapters
import Executors
import FoundationEssentials
import InstructionStore
import Glibc
import Synchronization
import Testing
import Training
import Tuning

/// Jobs that do not run through in one go: they are paused, cancelled, killed, or find no room on the disk.
struct JobInterruptionTests {
    /// What came of a job, without what depends on its random id.
    private struct Outcome: Equatable {
        var digest: String?
        var job: FineTuningJob
        var events: [String]
        var checkpoints: [JobCheckpoint]
        var versions: [Int]
        var results: [[UInt8]]
    }

    private func outcome(_ fixture: TuningFixture, _ id: String) throws -> Outcome {
        func anonymous(_ text: String) -> String { text.replacing(id.dropFirst("ftjob-".count), with: "ID") }
        var job = try fixture.job(id)
        job.id = "ID"
        // Which number a file gets depends on how many there are.
        job.resultFiles = job.resultFiles.map { _ in "file" }
        job.fineTunedModel = job.fineTunedModel.map(anonymous)
        let model = try #require(fixture.job(id).fineTunedModel)
        return Outcome(
            digest: fixture.adapters.version(alias: model, owner: "local")?.digest, job: job,
            events: try fixture.events(id).map { "\($0.kind) \(anonymous($0.message)) \($0.data.count)" }.filter { !$0.contains("Going on after step") },
            checkpoints: try fixture.checkpoints(id).map {
                var checkpoint = $0
                (checkpoint.id, checkpoint.job, checkpoint.model, checkpoint.adapter) = (anonymous($0.id), "", anonymous($0.model), "")
                return checkpoint
            }, versions: fixture.adapters.record(named: "bot", owner: "local")?.versions.map(\.number) ?? [], results: fixture.files.results.map(\.bytes))
    }

    private func undisturbed(
        _ settings: (inout FakeTrainer.Settings) -> Void = { _ in }, _ change: (inout JobRequest) -> Void = { _ in }
    ) throws -> (Outcome, [JobQueue.Stage]) {
        let fixture = try TuningFixture()
        fixture.trainer.settings.withLock { settings(&$0) }
        let id = try fixture.create(change)
        fixture.work()
        return (try outcome(fixture, id), fixture.stages.seen.withLock { $0 })
    }

    // MARK: Death

    /// At every moment at which something has just reached the disk, each time that it is reached.
    @Test(arguments: JobQueue.Stage.allCases) func deathAtEveryStage(_ stage: JobQueue.Stage) throws {
        // A loss with a minimum in the middle, so that checkpoints are removed on the way.
        let loss: @Sendable (Int) -> Double = { abs(Double($0) - 3) }
        func change(_ request: inout JobRequest) {
            request.epochs = 2
            request.earlyStoppingPatience = 4
        }
        let (expected, stages) = try undisturbed({ $0.validLoss = loss }, change)
        #expect(expected.job.step == 7 && expected.checkpoints.contains { !$0.isKept })
        let count = stages.count { $0 == stage }
        #expect(count > 0, "the stage is never reached")
        for occurrence in 1...max(1, count) {
            let fixture = try TuningFixture()
            fixture.trainer.settings.withLock { $0.validLoss = loss }
            let id = try fixture.create(change)
            fixture.stages.die(at: stage, occurrence)
            fixture.work()
            fixture.stages.action.withLock { $0 = nil }
            try fixture.restart()
            fixture.work()
            let found = try outcome(fixture, id)
            #expect(found == expected, "\(stage) \(occurrence)")
            #expect(try fixture.jobFolders().isEmpty, "\(stage) \(occurrence)")
        }
    }

    @Test func deathsOneAfterTheOther() throws {
        let (expected, _) = try undisturbed()
        let fixture = try TuningFixture()
        let id = try fixture.create()
        _ = fixture.queue.checkNext()
        // Each life gets three steps further than the last snapshot, which comes every seven steps and at each look.
        var lives = 0
        while try fixture.job(id).status != .succeeded {
            lives += 1
            guard lives < 40 else { break }
            fixture.stages.die(at: .stepRecorded, 3)
            _ = fixture.queue.runNext()
            try fixture.restart()
        }
        fixture.stages.action.withLock { $0 = nil }
        #expect(lives > 5 && lives < 40)
        #expect(try outcome(fixture, id) == expected)
        #expect(fixture.trainer.settings.withLock { $0.starts } == fixture.trainer.settings.withLock { $0.starts.sorted() }, "no step back behind a snapshot")
    }

    @Test func aRunningJobGoesBeforeThoseThatWait() throws {
        let fixture = try TuningFixture()
        let first = try fixture.create { $0.suffix = "first" }
        let second = try fixture.create { $0.suffix = "second" }
        fixture.stages.die(at: .stepRecorded, 3)
        fixture.work()
        fixture.stages.action.withLock { $0 = nil }
        try fixture.restart()
        #expect(try fixture.job(first).status == .running && fixture.job(second).status == .queued)
        #expect(fixture.queue.runNext() == .worked)
        #expect(try fixture.job(first).status == .succeeded && fixture.job(second).status == .queued)
    }

    @Test func threeDeathsWithoutASnapshotEndAJob() throws {
        let fixture = try TuningFixture()
        let id = try fixture.create()
        let other = try fixture.create { $0.suffix = "other" }
        while fixture.queue.checkNext() == .worked {}
        for _ in 1...3 {
            fixture.stages.die(at: .claimed)
            #expect(fixture.queue.runNext() == .nothing)
            #expect(try fixture.job(id).status == .running)
            try fixture.restart()
        }
        fixture.stages.action.withLock { $0 = nil }
        #expect(fixture.queue.runNext() == .worked)
        let job = try fixture.job(id)
        #expect(job.status == .failed && job.failure?.code == "crash_loop" && job.failure?.message.contains("died 3 times") == true)
        // The next one is not held up.
        #expect(fixture.queue.runNext() == .worked)
        #expect(try fixture.job(other).status == .succeeded)
    }

    /// A file that takes for ever to read holds up neither its job's end nor that of the process.
    @Test(arguments: [true, false]) func readingIsInterrupted(byCancelling isCancelled: Bool) throws {
        let fixture = try TuningFixture()
        let file = try fixture.files.add(["endless"])
        let id = try fixture.create { $0.trainingFile = file.id }
        fixture.queue.start()
        func starts() throws -> Int { try fixture.store.unfinishedJobs().first { $0.id == id }?.startsWithoutSnapshot ?? 0 }
        while try starts() == 0 { usleep(1000) }
        if isCancelled { #expect(try fixture.queue.cancel(id, owner: "local").status == .cancelled) }
        fixture.queue.shutdown()
        #expect(try fixture.job(id).status == (isCancelled ? .cancelled : .validatingFiles))
        #expect(try starts() == 0, "no death is counted")
    }

    @Test func deathsWhileFilesAreValidatedCount() throws {
        let fixture = try TuningFixture()
        let id = try fixture.create(), other = try fixture.create { $0.suffix = "other" }
        // What three deaths in the middle of a file leave.
        _ = try fixture.store.evaluate("UPDATE fine_tuning_jobs SET starts_without_snapshot = 3 WHERE id = '\(id)'")
        try fixture.restart()
        fixture.work()
        let job = try fixture.job(id)
        #expect(job.status == .failed && job.failure?.code == "crash_loop")
        #expect(try fixture.job(other).status == .succeeded)
    }

    @Test func whatIsCancelledAtTheEndPublishesNothing() throws {
        let fixture = try TuningFixture()
        let id = try fixture.create(), present = fixture.present
        fixture.stages.action.withLock {
            $0 = { stage, _ throws(Halt) in if stage == .resultsStored { present { _ = try $0.cancel(id, owner: "local") } } }
        }
        fixture.work()
        let job = try fixture.job(id)
        #expect(job.status == .cancelled && job.fineTunedModel == nil && job.adapter == nil)
        #expect(fixture.adapters.record(named: "bot", owner: "local") == nil)
    }

    @Test func aSnapshotEndsTheCount() throws {
        let fixture = try TuningFixture()
        let id = try fixture.create()
        _ = fixture.queue.checkNext()
        for round in 1...6 {
            // Two deaths without a snapshot, then one after a checkpoint.
            fixture.stages.die(at: round % 3 == 0 ? .checkpointRecorded : .claimed)
            _ = fixture.queue.runNext()
            try fixture.restart()
        }
        fixture.stages.action.withLock { $0 = nil }
        fixture.work()
        #expect(try fixture.job(id).status == .succeeded)
    }

    @Test func aPauseIsNoDeath() throws {
        let fixture = try TuningFixture()
        let id = try fixture.create()
        _ = fixture.queue.checkNext()
        for _ in 1...5 {
            let present = fixture.present
            fixture.stages.action.withLock {
                $0 = { stage, id throws(Halt) in
                    guard stage == .begun else { return }
                    present { _ = try $0.pause(id, owner: "local") }
                    present { _ = try $0.resume(id, owner: "local") }
                }
            }
            #expect(fixture.queue.runNext() == .worked)
            fixture.stages.action.withLock { $0 = nil }
            try fixture.restart()
        }
        fixture.work()
        #expect(try fixture.job(id).status == .succeeded)
    }

    @Test(arguments: ["cut", "flipped", "foreign", "empty"]) func aDamagedSnapshotMeansFromTheStart(_ damage: String) throws {
        let (expected, _) = try undisturbed()
        let fixture = try TuningFixture()
        let id = try fixture.create()
        fixture.stages.die(at: .stepRecorded, 9)
        fixture.work()
        fixture.stages.action.withLock { $0 = nil }
        let path = "\(fixture.folder.path)/data/jobs/\(id)/snapshot"
        try fixture.restart {
            var bytes = [UInt8](try Data(contentsOf: URL(filePath: path)))
            switch damage {
            case "cut": bytes.removeLast(5)
            case "flipped": bytes[bytes.count - 9] ^= 4
            case "foreign": bytes = Array(String(decoding: bytes, as: Unicode.ASCII.self).replacing(id, with: "ftjob-0").utf8)
            default: bytes = []
            }
            try Data(bytes).write(to: URL(filePath: path))
        }
        fixture.work()
        #expect(fixture.trainer.settings.withLock { $0.starts.last } == 0)
        var found = try outcome(fixture, id)
        #expect(found.events.contains { $0.contains("snapshot is damaged") })
        found.events.removeAll { $0.contains("snapshot is damaged") }
        #expect(found == expected)
    }

    @Test func aSnapshotOfAnotherRunIsNotUsed() throws {
        let fixture = try TuningFixture()
        let id = try fixture.create()
        fixture.stages.die(at: .stepRecorded, 9)
        fixture.work()
        fixture.stages.action.withLock { $0 = nil }
        let file = SnapshotFile(directory: "\(fixture.folder.path)/data/jobs", job: id)
        try file.write(SnapshotFile.Content(step: 3, bytes: [1, 2, 3]))
        try fixture.restart()
        fixture.work()
        #expect(try fixture.job(id).status == .succeeded)
        #expect(try fixture.messages(id).contains { $0.contains("cannot be used") })
    }

    @Test func theSnapshotTellsWhoseItIs() throws {
        let fixture = try TuningFixture()
        let id = try fixture.create()
        fixture.stages.die(at: .snapshotWritten, 2)
        fixture.work()
        let text = String(decoding: try Data(contentsOf: URL(filePath: "\(fixture.folder.path)/data/jobs/\(id)/snapshot")), as: UTF8.self)
        #expect(text.hasPrefix("graft-snapshot 1 job=\(id) step=4 bytes="), "\(text.prefix(100))")
        let file = SnapshotFile(directory: "\(fixture.folder.path)/data/jobs", job: id)
        #expect(try file.read()?.step == 4)
        file.remove()
        #expect(try file.read() == nil && !fixture.snapshotExists(id))
    }

    // MARK: Commands

    @Test func pausingAndResuming() throws {
        let (expected, _) = try undisturbed()
        let fixture = try TuningFixture()
        let id = try fixture.create()
        let present = fixture.present
        fixture.trainer.settings.withLock { settings in
            settings.onStep = { step in if step == 6 { present { _ = try $0.pause(id, owner: "local") } } }
        }
        fixture.work()
        fixture.trainer.settings.withLock { $0.onStep = { _ in } }
        var job = try fixture.job(id)
        #expect(job.status == .queued && job.state.isPaused && job.step == 5 && fixture.snapshotExists(id))
        #expect(fixture.queue.runNext() == .nothing)
        #expect(refusal { _ = try fixture.queue.pause(id, owner: "local") }?.code == .conflict)
        try fixture.restart()
        #expect(fixture.queue.runNext() == .nothing, "it stays paused")
        job = try fixture.queue.resume(id, owner: "local")
        #expect(job.status == .queued && !job.state.isPaused)
        #expect(refusal { _ = try fixture.queue.resume(id, owner: "local") }?.code == .conflict)
        fixture.work()
        #expect(fixture.trainer.settings.withLock { $0.starts } == [0, 5], "no step is done twice")
        var found = try outcome(fixture, id)
        found.events.removeAll { $0.contains("The job was ") }
        #expect(found == expected)
    }

    @Test func pausingDuringAnEvaluation() throws {
        let (expected, _) = try undisturbed()
        let fixture = try TuningFixture()
        let id = try fixture.create()
        let present = fixture.present
        fixture.trainer.settings.withLock { settings in
            settings.onEvaluation = { step in if step == 6 { present { _ = try $0.pause(id, owner: "local") } } }
        }
        fixture.work()
        fixture.trainer.settings.withLock { $0.onEvaluation = { _ in } }
        #expect(try fixture.checkpoints(id).last.map { $0.step < 6 } == true)
        _ = try fixture.queue.resume(id, owner: "local")
        fixture.work()
        var found = try outcome(fixture, id)
        found.events.removeAll { $0.contains("The job was ") }
        #expect(found == expected)
    }

    @Test func pausedJobsLetOthersPass() throws {
        let fixture = try TuningFixture()
        let first = try fixture.create { $0.suffix = "first" }
        let second = try fixture.create { $0.suffix = "second" }
        _ = try fixture.queue.pause(first, owner: "local")
        fixture.work()
        #expect(try fixture.job(first).status == .queued && fixture.job(second).status == .succeeded)
    }

    @Test func cancelling() throws {
        let fixture = try TuningFixture()
        let early = try fixture.create()
        #expect(try fixture.queue.cancel(early, owner: "local").status == .cancelled)
        let id = try fixture.create()
        let queue = fixture.queue
        fixture.trainer.settings.withLock { settings in
            settings.onStep = { step in if step == 6 { _ = try? queue.cancel(id, owner: "local") } }
        }
        fixture.work()
        let job = try fixture.job(id)
        #expect(job.status == .cancelled && job.step == 5 && job.finishedAt != nil && job.fineTunedModel == nil && job.failure == nil)
        #expect(try fixture.jobFolders().isEmpty)
        // What it published until then stays.
        #expect(try fixture.checkpoints(id).isEmpty == false)
        for attempt in [queue.cancel, queue.pause, queue.resume] {
            #expect(refusal { _ = try attempt(id, "local") }?.code == .conflict)
        }
        #expect(fixture.adapters.record(named: "bot", owner: "local") == nil)
    }

    // MARK: Failure

    @Test func failuresOfTheTrainer() throws {
        for (code, word) in [(TrainingError.Code.diverged, "diverged"), (.outOfMemory, "out_of_memory"), (.unavailable, "training_unavailable")] {
            let fixture = try TuningFixture()
            let id = try fixture.create()
            fixture.trainer.settings.withLock { $0.failure = (6, TrainingError(code, "for a reason")) }
            fixture.work()
            let job = try fixture.job(id)
            #expect(job.status == .failed && job.failure?.code == word && job.failure?.message.contains("for a reason") == true)
            #expect(try fixture.jobFolders().isEmpty && fixture.queue.runNext() == .nothing)
        }
    }

    // MARK: The disk

    @Test(arguments: [1, 4, 9]) func aFullDiskHoldsAJobUp(_ step: Int) throws {
        let (expected, _) = try undisturbed()
        let fixture = try TuningFixture()
        let id = try fixture.create()
        let store = fixture.store
        let fullFrom = step
        fixture.trainer.settings.withLock { settings in
            settings.onStep = { step in if step == fullFrom { store.injectFault(resultCode: 13) } }
        }
        _ = fixture.queue.checkNext()
        #expect(fixture.queue.runNext() == .storageLost)
        fixture.trainer.settings.withLock { $0.onStep = { _ in } }
        var job = try fixture.job(id)
        #expect(job.status == .queued && job.state.storage == .full, "told although it cannot be written")
        #expect(fixture.queue.runNext() == .storageLost)
        #expect(fixture.notices.lines.withLock { $0.allSatisfy { $0.hasPrefix(id) } && !$0.isEmpty })
        // New jobs are refused meanwhile, and say why.
        #expect(refusal { _ = try fixture.create() }?.code == .storageFull)
        store.injectFault(resultCode: nil)
        #expect(fixture.queue.runNext() == .worked)
        job = try fixture.job(id)
        #expect(job.status == .succeeded && job.state.storage == nil)
        #expect(try outcome(fixture, id) == expected)
    }

    @Test func aSnapshotThatFindsNoRoom() throws {
        let (expected, _) = try undisturbed()
        let fixture = try TuningFixture()
        let id = try fixture.create()
        fixture.stages.action.withLock {
            $0 = { stage, _ throws(Halt) in if stage == .snapshotDue { throw .storage(.full, "no room") } }
        }
        fixture.work()
        #expect(fixture.queue.runNext() == .storageLost)
        let job = try fixture.job(id)
        #expect(job.status == .queued && job.state.storage == .full && !job.state.isPaused)
        let waits = try fixture.messages(id).filter { $0.contains("disk is full") }
        #expect(waits.count == 2, "each try went on to its next snapshot: \(waits)")
        // Also after a restart, and without being counted as a death.
        for _ in 1...4 {
            try fixture.restart()
            #expect(fixture.queue.runNext() == .storageLost)
        }
        fixture.stages.action.withLock { $0 = nil }
        try fixture.restart()
        #expect(fixture.queue.runNext() == .worked)
        var found = try outcome(fixture, id)
        found.events.removeAll { $0.contains("disk is full") }
        #expect(found == expected)
    }

    @Test func filesThatCannotBeReadNow() throws {
        let fixture = try TuningFixture()
        let id = try fixture.create()
        fixture.files.state.withLock { $0.failure = InstructionStoreError(.storage, "/secret/path: cannot be read") }
        #expect(fixture.queue.checkNext() == .storageLost)
        let job = try fixture.job(id)
        #expect(job.status == .validatingFiles && job.state.storage == .failed)
        #expect(try fixture.messages(id).allSatisfy { !$0.contains("secret") })
        fixture.files.state.withLock { $0.failure = nil }
        fixture.work()
        #expect(try fixture.job(id).status == .succeeded)
    }

    // MARK: Threads

    /// Waits until a job has ended.
    private func end(of id: String, in fixture: TuningFixture) throws -> FineTuningJob {
        while true {
            let job = try fixture.job(id)
            if job.status.isFinal { return job }
            usleep(500)
        }
    }

    @Test func threadsWorkInTheOrderOfCreation() throws {
        let fixture = try TuningFixture()
        let order = Mutex<[String]>([])
        fixture.stages.action.withLock {
            $0 = { stage, id throws(Halt) in if stage == .succeeded { order.withLock { $0.append(id) } } }
        }
        var ids = [try fixture.create { $0.suffix = "a" }]
        fixture.queue.start()
        ids += [try fixture.create { $0.suffix = "b" }, try fixture.create { $0.suffix = "c" }]
        for id in ids { #expect(try end(of: id, in: fixture).status == .succeeded) }
        fixture.queue.shutdown()
        #expect(order.withLock { $0 } == ids)
    }

    @Test func theQueueCanBeStartedForOneJob() throws {
        let fixture = try TuningFixture()
        let others = [try fixture.create { $0.suffix = "a" }], wanted = try fixture.create { $0.suffix = "b" }
        fixture.queue.start(only: wanted)
        #expect(try end(of: wanted, in: fixture).status == .succeeded)
        fixture.queue.shutdown()
        for id in others { #expect(try fixture.job(id).status == .validatingFiles) }
    }

    @Test func shuttingDownKeepsWhatIsDone() throws {
        let (expected, _) = try undisturbed()
        let fixture = try TuningFixture()
        let id = try fixture.create()
        let isAtSix = Mutex(false), told = Mutex(0)
        let present = fixture.present
        fixture.trainer.settings.withLock { settings in
            settings.onStep = { step in
                guard step == 6 else { return }
                isAtSix.withLock { $0 = true }
                // The shutdown waits for the step, which waits for the shutdown to be under way.
                var isStopping = false
                while !isStopping {
                    present { isStopping = $0.isStopping }
                    usleep(200)
                }
            }
        }
        var observation: JobObservation? = fixture.queue.observe(id) { told.withLock { $0 += 1 } }
        fixture.queue.start()
        while !isAtSix.withLock({ $0 }) { usleep(200) }
        let before = told.withLock { $0 }
        fixture.queue.shutdown()
        let after = told.withLock { $0 }
        #expect(after > before, "followers learn of the end")
        withExtendedLifetime(observation) {}
        observation = nil
        fixture.trainer.settings.withLock { $0.onStep = { _ in } }
        #expect(try fixture.job(id).status == .running && fixture.snapshotExists(id))
        #expect(fixture.queue.runNext() == .nothing, "nothing is begun any more")
        try fixture.restart()
        fixture.work()
        #expect(fixture.trainer.settings.withLock { $0.starts } == [0, 5])
        #expect(try outcome(fixture, id) == expected)
    }
}
