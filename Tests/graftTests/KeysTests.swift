import FoundationEssentials
import Testing
import graft

struct KeysTests {
    @Test(arguments: [("1s", 1), ("90d", 7_776_000), ("2h", 7200), ("15m", 900), ("36500d", 3_153_600_000)])
    func spans(_ text: String, _ seconds: Int) {
        #expect(KeyLifetime.seconds(text) == seconds)
    }

    @Test(arguments: ["", "d", "0d", "-1d", "1", "1w", "1.5h", "36501d", "9223372036854775807d", "d1", "1 d"]) func noSpans(_ text: String) {
        #expect(KeyLifetime.seconds(text) == nil)
    }

    @Test func theKeyOfAFile() throws {
        let path = FileManager.default.temporaryDirectory.appending(path: "graft-key-\(UUID().uuidString)").path
        defer { try? FileManager.default.removeItem(atPath: path) }
        func key(_ content: String) throws -> String {
            try Data(content.utf8).write(to: URL(filePath: path))
            return try APIKeyFile.read(path)
        }
        #expect(try key("sk-graft-1-abc\n") == "sk-graft-1-abc")
        #expect(try key("  sk-graft-1-abc \r\n") == "sk-graft-1-abc")
        for bad in ["", "\n", "two words", "a\r\nx-evil: 1", "sk-\u{e9}"] {
            let error = #expect(throws: (any Error).self) { try key(bad) }
            let message = error.map { "\($0)" } ?? ""
            #expect(message.contains(path) && !message.contains("evil"))
        }
        #expect(throws: (any Error).self) { try APIKeyFile.read("/nonexistent") }
    }
}
