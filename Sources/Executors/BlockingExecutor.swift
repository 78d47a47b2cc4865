/// A few threads and a bounded queue for work that blocks or computes long enough to hold up a loop: digests, fsync, SQLite,
/// tokenising megabytes. Swift's own pool has one thread per core, and blocking it stalls every task.
///
/// Threads start when they are first needed. Work starts in the order in which it was submitted.
public final class BlockingExecutor: Sendable {
    private struct State {
        var queue: [@Sendable () -> Void] = []
        var idleThreads = 0
        var threads: [NamedThread] = []
        var isShutDown = false
    }

    public let name: String
    /// The most threads.
    public let width: Int
    /// The most pieces of work that wait for a thread.
    public let capacity: Int
    private let monitor = Monitor(State())

    /// - Parameters:
    ///   - name: the threads' name.
    ///   - width: the most threads, at least 1.
    ///   - capacity: the most pieces of work that wait for a thread, at least 1.
    public init(name: String, width: Int, capacity: Int) {
        precondition(width > 0 && capacity > 0, "a BlockingExecutor needs at least one thread and one place in its queue")
        self.name = name
        self.width = width
        self.capacity = capacity
    }

    /// Queues `work` and returns at once.
    /// - Throws: `queueFull` when `capacity` pieces wait already, `shutDown` after `shutdown()`; then `work` will not run.
    public func submit(_ work: @escaping @Sendable () -> Void) throws(ExecutorError) {
        let refusal = monitor.withLock { state -> ExecutorError? in
            if state.isShutDown {
                return ExecutorError(.shutDown, "the executor \(name) is shut down and takes no more work")
            }
            // A thread that idles takes the work at once, so it does not wait.
            if state.queue.count - state.idleThreads >= capacity, state.threads.count == width {
                return ExecutorError(.queueFull, "\(capacity) pieces of work wait for the executor \(name) already; try again later")
            }
            state.queue.append(work)
            if state.queue.count > state.idleThreads, state.threads.count < width {
                state.threads.append(NamedThread(name: name) { self.run() })
            }
            return nil
        }
        if let refusal { throw refusal }
        monitor.wakeOne()
    }

    /// Runs `body` on one of the threads and returns what it returned.
    /// - Throws: what `body` threw, or the `ExecutorError` of `submit`.
    public func run<Success: Sendable>(_ body: @escaping @Sendable () throws -> Success) async throws -> Success {
        try await withCheckedThrowingContinuation { continuation in
            do {
                try submit { continuation.resume(with: Result { try body() }) }
            } catch {
                continuation.resume(throwing: error)
            }
        }
    }

    /// Takes no more work, finishes what is queued and waits for the threads. Not to be called on one of them.
    public func shutdown() {
        let threads = monitor.withLock { state -> [NamedThread] in
            state.isShutDown = true
            defer { state.threads = [] }
            return state.threads
        }
        monitor.wakeAll()
        for thread in threads {
            thread.join()
        }
    }

    private func run() {
        while let work = next() {
            work()
        }
    }

    private func next() -> (@Sendable () -> Void)? {
        monitor.withLock { $0.idleThreads += 1 }
        return monitor.wait(while: { $0.queue.isEmpty && !$0.isShutDown }) { state in
            state.idleThreads -= 1
            // The queue is short by construction, so moving it up costs less than a ring would in lines.
            return state.queue.isEmpty ? nil : state.queue.removeFirst()
        }
    }
}
