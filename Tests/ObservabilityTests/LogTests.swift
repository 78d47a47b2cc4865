import Logging
import Observability
import Synchronization
import Testing

@Suite struct LogTests {
    private func lines(_ format: LogFormat, _ body: (Logger) -> Void) -> [String] {
        final class Lines: Sendable { let all = Mutex<[String]>([]) }
        let lines = Lines()
        let logger = Logger(label: "graft.test") { label in
            LineLogHandler(label: label, level: .info, format: format) { line in
                lines.all.withLock { $0.append(String(decoding: line, as: UTF8.self)) }
            }
        }
        body(logger)
        return lines.all.withLock { $0 }
    }

    @Test func textLines() throws {
        let found = lines(.text) { logger in
            logger.debug("not shown")
            logger.info("a\nb", metadata: ["z": "plain", "a": "two words", "m": "x\u{2028}\"y"])
        }
        let line = try #require(found.first)
        #expect(found.count == 1)
        #expect(line.hasSuffix(" info graft.test: a\\nb a=\"two words\" m=\"x\\u2028\\\"y\" z=plain\n"))
        #expect(try #require(line.wholeMatch(of: #/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z info [^\n]*\n/#)).output == line)
    }

    @Test func jsonLines() throws {
        let line = try #require(lines(.json) { $0.warning("quote \" and\ttab", metadata: ["k": "v\u{1}"]) }.first)
        #expect(line.hasPrefix("{\"time\":\"") && line.hasSuffix("\"}\n"))
        #expect(line.contains(#""level":"warning","logger":"graft.test","message":"quote \" and\ttab","k":"v\u0001""#))
    }

    @Test func metadataOfLoggerAndEntry() throws {
        let line = try #require(
            lines(.text) { logger in
                var logger = logger
                logger[metadataKey: "a"] = "1"
                logger[metadataKey: "b"] = "1"
                logger.info("m", metadata: ["b": "2"])
            }.first)
        #expect(line.hasSuffix(": m a=1 b=2\n"))
    }

    /// Python: datetime.fromtimestamp(s, timezone.utc).isoformat()
    @Test(arguments: [
        (0, "1970-01-01T00:00:00.007Z"), (951_782_400, "2000-02-29T00:00:00.007Z"), (1_709_251_199, "2024-02-29T23:59:59.007Z"),
        (4_107_542_400, "2100-03-01T00:00:00.007Z"), (1_735_689_599, "2024-12-31T23:59:59.007Z"), (-1, "1969-12-31T23:59:59.007Z"),
    ]) func timestamps(_ seconds: Int, _ expected: String) {
        #expect(timestamp(seconds: seconds, nanoseconds: 7_900_000) == expected)
    }
}
