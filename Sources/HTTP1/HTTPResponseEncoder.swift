import HTTPTypes

/// Writes response heads, chunks and interim responses. Bytes only; what goes out when is the connection's business.
public enum HTTPResponseEncoder {
    /// How the end of the body is told.
    public enum Framing: Sendable, Equatable {
        /// A status that never has a body (1xx, 204, 304), or one whose length must not be told.
        case none
        case length(Int)
        case chunked
        /// The end of the connection ends the body: HTTP/1.0 without a length.
        case untilClose
    }

    /// What becomes of the connection, and whether the client must be told.
    public enum Persistence: Sendable {
        /// It stays open, as HTTP/1.1 takes for granted.
        case implied
        /// It stays open, and an HTTP/1.0 client is told so.
        case keepAlive
        case close
    }

    public static let continueResponse = Array("HTTP/1.1 100 Continue\r\n\r\n".utf8)

    /// Whether responses of this status have no body and no length (RFC 9110 8.6).
    public static func isBodiless(_ status: HTTPResponse.Status) -> Bool {
        status.code == 204 || status.code == 304 || status.code < 200
    }

    /// Appends status line, the response's fields and the ones that frame it. Framing fields in `head` are left out: they are not the caller's.
    /// - Parameters:
    ///   - date: the value of the date field, from `HTTPDate`.
    ///   - requestID: the value of the x-request-id field; must be a valid field value.
    ///   - persistence: whether the connection ends after this response.
    public static func appendHead(
        _ head: HTTPResponse, framing: Framing, date: [UInt8], requestID: String, persistence: Persistence, to out: inout [UInt8]
    ) {
        append("HTTP/1.1 ", to: &out)
        appendDecimal(head.status.code, to: &out)
        out.append(UInt8(ascii: " "))
        out.append(contentsOf: head.status.reasonPhrase.utf8)
        append("\r\n", to: &out)
        for field in head.headerFields where !isReserved(field.name) {
            out.append(contentsOf: field.name.rawName.utf8)
            append(": ", to: &out)
            field.withUnsafeBytesOfValue { out.append(contentsOf: $0) }
            append("\r\n", to: &out)
        }
        append("date: ", to: &out)
        out.append(contentsOf: date)
        append("\r\nx-request-id: ", to: &out)
        out.append(contentsOf: requestID.utf8)
        switch framing {
        case .none, .untilClose:
            break
        case .length(let length):
            append("\r\ncontent-length: ", to: &out)
            appendDecimal(length, to: &out)
        case .chunked:
            append("\r\ntransfer-encoding: chunked", to: &out)
        }
        switch persistence {
        case .implied: append("\r\n\r\n", to: &out)
        case .keepAlive: append("\r\nconnection: keep-alive\r\n\r\n", to: &out)
        case .close: append("\r\nconnection: close\r\n\r\n", to: &out)
        }
    }

    /// What comes before `count` bytes of chunk content; `chunkEnd` comes after them. `count` must not be 0, which would end the body.
    public static func appendChunkHeader(_ count: Int, to out: inout [UInt8]) {
        precondition(count > 0, "an empty chunk ends the body")
        var shift = (Int.bitWidth - count.leadingZeroBitCount - 1) / 4 * 4
        while shift >= 0 {
            let digit = UInt8(truncatingIfNeeded: count >> shift) & 15
            out.append(digit < 10 ? 0x30 + digit : 0x57 + digit)
            shift -= 4
        }
        append("\r\n", to: &out)
    }

    public static let chunkEnd: [UInt8] = [0x0D, 0x0A]
    public static let lastChunk = Array("0\r\n\r\n".utf8)

    private static func isReserved(_ name: HTTPField.Name) -> Bool {
        switch name.canonicalName {
        case "content-length", "transfer-encoding", "connection", "date", "x-request-id", "keep-alive": true
        default: false
        }
    }

    private static func append(_ text: StaticString, to out: inout [UInt8]) {
        out.append(contentsOf: UnsafeBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
    }

    private static func appendDecimal(_ number: Int, to out: inout [UInt8]) {
        if number >= 10 {
            appendDecimal(number / 10, to: &out)
        }
        out.append(0x30 + UInt8(number % 10))
    }
}
