/// Why something could not be read from or written to the store. The message names the database or the row; it never holds what a request said.
public struct InstructionStoreError: Error, Sendable, Equatable, CustomStringConvertible {
    public enum Code: Sendable, Equatable {
        /// There is no room; what was to be written is not there, and reading goes on.
        case storageFull
        /// The system failed to read or write, or permissions are missing.
        case storage
        /// The disk failed to confirm a write. Whether the last change will be there after a restart is open, and until then all others are refused.
        case failed
        /// The file is no database, or a broken one.
        case damaged
        /// A later version of Graft has changed the schema.
        case newerSchema
        /// Another program has the database open.
        case busy
        /// The change contradicts what is stored.
        case conflict
        /// The row that was to be read or changed is not there.
        case notFound
        /// A value that the store does not take.
        case invalidArgument
    }

    public let code: Code
    public let message: String

    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }

    public var description: String { message }
}
