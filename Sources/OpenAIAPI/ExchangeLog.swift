import Executors
import InstructionStore
import Logging
import Observability
import Synchronization

/// Brings exchanges to the store, many in one transaction when they come fast, and removes those whose time is over.
///
/// Who asked for it is told when his exchange is on disk. The others are written a moment later, and lost if the process dies in between; when the disk
/// does not keep up, they are left out and counted.
public final class ExchangeLog: Sendable {
    private struct Queue {
        var waiting: [(exchange: KeptExchange, isDone: (@Sendable (InstructionStoreError?) -> Void)?)] = []
        var isScheduled = false
    }

    private struct Pruning {
        var count = 0
        var time: Int
    }

    /// Whether exchanges are kept for which nobody has asked.
    public let keepsAll: Bool
    let store: InstructionStore
    private let retention: ExchangeRetention
    private let logger: Logger
    private let now: @Sendable () -> Int
    private let queue = Mutex(Queue())
    /// Held while something is written, so that whoever waits for it finds everything that came before him in the store.
    private let writing: Mutex<Pruning>
    private let executor = BlockingExecutor(name: "exchanges", width: 1, capacity: 8)
    /// What became of exchanges since the start.
    private struct Tally {
        var kept: UInt64 = 0, lost: UInt64 = 0, pruned: UInt64 = 0
    }

    private let tally = Mutex(Tally())

    /// The most exchanges that wait without anybody waiting for them, and the most of one transaction.
    private static let capacity = 4096, batch = 256
    /// Seconds between two looks for what is too old.
    private static let pruningPeriod = 3600

    /// Removes what is too old or too much at once.
    /// - Parameter now: seconds since 1970 UTC.
    public init(
        _ store: InstructionStore, keepsAll: Bool, retention: ExchangeRetention = ExchangeRetention(), logger: Logger,
        now: (@Sendable () -> Int)? = nil
    ) throws(InstructionStoreError) {
        self.store = store
        self.keepsAll = keepsAll
        self.retention = retention
        self.logger = logger
        self.now = now ?? { secondsSince1970() }
        writing = Mutex(Pruning(time: self.now()))
        try store.pruneExchanges(retention, at: self.now())
    }

    /// - Parameter isDone: called on another thread when the exchange is on disk, or cannot be brought there.
    func keep(_ exchange: KeptExchange, isDone: (@Sendable (InstructionStoreError?) -> Void)? = nil) {
        let mustSchedule = queue.withLock { queue -> Bool? in
            guard isDone != nil || queue.waiting.count < Self.capacity else { return nil }
            queue.waiting.append((exchange, isDone))
            defer { queue.isScheduled = true }
            return !queue.isScheduled
        }
        guard let mustSchedule else { return tally.withLock { $0.lost += 1 } }
        guard mustSchedule else { return }
        do throws(ExecutorError) {
            try executor.submit { self.drain() }
        } catch {
            // The process is about to end: what comes now is written by whoever has it.
            drain()
        }
    }

    /// Writes all that waits. Blocking.
    func drain() {
        writing.withLock { pruning in
            // Also where nothing is written any more: whoever reads comes by here.
            prune(after: 0, &pruning)
            while let batch = take() {
                do throws(InstructionStoreError) {
                    try store.insertExchanges(batch.map(\.exchange.stored))
                    tally.withLock { $0.kept += UInt64(batch.count) }
                    for entry in batch { entry.isDone?(nil) }
                } catch {
                    tally.withLock { $0.lost += UInt64(batch.count) }
                    logger.error("exchanges could not be kept", metadata: ["count": "\(batch.count)", "cause": "\(error.message)"])
                    for entry in batch { entry.isDone?(error) }
                }
                prune(after: batch.count, &pruning)
            }
        }
    }

    private func take() -> [(exchange: KeptExchange, isDone: (@Sendable (InstructionStoreError?) -> Void)?)]? {
        queue.withLock { queue in
            guard !queue.waiting.isEmpty else {
                queue.isScheduled = false
                return nil
            }
            let batch = Array(queue.waiting.prefix(Self.batch))
            queue.waiting.removeFirst(batch.count)
            return batch
        }
    }

    /// Looks for what is too much after one per cent of what may be there, and for what is too old once an hour.
    private func prune(after count: Int, _ pruning: inout Pruning) {
        pruning.count += count
        let time = now()
        guard pruning.count >= max(1, retention.maximum / 100) || time - pruning.time >= Self.pruningPeriod else { return }
        pruning = Pruning(time: time)
        do throws(InstructionStoreError) {
            let count = try store.pruneExchanges(retention, at: time)
            tally.withLock { $0.pruned += UInt64(count) }
        } catch {
            logger.error("old exchanges could not be removed", metadata: ["cause": "\(error.message)"])
        }
    }

    /// Takes what is still waiting to the disk and ends the thread.
    func shutdown() {
        executor.shutdown()
        drain()
    }

    func register(in registry: MetricsRegistry) {
        let all = registry.counter("graft_exchanges_total", help: "Exchanges that were to be kept, by what became of them.", labels: ["outcome"])
        let (kept, lost, pruned) = (all.series("kept"), all.series("lost"), all.series("pruned"))
        registry.onCollect { [weak self] in
            guard let tally = self?.tally.withLock({ $0 }) else { return }
            kept.raise(to: tally.kept)
            lost.raise(to: tally.lost)
            pruned.raise(to: tally.pruned)
        }
    }
}
