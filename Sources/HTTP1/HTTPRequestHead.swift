import HTTPTypes

/// The caps of one request. What exceeds them is refused while it arrives, so a connection never holds much more than this.
public struct HTTPMessageLimits: Sendable, Equatable {
    /// The request target in bytes.
    public var targetBytes = 8192
    /// The header section in bytes, names, separators and line ends included; the same again for trailers.
    public var headerBytes = 32768
    /// Fields in the header section; the same again for trailers.
    public var fieldCount = 100
    /// The body in bytes, chunk framing not counted.
    public var bodyBytes = 4 << 20

    public init() {}
}

/// Everything before the body of one request, checked.
public struct HTTPRequestHead: Sendable {
    public enum Version: Sendable {
        case http1_0, http1_1
    }

    public enum BodyFraming: Sendable, Equatable {
        case none
        /// By `content-length`, more than 0.
        case length(Int)
        case chunked
    }

    /// Method, authority (from `Host` or an absolute target), path with query, and all fields but `Host`.
    public var request: HTTPRequest
    /// The path as it was sent, without the query. `*` for `OPTIONS *`.
    public var path: String
    /// What follows the first `?`, as it was sent.
    public var query: String?
    /// The host that the client meant, in lower case, without port, an IPv6 address in brackets; nil in an HTTP/1.0 request without `Host`.
    public var host: String?
    public var version: Version
    public var body: BodyFraming
    /// The client waits for `100 Continue` before it sends the body.
    public var expectsContinue: Bool
    /// The connection may be used again.
    public var isKeepAlive: Bool
}
