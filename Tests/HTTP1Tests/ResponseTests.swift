import HTTP1
import HTTPTypes
import Testing

@Suite struct ResponseTests {
    private func encoded(_ head: HTTPResponse, _ framing: HTTPResponseEncoder.Framing, persistence: HTTPResponseEncoder.Persistence = .implied) -> String {
        var out: [UInt8] = []
        HTTPResponseEncoder.appendHead(
            head, framing: framing, date: HTTPDate.format(unixSeconds: 784_111_777), requestID: "id-1", persistence: persistence, to: &out)
        return String(decoding: out, as: UTF8.self)
    }

    @Test func heads() {
        var head = HTTPResponse(status: .ok)
        head.headerFields[.contentType] = "text/plain"
        let common = "date: Sun, 06 Nov 1994 08:49:37 GMT\r\nx-request-id: id-1\r\n"
        #expect(encoded(head, .length(120)) == "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\(common)content-length: 120\r\n\r\n")
        #expect(encoded(head, .length(0)) == "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\(common)content-length: 0\r\n\r\n")
        #expect(encoded(head, .chunked) == "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\(common)transfer-encoding: chunked\r\n\r\n")
        #expect(
            encoded(head, .untilClose, persistence: .close) == "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\(common)connection: close\r\n\r\n")
        #expect(encoded(HTTPResponse(status: .noContent), .none) == "HTTP/1.1 204 No Content\r\n\(common)\r\n")
    }

    @Test func theCallersFramingIsIgnored() {
        var head = HTTPResponse(status: .ok)
        head.headerFields[.contentLength] = "7"
        head.headerFields[.transferEncoding] = "gzip"
        head.headerFields[.connection] = "close"
        head.headerFields[.date] = "never"
        head.headerFields[HTTPField.Name("x-request-id")!] = "other"
        let text = encoded(head, .length(1))
        #expect(text == encoded(HTTPResponse(status: .ok), .length(1)))
    }

    @Test func lineEndsCannotBeInjected() {
        var head = HTTPResponse(status: .ok)
        head.headerFields[.location] = "/\r\nX-Evil: 1\r\n\r\n<script>"
        #expect(encoded(head, .length(0)).components(separatedBy: "\r\n").count == encoded(HTTPResponse(status: .ok), .length(0)).components(separatedBy: "\r\n").count + 1)
    }

    @Test func bodilessStatuses() {
        #expect(HTTPResponseEncoder.isBodiless(.noContent))
        #expect(HTTPResponseEncoder.isBodiless(.notModified))
        #expect(HTTPResponseEncoder.isBodiless(.continue))
        #expect(!HTTPResponseEncoder.isBodiless(.ok))
        #expect(!HTTPResponseEncoder.isBodiless(HTTPResponse.Status(code: 205)))
    }

    @Test func chunkHeaders() {
        for (count, text) in [(1, "1"), (15, "f"), (16, "10"), (255, "ff"), (256, "100"), (65536, "10000"), (0xABCDEF, "abcdef")] {
            var out: [UInt8] = []
            HTTPResponseEncoder.appendChunkHeader(count, to: &out)
            #expect(String(decoding: out, as: UTF8.self) == text + "\r\n")
        }
    }

    @Test func dates() {
        func date(_ seconds: Int) -> String { String(decoding: HTTPDate.format(unixSeconds: seconds), as: UTF8.self) }
        #expect(date(0) == "Thu, 01 Jan 1970 00:00:00 GMT")
        #expect(date(784_111_777) == "Sun, 06 Nov 1994 08:49:37 GMT")
        #expect(date(951_782_400) == "Tue, 29 Feb 2000 00:00:00 GMT")
        #expect(date(1_709_164_799) == "Wed, 28 Feb 2024 23:59:59 GMT")
        #expect(date(1_709_164_800) == "Thu, 29 Feb 2024 00:00:00 GMT")
        #expect(date(4_107_542_400) == "Mon, 01 Mar 2100 00:00:00 GMT")
        #expect(date(1_798_761_599) == "Thu, 31 Dec 2026 23:59:59 GMT")
    }

    @Test func events() {
        func event(_ text: String) -> String { String(decoding: ServerSentEvent.event(text), as: UTF8.self) }
        #expect(event("{\"a\":1}") == "data: {\"a\":1}\n\n")
        #expect(event("[DONE]") == "data: [DONE]\n\n")
        #expect(event("") == "data: \n\n")
        #expect(event("a\nb") == "data: a\ndata: b\n\n")
        #expect(event("a\r\nb\rc") == "data: a\ndata: b\ndata: c\n\n")
        #expect(event("a\n") == "data: a\ndata: \n\n")
        #expect(ServerSentEvent.keepAlive == Array(":\n\n".utf8))
    }

    @Test func percentCoding() {
        #expect(PercentCoding.decode("a%20b%2Fc") == "a b/c")
        #expect(PercentCoding.decode("%C3%A9") == "é")
        #expect(PercentCoding.decode("a+b") == "a+b")
        #expect(PercentCoding.decode("a+b", plusIsSpace: true) == "a b")
        #expect(PercentCoding.decode("plain") == "plain")
        for wrong in ["%", "%2", "%zz", "a%4"] { #expect(PercentCoding.decode(wrong) == nil) }
        #expect(PercentCoding.encode("support-bot_2.x") == "support-bot_2.x")
        #expect(PercentCoding.encode("é @3/\"%\r\n") == "%C3%A9%20%403%2F%22%25%0D%0A")
        #expect(PercentCoding.decode(PercentCoding.encode("any thing: é\u{0}")) == "any thing: é\u{0}")
        let pairs = PercentCoding.pairs("limit=20&after=a%26b&&empty=&flag&metadata%5Bk%5D=v=w&bad=%zz")
        #expect(pairs.map(\.name) == ["limit", "after", "empty", "flag", "metadata[k]", "bad"])
        #expect(pairs.map(\.value) == ["20", "a&b", "", "", "v=w", "%zz"])
    }
}

extension String {
    fileprivate func components(separatedBy separator: String) -> [Substring] {
        self.split(separator: separator, omittingEmptySubsequences: false)
    }
}
