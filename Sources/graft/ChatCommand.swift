import ArgumentParser
import Executors

#if canImport(Glibc)
import Glibc
#endif

struct ChatCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "chat",
        abstract: "Talk with a model in the terminal.",
        discussion: """
            The model runs in this process; no server is needed. The conversation is rendered with the model's own template; a base model, which \
            has none, continues a plain transcript of `User:` and `Assistant:` paragraphs.

            Enter sends, Alt-Enter breaks the line, Ctrl-C stops an answer (what there is of it stays in the conversation), Ctrl-D leaves. \
            /help lists the commands: /reset, /system, /regenerate, /stats, /quit.

            Without a terminal every line of standard input is a message or command, and the answers go to standard output, one after the \
            other: `printf 'Hello\\nAnd in French?\\n' | graft chat`. A line that cannot be done ends such a script with exit code 1.
            """)

    @Option(help: ArgumentHelp("The system message. Default: what the template itself says.", valueName: "text"))
    var system: String?
    @OptionGroup var adapter: ChosenAdapter
    @OptionGroup var options: ModelOptions
    @OptionGroup var sampling: SamplingOptions

    func run() async throws {
        var (_, settings) = try options.engineSettings()
        settings.maxSequences = 1
        if Terminal.isInteractive { writeAll("loading \(TerminalText.oneLine(settings.model))…", to: STDOUT_FILENO) }
        let prepared = Result { try PreparedModel(settings, options, adapter: adapter) }
        if Terminal.isInteractive { writeAll("\r\u{1B}[K", to: STDOUT_FILENO) }
        let (model, engine) = try (prepared.get().served, prepared.get().engine)
        var prompts = ChatPrompts(model: model, sampling: sampling.parameters, maxTokens: sampling.maxTokens)
        prompts.adapters = try prepared.get().adapters
        let kind = model.chatTemplate == nil ? ", a base model without template" : ""
        let tuned = adapter.adapter.map { " with \(TerminalText.oneLine($0))" } ?? ""
        let banner = "\(model.name)\(kind)\(tuned) · context \(model.contextLength) tokens · /help"
        let (system, chatPrompts) = (system, prompts)
        // The loop blocks while it waits, which a thread of Swift's own pool must not.
        let thread = ThreadExecutor(name: "graft-chat")
        let outcome: Result<Void, any Error> = await withCheckedContinuation { continuation in
            thread.execute {
                continuation.resume(returning: Result { try ChatLoop(engine: engine, prompts: chatPrompts, system: system).run(banner: banner) })
            }
        }
        thread.shutdown()
        await engine.shutdown()
        try outcome.get()
    }
}
