/// Why a multipart body was refused. Messages hold nothing of the body but numbers.
public struct MultipartError: Error, Sendable, Equatable, CustomStringConvertible {
    public enum Code: Sendable, Equatable {
        /// The content type has no boundary, or one that RFC 2046 does not allow.
        case invalidBoundary
        /// Not multipart/form-data, or ambiguous.
        case malformed
        /// The body ends before its end boundary.
        case incomplete
        case tooManyParts
        /// The header of a part is longer than allowed.
        case headersTooLarge
    }

    public let code: Code
    public let message: String

    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }

    public var description: String { message }
}
