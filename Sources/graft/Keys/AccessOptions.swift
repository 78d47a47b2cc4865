import ArgumentParser

/// The API key of the commands that may have to ask a server.
struct AccessOptions: ParsableArguments {
    @Option(help: ArgumentHelp("A file with the API key for the server. Default: the environment variable GRAFT_API_KEY.", valueName: "file"))
    var apiKeyFile: String?

    /// - Returns: `nil`: there is none, which a server without keys does not mind.
    func key() throws -> String? {
        if let apiKeyFile { return try APIKeyFile.read(apiKeyFile) }
        guard let text = Environment["GRAFT_API_KEY"].map(APIKeyFile.trimmed) else { return nil }
        guard !text.isEmpty, text.utf8.allSatisfy({ (0x21...0x7E).contains($0) }) else {
            throw CommandError("GRAFT_API_KEY: holds no API key; expected one such as sk-graft-…")
        }
        return text
    }
}
