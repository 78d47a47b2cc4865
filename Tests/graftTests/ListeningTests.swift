import HTTPServing
import Logging
import Synchronization
import Testing
import graft

@Suite struct ListeningTests {
    @Test(arguments: ["localhost", "127.0.0.1", "127.1.2.3", "::1", "0:0:0:0:0:0:0:1"]) func onlyThisMachine(_ host: String) throws {
        #expect(ListenAddress(host: host, usesTLS: false).isLoopback)
        try ListenAddress(host: host, usesTLS: false).requireSafe(insecure: false)
    }

    @Test(arguments: ["0.0.0.0", "::", "192.168.1.2", "127.example.org", "example.org", "::ffff:127.0.0.1", "1.2.3.127", "fe80::1", ""])
    func othersToo(_ host: String) throws {
        let plain = ListenAddress(host: host, usesTLS: false)
        #expect(!plain.isLoopback)
        let error = #expect(throws: (any Error).self) { try plain.requireSafe(insecure: false) }
        let message = error.map { "\($0)" } ?? ""
        #expect(message.contains("--tls-certificate") && message.contains("--insecure-listen"))
        try plain.requireSafe(insecure: true)
        try ListenAddress(host: host, usesTLS: true).requireSafe(insecure: false)
    }

    @Test func urls() {
        #expect(ListenAddress(host: "::1", usesTLS: true).url(port: 8443) == "https://[::1]:8443")
        #expect(ListenAddress(host: "127.0.0.1", usesTLS: false).url(port: 80) == "http://127.0.0.1:80")
    }

    @Test("a flood of failed connections fills no log, and looking whether the port is open leaves no line")
    func failuresAreLoggedAFewAtATime() {
        let lines = Mutex<[String]>([])
        let handler = CountingHandler { line in lines.withLock { $0.append(line) } }
        let log = TLSFailureLog(Logger(label: "test") { _ in handler })
        log.note(TLSConnectionFailure(.truncated, "looked", receivedCount: 0))
        #expect(lines.withLock { $0 } == [])
        for number in 0..<1000 { log.note(TLSConnectionFailure(.handshakeFailed, "cause \(number)", receivedCount: 5)) }
        #expect(lines.withLock { $0 } == (0..<20).map { "cause \($0)" })
    }

    /// Gives out the cause of each line.
    private struct CountingHandler: LogHandler {
        let take: @Sendable (String) -> Void
        var metadata = Logger.Metadata()
        var logLevel = Logger.Level.info

        init(_ take: @escaping @Sendable (String) -> Void) {
            self.take = take
        }

        subscript(metadataKey key: String) -> Logger.Metadata.Value? {
            get { metadata[key] }
            set { metadata[key] = newValue }
        }

        func log(event: LogEvent) {
            take(event.metadata?["cause"].map { "\($0)" } ?? "")
        }
    }
}
