import EventLoops
import Glibc
import HTTPServing
import HTTPTypes
import Synchronization
import Testing

private func request(_ path: String, _ fields: String = "", method: String = "GET", body: String = "") -> String {
    let length = body.isEmpty ? "" : "Content-Length: \(body.utf8.count)\r\n"
    return "\(method) \(path) HTTP/1.1\r\nHost: localhost\r\n\(fields)\(length)\r\n\(body)"
}

/// Over real sockets. One after another: each keeps a thread busy with blocking reads.
@Suite(.serialized, .timeLimit(.minutes(2))) struct HTTPServerTests {
    private let echo = TestApplication { request, server in
        let query = request.query.map { "\($0.name)=\($0.value)" }.joined(separator: ",")
        server.respond(
            to: request.exchange, .text, body: Array("\(request.path) \(query) ".utf8) + request.body.joined())
    }

    @Test func requestsAndResponses() async throws {
        try await withServer(echo) { server, port in
            let client = try #require(SocketClient(port: port))
            client.send(request("/a?x=1&y=%20", "X-Request-Id: mine\r\n", method: "POST", body: "hello"))
            let first = try #require(client.readResponse())
            #expect(first.status == 200)
            #expect(first.body == "/a x=1,y=  hello")
            #expect(first.fields["x-request-id"] == "mine")
            #expect(first.fields["content-type"] == "text/plain")
            #expect(first.fields["date"]?.hasSuffix(" GMT") == true)
            #expect(first.fields["connection"] == nil)
            client.send("POST /b HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nX: y\r\n\r\n")
            #expect(client.readResponse()?.body == "/b  abcde")
            client.send(request("/c", method: "HEAD"))
            let head = try #require(client.readResponse(toHead: true))
            #expect(head.fields["content-length"] == "4")
            client.send(request("/d", "Connection: close\r\n"))
            #expect(client.readResponse()?.fields["connection"] == "close")
            #expect(client.readToEnd() == "")
            #expect(await server.statistics.requests == 4)
            #expect(await server.statistics.acceptedConnections == 1)
        }
    }

    @Test("R06 twenty pipelined requests, answered late and out of step")
    func pipelining() async throws {
        let application = TestApplication { request, server in
            let number = Int(request.path.dropFirst()) ?? 0
            // Later requests are ready sooner, were they asked at once.
            server.schedule(after: .milliseconds(number % 3 == 0 ? 3 : 0)) {
                $0.respond(to: request.exchange, .text, body: Array("\(number)".utf8))
            }
        }
        try await withServer(application) { _, port in
            let client = try #require(SocketClient(port: port))
            client.send((0..<20).map { request("/\($0)") }.joined())
            #expect((0..<20).map { _ in client.readResponse()?.body ?? "" } == (0..<20).map(String.init))
        }
    }

    @Test func pipelinedRequestsAndTheEndInOneWrite() async throws {
        try await withServer(echo) { _, port in
            let client = try #require(SocketClient(port: port))
            client.send((0..<20).map { request("/\($0)") }.joined())
            client.finish()
            let all = client.readToEnd()
            #expect(all.split(separator: "HTTP/1.1 200 OK").count == 20)
            #expect(all.hasSuffix("/19  "))
        }
    }

    @Test("R12 a client that leaves is noticed while its response is pending", arguments: [false, true])
    func disconnectWhilePending(byReset: Bool) async throws {
        let application = TestApplication { _, _ in }
        try await withServer(application, configure: { $0.farewellTimeout = .milliseconds(20) }) { server, port in
            let client = try #require(SocketClient(port: port))
            client.send(request("/never"))
            _ = await application.events { $0 == .request("/never") }
            if byReset { client.reset() } else { client.disconnect() }
            let events = await application.events { if case .closed = $0 { true } else { false } }
            #expect(events.count == 1)
            #expect(await server.statistics.abandonedExchanges == 1)
        }
    }

    @Test("R12 a client that leaves is noticed although pipelined input fills its buffer")
    func disconnectBehindFullBuffer() async throws {
        let application = TestApplication { _, _ in }
        try await withServer(application, configure: { $0.pipelineBuffer = 1000 }) { _, port in
            let client = try #require(SocketClient(port: port))
            client.send(request("/never") + String(repeating: request("/more"), count: 1000))
            _ = await application.events { $0 == .request("/never") }
            client.finish()
            client.disconnect()
            let events = await application.events { if case .closed = $0 { true } else { false } }
            #expect(events.count == 1)
        }
    }

    @Test("R12 a client that leaves in the middle of a stream")
    func disconnectWhileStreaming() async throws {
        let application = TestApplication { request, server in
            server.startStream(request.exchange, .text)
            server.write(request.exchange, Array("begin".utf8))
        }
        try await withServer(application) { server, port in
            let client = try #require(SocketClient(port: port))
            client.send(request("/stream"))
            #expect(client.readHead()?.fields["transfer-encoding"] == "chunked")
            #expect(client.readChunk() == "begin")
            client.disconnect()
            let events = await application.events { if case .closed = $0 { true } else { false } }
            guard case .closed(let exchange)? = events.last else { return }
            // Calls for an exchange that is over do nothing.
            await server.write(exchange, [1, 2, 3])
            await server.finish(exchange)
            await server.respond(to: exchange, .text, body: [])
            #expect(await server.statistics.abandonedExchanges == 1)
        }
    }

    @Test("a stream's writes arrive whole and in order; the connection goes on after it")
    func streaming() async throws {
        let application = TestApplication { request, server in
            guard request.path == "/stream" else { return server.respond(to: request.exchange, .text, body: Array("after".utf8)) }
            server.startStream(request.exchange, .text)
            // From another thread, as an engine would.
            Task.detached {
                for i in 0..<500 {
                    server.post { $0.write(request.exchange, Array("data: \(i)\n\n".utf8)) }
                }
                server.post { $0.finish(request.exchange) }
            }
        }
        try await withServer(application) { _, port in
            let client = try #require(SocketClient(port: port))
            client.send(request("/stream"))
            #expect(client.readResponse()?.body == (0..<500).map { "data: \($0)\n\n" }.joined())
            client.send(request("/next"))
            #expect(client.readResponse()?.body == "after")
        }
    }

    @Test("a body in pieces of known length, for GET and HEAD, and the connection goes on")
    func bodiesOfKnownLength() async throws {
        let application = TestApplication { request, server in
            server.startBody(request.exchange, .text, length: 10)
            server.write(request.exchange, Array("01234".utf8))
            server.write(request.exchange, Array("56789".utf8))
            server.finish(request.exchange)
        }
        try await withServer(application) { _, port in
            let client = try #require(SocketClient(port: port))
            for _ in 0..<2 {
                client.send(request("/file"))
                let response = try #require(client.readResponse())
                #expect(response.body == "0123456789" && response.fields["content-length"] == "10" && response.fields["transfer-encoding"] == nil)
                client.send(request("/file", method: "HEAD"))
                let head = try #require(client.readResponse(toHead: true))
                #expect(head.fields["content-length"] == "10")
            }
            let old = try #require(SocketClient(port: port))
            old.send("GET /file HTTP/1.0\r\nHost: localhost\r\n\r\n")
            #expect(old.readToEnd().hasSuffix("\r\n\r\n0123456789"))
        }
    }

    @Test("a body that is given up ends with its connection, and is nobody's afterwards")
    func abortedBodies() async throws {
        let application = TestApplication { request, server in
            server.startBody(request.exchange, .text, length: 10)
            server.write(request.exchange, Array("01234".utf8))
            server.schedule(after: .milliseconds(20)) { server in
                server.abort(request.exchange)
                server.write(request.exchange, Array("56789".utf8))
                server.finish(request.exchange)
            }
        }
        try await withServer(application) { server, port in
            let client = try #require(SocketClient(port: port))
            client.send(request("/file"))
            #expect(client.readToEnd().hasSuffix("\r\n\r\n01234"))
            #expect(await server.statistics.requests == 1)
        }
    }

    @Test func keepAliveComments() async throws {
        let application = TestApplication { request, server in
            server.startStream(request.exchange, .text, keepAlive: .milliseconds(5))
        }
        try await withServer(application) { _, port in
            let client = try #require(SocketClient(port: port))
            client.send(request("/quiet"))
            _ = client.readHead()
            #expect((0..<3).map { _ in client.readChunk() } == [":\n\n", ":\n\n", ":\n\n"])
        }
    }

    @Test("a reader that stops makes its exchange congested, and relieves it by reading on")
    func congestion() async throws {
        let piece = [UInt8](repeating: UInt8(ascii: "x"), count: 10_000)
        let application = TestApplication { request, server in
            server.startStream(request.exchange, .text)
            writeRepeatedly(piece, times: 500, to: request.exchange, on: server)
        }
        try await withServer(application, configure: { $0.sendBufferSize = 16384 }) { server, port in
            let client = try #require(SocketClient(port: port, receiveBuffer: 4096))
            client.send(request("/flood"))
            let events = await application.events { if case .congested(_, true) = $0 { true } else { false } }
            guard case .congested(let exchange, true)? = events.last else { return }
            #expect(events.count == 2)
            let head = client.readHead()
            #expect(head?.status == 200)
            // All that was written in the meantime comes out.
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

    @Test func largeBodies() async throws {
        try await withServer(echo) { _, port in
            let client = try #require(SocketClient(port: port))
            let body = String(repeating: "0123456789", count: 300_000)
            client.send(request("/big", method: "POST", body: body))
            let response = try #require(client.readResponse())
            #expect(response.body == "/big  " + body)
            client.send(request("/again"))
            #expect(client.readResponse()?.body == "/again  ")
        }
    }

    struct Refusal: CustomTestStringConvertible, Sendable {
        let testDescription: String
        let input: String
        let status: Int
    }

    static let refusals: [Refusal] = [
        Refusal(testDescription: "both lengths", input: request("/", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", method: "POST"), status: 400),
        Refusal(testDescription: "no host", input: "GET / HTTP/1.1\r\n\r\n", status: 400),
        Refusal(testDescription: "user information", input: "GET / HTTP/1.1\r\nHost: u@localhost\r\n\r\n", status: 400),
        Refusal(testDescription: "other host", input: "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", status: 421),
        Refusal(testDescription: "other version", input: "GET / HTTP/2.0\r\nHost: localhost\r\n\r\n", status: 505),
        Refusal(testDescription: "long target", input: request("/" + String(repeating: "a", count: 9000)), status: 414),
        Refusal(testDescription: "many fields", input: request("/", String(repeating: "X: 1\r\n", count: 101)), status: 431),
        Refusal(testDescription: "large body", input: request("/", "Content-Length: 99999999\r\n", method: "POST"), status: 413),
        Refusal(testDescription: "unknown coding", input: request("/", "Transfer-Encoding: gzip, chunked\r\n", method: "POST"), status: 501),
        Refusal(testDescription: "unknown expectation", input: request("/", "Expect: x\r\nContent-Length: 1\r\n", method: "POST"), status: 417),
    ]

    @Test("R01–R08 refusals over a socket", arguments: refusals)
    func refuses(_ refusal: Refusal) async throws {
        try await withServer(echo, configure: { $0.allowedHosts = ["localhost"] }) { server, port in
            let client = try #require(SocketClient(port: port))
            // A follower must not be run, and input that is never read must not cost the client its answer.
            client.send(refusal.input + request("/follower") + String(repeating: "x", count: 200_000))
            let response = try #require(client.readResponse())
            #expect(response.status == refusal.status)
            #expect(response.fields["connection"] == "close")
            #expect(response.fields["x-request-id"]?.hasPrefix("req_") == true)
            #expect(client.readToEnd() == "")
            #expect(await server.statistics.requests == 0)
            #expect(await server.statistics.rejections == 1)
            let next = try #require(SocketClient(port: port))
            next.send(request("/alive"))
            #expect(next.readResponse()?.status == 200)
        }
    }

    @Test("R07 an upload without permission is answered before its body")
    func admission() async throws {
        let application = TestApplication(
            admission: { head, _, _ in
                head.headerFields[.authorization] == nil
                    ? .refuse(HTTPResponse(status: .unauthorized), body: Array("no key".utf8)) : .accept(bodyLimit: 10)
            },
            { request, server in server.respond(to: request.exchange, .text, body: request.body.joined()) })
        try await withServer(application) { _, port in
            let client = try #require(SocketClient(port: port))
            client.send("POST /u HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
            let refused = try #require(client.readResponse())
            #expect(refused.status == 401)
            #expect(refused.body == "no key")
            let second = try #require(SocketClient(port: port))
            second.send("POST /u HTTP/1.1\r\nHost: h\r\nAuthorization: k\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
            #expect(second.readHead()?.status == 100)
            second.send("hello")
            #expect(second.readResponse()?.body == "hello")
            second.send("POST /u HTTP/1.1\r\nHost: h\r\nAuthorization: k\r\nExpect: 100-continue\r\nContent-Length: 11\r\n\r\n")
            #expect(second.readResponse()?.status == 413)
        }
    }

    @Test("what was accepted and does not come whole is closed, whoever ends it", arguments: ["leaves", "resets", "stalls", "sends too much", "drains"])
    func acceptedButIncomplete(_ ending: String) async throws {
        let accepted = Mutex<[ExchangeID]>([])
        let application = TestApplication(
            admission: { _, path, exchange in
                guard path == "/u" else { return .refuse(HTTPResponse(status: .unauthorized), body: []) }
                accepted.withLock { $0.append(exchange) }
                return .accept(bodyLimit: 100)
            },
            { request, server in server.respond(to: request.exchange, .text, body: Array("\(request.exchange)".utf8)) })
        try await withServer(application, configure: { $0.bodyTimeout = ending == "stalls" ? .milliseconds(50) : .seconds(60) }) { server, port in
            let client = try #require(SocketClient(port: port))
            // A whole request has the id that it was promised, and hears of no closing.
            client.send(request("/u", method: "POST", body: "whole"))
            #expect(client.readResponse()?.body == accepted.withLock { $0.first?.description })
            client.send("POST /u HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n")
            #expect(client.readHead()?.status == 100)
            switch ending {
            case "leaves": client.disconnect()
            case "resets": client.reset()
            case "sends too much": client.send("65\r\n")
            case "drains": await server.drain(deadline: .zero)
            default: break
            }
            let ids = accepted.withLock { $0 }
            #expect(ids.count == 2)
            let events = await application.events { if case .closed = $0 { true } else { false } }
            #expect(events == [.request("/u"), .closed(ids[1])])
            if ending == "stalls" || ending == "sends too much" {
                #expect(client.readResponse()?.status == (ending == "stalls" ? 408 : 413))
                #expect(await server.statistics.abandonedExchanges == 0)
            } else {
                #expect(await server.statistics.abandonedExchanges == 1)
            }
        }
    }

    @Test("R10, R11 slow clients get 408, silent ones just go")
    func timeouts() async throws {
        try await withServer(
            echo,
            configure: {
                $0.headerTimeout = .milliseconds(50)
                $0.bodyTimeout = .milliseconds(50)
                $0.idleTimeout = .milliseconds(50)
            }
        ) { _, port in
            let silent = try #require(SocketClient(port: port))
            #expect(silent.readToEnd() == "")
            let slow = try #require(SocketClient(port: port))
            slow.send("GET / HTTP/1.1\r\nHo")
            #expect(slow.readResponse()?.status == 408)
            #expect(slow.readToEnd() == "")
            let stalled = try #require(SocketClient(port: port))
            stalled.send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nab")
            #expect(stalled.readResponse()?.status == 408)
            let idle = try #require(SocketClient(port: port))
            idle.send(request("/"))
            #expect(idle.readResponse()?.status == 200)
            #expect(idle.readToEnd() == "")
        }
    }

    @Test func aStalledReaderIsCutOff() async throws {
        let application = TestApplication { request, server in
            server.startStream(request.exchange, .text)
            for _ in 0..<100 { server.write(request.exchange, [UInt8](repeating: 0, count: 65536)) }
        }
        try await withServer(
            application,
            configure: {
                $0.writeTimeout = .milliseconds(50)
                $0.sendBufferSize = 16384
            }
        ) { server, port in
            let client = try #require(SocketClient(port: port, receiveBuffer: 4096))
            client.send(request("/"))
            let events = await application.events { if case .closed = $0 { true } else { false } }
            #expect(events.count == 3)
            #expect(await server.statistics.abandonedExchanges == 1)
        }
    }

    @Test func tooManyConnections() async throws {
        try await withServer(echo, configure: { $0.maxConnections = 2 }) { _, port in
            var clients: [SocketClient] = []
            for _ in 0..<2 {
                let client = try #require(SocketClient(port: port))
                client.send(request("/"))
                #expect(client.readResponse()?.status == 200)
                clients.append(client)
            }
            let third = try #require(SocketClient(port: port))
            #expect(third.readResponse()?.status == 503)
            #expect(third.readToEnd() == "")
            clients[0].send(request("/still"))
            #expect(clients[0].readResponse()?.body == "/still  ")
        }
    }

    @Test("promise 9: draining lets a stream end and answers on open and new connections, each for the last time")
    func draining() async throws {
        let exchanges = Mutex<[ExchangeID]>([])
        let application = TestApplication { request, server in
            guard request.path == "/stream" else { return server.respond(to: request.exchange, .text, body: []) }
            server.startStream(request.exchange, .text)
            server.write(request.exchange, Array("first".utf8))
            exchanges.withLock { $0.append(request.exchange) }
        }
        try await withServer(application) { server, port in
            let idle = try #require(SocketClient(port: port))
            idle.send(request("/"))
            _ = idle.readResponse()
            let busy = try #require(SocketClient(port: port))
            busy.send(request("/stream"))
            _ = busy.readHead()
            #expect(busy.readChunk() == "first")
            let silent = try #require(SocketClient(port: port))
            let drained = Task { await server.drain(deadline: .seconds(60)) }
            // The drain begins on the server's thread some time after this; a connection that came before is told all the same.
            while await !server.isDraining { await Task.yield() }
            for client in [idle, try #require(SocketClient(port: port))] {
                client.send(request("/") + request("/"))
                let response = client.readResponse()
                #expect(response?.status == 200 && response?.fields["connection"] == "close")
                #expect(client.readToEnd() == "")
            }
            let exchange = try #require(exchanges.withLock { $0.first })
            await server.write(exchange, Array("second".utf8))
            await server.finish(exchange)
            #expect(busy.readChunk() == "second")
            #expect(busy.readChunk() == nil)
            #expect(busy.readToEnd() == "")
            for client in [idle, busy] { client.disconnect() }
            await drained.value
            // Nobody waits for one that asks nothing; it goes with the server.
            #expect(await server.statistics.openConnections >= 1)
            await server.close()
            #expect(silent.readToEnd() == "" && SocketClient(port: port) == nil)
            #expect(await server.statistics.abandonedExchanges == 0)
        }
    }

    @Test func drainingCutsOffWhatTakesTooLong() async throws {
        let application = TestApplication { _, _ in }
        try await withServer(application, configure: { $0.farewellTimeout = .milliseconds(20) }) { server, port in
            let client = try #require(SocketClient(port: port))
            client.send(request("/never"))
            _ = await application.events { $0 == .request("/never") }
            await server.drain(deadline: .milliseconds(20))
            #expect(await server.statistics.abandonedExchanges == 1)
            #expect(client.readToEnd() == "")
        }
    }

    @Test("what is still open at the end of a drain is ended by the application, and what it says still leaves")
    func drainingEndsWhatTakesTooLong() async throws {
        let exchanges = Mutex<[ExchangeID]>([])
        let application = TestApplication(
            drainIsOver: { server in
                for exchange in exchanges.withLock({ $0 }) {
                    server.write(exchange, Array("the end".utf8))
                    server.finish(exchange)
                }
            }
        ) { request, server in
            server.startStream(request.exchange, .text)
            server.write(request.exchange, Array("first".utf8))
            exchanges.withLock { $0.append(request.exchange) }
        }
        try await withServer(application, configure: { $0.farewellTimeout = .seconds(60) }) { server, port in
            let clients = try (0..<3).map { _ in try #require(SocketClient(port: port)) }
            for client in clients {
                client.send(request("/stream"))
                _ = client.readHead()
                #expect(client.readChunk() == "first")
            }
            let drained = Task { await server.drain(deadline: .milliseconds(20)) }
            for client in clients {
                #expect(client.readChunk() == "the end")
                #expect(client.readChunk() == nil)
                #expect(client.readToEnd() == "")
                client.disconnect()
            }
            await drained.value
            #expect(await server.statistics.abandonedExchanges == 0)
        }
    }

    @Test("a thousand quick connections leave no descriptor")
    func quickConnections() async throws {
        try await withServer(echo) { server, port in
            for i in 0..<1000 {
                let client = try #require(SocketClient(port: port))
                switch i % 4 {
                case 0:
                    client.send(request("/", "Connection: close\r\n"))
                    #expect(client.readToEnd().hasPrefix("HTTP/1.1 200 OK"))
                case 1:
                    client.send(request("/"))
                    client.reset()
                case 2:
                    client.send("GET / HT")
                    client.disconnect()
                default:
                    client.disconnect()
                }
            }
            while await server.statistics.acceptedConnections < 1000 { await Task.yield() }
            await server.drain(deadline: .seconds(30))
            #expect(await server.statistics.acceptedConnections == 1000)
            await server.close()
            // What is closed is given back at the loop's next turn.
            while await server.statistics.openConnections > 0 { await Task.yield() }
            for _ in 0..<100 {
                if socketsOfThisProcess(port: port) == 0 { break }
                await Task.yield()
            }
            #expect(await server.statistics.openConnections == 0)
            #expect(socketsOfThisProcess(port: port) == 0)
        }
    }

    @Test func postsOfOneThreadKeepTheirOrder() async throws {
        try await withServer(echo) { server, _ in
            let seen = Mutex<[Int]>([])
            for i in 0..<10_000 {
                server.post { _ in seen.withLock { $0.append(i) } }
            }
            await withCheckedContinuation { continuation in server.post { _ in continuation.resume() } }
            #expect(seen.withLock { $0 } == Array(0..<10_000))
        }
    }

    @Test func timersOfTheServer() async throws {
        try await withServer(echo) { server, _ in
            let seen = Mutex<[String]>([])
            await withCheckedContinuation { continuation in
                server.post { server in
                    let cancelled = server.schedule(after: .milliseconds(1)) { _ in seen.withLock { $0.append("cancelled") } }
                    server.cancel(cancelled)
                    server.schedule(after: .milliseconds(2), every: .milliseconds(1)) { _ in seen.withLock { $0.append("again") } }
                    server.schedule(after: .milliseconds(50)) { _ in
                        seen.withLock { $0.append("last") }
                        continuation.resume()
                    }
                }
            }
            let order = seen.withLock { $0 }
            #expect(order.prefix(2) == ["again", "again"])
            #expect(order.contains("last"))
            #expect(!order.contains("cancelled"))
        }
    }

    @Test func aPortInUseIsNamed() async throws {
        try await withServer(echo) { _, port in
            let loop = try EventLoop(name: "second")
            let second = HTTPServer(loop: loop, configuration: HTTPServerConfiguration(), application: echo)
            do {
                _ = try await second.listen(host: "127.0.0.1", port: port)
                Issue.record("bound a port twice")
            } catch let error as EventLoopError {
                #expect(error.message == "listening on 127.0.0.1 port \(port): address already in use")
            }
            await second.close()
            loop.shutdown()
        }
    }
}

/// Writes one piece in each of many turns of the loop.
func writeRepeatedly(_ piece: [UInt8], times: Int, to exchange: ExchangeID, on server: isolated HTTPServer) {
    guard times > 0 else { return }
    server.write(exchange, piece)
    server.post { writeRepeatedly(piece, times: times - 1, to: exchange, on: $0) }
}

/// How many of this process's descriptors are sockets bound to a local port, from the kernel's own tables.
private func socketsOfThisProcess(port: Int) -> Int {
    let hexadecimal = String(port, radix: 16, uppercase: true)
    let suffix = ":" + String(repeating: "0", count: 4 - hexadecimal.count) + hexadecimal
    let inodes = Set(
        readFile("/proc/self/net/tcp").split(separator: "\n").dropFirst().compactMap { line -> Substring? in
            let columns = line.split(separator: " ")
            return columns.count > 9 && columns[1].hasSuffix(suffix) ? columns[9] : nil
        })
    var count = 0
    for descriptor in 0..<4096 {
        var target = [UInt8](repeating: 0, count: 64)
        let length = target.withUnsafeMutableBytes { readlink("/proc/self/fd/\(descriptor)", $0.baseAddress!, $0.count) }
        guard length > 0 else { continue }
        let name = String(decoding: target[..<length], as: UTF8.self)
        if name.hasPrefix("socket:["), inodes.contains(name.dropFirst(8).dropLast()) { count += 1 }
    }
    return count
}

private func readFile(_ path: String) -> String {
    let file = open(path, O_RDONLY)
    defer { close(file) }
    var all: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 65536)
    while case let count = read(file, &buffer, buffer.count), count > 0 { all.append(contentsOf: buffer[..<count]) }
    return String(decoding: all, as: UTF8.self)
}
