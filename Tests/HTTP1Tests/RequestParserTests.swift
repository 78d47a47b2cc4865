import HTTP1
import HTTPTypes
import Testing

@Suite struct RequestParserTests {
    /// Everything a well-behaved client may send, pipelined.
    static let valid: [(input: String, expected: [Parsed])] = [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", [Parsed(method: "GET", path: "/", body: "")]),
        ("\r\n\r\nGET / HTTP/1.1\r\nHost:a\r\n\r\n", [Parsed(method: "GET", path: "/", body: "")]),
        ("GET / HTTP/1.0\r\n\r\n", [Parsed(method: "GET", path: "/", body: "")]),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", [Parsed(method: "OPTIONS", path: "*", body: "")]),
        ("GET http://b/x?q HTTP/1.1\r\nHost: a\r\n\r\n", [Parsed(method: "GET", path: "/x", body: "")]),
        ("GET http://b HTTP/1.1\r\nHost: a\r\n\r\n", [Parsed(method: "GET", path: "/", body: "")]),
        ("GET / HTTP/1.1\r\nHost: a\r\nX:\r\nY: \t \r\n\r\n", [Parsed(method: "GET", path: "/", body: "")]),
        ("POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 5 \r\n\r\nabcde", [Parsed(method: "POST", path: "/p", body: "abcde")]),
        ("POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", [Parsed(method: "POST", path: "/p", body: "")]),
        (
            "POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
            [Parsed(method: "POST", path: "/p", body: "abcde")]
        ),
        (
            "POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nA;name=\"v\"\r\nabcdefghij\r\n002\r\nkl\r\n0\r\nX-Sum: 1\r\nY: 2\r\n\r\n",
            [Parsed(method: "POST", path: "/p", body: "abcdefghijkl", trailers: ["X-Sum: 1", "Y: 2"])]
        ),
        (
            "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nT: 1\r\n\r\n"
                + "GET /b HTTP/1.1\r\nHost: a\r\n\r\nPOST /c HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nyzHEAD /d HTTP/1.1\r\nHost: a\r\n\r\n",
            [
                Parsed(method: "POST", path: "/a", body: "x", trailers: ["T: 1"]), Parsed(method: "GET", path: "/b", body: ""),
                Parsed(method: "POST", path: "/c", body: "yz"), Parsed(method: "HEAD", path: "/d", body: ""),
            ]
        ),
        (
            "POST /u HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\nabcGET /v HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nGET /w HTTP/1.1\r\nHost: a\r\n\r\n",
            [
                Parsed(method: "POST", path: "/u", body: "abc"), Parsed(method: "GET", path: "/v", body: ""),
                Parsed(method: "GET", path: "/w", body: ""),
            ]
        ),
    ]

    @Test("R06 valid requests, split at every byte", arguments: valid.indices)
    func validEverywhere(_ index: Int) {
        let (input, expected) = RequestParserTests.valid[index]
        for pieces in everySplit(of: input) {
            let found = outcome(of: pieces)
            #expect(found == Outcome(requests: expected), "first piece of \(pieces[0].count) bytes")
        }
    }

    @Test("R06 twenty pipelined requests")
    func pipelined() {
        let input = (0..<20).map { "POST /\($0) HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n\($0 + 10)" }.joined()
        let expected = (0..<20).map { Parsed(method: "POST", path: "/\($0)", body: "\($0 + 10)") }
        #expect(outcome(of: input) == Outcome(requests: expected))
        #expect(outcome(of: Array(input.utf8).map { [$0] }) == Outcome(requests: expected))
    }

    @Test func incompleteRequests() {
        let whole = "POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabcde"
        for length in 1..<whole.utf8.count {
            #expect(outcome(of: [Array(whole.utf8.prefix(length))]) == Outcome(isMidMessage: true))
        }
        #expect(outcome(of: "\r\n\r\n").isMidMessage == false)
    }

    @Test("R08 limits of the head")
    func headLimits() {
        func target(_ count: Int) -> String { "GET /\(String(repeating: "a", count: count - 1)) HTTP/1.1\r\nHost: a\r\n\r\n" }
        #expect(outcome(of: target(8192)).error == nil)
        #expect(outcome(of: target(8193)).error == .targetTooLong)

        func fields(_ count: Int) -> String { "GET / HTTP/1.1\r\nHost: a\r\n\(String(repeating: "X: 1\r\n", count: count - 1))\r\n" }
        #expect(outcome(of: fields(100)).error == nil)
        #expect(outcome(of: fields(101)).error == .headersTooLarge)

        // The section is what follows the method, target and version: two line ends, the host line and the long one.
        func bytes(_ count: Int, _ filler: Character) -> String {
            let fixed = "\r\nHost: a\r\nX: \r\n\r\n".utf8.count
            return "GET / HTTP/1.1\r\nHost: a\r\nX: \(String(repeating: filler, count: count - fixed))\r\n\r\n"
        }
        for filler: Character in ["a", " "] {
            #expect(outcome(of: bytes(32768, filler)).error == nil)
            #expect(outcome(of: bytes(32769, filler)).error == .headersTooLarge)
            #expect(outcome(of: Array(bytes(32769, filler).utf8).map { [$0] }).error == .headersTooLarge)
        }
        #expect(outcome(of: String(repeating: "\r\n", count: 20000)).error == .headersTooLarge)
        // Growing without end, before any line is complete.
        #expect(outcome(of: "GET / HTTP/1.1\r\n" + String(repeating: "a", count: 40000)).error == .headersTooLarge)
        #expect(outcome(of: "GET /" + String(repeating: "a", count: 40000)).error == .targetTooLong)
    }

    @Test func limitsOfTrailers() {
        let start = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
        #expect(outcome(of: start + String(repeating: "X: 1\r\n", count: 100) + "\r\n").error == nil)
        #expect(outcome(of: start + String(repeating: "X: 1\r\n", count: 101) + "\r\n").error == .headersTooLarge)
        #expect(outcome(of: start + "X: " + String(repeating: " ", count: 32768)).error == .headersTooLarge)
    }

    @Test func limitsOfTheBody() {
        var limits = HTTPMessageLimits()
        limits.bodyBytes = 10
        let start = "POST / HTTP/1.1\r\nHost: a\r\n"
        #expect(outcome(of: start + "Content-Length: 10\r\n\r\n0123456789", limits: limits).error == nil)
        #expect(outcome(of: start + "Content-Length: 11\r\n\r\n", limits: limits).error == .bodyTooLarge)
        #expect(outcome(of: start + "Transfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n5\r\n56789\r\n0\r\n\r\n", limits: limits).error == nil)
        #expect(outcome(of: start + "Transfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n6\r\n", limits: limits).error == .bodyTooLarge)
        #expect(outcome(of: start + "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n", limits: limits).error == .bodyTooLarge)
    }

    @Test func bodyLimitOfOneRequest() throws {
        var limits = HTTPMessageLimits()
        limits.bodyBytes = 4
        let parser = HTTPRequestParser(limits: limits)
        let request = Array("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabcdef".utf8)
        let body = try request.withUnsafeBytes { bytes in
            let (consumed, event) = try parser.parse(bytes)
            guard case .head = event else { return [UInt8]() }
            parser.bodyLimit = 6
            _ = try parser.parse(UnsafeRawBufferPointer(rebasing: bytes[consumed...]))
            return parser.takeBody().joined()
        }
        #expect(body == Array("abcdef".utf8))
        // The next head starts from the configured limit again.
        #expect(throws: HTTP1Error(.bodyTooLarge, "the body is announced with 6 bytes, at most 4 are accepted")) {
            try request.withUnsafeBytes { bytes in
                let (consumed, _) = try parser.parse(bytes)
                _ = try parser.parse(UnsafeRawBufferPointer(rebasing: bytes[consumed...]))
            }
        }
    }

    @Test func floodOfChunkFraming() {
        let start = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        let extensions = String(repeating: "1;\(String(repeating: "x", count: 900))\r\na\r\n", count: 100)
        #expect(outcome(of: start + extensions).error == .malformed)
        // Single bytes without extensions are wasteful, not hostile.
        let single = String(repeating: "1\r\na\r\n", count: 30000)
        #expect(outcome(of: start + single + "0\r\n\r\n").requests.first?.body.utf8.count == 30000)
    }

    @Test func theHead() throws {
        let head = try #require(
            try head(
                of: "POST /v1/a%20b?x=1&y=%C3%A9 HTTP/1.1\r\nHost: LocalHost:8080\r\nContent-Type: application/json\r\nContent-Length: 2\r\nExpect: 100-Continue\r\nX-A: 1\r\nx-a:  2 \r\n\r\n"))
        #expect(head.request.method == .post)
        #expect(head.request.path == "/v1/a%20b?x=1&y=%C3%A9")
        #expect(head.request.authority == "LocalHost:8080")
        #expect(head.path == "/v1/a%20b")
        #expect(head.query == "x=1&y=%C3%A9")
        #expect(head.host == "localhost")
        #expect(head.body == .length(2))
        #expect(head.expectsContinue)
        #expect(head.isKeepAlive)
        #expect(head.request.headerFields[.contentType] == "application/json")
        #expect(head.request.headerFields[values: HTTPField.Name("X-A")!] == ["1", "2"])
        #expect(head.request.headerFields[HTTPField.Name("host")!] == nil)
    }

    @Test func hosts() throws {
        func host(_ value: String) throws -> String? { try head(of: "GET / HTTP/1.1\r\nHost: \(value)\r\n\r\n")?.host }
        #expect(try host("a") == "a")
        #expect(try host("A.Example:443") == "a.example")
        #expect(try host("a:") == "a")
        #expect(try host("[::1]:80") == "[::1]")
        #expect(try host("[2001:DB8::1]") == "[2001:db8::1]")
        #expect(try host("127.0.0.1:8080") == "127.0.0.1")
        // RFC 9112 3.2.2: the absolute target wins.
        #expect(try head(of: "GET http://B:1/ HTTP/1.1\r\nHost: a\r\n\r\n")?.host == "b")
        #expect(try head(of: "GET / HTTP/1.0\r\n\r\n")?.host == nil)
    }

    @Test func reuseOfTheConnection() throws {
        func keeps(_ version: String, _ connection: String?) throws -> Bool? {
            try head(of: "GET / HTTP/\(version)\r\nHost: a\r\n\(connection.map { "Connection: \($0)\r\n" } ?? "")\r\n")?.isKeepAlive
        }
        #expect(try keeps("1.1", nil) == true)
        #expect(try keeps("1.1", "close") == false)
        #expect(try keeps("1.1", "Close") == false)
        #expect(try keeps("1.1", "keep-alive") == true)
        #expect(try keeps("1.0", nil) == false)
        #expect(try keeps("1.0", "keep-alive") == true)
    }

    @Test func noContinueWithoutBody() throws {
        #expect(try head(of: "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n")?.expectsContinue == false)
        #expect(try head(of: "POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n")?.expectsContinue == false)
    }

    /// Random cuts and random damage of valid requests: never a crash, and the same outcome however the bytes are cut.
    @Test func randomDamage() {
        var random = SplitMix(state: 7)
        let seeds = RequestParserTests.valid.map { Array($0.input.utf8) }
        for _ in 0..<3000 {
            var bytes = seeds[Int(random.next() % UInt64(seeds.count))] + seeds[Int(random.next() % UInt64(seeds.count))]
            for _ in 0..<(random.next() % 4) {
                let at = Int(random.next() % UInt64(bytes.count))
                switch random.next() % 3 {
                case 0: bytes[at] = UInt8(truncatingIfNeeded: random.next())
                case 1: bytes.remove(at: at)
                default: bytes.insert([0x0D, 0x0A, 0x20, 0x3A, 0x00, 0x2C][Int(random.next() % 6)], at: at)
                }
            }
            let whole = outcome(of: [bytes])
            #expect(outcome(of: bytes.map { [$0] }) == whole)
            let cut = Int(random.next() % UInt64(bytes.count))
            #expect(outcome(of: [Array(bytes[..<cut]), Array(bytes[cut...])]) == whole)
        }
    }
}

/// A small generator with a fixed seed (Steele, Lea, Flood 2014).
struct SplitMix: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}
