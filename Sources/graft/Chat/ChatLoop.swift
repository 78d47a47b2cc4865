import ArgumentParser
import Inference
import Synchronization

#if canImport(Glibc)
import Glibc
#endif

/// Joins the parts of a chat: standard input, the engine's events and signals on one side, `ChatMachine` in the middle, standard output on
/// the other. It runs on one thread, which waits in `poll`; what happens on other threads reaches it through a pipe.
final class ChatLoop {
    let signals: SignalPipe
    var machine: ChatMachine
    var isOver = false
    /// In a script: a line could not be done.
    private(set) var hasFailed = false

    private let engine: any GenerationService
    private let prompts: ChatPrompts
    private let inbox: Inbox
    private var running: SequenceID?
    private let clock = ContinuousClock()

    /// Whether the output's last character ended a line.
    private var isAtLineStart = true
    private let isInteractive = Terminal.isInteractive
    private let usesColor = Terminal.isInteractive && Environment["NO_COLOR"] == nil
    private let showsOutput = Terminal.showsOutput
    let isScripted = isatty(STDIN_FILENO) == 0 || !Terminal.showsOutput

    init(engine: any GenerationService, prompts: ChatPrompts, system: String?) throws {
        self.engine = engine
        self.prompts = prompts
        signals = try SignalPipe(reporting: [SIGINT, SIGWINCH, SIGCONT])
        inbox = Inbox(signals)
        machine = ChatMachine(
            system: system, contextLength: prompts.model.contextLength, maxTokens: prompts.maxTokens, trimsLeadingSpace: prompts.model.chatTemplate == nil)
    }

    /// Events of the engine on their way to the loop's thread.
    private final class Inbox: GenerationSink {
        private let events = Mutex<[GenerationEvent]>([])
        private let signals: SignalPipe

        init(_ signals: SignalPipe) {
            self.signals = signals
        }

        func deliver(_ new: [GenerationEvent]) {
            events.withLock { $0 += new }
            signals.wake()
        }

        func take() -> [GenerationEvent] {
            events.withLock { events in
                defer { events.removeAll(keepingCapacity: true) }
                return events
            }
        }
    }

    /// Talks until the user leaves or the input ends.
    /// - Throws: `ExitCode(1)` after the first line of a script that cannot be done; why is on standard error.
    func run(banner: String) throws {
        if isInteractive {
            try runInteractively(banner: banner)
        } else {
            try runPlainly()
        }
    }

    // MARK: In

    /// Waits until input or a signal is there, or the time is over. Without a descriptor only signals count.
    func wait(for input: Int32?, milliseconds: Int32 = -1) -> (input: Bool, signals: Bool) {
        // A negative descriptor is never ready.
        var descriptors = [pollfd(fd: input ?? -1, events: Int16(POLLIN), revents: 0), pollfd(fd: signals.readEnd, events: Int16(POLLIN), revents: 0)]
        guard poll(&descriptors, 2, milliseconds) > 0 else { return (false, false) }
        return (descriptors[0].revents != 0, descriptors[1].revents != 0)
    }

    /// What there is to read; nil at the end of input, and when the terminal has gone away.
    func readInput() -> ArraySlice<UInt8>? {
        var bytes = [UInt8](repeating: 0, count: 1 << 16)
        let count = read(STDIN_FILENO, &bytes, bytes.count)
        if count > 0 { return bytes[..<count] }
        return count < 0 && (errno == EINTR || errno == EAGAIN) ? [] : nil
    }

    func takeEvents() {
        for event in inbox.take() where event.sequence == running {
            perform(machine.take(event.kind, at: clock.now))
        }
    }

    // MARK: Out

    func perform(_ actions: [ChatMachine.Action]) {
        for action in actions {
            switch action {
            case .show(let text):
                writeAll(showsOutput ? TerminalText.sanitized(text) : text, to: STDOUT_FILENO)
                isAtLineStart = text.last?.isNewline ?? isAtLineStart
            case .endAnswer:
                // A line of its own between an answer and the next prompt.
                writeAll((isAtLineStart ? "" : "\n") + (isInteractive ? "\n" : ""), to: STDOUT_FILENO)
                isAtLineStart = true
            case .notice(let text): say(text, style: "2")
            case .refusal(let text):
                hasFailed = isScripted
                say(isScripted ? "graft: \(text)" : text, style: "33")
            case .generate(let messages): generate(messages)
            case .cancel:
                if let running { engine.cancel(running) }
                running = nil
            case .quit: isOver = true
            }
        }
    }

    private func generate(_ messages: [Conversation.Message]) {
        do {
            let request = try prompts.request(messages)
            let id = SequenceID()
            running = id
            machine.began(promptTokens: request.prompt.count, at: clock.now)
            try engine.submit(request, as: id, to: inbox)
        } catch let overflow as ChatPrompts.Overflow {
            perform(machine.failed(promptTokens: overflow.promptTokens))
        } catch {
            perform(machine.failed("\(error)"))
        }
    }

    /// What Graft says itself: on standard error in a script, which has its answers on standard output.
    func say(_ text: String, style: String = "2") {
        let text = showsOutput ? TerminalText.sanitized(text) : text
        writeAll(usesColor ? "\u{1B}[\(style)m\(text)\u{1B}[0m\n" : text + "\n", to: isScripted ? STDERR_FILENO : STDOUT_FILENO)
    }
}
