import FoundationEssentials

/// A file whose one line is an API key.
package enum APIKeyFile {
    /// - Throws: with the file's name and what was expected. What it holds instead is not shown: it may be some other secret.
    package static func read(_ path: String) throws -> String {
        guard let data = try? Data(contentsOf: URL(filePath: path)) else {
            throw CommandError("\(TerminalText.oneLine(path)): cannot be read; expected a file with an API key")
        }
        let text = trimmed(String(decoding: data, as: UTF8.self))
        // It goes into a header.
        guard !text.isEmpty, text.utf8.allSatisfy({ (0x21...0x7E).contains($0) }) else {
            throw CommandError("\(TerminalText.oneLine(path)): holds no API key; expected one line such as sk-graft-…")
        }
        return text
    }

    static func trimmed(_ text: String) -> String {
        String(text.drop(while: \.isWhitespace).reversed().drop(while: \.isWhitespace).reversed())
    }
}
