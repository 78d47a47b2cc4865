import CUV

/// What libuv or the operating system refused, and what was being done.
public struct EventLoopError: Error, Sendable, Equatable, CustomStringConvertible {
    public enum Code: Sendable, Equatable {
        /// The address is taken, unknown or not ours.
        case cannotListen
        /// The peer is gone or the connection broke.
        case connectionLost
        /// The process has no descriptors, memory or permission left for this.
        case systemFailure
    }

    public let code: Code
    public let message: String
    /// The negative errno that libuv gave; 0 when there was none.
    public let status: Int32

    public init(_ code: Code, _ message: String, status: Int32 = 0) {
        self.code = code
        self.message = message
        self.status = status
    }

    init(_ code: Code, doing what: String, status: Int32) {
        self.init(code, "\(what): \(String(cString: uv_strerror(status)))", status: status)
    }

    public var description: String { message }
}
