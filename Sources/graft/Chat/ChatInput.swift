/// What a line typed into `graft chat` asks for.
package enum ChatInput: Equatable {
    case message(String)
    case help, reset, regenerate, stats, quit
    /// nil shows the system message, an empty text removes it.
    case system(String?)
    /// A known command with an argument that it does not take.
    case unwanted(argument: String, command: String)
    case unknown(command: String)
    case nothing

    package struct Command: Sendable {
        package let name: String
        package let argument: String
        package let summary: String
    }

    package static let commands = [
        Command(name: "/help", argument: "", summary: "this list"),
        Command(name: "/reset", argument: "", summary: "start a new conversation; the system message stays"),
        Command(name: "/system", argument: "TEXT", summary: "set the system message and start anew; without TEXT show it, with - remove it"),
        Command(name: "/regenerate", argument: "", summary: "answer the last message once more"),
        Command(name: "/stats", argument: "", summary: "tokens and speed of the last answer, and how full the context is"),
        Command(name: "/quit", argument: "", summary: "leave; so does Ctrl-D"),
    ]

    /// A line that begins with a slash is a command, with two slashes a message that begins with one. White space around does not count.
    package init(_ line: String) {
        let text = line.trimmed
        if text.isEmpty {
            self = .nothing
        } else if text.hasPrefix("//") {
            self = .message(String(text.dropFirst()))
        } else if text.hasPrefix("/") {
            let name = String(text.prefix { !$0.isWhitespace }).lowercased()
            let argument = String(text.dropFirst(name.count)).trimmed
            self.init(command: name, argument: argument)
        } else {
            self = .message(text)
        }
    }

    private init(command: String, argument: String) {
        let plain: ChatInput? =
            switch command {
            case "/help", "/?": .help
            case "/reset", "/clear": .reset
            case "/regenerate": .regenerate
            case "/stats": .stats
            case "/quit", "/exit", "/bye": .quit
            default: nil
            }
        if command == "/system" {
            self = .system(argument.isEmpty ? nil : argument == "-" ? "" : argument)
        } else if let plain {
            self = argument.isEmpty ? plain : .unwanted(argument: argument, command: command)
        } else {
            self = .unknown(command: command)
        }
    }
}

extension String {
    /// Without white space at both ends.
    var trimmed: String {
        guard let first = firstIndex(where: { !$0.isWhitespace }), let last = lastIndex(where: { !$0.isWhitespace }) else { return "" }
        return String(self[first...last])
    }
}
