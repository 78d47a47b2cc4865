import HTTP1
import Testing

@Suite struct RequestBodyTests {
    /// Bytes that differ from place to place.
    private static func content(_ count: Int) -> [UInt8] { (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31 ^ $0 >> 8) } }

    private static let large = 3 * RequestBody.pieceBytes + 12_345

    private func request(_ content: [UInt8], isChunked: Bool) -> [UInt8] {
        let start = "POST / HTTP/1.1\r\nHost: a\r\n"
        guard isChunked else { return Array((start + "Content-Length: \(content.count)\r\n\r\n").utf8) + content }
        var bytes = Array((start + "Transfer-Encoding: chunked\r\n\r\n").utf8)
        for from in stride(from: 0, to: content.count, by: 50_001) {
            let chunk = content[from..<min(from + 50_001, content.count)]
            bytes += Array((String(chunk.count, radix: 16) + "\r\n").utf8) + chunk + Array("\r\n".utf8)
        }
        return bytes + Array("0\r\n\r\n".utf8)
    }

    /// Where each piece stands in memory.
    private func addresses(_ parser: HTTPRequestParser) -> [UnsafePointer<UInt8>?] {
        parser.body.pieces.map { $0.withUnsafeBufferPointer(\.baseAddress) }
    }

    @Test("what has come of a large body stays where it is", arguments: [false, true], [65_536, 1000])
    func piecesDoNotMove(_ isChunked: Bool, _ read: Int) throws {
        let content = Self.content(Self.large)
        let bytes = request(content, isChunked: isChunked)
        let parser = HTTPRequestParser()
        var before: [UnsafePointer<UInt8>?] = []
        var isComplete = false
        for from in stride(from: 0, to: bytes.count, by: read) {
            try Array(bytes[from..<min(from + read, bytes.count)]).withUnsafeBytes { input in
                var rest = input
                repeat {
                    let (consumed, event) = try parser.parse(rest)
                    rest = UnsafeRawBufferPointer(rebasing: rest[consumed...])
                    if case .end = event { isComplete = true }
                } while !rest.isEmpty
            }
            let now = addresses(parser)
            // Only a first piece whose size nobody announced may have to grow while it is filled.
            let settled = isChunked && before.count == 1 ? 0 : before.count
            #expect(Array(now.prefix(settled)) == Array(before.prefix(settled)))
            #expect(parser.body.pieces.dropLast().allSatisfy { $0.count == RequestBody.pieceBytes })
            #expect((parser.body.pieces.last?.count ?? 0) <= RequestBody.pieceBytes)
            before = now
        }
        #expect(isComplete && before.count == 4)
        let body = parser.takeBody()
        #expect(body.count == content.count && body.joined() == content)
        #expect(parser.body.isEmpty && parser.body.pieces.isEmpty)
    }

    @Test("an announcement alone costs no more than a piece")
    func announcement() throws {
        let parser = HTTPRequestParser()
        try Array("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4000000\r\n\r\n".utf8).withUnsafeBytes { _ = try parser.parse($0) }
        try [UInt8(1)].withUnsafeBytes { _ = try parser.parse($0) }
        #expect(parser.body.count == 1)
        #expect(parser.body.pieces.map(\.capacity).allSatisfy { $0 < 2 * RequestBody.pieceBytes })
    }

    @Test func oneArrayIsNotCopied() {
        let bytes = Self.content(100)
        let body = RequestBody(bytes)
        let address = bytes.withUnsafeBufferPointer { $0.baseAddress }
        #expect(body.joined().withUnsafeBufferPointer { $0.baseAddress } == address)
        #expect(RequestBody([]).pieces.isEmpty && RequestBody().joined() == [] && RequestBody().isEmpty)
    }

    @Test func ranges() {
        let bytes = Self.content(10)
        let body = RequestBody(pieces: [Array(bytes[..<3]), [], Array(bytes[3..<4]), Array(bytes[4...])])
        #expect(body.count == 10 && body.joined() == bytes)
        for from in 0...10 {
            for to in from...10 { #expect(body.bytes(in: from..<to) == Array(bytes[from..<to])) }
        }
    }
}
