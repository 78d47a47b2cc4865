import JSON
import Tokenization

extension TrainingMessage {
    /// How a format calls the parts of a message.
    enum Style {
        /// `role` and `content`.
        case openAI
        /// `from` and `value`, with speakers of its own; `role` and `content` do as well.
        case shareGPT
    }

    /// Far more than fits a context; bounds the work of a row whose messages are all empty.
    static let maximumCount = 4096

    static func list(_ value: JSONValue, path: String, style: Style = .openAI) throws(RowProblem) -> [TrainingMessage] {
        guard let elements = value.array else { throw RowProblem("'\(path)' is \(value.kindName), expected an array of messages") }
        guard !elements.isEmpty else { throw RowProblem("'\(path)' is empty, expected at least one message") }
        guard elements.count <= maximumCount else { throw RowProblem("'\(path)' has \(elements.count) messages, expected at most \(maximumCount)") }
        var messages: [TrainingMessage] = []
        messages.reserveCapacity(elements.count)
        for (index, element) in elements.enumerated() {
            messages.append(try TrainingMessage(element, path: "\(path)[\(index)]", style: style))
        }
        return messages
    }

    init(_ value: JSONValue, path: String, style: Style = .openAI) throws(RowProblem) {
        guard let object = value.object else { throw RowProblem("'\(path)' is \(value.kindName), expected an object with role and content") }
        if style == .shareGPT, object.value("from") != nil {
            try self.init(turn: object, path: path)
        } else {
            try self.init(message: object, path: path)
        }
        isWanted = try Self.weight(object, path: path)
        if isWanted == true, role != .assistant {
            throw RowProblem("'\(path)' has a weight of 1, expected 0 or none: only the assistant's messages are trained")
        }
    }

    // MARK: OpenAI

    private init(message object: JSONObject, path: String) throws(RowProblem) {
        let expected = "one of " + Role.allCases.map(\.rawValue).joined(separator: ", ")
        guard let word = try object.required("role", expected, path: path + ".").string else {
            throw RowProblem("'\(path).role' is no string, expected \(expected)")
        }
        // The name that tool had at first.
        guard let role = word == "function" ? .tool : Role(rawValue: word) else {
            throw RowProblem("'\(path).role' is none of the known roles, expected \(expected)")
        }
        self.role = role
        if let name = try object.text("name", path: path + ".") { extras["name"] = .string(name) }
        if let id = try object.text("tool_call_id", path: path + ".") { extras["tool_call_id"] = .string(id) }
        var calls: [JSONValue] = []
        if let value = object.value("tool_calls") { calls = try Self.calls(value, path: path + ".tool_calls") }
        if let function = object.value("function_call") {
            calls += try Self.calls([["type": "function", "function": function]], path: path + ".function_call")
        }
        if !calls.isEmpty {
            guard role == .assistant else { throw RowProblem("'\(path)' has tool calls and is not the assistant's") }
            extras["tool_calls"] = .array(calls)
        }
        if role == .assistant, let reasoning = try object.text("reasoning_content", path: path + ".") { extras["reasoning_content"] = .string(reasoning) }
        if let value = object.value("content") {
            content = try Self.text(value, path: path + ".content")
        } else if role == .assistant, !calls.isEmpty || object.value("refusal") != nil {
            content = try object.text("refusal", path: path + ".") ?? ""
        } else {
            throw RowProblem("'\(path).content' is missing, expected a string")
        }
    }

    private static func text(_ value: JSONValue, path: String) throws(RowProblem) -> String {
        if let text = value.string { return text }
        guard let parts = value.array else { throw RowProblem("'\(path)' is \(value.kindName), expected a string or an array of text parts") }
        var text = ""
        for (index, part) in parts.enumerated() {
            guard let object = part.object, object["type"]?.string == "text", let words = (object["text"] ?? object["value"])?.string else {
                throw RowProblem("'\(path)[\(index)]' is not a text part, expected an object with type \"text\" and text: only text can be trained")
            }
            text += words
        }
        return text
    }

    private static func calls(_ value: JSONValue, path: String) throws(RowProblem) -> [JSONValue] {
        guard let elements = value.array else { throw RowProblem("'\(path)' is \(value.kindName), expected an array of tool calls") }
        var calls: [JSONValue] = []
        for (index, element) in elements.enumerated() {
            guard let call = ConversationEncoder.toolCall(element) else {
                throw RowProblem("'\(path)[\(index)]' has no function.name, expected an object with id, type \"function\" and function {name, arguments}")
            }
            guard let arguments = call["function"]?["arguments"], arguments.object != nil || arguments.string != nil else {
                throw RowProblem("'\(path)[\(index)].function.arguments' is missing or of the wrong kind, expected a JSON object in a string")
            }
            calls.append(call)
        }
        return calls
    }

    /// OpenAI's `weight` and LLaMA-Factory's `loss_weight`.
    private static func weight(_ object: JSONObject, path: String) throws(RowProblem) -> Bool? {
        for key in ["weight", "loss_weight"] {
            guard let value = object.value(key) else { continue }
            switch value.number {
            case 0: return false
            case 1: return true
            default: throw RowProblem("'\(path).\(key)' is neither 0 nor 1, expected 0 (read only) or 1 (trained)")
            }
        }
        return nil
    }

    // MARK: ShareGPT

    private init(turn object: JSONObject, path: String) throws(RowProblem) {
        let expected = "one of human, user, gpt, assistant, system, observation, tool, function_call"
        guard let speaker = object["from"]?.string else { throw RowProblem("'\(path).from' is no string, expected \(expected)") }
        content = try object.requiredText("value", path: path + ".")
        switch speaker {
        case "human", "user": role = .user
        case "gpt", "assistant": role = .assistant
        case "system": role = .system
        case "observation", "tool": role = .tool
        case "function_call":
            role = .assistant
            extras["tool_calls"] = .array(try Self.calls(spelledIn: content, path: path + ".value"))
            content = ""
        default: throw RowProblem("'\(path).from' is none of the known speakers, expected \(expected)")
        }
    }

    /// One call, or an array of them, as JSON in a string.
    private static func calls(spelledIn text: String, path: String) throws(RowProblem) -> [JSONValue] {
        guard let value = try? JSONValue(parsing: Array(text.utf8)) else {
            throw RowProblem("'\(path)' is no JSON, expected a call: an object with name and arguments")
        }
        let functions = value.array ?? [value]
        guard !functions.isEmpty else { throw RowProblem("'\(path)' holds no call, expected an object with name and arguments") }
        return try calls(.array(functions.map { ["type": "function", "function": $0] }), path: path)
    }

    // MARK: Tools

    /// The tools that a row offers: an array, or that array in a string; each in OpenAI's shape or the bare function.
    static func tools(_ object: JSONObject, path: String = "") throws(RowProblem) -> [JSONValue]? {
        guard var value = object.value("tools") ?? object.value("functions") else { return nil }
        let path = path + (object.value("tools") == nil ? "functions" : "tools")
        if let text = value.string {
            if text.allSatisfy(\.isWhitespace) { return nil }
            guard let parsed = try? JSONValue(parsing: Array(text.utf8)) else {
                throw RowProblem("'\(path)' is a string that is no JSON, expected an array of tools")
            }
            value = parsed
        }
        guard let elements = value.array else { throw RowProblem("'\(path)' is \(value.kindName), expected an array of tools") }
        var tools: [JSONValue] = []
        for (index, element) in elements.enumerated() {
            if element["function"]?["name"]?.string != nil {
                tools.append(element)
            } else if element["function"] == nil, element["name"]?.string != nil {
                tools.append(["type": "function", "function": element])
            } else {
                throw RowProblem(
                    "'\(path)[\(index)]' has no function.name, expected an object with type \"function\" and function {name, description, parameters}")
            }
        }
        return tools.isEmpty ? nil : tools
    }
}
