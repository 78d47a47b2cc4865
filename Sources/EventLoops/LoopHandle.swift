import CUV

/// What every libuv handle of ours shares: memory that is freed in the close callback and not before, and an object that
/// libuv's callbacks can rely on until then.
///
/// Handles belong to their loop's thread. A handle that nobody closes lives until its loop is shut down.
public class LoopHandle {
    public let eventLoop: EventLoop
    private let memory: UnsafeMutableRawPointer
    public private(set) var isClosed = false

    /// - Parameters:
    ///   - memory: what the C handle was allocated in; freed when it is closed.
    ///   - open: calls the handle's `uv_…_init`.
    init(
        loop: EventLoop, memory: UnsafeMutableRawPointer, doing what: String, open: () -> Int32
    ) throws(EventLoopError) {
        eventLoop = loop
        self.memory = memory
        loop.checkIsolated()
        guard loop.isOpen else {
            memory.deallocate()
            isClosed = true
            throw EventLoopError(.systemFailure, "\(what): the event loop \(loop.name) is shut down")
        }
        let status = open()
        guard status == 0 else {
            memory.deallocate()
            isClosed = true
            throw EventLoopError(.systemFailure, doing: what, status: status)
        }
        handle.pointee.data = Unmanaged.passRetained(self).toOpaque()
    }

    final var handle: UnsafeMutablePointer<uv_handle_t> {
        memory.assumingMemoryBound(to: uv_handle_t.self)
    }

    static func of(_ handle: UnsafeMutableRawPointer) -> LoopHandle {
        let handle = handle.assumingMemoryBound(to: uv_handle_t.self)
        return Unmanaged<LoopHandle>.fromOpaque(handle.pointee.data).takeUnretainedValue()
    }

    /// Ends the handle; no callback of it follows but the one that says so. Closing twice is allowed.
    public final func close() {
        guard !isClosed else { return }
        isClosed = true
        willClose()
        uv_close(handle) { handle in
            let object = Unmanaged<LoopHandle>.fromOpaque(handle!.pointee.data).takeRetainedValue()
            object.didClose()
            object.memory.deallocate()
        }
    }

    /// The handle is about to be closed: drop what refers to callers.
    func willClose() {}

    /// The handle is closed, and its memory goes now.
    func didClose() {}
}
