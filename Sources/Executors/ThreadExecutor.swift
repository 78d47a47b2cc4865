import Synchronization

/// A serial executor with a thread of its own: the isolation domain of an actor that computes for long or must not share Swift's pool.
///
/// Jobs run in the order in which they were enqueued. A job that suspends with `Task.yield()` goes behind everything that arrived
/// meanwhile, which is how an engine lets other calls in between two of its steps.
///
/// The thread starts with the first job and keeps the executor alive until `shutdown()`. An actor must retain its executor:
///
///     actor Engine {
///         private let executor: ThreadExecutor
///         nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }
///     }
public final class ThreadExecutor: SerialExecutor {
    private enum Work {
        case job(UnownedJob)
        case call(@Sendable () -> Void)
    }

    private struct State {
        var queue: [Work] = []
        var thread: NamedThread?
        var isShutDown = false
    }

    public let name: String
    private let niceness: Int32
    private let monitor = Monitor(State())
    /// The id of the thread that runs jobs now; 0 when there is none.
    private let runner = Atomic<UInt>(0)

    /// - Parameters:
    ///   - name: the thread's name; the kernel shows the first 15 bytes.
    ///   - niceness: added to the thread's niceness, for work that must give way to serving.
    public init(name: String, niceness: Int = 0) {
        self.name = name
        self.niceness = Int32(niceness)
    }

    public func enqueue(_ job: consuming ExecutorJob) {
        add(.job(UnownedJob(job)))
    }

    /// Runs a closure on the thread, in order with the jobs.
    public func execute(_ work: @escaping @Sendable () -> Void) {
        add(.call(work))
    }

    public func asUnownedSerialExecutor() -> UnownedSerialExecutor {
        UnownedSerialExecutor(ordinary: self)
    }

    public func isIsolatingCurrentContext() -> Bool? {
        runner.load(ordering: .relaxed) == NamedThread.currentID
    }

    public func checkIsolated() {
        precondition(isIsolatingCurrentContext() == true, "this must run on the thread \(name)")
    }

    /// Runs what is queued, then ends the thread and, unless called on it, waits for its end.
    ///
    /// A job that comes later is not lost, since a task would wait for it forever: it gets a thread that lasts as long as there is work.
    public func shutdown() {
        let thread = monitor.withLock { state -> NamedThread? in
            guard !state.isShutDown else { return nil }
            state.isShutDown = true
            return state.thread
        }
        monitor.wakeAll()
        guard let thread else { return }
        if thread.isCurrent {
            thread.detach()
        } else {
            thread.join()
        }
    }

    private func add(_ work: Work) {
        let mustWake = monitor.withLock { state -> Bool in
            state.queue.append(work)
            if state.thread == nil {
                let thread = NamedThread(name: name, niceness: niceness) { self.run() }
                state.thread = thread
                if state.isShutDown {
                    // Nobody is left to join a latecomer's thread.
                    thread.detach()
                }
                return false
            }
            return state.queue.count == 1
        }
        if mustWake {
            monitor.wakeOne()
        }
    }

    private func run() {
        runner.store(NamedThread.currentID, ordering: .relaxed)
        let executor = asUnownedSerialExecutor()
        var batch: [Work] = []
        while take(&batch) {
            for work in batch {
                switch work {
                case .job(let job): job.runSynchronously(on: executor)
                case .call(let body): body()
                }
            }
            // The array's memory is used again: the two arrays change places at each turn.
            batch.removeAll(keepingCapacity: true)
        }
    }

    /// Waits for work; false when there is none and will be none on this thread.
    private func take(_ batch: inout [Work]) -> Bool {
        monitor.wait(while: { $0.queue.isEmpty && !$0.isShutDown }) { state in
            if state.queue.isEmpty {
                state.thread = nil
                runner.store(0, ordering: .relaxed)
                return false
            }
            swap(&batch, &state.queue)
            return true
        }
    }
}
