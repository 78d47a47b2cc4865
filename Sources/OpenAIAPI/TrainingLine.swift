import JSON

/// One line of a training file, made of an exchange that was kept.
package enum TrainingLine: Equatable {
    /// Why an exchange makes no line.
    package enum Omission: String, CaseIterable, Sendable {
        /// A preference needs a better answer, and nobody has given one.
        case noDemonstration = "no_demonstration"
        /// The better answer is the one that was given.
        case unchanged
        /// The model said nothing.
        case emptyAnswer = "empty_answer"
        /// The answer was cut off, and would teach to stop in the middle.
        case truncatedAnswer = "truncated_answer"
        /// Nothing in it can be trained, as an upload of it would be told: an answer that is only a refusal, a template that does not write it.
        case untrainable
    }

    case line([UInt8])
    case omission(Omission)

    /// What the lines teach.
    package enum Format: String, CaseIterable, Sendable {
        /// To answer like this.
        case chat
        /// To answer rather like this than like that.
        case preference
    }

    /// The first answer counts. Lines are in OpenAI's format and end with a line feed.
    /// - Parameters:
    ///   - messages: the request's.
    ///   - choices: all answers, as completions have them.
    ///   - demonstration: an assistant's message that is better.
    package static func make(_ format: Format, messages: [JSONValue], tools: [JSONValue]?, choices: [JSONValue], demonstration: JSONObject?) -> TrainingLine {
        let answer = choices.first?["message"]?.object.map { trimmed($0) } ?? JSONObject()
        let isEmpty = answer["content"]?.string?.isEmpty != false && answer["tool_calls"] == nil
        let isTruncated = choices.first?["finish_reason"] == "length"
        let better = demonstration.map { trimmed($0) }
        var line = JSONObject()
        switch format {
        case .chat:
            if better == nil {
                if isEmpty { return .omission(.emptyAnswer) }
                if isTruncated { return .omission(.truncatedAnswer) }
            }
            // Earlier answers are the question here: each has, or had, an exchange of its own.
            let context = messages.map { message -> JSONValue in
                guard var object = message.object.map({ trimmed($0) }) else { return message }
                if object["role"] == "assistant" { object["weight"] = 0 }
                return .object(object)
            }
            line["messages"] = .array(context + [.object(better ?? answer)])
            if let tools { line["tools"] = .array(tools) }
        case .preference:
            guard let better else { return .omission(.noDemonstration) }
            if isEmpty { return .omission(.emptyAnswer) }
            if better == answer { return .omission(.unchanged) }
            var input: JSONObject = ["messages": .array(messages.map { message in message.object.map { .object(trimmed($0)) } ?? message })]
            if let tools { input["tools"] = .array(tools) }
            line["input"] = .object(input)
            line["preferred_output"] = [.object(better)]
            line["non_preferred_output"] = [.object(answer)]
        }
        var bytes = JSONValue.object(line).serialized()
        bytes.append(UInt8(ascii: "\n"))
        return .line(bytes)
    }

    /// A message with nothing but what training data may hold.
    private static func trimmed(_ message: JSONObject) -> JSONObject {
        var object = JSONObject()
        for key in ["role", "name", "content", "tool_calls", "tool_call_id"] {
            guard let value = message[key], !value.isNull else { continue }
            object[key] = value
        }
        return object
    }
}
