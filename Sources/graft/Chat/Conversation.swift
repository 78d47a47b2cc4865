/// What has been said: an optional system message, then messages of user and assistant in turn.
package struct Conversation: Equatable, Sendable {
    package enum Speaker: String, Sendable {
        case system, user, assistant
    }

    package struct Message: Equatable, Sendable {
        package let speaker: Speaker
        package let text: String

        package init(_ speaker: Speaker, _ text: String) {
            self.speaker = speaker
            self.text = text
        }
    }

    /// Empty texts count as none.
    package private(set) var system: String?
    private var turns: [Message] = []

    package init(system: String? = nil) {
        setSystem(system)
    }

    /// A conversation that consists of one open question.
    package init(system: String?, question: String) {
        self.init(system: system)
        ask(question)
    }

    package var messages: [Message] { (system.map { [Message(.system, $0)] } ?? []) + turns }
    package var isEmpty: Bool { turns.isEmpty }

    /// A new conversation with this system message.
    package mutating func setSystem(_ text: String?) {
        system = text.flatMap { $0.isEmpty ? nil : $0 }
        turns.removeAll()
    }

    package mutating func reset() {
        turns.removeAll()
    }

    package mutating func ask(_ text: String) {
        precondition(turns.last?.speaker != .user, "a question is open already")
        turns.append(Message(.user, text))
    }

    /// Ends the turn with an answer. Nothing at all is no answer: the question is taken back, so that user and assistant keep taking turns.
    package mutating func answer(_ text: String) {
        precondition(turns.last?.speaker == .user, "no question is open")
        if text.isEmpty {
            turns.removeLast()
        } else {
            turns.append(Message(.assistant, text))
        }
    }

    /// Takes the last answer back and leaves its question open; false when there is none.
    package mutating func reopen() -> Bool {
        guard turns.last?.speaker == .assistant else { return false }
        turns.removeLast()
        return true
    }
}
