import EventLoops
import HTTP1

/// A socket and its state machine. Belongs to the server's actor; the stream calls it on the same thread.
final class Connection: TCPStreamDelegate {
    let serial: UInt64
    let stream: TCPStream
    let machine: ConnectionMachine
    /// Keeps the server alive as long as it has connections; the stream lets go of its delegate when it closes.
    let server: HTTPServer
    /// Input that the machine is not ready for.
    var pending: [UInt8] = []
    var isPumping = false
    /// Who takes the body of the request that is arriving.
    var receiver: (any HTTPBodyReceiver)?
    /// When to ask whether the client is still there, while its input is not being read.
    var probeTime = UInt64.max

    init(serial: UInt64, stream: TCPStream, machine: ConnectionMachine, server: HTTPServer) {
        self.serial = serial
        self.stream = stream
        self.machine = machine
        self.server = server
    }

    /// Enters the actor. Sound although the compiler cannot see it: streams call back on their loop's thread, which is the
    /// server's executor, and `assumeIsolated` checks that.
    private func onServer(_ body: (isolated HTTPServer, Connection) -> Void) {
        nonisolated(unsafe) let connection = self
        nonisolated(unsafe) let body = body
        server.assumeIsolated { body($0, connection) }
    }

    func stream(_ stream: TCPStream, didRead bytes: UnsafeRawBufferPointer) {
        nonisolated(unsafe) let bytes = bytes
        onServer { $0.received(bytes, on: $1) }
    }

    func streamDidReachEnd(_ stream: TCPStream) {
        onServer { $0.peerEnded($1) }
    }

    func stream(_ stream: TCPStream, didFail error: EventLoopError) {
        onServer { $0.failed($1) }
    }

    func streamDidSend(_ stream: TCPStream) {
        onServer { $0.didSend(on: $1) }
    }

    func streamLostFilter(_ stream: TCPStream) {
        onServer { $0.lostTLS(on: $1) }
    }

    func streamDidClose(_ stream: TCPStream) {
        onServer { $0.didClose($1) }
    }
}
