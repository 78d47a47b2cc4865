import JSON

/// The shapes in which pairs of answers come.
enum PreferenceRow {
    static func read(_ row: JSONObject) throws(RowProblem) -> TrainingRow {
        if row.value("preferred_output") != nil || row.value("non_preferred_output") != nil { return try openAI(row) }
        if row.value("chosen_messages") != nil || row.value("rejected_messages") != nil {
            let chosen = try TrainingMessage.list(try row.required("chosen_messages", "an array of messages"), path: "chosen_messages")
            let rejected = try TrainingMessage.list(try row.required("rejected_messages", "an array of messages"), path: "rejected_messages")
            return try pair(chosen, rejected, tools: try TrainingMessage.tools(row))
        }
        let chosen = try row.required("chosen", "the better answer")
        let rejected = try row.required("rejected", "the worse answer")
        let tools = try TrainingMessage.tools(row)
        if row.value("conversations") != nil {
            return try pair(chosen, rejected, prompt: try DatasetFormat.shareGPTMessages(row), tools: tools, style: .shareGPT)
        }
        if row.value("instruction") != nil {
            return try pair(chosen, rejected, prompt: try DatasetFormat.alpacaPrompt(row), tools: tools)
        }
        guard let prompt = row.value("prompt") else {
            if let messages = row.value("messages") {
                return try pair(chosen, rejected, prompt: try TrainingMessage.list(messages, path: "messages"), tools: tools)
            }
            guard chosen.array != nil, rejected.array != nil else {
                throw RowProblem("'prompt' is missing, expected the text or the messages before the answers")
            }
            return try pair(try TrainingMessage.list(chosen, path: "chosen"), try TrainingMessage.list(rejected, path: "rejected"), tools: tools)
        }
        if prompt.array != nil {
            return try pair(chosen, rejected, prompt: try TrainingMessage.list(prompt, path: "prompt"), tools: tools)
        }
        guard let text = prompt.string else { throw RowProblem("'prompt' is \(prompt.kindName), expected a string or an array of messages") }
        if let better = chosen.string, let worse = rejected.string { return try plainPair(text, better, worse) }
        guard chosen.string == nil, rejected.string == nil else {
            throw RowProblem("one of 'chosen' and 'rejected' is a string and the other is not, expected the same kind")
        }
        return try repeatedPair(text, try messages(chosen, "chosen"), try messages(rejected, "rejected"), tools: tools)
    }

    private static func openAI(_ row: JSONObject) throws(RowProblem) -> TrainingRow {
        let input = try row.required("input", "an object with messages")
        guard let object = input.object else { throw RowProblem("'input' is \(input.kindName), expected an object with messages") }
        let prompt = try TrainingMessage.list(try object.required("messages", "an array of messages", path: "input."), path: "input.messages")
        let chosen = try TrainingMessage.list(try row.required("preferred_output", "an array with the better answer"), path: "preferred_output")
        let rejected = try TrainingMessage.list(try row.required("non_preferred_output", "an array with the worse answer"), path: "non_preferred_output")
        return try pair(
            prompt, try answer(chosen, "preferred_output"), try answer(rejected, "non_preferred_output"),
            tools: try TrainingMessage.tools(object, path: "input."))
    }

    // MARK: Conversations

    /// Answers as a string, a message or a list of messages, which may repeat the prompt.
    private static func pair(
        _ chosen: JSONValue, _ rejected: JSONValue, prompt: [TrainingMessage], tools: [JSONValue]?, style: TrainingMessage.Style = .openAI
    ) throws(RowProblem) -> TrainingRow {
        func last(_ value: JSONValue, _ path: String) throws(RowProblem) -> TrainingMessage {
            var list = try messages(value, path, style: style)
            if list.count > prompt.count, zip(prompt, list).allSatisfy({ $0.isSame(as: $1) }) { list.removeFirst(prompt.count) }
            return try answer(list, path)
        }
        return try pair(prompt, try last(chosen, "chosen"), try last(rejected, "rejected"), tools: tools)
    }

    /// Two conversations: what they begin with is the prompt.
    private static func pair(_ chosen: [TrainingMessage], _ rejected: [TrainingMessage], tools: [JSONValue]?) throws(RowProblem) -> TrainingRow {
        let count = sharedCount(chosen, rejected)
        guard count > 0 else { throw RowProblem("the two conversations begin differently, expected the same messages before the answers") }
        return try pair(
            Array(chosen[..<count]), try answer(Array(chosen[count...]), "chosen"), try answer(Array(rejected[count...]), "rejected"), tools: tools)
    }

    /// A prompt in plain words, and conversations that repeat it or only answer it.
    private static func repeatedPair(
        _ prompt: String, _ chosen: [TrainingMessage], _ rejected: [TrainingMessage], tools: [JSONValue]?
    ) throws(RowProblem) -> TrainingRow {
        let count = sharedCount(chosen, rejected)
        let shared = Array(chosen[..<count])
        if count == 0 {
            let question = TrainingMessage(role: .user, content: prompt)
            return try pair([question], try answer(chosen, "chosen"), try answer(rejected, "rejected"), tools: tools)
        }
        guard shared.contains(where: { $0.role == .user && $0.content == prompt }) else {
            throw RowProblem("'chosen' and 'rejected' begin with other messages than 'prompt', expected the prompt or nothing before the answers")
        }
        return try pair(chosen, rejected, tools: tools)
    }

    private static func pair(
        _ prompt: [TrainingMessage], _ chosen: TrainingMessage, _ rejected: TrainingMessage, tools: [JSONValue]?
    ) throws(RowProblem) -> TrainingRow {
        guard !chosen.isSame(as: rejected) else { throw RowProblem("the two answers are the same, expected a better and a worse one") }
        return .conversationPair(prompt: prompt, tools: tools, chosen: chosen, rejected: rejected)
    }

    private static func sharedCount(_ chosen: [TrainingMessage], _ rejected: [TrainingMessage]) -> Int {
        var count = 0
        while count < min(chosen.count, rejected.count) - 1, chosen[count].isSame(as: rejected[count]) { count += 1 }
        return count
    }

    private static func messages(_ value: JSONValue, _ path: String, style: TrainingMessage.Style = .openAI) throws(RowProblem) -> [TrainingMessage] {
        if let text = value.string { return [TrainingMessage(role: .assistant, content: text)] }
        if value.object != nil { return [try TrainingMessage(value, path: path, style: style)] }
        return try TrainingMessage.list(value, path: path, style: style)
    }

    private static func answer(_ messages: [TrainingMessage], _ path: String) throws(RowProblem) -> TrainingMessage {
        guard messages.count == 1, messages[0].role == .assistant else {
            throw RowProblem("'\(path)' does not end in exactly one message of its own by the assistant, expected one answer to the prompt")
        }
        guard !messages[0].isEmpty else { throw RowProblem("'\(path)' is empty, expected an answer") }
        guard messages[0].isWanted != false else { throw RowProblem("'\(path)' has weight 0, expected 1 or none: a pair is trained as a whole") }
        return messages[0]
    }

    // MARK: Plain text

    private static func plainPair(_ prompt: String, _ chosen: String, _ rejected: String) throws(RowProblem) -> TrainingRow {
        var chosen = chosen
        var rejected = rejected
        if !prompt.isEmpty, chosen.utf8.starts(with: prompt.utf8), rejected.utf8.starts(with: prompt.utf8) {
            chosen = String(decoding: chosen.utf8.dropFirst(prompt.utf8.count), as: UTF8.self)
            rejected = String(decoding: rejected.utf8.dropFirst(prompt.utf8.count), as: UTF8.self)
        }
        for (text, key) in [(chosen, "chosen"), (rejected, "rejected")] where text.allSatisfy(\.isWhitespace) {
            throw RowProblem("'\(key)' is empty, expected an answer")
        }
        guard !chosen.utf8.elementsEqual(rejected.utf8) else { throw RowProblem("the two answers are the same, expected a better and a worse one") }
        return .textPair(prompt: prompt, chosen: chosen, rejected: rejected)
    }
}
