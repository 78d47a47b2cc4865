import JSON
import Tokenization

/// One row of a data set, whatever its format was.
enum TrainingRow: Equatable {
    /// A conversation, and the places of the assistant's messages that are trained.
    case conversation(messages: [TrainingMessage], tools: [JSONValue]?, answers: [Int])
    case text(prompt: String, completion: String)
    case conversationPair(prompt: [TrainingMessage], tools: [JSONValue]?, chosen: TrainingMessage, rejected: TrainingMessage)
    case textPair(prompt: String, chosen: String, rejected: String)
}

/// Why a row cannot be used. Names members and places, never what they say.
struct RowProblem: Error, Equatable {
    let message: String

    init(_ message: String) { self.message = message }
}

/// A message of a row.
struct TrainingMessage: Equatable {
    enum Role: String, CaseIterable {
        case system, developer, user, assistant, tool
    }

    var role: Role
    var content: String
    /// `name`, `tool_calls`, `tool_call_id` and the reasoning.
    var extras = JSONObject()
    /// Whether the row wants it trained; `nil` if it does not say.
    var isWanted: Bool?

    /// As templates are written for it.
    var templateValue: JSONValue { ConversationEncoder.message(role: role.rawValue, content: content, extras: extras) }

    /// Neither words nor calls.
    var isEmpty: Bool { extras["tool_calls"] == nil && content.allSatisfy(\.isWhitespace) }

    /// Whether both say the same, trained or not.
    func isSame(as other: TrainingMessage) -> Bool { templateValue == other.templateValue }
}

extension JSONObject {
    /// A member's value; `nil` for null as for an absent one.
    func value(_ key: String) -> JSONValue? {
        guard let value = self[key], !value.isNull else { return nil }
        return value
    }

    func required(_ key: String, _ expected: String, path: String = "") throws(RowProblem) -> JSONValue {
        guard let value = value(key) else { throw RowProblem("'\(path)\(key)' is missing, expected \(expected)") }
        return value
    }

    func text(_ key: String, path: String = "") throws(RowProblem) -> String? {
        guard let value = value(key) else { return nil }
        guard let text = value.string else { throw RowProblem("'\(path)\(key)' is \(value.kindName), expected a string") }
        return text
    }

    func requiredText(_ key: String, path: String = "") throws(RowProblem) -> String {
        guard let text = try text(key, path: path) else { throw RowProblem("'\(path)\(key)' is missing, expected a string") }
        return text
    }
}
