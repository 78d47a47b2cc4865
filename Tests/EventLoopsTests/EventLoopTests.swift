import EventLoops
import Glibc
import Synchronization
import Testing

private actor Resident {
    nonisolated let loop: EventLoop
    private(set) var log: [Int] = []

    nonisolated var unownedExecutor: UnownedSerialExecutor { loop.asUnownedSerialExecutor() }

    init(_ loop: EventLoop) {
        self.loop = loop
    }

    func canMakeTimer() -> Bool { (try? LoopTimer(loop: loop))?.close() != nil }

    func note(_ number: Int) { log.append(number) }

    func isOnItsThread() -> Bool { loop.isIsolatingCurrentContext() == true }

    nonisolated func noteFromCallback(_ number: Int) {
        assumeIsolated { $0.log.append(number) }
    }

    /// Runs `count` jobs on the loop, each of which enqueues the next.
    func yield(_ count: Int) async {
        for i in 0..<count {
            log.append(i)
            await Task.yield()
        }
    }
}

@Suite(.timeLimit(.minutes(1))) struct EventLoopTests {
    @Test func anActorLivesOnTheLoop() async throws {
        let loop = try EventLoop(name: "loop")
        let resident = Resident(loop)
        for _ in 0..<50 { #expect(await resident.isOnItsThread()) }
        #expect(loop.isIsolatingCurrentContext() == false)
        await resident.yield(100)
        #expect(await resident.log == Array(0..<100))
        loop.shutdown()
    }

    @Test func closuresOfManyThreadsKeepTheirOrder() async throws {
        let loop = try EventLoop(name: "loop")
        let seen = Mutex<[[Int]]>(Array(repeating: [], count: 4))
        await withTaskGroup { group in
            for writer in 0..<4 {
                group.addTask { @Sendable in
                    for i in 0..<5000 { loop.execute { seen.withLock { $0[writer].append(i) } } }
                }
            }
        }
        loop.shutdown()
        #expect(seen.withLock { $0 } == Array(repeating: Array(0..<5000), count: 4))
    }

    @Test func timersFireInOrderAndStop() async throws {
        let loop = try EventLoop(name: "loop")
        let resident = Resident(loop)
        await withCheckedContinuation { continuation in
            loop.execute { startTimers(on: loop, resident) { continuation.resume() } }
        }
        #expect(await resident.log == [1, 2, 11, 12, 13])
        loop.shutdown()
    }

    private func startTimers(on loop: EventLoop, _ resident: Resident, whenDone: @escaping () -> Void) {
        let timers = (0..<4).compactMap { _ in try? LoopTimer(loop: loop) }
        var rounds = 0
        timers[3].start(after: 1) { resident.noteFromCallback(99) }
        timers[3].stop()
        timers[0].start(after: 5) { resident.noteFromCallback(1) }
        timers[1].start(after: 30) {
            resident.noteFromCallback(2)
            timers[2].start(after: 1, every: 1) {
                rounds += 1
                resident.noteFromCallback(10 + rounds)
                guard rounds == 3 else { return }
                for timer in timers { timer.close() }
                whenDone()
            }
        }
    }

    @Test func aSignalIsACallback() async throws {
        let loop = try EventLoop(name: "loop")
        await withCheckedContinuation { continuation in
            loop.execute {
                let watcher = Mutex<SignalWatcherBox?>(nil)
                let made = try? SignalWatcher(loop: loop, signal: SIGUSR2) {
                    watcher.withLock { $0?.watcher.close() }
                    continuation.resume()
                }
                guard let made else { return }
                watcher.withLock { $0 = SignalWatcherBox(watcher: made) }
                kill(getpid(), SIGUSR2)
            }
        }
        loop.shutdown()
    }

    @Test func shutdownClosesWhatIsOpenAndLatecomersStillRun() async throws {
        let loop = try EventLoop(name: "loop")
        let resident = Resident(loop)
        await withCheckedContinuation { continuation in
            loop.execute {
                _ = try? LoopTimer(loop: loop).start(after: 1_000_000, {})
                _ = try? TCPListener(loop: loop, host: "127.0.0.1", port: 0, sendBufferSize: nil) { $0.close() }
                continuation.resume()
            }
        }
        loop.shutdown()
        #expect(loop.execute {} == false)
        #expect(await resident.canMakeTimer() == false)
        await resident.note(5)
        #expect(await resident.log == [5])
    }

    @Test func addressesThatCannotBeBound() async throws {
        let loop = try EventLoop(name: "loop")
        let messages = await withCheckedContinuation { (continuation: CheckedContinuation<[String], Never>) in
            loop.execute {
                var messages: [String] = []
                func attempt(_ host: String, _ port: Int) -> Int? {
                    do {
                        return try TCPListener(loop: loop, host: host, port: port, sendBufferSize: nil) { $0.close() }.port
                    } catch {
                        messages.append("\(error.code) \(error.message)")
                        return nil
                    }
                }
                if let port = attempt("127.0.0.1", 0) {
                    _ = attempt("127.0.0.1", port)
                    messages[0] = messages[0].replacing("\(port)", with: "PORT")
                }
                _ = attempt("192.0.2.1", 0)
                _ = attempt("127.0.0.1", 65536)
                continuation.resume(returning: messages)
            }
        }
        loop.shutdown()
        #expect(
            messages == [
                "cannotListen listening on 127.0.0.1 port PORT: address already in use",
                "cannotListen listening on 192.0.2.1 port 0: address not available",
                "cannotListen listening on 127.0.0.1 port 65536: a port is a number from 0 to 65535",
            ])
    }
}

/// Lets a callback reach the watcher that it belongs to; only used on the loop's thread.
private struct SignalWatcherBox: @unchecked Sendable {
    let watcher: SignalWatcher
}
