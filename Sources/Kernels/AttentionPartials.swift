import CKernels

/// Where threads that share the keys of a sequence leave what they have of them, until the last one joins it. One attention at a time uses it.
public final class AttentionPartials {
    private let region: MemoryRegion

    /// - Parameter byteCount: pages are touched when they are first used. Sequences that do not fit are not shared.
    /// - Throws: `KernelError.outOfMemory`.
    public init(byteCount: Int = 8 << 20) throws(KernelError) {
        region = try MemoryRegion(byteCount: byteCount)
    }

    /// Gives its part of the memory to each run whose keys can be shared.
    func share(_ runs: UnsafeMutableBufferPointer<graft_attention_run>, of job: inout graft_attention) {
        var used = 0
        for run in runs.indices.map({ runs.baseAddress! + $0 }) {
            let bytes = Int(graft_attention_partial_bytes(&job, run))
            guard bytes > 0, used + bytes <= region.byteCount else { continue }
            graft_attention_share(&job, run, region.base + used)
            used += bytes
        }
    }
}
