#if canImport(Glibc)
import Glibc
#endif

/// Anonymous memory of its own, page aligned and zero; given back to the system as soon as its last user lets go.
public final class MemoryRegion: @unchecked Sendable {
    // @unchecked: the region is written by its maker before it is shared, or by one owner at a time.
    public let base: UnsafeMutableRawPointer
    public let byteCount: Int

    public init(byteCount: Int) throws(KernelError) {
        precondition(byteCount >= 0)
        self.byteCount = max(byteCount, 1)
        guard let memory = mmap(nil, self.byteCount, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0),
            memory != MAP_FAILED
        else {
            throw KernelError(.outOfMemory, "memory: the system refused \(byteCount) bytes")
        }
        base = memory
    }

    deinit { munmap(base, byteCount) }
}
