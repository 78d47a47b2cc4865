import ArgumentParser
import FoundationEssentials
import Inference
import JSON

#if canImport(Glibc)
import Glibc
#endif

struct GenerateCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "generate",
        abstract: "Print one answer, for scripts.",
        discussion: """
            The prompt is a user's message, rendered with the model's own template (a base model continues a plain transcript). With --raw the \
            model goes on with the text as it is. Standard output carries the answer as it comes, a line end, and nothing else.

              graft generate "Name three rivers."
              git diff | graft generate --system "Write a commit message for this diff."
              graft generate --raw --temperature 0 --max-tokens 20 "Once upon a time"
            """)

    @Argument(help: ArgumentHelp("The prompt. - or nothing reads standard input, without its last line end.", valueName: "prompt"))
    var prompt: String?
    @Option(help: ArgumentHelp("The system message. Default: what the template itself says.", valueName: "text"))
    var system: String?
    @Flag(help: "Continue the text itself: no template, and what it spells as control tokens are control tokens.")
    var raw = false
    @Option(help: ArgumentHelp("The answer ends before this text; may be given several times.", valueName: "text"))
    var stop: [String] = []
    @Flag(help: "Print one JSON object with the answer, why it ended, and what it took.")
    var json = false
    @OptionGroup var adapter: ChosenAdapter
    @OptionGroup var options: ModelOptions
    @OptionGroup var sampling: SamplingOptions

    func validate() throws {
        if prompt == nil, isatty(STDIN_FILENO) == 1 {
            throw ValidationError("there is no prompt: give it as an argument, or through standard input")
        }
        if let prompt, prompt.isEmpty { throw ValidationError("the prompt is empty, expected some text") }
        if raw, system != nil { throw ValidationError("--system has no place in a --raw prompt: write it into the text") }
        if stop.contains("") { throw ValidationError("--stop takes a text, found an empty one") }
    }

    func run() async throws {
        let text = try promptText()
        var (_, settings) = try options.engineSettings()
        settings.maxSequences = 1
        let model = try PreparedModel(settings, options, adapter: adapter)
        var prompts = ChatPrompts(model: model.served, sampling: sampling.parameters, maxTokens: sampling.maxTokens, stop: stop)
        prompts.adapters = model.adapters
        let request: GenerationRequest
        do {
            request = try raw ? prompts.request(continuing: text) : prompts.request(Conversation(system: system, question: text).messages)
        } catch let overflow as ChatPrompts.Overflow {
            throw CommandError(
                "the prompt has \(overflow.promptTokens) tokens, and the context holds \(model.served.contextLength), the answer included: "
                    + "shorten it, or raise --context if it was set")
        }
        var record = AnswerRecord(promptTokens: request.prompt.count, asked: .now)
        let stream = EventStream()
        try model.engine.submit(request, as: SequenceID(), to: stream)
        let trims = !raw && model.served.chatTemplate == nil
        var answer = ""
        var end: (reason: FinishReason, usage: GenerationUsage)?
        for await event in stream.events {
            switch event {
            case .started, .promptLogprobs: break
            case .text(let text, let tokens):
                record.record(tokens: tokens.count, at: .now)
                let shown = trims && answer.isEmpty ? String(text.drop(while: \.isWhitespace)) : text
                answer += shown
                if !json { writeAll(Terminal.showsOutput ? TerminalText.sanitized(shown) : shown, to: STDOUT_FILENO) }
            case .finished(let reason, let usage, _): end = (reason, usage)
            case .failed(let error): throw error
            }
        }
        await model.engine.shutdown()
        guard let end else { throw CommandError("the engine ended without an answer") }
        if json {
            print(String(decoding: report(answer, end.reason, end.usage, record, model.served.name).serialized(), as: UTF8.self))
        } else if answer.last?.isNewline != true {
            writeAll("\n", to: STDOUT_FILENO)
        }
        if end.reason == .length, end.usage.completionTokens != sampling.maxTokens {
            writeAll("graft: the answer is cut: the context of \(model.served.contextLength) tokens is full\n", to: STDERR_FILENO)
        }
    }

    private func promptText() throws -> String {
        if let prompt, prompt != "-" { return prompt }
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let count = read(STDIN_FILENO, &buffer, buffer.count)
            if count == 0 { break }
            if count < 0 {
                if errno == EINTR { continue }
                throw CommandError("standard input cannot be read: \(String(cString: strerror(errno)))")
            }
            bytes += buffer[..<count]
        }
        guard var text = String(validating: bytes, as: UTF8.self) else { throw CommandError("standard input is not UTF-8 text") }
        if text.last?.isNewline == true { text.removeLast() }
        guard !text.isEmpty else { throw CommandError("standard input is empty, expected a prompt") }
        return text
    }

    private func report(_ answer: String, _ reason: FinishReason, _ usage: GenerationUsage, _ record: AnswerRecord, _ name: String) -> JSONValue {
        func number(_ value: Double?) -> JSONValue { value.map { .number($0.rounded(toPlaces: 4)) } ?? .null }
        return .object(
            JSONObject([
                ("model", .string(name)), ("text", .string(answer)), ("finish_reason", .string(reason.rawValue)),
                ("prompt_tokens", .integer(Int64(usage.promptTokens))), ("completion_tokens", .integer(Int64(usage.completionTokens))),
                ("seconds_to_first_token", number(record.secondsToFirstToken)), ("tokens_per_second", number(record.tokensPerSecond)),
            ]))
    }
}

/// One sequence's events as an asynchronous sequence that ends with the last of them.
private final class EventStream: GenerationSink {
    let events: AsyncStream<GenerationEvent.Kind>
    private let continuation: AsyncStream<GenerationEvent.Kind>.Continuation

    init() {
        (events, continuation) = AsyncStream.makeStream()
    }

    func deliver(_ events: [GenerationEvent]) {
        for event in events {
            continuation.yield(event.kind)
            switch event.kind {
            case .finished, .failed: continuation.finish()
            case .started, .promptLogprobs, .text: break
            }
        }
    }
}
