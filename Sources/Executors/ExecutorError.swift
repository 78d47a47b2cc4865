/// Why an executor refused work.
public struct ExecutorError: Error, Sendable, Equatable, CustomStringConvertible {
    public enum Code: Sendable, Equatable {
        /// The bounded queue holds as much as it may.
        case queueFull
        /// `shutdown()` was called before.
        case shutDown
    }

    public let code: Code
    public let message: String

    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }

    public var description: String { message }
}
