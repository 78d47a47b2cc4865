import JSON

extension DatasetFormat {
    /// The format of a row by the members that it has; null members count as absent.
    init?(recognising row: JSONObject) {
        func has(_ keys: String...) -> Bool { keys.allSatisfy { row.value($0) != nil } }
        let isPaired = has("chosen", "rejected") || has("chosen_messages") || has("rejected_messages") || has("preferred_output") || has("non_preferred_output")
        if isPaired {
            self = .preference
        } else if has("messages") {
            self = .chat
        } else if has("conversations") {
            self = .shareGPT
        } else if has("prompt", "completion") {
            self = row["prompt"]?.array != nil && row["completion"]?.array != nil ? .chat : .completion
        } else if has("instruction", "output") {
            self = .alpaca
        } else {
            return nil
        }
    }

    /// The members by which a row of the format is known.
    var members: String {
        switch self {
        case .chat: "'messages'"
        case .completion: "'prompt' and 'completion'"
        case .preference: "'chosen' and 'rejected' with 'prompt', 'instruction' or 'conversations', or 'input', 'preferred_output' and 'non_preferred_output'"
        case .alpaca: "'instruction' and 'output'"
        case .shareGPT: "'conversations'"
        }
    }

    /// Reads a row that was recognised as of this format.
    func read(_ row: JSONObject) throws(RowProblem) -> TrainingRow {
        if self != .preference {
            for key in ["label", "kto_tag"] where row[key]?.bool != nil {
                throw RowProblem(
                    "'\(key)' rates the answer by itself, which cannot be trained; give pairs of answers, or the good rows without it"
                )
            }
        }
        switch self {
        case .chat: return try Self.chat(row)
        case .completion: return try Self.completion(row)
        case .preference: return try PreferenceRow.read(row)
        case .alpaca: return try Self.alpaca(row)
        case .shareGPT: return try Self.shareGPT(row)
        }
    }

    // MARK: Each format

    private static func chat(_ row: JSONObject) throws(RowProblem) -> TrainingRow {
        if let messages = row.value("messages") {
            return try conversation(try TrainingMessage.list(messages, path: "messages"), tools: try TrainingMessage.tools(row))
        }
        // TRL's conversational prompt and completion: only the completion is trained.
        let prompt = try TrainingMessage.list(try row.required("prompt", "an array of messages"), path: "prompt")
        let completion = try TrainingMessage.list(try row.required("completion", "an array of messages"), path: "completion")
        return try conversation(prompt + completion, tools: try TrainingMessage.tools(row), trainedFrom: prompt.count)
    }

    private static func completion(_ row: JSONObject) throws(RowProblem) -> TrainingRow {
        for key in ["prompt", "completion"] where row.value(key)?.array != nil {
            throw RowProblem("'\(key)' is an array of messages and the other of prompt and completion is not, expected two strings or two arrays")
        }
        let prompt = try row.requiredText("prompt")
        let completion = try row.requiredText("completion")
        guard !completion.allSatisfy(\.isWhitespace) else { throw RowProblem("'completion' is empty, expected the text to train") }
        return .text(prompt: prompt, completion: completion)
    }

    private static func alpaca(_ row: JSONObject) throws(RowProblem) -> TrainingRow {
        let answer = TrainingMessage(role: .assistant, content: try row.requiredText("output"))
        guard !answer.isEmpty else { throw RowProblem("'output' is empty, expected the answer to train") }
        return try conversation(try alpacaPrompt(row) + [answer], tools: nil)
    }

    /// System, history and the question: the instruction, and the input on lines of its own.
    static func alpacaPrompt(_ row: JSONObject) throws(RowProblem) -> [TrainingMessage] {
        var messages: [TrainingMessage] = []
        if let system = try row.text("system"), !system.isEmpty { messages.append(TrainingMessage(role: .system, content: system)) }
        if let value = row.value("history") {
            let expected = "expected an array of [question, answer] pairs"
            guard let turns = value.array else { throw RowProblem("'history' is \(value.kindName), \(expected)") }
            guard turns.count <= TrainingMessage.maximumCount / 2 else {
                throw RowProblem("'history' has \(turns.count) turns, expected at most \(TrainingMessage.maximumCount / 2)")
            }
            for (index, turn) in turns.enumerated() {
                guard let pair = turn.array, pair.count == 2, let question = pair[0].string, let answer = pair[1].string else {
                    throw RowProblem("'history[\(index)]' is not a pair of strings, \(expected)")
                }
                messages.append(TrainingMessage(role: .user, content: question))
                messages.append(TrainingMessage(role: .assistant, content: answer))
            }
        }
        let question = [try row.requiredText("instruction"), try row.text("input") ?? ""].filter { !$0.isEmpty }.joined(separator: "\n")
        guard !question.isEmpty else { throw RowProblem("'instruction' and 'input' are both empty, expected the question") }
        messages.append(TrainingMessage(role: .user, content: question))
        return messages
    }

    private static func shareGPT(_ row: JSONObject) throws(RowProblem) -> TrainingRow {
        try conversation(try shareGPTMessages(row), tools: try TrainingMessage.tools(row))
    }

    static func shareGPTMessages(_ row: JSONObject) throws(RowProblem) -> [TrainingMessage] {
        let turns = try TrainingMessage.list(try row.required("conversations", "an array of turns"), path: "conversations", style: .shareGPT)
        guard let system = try row.text("system"), !system.isEmpty else { return turns }
        guard turns[0].role != .system else { throw RowProblem("'system' and 'conversations[0]' are both system messages, expected one of them") }
        return [TrainingMessage(role: .system, content: system)] + turns
    }

    /// A conversation whose assistant messages are trained, but for those of weight 0 and those before `first`.
    private static func conversation(_ messages: [TrainingMessage], tools: [JSONValue]?, trainedFrom first: Int = 0) throws(RowProblem) -> TrainingRow {
        let assistant = messages.indices.filter { messages[$0].role == .assistant && $0 >= first }
        guard !assistant.isEmpty else { throw RowProblem("there is no assistant message, expected at least one to train") }
        let answers = assistant.filter { messages[$0].isWanted != false }
        guard !answers.isEmpty else { throw RowProblem("every assistant message has weight 0, expected at least one to train") }
        for index in answers where messages[index].isEmpty {
            throw RowProblem("the answer in message \(index) (counted from 0) is empty, expected text or tool calls; give it weight 0 to keep it untrained")
        }
        return .conversation(messages: messages, tools: tools, answers: answers)
    }
}
