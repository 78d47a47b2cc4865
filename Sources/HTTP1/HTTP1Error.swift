/// Why a request was refused before anybody could answer it. After any of these the connection's framing is lost or not worth
/// keeping: answer once and close.
public struct HTTP1Error: Error, Sendable, Equatable, CustomStringConvertible {
    public enum Code: Sendable, Equatable {
        /// Not HTTP/1, or ambiguous: what one recipient would read another way than the next.
        case malformed
        /// The request target is longer than allowed.
        case targetTooLong
        /// Too many header (or trailer) bytes or fields.
        case headersTooLarge
        /// The body is, or is announced to be, longer than allowed.
        case bodyTooLarge
        /// HTTP, but neither 1.0 nor 1.1.
        case unsupportedVersion
        /// A transfer coding other than `chunked`.
        case unsupportedTransferCoding
        /// An `Expect` other than `100-continue`.
        case expectationFailed
    }

    public let code: Code
    public let message: String

    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }

    public var description: String { message }
}
