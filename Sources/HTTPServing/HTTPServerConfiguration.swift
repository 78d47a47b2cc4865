import HTTP1

/// The limits of a server. Times are exact to about a millisecond, and count from what the client last did.
public struct HTTPServerConfiguration: Sendable {
    /// The caps of one request.
    public var limits = HTTPMessageLimits()
    /// A head must be complete this long after its first byte (for the first request: after the connection).
    public var headerTimeout: Duration = .seconds(10)
    /// A body must bring `bodyProgress` bytes, or its end, in each such period.
    public var bodyTimeout: Duration = .seconds(30)
    /// What counts as progress of a body: a client that trickles single bytes is idle.
    public var bodyProgress = 4096
    /// A connection without a request is closed after this.
    public var idleTimeout: Duration = .seconds(75)
    /// While bytes of a response wait for the client, it must take `writeProgress` of them, or all, in each such period.
    public var writeTimeout: Duration = .seconds(30)
    /// What counts as progress of a response, in bytes: a client that trickles keeps what its answer occupies from others.
    public var writeProgress = 30_720
    /// After a response that ends the connection, how long to wait for the client to have read it.
    public var lingerTimeout: Duration = .seconds(2)
    /// When a drain takes too long, how long the answers that are ended then may take to leave.
    public var farewellTimeout: Duration = .seconds(1)
    /// Connections above this are answered with a rejection.
    public var maxConnections = 4096
    /// How many unsent bytes make an exchange congested; half of it ends that.
    public var congestionWatermark = 262_144
    /// Pipelined bytes that are held while a response is pending; reading stops above.
    public var pipelineBuffer = 65536
    /// The kernel's send buffer of a connection; nil leaves it to the system, which may grow it to megabytes.
    public var sendBufferSize: Int? = 131_072
    /// Hosts (lower case, without port, IPv6 in brackets) that requests may name; nil allows all. A list protects a server on
    /// loopback from web pages that resolve their own name to it (DNS rebinding).
    public var allowedHosts: Set<String>?
    /// Makes every connection speak TLS; nil is plain HTTP. `headerTimeout` is then for the handshake and the first head together.
    public var tls: TLSAcceptor?
    /// Which web pages may read answers; nil: none.
    public var crossOrigin: CrossOriginPolicy?

    public init() {}
}
