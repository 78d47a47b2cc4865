import HTTP1
import Testing

/// One input and what every recipient must make of it, wherever the network cuts it.
struct FramingCase: CustomTestStringConvertible, Sendable {
    let name: String
    let input: String
    let expected: HTTP1Error.Code?

    var testDescription: String { name }

    init(_ name: String, _ input: String, _ expected: HTTP1Error.Code? = .malformed) {
        self.name = name
        self.input = input
        self.expected = expected
    }

    static func post(_ name: String, _ fields: String, _ body: String, _ expected: HTTP1Error.Code? = .malformed) -> FramingCase {
        FramingCase(name, "POST /x HTTP/1.1\r\nHost: a\r\n\(fields)\r\n\(body)", expected)
    }

    static func get(_ name: String, _ fields: String, _ expected: HTTP1Error.Code? = .malformed) -> FramingCase {
        FramingCase(name, "GET /x HTTP/1.1\r\n\(fields)\r\n", expected)
    }

    static func line(_ name: String, _ line: String, _ expected: HTTP1Error.Code? = .malformed) -> FramingCase {
        FramingCase(name, "\(line)Host: a\r\n\r\n", expected)
    }

    static func chunked(_ name: String, _ body: String, _ expected: HTTP1Error.Code? = .malformed) -> FramingCase {
        post(name, "Transfer-Encoding: chunked\r\n", body, expected)
    }
}

@Suite struct FramingTests {
    static let bothLengths: [FramingCase] = [
        .post("content-length, then chunked", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        .post("chunked, then content-length", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n"),
    ]

    static let contentLengths: [FramingCase] =
        ["+5", "0x5", "-0", "5,6", "5, 5", "", "18446744073709551616", "9223372036854775808", "5 6", "5;", "five", "5.0"].map {
            .post("content-length '\($0)'", "Content-Length: \($0)\r\n", "abcde")
        } + [
            .post("two unequal lengths", "Content-Length: 5\r\nContent-Length: 6\r\n", "abcdef"),
            .post("two equal lengths", "Content-Length: 5\r\nContent-Length: 5\r\n", "abcde"),
            .post("a length in other case", "CONTENT-LENGTH: 5\r\ncontent-length: 5\r\n", "abcde"),
        ]

    static let chunks: [FramingCase] =
        ["+5", "0x5", "5_0", "-1", "11111111111111111", "00000000000000005", "5 ", " 5", "5 ;a", "5;a\u{1}", "", "g", "5;\(String(repeating: "x", count: 1100))"]
        .map { .chunked("chunk size '\($0.prefix(24))'", "\($0)\r\nabcde\r\n0\r\n\r\n") } + [
            .chunked("overrun", "3\r\nabcde\r\n0\r\n\r\n"),
            .chunked("bare LF after the size", "5\nabcde\r\n0\r\n\r\n"),
            .chunked("bare LF after the content", "5\r\nabcde\n0\r\n\r\n"),
            .chunked("bare LF after the last size", "5\r\nabcde\r\n0\n\r\n"),
            .chunked("bare LF at the end", "5\r\nabcde\r\n0\r\n\n"),
            .chunked("bare CR in an extension", "5;a\rb\r\nabcde\r\n0\r\n\r\n"),
            .chunked("bare LF in an extension", "5;a\nb\r\nabcde\r\n0\r\n\r\n"),
            .chunked("folded trailer", "5\r\nabcde\r\n0\r\nX: y\r\n z\r\n\r\n"),
            .chunked("folded first trailer", "5\r\nabcde\r\n0\r\n X: y\r\n\r\n"),
            .chunked("content-length as trailer", "5\r\nabcde\r\n0\r\nContent-Length: 3\r\n\r\n"),
            .chunked("host as trailer", "5\r\nabcde\r\n0\r\nHost: b\r\n\r\n"),
            .chunked("transfer-encoding as trailer", "5\r\nabcde\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ]

    static let transferCodings: [FramingCase] =
        [
            "chunked, chunked", "xchunked", "chunked\u{B}", "\u{B}chunked", "\"chunked\"", "identity", "chunked;q=1", "", "chunked ,", ",chunked",
            "chunked, gzip",
        ].map {
            .post("transfer-encoding '\($0)'", "Transfer-Encoding: \($0)\r\n", "5\r\nabcde\r\n0\r\n\r\n")
        } + [
            .post("twice", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
            .post("in two fields", "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
            .post("unknown coding first", "Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n", .unsupportedTransferCoding),
            FramingCase("in HTTP/1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ]

    static let hosts: [FramingCase] = [
        .get("no host", ""),
        .get("two hosts", "Host: a\r\nHost: a\r\n"),
        .get("user information", "Host: u@a\r\n"),
        .get("user information with password", "Host: u:p@a\r\n"),
        .get("empty host", "Host: \r\n"),
        .get("list of hosts", "Host: a,b\r\n"),
        .get("blank in the host", "Host: a b\r\n"),
        .get("port is no number", "Host: a:x\r\n"),
        .get("path in the host", "Host: a/b\r\n"),
        .get("query in the host", "Host: a?b\r\n"),
        .get("open bracket", "Host: [::1\r\n"),
        .get("brackets around a name", "Host: [name]\r\n"),
        .get("only a port", "Host: :80\r\n"),
        FramingCase("user information in the target", "GET http://u@b/ HTTP/1.1\r\nHost: b\r\n\r\n"),
        FramingCase("absolute target without host field", "GET http://b/ HTTP/1.1\r\n\r\n"),
    ]

    static let fields: [FramingCase] = [
        .get("space before the colon", "Host: a\r\nX : 1\r\n"),
        .get("space before the colon of a known field", "Host: a\r\nContent-Length : 5\r\n"),
        .get("NUL in a value", "Host: a\r\nX: a\0b\r\n"),
        .get("bare CR in a value", "Host: a\r\nX: a\rb\r\n"),
        .get("bare CR before a line end", "Host: a\r\nX: a\r\r\n"),
        .get("name is no token", "Host: a\r\nX(: 1\r\n"),
        .get("name is empty", "Host: a\r\n: 1\r\n"),
        .get("name is not ASCII", "Host: a\r\nX\u{E9}: 1\r\n"),
        .get("no colon", "Host: a\r\nX\r\n"),
        .get("folded value", "Host: a\r\nX: a\r\n b\r\n"),
        .get("value folded with a tab", "Host: a\r\nX: a\r\n\tb\r\n"),
        .get("fold after an empty value", "Host: a\r\nX:\r\n b\r\n"),
        .get("fold after the host", "Host: a\r\n b\r\n"),
        .get("fold before any field", " X: b\r\nHost: a\r\n"),
        .get("bare LF after a field", "Host: a\nX: b\r\n"),
        FramingCase("bare LF at the end", "GET / HTTP/1.1\r\nHost: a\r\n\n"),
    ]

    static let requestLines: [FramingCase] = [
        .line("bare LF after the request line", "GET / HTTP/1.1\n"),
        .line("bare LF before it", "\nGET / HTTP/1.1\r\n"),
        .line("bare CR before it", "\rGET / HTTP/1.1\r\n"),
        .line("space before it", " GET / HTTP/1.1\r\n"),
        .line("two spaces after the method", "GET  / HTTP/1.1\r\n"),
        .line("two spaces after the target", "GET /  HTTP/1.1\r\n"),
        .line("tab after the method", "GET\t/ HTTP/1.1\r\n"),
        .line("space after the version", "GET / HTTP/1.1 \r\n"),
        .line("method in lower case", "get / HTTP/1.1\r\n"),
        .line("protocol in lower case", "GET / http/1.1\r\n"),
        .line("unknown method", "FOO / HTTP/1.1\r\n"),
        .line("CONNECT", "CONNECT a:80 HTTP/1.1\r\n"),
        .line("asterisk for GET", "GET * HTTP/1.1\r\n"),
        .line("other scheme", "GET ftp://b/ HTTP/1.1\r\n"),
        .line("relative target", "GET x HTTP/1.1\r\n"),
        .line("fragment", "GET /x#y HTTP/1.1\r\n"),
        .line("NUL in the target", "GET /\0 HTTP/1.1\r\n"),
        .line("target is not ASCII", "GET /\u{E9} HTTP/1.1\r\n"),
        .line("HTTP/0.9", "GET /\r\n", .unsupportedVersion),
        .line("HTTP/1.2", "GET / HTTP/1.2\r\n", .unsupportedVersion),
        .line("HTTP/2.0", "GET / HTTP/2.0\r\n", .unsupportedVersion),
        FramingCase("HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", .unsupportedVersion),
        .post("other expectation", "Expect: miracles\r\nContent-Length: 1\r\n", "a", .expectationFailed),
    ]

    @Test("R01 both content-length and transfer-encoding", arguments: bothLengths)
    func both(_ framing: FramingCase) { expectEverywhere(framing) }

    @Test("R02 content-length", arguments: contentLengths)
    func contentLength(_ framing: FramingCase) { expectEverywhere(framing) }

    @Test("R03 chunks", arguments: chunks)
    func chunk(_ framing: FramingCase) { expectEverywhere(framing) }

    @Test("R03 transfer-encoding", arguments: transferCodings)
    func transferCoding(_ framing: FramingCase) { expectEverywhere(framing) }

    @Test("R04 host", arguments: hosts)
    func host(_ framing: FramingCase) { expectEverywhere(framing) }

    @Test("R05 fields", arguments: fields)
    func field(_ framing: FramingCase) { expectEverywhere(framing) }

    @Test("R05 request line", arguments: requestLines)
    func requestLine(_ framing: FramingCase) { expectEverywhere(framing) }

    /// The error is the same and no request is delivered, whether the bytes come whole, in two reads or one by one.
    private func expectEverywhere(_ framing: FramingCase) {
        for pieces in everySplit(of: framing.input) {
            let found = outcome(of: pieces)
            #expect(found.error == framing.expected, "first piece of \(pieces[0].count) bytes")
            #expect(found.requests.isEmpty)
        }
    }

    @Test func aRefusedParserStaysRefused() throws {
        let parser = HTTPRequestParser()
        let bad = Array("BAD\r\n\r\n".utf8)
        let good = Array("GET / HTTP/1.1\r\nHost: a\r\n\r\n".utf8)
        for bytes in [bad, good, good] {
            #expect(throws: HTTP1Error.self) { try bytes.withUnsafeBytes { _ = try parser.parse($0) } }
        }
    }
}
