import Synchronization
import TLS

/// Makes the TLS side of new connections. The certificate can be replaced at any time, from any thread: connections that exist keep theirs.
public final class TLSAcceptor: Sendable {
    private let current: Mutex<TLSContext>
    private let report: @Sendable (TLSConnectionFailure) -> Void

    /// - Parameters:
    ///   - context: a server's.
    ///   - report: is told of connections that come to nothing, on the server's thread; must not block.
    public init(_ context: TLSContext, report: @escaping @Sendable (TLSConnectionFailure) -> Void) {
        precondition(context.identity != nil, "a client's context cannot serve")
        current = Mutex(context)
        self.report = report
    }

    /// The context of the next connection.
    public var context: TLSContext { current.withLock { $0 } }

    /// New connections get this one from now on.
    public func replace(with context: TLSContext) {
        precondition(context.identity != nil, "a client's context cannot serve")
        current.withLock { $0 = context }
    }

    func makeFilter() -> TLSFilter {
        TLSFilter(TLSSession(server: context), report: report)
    }
}

/// Why a connection over TLS came to nothing, for the log.
public struct TLSConnectionFailure: Sendable, Equatable {
    public enum Kind: Sendable, Equatable {
        /// The client sent a request in clear text, and was told that this port speaks TLS.
        case plainText
        /// The two sides found no common protocol or cipher, or what came is not TLS.
        case handshakeFailed
        /// The client went away before the handshake was complete.
        case truncated
        /// The server closed the connection, because the handshake was not complete in time or because it stops.
        case stalled
        /// What came after the handshake was damaged, or the client reported an error.
        case broken
    }

    public let kind: Kind
    /// For people. Holds nothing of the client's but what kind of message was wrong.
    public let message: String
    /// How many bytes the client had sent: none means that it only looked whether the port is open.
    public let receivedCount: Int

    public init(_ kind: Kind, _ message: String, receivedCount: Int) {
        self.kind = kind
        self.message = message
        self.receivedCount = receivedCount
    }
}
