import Executors
import Glibc
import Synchronization
import Testing

/// An actor on a thread of its own, as the engine is.
private actor Worker {
    nonisolated let executor: ThreadExecutor
    private(set) var log: [String] = []

    nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    init(_ executor: ThreadExecutor) {
        self.executor = executor
    }

    func note(_ text: String) { log.append(text) }

    /// A loop that yields once a step and asks for a note to be taken between the second and the third.
    func run(steps: Int) async {
        for step in 0..<steps {
            log.append("step \(step)")
            if step == 1 {
                Task { self.note("between") }
            }
            await Task.yield()
        }
    }

    /// Asked of the executor: the compiler may take `pthread_self` for a constant and move it out of the actor.
    func isOnItsThread() -> Bool { executor.isIsolatingCurrentContext() == true }

    nonisolated func noteSynchronously(_ text: String) {
        assumeIsolated { $0.log.append(text) }
    }
}

@Suite(.timeLimit(.minutes(1))) struct ThreadExecutorTests {
    @Test func anActorStaysOnItsThread() async {
        let worker = Worker(ThreadExecutor(name: "worker"))
        for _ in 0..<100 {
            await Task.detached { #expect(await worker.isOnItsThread()) }.value
        }
        #expect(worker.executor.isIsolatingCurrentContext() == false)
        worker.executor.shutdown()
    }

    @Test func otherCallsLandBetweenSteps() async {
        let worker = Worker(ThreadExecutor(name: "worker"))
        await worker.run(steps: 4)
        #expect(await worker.log == ["step 0", "step 1", "between", "step 2", "step 3"])
        worker.executor.shutdown()
    }

    @Test func isolationIsChecked() async {
        let executor = ThreadExecutor(name: "worker")
        let worker = Worker(executor)
        #expect(executor.isIsolatingCurrentContext() == false)
        await withCheckedContinuation { continuation in
            executor.execute {
                #expect(executor.isIsolatingCurrentContext() == true)
                executor.checkIsolated()
                worker.noteSynchronously("inside")
                continuation.resume()
            }
        }
        #expect(await worker.log == ["inside"])
        executor.shutdown()
    }

    @Test func closuresRunInOrder() {
        let executor = ThreadExecutor(name: "order")
        let seen = Mutex<[Int]>([])
        for i in 0..<10_000 {
            executor.execute { seen.withLock { $0.append(i) } }
        }
        executor.shutdown()
        #expect(seen.withLock { $0 } == Array(0..<10_000))
    }

    @Test func shutdownFinishesWhatIsQueuedAndLatecomersStillRun() async {
        let executor = ThreadExecutor(name: "late")
        let worker = Worker(executor)
        let count = Mutex(0)
        for _ in 0..<100 { executor.execute { count.withLock { $0 += 1 } } }
        executor.shutdown()
        #expect(count.withLock { $0 } == 100)
        executor.shutdown()
        // A task that awaits an actor whose thread has ended must not wait forever.
        await worker.note("late")
        #expect(await worker.log == ["late"])
    }

    @Test func shutdownFromItsOwnThread() async {
        let executor = ThreadExecutor(name: "self")
        await withCheckedContinuation { continuation in
            executor.execute {
                executor.shutdown()
                continuation.resume()
            }
        }
        let worker = Worker(executor)
        await worker.note("after")
        #expect(await worker.log == ["after"])
    }

    @Test func theThreadHasItsName() async {
        let executor = ThreadExecutor(name: "a name that is too long")
        let name = await withCheckedContinuation { continuation in
            executor.execute {
                let file = open("/proc/thread-self/comm", O_RDONLY)
                var bytes = [UInt8](repeating: 0, count: 32)
                let count = read(file, &bytes, 32)
                close(file)
                continuation.resume(returning: String(decoding: bytes[..<max(0, count - 1)], as: UTF8.self))
            }
        }
        #expect(name == "a name that is ")
        executor.shutdown()
    }
}

@Suite(.timeLimit(.minutes(1))) struct BlockingExecutorTests {
    @Test func resultsAndErrorsComeBack() async throws {
        let executor = BlockingExecutor(name: "block", width: 2, capacity: 4)
        #expect(try await executor.run { 6 * 7 } == 42)
        await #expect(throws: ExecutorError(.queueFull, "mine")) {
            try await executor.run { throw ExecutorError(.queueFull, "mine") }
        }
        executor.shutdown()
    }

    @Test func theQueueIsBounded() throws {
        let executor = BlockingExecutor(name: "block", width: 1, capacity: 2)
        let gate = Gate()
        let started = Gate()
        let ran = Mutex<[Int]>([])
        try executor.submit {
            started.open()
            gate.wait()
        }
        started.wait()
        for i in 0..<2 { try executor.submit { ran.withLock { $0.append(i) } } }
        #expect(throws: ExecutorError.self) { try executor.submit { ran.withLock { $0.append(99) } } }
        gate.open()
        executor.shutdown()
        #expect(ran.withLock { $0 } == [0, 1])
        do {
            try executor.submit {}
            Issue.record("accepted work after shutdown")
        } catch {
            #expect(error.code == .shutDown)
        }
    }

    @Test func workRunsOnSeveralThreadsAtOnce() throws {
        let executor = BlockingExecutor(name: "block", width: 2, capacity: 1)
        let first = Gate()
        let second = Gate()
        // Each waits for the other: one thread alone could not finish them.
        try executor.submit {
            first.open()
            second.wait()
        }
        try executor.submit {
            second.open()
            first.wait()
        }
        executor.shutdown()
    }
}

/// Lets threads through once it is open.
private final class Gate: @unchecked Sendable {
    // Sendable by promise: a POSIX semaphore is made to be shared.
    private let semaphore = UnsafeMutablePointer<sem_t>.allocate(capacity: 1)

    init() { sem_init(semaphore, 0, 0) }

    deinit {
        sem_destroy(semaphore)
        semaphore.deallocate()
    }

    func open() { sem_post(semaphore) }

    func wait() {
        sem_wait(semaphore)
        sem_post(semaphore)
    }
}
