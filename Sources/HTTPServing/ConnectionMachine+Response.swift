import EventLoops
import HTTP1
import HTTPTypes

/// The response half of a connection. Calls for an exchange that is not the current one are ignored.
extension ConnectionMachine {
    private static let scratchSize = 512

    /// A whole response.
    package func respond(_ sequence: UInt64, _ response: HTTPResponse, body: [UInt8], output: inout ByteQueue, now: UInt64) {
        guard let exchange, exchange.sequence == sequence, exchange.streaming == .no else { return }
        let isBodiless = HTTPResponseEncoder.isBodiless(response.status)
        appendHead(response, framing: isBodiless ? .none : .length(body.count), exchange: exchange, output: &output)
        if !isBodiless, !exchange.isHead {
            output.append(body)
        }
        finishExchange(now: now)
    }

    /// The head of a response whose body comes in pieces.
    /// - Parameter keepAlive: milliseconds of silence after which the caller is to send a comment; 0 for never.
    package func startStream(_ sequence: UInt64, _ response: HTTPResponse, keepAlive: UInt64, output: inout ByteQueue, now: UInt64) {
        guard var exchange, exchange.sequence == sequence, exchange.streaming == .no else { return }
        let framing: HTTPResponseEncoder.Framing
        if HTTPResponseEncoder.isBodiless(response.status) {
            exchange.streaming = .bodiless
            framing = .none
        } else if exchange.version == .http1_0 {
            exchange.streaming = exchange.isHead ? .bodiless : .plain
            exchange.closes = true
            framing = .untilClose
        } else {
            exchange.streaming = exchange.isHead ? .bodiless : .chunked
            framing = .chunked
        }
        appendHead(response, framing: framing, exchange: exchange, output: &output)
        if keepAlive > 0, exchange.streaming != .bodiless {
            exchange.keepAlive = keepAlive
            pingDeadline = now + keepAlive
        }
        self.exchange = exchange
    }

    /// The head of a response whose body comes in pieces and has a known length. The caller writes that many bytes before it finishes, or gives up.
    package func startBody(_ sequence: UInt64, _ response: HTTPResponse, length: Int, output: inout ByteQueue, now: UInt64) {
        guard var exchange, exchange.sequence == sequence, exchange.streaming == .no else { return }
        let isBodiless = HTTPResponseEncoder.isBodiless(response.status)
        exchange.streaming = isBodiless || exchange.isHead ? .bodiless : .plain
        appendHead(response, framing: isBodiless ? .none : .length(length), exchange: exchange, output: &output)
        self.exchange = exchange
    }

    /// A piece of a streamed body; nothing for no bytes.
    package func write(_ sequence: UInt64, _ bytes: [UInt8], output: inout ByteQueue, now: UInt64) {
        guard let exchange, exchange.sequence == sequence, !bytes.isEmpty else { return }
        switch exchange.streaming {
        case .no, .bodiless:
            return
        case .plain:
            output.append(bytes)
        case .chunked:
            var header: [UInt8] = []
            HTTPResponseEncoder.appendChunkHeader(bytes.count, to: &header)
            output.append(header)
            output.append(bytes)
            output.append(HTTPResponseEncoder.chunkEnd)
        }
        if exchange.keepAlive > 0 {
            pingDeadline = now + exchange.keepAlive
        }
    }

    /// The end of a streamed body.
    package func finish(_ sequence: UInt64, output: inout ByteQueue, now: UInt64) {
        guard let exchange, exchange.sequence == sequence, exchange.streaming != .no else { return }
        if case .chunked = exchange.streaming {
            output.append(HTTPResponseEncoder.lastChunk)
        }
        finishExchange(now: now)
    }

    private func appendHead(
        _ response: HTTPResponse, framing: HTTPResponseEncoder.Framing, exchange: Exchange, output: inout ByteQueue
    ) {
        let persistence: HTTPResponseEncoder.Persistence = exchange.closes ? .close : exchange.version == .http1_0 ? .keepAlive : .implied
        var response = response
        response.headerFields.append(contentsOf: exchange.crossOrigin)
        var bytes: [UInt8] = []
        bytes.reserveCapacity(ConnectionMachine.scratchSize)
        HTTPResponseEncoder.appendHead(
            response, framing: framing, date: stamps.date, requestID: exchange.requestID, persistence: persistence, to: &bytes)
        output.append(bytes)
    }
}
