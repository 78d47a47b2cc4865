import CUV

/// A timer of a loop, with the resolution of libuv's: a millisecond, counted from the beginning of the turn.
public final class LoopTimer: LoopHandle {
    private let timer: UnsafeMutablePointer<uv_timer_t>
    private var action: (() -> Void)?

    /// Makes a timer that does nothing until it is started.
    public init(loop: EventLoop) throws(EventLoopError) {
        let timer = UnsafeMutablePointer<uv_timer_t>.allocate(capacity: 1)
        self.timer = timer
        try super.init(loop: loop, memory: UnsafeMutableRawPointer(timer), doing: "making a timer") {
            uv_timer_init(loop.loop, timer)
        }
    }

    /// Runs `action` on the loop once after `milliseconds`, then every `period` milliseconds if that is not 0. A running timer starts anew.
    public func start(after milliseconds: UInt64, every period: UInt64 = 0, _ action: @escaping () -> Void) {
        guard !isClosed else { return }
        self.action = action
        uv_timer_start(timer, { handle in
            let timer = LoopHandle.of(handle!) as! LoopTimer
            timer.action?()
        }, milliseconds, period)
    }

    /// The action will not run until the timer is started again.
    public func stop() {
        guard !isClosed else { return }
        uv_timer_stop(timer)
        action = nil
    }

    override func willClose() {
        action = nil
    }
}
