import CUV

/// Turns a signal of the process into a callback on a loop. While a watcher exists the signal's default action does not happen.
public final class SignalWatcher: LoopHandle {
    private let watcher: UnsafeMutablePointer<uv_signal_t>
    private var action: (() -> Void)?

    /// - Parameters:
    ///   - number: for example `SIGTERM`.
    ///   - action: runs on the loop's thread each time the signal comes.
    public init(loop: EventLoop, signal number: Int32, _ action: @escaping () -> Void) throws(EventLoopError) {
        let watcher = UnsafeMutablePointer<uv_signal_t>.allocate(capacity: 1)
        self.watcher = watcher
        self.action = action
        try super.init(loop: loop, memory: UnsafeMutableRawPointer(watcher), doing: "watching for signal \(number)") {
            uv_signal_init(loop.loop, watcher)
        }
        let status = uv_signal_start(watcher, { handle, _ in
            let watcher = LoopHandle.of(handle!) as! SignalWatcher
            watcher.action?()
        }, number)
        guard status == 0 else {
            close()
            throw EventLoopError(.systemFailure, doing: "watching for signal \(number)", status: status)
        }
    }

    override func willClose() {
        action = nil
    }
}
