import Inference
import Testing
import graft

struct ChatInputTests {
    @Test(arguments: [
        ("hello", ChatInput.message("hello")), ("  two words\n", .message("two words")), ("", .nothing), (" \t", .nothing), ("/help", .help), ("/HELP ", .help),
        ("/reset", .reset), ("/quit", .quit), ("/exit", .quit), ("/stats", .stats), ("/regenerate", .regenerate), ("/system", .system(nil)),
        ("/system  Be brief. ", .system("Be brief.")), ("/system -", .system("")), ("/system a\nb", .system("a\nb")), ("//etc is a folder", .message("/etc is a folder")),
        ("/nope x", .unknown(command: "/nope")), ("/reset now", .unwanted(argument: "now", command: "/reset")), ("a /help", .message("a /help")),
    ])
    func line(_ line: String, means input: ChatInput) {
        #expect(ChatInput(line) == input)
    }
}

struct ConversationTests {
    @Test func turns() {
        var conversation = Conversation(system: "Be brief.")
        conversation.ask("a")
        conversation.answer("b")
        conversation.ask("c")
        #expect(conversation.messages.map(\.speaker) == [.system, .user, .assistant, .user])
        #expect(conversation.messages.map(\.text) == ["Be brief.", "a", "b", "c"])
        conversation.answer("")
        #expect(conversation.messages.map(\.text) == ["Be brief.", "a", "b"])
        let isReopened = conversation.reopen()
        #expect(isReopened)
        #expect(conversation.messages.map(\.text) == ["Be brief.", "a"])
        let isReopenedAgain = conversation.reopen()
        #expect(!isReopenedAgain)
        conversation.reset()
        #expect(conversation.messages.map(\.text) == ["Be brief."])
        conversation.setSystem("")
        #expect(conversation.messages.isEmpty)
    }
}

struct ChatMachineTests {
    private let start = ContinuousClock.now
    private let usage = GenerationUsage(promptTokens: 3, cachedTokens: 0, completionTokens: 2)

    private func machine(system: String? = nil, maxTokens: Int? = nil, isBase: Bool = false) -> ChatMachine {
        ChatMachine(system: system, contextLength: 100, maxTokens: maxTokens, trimsLeadingSpace: isBase)
    }

    private func text(_ text: String, tokens: Int = 1) -> GenerationEvent.Kind {
        .text(text, tokens: (0..<tokens).map { GeneratedToken(id: Int32($0), logprobs: nil) })
    }

    /// Asks, and answers with pieces a tenth of a second apart.
    private func converse(_ machine: inout ChatMachine, _ question: String, _ pieces: String...) -> [ChatMachine.Action] {
        var actions = machine.enter(question)
        machine.began(promptTokens: 3, at: start)
        actions += machine.take(.started(cachedTokens: 1), at: start)
        for (index, piece) in pieces.enumerated() { actions += machine.take(text(piece), at: start + .milliseconds(500 + 100 * index)) }
        actions += machine.take(.finished(.stop, usage, stopString: nil), at: start + .seconds(1))
        return actions
    }

    @Test func anAnswer() {
        var machine = machine(system: "S")
        let actions = converse(&machine, "hello", "Hi", " there")
        #expect(actions == [.generate([.init(.system, "S"), .init(.user, "hello")]), .show("Hi"), .show(" there"), .endAnswer])
        #expect(!machine.isAnswering)
        #expect(machine.enter("and?") == [.generate([.init(.system, "S"), .init(.user, "hello"), .init(.assistant, "Hi there"), .init(.user, "and?")])])
        #expect(machine.isAnswering)
    }

    @Test func aStoppedAnswerStaysInTheConversation() {
        var machine = machine()
        _ = machine.enter("q")
        machine.began(promptTokens: 1, at: start)
        _ = machine.take(text("par"), at: start)
        #expect(machine.interrupt() == [.cancel, .endAnswer, .notice("[stopped]")])
        #expect(machine.conversation.messages == [.init(.user, "q"), .init(.assistant, "par")])
        // Events that were on their way come too late.
        #expect(machine.take(text("tial"), at: start) == [])
        #expect(machine.interrupt() == [])
    }

    @Test func anAnswerStoppedBeforeItsFirstWordTakesTheQuestionWithIt() {
        var machine = machine()
        _ = machine.enter("q")
        #expect(machine.interrupt() == [.cancel, .notice("[stopped]")])
        #expect(machine.conversation.isEmpty)
    }

    @Test func commands() {
        var machine = machine()
        #expect(machine.enter("/system") == [.notice("There is no system message: /system TEXT sets one.")])
        _ = converse(&machine, "a", "b")
        #expect(machine.enter("/regenerate") == [.generate([.init(.user, "a")])])
        let stopped = machine.interrupt()
        #expect(stopped.first == .cancel)
        _ = converse(&machine, "a", "b")
        #expect(machine.enter("/reset") == [.notice("A new conversation.")])
        #expect(machine.conversation.isEmpty)
        _ = converse(&machine, "a", "b")
        let confirmation = machine.enter("/system Be brief.")
        #expect(confirmation.count == 1)
        #expect(machine.conversation.messages == [.init(.system, "Be brief.")])
        #expect(machine.enter("/system") == [.notice("Be brief.")])
        #expect(machine.enter("") == [])
        #expect(machine.enter("/quit") == [.quit])
    }

    @Test func whatCannotBeDone() {
        var machine = machine()
        #expect(machine.enter("/regenerate") == [.refusal("There is no answer yet that could be made anew.")])
        #expect(
            machine.enter("/rest") == [
                .refusal("There is no command /rest: did you mean /reset? /help lists them. A message that begins with a slash is written with two.")
            ])
        #expect(machine.enter("/quit now") == [.refusal("/quit takes no text after it, found 'now'.")])
    }

    @Test func helpNamesEveryCommand() {
        for command in ChatInput.commands { #expect(ChatMachine.help.contains(command.name)) }
    }

    @Test func aPromptThatDoesNotFit() {
        var machine = machine()
        _ = machine.enter("long")
        #expect(
            machine.failed(promptTokens: 120) == [
                .refusal("The message has 120 tokens, and the context holds 100, the answer included: shorten it.")
            ])
        #expect(machine.conversation.isEmpty)
        _ = converse(&machine, "a", "b")
        _ = machine.enter("long")
        #expect(
            machine.failed(promptTokens: 100) == [
                .refusal(
                    "The conversation with this message has 100 tokens, and the context holds 100, the answer included: /reset starts a new one, and the message has not been added.")
            ])
        #expect(machine.conversation.messages == [.init(.user, "a"), .init(.assistant, "b")])
    }

    @Test func answersThatEndForLackOfRoom() {
        var machine = machine(maxTokens: 2)
        _ = machine.enter("q")
        machine.began(promptTokens: 1, at: start)
        _ = machine.take(text("a b", tokens: 2), at: start)
        #expect(
            machine.take(.finished(.length, usage, stopString: nil), at: start) == [.endAnswer, .notice("[cut after 2 tokens, as --max-tokens says]")])
        _ = machine.enter("q")
        machine.began(promptTokens: 99, at: start)
        _ = machine.take(text("a"), at: start)
        #expect(
            machine.take(.finished(.length, usage, stopString: nil), at: start) == [
                .endAnswer, .notice("[the context of 100 tokens is full: /reset starts a new conversation]"),
            ])
    }

    @Test func anEmptyAnswerAndAFailure() {
        var machine = machine()
        _ = machine.enter("q")
        #expect(machine.take(.finished(.stop, usage, stopString: nil), at: start) == [.notice("[no answer: the model ended its turn at once]")])
        #expect(machine.conversation.isEmpty)
        _ = machine.enter("q")
        #expect(machine.take(.failed(InferenceError(.internalFailure, "broken")), at: start) == [.refusal("broken")])
        #expect(!machine.isAnswering)
    }

    @Test func aBaseModelsLeadingSpaceIsNoPartOfItsAnswer() {
        var machine = machine(isBase: true)
        #expect(converse(&machine, "q", " ", " Paris", " is").dropFirst() == [.show("Paris"), .show(" is"), .endAnswer])
        #expect(machine.conversation.messages.last == .init(.assistant, "Paris is"))
    }

    @Test func statistics() {
        var machine = machine()
        #expect(machine.enter("/stats") == [.notice("Nothing has been answered yet.")])
        _ = converse(&machine, "q", "a", "b", "c")
        #expect(
            machine.enter("/stats") == [
                .notice("prompt 3 tokens (1 from the cache), answer 3 tokens, first token after 0.5 s, 10.0 tokens/s, context 6 of 100")
            ])
    }
}
