import EventLoops
import HTTPTypes
import Testing

import HTTPServing

/// A connection without socket and clock: text goes in, text and a log of actions come out.
private final class Harness {
    let machine: ConnectionMachine
    var output = ByteQueue()
    var now: UInt64 = 1_000_000
    var log: [String] = []
    /// What the client has taken.
    var sent: UInt64 = 0
    var refusal: HTTPResponse?
    var bodyLimit: Int?
    /// Bodies are given out in pieces, and each piece is enough for now.
    var streams = false, pauses = false

    init(_ configure: (inout HTTPServerConfiguration) -> Void = { _ in }) {
        var configuration = HTTPServerConfiguration()
        configure(&configuration)
        machine = ConnectionMachine(configuration: configuration, stamps: ResponseStamps(seed: 1), now: now)
    }

    /// Returns what the machine did not take.
    @discardableResult
    func receive(_ text: String) -> String {
        Array(text.utf8).withUnsafeBytes { bytes in
            var rest = bytes
            while let action = machine.next(&rest, output: &output, now: now) {
                switch action {
                case .admit(let head):
                    if let refusal {
                        log.append("refuse \(head.path)")
                        machine.refuse(refusal, body: Array("no".utf8), output: &output, now: now)
                    } else {
                        machine.admit(bodyLimit: bodyLimit, streams: streams)
                    }
                case .body(let piece):
                    log.append("piece \(String(decoding: piece.joined(), as: UTF8.self))")
                    if pauses { machine.pauseBody() }
                case .dispatch(let request):
                    log.append("\(request.sequence) \(request.head.path) \(String(decoding: request.body.joined(), as: UTF8.self))")
                case .reject(let rejection):
                    reject(rejection)
                }
            }
            return String(decoding: rest, as: UTF8.self)
        }
    }

    func reject(_ rejection: HTTPRejection) {
        log.append("reject \(rejection.reason)")
        machine.answer(HTTPResponse(status: .badRequest), body: [], output: &output, now: now)
    }

    func respond(_ sequence: UInt64, _ body: String = "ok", _ status: HTTPResponse.Status = .ok) {
        machine.respond(sequence, HTTPResponse(status: status), body: Array(body.utf8), output: &output, now: now)
    }

    func write(_ sequence: UInt64, _ text: String) {
        machine.write(sequence, Array(text.utf8), output: &output, now: now)
    }

    /// Everything that waits goes to the client; lines that vary are left out.
    func take() -> String {
        let bytes = output.contents()
        output.removeAll()
        sent += UInt64(bytes.count)
        machine.watchOutput(unsent: 0, taken: sent, now: now)
        return String(decoding: bytes, as: UTF8.self).split(separator: "\r\n", omittingEmptySubsequences: false)
            .filter { !$0.hasPrefix("date: ") && !$0.hasPrefix("x-request-id: ") }.joined(separator: "|")
    }

    /// Lets time pass and does what it brings, as the server's sweeper would.
    func pass(_ milliseconds: UInt64) {
        machine.watchOutput(unsent: output.count, taken: sent, now: now)
        now += milliseconds
        while true {
            switch machine.expire(now: now, unsent: output.count, taken: sent) {
            case .nothing: return
            case .close:
                log.append("close")
                _ = machine.failed()
                return
            case .reject(let rejection):
                reject(rejection)
            case .ping:
                log.append("ping")
                if let sequence = machine.exchange?.sequence { write(sequence, ":\n\n") }
            }
        }
    }
}

private let get = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n"

@Suite struct ConnectionMachineTests {
    @Test func oneRequest() {
        let connection = Harness()
        #expect(connection.receive(get) == "")
        #expect(connection.log == ["1 /a "])
        #expect(connection.machine.phase == .responding)
        connection.respond(1)
        #expect(connection.take() == "HTTP/1.1 200 OK|content-length: 2||ok")
        #expect(connection.machine.phase == .receiving)
    }

    @Test func aPipelinedRequestWaitsForTheResponseBeforeIt() {
        let connection = Harness()
        let rest = connection.receive(get + "GET /b HTTP/1.1\r\nHost: h\r\n\r\n")
        #expect(connection.log == ["1 /a "])
        #expect(rest == "GET /b HTTP/1.1\r\nHost: h\r\n\r\n")
        connection.respond(2, "not yet asked")
        #expect(connection.take() == "")
        connection.respond(1)
        #expect(connection.receive(rest) == "")
        #expect(connection.log == ["1 /a ", "2 /b "])
        connection.respond(1, "twice")
        connection.respond(2, "b")
        #expect(connection.take() == "HTTP/1.1 200 OK|content-length: 2||okHTTP/1.1 200 OK|content-length: 1||b")
    }

    @Test func requestsByteByByte() {
        let connection = Harness()
        for character in "POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n".utf8 {
            connection.receive(String(UnicodeScalar(character)))
        }
        #expect(connection.log == ["1 /p abc"])
    }

    @Test func closingRequests() {
        for request in ["GET /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", "GET /a HTTP/1.0\r\n\r\n"] {
            let connection = Harness()
            connection.receive(request + get)
            connection.respond(1)
            #expect(connection.take() == "HTTP/1.1 200 OK|content-length: 2|connection: close||ok")
            #expect(connection.machine.isFinishing)
            // What follows is not run.
            connection.receive(get)
            #expect(connection.log == ["1 /a "])
        }
    }

    @Test func http10ThatStays() {
        let connection = Harness()
        connection.receive("GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        connection.respond(1)
        #expect(connection.take() == "HTTP/1.1 200 OK|content-length: 2|connection: keep-alive||ok")
        #expect(connection.machine.phase == .receiving)
    }

    @Test func headAndBodilessResponses() {
        let connection = Harness()
        connection.receive("HEAD /a HTTP/1.1\r\nHost: h\r\n\r\n")
        connection.respond(1, "four")
        #expect(connection.take() == "HTTP/1.1 200 OK|content-length: 4||")
        connection.receive(get)
        connection.respond(2, "ignored", .noContent)
        #expect(connection.take() == "HTTP/1.1 204 No Content||")
        connection.receive("HEAD /a HTTP/1.1\r\nHost: h\r\n\r\n")
        connection.machine.startStream(3, HTTPResponse(status: .ok), keepAlive: 0, output: &connection.output, now: connection.now)
        connection.write(3, "ignored")
        connection.machine.finish(3, output: &connection.output, now: connection.now)
        #expect(connection.take() == "HTTP/1.1 200 OK|transfer-encoding: chunked||")
        #expect(connection.machine.phase == .receiving)
    }

    @Test func streams() {
        let connection = Harness()
        connection.receive(get)
        connection.write(1, "before the head")
        connection.machine.startStream(1, HTTPResponse(status: .ok), keepAlive: 0, output: &connection.output, now: connection.now)
        connection.write(1, "hello")
        connection.write(1, "")
        connection.write(1, String(repeating: "x", count: 16))
        connection.respond(1, "too late")
        connection.machine.finish(1, output: &connection.output, now: connection.now)
        connection.write(1, "after the end")
        #expect(connection.take() == "HTTP/1.1 200 OK|transfer-encoding: chunked||5|hello|10|xxxxxxxxxxxxxxxx|0||")
        #expect(connection.machine.phase == .receiving)
    }

    @Test func streamsToHTTP10EndWithTheConnection() {
        let connection = Harness()
        connection.receive("GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        connection.machine.startStream(1, HTTPResponse(status: .ok), keepAlive: 0, output: &connection.output, now: connection.now)
        connection.write(1, "hello")
        connection.machine.finish(1, output: &connection.output, now: connection.now)
        #expect(connection.take() == "HTTP/1.1 200 OK|connection: close||hello")
        #expect(connection.machine.isFinishing)
    }

    @Test("R01 a refused request ends the connection and its follower is not run")
    func rejection() {
        let connection = Harness()
        connection.receive("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + get)
        #expect(connection.log == ["reject malformed"])
        #expect(connection.take() == "HTTP/1.1 400 Bad Request|content-length: 0|connection: close||")
        #expect(connection.machine.isFinishing)
    }

    @Test func rejectionBehindAGoodRequest() {
        let connection = Harness()
        let rest = connection.receive(get + "NONSENSE\r\n\r\n")
        connection.respond(1)
        connection.receive(rest)
        #expect(connection.log == ["1 /a ", "reject malformed"])
        #expect(connection.take() == "HTTP/1.1 200 OK|content-length: 2||okHTTP/1.1 400 Bad Request|content-length: 0|connection: close||")
    }

    @Test("R04 a host that is not allowed")
    func misdirected() {
        let connection = Harness { $0.allowedHosts = ["localhost", "127.0.0.1"] }
        connection.receive("GET /a HTTP/1.1\r\nHost: LOCALHOST:8080\r\n\r\n")
        connection.respond(1)
        connection.receive("GET /b HTTP/1.1\r\nHost: evil.example\r\n\r\n")
        #expect(connection.log == ["1 /a ", "reject misdirected"])
    }

    @Test("R06 100-continue is sent when the body is waited for, and only then")
    func expectContinue() {
        let start = "POST /p HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
        let patient = Harness()
        patient.receive(start)
        #expect(patient.take() == "HTTP/1.1 100 Continue||")
        patient.receive("a")
        patient.receive("bc")
        #expect(patient.take() == "")
        #expect(patient.log == ["1 /p abc"])
        let eager = Harness()
        eager.receive(start + "a")
        eager.receive("bc")
        #expect(eager.take() == "")
        #expect(eager.log == ["1 /p abc"])
    }

    @Test("R07 a refused upload is answered before its body")
    func refusedUpload() {
        let connection = Harness()
        connection.refusal = HTTPResponse(status: .unauthorized)
        connection.receive("POST /p HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        #expect(connection.take() == "HTTP/1.1 401 Unauthorized|content-length: 2|connection: close||no")
        connection.receive("abc" + get)
        #expect(connection.log == ["refuse /p"])
    }

    @Test func aRefusalWithoutBodyKeepsTheConnection() {
        let connection = Harness()
        connection.refusal = HTTPResponse(status: .unauthorized)
        connection.receive(get)
        #expect(connection.take() == "HTTP/1.1 401 Unauthorized|content-length: 2||no")
        connection.refusal = nil
        connection.receive(get)
        #expect(connection.log == ["refuse /a", "2 /a "])
    }

    @Test func bodiesInPieces() {
        let connection = Harness()
        connection.streams = true
        connection.receive("POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\n\r\nab")
        connection.receive("cd")
        #expect(connection.machine.isReceivingPieces)
        connection.receive("ef")
        // What came with the end is handed over with it.
        #expect(connection.log == ["piece ab", "piece cd", "1 /a ef"])
        connection.respond(1)
        connection.streams = false
        connection.receive("POST /b HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nx")
        connection.receive("y")
        #expect(connection.log.dropFirst(3) == ["2 /b xy"])
    }

    @Test func aPausedBodyTakesNothingAndBlamesNobody() {
        let connection = Harness()
        connection.streams = true
        connection.pauses = true
        connection.receive("POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 8\r\n\r\nab")
        #expect(!connection.machine.isReady(unsent: 0))
        #expect(connection.receive("cdef") == "cdef")
        connection.pass(10_000_000)
        #expect(connection.log == ["piece ab"] && connection.machine.deadline == .max)
        connection.machine.resumeBody(now: connection.now)
        connection.pauses = false
        #expect(connection.receive("cdef") == "")
        // From now on it is the client's turn again.
        connection.pass(30_001)
        #expect(connection.log == ["piece ab", "piece cdef", "reject bodyTimeout"])
    }

    @Test func bodyLimitOfTheRoute() {
        let connection = Harness { $0.limits.bodyBytes = 2 }
        connection.bodyLimit = 3
        connection.receive("POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc")
        connection.respond(1)
        connection.bodyLimit = nil
        connection.receive("POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc")
        #expect(connection.log == ["1 /p abc", "reject bodyTooLarge"])
    }

    @Test func requestIDs() {
        func echoed(_ sent: String?) -> String? {
            let connection = Harness()
            connection.receive("GET /a HTTP/1.1\r\nHost: h\r\n\(sent.map { "X-Request-ID: \($0)\r\n" } ?? "")\r\n")
            connection.respond(1)
            let lines = String(decoding: connection.output.contents(), as: UTF8.self).split(separator: "\r\n")
            return lines.first { $0.hasPrefix("x-request-id: ") }.map { String($0.dropFirst(14)) }
        }
        #expect(echoed("abc-1.2_X") == "abc-1.2_X")
        #expect(echoed(String(repeating: "a", count: 128)) == String(repeating: "a", count: 128))
        for bad in [nil, "", "a b", "a\"b", "é", "a,b", String(repeating: "a", count: 129)] {
            #expect(echoed(bad) == "req_00000000000000019e3779b97f4a7c15")
        }
    }

    @Test func theClientLeaves() {
        let waiting = Harness()
        waiting.receive(get)
        #expect(waiting.machine.peerEnded(unsent: 0) == 1)
        #expect(waiting.machine.phase == .closed)
        waiting.respond(1)
        #expect(waiting.take() == "")

        let streaming = Harness()
        streaming.receive(get)
        streaming.machine.startStream(1, HTTPResponse(status: .ok), keepAlive: 5, output: &streaming.output, now: streaming.now)
        #expect(streaming.machine.failed() == 1)
        #expect(streaming.machine.deadline == .max)

        let idle = Harness()
        idle.receive(get)
        idle.respond(1)
        _ = idle.take()
        #expect(idle.machine.peerEnded(unsent: 0) == nil)
        #expect(idle.machine.phase == .closed)
    }

    @Test func theClientLeavesBeforeItsRequestIsComplete() {
        let start = "POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n"
        let ended = Harness()
        ended.receive(get)
        ended.respond(1)
        _ = ended.take()
        ended.receive(start + "ab")
        #expect(ended.machine.peerEnded(unsent: 0) == 2)
        #expect(ended.machine.failed() == nil, "once is enough")

        let broken = Harness()
        broken.receive(start)
        #expect(broken.machine.failed() == 1)

        // Of these nothing was promised: the head is incomplete, or the request was refused, or it is complete.
        let early = Harness()
        early.receive(String(start.dropLast(2)))
        #expect(early.machine.peerEnded(unsent: 0) == nil)
        let refused = Harness()
        refused.refusal = HTTPResponse(status: .unauthorized)
        refused.receive(start)
        #expect(refused.machine.failed() == nil)
        let complete = Harness()
        complete.receive(start + "abc")
        complete.respond(1)
        #expect(complete.machine.loseAdmitted() == nil && complete.machine.failed() == nil)
    }

    @Test func answersStillLeaveAfterTheClientsEnd() {
        let connection = Harness()
        connection.receive(get)
        connection.respond(1)
        #expect(connection.machine.peerEnded(unsent: connection.output.count) == nil)
        #expect(connection.machine.phase == .lingering)
        #expect(connection.take() == "HTTP/1.1 200 OK|content-length: 2||ok")
        #expect(connection.machine.phase == .closed)
    }

    @Test("R10 a head that does not come")
    func headerTimeout() {
        let silent = Harness()
        silent.pass(9999)
        #expect(silent.log == [])
        silent.pass(1)
        #expect(silent.log == ["close"])

        let slow = Harness()
        slow.pass(4000)
        slow.receive("GET / HTTP/1.1\r\n")
        // More bytes do not win more time.
        for _ in 0..<5 {
            slow.receive("X: 1\r\n")
            slow.pass(1199)
        }
        #expect(slow.log == [])
        slow.pass(5)
        #expect(slow.log == ["reject headerTimeout"])
        #expect(slow.take() == "HTTP/1.1 400 Bad Request|content-length: 0|connection: close||")
    }

    @Test("R10 the second head has its own time")
    func headerTimeoutLater() {
        let connection = Harness()
        connection.receive(get)
        connection.pass(20_000)
        connection.respond(1)
        _ = connection.take()
        connection.pass(60_000)
        connection.receive("GET ")
        connection.pass(9_999)
        #expect(connection.log == ["1 /a "])
        connection.pass(1)
        #expect(connection.log == ["1 /a ", "reject headerTimeout"])
    }

    @Test("R11 a body that does not come, or trickles")
    func bodyTimeout() {
        let start = "POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n"
        let connection = Harness()
        connection.receive(start)
        // Bodies that move on may take their time.
        for _ in 0..<10 {
            connection.pass(20_000)
            connection.receive(String(repeating: "x", count: 4096))
        }
        #expect(connection.log == [])
        for _ in 0..<29 {
            connection.pass(1000)
            connection.receive("x")
        }
        #expect(connection.log == [])
        connection.pass(1000)
        #expect(connection.log == ["reject bodyTimeout"])
    }

    @Test func idleTimeout() {
        let connection = Harness()
        connection.receive(get)
        connection.pass(1_000_000)
        connection.respond(1)
        _ = connection.take()
        connection.pass(74_999)
        // Empty lines are not a request.
        connection.receive("\r\n\r\n")
        #expect(connection.log == ["1 /a "])
        connection.pass(1)
        #expect(connection.log == ["1 /a ", "close"])
    }

    @Test("a client that takes nothing, or less than it must", arguments: [(0, true), (999, true), (1000, false)])
    func slowReaders(_ bytes: Int, isGone: Bool) {
        let connection = Harness { $0.writeProgress = 1000 }
        connection.receive(get)
        connection.machine.startStream(1, HTTPResponse(status: .ok), keepAlive: 0, output: &connection.output, now: connection.now)
        connection.write(1, String(repeating: "x", count: 5000))
        for period in 1...3 {
            connection.pass(29_000)
            connection.sent += UInt64(bytes)
            connection.output.removeFirst(bytes)
            #expect(connection.log == ["1 /a "], "period \(period)")
            connection.pass(1000)
            if isGone { break }
        }
        #expect(connection.log == (isGone ? ["1 /a ", "close"] : ["1 /a "]))
        #expect(connection.machine.phase == (isGone ? .closed : .responding))
    }

    @Test("who takes all that there is has nothing to be blamed for")
    func aReaderThatIsUpToDate() {
        let connection = Harness { $0.writeProgress = 1000 }
        connection.receive(get)
        connection.machine.startStream(1, HTTPResponse(status: .ok), keepAlive: 0, output: &connection.output, now: connection.now)
        for _ in 0..<5 {
            connection.write(1, "x")
            connection.pass(20_000)
            _ = connection.take()
            connection.pass(20_000)
        }
        #expect(connection.log == ["1 /a "])
    }

    @Test func lingering() {
        let connection = Harness()
        connection.receive("GET /a HTTP/1.0\r\n\r\n")
        connection.respond(1)
        _ = connection.take()
        connection.receive("more")
        connection.pass(1999)
        #expect(connection.log == ["1 /a "])
        connection.pass(1)
        #expect(connection.log == ["1 /a ", "close"])
    }

    @Test func keepAliveComments() {
        let connection = Harness()
        connection.receive(get)
        connection.machine.startStream(1, HTTPResponse(status: .ok), keepAlive: 15_000, output: &connection.output, now: connection.now)
        _ = connection.take()
        connection.pass(14_999)
        #expect(connection.log == ["1 /a "])
        connection.write(1, "x")
        _ = connection.take()
        connection.pass(14_999)
        #expect(connection.log == ["1 /a "])
        connection.pass(1)
        #expect(connection.log == ["1 /a ", "ping"])
        #expect(connection.take() == "3|:\n\n|")
        connection.pass(15_000)
        // One waits already: no second is added.
        connection.pass(15_000)
        #expect(connection.log == ["1 /a ", "ping", "ping"])
        _ = connection.take()
        connection.machine.finish(1, output: &connection.output, now: connection.now)
        _ = connection.take()
        connection.pass(30_000)
        #expect(connection.log == ["1 /a ", "ping", "ping"])
    }

    @Test func congestion() {
        let connection = Harness { $0.congestionWatermark = 100 }
        connection.receive(get)
        #expect(connection.machine.congestionChange(unsent: 1000) == nil)
        connection.machine.startStream(1, HTTPResponse(status: .ok), keepAlive: 0, output: &connection.output, now: connection.now)
        let changes = [50, 100, 101, 200, 100, 51, 50, 0, 100, 101].map { connection.machine.congestionChange(unsent: $0) }
        #expect(changes == [nil, nil, true, nil, nil, nil, false, nil, nil, true])
    }

    @Test("promise 8: a client that does not read gets no more answers")
    func pipelineOfASlowReader() {
        let connection = Harness { $0.congestionWatermark = 1000 }
        let rest = connection.receive(get + get)
        connection.respond(1, String(repeating: "x", count: 2000))
        #expect(connection.receive(rest) == rest)
        #expect(connection.log == ["1 /a "])
        _ = connection.take()
        connection.receive(rest)
        #expect(connection.log == ["1 /a ", "2 /a "])
    }

    @Test("promise 9: draining")
    func draining() {
        // Whoever asks once more gets one more answer, and with it the end.
        let idle = Harness()
        idle.machine.drain()
        #expect(idle.machine.phase == .receiving && !idle.machine.isBusy)
        #expect(idle.receive(get + get) == get)
        idle.respond(1, "no", .serviceUnavailable)
        #expect(idle.take() == "HTTP/1.1 503 Service Unavailable|content-length: 2|connection: close||no")
        #expect(idle.log == ["1 /a "] && idle.machine.isFinishing)

        let busy = Harness()
        busy.receive(get)
        busy.machine.drain()
        #expect(busy.machine.phase == .responding && busy.machine.isBusy)
        busy.respond(1)
        #expect(busy.take() == "HTTP/1.1 200 OK|content-length: 2|connection: close||ok")
        #expect(busy.machine.isFinishing && busy.machine.isBusy)

        let arriving = Harness()
        arriving.receive("POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\na")
        arriving.machine.drain()
        #expect(arriving.machine.isBusy)
        arriving.receive("bc")
        arriving.respond(1)
        #expect(arriving.log == ["1 /p abc"])
        #expect(arriving.machine.isFinishing)
    }
}
