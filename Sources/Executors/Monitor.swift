import Glibc

/// A value behind a mutex, with a condition variable to wait for changes of it. `Synchronization.Mutex` has no condition, hence this class.
final class Monitor<State>: @unchecked Sendable {
    // Sendable by promise: `state` is only touched between lock and unlock of `mutex`. Both C objects need an address that never moves.
    private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
    private var state: State

    init(_ initial: sending State) {
        state = initial
        pthread_mutex_init(mutex, nil)
        pthread_cond_init(condition, nil)
    }

    deinit {
        pthread_cond_destroy(condition)
        pthread_mutex_destroy(mutex)
        condition.deallocate()
        mutex.deallocate()
    }

    func withLock<Result>(_ body: (inout State) throws -> Result) rethrows -> Result {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        return try body(&state)
    }

    /// Sleeps while `isBlocked` holds, then runs `body` under the same lock.
    func wait<Result>(while isBlocked: (State) -> Bool, then body: (inout State) -> Result) -> Result {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        while isBlocked(state) {
            pthread_cond_wait(condition, mutex)
        }
        return body(&state)
    }

    func wakeOne() {
        pthread_cond_signal(condition)
    }

    func wakeAll() {
        pthread_cond_broadcast(condition)
    }
}
