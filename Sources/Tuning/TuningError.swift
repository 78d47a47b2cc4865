/// Why a job was refused or something about it could not be done. The message names the thing, what was found, what was expected and the way out.
public struct TuningError: Error, Sendable, Equatable, CustomStringConvertible {
    public enum Code: Sendable, Equatable {
        /// A parameter out of its range; `parameter` names it.
        case invalidArgument
        /// No such job (another owner's looks the same).
        case notFound
        /// The job is in a state in which that cannot be done.
        case conflict
        /// It would not fit into memory.
        case tooLarge
        /// The disk is full, or failed.
        case storageFull, storage
    }

    public let code: Code
    public let message: String
    /// The request's field.
    public let parameter: String?

    public init(_ code: Code, _ message: String, parameter: String? = nil) {
        self.code = code
        self.message = message
        self.parameter = parameter
    }

    public var description: String { message }
}
