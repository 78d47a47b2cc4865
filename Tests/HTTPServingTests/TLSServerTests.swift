import EventLoops
import Glibc
import HTTPServing
import HTTPTypes
import Synchronization
import TLS
import TestSupport
import Testing

private func request(_ path: String, _ fields: String = "", method: String = "GET", body: String = "") -> String {
    let length = body.isEmpty ? "" : "Content-Length: \(body.utf8.count)\r\n"
    return "\(method) \(path) HTTP/1.1\r\nHost: localhost\r\n\(fields)\(length)\r\n\(body)"
}

private func client(_ port: Int, receiveBuffer: Int32? = nil, _ change: (inout TestTLSClient.Options) -> Void = { _ in }) throws -> SocketClient {
    var options = TestTLSClient.Options()
    change(&options)
    return try #require(SocketClient(port: port, receiveBuffer: receiveBuffer, tls: TestTLSClient(options)))
}

private func context(serial: Int = 1) throws -> TLSContext {
    let certificate = TestCertificate(serial: serial)
    return try TLSContext(
        server: TLSIdentity(chain: certificate.certificatePEM, chainName: "cert.pem", privateKey: certificate.keyPEM, keyName: "key.pem"))
}

/// What the acceptor reported, to be waited for.
private final class Failures: Sendable {
    private let stream: AsyncStream<TLSConnectionFailure>
    private let continuation: AsyncStream<TLSConnectionFailure>.Continuation

    init() {
        (stream, continuation) = AsyncStream.makeStream()
    }

    func acceptor(serial: Int = 1) throws -> TLSAcceptor {
        let continuation = continuation
        return TLSAcceptor(try context(serial: serial)) { continuation.yield($0) }
    }

    func next() async -> TLSConnectionFailure? {
        var iterator = stream.makeAsyncIterator()
        return await iterator.next()
    }
}

/// Over real sockets, like `HTTPServerTests`.
@Suite(.serialized, .timeLimit(.minutes(2))) struct TLSServerTests {
    private let echo = TestApplication { request, server in
        server.respond(to: request.exchange, .text, body: Array("\(request.path) ".utf8) + request.body.joined())
    }
    private let failures = Failures()

    @Test("requests, pipelining and keep-alive over both versions", arguments: [0x0303...0x0303, 0x0304...0x0304])
    func requests(_ versions: ClosedRange<Int>) async throws {
        let tls = try failures.acceptor()
        try await withServer(echo, configure: { $0.tls = tls }) { server, port in
            let client = try client(port) { $0.versions = versions }
            client.send(request("/a", method: "POST", body: "hello") + request("/b"))
            #expect(client.readResponse()?.body == "/a hello")
            #expect(client.readResponse()?.body == "/b ")
            client.send(request("/c", "Connection: close\r\n"))
            #expect(client.readResponse()?.body == "/c ")
            #expect(client.readToEnd() == "")
            #expect(client.tls?.sawCloseNotify == true)
            #expect(await server.statistics.acceptedConnections == 1)
        }
    }

    @Test("a handshake and a request, every byte sent alone")
    func byteByByte() async throws {
        let tls = try failures.acceptor()
        try await withServer(echo, configure: { $0.tls = tls }) { _, port in
            let session = TestTLSClient()
            let socket = try #require(SocketClient(port: port, tls: session))
            for byte in session.takeCiphertext() { socket.send(raw: [byte]) }
            socket.shakeHands()
            session.write(Array(request("/slow", method: "POST", body: "bytes").utf8))
            for byte in session.takeCiphertext() { socket.send(raw: [byte]) }
            #expect(socket.readResponse()?.body == "/slow bytes")
        }
    }

    @Test func largeBodies() async throws {
        let tls = try failures.acceptor()
        try await withServer(echo, configure: { $0.tls = tls }) { _, port in
            let client = try client(port)
            let body = String(repeating: "0123456789", count: 300_000)
            client.send(request("/big", method: "POST", body: body))
            #expect(client.readResponse()?.body == "/big " + body)
            client.send(request("/again"))
            #expect(client.readResponse()?.body == "/again ")
        }
    }

    @Test("a stream's pieces arrive in order while others are written from another thread")
    func streaming() async throws {
        let application = TestApplication { request, server in
            server.startStream(request.exchange, .text)
            Task.detached {
                for i in 0..<500 {
                    server.post { $0.write(request.exchange, Array("data: \(i)\n\n".utf8)) }
                }
                server.post { $0.finish(request.exchange) }
            }
        }
        let tls = try failures.acceptor()
        try await withServer(application, configure: { $0.tls = tls }) { _, port in
            let client = try client(port)
            client.send(request("/stream"))
            #expect(client.readResponse()?.body == (0..<500).map { "data: \($0)\n\n" }.joined())
        }
    }

    @Test("a reader that stops makes its exchange congested, and relieves it by reading on")
    func congestion() async throws {
        let piece = [UInt8](repeating: UInt8(ascii: "x"), count: 10_000)
        let application = TestApplication { request, server in
            server.startStream(request.exchange, .text)
            writeRepeatedly(piece, times: 500, to: request.exchange, on: server)
        }
        let tls = try failures.acceptor()
        try await withServer(
            application,
            configure: {
                $0.sendBufferSize = 16384
                $0.tls = tls
            }
        ) { server, port in
            let client = try client(port, receiveBuffer: 4096)
            client.send(request("/flood"))
            let events = await application.events { if case .congested(_, true) = $0 { true } else { false } }
            guard case .congested(let exchange, true)? = events.last else { return }
            #expect(events.count == 2)
            #expect(client.readHead()?.status == 200)
            var count = 0
            while count < 500, let chunk = client.readChunk() {
                #expect(chunk.utf8.count == piece.count)
                count += 1
            }
            #expect(count == 500)
            let later = await application.events { $0 == .congested(exchange, false) }
            #expect(later.last == .congested(exchange, false))
            await server.finish(exchange)
            #expect(client.readChunk() == nil)
        }
    }

    @Test func aStalledReaderIsCutOff() async throws {
        let application = TestApplication { request, server in
            server.startStream(request.exchange, .text)
            for _ in 0..<100 { server.write(request.exchange, [UInt8](repeating: 0, count: 65536)) }
        }
        let tls = try failures.acceptor()
        try await withServer(
            application,
            configure: {
                $0.writeTimeout = .milliseconds(50)
                $0.sendBufferSize = 16384
                $0.tls = tls
            }
        ) { server, port in
            let client = try client(port, receiveBuffer: 4096)
            client.send(request("/"))
            _ = await application.events { if case .closed = $0 { true } else { false } }
            #expect(await server.statistics.abandonedExchanges == 1)
            _ = client.readToEnd()
            // What was cut off must not look complete.
            #expect(client.tls?.sawCloseNotify == false)
        }
    }

    @Test("plain HTTP is answered in plain HTTP", arguments: ["GET", "OPTIONS", "POST"])
    func plainHTTP(_ method: String) async throws {
        let tls = try failures.acceptor()
        try await withServer(echo, configure: { $0.tls = tls }) { server, port in
            let client = try #require(SocketClient(port: port))
            client.send(request("/a", method: method, body: method == "POST" ? String(repeating: "x", count: 100_000) : ""))
            let response = try #require(client.readResponse())
            #expect(response.status == 400)
            #expect(response.fields["connection"] == "close")
            #expect(response.body.contains("https://"))
            #expect(client.readToEnd() == "")
            #expect(await server.statistics.requests == 0)
            #expect(await echo.events { $0 == .rejected(.needsTLS) } == [.rejected(.needsTLS)])
            #expect(await failures.next()?.kind == .plainText)
        }
    }

    @Test("a client that goes away during the handshake is reported", arguments: [0, 1, 100])
    func truncated(_ count: Int) async throws {
        let tls = try failures.acceptor()
        try await withServer(echo, configure: { $0.tls = tls }) { _, port in
            let client = try #require(SocketClient(port: port))
            client.send(raw: Array(TestTLSClient().takeCiphertext().prefix(count)))
            client.disconnect()
            let failure = await failures.next()
            #expect(failure?.kind == .truncated && failure?.receivedCount == count)
        }
    }

    @Test("a handshake that stalls is closed and reported", arguments: [0, 100, 1000])
    func stalled(_ count: Int) async throws {
        let tls = try failures.acceptor()
        try await withServer(
            echo,
            configure: {
                $0.tls = tls
                $0.headerTimeout = .milliseconds(50)
            }
        ) { server, port in
            let client = try #require(SocketClient(port: port))
            // The last one is a whole message, after which the client says nothing more.
            let hello = TestTLSClient().takeCiphertext()
            client.send(raw: Array(hello.prefix(count)))
            let answer = client.readToEnd()
            #expect(answer.isEmpty == (count < hello.count))
            let failure = await failures.next()
            #expect(failure?.kind == .stalled && failure?.receivedCount == min(count, hello.count))
            #expect(await server.statistics.requests == 0)
        }
    }

    @Test func refusedProtocolsAreReported() async throws {
        let tls = try failures.acceptor()
        try await withServer(echo, configure: { $0.tls = tls }) { _, port in
            let client = try client(port) { $0.protocols = ["h2"] }
            #expect(client.readToEnd() == "")
            #expect(client.tls?.failure == "tlsv1 alert no application protocol")
            #expect(await failures.next()?.kind == .handshakeFailed)
        }
    }

    @Test("idle connections end with a close_notify")
    func idle() async throws {
        let tls = try failures.acceptor()
        try await withServer(
            echo,
            configure: {
                $0.tls = tls
                $0.idleTimeout = .milliseconds(50)
            }
        ) { _, port in
            let client = try client(port)
            client.send(request("/a"))
            #expect(client.readResponse()?.status == 200)
            #expect(client.readToEnd() == "")
            #expect(client.tls?.sawCloseNotify == true)
        }
    }

    @Test("a client's close_notify, or its end without one, leaves whole requests answered and half ones unrun", arguments: [true, false])
    func clientEnds(withNotify: Bool) async throws {
        let tls = try failures.acceptor()
        try await withServer(echo, configure: { $0.tls = tls }) { server, port in
            let client = try client(port)
            client.send(request("/whole") + "POST /half HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nabc")
            if withNotify { client.sendCloseNotify() }
            client.finish()
            #expect(client.readToEnd().hasSuffix("/whole "))
            #expect(await server.statistics.requests == 1)
        }
    }

    @Test("a response without length that is cut off does not end like a whole one")
    func cutOff() async throws {
        let application = TestApplication { request, server in
            server.startStream(request.exchange, .text)
            server.write(request.exchange, Array("begin".utf8))
        }
        let tls = try failures.acceptor()
        try await withServer(application, configure: { $0.tls = tls }) { server, port in
            let client = try client(port)
            client.send("GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
            #expect(client.readHead()?.status == 200)
            #expect(client.read(5) == Array("begin".utf8))
            await server.close()
            #expect(client.readToEnd() == "")
            #expect(client.tls?.sawCloseNotify == false)
        }
    }

    @Test("a new certificate is for new connections; old ones go on")
    func replacement() async throws {
        let tls = try failures.acceptor(serial: 1)
        try await withServer(echo, configure: { $0.tls = tls }) { _, port in
            let old = try client(port)
            old.send(request("/a"))
            #expect(old.readResponse()?.body == "/a ")
            tls.replace(with: try context(serial: 2))
            let new = try client(port) { $0.session = old.tls }
            new.send(request("/b"))
            #expect(new.readResponse()?.body == "/b ")
            #expect(new.tls?.serial == 2 && new.tls?.isResumed == false)
            old.send(request("/c"))
            #expect(old.readResponse()?.body == "/c ")
            #expect(old.tls?.serial == 1)
            let resumed = try client(port) { $0.session = new.tls }
            resumed.send(request("/d"))
            #expect(resumed.readResponse()?.body == "/d ")
            #expect(resumed.tls?.isResumed == true)
        }
    }

    @Test func tooManyConnections() async throws {
        let tls = try failures.acceptor()
        try await withServer(
            echo,
            configure: {
                $0.tls = tls
                $0.maxConnections = 1
            }
        ) { _, port in
            let first = try client(port)
            first.send(request("/a"))
            #expect(first.readResponse()?.status == 200)
            let second = try client(port)
            second.shakeHands()
            #expect(second.readResponse()?.status == 503)
            #expect(second.readToEnd() == "")
            #expect(second.tls?.sawCloseNotify == true)
        }
    }

    @Test func drainingFinishesStreams() async throws {
        let application = TestApplication { request, server in
            server.startStream(request.exchange, .text)
            server.write(request.exchange, Array("begin".utf8))
            server.schedule(after: .milliseconds(30)) { server in
                server.write(request.exchange, Array("end".utf8))
                server.finish(request.exchange)
            }
        }
        let tls = try failures.acceptor()
        try await withServer(application, configure: { $0.tls = tls }) { server, port in
            let client = try client(port)
            client.send(request("/stream"))
            #expect(client.readHead()?.status == 200)
            #expect(client.readChunk() == "begin")
            async let drained: Void = server.drain(deadline: .seconds(10))
            #expect(client.readChunk() == "end")
            #expect(client.readChunk() == nil)
            #expect(client.readToEnd() == "")
            #expect(client.tls?.sawCloseNotify == true)
            client.disconnect()
            await drained
        }
    }
}
