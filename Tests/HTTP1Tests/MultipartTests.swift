import HTTP1
import Testing

/// A part as the tests compare it.
private struct Part: Equatable {
    var name: String
    var filename: String?
    var contentType: String?
    var content: String
}

/// What a parser made of a body, whatever pieces it came in.
private struct Result: Equatable {
    var parts: [Part] = []
    var ends = 0
    var error: MultipartError.Code?
}

/// Feeds pieces one after another, each from memory of its own.
private func result(of pieces: [[UInt8]], boundary: String = "XX", limits: MultipartLimits = MultipartLimits()) -> Result {
    var result = Result()
    do throws(MultipartError) {
        let parser = MultipartParser(boundary: try MultipartBoundary(boundary), limits: limits)
        var head: MultipartPartHead?
        var content: [UInt8] = []
        for piece in pieces {
            try piece.withUnsafeBufferPointer { buffer throws(MultipartError) in
                var rest = UnsafeRawBufferPointer(buffer)
                while true {
                    let (consumed, event) = try parser.parse(rest)
                    rest = UnsafeRawBufferPointer(rebasing: rest[consumed...])
                    switch event {
                    case nil:
                        #expect(rest.isEmpty)
                        return
                    case .partHead(let new):
                        #expect(head == nil)
                        head = new
                        content = []
                    case .partBytes(let bytes):
                        #expect(head != nil && !bytes.isEmpty)
                        content += bytes
                    case .partEnd:
                        if let head {
                            result.parts.append(
                                Part(name: head.name, filename: head.filename, contentType: head.contentType, content: String(decoding: content, as: UTF8.self))
                            )
                        }
                        head = nil
                    case .end: result.ends += 1
                    }
                }
            }
        }
        try parser.finish()
    } catch {
        result.error = error.code
    }
    return result
}

private func part(_ name: String, _ content: String) -> String {
    "--XX\r\nContent-Disposition: form-data; name=\"\(name)\"\r\n\r\n\(content)\r\n"
}

@Suite struct MultipartTests {
    private static let body =
        "a preamble\r\n--X\r\n--XX \t\r\nContent-Disposition: form-data; name=\"name\"\r\n\r\nsupport-bot\r\n"
        + "--XX\r\ncontent-disposition:form-data; filename=\"a \\\"b\\\" \\c;=.bin\"; name=file\r\nContent-Type: application/octet-stream\r\nX-Other: 1\r\n\r\n"
        + "\r\r\n\r\n--X\r\n-XX\r\n--X-\r\n--\r--XX --XX\n--XX\r\n\r\n"
        + "--XX\r\nContent-Disposition: form-data; name=\"empty\"\r\n\r\n\r\n--XX\r\nContent-Disposition: form-data; name=\"nothing\"\r\n\r\n--XX--  epilogue\r\n--XX\r\nrubbish"

    private static let expected = Result(
        parts: [
            Part(name: "name", content: "support-bot"),
            Part(
                name: "file", filename: "a \"b\" \\c;=.bin", contentType: "application/octet-stream",
                content: "\r\r\n\r\n--X\r\n-XX\r\n--X-\r\n--\r--XX --XX\n--XX\r\n"),
            Part(name: "empty", content: ""), Part(name: "nothing", content: ""),
        ], ends: 1)

    @Test func everySplitGivesTheSame() {
        for pieces in everySplit(of: Self.body) {
            #expect(result(of: pieces) == Self.expected, "\(pieces.map(\.count))")
        }
    }

    @Test func threePieces() {
        let bytes = Array(Self.body.utf8)
        for first in stride(from: 0, through: bytes.count, by: 3) {
            for second in stride(from: first, through: bytes.count, by: 7) {
                #expect(result(of: [Array(bytes[..<first]), Array(bytes[first..<second]), Array(bytes[second...])]) == Self.expected)
            }
        }
    }

    @Test func aWholeBodyGivesRanges() throws {
        let bytes = Array(Self.body.utf8)
        let parts = try MultipartParser.parts(of: bytes, boundary: MultipartBoundary("XX"))
        #expect(parts.map(\.head.name) == ["name", "file", "empty", "nothing"])
        #expect(parts.map { String(decoding: bytes[$0.range], as: UTF8.self) } == Self.expected.parts.map(\.content))
    }

    @Test func aBodyInPiecesGivesTheSameRanges() throws {
        let boundary = try MultipartBoundary("XX")
        let whole = try MultipartParser.parts(of: Array(Self.body.utf8), boundary: boundary)
        for pieces in everySplit(of: Self.body) {
            let body = RequestBody(pieces: pieces)
            let parts = try MultipartParser.parts(of: body, boundary: boundary)
            #expect(parts == whole, "\(pieces.map(\.count))")
            #expect(parts.map { String(decoding: body.bytes(in: $0.range), as: UTF8.self) } == Self.expected.parts.map(\.content))
        }
    }

    @Test func everyByteValueIsContent() throws {
        let content = (0..<3).flatMap { _ in Array(UInt8.min...UInt8.max) }
        let bytes = Array("--XX\r\nContent-Disposition: form-data; name=a\r\n\r\n".utf8) + content + Array("\r\n--XX--".utf8)
        let parts = try MultipartParser.parts(of: bytes, boundary: MultipartBoundary("XX"))
        #expect(parts.map { Array(bytes[$0.range]) } == [content])
    }

    private static let incomplete: [String] = [
        "",
        "--XX",
        "--XX\r\n",
        "no boundary at all",
        part("a", "b"),
        part("a", "b") + "--XX",
        part("a", "b") + "--XX-",
        part("a", "b") + "--XX\r\n",
        part("a", "b") + "\r\n--YY--",
    ]

    private static let badBoundaryLines: [String] = [
        "--XXX\r\n",
        "--XX\n",
        "--XX \n",
        "--XX\r\r",
        "--XX-x",
        part("a", "b\r\n--XXy"),
    ]

    private static let badHeaders: [String] = [
        "Content-Type: text/plain",
        "Content-Disposition: form-data",
        "Content-Disposition: form-data; name=\"\"",
        "Content-Disposition: form-data; name=a; name=b",
        "Content-Disposition: form-data; name=a; filename=b; filename=c",
        "Content-Disposition: form-data; name=\"a",
        "Content-Disposition: form-data; name",
        "Content-Disposition: form-data; name=\"a\"b",
        "Content-Disposition: attachment; name=a",
        "Content-Disposition: form-data; name=a\r\nContent-Disposition: form-data; name=b",
        "Content-Disposition: form-data; name=a; filename=\"x\u{0}y\"",
        "Content-Disposition: form-data; name=a; filename=\"x\u{1B}y\"",
        "Content-Disposition: form-data; name=a\r\n folded",
        "Content-Disposition : form-data; name=a",
        "Content-Disposition: form-data; name=a\rX",
        ": x",
        "Content-Disposition: form-data; name=a\nX: y",
        "Content-Disposition: form-data; name=a\r\nContent-Transfer-Encoding: base64",
    ]

    private func expect(_ code: MultipartError.Code, _ body: String) {
        let bytes = Array(body.utf8)
        #expect(result(of: [bytes]).error == code)
        #expect(result(of: bytes.map { [$0] }).error == code)
        #expect { try MultipartParser.parts(of: bytes, boundary: MultipartBoundary("XX")) } throws: { ($0 as? MultipartError)?.code == code }
    }

    @Test(arguments: incomplete) func theEndIsMissing(_ body: String) { expect(.incomplete, body) }
    @Test(arguments: badBoundaryLines) func boundaryLines(_ body: String) { expect(.malformed, body) }
    @Test(arguments: badHeaders) func headers(_ header: String) { expect(.malformed, "--XX\r\n\(header)\r\n\r\nb\r\n--XX--") }

    @Test func noHeaderAtAll() { expect(.malformed, "--XX\r\n\r\nb\r\n--XX--") }

    @Test func limits() {
        let long = String(repeating: "x", count: 9000)
        expect(.headersTooLarge, "--XX\r\nContent-Disposition: form-data; name=a\r\nX: \(long)\r\n\r\nb\r\n--XX--")
        expect(.tooManyParts, (0..<17).map { part("p\($0)", "") }.joined() + "--XX--")
    }

    @Test func theRefusalStays() throws {
        let parser = MultipartParser(boundary: try MultipartBoundary("XX"))
        for _ in 0..<2 {
            #expect(throws: MultipartError.self) { try Array("--XXX\r\n".utf8).withUnsafeBytes { try parser.parse($0) } }
        }
        #expect { try parser.finish() } throws: { ($0 as? MultipartError)?.code == .malformed }
    }

    @Test func asManyPartsAsAllowed() {
        let parts = (0..<16).map { part("p\($0)", "\($0)") }.joined()
        #expect(result(of: [Array((parts + "--XX--").utf8)]).parts.map(\.content) == (0..<16).map(String.init))
    }

    @Test func binaryIsAnAcceptableEncoding() {
        let body = "--XX\r\nContent-Disposition: form-data; name=a\r\nContent-Transfer-Encoding: BINARY\r\n\r\nb\r\n--XX--"
        #expect(result(of: [Array(body.utf8)]).parts == [Part(name: "a", content: "b")])
    }

    @Test(arguments: [
        ("multipart/form-data; boundary=abc", "abc"), ("Multipart/Form-Data;BOUNDARY=\"a b:c\"", "a b:c"),
        ("multipart/form-data; charset=utf-8; boundary=----WebKitFormBoundaryX1; ", "----WebKitFormBoundaryX1"),
        ("multipart/form-data; boundary=\"===============12==\"", "===============12=="), ("multipart/form-data; boundary=a/b:c=d?", "a/b:c=d?"),
        ("multipart/form-data; boundary=\(String(repeating: "a", count: 70))", String(repeating: "a", count: 70)),
    ]) func boundaries(_ type: String, _ boundary: String) throws {
        #expect(MultipartBoundary.isFormData(type))
        #expect(try MultipartBoundary(contentType: type).text == boundary)
    }

    @Test(arguments: [
        "multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=\"\"", "multipart/form-data; boundary=\"a \"",
        "multipart/form-data; boundary=a b", "multipart/form-data; boundary=\"a", "multipart/form-data; boundary=a; boundary=a",
        "multipart/form-data; boundary=a{b}", "multipart/form-data; boundary=\u{E4}", "multipart/form-data; boundary=\"a\\\\b\"", "",
        "multipart/form-data; boundary=\(String(repeating: "a", count: 71))",
    ]) func badBoundaries(_ type: String) {
        #expect { try MultipartBoundary(contentType: type) } throws: { ($0 as? MultipartError)?.code == .invalidBoundary }
    }

    @Test(arguments: ["multipart/mixed; boundary=a", "multipart/form-datax; boundary=a", "application/json", "", "form-data"]) func otherTypes(_ type: String) {
        #expect(!MultipartBoundary.isFormData(type))
    }

    /// Bodies out of the delimiter's own pieces: whole and in random cuts they give the same, and nothing crashes.
    @Test func randomBodies() {
        var state: UInt64 = 7
        func next(_ bound: Int) -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int(state >> 33) % bound
        }
        let pieces = [
            "\r\n", "--", "XX", "--XX", "\r\n--XX\r\n", "\r\n--XX--", "\r", "\n", "-", "X", "Content-Disposition: form-data; name=a\r\n\r\n", "b", "--XX\r\n",
            " ", ":",
        ]
        var complete = 0
        for _ in 0..<3000 {
            var body: [UInt8] = next(2) == 0 ? Array(part("a", "").utf8) : []
            for _ in 0..<next(12) { body += Array(pieces[next(pieces.count)].utf8) }
            let whole = result(of: [body])
            if whole.error == nil { complete += 1 }
            var cut: [[UInt8]] = []
            var start = 0
            while start < body.count {
                let end = min(body.count, start + 1 + next(6))
                cut.append(Array(body[start..<end]))
                start = end
            }
            let split = result(of: cut)
            #expect(split == whole, "\(String(decoding: body, as: UTF8.self).debugDescription)")
        }
        #expect(complete > 50, "the generator must make complete bodies as well")
    }
}
