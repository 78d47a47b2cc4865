import Glibc

/// How far a pull is. Reported several times a second from the thread that pulls.
public struct PullProgress: Sendable, Equatable {
    public enum Phase: Sendable, Equatable {
        /// Another process is pulling the same model; this one goes on when that has ended.
        case waiting
        /// Comparing what is there already with its digest.
        case checking
        case downloading
        /// Comparing what has arrived with its digest.
        case verifying
    }

    public var phase: Phase
    /// Bytes of the model that are there (`downloading`) or compared (`checking`, `verifying`). While a wheel is on its way, its compressed bytes stand for its part's.
    public var bytes: Int
    /// Bytes of the whole model; nil while a server has not said.
    public var total: Int?
    /// The part on its way, from 1.
    public var part: Int
    public var partCount: Int

    public init(phase: Phase, bytes: Int, total: Int?, part: Int = 1, partCount: Int = 1) {
        self.phase = phase
        self.bytes = bytes
        self.total = total
        self.part = part
        self.partCount = partCount
    }

    /// 0…1; nil when the total is not known.
    public var fraction: Double? {
        guard let total, total > 0 else { return nil }
        return min(1, max(0, Double(bytes) / Double(total)))
    }
}

/// Bytes per second during a download, from byte counts and the times they were seen at. What happened t seconds ago has the weight e^(-t/10), so that the pauses between
/// parts do not make the figure jump.
public struct TransferRate: Sendable {
    private var last: (bytes: Int, time: ContinuousClock.Instant)?
    private var weightedBytes = 0.0
    private var weightedSeconds = 0.0

    public init() {}

    /// Nil until something has come.
    public var bytesPerSecond: Double? {
        weightedSeconds > 0 && weightedBytes > 0 ? weightedBytes / weightedSeconds : nil
    }

    /// Takes a report into account; those of other phases than `downloading` begin a new measurement.
    public mutating func record(_ progress: PullProgress, at time: ContinuousClock.Instant) {
        guard progress.phase == .downloading, let previous = last, progress.bytes >= previous.bytes else {
            self = TransferRate()
            if progress.phase == .downloading { last = (progress.bytes, time) }
            return
        }
        let seconds = (time - previous.time) / .seconds(1)
        guard seconds > 0 else { return }
        let decay = exp(-seconds / 10)
        weightedBytes = weightedBytes * decay + Double(progress.bytes - previous.bytes)
        weightedSeconds = weightedSeconds * decay + seconds
        last = (progress.bytes, time)
    }

    /// Seconds until `total` bytes are there, at the present rate.
    public func secondsLeft(total: Int) -> Double? {
        guard let last, let rate = bytesPerSecond else { return nil }
        return Double(max(0, total - last.bytes)) / rate
    }
}
