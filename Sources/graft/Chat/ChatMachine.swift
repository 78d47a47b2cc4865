import Inference

/// The course of a chat, without terminal, model and clock: lines, interruptions and the engine's events go in, and what is to be done
/// comes out.
package struct ChatMachine {
    package enum Action: Equatable {
        /// A piece of the answer.
        case show(String)
        /// The answer is over.
        case endAnswer
        /// Something that Graft has to say.
        case notice(String)
        /// What was asked for cannot be done. A script ends here.
        case refusal(String)
        /// Make the prompt and submit it; then call `began` or `failed`.
        case generate([Conversation.Message])
        /// Stop the engine's work on the running answer; its further events are not wanted.
        case cancel
        case quit
    }

    package private(set) var conversation: Conversation
    /// Between `generate` and the end of its answer.
    package private(set) var isAnswering = false
    private let contextLength: Int
    /// The most tokens of an answer, where the user has set a bound.
    private let maxTokens: Int?
    /// A base model's transcript leaves the space before an answer to the model; it is no part of what was said.
    private let trimsLeadingSpace: Bool
    private var answer = ""
    private var last: AnswerRecord?

    package init(system: String?, contextLength: Int, maxTokens: Int?, trimsLeadingSpace: Bool) {
        conversation = Conversation(system: system)
        self.contextLength = contextLength
        self.maxTokens = maxTokens
        self.trimsLeadingSpace = trimsLeadingSpace
    }

    // MARK: The user

    package mutating func enter(_ line: String) -> [Action] {
        precondition(!isAnswering, "a line came while an answer was running")
        switch ChatInput(line) {
        case .nothing: return []
        case .message(let text):
            conversation.ask(text)
            return generate()
        case .help: return [.notice(Self.help)]
        case .reset:
            conversation.reset()
            return [.notice("A new conversation.")]
        case .system(nil): return [.notice(conversation.system ?? "There is no system message: /system TEXT sets one.")]
        case .system(let text?):
            conversation.setSystem(text)
            return [.notice(text.isEmpty ? "No system message, and a new conversation." : "The system message is set, and a new conversation begins.")]
        case .regenerate:
            guard conversation.reopen() else { return [.refusal("There is no answer yet that could be made anew.")] }
            return generate()
        case .stats: return [.notice(statistics)]
        case .quit: return [.quit]
        case .unwanted(let argument, let command):
            return [.refusal("\(command) takes no text after it, found '\(argument.prefix(40))'.")]
        case .unknown(let command):
            let near = nearestName(to: command, among: ChatInput.commands.map(\.name)).map { "did you mean \($0)? " } ?? ""
            return [.refusal("There is no command \(command.prefix(40)): \(near)/help lists them. A message that begins with a slash is written with two.")]
        }
    }

    /// Ctrl-C while an answer runs: it ends here, and what there is of it stays in the conversation.
    package mutating func interrupt() -> [Action] {
        guard isAnswering else { return [] }
        return [.cancel] + end() + [.notice("[stopped]")]
    }

    private mutating func generate() -> [Action] {
        isAnswering = true
        answer = ""
        return [.generate(conversation.messages)]
    }

    // MARK: The engine

    package mutating func began(promptTokens: Int, at time: ContinuousClock.Instant) {
        last = AnswerRecord(promptTokens: promptTokens, asked: time)
    }

    /// The prompt could not be made or was refused. The question is taken back.
    package mutating func failed(_ message: String) -> [Action] {
        precondition(isAnswering)
        answer = ""
        return end() + [.refusal(message)]
    }

    /// The prompt does not fit the context.
    package mutating func failed(promptTokens: Int) -> [Action] {
        let isFirst = conversation.messages.filter { $0.speaker == .user }.count == 1
        let subject = isFirst ? "The message" : "The conversation with this message"
        let remedy = isFirst ? "shorten it" : "/reset starts a new one, and the message has not been added"
        return failed("\(subject) has \(promptTokens) tokens, and the context holds \(contextLength), the answer included: \(remedy).")
    }

    package mutating func take(_ event: GenerationEvent.Kind, at time: ContinuousClock.Instant) -> [Action] {
        guard isAnswering else { return [] }
        switch event {
        case .started(let cachedTokens):
            last?.cachedTokens = cachedTokens
            return []
        case .promptLogprobs: return []
        case .text(let text, let tokens):
            last?.record(tokens: tokens.count, at: time)
            let isBeginning = trimsLeadingSpace && answer.isEmpty
            let shown = isBeginning ? String(text.drop(while: \.isWhitespace)) : text
            answer += shown
            return shown.isEmpty ? [] : [.show(shown)]
        case .finished(let reason, _, _):
            let wasEmpty = answer.isEmpty
            var actions = end()
            if reason == .length { actions.append(.notice(lengthNotice)) } else if wasEmpty { actions.append(.notice("[no answer: the model ended its turn at once]")) }
            return actions
        case .failed(let error): return end() + [.refusal(error.message)]
        }
    }

    private mutating func end() -> [Action] {
        isAnswering = false
        conversation.answer(answer)
        defer { answer = "" }
        return answer.isEmpty ? [] : [.endAnswer]
    }

    // MARK: Texts

    private var lengthNotice: String {
        if let maxTokens, let last, last.answerTokens >= maxTokens { return "[cut after \(maxTokens) tokens, as --max-tokens says]" }
        return "[the context of \(contextLength) tokens is full: /reset starts a new conversation]"
    }

    private var statistics: String {
        guard let last else { return "Nothing has been answered yet." }
        var parts = ["prompt \(last.promptTokens) tokens (\(last.cachedTokens) from the cache)", "answer \(last.answerTokens) tokens"]
        if let seconds = last.secondsToFirstToken { parts.append("first token after \(seconds.rounded(toPlaces: 2)) s") }
        if let rate = last.tokensPerSecond { parts.append("\(rate.rounded(toPlaces: 1)) tokens/s") }
        parts.append("context \(last.promptTokens + last.answerTokens) of \(contextLength)")
        return parts.joined(separator: ", ")
    }

    package static let help: String = {
        let width = ChatInput.commands.map { $0.name.count + $0.argument.count + 1 }.max()! + 2
        let commands = ChatInput.commands.map { command in
            let name = command.argument.isEmpty ? command.name : command.name + " " + command.argument
            return name + String(repeating: " ", count: width - name.count) + command.summary
        }
        return commands.joined(separator: "\n") + """


            Ctrl-C stops an answer; at the prompt it clears the line, and on an empty line, twice, it leaves. Alt-Enter breaks the line.
            Arrows move and recall earlier lines; Ctrl-A and Ctrl-E go to the line's ends, Ctrl-U, Ctrl-K and Ctrl-W delete, Ctrl-Y
            brings back, Ctrl-L clears the screen. A message that begins with a slash is written with two.
            """
    }()
}
