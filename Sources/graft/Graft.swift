import ArgumentParser

#if canImport(Glibc)
import Glibc
#endif

@main
struct Graft: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "graft",
        abstract: "Serve one quantised language model, and grow adapters on it while it runs.",
        discussion: """
            Options win over the environment (GRAFT_ENGINE_THREADS and so on), which wins over the settings in Config/graft.yaml. Exit codes: 0 \
            done, 1 failed, 2 wrong usage.
            """,
        version: "graft \(Version.current)",
        subcommands: [
            ServeCommand.self, ChatCommand.self, GenerateCommand.self, TuneCommand.self, JobsCommand.self, AdaptersCommand.self, KeysCommand.self, PullCommand.self,
            InspectCommand.self, BenchCommand.self, PerplexityCommand.self,
        ])

    static func main() async {
        do {
            try refuseUnknownCommand(CommandLine.arguments.dropFirst().first)
            var command = try await asyncParseAsRoot()
            if var asynchronous = command as? any AsyncParsableCommand {
                try await asynchronous.run()
            } else {
                try command.run()
            }
        } catch {
            end(with: error)
        }
    }

    /// The argument parser calls an unknown command an unexpected argument; a name that is nearly right deserves more.
    private static func refuseUnknownCommand(_ word: String?) throws {
        let names = configuration.subcommands.compactMap { $0.configuration.commandName } + ["help"]
        guard let word, !word.hasPrefix("-"), !names.contains(word) else { return }
        let near = nearestName(to: word, among: names).map { ", did you mean \($0)?" } ?? "; the commands are \(names.joined(separator: ", "))"
        throw ValidationError("there is no command '\(TerminalText.oneLine(word))'\(near)")
    }

    /// Help and version go to standard output. Failures go to standard error as `graft: what is wrong`, wrong usage with a pointer to the
    /// help, and decide the exit code.
    private static func end(with error: any Error) -> Never {
        let code = exitCode(for: error)
        var text = fullMessage(for: error)
        if code == .success {
            if !text.isEmpty { writeAll(text + "\n", to: STDOUT_FILENO) }
        } else if !text.isEmpty {
            let label = "\(_errorLabel): "
            if text.hasPrefix(label) { text.removeFirst(label.count) }
            if code == .validationFailure { text = text.prefix(1).lowercased() + text.dropFirst() }
            writeAll("graft: \(text)\n", to: STDERR_FILENO)
        }
        Glibc.exit(code == .validationFailure ? 2 : code.rawValue)
    }
}
