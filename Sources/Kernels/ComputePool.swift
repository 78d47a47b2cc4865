import CKernels

#if canImport(Glibc)
import Glibc
#endif

/// The threads that compute. They spin briefly between the phases of a step and sleep on a futex otherwise. The caller of `run` is one of them.
///
/// One owner at a time: `run` must not be called from two threads at once.
public final class ComputePool: @unchecked Sendable {
    // @unchecked: the C pool synchronises its threads itself; the pointer never changes.
    package let pool: OpaquePointer
    public let threadCount: Int

    /// Processors that this process may use.
    public static var processorCount: Int { Int(graft_processor_count()) }

    /// - Parameter threads: 1…256, this thread included.
    public init(threads: Int) throws(KernelError) {
        precondition((1...256).contains(threads), "a pool has 1 to 256 threads")
        guard let pool = graft_pool_create(Int32(threads)) else {
            throw KernelError(.threadFailure, "compute pool: the system refused \(threads) threads; ask for fewer with --threads")
        }
        self.pool = pool
        threadCount = threads
    }

    deinit { graft_pool_destroy(pool) }

    /// Bytes per second that all threads together read from memory: the best of several passes over more than any cache holds.
    /// - Throws: `KernelError` if there is no room for that.
    public func memoryBandwidth() throws(KernelError) -> Double {
        let count = 1024, bytes = count * Int(GRAFT_READING_BYTES)
        let region = try MemoryRegion(byteCount: bytes)
        // Untouched pages would all be one.
        memset(region.base, 1, bytes)
        var reading = graft_memory_reading()
        reading.base = UnsafePointer(region.base.assumingMemoryBound(to: UInt8.self))
        let clock = ContinuousClock()
        var best = Duration.seconds(1000)
        for _ in 0..<5 {
            let start = clock.now
            graft_pool_run(pool, graft_read_memory, &reading, count, 4)
            best = min(best, clock.now - start)
        }
        withExtendedLifetime(region) {}
        return Double(bytes) / (Double(best.components.seconds) + Double(best.components.attoseconds) * 1e-18)
    }

    /// Runs `body` on ranges that together cover 0..<count, each range once.
    public func parallel(_ count: Int, grain: Int = 1, _ body: (Range<Int>) -> Void) {
        withoutActuallyEscaping(body) { escaping in
            var context = escaping
            withUnsafeMutablePointer(to: &context) { pointer in
                graft_pool_run(pool, { context, begin, end, _ in
                    context!.assumingMemoryBound(to: ((Range<Int>) -> Void).self).pointee(Int(begin)..<Int(end))
                }, pointer, count, max(1, grain))
            }
        }
    }
}
