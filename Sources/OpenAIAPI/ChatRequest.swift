import JSON
import Tokenization

/// A decoded `POST /v1/chat/completions`.
struct ChatRequest: Sendable {
    var options: GenerationOptions
    var target: ModelTarget
    var messages: [ChatMessage]
    /// `nil`: none. Otherwise how many of the most likely tokens to list beside the chosen one.
    var topLogprobs: Int?
    /// What is to be kept of the request; `nil`: nothing.
    var draft: ExchangeDraft?
    /// Names of unknown fields.
    var ignored: [String]

    init(
        _ object: JSONObject, limits: RequestLimits, keeping: ExchangeKeeping = .never, resolve: (GenerationOptions) throws(APIError) -> ModelTarget
    ) throws(APIError) {
        var fields = RequestFields(object)
        for parameter in UnsupportedParameter.chat { try fields.refuse(parameter) }
        options = try GenerationOptions(&fields, limits: limits, minimumTokens: 1)
        if let limit = try fields.integer("max_completion_tokens", in: 1...Int(Int32.max)) {
            if let other = options.maxTokens, other != limit {
                throw .invalidValue(
                    "max_completion_tokens", "'max_completion_tokens' is \(limit) and 'max_tokens' is \(other); they mean the same, send one")
            }
            options.maxTokens = limit
        }
        let wantsLogprobs = try fields.bool("logprobs") ?? false
        let count = try fields.integer("top_logprobs", in: 0...limits.topLogprobs)
        if let count, count > 0, !wantsLogprobs {
            throw .invalidValue("top_logprobs", "'top_logprobs' is \(count) but 'logprobs' is not true; set 'logprobs' as well")
        }
        topLogprobs = wantsLogprobs ? count ?? 0 : nil
        let unknownOptions = try options.readStreamOptions(&fields)
        var unknownMembers: [String] = []
        messages = try ChatMessage.list(&fields, unknown: &unknownMembers)
        target = try resolve(options)
        try options.readLogitBias(&fields, limits: limits, vocabularySize: target.base.tokenizer.vocabularySize)
        draft = try ExchangeDraft(object, &fields, options: options, keeping: keeping)
        ignored = fields.unread + unknownOptions + options.unknownMembers + unknownMembers
    }
}

/// One message of a conversation, as templates see it.
package struct ChatMessage: Sendable {
    package enum Role: String, CaseIterable, Sendable {
        case system, developer, user, assistant, tool
    }

    let role: Role
    /// The text parts joined; null is empty.
    let content: String
    /// `name`, `tool_calls`, `tool_call_id`: what some templates show of a conversation that other servers' tools took part in.
    let extras: JSONObject

    init(role: Role, content: String, extras: JSONObject) {
        self.role = role
        self.content = content
        self.extras = extras
    }

    package init(role: Role, content: String) {
        self.init(role: role, content: content, extras: JSONObject())
    }

    /// What the template gets.
    var templateValue: JSONValue { ConversationEncoder.message(role: role.rawValue, content: content, extras: extras) }

    static func list(_ fields: inout RequestFields, unknown: inout [String]) throws(APIError) -> [ChatMessage] {
        guard let value = fields.value("messages") else { throw .missing("messages", expected: "an array of messages") }
        guard let elements = value.array else { throw .invalidType("messages", found: value, expected: "an array of messages") }
        guard !elements.isEmpty else { throw .invalidValue("messages", "'messages' is empty, expected at least one message") }
        var messages: [ChatMessage] = []
        messages.reserveCapacity(elements.count)
        for (index, element) in elements.enumerated() {
            let path = "messages[\(index)]"
            guard let object = element.object else { throw .invalidType(path, found: element, expected: "an object with role and content") }
            messages.append(try ChatMessage(object, path: path, unknown: &unknown))
        }
        return messages
    }

    private init(_ object: JSONObject, path: String, unknown: inout [String]) throws(APIError) {
        var fields = RequestFields(object, prefix: path + ".")
        let expected = "one of " + Role.allCases.map { "\"\($0.rawValue)\"" }.joined(separator: ", ")
        guard let word = fields.value("role") else { throw .missing("\(path).role", expected: expected) }
        guard let text = word.string else { throw .invalidType("\(path).role", found: word, expected: expected) }
        guard let role = Role(rawValue: text) else {
            throw .invalidValue("\(path).role", "'\(path).role' is \"\(quoted(text))\", expected \(expected)")
        }
        self.role = role

        var extras = JSONObject()
        if let name = try fields.string("name", maximumBytes: 256) { extras["name"] = .string(name) }
        if let id = try fields.string("tool_call_id", maximumBytes: 256) { extras["tool_call_id"] = .string(id) }
        let calls = fields.value("tool_calls")
        if let calls {
            guard role == .assistant else {
                throw .invalidValue("\(path).tool_calls", "'\(path).tool_calls' stands in a message of \(role.rawValue), expected only in the assistant's")
            }
            extras["tool_calls"] = try Self.toolCalls(calls, path: "\(path).tool_calls")
        }
        try fields.refuse(UnsupportedParameter("audio", "only text is served"))
        try fields.refuse(UnsupportedParameter("function_call", "use tool_calls"))
        let refusal = try fields.string("refusal", maximumBytes: .max)
        self.extras = extras

        if let value = fields.value("content") {
            content = try Self.text(value, path: "\(path).content", role: role)
        } else if role == .assistant {
            content = refusal ?? ""
        } else if object["content"] != nil {
            content = ""
        } else {
            throw .missing("\(path).content", expected: "a string or an array of text parts")
        }
        // One entry for all messages: the header is for people, not a protocol of every element.
        for name in fields.unread {
            let general = "messages." + name.dropFirst(path.count + 1)
            if !unknown.contains(general), unknown.count < 32 { unknown.append(general) }
        }
    }

    private static func text(_ value: JSONValue, path: String, role: Role) throws(APIError) -> String {
        switch value {
        case .string(let text): return text
        case .array(let parts):
            var text = ""
            for (index, part) in parts.enumerated() {
                let partPath = "\(path)[\(index)]"
                guard let object = part.object else { throw .invalidType(partPath, found: part, expected: "an object with type and text") }
                guard let type = object["type"]?.string else {
                    throw .missing("\(partPath).type", expected: "\"text\"")
                }
                let member: String
                switch type {
                case "text": member = "text"
                case "refusal" where role == .assistant: member = "refusal"
                default:
                    throw .unsupportedValue(
                        "\(partPath).type", "'\(partPath).type' is \"\(quoted(type))\", expected \"text\": the served models read no images, sounds or files")
                }
                guard let value = object[member], !value.isNull else { throw .missing("\(partPath).\(member)", expected: "a string") }
                guard let string = value.string else { throw .invalidType("\(partPath).\(member)", found: value, expected: "a string") }
                text += string
            }
            return text
        default: throw .invalidType(path, found: value, expected: "a string or an array of text parts")
        }
    }

    private static func toolCalls(_ value: JSONValue, path: String) throws(APIError) -> JSONValue {
        guard let elements = value.array else { throw .invalidType(path, found: value, expected: "an array of tool calls") }
        var calls: [JSONValue] = []
        for (index, element) in elements.enumerated() {
            guard let call = ConversationEncoder.toolCall(element) else {
                throw .invalidType("\(path)[\(index)]", found: element, expected: "an object with id, type \"function\" and function {name, arguments}")
            }
            calls.append(call)
        }
        return .array(calls)
    }
}
