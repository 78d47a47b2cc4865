import Adapters
import Executors
import Glibc
import InstructionStore
import Synchronization
import Training

/// The durable queue of fine-tuning jobs: rows in the store, snapshots in a directory, one job at a time on a thread of its own.
///
/// **What survives.** Every change of a job is one transaction. A run writes snapshots; after a crash it goes on from the last one, with the very plan, data
/// order and seeds, so that its bytes are those of a run that was never interrupted. What was told of later steps is taken back first. Checkpoints and the
/// result are published under aliases, and publishing twice gives the same version.
///
/// **Stopping.** Pausing and cancelling change the row and interrupt the run, which finds at its next word that it is not the row's any more. Nothing waits
/// for the training thread.
///
/// Locks: `changes` is held while a row is read, changed and written, so that changes follow one another; `state` for look-ups only. The order is
/// changes, state.
public final class JobQueue: TuningService {
    /// A moment in a job's life after which everything before it is on the disk, for tests that interrupt it there.
    package enum Stage: Sendable, Equatable, CaseIterable {
        case validated, claimed, begun, stepRecorded, snapshotDue, snapshotWritten, checkpointPublished, checkpointRecorded, checkpointsThinned, resultsStored,
            published, succeeded
    }

    package typealias StageHook = @Sendable (_ stage: Stage, _ job: String) throws(Halt) -> Void

    struct State {
        /// The job that runs, and the one whose files are looked at.
        var current, checked: (number: Int, interruption: Interruption)?
        var isStopping = false
        var statistics = TuningStatistics()
        /// Jobs of whose rows a full disk keeps the truth away.
        var storage: [Int: JobState.Storage] = [:]
        /// Jobs in hand whose start is counted in their rows.
        var counted: Set<Int> = []
        var observers: [String: [Int: @Sendable () -> Void]] = [:]
        var lastObserver = 0
        var threads: [NamedThread] = []
        /// The one job that is worked on; `nil`: all.
        var only: String?
    }

    let store: InstructionStore
    let adapters: any AdapterService
    let files: any FileService
    let trainer: any TrainingService
    let reader: JobDataReader
    let configuration: TuningConfiguration
    let state = Mutex(State())
    private let changes = Mutex<Void>(())
    private let runs = Alarm(), checks = Alarm()
    let now: @Sendable () -> Int
    let uptime: @Sendable () -> ContinuousClock.Instant
    let notice: @Sendable (_ job: String, _ message: String) -> Void
    private let ended: @Sendable (JobEnd) -> Void
    private let onStage: StageHook?

    /// Opens the queue. Nothing runs before `start()`.
    ///
    /// - Parameters:
    ///   - read: recognises and tokenises training data, as the served model would read it.
    ///   - notice: gets what the operator should know, which may name files of this machine.
    ///   - ended: called on any thread when a job has come to its end, whatever that is, and the end is on the disk. It must not call the queue.
    /// - Throws: when the directory or the store cannot be used.
    public convenience init(
        store: InstructionStore, adapters: any AdapterService, files: any FileService, trainer: any TrainingService, read: @escaping DatasetReading,
        configuration: TuningConfiguration, notice: @escaping @Sendable (_ job: String, _ message: String) -> Void = { _, _ in },
        ended: @escaping @Sendable (JobEnd) -> Void = { _ in }
    ) throws(TuningError) {
        try self.init(
            store: store, adapters: adapters, files: files, trainer: trainer, read: read, configuration: configuration, notice: notice,
            ended: ended, now: { Int(Glibc.time(nil)) }, uptime: { .now }, onStage: nil)
    }

    package init(
        store: InstructionStore, adapters: any AdapterService, files: any FileService, trainer: any TrainingService, read: @escaping DatasetReading,
        configuration: TuningConfiguration, notice: @escaping @Sendable (_ job: String, _ message: String) -> Void,
        ended: @escaping @Sendable (JobEnd) -> Void = { _ in }, now: @escaping @Sendable () -> Int,
        uptime: @escaping @Sendable () -> ContinuousClock.Instant, onStage: StageHook?
    ) throws(TuningError) {
        self.store = store
        self.adapters = adapters
        self.files = files
        self.trainer = trainer
        self.configuration = configuration
        self.notice = notice
        self.ended = ended
        self.now = now
        self.uptime = uptime
        self.onStage = onStage
        reader = JobDataReader(files: files, adapters: adapters, read: read)
        try SnapshotFile.makeDirectory(configuration.directory)
        let unfinished = Set(try stored { () throws(InstructionStoreError) in try store.unfinishedJobs() }.map(\.id))
        for id in SnapshotFile.jobs(in: configuration.directory) where !unfinished.contains(id) {
            SnapshotFile(directory: configuration.directory, job: id).remove()
        }
        let counts = try stored { () throws(InstructionStoreError) in try store.jobCounts() }
        state.withLock { state in
            for status in JobState.Status.allCases { state.statistics.jobs[status] = counts[status.rawValue] ?? 0 }
        }
    }

    func reach(_ stage: Stage, _ job: String) throws(Halt) {
        try onStage?(stage, job)
    }

    // MARK: Threads

    /// Starts working on what is queued. Once.
    /// - Parameter only: works on this job and leaves all others as they are.
    public func start(only: String? = nil) {
        state.withLock { $0.only = only }
        let niceness = Int32(clamping: configuration.niceness)
        let threads = [
            NamedThread(name: "graft-tuning", niceness: niceness) { [self] in loop(runs) { self.runNext() } },
            NamedThread(name: "graft-examples", niceness: niceness) { [self] in loop(checks) { self.checkNext() } },
        ]
        state.withLock { $0.threads = threads }
    }

    /// Lets the running job write a snapshot at its next step and stops. Everything goes on where it was when the next process opens the store. Followers are
    /// told. Waits for the threads, so not to be called on one of them.
    public func shutdown() {
        let threads = state.withLock { state in
            state.isStopping = true
            state.current?.interruption.request()
            state.checked?.interruption.request()
            defer { state.threads = [] }
            return state.threads
        }
        runs.ring()
        checks.ring()
        for thread in threads { thread.join() }
        let observers = state.withLock { $0.observers.values.flatMap(\.values) }
        for observer in observers { observer() }
    }

    package var isStopping: Bool { state.withLock { $0.isStopping } }

    /// What came of looking for work once.
    package enum Turn: Sendable, Equatable {
        case nothing, worked
        /// The disk took no more; later is better.
        case storageLost
    }

    private func loop(_ alarm: Alarm, _ turn: () -> Turn) {
        var pause = configuration.storageRetry
        while !isStopping {
            let rings = alarm.count
            switch turn() {
            case .worked: pause = configuration.storageRetry
            case .nothing: alarm.wait(beyond: rings, atMost: nil)
            case .storageLost:
                alarm.wait(beyond: rings, atMost: pause)
                pause = min(pause * 2, configuration.storageRetryMaximum)
            }
        }
    }

    func wake() {
        runs.ring()
        checks.ring()
    }

    /// The jobs that this queue may work on, first to last.
    func workable() throws(InstructionStoreError) -> [JobRow] {
        let only = state.withLock { $0.only }
        return try store.unfinishedJobs().filter { only == nil || $0.id == only }
    }

    // MARK: Rows

    /// What is written together with a change of a row.
    struct Companions {
        var events: [JobEventRow] = []
        var checkpoint: JobCheckpointRow?
        var rewindingTo: Int?
    }

    /// Changes a job: reads its row, lets something happen to it, and writes it with what belongs to the change.
    ///
    /// - Parameters:
    ///   - happening: `nil`: only numbers change, which a job does while it runs.
    ///   - edit: sees the row in its new state.
    /// - Throws: `conflict` for what cannot happen now, then nothing is written.
    @discardableResult
    func change(
        _ number: Int, _ happening: JobState.Happening?, _ edit: (inout JobRow, inout Companions) throws(TuningError) -> Void
    ) throws(TuningError) -> JobRow {
        let row = try changes.withLock { _ throws(TuningError) in
            var row = try stored { () throws(InstructionStoreError) in try store.job(number: number) }
            let before = try row.state()
            if let happening {
                row.set(try before.after(happening))
                if try row.state().status.isFinal {
                    row.finishedAt = now()
                    row.estimatedFinish = nil
                }
            } else if before.status != .running || before.isPaused {
                throw TuningError(.conflict, "the job is not running any more")
            }
            var companions = Companions()
            try edit(&row, &companions)
            try stored { () throws(InstructionStoreError) in
                try store.updateJob(row, events: companions.events, checkpoint: companions.checkpoint, rewindingTo: companions.rewindingTo)
            }
            let after = try row.state()
            state.withLock { state in
                state.storage[number] = nil
                state.statistics.jobs[before.status, default: 0] -= 1
                state.statistics.jobs[after.status, default: 0] += 1
                // Whoever has the job in hand finds out at once. Looking at its files goes on while it is paused: it would only begin anew.
                if happening == .paused || happening == .cancelled, let current = state.current, current.number == number { current.interruption.request() }
                if happening == .cancelled, let checked = state.checked, checked.number == number { checked.interruption.request() }
            }
            if after.status.isFinal, !before.status.isFinal {
                ended(JobEnd(id: row.id, owner: row.owner, status: after.status, adapter: row.adapter, errorCode: row.errorCode))
            }
            return row
        }
        tell(row.id)
        return row
    }

    /// Changes numbers of a row that nobody is told of, whatever state it is in.
    func adjust(_ number: Int, _ edit: (inout JobRow) -> Void) throws(TuningError) {
        try changes.withLock { _ throws(TuningError) in
            try stored { () throws(InstructionStoreError) in
                var row = try store.job(number: number)
                edit(&row)
                try store.updateJob(row)
            }
        }
    }

    func event(_ message: String, level: JobEvent.Level = .info) -> JobEventRow {
        JobEventRow(createdAt: now(), level: level.rawValue, type: JobEvent.Kind.message.rawValue, message: message)
    }

    func snapshotFile(_ id: String) -> SnapshotFile {
        SnapshotFile(directory: configuration.directory, job: id)
    }

    // MARK: Following

    public func observe(_ id: String, _ body: @escaping @Sendable () -> Void) -> JobObservation {
        let key = state.withLock { state in
            state.lastObserver += 1
            state.observers[id, default: [:]][state.lastObserver] = body
            return state.lastObserver
        }
        return JobObservation { [weak self] in
            self?.state.withLock { state in
                state.observers[id]?[key] = nil
                if state.observers[id]?.isEmpty == true { state.observers[id] = nil }
            }
        }
    }

    func tell(_ id: String) {
        let observers = state.withLock { state in state.observers[id].map { Array($0.values) } ?? [] }
        for observer in observers { observer() }
    }

    public var statistics: TuningStatistics { state.withLock { $0.statistics } }
}

extension JobRow {
    /// - Throws: `storage` for a word that no version of this program wrote.
    func state() throws(TuningError) -> JobState {
        guard let status = JobState.Status(rawValue: status) else {
            throw TuningError(.storage, "the job \(id): its row is damaged; restore the data directory from a backup")
        }
        return JobState(status: status, isPaused: isPaused, storage: storage.flatMap { JobState.Storage(rawValue: $0) })
    }

    mutating func set(_ state: JobState) {
        status = state.status.rawValue
        isPaused = state.isPaused
        storage = state.storage?.rawValue
    }
}
