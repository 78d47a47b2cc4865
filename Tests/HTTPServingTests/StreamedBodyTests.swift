import Glibc
import HTTP1
import HTTPServing
import HTTPTypes
import Synchronization
import Testing

/// Collects a body and says stop after a given number of pieces.
private final class Receiver: HTTPBodyReceiver {
    private struct State {
        var bytes: [UInt8] = []
        var pieces = 0
    }

    private let state = Mutex(State())
    /// Each piece of these numbers, counted from 1, is enough for now.
    private let stops: @Sendable (Int) -> Bool
    let onPiece: @Sendable (Int) -> Void

    init(stops: @escaping @Sendable (Int) -> Bool = { _ in false }, onPiece: @escaping @Sendable (Int) -> Void = { _ in }) {
        self.stops = stops
        self.onPiece = onPiece
    }

    var bytes: [UInt8] { state.withLock { $0.bytes } }
    var pieceCount: Int { state.withLock { $0.pieces } }

    func receive(_ bytes: RequestBody) -> Bool {
        let number = state.withLock { state in
            state.bytes += bytes.joined()
            state.pieces += 1
            return state.pieces
        }
        onPiece(number)
        return !stops(number)
    }
}

/// Bodies that are given out as they come.
@Suite(.serialized, .timeLimit(.minutes(2))) struct StreamedBodyTests {
    private static func application(_ receiver: Receiver, limit: Int? = nil) -> TestApplication {
        TestApplication(admission: { _, path, _ in path == "/stream" ? .stream(bodyLimit: limit, to: receiver) : .accept(bodyLimit: nil) }) { request, server in
            server.respond(to: request.exchange, .text, body: Array("\(request.path) \(request.body.count)".utf8))
        }
    }

    private static func head(_ fields: String) -> String { "POST /stream HTTP/1.1\r\nHost: localhost\r\n\(fields)\r\n\r\n" }

    private static func noise(_ count: Int) -> [UInt8] {
        var value: UInt32 = 7
        return (0..<count).map { _ in
            value = value &* 1_664_525 &+ 1_013_904_223
            return UInt8(truncatingIfNeeded: value >> 24)
        }
    }

    @Test func allOfItComesInOrderAndNoneOfItIsCollected() async throws {
        let receiver = Receiver()
        let body = Self.noise(3_000_000)
        try await withServer(Self.application(receiver), configure: { $0.limits.bodyBytes = 4_000_000 }) { _, port in
            let client = try #require(SocketClient(port: port))
            client.send(Self.head("Content-Length: \(body.count)"))
            client.send(body)
            #expect(client.readResponse()?.body == "/stream 0")
            #expect(receiver.bytes == body)
            #expect(receiver.pieceCount > 10, "three megabytes came in \(receiver.pieceCount) pieces")
            // The connection goes on with requests of either kind.
            client.send("POST /whole HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello")
            #expect(client.readResponse()?.body == "/whole 5")
            client.send(Self.head("Transfer-Encoding: chunked") + "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
            #expect(client.readResponse()?.body == "/stream 0")
            #expect(receiver.bytes == body + Array("abcde".utf8))
            client.send(Self.head("Content-Length: 0"))
            #expect(client.readResponse()?.body == "/stream 0")
            #expect(receiver.bytes.count == body.count + 5)
        }
    }

    @Test func aRequestInOnePacketWithTheNextOne() async throws {
        let receiver = Receiver()
        try await withServer(Self.application(receiver)) { _, port in
            let client = try #require(SocketClient(port: port))
            client.send(Self.head("Content-Length: 5") + "hello" + "GET /next HTTP/1.1\r\nHost: localhost\r\n\r\n")
            #expect(client.readResponse()?.body == "/stream 0")
            #expect(client.readResponse()?.body == "/next 0")
            #expect(receiver.bytes == Array("hello".utf8))
        }
    }

    @Test func aReceiverThatHasEnoughStopsTheClient() async throws {
        let (pieces, continuation) = AsyncStream<Int>.makeStream()
        let receiver = Receiver(stops: { $0 == 1 }, onPiece: { continuation.yield($0) })
        let exchange = Mutex<ExchangeID?>(nil)
        let application = TestApplication(admission: { _, _, id in
            exchange.withLock { $0 = id }
            return .stream(bodyLimit: nil, to: receiver)
        }) { request, server in server.respond(to: request.exchange, .text, body: []) }
        let body = Self.noise(48 << 20)
        try await withServer(application, configure: { $0.limits.bodyBytes = 64 << 20 }) { server, port in
            let client = try #require(SocketClient(port: port))
            client.send(Self.head("Content-Length: \(body.count)"))
            var sent = client.sendWithoutWaiting(body[...])
            for await _ in pieces { break }
            // The kernel's buffers fill up, and then nothing more is taken.
            var idle = 0
            while idle < 20, sent < body.count {
                let more = client.sendWithoutWaiting(body[sent...])
                sent += more
                idle = more == 0 ? idle + 1 : 0
                usleep(5000)
            }
            #expect(sent < body.count && receiver.pieceCount == 1)
            let id = try #require(exchange.withLock { $0 })
            await server.resumeBody(of: id)
            client.send(Array(body[sent...]))
            #expect(client.readResponse()?.status == 200)
            #expect(receiver.bytes == body)
            // A word about an exchange that is over does nothing.
            await server.resumeBody(of: id)
        }
    }

    @Test func aClientThatLeavesIsTold() async throws {
        let (pieces, continuation) = AsyncStream<Int>.makeStream()
        let receiver = Receiver(onPiece: { continuation.yield($0) })
        let application = Self.application(receiver)
        try await withServer(application) { _, port in
            let client = try #require(SocketClient(port: port))
            client.send(Self.head("Content-Length: 1000") + "half of it")
            for await _ in pieces { break }
            client.disconnect()
            let events = await application.events { if case .closed = $0 { true } else { false } }
            #expect(!events.contains(.request("/stream")))
        }
    }

    @Test("a client that leaves while it has to wait")
    func aClientThatLeavesWhileItHasToWait() async throws {
        let (pieces, continuation) = AsyncStream<Int>.makeStream()
        let receiver = Receiver(stops: { _ in true }, onPiece: { continuation.yield($0) })
        let application = Self.application(receiver)
        try await withServer(application, configure: { $0.limits.bodyBytes = 64 << 20 }) { _, port in
            let client = try #require(SocketClient(port: port))
            client.send(Self.head("Content-Length: \(32 << 20)"))
            _ = client.sendWithoutWaiting(Self.noise(1 << 20)[...])
            for await _ in pieces { break }
            client.reset()
            _ = await application.events { if case .closed = $0 { true } else { false } }
            #expect(receiver.pieceCount == 1)
        }
    }

    @Test(arguments: [("Content-Length: 11", ""), ("Transfer-Encoding: chunked", "6\r\nabcdef\r\n5\r\nghijk\r\n0\r\n\r\n")])
    func theLimitHolds(fields: String, body: String) async throws {
        let receiver = Receiver()
        let application = Self.application(receiver, limit: 10)
        try await withServer(application) { _, port in
            let client = try #require(SocketClient(port: port))
            client.send(Self.head(fields) + body)
            #expect(client.readResponse()?.status == 413)
            let events = await application.events { $0 == .rejected(.bodyTooLarge) }
            #expect(events.contains { if case .closed = $0 { true } else { false } })
            #expect(receiver.bytes.count <= 10)
            #expect(client.readToEnd() == "")
        }
    }
}

extension SocketClient {
    /// Sends what the kernel takes at once, and says how much that was.
    fileprivate func sendWithoutWaiting(_ bytes: ArraySlice<UInt8>) -> Int {
        var total = 0
        while total < bytes.count {
            let rest = bytes.dropFirst(total).prefix(1 << 20)
            let count = rest.withUnsafeBytes { Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL) | Int32(MSG_DONTWAIT)) }
            guard count > 0 else { break }
            total += count
        }
        return total
    }
}
