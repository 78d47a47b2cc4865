import HTTP1
import HTTPTypes

/// Names one request and its response. Ids are never reused by a server; calls with the id of an exchange that is over are ignored,
/// so whoever answers need not know whether the client is still there.
public struct ExchangeID: Hashable, Sendable, CustomStringConvertible {
    let connection: UInt64
    let sequence: UInt64

    package init(connection: UInt64, sequence: UInt64) {
        self.connection = connection
        self.sequence = sequence
    }

    public var description: String { "\(connection)-\(sequence)" }
}

/// A whole request: head and body.
public struct IncomingRequest: Sendable {
    public let exchange: ExchangeID
    /// `authority` comes from the Host field, which is not among the fields.
    public let head: HTTPRequest
    /// The path as it was sent, still percent-encoded, without the query.
    public let path: String
    /// The query's pairs, decoded, in order.
    public let query: [(name: String, value: String)]
    /// Large ones come in pieces; join those elsewhere than on the server.
    public let body: RequestBody
    /// The client's own x-request-id if it was acceptable, else a new one. The response carries it too.
    public let requestID: String
    /// When the last byte of the request was read.
    public let receivedAt: ContinuousClock.Instant

    public init(
        exchange: ExchangeID, head: HTTPRequest, path: String, query: [(name: String, value: String)], body: RequestBody, requestID: String,
        receivedAt: ContinuousClock.Instant
    ) {
        self.exchange = exchange
        self.head = head
        self.path = path
        self.query = query
        self.body = body
        self.requestID = requestID
        self.receivedAt = receivedAt
    }

    /// A request whose body is in one array.
    public init(
        exchange: ExchangeID, head: HTTPRequest, path: String, query: [(name: String, value: String)], body: [UInt8], requestID: String,
        receivedAt: ContinuousClock.Instant
    ) {
        self.init(exchange: exchange, head: head, path: path, query: query, body: RequestBody(body), requestID: requestID, receivedAt: receivedAt)
    }
}

/// Why the server itself refuses a request or a connection. The application turns it into a response; the connection closes after it.
public struct HTTPRejection: Error, Sendable, Equatable, CustomStringConvertible {
    public enum Reason: Sendable, Equatable, CaseIterable {
        /// Not HTTP/1, or ambiguous.
        case malformed
        case targetTooLong
        case headersTooLarge
        case bodyTooLarge
        case unsupportedVersion
        case unsupportedTransferCoding
        case expectationFailed
        /// The Host is none of the allowed ones.
        case misdirected
        /// The head did not come in time.
        case headerTimeout
        /// The body did not come in time.
        case bodyTimeout
        /// As many connections are open as may be.
        case tooManyConnections
        /// Plain HTTP on a port for TLS. The answer goes out in clear text.
        case needsTLS
    }

    public let reason: Reason
    /// For people: what was found and what was expected. Holds nothing of the request but numbers.
    public let message: String

    public init(_ reason: Reason, _ message: String) {
        self.reason = reason
        self.message = message
    }

    public var description: String { message }
}

/// Takes the body of one request as it comes in, so that it is never in memory as a whole. Called on the server's thread; must not block.
public protocol HTTPBodyReceiver: AnyObject, Sendable {
    /// The next bytes, in order; never none.
    /// - Returns: whether more is welcome. After `false` nothing more comes until `HTTPServer.resumeBody(of:)`, which must not be called before this
    ///   returns; a client that goes on sending fills the server's and the kernel's buffers and then has to wait. Of the last piece it is ignored.
    func receive(_ bytes: RequestBody) -> Bool
}

/// The application's word on a request of which only the head is known.
public enum HTTPAdmission: Sendable {
    /// Read the body, up to `bodyLimit` bytes; nil means the configuration's limit.
    case accept(bodyLimit: Int?)
    /// Read the body, up to `bodyLimit` bytes, and give it to the receiver piece by piece. When all of it was given, `handle` is called with an
    /// empty body; when the client leaves before, or the body is refused, `exchangeClosed`.
    case stream(bodyLimit: Int?, to: any HTTPBodyReceiver)
    /// Answer now and do not read the body.
    case refuse(HTTPResponse, body: [UInt8])
}

/// What serves requests. All calls but the last come on the server's actor and must not block; none may be missing an answer:
/// each handled exchange ends with `respond` or `finish`, or with `exchangeClosed`. What `admit` accepted is either handled or closed.
public protocol HTTPApplication: AnyObject, Sendable {
    /// Only the head has come. Refusing here (for example an upload without a valid key) spares the body, and a client that
    /// asked with `Expect: 100-continue` does not even send it.
    /// - Parameter exchange: the id that the request will have if it is accepted.
    func admit(_ head: HTTPRequest, path: String, exchange: ExchangeID, on server: isolated HTTPServer) -> HTTPAdmission
    /// A request is complete. Answer now or later.
    func handle(_ request: IncomingRequest, on server: isolated HTTPServer)
    /// The client went away before the response was finished, or before the whole body of an accepted request had come; or what came of that
    /// body was refused by the server. Nothing more can be sent.
    func exchangeClosed(_ exchange: ExchangeID, on server: isolated HTTPServer)
    /// The bytes that the client has not taken rose above the watermark (true), or fell below half of it (false). Stop producing in between.
    func exchange(_ exchange: ExchangeID, isCongested: Bool, on server: isolated HTTPServer)
    /// A drain has lasted as long as it may: every exchange that is still open is to be ended now, in whatever way tells its client most.
    func drainIsOver(on server: isolated HTTPServer)
    /// The response for a request that the server refuses. May be called on any thread.
    func response(to rejection: HTTPRejection) -> (HTTPResponse, [UInt8])
}

extension HTTPApplication {
    public func admit(_ head: HTTPRequest, path: String, exchange: ExchangeID, on server: isolated HTTPServer) -> HTTPAdmission {
        .accept(bodyLimit: nil)
    }

    public func drainIsOver(on server: isolated HTTPServer) {}
}
