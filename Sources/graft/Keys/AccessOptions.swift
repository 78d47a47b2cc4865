import ArgumentParser
import FoundationEssentials

/// The API key of the commands that may have to ask a server.
struct AccessOptions: ParsableArguments {
    @Option(help: ArgumentHelp("A file with the API key for the server. Default: the environment variable GRAFT_API_KEY.", valueName: "file"))
    var apiKeyFile: String?

    /// - Returns: `nil`: there is none, which a server without keys does not mind.
    func key() throws -> String? {
        guard let apiKeyFile else { return Environment["GRAFT_API_KEY"].map(Self.trimmed) }
        guard let data = try? Data(contentsOf: URL(filePath: apiKeyFile)) else {
            throw CommandError("\(TerminalText.oneLine(apiKeyFile)): cannot be read; expected a file with an API key")
        }
        let text = Self.trimmed(String(decoding: data, as: UTF8.self))
        // It goes into a header. What the file holds instead is not shown: it may be some other secret.
        guard !text.isEmpty, text.utf8.allSatisfy({ (0x21...0x7E).contains($0) }) else {
            throw CommandError("\(TerminalText.oneLine(apiKeyFile)): holds no API key; expected one line such as sk-graft-…")
        }
        return text
    }

    private static func trimmed(_ text: String) -> String {
        String(text.drop(while: \.isWhitespace).reversed().drop(while: \.isWhitespace).reversed())
    }
}
