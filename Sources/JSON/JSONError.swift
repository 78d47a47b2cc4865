/// Why a text is not acceptable JSON, and where.
///
/// The message names what was found and what was expected, but never quotes the text: request bodies hold users' words.
public struct JSONError: Error, Sendable, Equatable, CustomStringConvertible {
    /// The kinds of failure.
    public enum Code: String, Sendable {
        /// The text ends inside a value, or is empty.
        case unexpectedEnd
        /// A byte that cannot stand where it stands.
        case unexpectedByte
        /// Bytes that are not UTF-8, or a byte order mark.
        case invalidEncoding
        /// A bad escape, or a `\u` surrogate without its partner.
        case invalidEscape
        /// A number that breaks the grammar, such as `01` or `1.`.
        case invalidNumber
        /// A number beyond the range of a 64-bit float, such as `1e400`.
        case numberOutOfRange
        /// A key that its object has already, where the caller asked for that to be refused.
        case duplicateKey
        /// Arrays and objects nested deeper than allowed.
        case tooDeep
        /// Something after the end of the value.
        case trailingContent
    }

    public var code: Code
    /// Where in the text, in bytes from its start.
    public var offset: Int
    /// What is wrong, as a clause without offset.
    public var message: String

    public init(code: Code, offset: Int, message: String) {
        self.code = code
        self.offset = offset
        self.message = message
    }

    public var description: String { "invalid JSON at byte \(offset): \(message)" }
}
