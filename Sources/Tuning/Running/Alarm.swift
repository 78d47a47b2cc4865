import Glibc

/// Wakes a thread that waits for work, at once or when its time is over. A ring that comes while nobody waits is not lost.
final class Alarm: @unchecked Sendable {
    // Sendable by promise: `rings` is only touched between lock and unlock of `mutex`. Both C objects need an address that never moves.
    private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
    private var rings: UInt64 = 0

    init() {
        pthread_mutex_init(mutex, nil)
        pthread_cond_init(condition, nil)
    }

    deinit {
        pthread_cond_destroy(condition)
        pthread_mutex_destroy(mutex)
        condition.deallocate()
        mutex.deallocate()
    }

    func ring() {
        pthread_mutex_lock(mutex)
        rings += 1
        pthread_cond_broadcast(condition)
        pthread_mutex_unlock(mutex)
    }

    /// How often it has rung; to be read before looking for work.
    var count: UInt64 {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        return rings
    }

    /// Returns when it has rung more often than `count`, or after a time.
    func wait(beyond count: UInt64, atMost limit: Duration?) {
        var deadline = timespec()
        if let limit {
            clock_gettime(CLOCK_REALTIME, &deadline)
            let (seconds, attoseconds) = limit.components
            deadline.tv_sec += Int(min(seconds, 1 << 30))
            deadline.tv_nsec += Int(attoseconds / 1_000_000_000)
            if deadline.tv_nsec >= 1_000_000_000 {
                deadline.tv_sec += 1
                deadline.tv_nsec -= 1_000_000_000
            }
        }
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        while rings <= count {
            if limit == nil {
                pthread_cond_wait(condition, mutex)
            } else if pthread_cond_timedwait(condition, mutex, &deadline) == ETIMEDOUT {
                return
            }
        }
    }
}
