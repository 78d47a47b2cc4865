import EventLoops
import HTTP1
import HTTPTypes

/// One HTTP/1 connection as a state machine: bytes, answers and times go in, actions and bytes come out. It knows no socket and no
/// clock, so every order of events can be tested.
///
/// Pipelined requests are handled one after another: the next is parsed when the response before it is complete. So replies are in
/// order by construction, and a request never overtakes one that may change what it asks about.
///
/// Times are milliseconds of the caller's clock.
package final class ConnectionMachine {
    package enum Action {
        /// A head is there: call `admit` or `refuse`.
        case admit(HTTPRequestHead)
        /// The next piece of a body that is not collected.
        case body(RequestBody)
        /// A request is there; it becomes the current exchange and waits for an answer.
        case dispatch(Request)
        /// Ask the application for the response and call `answer`.
        case reject(HTTPRejection)
    }

    package struct Request {
        package let sequence: UInt64
        package let head: HTTPRequestHead
        /// All of it, or what of a body that is not collected was not yet given out.
        package var body: RequestBody
        package let requestID: String
    }

    package enum Phase: Equatable {
        /// Between requests, or inside one that is still arriving.
        case receiving
        /// A request was handed out and its response is not complete.
        case responding
        /// The last response is complete, and what the client still sends is thrown away until it closes.
        case lingering
        /// Nothing is left to do but to close the socket.
        case closed
    }

    /// What is known of the exchange in progress.
    package struct Exchange {
        package let sequence: UInt64
        let requestID: String
        let isHead: Bool
        let version: HTTPRequestHead.Version
        /// What the response has for web pages besides its own fields.
        let crossOrigin: HTTPFields
        var closes: Bool
        var streaming = Streaming.no
        var isCongested = false
        /// Of the stream's keep-alive comments; 0 when there are none.
        var keepAlive: UInt64 = 0

        enum Streaming {
            case no, chunked, plain, bodiless
        }
    }

    struct Times {
        let header, body, idle, write, linger: UInt64

        init(_ configuration: HTTPServerConfiguration) {
            header = ConnectionMachine.milliseconds(configuration.headerTimeout)
            body = ConnectionMachine.milliseconds(configuration.bodyTimeout)
            idle = ConnectionMachine.milliseconds(configuration.idleTimeout)
            write = ConnectionMachine.milliseconds(configuration.writeTimeout)
            linger = ConnectionMachine.milliseconds(configuration.lingerTimeout)
        }
    }

    let configuration: HTTPServerConfiguration
    let times: Times
    let stamps: ResponseStamps
    let parser: HTTPRequestParser
    package internal(set) var phase = Phase.receiving
    package internal(set) var exchange: Exchange?
    var lastSequence: UInt64 = 0
    /// The head that was parsed and whose request is not complete.
    private var head: HTTPRequestHead?
    /// That head's sequence, once the application has accepted it.
    private var admitted: UInt64?
    /// The body of the request that is arriving is given out piece by piece.
    private var isStreamingBody = false
    /// Whoever takes the pieces has enough for now.
    private var isBodyPaused = false
    private var refusal: (HTTPResponse, [UInt8])?
    private var mustAdvance = false
    private var owesContinue = false
    private var isDraining = false
    private var peerHasEnded = false

    // Deadlines; `.max` is none.
    private var receiveDeadline: UInt64
    private var bodyAtDeadline = 0
    var pingDeadline = UInt64.max
    private var writeDeadline = UInt64.max
    private var takenAtDeadline: UInt64 = 0
    private var lingerDeadline = UInt64.max

    package init(configuration: HTTPServerConfiguration, stamps: ResponseStamps, now: UInt64) {
        self.configuration = configuration
        self.stamps = stamps
        times = Times(configuration)
        parser = HTTPRequestParser(limits: configuration.limits)
        receiveDeadline = now + times.header
    }

    static func milliseconds(_ duration: Duration) -> UInt64 {
        let (seconds, attoseconds) = duration.components
        return UInt64(max(0, seconds)) * 1000 + UInt64(max(0, attoseconds)) / 1_000_000_000_000_000
    }

    // MARK: - Input

    /// Whether `next` would use more input now. While false, input waits with the caller.
    package func isReady(unsent: Int) -> Bool {
        // A client that does not read its answers gets no more of them.
        phase == .receiving && !isBodyPaused && unsent <= configuration.congestionWatermark
    }

    /// Parses until there is something to do; nil when the input is used up or must wait.
    package func next(_ input: inout UnsafeRawBufferPointer, output: inout ByteQueue, now: UInt64) -> Action? {
        while isReady(unsent: output.count), !input.isEmpty || mustAdvance {
            mustAdvance = false
            let wasIdle = !parser.isMidMessage
            let result: (consumed: Int, event: HTTPRequestParser.Event?)
            do throws(HTTP1Error) {
                result = try parser.parse(input)
            } catch {
                return .reject(HTTPRejection(error))
            }
            input = UnsafeRawBufferPointer(rebasing: input[result.consumed...])
            switch result.event {
            case .head(let head):
                return accept(head, now: now)
            case .end:
                if let request = complete(output: &output, now: now) { return .dispatch(request) }
            case nil:
                noteProgress(wasIdle: wasIdle, output: &output, now: now)
                if isStreamingBody, !parser.body.isEmpty { return .body(parser.takeBody()) }
            }
        }
        return nil
    }

    private func accept(_ head: HTTPRequestHead, now: UInt64) -> Action {
        self.head = head
        mustAdvance = true
        owesContinue = head.expectsContinue
        receiveDeadline = now + times.body
        bodyAtDeadline = 0
        if let allowed = configuration.allowedHosts, let host = head.host, !allowed.contains(host) {
            return .reject(HTTPRejection(.misdirected, "the host of the request is none of those that this server answers for"))
        }
        return .admit(head)
    }

    private func noteProgress(wasIdle: Bool, output: inout ByteQueue, now: UInt64) {
        if head != nil {
            if owesContinue, parser.bodyCount == 0 {
                output.append(HTTPResponseEncoder.continueResponse)
            }
            owesContinue = false
            if parser.bodyCount - bodyAtDeadline >= configuration.bodyProgress {
                bodyAtDeadline = parser.bodyCount
                receiveDeadline = now + times.body
            }
        } else if wasIdle, parser.isMidMessage {
            // The first request's time runs from the connection on, and pipelined input from when it is looked at.
            receiveDeadline = min(receiveDeadline, now + times.header)
        }
    }

    private func complete(output: inout ByteQueue, now: UInt64) -> Request? {
        guard let head else { return nil }
        self.head = nil
        admitted = nil
        isStreamingBody = false
        isBodyPaused = false
        let body = parser.takeBody()
        let exchange = begin(head)
        if let (response, body) = refusal {
            refusal = nil
            respond(exchange.sequence, response, body: body, output: &output, now: now)
            return nil
        }
        return Request(sequence: exchange.sequence, head: head, body: body, requestID: exchange.requestID)
    }

    private func begin(_ head: HTTPRequestHead?) -> Exchange {
        lastSequence += 1
        let given = head?.request.headerFields[.requestID].flatMap { ResponseStamps.isAcceptable($0) ? $0 : nil }
        let exchange = Exchange(
            sequence: lastSequence, requestID: given ?? stamps.makeRequestID(), isHead: head?.request.method == .head,
            version: head?.version ?? .http1_1, crossOrigin: head.flatMap { configuration.crossOrigin?.fields(for: $0.request) } ?? [:],
            closes: isDraining || head?.isKeepAlive != true)
        self.exchange = exchange
        phase = .responding
        return exchange
    }

    /// The sequence of the exchange that the request which is arriving will be.
    package var nextSequence: UInt64 { lastSequence + 1 }

    /// The application wants the request; `bodyLimit` nil means the configuration's.
    /// - Parameter streams: its body is given out as it comes instead of being collected.
    package func admit(bodyLimit: Int?, streams: Bool = false) {
        admitted = nextSequence
        isStreamingBody = streams
        if let bodyLimit { parser.bodyLimit = max(0, bodyLimit) }
    }

    /// Whether a body that is not collected is arriving.
    package var isReceivingPieces: Bool { phase == .receiving && isStreamingBody }

    /// No more input is used until `resumeBody`; the client is not blamed for the time that passes.
    package func pauseBody() {
        if isReceivingPieces { isBodyPaused = true }
    }

    /// Goes on with a body after `pauseBody`.
    package func resumeBody(now: UInt64) {
        guard isBodyPaused else { return }
        isBodyPaused = false
        receiveDeadline = now + times.body
        bodyAtDeadline = parser.bodyCount
    }

    /// The application does not want the request: its response goes out now and the body is not read.
    package func refuse(_ response: HTTPResponse, body: [UInt8], output: inout ByteQueue, now: UInt64) {
        guard let head else { return }
        if head.body == .none {
            // Nothing is unread, so the connection can go on.
            refusal = (response, body)
        } else {
            answer(response, body: body, output: &output, now: now)
        }
    }

    /// Gives up the accepted request that is still arriving.
    /// - Returns: the sequence of the exchange that it would have been; nil when there is none.
    package func loseAdmitted() -> UInt64? {
        defer { admitted = nil }
        return admitted
    }

    /// The response to a rejection, or a refusal whose body was not read: the last one of this connection.
    package func answer(_ response: HTTPResponse, body: [UInt8], output: inout ByteQueue, now: UInt64) {
        guard phase == .receiving else { return }
        isStreamingBody = false
        isBodyPaused = false
        var exchange = begin(head)
        head = nil
        exchange.closes = true
        self.exchange = exchange
        respond(exchange.sequence, response, body: body, output: &output, now: now)
    }

    /// The peer sends nothing more.
    /// - Returns: the sequence of the exchange that loses its client, in progress or still arriving.
    package func peerEnded(unsent: Int) -> UInt64? {
        peerHasEnded = true
        let lost = exchange?.sequence ?? loseAdmitted()
        exchange = nil
        pingDeadline = .max
        if phase == .responding || unsent == 0 {
            phase = .closed
        } else {
            // Everything is answered: let the answers go out.
            phase = .lingering
        }
        return lost
    }

    /// The connection broke.
    /// - Returns: the sequence of the exchange that loses its client, in progress or still arriving.
    package func failed() -> UInt64? {
        let lost = exchange?.sequence ?? loseAdmitted()
        exchange = nil
        pingDeadline = .max
        phase = .closed
        return lost
    }

    /// No more requests after the current one, or after the next one if there is none.
    package func drain() {
        isDraining = true
        exchange?.closes = true
    }

    /// Whether closing the connection now would take something from its client: a response, or the one to a request that has begun to arrive.
    package var isBusy: Bool {
        switch phase {
        case .receiving: parser.isMidMessage || head != nil
        case .responding, .lingering: true
        case .closed: false
        }
    }

    // MARK: - Output progress

    /// Whether the exchange in progress has just become, or ceased to be, congested.
    package func congestionChange(unsent: Int) -> Bool? {
        guard let isCongested = exchange?.isCongested, exchange?.streaming != .no else { return nil }
        if !isCongested, unsent > configuration.congestionWatermark {
            exchange?.isCongested = true
            return true
        }
        if isCongested, unsent <= configuration.congestionWatermark / 2 {
            exchange?.isCongested = false
            return false
        }
        return nil
    }

    /// The last response is on its way: the socket is to send a FIN after it.
    package var isFinishing: Bool { phase == .lingering }

    func finishExchange(now: UInt64) {
        guard let exchange else { return }
        self.exchange = nil
        pingDeadline = .max
        if exchange.closes {
            phase = .lingering
            lingerDeadline = .max
        } else {
            phase = .receiving
            receiveDeadline = now + times.idle
        }
    }

    // MARK: - Time

    /// Notes how many bytes wait for the client, and how many it has taken so far; asked for only when that matters.
    package func watchOutput(unsent: Int, taken: @autoclosure () -> UInt64, now: UInt64) {
        if unsent == 0 {
            writeDeadline = .max
            guard phase == .lingering else { return }
            if peerHasEnded {
                phase = .closed
            } else if lingerDeadline == .max {
                lingerDeadline = now + times.linger
            }
        } else if writeDeadline == .max {
            writeDeadline = now + times.write
            takenAtDeadline = taken()
        }
    }

    /// When `expire` is to be called, at the latest; `.max` for never.
    package var deadline: UInt64 {
        var next = min(writeDeadline, min(pingDeadline, lingerDeadline))
        if phase == .receiving, !isBodyPaused { next = min(next, receiveDeadline) }
        return next
    }

    package enum Expiry {
        case nothing
        /// Close without a word, or abort a response that the client does not take.
        case close
        case reject(HTTPRejection)
        /// Send a keep-alive comment.
        case ping
    }

    /// Says what time has brought. Called again until it says `nothing`.
    package func expire(now: UInt64, unsent: Int, taken: @autoclosure () -> UInt64) -> Expiry {
        if now >= writeDeadline {
            let taken = taken()
            if unsent > 0, taken < takenAtDeadline + UInt64(max(1, configuration.writeProgress)) { return .close }
            writeDeadline = unsent > 0 ? now + times.write : .max
            takenAtDeadline = taken
        }
        if now >= lingerDeadline { return .close }
        if now >= pingDeadline, let keepAlive = exchange?.keepAlive {
            pingDeadline = now + keepAlive
            // Bytes that wait keep a connection alive as well as a comment does.
            if unsent == 0 { return .ping }
        }
        guard phase == .receiving, !isBodyPaused, now >= receiveDeadline else { return .nothing }
        if head != nil {
            return .reject(HTTPRejection(.bodyTimeout, "the body made no progress for \(times.body / 1000) seconds"))
        }
        if parser.isMidMessage {
            return .reject(HTTPRejection(.headerTimeout, "the header was not complete after \(times.header / 1000) seconds"))
        }
        return .close
    }
}

extension HTTPRejection {
    init(_ error: HTTP1Error) {
        let reason: Reason =
            switch error.code {
            case .malformed: .malformed
            case .targetTooLong: .targetTooLong
            case .headersTooLarge: .headersTooLarge
            case .bodyTooLarge: .bodyTooLarge
            case .unsupportedVersion: .unsupportedVersion
            case .unsupportedTransferCoding: .unsupportedTransferCoding
            case .expectationFailed: .expectationFailed
            }
        self.init(reason, error.message)
    }
}

extension HTTPField.Name {
    /// `x-request-id`, which ties a response and a log line to a request.
    public static let requestID = HTTPField.Name("x-request-id")!
}
