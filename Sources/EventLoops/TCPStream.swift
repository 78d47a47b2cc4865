import CUV
import Glibc

/// What happens on a stream. Called on the loop's thread.
public protocol TCPStreamDelegate: AnyObject {
    /// Bytes arrived. They are valid during the call only.
    func stream(_ stream: TCPStream, didRead bytes: UnsafeRawBufferPointer)
    /// The peer sends nothing more.
    func streamDidReachEnd(_ stream: TCPStream)
    /// The connection broke: nothing can be read or written any more. The stream is still to be closed.
    func stream(_ stream: TCPStream, didFail error: EventLoopError)
    /// Bytes left that had to wait for the peer; `unsentCount` is smaller than before.
    func streamDidSend(_ stream: TCPStream)
    /// The stream is closed and its descriptor free. Nothing follows.
    func streamDidClose(_ stream: TCPStream)
    /// The peer does not speak what the stream's filter does. The filter is gone, what was written leaves as it is, and what the peer sent so far is lost.
    func streamLostFilter(_ stream: TCPStream)
}

extension TCPStreamDelegate {
    public func streamLostFilter(_ stream: TCPStream) {}
}

/// One accepted TCP connection.
///
/// Writing is appending to `output` and calling `setNeedsFlush()`: the end of the loop's turn sends everything with one system
/// call. What the peer does not take at once stays queued.
public final class TCPStream: LoopHandle {
    private let tcp: UnsafeMutablePointer<uv_tcp_t>
    private let request: UnsafeMutablePointer<uv_write_t>
    /// Held strongly until the stream is closed.
    public var delegate: (any TCPStreamDelegate)?
    /// Changes the bytes of both directions. To be set before reading starts.
    public var filter: (any StreamFilter)?
    /// Whether closing the stream, once everything is sent, is an orderly end that the filter tells the peer. Set to false when an answer is cut off.
    public var endsOrderly = true
    /// Bytes that were not handed to the system yet, before the filter.
    public var output = ByteQueue()
    /// What the filter made of them, and what it has to say itself.
    var wire = ByteQueue()
    /// Bytes that libuv holds until the peer takes them.
    var inFlight = ByteQueue()
    /// Bytes sent before those in `inFlight`.
    private var handedOver: UInt64 = 0
    private var needsFlush = false
    var hasFailed = false
    var isFinishing = false
    private var isShutDown = false
    /// The filter has said that nothing follows.
    var hasFinishedFilter = false
    var hasReachedEnd = false
    public private(set) var isReading = false

    /// The most buffers in one system call; Linux allows 1,024.
    private static let longestGather = 64
    /// How many bytes are handed to libuv to wait for the peer. Each completion tells the owner about progress.
    private static let inFlightSize = 65536

    private var stream: UnsafeMutablePointer<uv_stream_t> {
        UnsafeMutableRawPointer(tcp).assumingMemoryBound(to: uv_stream_t.self)
    }

    private static func owner(of handle: UnsafeMutableRawPointer) -> TCPStream {
        // Safe: streams' callbacks are only set on handles that `init` below made.
        unsafeDowncast(LoopHandle.of(handle), to: TCPStream.self)
    }

    /// Takes a connection that waits on a listening handle.
    init(accepting listener: UnsafeMutablePointer<uv_stream_t>, loop: EventLoop) throws(EventLoopError) {
        let tcp = UnsafeMutablePointer<uv_tcp_t>.allocate(capacity: 1)
        self.tcp = tcp
        request = .allocate(capacity: 1)
        try super.init(loop: loop, memory: UnsafeMutableRawPointer(tcp), doing: "accepting a connection") {
            uv_tcp_init(loop.loop, tcp)
        }
        let status = uv_accept(listener, stream)
        guard status == 0 else {
            close()
            throw EventLoopError(.systemFailure, doing: "accepting a connection", status: status)
        }
        // Answers are small and must not wait for the peer's acknowledgements.
        uv_tcp_nodelay(tcp, 1)
    }

    deinit {
        request.deallocate()
    }

    // MARK: - Reading

    public func startReading() {
        guard !isClosed, !isReading, !hasFailed, !hasReachedEnd else { return }
        let status = uv_read_start(stream, { handle, _, buffer in
            let shared = TCPStream.owner(of: handle!).eventLoop.readBuffer
            buffer!.pointee = uv_buf_init(shared.baseAddress!.assumingMemoryBound(to: CChar.self), UInt32(shared.count))
        }, { handle, count, buffer in
            TCPStream.owner(of: handle!).didRead(count: count, from: buffer!.pointee.base)
        })
        isReading = status == 0
    }

    /// The peer's bytes stay in the kernel, and its end is not noticed, until reading starts again.
    public func stopReading() {
        guard !isClosed, isReading else { return }
        isReading = false
        uv_read_stop(stream)
    }

    private func didRead(count: Int, from base: UnsafeMutablePointer<CChar>?) {
        if count > 0 {
            let bytes = UnsafeRawBufferPointer(start: base, count: count)
            if filter == nil { delegate?.stream(self, didRead: bytes) } else { open(bytes) }
        } else if count == Int(UV_EOF.rawValue) {
            filter?.peerIsGone()
            reachEnd()
        } else if count < 0 {
            filter?.peerIsGone()
            fail(status: Int32(count), doing: "reading from a connection")
        }
    }

    func reachEnd() {
        hasReachedEnd = true
        stopReading()
        delegate?.streamDidReachEnd(self)
    }

    /// Whether the peer has closed its side or the connection broke, asked without reading: while reading is stopped nothing else tells.
    public func peerIsGone() -> Bool {
        guard !isClosed else { return true }
        var descriptor: Int32 = -1
        guard uv_fileno(handle, &descriptor) == 0 else { return true }
        // POLLRDHUP, which the C library hides from Swift behind a feature macro.
        let peerClosed: Int16 = 0x2000
        var question = pollfd(fd: descriptor, events: peerClosed, revents: 0)
        guard poll(&question, 1, 0) > 0 else { return false }
        return question.revents & (peerClosed | Int16(POLLHUP) | Int16(POLLERR)) != 0
    }

    // MARK: - Writing

    /// All bytes that were not taken by the system yet.
    public var unsentCount: Int {
        isClosed ? 0 : output.count + wire.count + uv_stream_get_write_queue_size(stream)
    }

    /// All bytes that the system has taken so far.
    public var sentCount: UInt64 {
        guard !isClosed, !inFlight.isEmpty else { return handedOver }
        return handedOver + UInt64(max(0, inFlight.count - uv_stream_get_write_queue_size(stream)))
    }

    /// Those of `sentCount` that the peer's system has acknowledged. Asks the kernel, whose buffer may hold much that nobody has taken.
    public var takenCount: UInt64 {
        var descriptor: Int32 = -1
        guard !isClosed, uv_fileno(handle, &descriptor) == 0 else { return sentCount }
        var queued: Int32 = 0
        // SIOCOUTQ, which the C library hides from Swift as a macro of a macro.
        guard ioctl(descriptor, UInt(TIOCOUTQ), &queued) == 0 else { return sentCount }
        return sentCount - min(sentCount, UInt64(max(0, queued)))
    }

    /// `output` has grown: it is sent at the end of this turn.
    public func setNeedsFlush() {
        guard !needsFlush, !isClosed else { return }
        needsFlush = true
        eventLoop.flushAtTurnEnd(self)
    }

    /// Sends a FIN once everything is sent; reading goes on.
    public func finishWriting() {
        isFinishing = true
        setNeedsFlush()
    }

    /// Offers `output` to the system now. Usually the end of the turn does that.
    public func flush() {
        needsFlush = false
        guard !isClosed, !hasFailed, inFlight.isEmpty else { return }
        var status: Int32 = 0
        if filter == nil {
            status = offer(&output)
        } else {
            // No more is sealed than the system takes.
            repeat { status = offer(&wire) } while status == 0 && seal()
        }
        guard !hasFailed else { return }
        if status == UV_EAGAIN.rawValue { return waitForPeer() }
        guard status == 0 else { return fail(status: status, doing: "writing to a connection") }
        if isFinishing, !isShutDown, output.isEmpty {
            isShutDown = true
            shutDownWriting()
        }
    }

    /// Sends what the system takes of a queue.
    /// - Returns: 0 when that was all, `UV_EAGAIN` when it was not, or why the connection is broken.
    func offer(_ queue: inout ByteQueue) -> Int32 {
        while !queue.isEmpty {
            let sent = queue.withGathered(limit: TCPStream.longestGather) { buffers in
                Int(uv_try_write(stream, buffers.baseAddress, UInt32(buffers.count)))
            }
            if sent > 0 {
                queue.removeFirst(sent)
                handedOver += UInt64(sent)
            } else {
                return sent == 0 ? UV_EAGAIN.rawValue : Int32(sent)
            }
        }
        return 0
    }

    /// Hands libuv some bytes to write when the peer has room; its callback brings the rest.
    private func waitForPeer() {
        if filter == nil {
            output.moveFirst(TCPStream.inFlightSize, to: &inFlight)
        } else {
            wire.moveFirst(TCPStream.inFlightSize, to: &inFlight)
        }
        let status = inFlight.withGathered(limit: Int.max) { buffers in
            uv_write(request, stream, buffers.baseAddress, UInt32(buffers.count)) { request, status in
                TCPStream.owner(of: request!.pointee.handle).didWrite(status: status)
            }
        }
        if status != 0 {
            inFlight.removeAll()
            fail(status: status, doing: "writing to a connection")
        }
    }

    private func didWrite(status: Int32) {
        handedOver += UInt64(inFlight.count)
        inFlight.removeAll()
        guard !isClosed else { return }
        guard status == 0 else { return fail(status: status, doing: "writing to a connection") }
        flush()
        if !hasFailed {
            delegate?.streamDidSend(self)
        }
    }

    private func shutDownWriting() {
        var descriptor: Int32 = -1
        // Everything is written, so the plain call does what libuv's queued one would.
        if uv_fileno(handle, &descriptor) == 0 {
            shutdown(descriptor, Int32(SHUT_WR))
        }
    }

    private func fail(status: Int32, doing what: String) {
        fail(EventLoopError(.connectionLost, doing: what, status: status))
    }

    func fail(_ error: EventLoopError) {
        guard !hasFailed, !isClosed else { return }
        hasFailed = true
        stopReading()
        delegate?.stream(self, didFail: error)
    }

    // MARK: - The end

    override func willClose() {
        closeFilter()
        output.removeAll()
        wire.removeAll()
        isReading = false
    }

    override func didClose() {
        let last = delegate
        delegate = nil
        last?.streamDidClose(self)
    }
}

extension ByteQueue {
    /// Calls `body` with up to `limit` blocks as libuv's buffers.
    borrowing func withGathered<Result>(limit: Int, _ body: (UnsafeBufferPointer<uv_buf_t>) -> Result) -> Result {
        let number = min(limit, blocks.count - head)
        return withUnsafeTemporaryAllocation(of: uv_buf_t.self, capacity: number) { buffers in
            for i in 0..<number {
                let bytes = blocks[head + i].bytes
                let base = UnsafeMutableRawPointer(mutating: bytes.baseAddress!).assumingMemoryBound(to: CChar.self)
                buffers.initializeElement(at: i, to: uv_buf_t(base: base, len: bytes.count))
            }
            return body(UnsafeBufferPointer(buffers))
        }
    }
}
