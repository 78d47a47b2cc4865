import CKernels

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
