import CUV
import Glibc

/// A listening TCP socket.
public final class TCPListener: LoopHandle {
    private let tcp: UnsafeMutablePointer<uv_tcp_t>
    private var accept: ((TCPStream) -> Void)?
    /// The port that is bound, chosen by the system when 0 was asked for.
    public private(set) var port = 0

    /// How many connections the kernel keeps until they are accepted (it may have a lower limit of its own).
    private static let backlog: Int32 = 4096

    private var stream: UnsafeMutablePointer<uv_stream_t> {
        UnsafeMutableRawPointer(tcp).assumingMemoryBound(to: uv_stream_t.self)
    }

    /// Binds and listens.
    /// - Parameters:
    ///   - host: an IPv4 or IPv6 address (without brackets) or a name; the first address of a name that can be bound is taken.
    ///   - port: 0 lets the system choose.
    ///   - sendBufferSize: the kernel's send buffer of each connection in bytes, so that a slow reader cannot hold megabytes; nil leaves the system's.
    ///   - accept: called for each connection on the loop's thread.
    /// - Throws: `cannotListen` with the address and the system's reason.
    public init(
        loop: EventLoop, host: String, port: Int, sendBufferSize: Int?, _ accept: @escaping (TCPStream) -> Void
    ) throws(EventLoopError) {
        let tcp = UnsafeMutablePointer<uv_tcp_t>.allocate(capacity: 1)
        self.tcp = tcp
        self.accept = accept
        try super.init(loop: loop, memory: UnsafeMutableRawPointer(tcp), doing: "opening a listening socket") {
            uv_tcp_init(loop.loop, tcp)
        }
        do throws(EventLoopError) {
            try bind(host: host, port: port)
            if var size = sendBufferSize.map(Int32.init(clamping:)) {
                // Accepted sockets inherit it.
                uv_send_buffer_size(handle, &size)
            }
            let status = uv_listen(stream, TCPListener.backlog) { handle, status in
                let listener = unsafeDowncast(LoopHandle.of(handle!), to: TCPListener.self)
                listener.didConnect(status: status)
            }
            guard status == 0 else { throw EventLoopError(.cannotListen, doing: "listening on \(host) port \(port)", status: status) }
            self.port = try boundPort()
        } catch {
            close()
            throw error
        }
    }

    private func bind(host: String, port: Int) throws(EventLoopError) {
        guard (0...65535).contains(port) else {
            throw EventLoopError(.cannotListen, "listening on \(host) port \(port): a port is a number from 0 to 65535")
        }
        var hints = addrinfo()
        hints.ai_family = AF_UNSPEC
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        hints.ai_flags = AI_PASSIVE
        var list: UnsafeMutablePointer<addrinfo>?
        let failure = getaddrinfo(host, String(port), &hints, &list)
        guard failure == 0 else {
            throw EventLoopError(.cannotListen, "listening on \(host) port \(port): \(String(cString: gai_strerror(failure)))")
        }
        defer { freeaddrinfo(list) }
        var status: Int32 = UV_EADDRNOTAVAIL.rawValue
        var next = list
        while let address = next {
            status = uv_tcp_bind(tcp, address.pointee.ai_addr, 0)
            if status == 0 { return }
            next = address.pointee.ai_next
        }
        throw EventLoopError(.cannotListen, doing: "listening on \(host) port \(port)", status: status)
    }

    private func boundPort() throws(EventLoopError) -> Int {
        var storage = sockaddr_storage()
        var length = Int32(MemoryLayout<sockaddr_storage>.size)
        let status = withUnsafeMutablePointer(to: &storage) { storage in
            storage.withMemoryRebound(to: sockaddr.self, capacity: 1) { uv_tcp_getsockname(tcp, $0, &length) }
        }
        guard status == 0 else { throw EventLoopError(.cannotListen, doing: "asking for the bound port", status: status) }
        // The port stands at the same place in both families' addresses, in network order.
        return withUnsafeBytes(of: &storage) { Int($0[2]) << 8 | Int($0[3]) }
    }

    private func didConnect(status: Int32) {
        // A connection that went away before it was accepted is nobody's concern.
        guard status == 0, let stream = try? TCPStream(accepting: stream, loop: eventLoop) else { return }
        if let accept {
            accept(stream)
        } else {
            stream.close()
        }
    }

    override func willClose() {
        accept = nil
    }
}
