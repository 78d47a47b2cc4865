import JSON

extension ConversationEncoder {
    /// The tokens of a whole conversation, and those of them that the model should write by itself.
    ///
    /// Every answer is found by rendering what serving would render before it, so that its tokens follow exactly what the model gets to
    /// see; where that is impossible the answer is left out with a reason.
    ///
    /// - Parameters:
    ///   - messages: as `message(role:content:extras:)` makes them. A message's reasoning is written for its own answer only, because a
    ///     request's messages carry none.
    ///   - answers: the places of the messages to train, assistants' all of them, in rising order.
    ///   - limit: an answer that has this many tokens before it is not looked at, nor are those after it.
    /// - Throws: what the template throws at the whole conversation.
    public func conversation(
        _ messages: [JSONValue], tools: [JSONValue]? = nil, answers: [Int], limit: Int = .max
    ) throws(TemplateError) -> EncodedConversation {
        let history = messages.map(Self.withoutReasoning)
        var result = EncodedConversation()
        var current: EncodedConversation.Stretch?
        var last: RenderedText?
        search: for (position, index) in answers.enumerated() {
            switch try span(of: index, messages: messages, history: history, tools: tools, limit: limit) {
            case .impossible(let reason):
                result.untrained.append(.init(message: index, reason: reason))
            case .beyondLimit:
                result.skippedAnswerCount = answers.count - position
                break search
            case .found(let span):
                var stretch = EncodedConversation.Stretch(tokens: span.prompt + span.answer, answers: [])
                if let open = current {
                    if span.prompt.starts(with: open.tokens) { stretch.answers = open.answers } else { result.stretches.append(open) }
                }
                stretch.answers.append(.init(message: index, tokens: span.prompt.count..<stretch.tokens.count))
                current = stretch
                if index == messages.count - 1 { last = span.whole }
            }
        }
        if last == nil { last = try rendered(history.dropLast() + Array(messages.suffix(1)), tools: tools, addsGenerationPrompt: false) }
        let whole = tokens(of: last?.pieces ?? [])
        result.wholeTokenCount = whole.count
        if var open = current {
            // What the template writes behind the last answer.
            if whole.starts(with: open.tokens) { open.tokens = whole }
            result.stretches.append(open)
        }
        return result
    }

    /// The tokens of a plain text and of how it should go on, up to the end of the text. What either spells stays text.
    public func completion(prompt: String, completion: String) -> EncodedConversation.Stretch {
        let start = RenderedText([TextPiece(text: prompt, isTrusted: false)])
        let prompt = tokenizer.encode(start.pieces, addSpecial: true)
        var answer = encode([TextPiece(text: completion, isTrusted: false)], after: start, as: prompt).ids
        if let eos = tokenizer.eos { answer.append(eos) }
        return .init(tokens: prompt + answer, answers: [.init(message: 0, tokens: prompt.count..<prompt.count + answer.count)])
    }

    // MARK: One answer

    private struct Span {
        /// What serving feeds to the model.
        var prompt: [Int32]
        /// What the model should write then.
        var answer: [Int32]
        /// The conversation up to the answer.
        var whole: RenderedText
    }

    private enum Search {
        case found(Span)
        case impossible(String)
        case beyondLimit
    }

    private func span(
        of index: Int, messages: [JSONValue], history: [JSONValue], tools: [JSONValue]?, limit: Int
    ) throws(TemplateError) -> Search {
        guard index > 0 else { return .impossible("it is the first message, and a model is only asked to answer one") }
        let before = Array(history[..<index])
        let start: RenderedText
        do throws(TemplateError) {
            start = try rendered(before, tools: tools, addsGenerationPrompt: true)
        } catch {
            guard error.code == .raised else { throw error }
            return .impossible("the model's chat template does not let the assistant answer there")
        }
        let prompt = tokens(of: start.pieces)
        guard prompt.count < limit else { return .beyondLimit }
        let whole = try rendered(before + [messages[index]], tools: tools, addsGenerationPrompt: false)
        if messages[index]["tool_calls"]?.array?.isEmpty == false {
            let silent = try? rendered(before + [Self.without(["tool_calls"], messages[index])], tools: tools, addsGenerationPrompt: false)
            if whole.bytes == silent?.bytes { return .impossible("the model's chat template does not write tool calls") }
        }
        let rest: [TextPiece]
        if whole.hasPrefix(start) {
            rest = whole.dropping(first: start.bytes.count)
        } else if let text = Self.textBehindLastTurn(start: start, whole: whole) {
            rest = text
        } else if let text = try textBehindReasoning(messages[index], before: before, tools: tools, start: start, whole: whole) {
            rest = text
        } else {
            return .impossible("the model's chat template writes this answer differently from how it asks for one")
        }
        guard let answer = answer(rest, after: start, as: prompt) else { return .impossible("the model's chat template writes nothing of it") }
        guard !answer.dropLast().contains(where: tokenizer.endOfGeneration.contains) else {
            return .impossible("it holds a token at which the model would stop")
        }
        return .found(Span(prompt: prompt, answer: answer, whole: whole))
    }

    /// The tokens of an answer: its text up to the end of the turn that the template writes, or with the end of the text for a template that
    /// writes none.
    private func answer(_ rest: [TextPiece], after start: RenderedText, as prompt: [Int32]) -> [Int32]? {
        let marked = encode(rest, after: start, as: prompt)
        if let end = marked.marks.first(where: { tokenizer.endOfGeneration.contains(marked.ids[$0]) }) {
            return end > 0 ? Array(marked.ids[...end]) : nil
        }
        // What the template puts behind the content is not the model's to write.
        var text = rest
        if text.count > 1, text.last?.isTrusted == true { text.removeLast() }
        let ids = encode(text, after: start, as: prompt).ids
        return ids.isEmpty ? nil : tokenizer.eos.map { ids + [$0] } ?? ids
    }

    /// The tokens of text that follows a prompt. They are those of the whole text, unless tokens form over the border: the model has read the
    /// prompt's own tokens by then, so that what follows begins with a new one.
    private func encode(_ rest: [TextPiece], after start: RenderedText, as prompt: [Int32]) -> Tokenizer.MarkedTokens {
        var whole = tokenizer.encodeMarked(start.pieces + rest)
        if let bos = tokenizer.bos, prompt.first == bos, whole.ids.first != bos {
            whole.ids.insert(bos, at: 0)
            whole.marks = whole.marks.map { $0 + 1 }
        }
        guard whole.ids.starts(with: prompt) else { return tokenizer.encodeMarked(rest, continuesText: true) }
        return .init(ids: Array(whole.ids[prompt.count...]), marks: whole.marks.compactMap { $0 < prompt.count ? nil : $0 - prompt.count })
    }

    /// Of a template that writes what stands before an answer differently once the answer is there (some put the system message into the
    /// last question): the text behind the last message and the same beginning of a turn as in the prompt.
    private static func textBehindLastTurn(start: RenderedText, whole: RenderedText) -> [TextPiece]? {
        guard start.pieces.count > 1, let opening = start.pieces.last, opening.isTrusted else { return nil }
        let words = start.pieces[start.pieces.count - 2]
        let place = whole.pieces.indices.dropLast().last { index in
            whole.pieces[index] == words && whole.pieces[index + 1].isTrusted && whole.pieces[index + 1].text.utf8.starts(with: opening.text.utf8)
        }
        guard let place else { return nil }
        return RenderedText(Array(whole.pieces[(place + 1)...])).dropping(first: opening.text.utf8.count)
    }

    // MARK: Reasoning

    /// Of a template that begins an answer with reasoning and leaves that out of the conversation it writes: the text behind what the prompt
    /// has of it. If the prompt ends inside the reasoning, the message must spell the rest of it.
    private func textBehindReasoning(
        _ message: JSONValue, before: [JSONValue], tools: [JSONValue]?, start: RenderedText, whole: RenderedText
    ) throws(TemplateError) -> [TextPiece]? {
        let common = whole.commonPrefixCount(with: start)
        let opening = start.dropping(first: common)
        let earlier = try rendered(before, tools: tools, addsGenerationPrompt: false)
        guard opening.count == 1, opening[0].isTrusted, earlier.bytes.count <= common, start.hasPrefix(earlier) else { return nil }
        let spelled = Self.trimmed(opening[0].text)
        if spelled.hasPrefix("<think>"), spelled.hasSuffix("</think>") { return whole.dropping(first: common) }
        guard spelled == "<think>", let content = message["content"]?.string, let end = whole.pieces.last, end.isTrusted else { return nil }
        let thoughts = Self.trimmed(content)
        guard thoughts.hasPrefix(spelled) else { return nil }
        let text = thoughts.dropFirst(spelled.count).drop { $0.isNewline }
        return [TextPiece(text: String(text), isTrusted: false), end]
    }

    private static func trimmed(_ text: String) -> Substring {
        var text = text[...]
        while text.first?.isWhitespace == true { text.removeFirst() }
        while text.last?.isWhitespace == true { text.removeLast() }
        return text
    }

    private static func withoutReasoning(_ message: JSONValue) -> JSONValue { without(ChatTemplate.reasoningNames, message) }

    private static func without(_ names: [String], _ message: JSONValue) -> JSONValue {
        guard var object = message.object else { return message }
        for name in names { object[name] = nil }
        return .object(object)
    }
}
