import CUV
import Executors
import Glibc
import Synchronization

/// A libuv loop on a thread of its own, as the serial executor of the actors that live on it.
///
/// Jobs and closures come from any thread through one inbox and run in order; the wake-ups of many coalesce into one. Callbacks of
/// handles (streams, timers, signals) run on the same thread, so they enter an actor of this loop with `assumeIsolated`, without a task.
///
/// One turn of the loop ends by flushing every stream that was written to in it, so that many small writes leave in one system call.
///
/// Everything but `enqueue`, `execute`, `shutdown` and the isolation checks belongs to the loop's thread. The loop lives until `shutdown()`.
public final class EventLoop: SerialExecutor {
    private enum Work {
        case job(UnownedJob)
        case call(@Sendable () -> Void)
    }

    private struct Inbox {
        var queue: [Work] = []
        var isClosed = false
    }

    public let name: String
    private let inbox = Mutex(Inbox())
    private let runner = Atomic<UInt>(0)
    private let thread = Mutex<NamedThread?>(nil)
    /// Runs the jobs that come after the loop is closed, so that nobody awaits them forever. It has no thread before the first.
    private let afterlife: ThreadExecutor

    // The rest is touched by the loop's thread only (and by `init`, before that thread exists), which the type system cannot see.
    nonisolated(unsafe) let loop: UnsafeMutablePointer<uv_loop_t>
    private nonisolated(unsafe) let wakeUp: UnsafeMutablePointer<uv_async_t>
    private nonisolated(unsafe) let turnEnd: UnsafeMutablePointer<uv_prepare_t>
    private nonisolated(unsafe) var batch: [Work] = []
    private nonisolated(unsafe) var unflushed: [TCPStream] = []
    private nonisolated(unsafe) var flushing: [TCPStream] = []
    /// All streams read into this one buffer: libuv fills it and calls back before anything else can.
    nonisolated(unsafe) let readBuffer: UnsafeMutableRawBufferPointer

    static let readBufferSize = 65536

    /// Opens a loop and starts its thread.
    /// - Parameter name: the thread's name; the kernel shows the first 15 bytes.
    public init(name: String) throws(EventLoopError) {
        self.name = name
        afterlife = ThreadExecutor(name: name)
        loop = .allocate(capacity: 1)
        wakeUp = .allocate(capacity: 1)
        turnEnd = .allocate(capacity: 1)
        readBuffer = .allocate(byteCount: EventLoop.readBufferSize, alignment: 64)
        // A write to a connection that the peer has closed must be an error code and not the end of the process.
        signal(SIGPIPE, SIG_IGN)

        var status = uv_loop_init(loop)
        guard status == 0 else { throw EventLoopError(.systemFailure, doing: "opening the event loop \(name)", status: status) }
        status = uv_async_init(loop, wakeUp) { handle in
            EventLoop.of(handle!.pointee.loop).drainInbox()
        }
        guard status == 0 else {
            uv_loop_close(loop)
            throw EventLoopError(.systemFailure, doing: "opening the event loop \(name)", status: status)
        }
        uv_prepare_init(loop, turnEnd)
        uv_prepare_start(turnEnd) { handle in
            EventLoop.of(handle!.pointee.loop).flushStreams()
        }
        // libuv leaves these fields as they were; `closeHandles` tells by them that the handles have no object.
        wakeUp.pointee.data = nil
        turnEnd.pointee.data = nil
        // Alone it must not keep the loop alive.
        uv_unref(UnsafeMutableRawPointer(turnEnd).assumingMemoryBound(to: uv_handle_t.self))
        // Unretained: the thread below holds the loop for as long as callbacks can come.
        loop.pointee.data = Unmanaged.passUnretained(self).toOpaque()
        let started = NamedThread(name: name) { self.run() }
        thread.withLock { $0 = started }
    }

    deinit {
        readBuffer.deallocate()
        turnEnd.deallocate()
        wakeUp.deallocate()
        loop.deallocate()
    }

    // MARK: - From any thread

    public func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        if !add(.job(job)) {
            let executor = asUnownedSerialExecutor()
            afterlife.execute { job.runSynchronously(on: executor) }
        }
    }

    /// Runs a closure on the loop's thread, in order with the jobs.
    /// - Returns: false when the loop is closed; then the closure will not run.
    @discardableResult
    public func execute(_ work: @escaping @Sendable () -> Void) -> Bool {
        add(.call(work))
    }

    public func asUnownedSerialExecutor() -> UnownedSerialExecutor {
        UnownedSerialExecutor(ordinary: self)
    }

    public func isIsolatingCurrentContext() -> Bool? {
        runner.load(ordering: .relaxed) == NamedThread.currentID || afterlife.isIsolatingCurrentContext() == true
    }

    public func checkIsolated() {
        precondition(isIsolatingCurrentContext() == true, "this must run on the event loop \(name)")
    }

    /// Closes every handle, runs what is queued, ends the thread and, unless called on it, waits for its end.
    public func shutdown() {
        execute { self.closeHandles() }
        guard let thread = thread.withLock({ $0.take() }) else { return }
        if thread.isCurrent {
            thread.detach()
        } else {
            thread.join()
        }
    }

    private func add(_ work: Work) -> Bool {
        inbox.withLock { inbox in
            guard !inbox.isClosed else { return false }
            inbox.queue.append(work)
            // Sent under the lock: afterwards the loop may have closed the handle.
            if inbox.queue.count == 1 {
                uv_async_send(wakeUp)
            }
            return true
        }
    }

    // MARK: - On the loop's thread

    /// Whether handles can still be made.
    var isOpen: Bool {
        inbox.withLock { !$0.isClosed }
    }

    /// Milliseconds since an arbitrary point, as of the beginning of this turn.
    public var now: UInt64 {
        uv_now(loop)
    }

    private static func of(_ loop: UnsafeMutablePointer<uv_loop_t>) -> EventLoop {
        Unmanaged<EventLoop>.fromOpaque(loop.pointee.data).takeUnretainedValue()
    }

    private func run() {
        runner.store(NamedThread.currentID, ordering: .relaxed)
        uv_run(loop, UV_RUN_DEFAULT)
        let status = uv_loop_close(loop)
        precondition(status == 0, "the event loop \(name) ended with open handles")
        runner.store(0, ordering: .relaxed)
    }

    /// Runs what had arrived when it began. What these jobs enqueue themselves waits for the next turn, so that a job which
    /// yields again and again cannot starve the sockets.
    private func drainInbox() {
        inbox.withLock { swap(&$0.queue, &batch) }
        let executor = asUnownedSerialExecutor()
        for work in batch {
            switch work {
            case .job(let job): job.runSynchronously(on: executor)
            case .call(let body): body()
            }
        }
        batch.removeAll(keepingCapacity: true)
    }

    /// The stream will be flushed at the end of this turn. Once in a turn for each stream.
    func flushAtTurnEnd(_ stream: TCPStream) {
        unflushed.append(stream)
    }

    private func flushStreams() {
        // A flush can end a response and thereby make its stream ask for another one: loop until nobody asks.
        while !unflushed.isEmpty {
            swap(&unflushed, &flushing)
            for stream in flushing {
                stream.flush()
            }
            flushing.removeAll(keepingCapacity: true)
        }
    }

    private func closeHandles() {
        uv_walk(loop, { handle, _ in
            guard let handle, uv_is_closing(handle) == 0 else { return }
            // Only the loop's own two handles have no object.
            if let data = handle.pointee.data {
                Unmanaged<LoopHandle>.fromOpaque(data).takeUnretainedValue().close()
            }
        }, nil)
        flushStreams()
        // What is in the inbox by now still runs: the wake-up handle goes last, after a turn that finds the inbox empty.
        closeInbox()
    }

    private func closeInbox() {
        let isEmpty = inbox.withLock { inbox in
            inbox.isClosed = inbox.queue.isEmpty
            return inbox.isClosed
        }
        guard isEmpty else {
            execute { self.closeHandles() }
            return
        }
        for handle in [UnsafeMutableRawPointer(wakeUp), UnsafeMutableRawPointer(turnEnd)] {
            let handle = handle.assumingMemoryBound(to: uv_handle_t.self)
            if uv_is_closing(handle) == 0 {
                uv_close(handle, nil)
            }
        }
    }
}
