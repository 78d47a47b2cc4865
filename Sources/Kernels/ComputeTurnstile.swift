#if canImport(Glibc)
import Glibc
#endif

/// Lets serving and training take turns on one compute pool.
///
/// Serving goes first: training gets in between two steps, for a unit of a few milliseconds. Under load it gets more than one unit after a long step, so
/// that it keeps its share, but never more time than the step took: gaps between tokens at most double. Without load nobody waits.
public final class ComputeTurnstile: @unchecked Sendable {
    // @unchecked: everything below is guarded by the mutex.
    private let mutex: UnsafeMutablePointer<pthread_mutex_t>
    private let servingTurn, trainingTurn: UnsafeMutablePointer<pthread_cond_t>
    private var isBusy = false
    private var servingWaits = 0, trainingWaits = 0
    /// Runs that will want another unit in a moment.
    private var activeTrainings = 0
    /// Seconds that training may use before serving goes on.
    private var credit = 0.0
    /// When the last step of serving ended: while the engine delivers its tokens, the next one is on its way.
    private var servedAt = -Double.infinity
    private static let deliverySeconds = 0.005
    /// Serving that has been silent for so long has nobody waiting for the next token.
    private static let lullSeconds = 0.1
    private let share: Double
    /// How long serving holds its next step back for a unit that has not come yet, in nanoseconds.
    private static let patience = 500_000

    /// - Parameter share: of the time that serving and training both want, how much training gets at least (0 ..< 1).
    public init(trainingShare share: Double = 0.3) {
        precondition(share >= 0 && share < 1, "a share of \(share)")
        self.share = share
        mutex = .allocate(capacity: 1)
        servingTurn = .allocate(capacity: 1)
        trainingTurn = .allocate(capacity: 1)
        pthread_mutex_init(mutex, nil)
        var attributes = pthread_condattr_t()
        pthread_condattr_init(&attributes)
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
        pthread_cond_init(servingTurn, &attributes)
        pthread_condattr_destroy(&attributes)
        pthread_cond_init(trainingTurn, nil)
    }

    deinit {
        pthread_mutex_destroy(mutex)
        pthread_cond_destroy(servingTurn)
        pthread_cond_destroy(trainingTurn)
        mutex.deallocate()
        servingTurn.deallocate()
        trainingTurn.deallocate()
    }

    private static func now() -> Double {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) * 1e-9
    }

    /// One step of serving.
    public func serve<Result>(_ body: () throws -> Result) rethrows -> Result {
        pthread_mutex_lock(mutex)
        servingWaits += 1
        var isPatient = true
        while isBusy || (credit > 0 && activeTrainings > 0 && isPatient) {
            if isBusy {
                pthread_cond_wait(servingTurn, mutex)
            } else if trainingWaits > 0 {
                pthread_cond_signal(trainingTurn)
                pthread_cond_wait(servingTurn, mutex)
            } else {
                isPatient = waitShortly() || isBusy || trainingWaits > 0
            }
        }
        servingWaits -= 1
        isBusy = true
        pthread_mutex_unlock(mutex)
        let start = ComputeTurnstile.now()
        defer {
            pthread_mutex_lock(mutex)
            isBusy = false
            servedAt = ComputeTurnstile.now()
            let seconds = servedAt - start
            // Any credit admits a unit, however short the step was.
            credit = activeTrainings > 0 ? min(seconds, max(credit, 0) + max(seconds * share / (1 - share), 1e-9)) : 0
            if trainingWaits > 0 { pthread_cond_signal(trainingTurn) }
            // Usually one thread serves; a second one must not sleep on.
            if servingWaits > 0 { pthread_cond_signal(servingTurn) }
            pthread_mutex_unlock(mutex)
        }
        return try body()
    }

    /// - Returns: false when nothing happened for as long as patience lasts.
    private func waitShortly() -> Bool {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        time.tv_nsec += ComputeTurnstile.patience
        if time.tv_nsec >= 1_000_000_000 {
            time.tv_nsec -= 1_000_000_000
            time.tv_sec += 1
        }
        return pthread_cond_timedwait(servingTurn, mutex, &time) == 0
    }

    /// Whether serving waits, computes, or did so a moment ago.
    var isServing: Bool {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        return servingWaits > 0 || ComputeTurnstile.now() - servedAt < ComputeTurnstile.lullSeconds
    }

    /// Around the units of one training step.
    public func whileTraining<Result, Failure: Error>(_ body: () throws(Failure) -> Result) throws(Failure) -> Result {
        pthread_mutex_lock(mutex)
        activeTrainings += 1
        pthread_mutex_unlock(mutex)
        defer {
            pthread_mutex_lock(mutex)
            activeTrainings -= 1
            pthread_cond_signal(servingTurn)
            pthread_mutex_unlock(mutex)
        }
        return try body()
    }

    /// One unit of training.
    func train(_ body: () -> Void) {
        pthread_mutex_lock(mutex)
        trainingWaits += 1
        while isBusy || (servingWaits > 0 && credit <= 0) { pthread_cond_wait(trainingTurn, mutex) }
        trainingWaits -= 1
        isBusy = true
        pthread_mutex_unlock(mutex)
        let start = ComputeTurnstile.now()
        body()
        pthread_mutex_lock(mutex)
        isBusy = false
        let end = ComputeTurnstile.now()
        if servingWaits > 0 {
            credit -= end - start
        } else if end - servedAt > ComputeTurnstile.deliverySeconds {
            // What was used while nobody waited is nobody's loss.
            credit = 0
        }
        if servingWaits > 0 { pthread_cond_signal(servingTurn) }
        pthread_mutex_unlock(mutex)
    }
}
