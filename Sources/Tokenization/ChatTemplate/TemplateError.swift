/// Why a chat template could not be read or rendered.
///
/// Messages name the template's construct and line, never the text of a request, except where the template itself raised
/// a message that quotes it.
public struct TemplateError: Error, Sendable, Equatable, CustomStringConvertible {
    /// The kinds of failure.
    public enum Code: String, Sendable {
        /// The template's source does not parse.
        case syntax
        /// The template called `raise_exception`: it refuses these messages, mostly for their order of roles.
        case raised
        /// A variable or attribute without value was used where one is needed.
        case undefined
        /// An operation on values that do not support it.
        case invalidOperation
        /// A filter, test or tag that this interpreter does not have, or an attribute that the sandbox keeps closed.
        case unsupported
        /// The render took more than `TemplateBudget.maximumSteps`.
        case stepLimit
        /// A text grew beyond `TemplateBudget.maximumOutputBytes`.
        case outputLimit
        /// Expressions, blocks and macro calls nest deeper than `TemplateBudget.maximumDepth`.
        case depthLimit
    }

    public var code: Code
    /// What went wrong, without line. For `.raised` exactly what the template said.
    public var message: String
    /// The line of the template's source, from 1; nil when no line is to blame.
    public var line: Int?
    /// Whether `message` holds words of the messages that the template refused.
    public var quotesRequest: Bool

    public init(code: Code, message: String, line: Int? = nil, quotesRequest: Bool = false) {
        self.code = code
        self.message = message
        self.line = line
        self.quotesRequest = quotesRequest
    }

    public var description: String {
        guard let line else { return "chat template: \(message)" }
        return "chat template, line \(line): \(message)"
    }
}
