import CLLHTTP
import Glibc
import HTTPTypes

/// Bytes in, requests out: llhttp in strict mode, with caps and checks of our own. No input or output is done here.
///
/// One call of `parse` gives at most one event and says how much it consumed, so that the owner decides after each head whether
/// the body is welcome, and handles pipelined requests one after another:
///
///     loop: parse(rest) -> .head -> (admit, set `bodyLimit`) -> parse(rest) … -> .end -> takeBody()
///
/// After a head, call again even with no bytes left: a request without a body ends there.
///
/// An object of one connection, used by one thread at a time.
public final class HTTPRequestParser {
    public enum Event: Sendable {
        case head(HTTPRequestHead)
        /// The request is complete; `takeBody()` has the body.
        case end(trailers: HTTPFields)
    }

    private enum Section {
        case head
        /// Content of a known length: the whole body, or one chunk's and the CRLF after it.
        case content
        case chunkLine, trailers
    }

    public let limits: HTTPMessageLimits
    /// The cap of the body of the request whose head came last; each head sets it to the limits' own.
    public var bodyLimit: Int
    /// The part of the body that was not taken yet.
    public private(set) var body = RequestBody()
    /// All body bytes of this request so far.
    public private(set) var bodyCount = 0
    /// A request has begun and is not complete.
    public private(set) var isMidMessage = false

    var target: [UInt8] = []
    var collector = FieldCollector()
    /// What `parse` is to report; callbacks cannot throw through C.
    private var failure: HTTP1Error?
    private var section = Section.head
    private var event: Event?
    private var framing = HTTPRequestHead.BodyFraming.none
    private var scanner = HeaderScanner()
    private var chunkScanner = ChunkLineScanner()
    /// Raw bytes of the head, or of the trailers, so far.
    private var headerBytes = 0
    /// Bytes of a chunked body that are not content.
    private var chunkBytes = 0
    private var isPaused = false
    /// Each answers for `self`, whose address is in `data`. Allocated, because llhttp keeps pointers to it.
    let parser: UnsafeMutablePointer<llhttp_t>

    /// What a chunked body may spend on framing beside its content: a base, and this many bytes for each byte of content.
    private static let framingAllowance = (base: 65536, perByte: 8)

    public init(limits: HTTPMessageLimits = HTTPMessageLimits()) {
        self.limits = limits
        bodyLimit = limits.bodyBytes
        parser = .allocate(capacity: 1)
        llhttp_init(parser, HTTP_REQUEST, HTTPRequestParser.settings)
        parser.pointee.data = Unmanaged.passUnretained(self).toOpaque()
    }

    deinit {
        parser.deallocate()
    }

    /// Parses until something is complete or the bytes are used up.
    /// - Returns: how many bytes were used, and what is complete.
    /// - Throws: why the request is refused; every later call throws the same.
    public func parse(_ bytes: UnsafeRawBufferPointer) throws(HTTP1Error) -> (consumed: Int, event: Event?) {
        if let failure { throw failure }
        if case .length(let length) = framing, length > bodyLimit {
            throw fail(.bodyTooLarge, "the body is announced with \(length) bytes, at most \(bodyLimit) are accepted")
        }
        var consumed = 0
        // llhttp stops at the borders of sections, so that each run of it covers bytes of one kind.
        repeat {
            consumed += try run(UnsafeRawBufferPointer(rebasing: bytes[consumed...]))
        } while event == nil && (consumed < bytes.count || isPaused)
        defer { event = nil }
        return (consumed, event)
    }

    private func run(_ bytes: UnsafeRawBufferPointer) throws(HTTP1Error) -> Int {
        if isPaused {
            isPaused = false
            llhttp_resume(parser)
        }
        // llhttp wants an address even for no bytes.
        let base = bytes.baseAddress ?? UnsafeRawPointer(parser)
        let start = base.assumingMemoryBound(to: CChar.self)
        let ran = section
        let contentBefore = bodyCount
        var consumed = bytes.count
        switch llhttp_execute(parser, start, bytes.count) {
        case HPE_OK:
            break
        case HPE_PAUSED:
            isPaused = true
            consumed = llhttp_get_error_pos(parser) - start
        case let code:
            throw describe(code)
        }
        try check(UnsafeRawBufferPointer(start: base, count: consumed), of: ran, content: bodyCount - contentBefore)
        return consumed
    }

    /// Takes the body, or what has come of it so far.
    public func takeBody() -> RequestBody {
        defer { body = RequestBody() }
        return body
    }

    // MARK: - Checks on raw bytes

    private func check(_ bytes: UnsafeRawBufferPointer, of ran: Section, content: Int) throws(HTTP1Error) {
        switch ran {
        case .head, .trailers:
            if ran == .head, UInt32(parser.pointee.method) == HTTP_PRI.rawValue {
                // The preface of HTTP/2, with prior knowledge that is wrong.
                throw fail(.unsupportedVersion, "the protocol is HTTP/2, expected HTTP/1.1 or HTTP/1.0")
            }
            if let finding = scanner.scan(bytes) {
                throw fail(.malformed, finding.message)
            }
            headerBytes += bytes.count
            if headerBytes - (ran == .head ? scanner.requestLineCount : 0) > limits.headerBytes {
                throw fail(.headersTooLarge, "the header is longer than \(limits.headerBytes) bytes")
            }
            if ran == .head, section != .head {
                // Method, target and version with one space between: anything more was padding.
                let plain = methodCount + target.count + " HTTP/1.1".utf8.count + 1
                guard scanner.requestLineCount == plain else {
                    throw fail(.malformed, "the request line has more than single spaces between its parts")
                }
            }
        case .chunkLine:
            guard chunkScanner.scan(bytes) else {
                throw fail(.malformed, "a chunk's size has too many digits or its extensions are too long")
            }
            chunkBytes += bytes.count
        case .content:
            chunkBytes += bytes.count - content
        }
        let allowance = HTTPRequestParser.framingAllowance
        if chunkBytes > allowance.base + allowance.perByte * bodyCount {
            throw fail(.malformed, "the chunks of the body are nearly all framing")
        }
        if section != ran {
            enterSection()
        }
    }

    /// The callbacks have moved on to another section, whose bytes come with the next run.
    private func enterSection() {
        headerBytes = 0
        switch section {
        case .head: scanner.beginRequest()
        case .chunkLine: chunkScanner.begin()
        case .trailers: scanner.beginTrailers()
        case .content: break
        }
    }

    private var methodCount: Int {
        strlen(llhttp_method_name(llhttp_method_t(rawValue: UInt32(parser.pointee.method))))
    }

    private func fail(_ code: HTTP1Error.Code, _ message: String) -> HTTP1Error {
        let error = failure ?? HTTP1Error(code, message)
        failure = error
        return error
    }

    private func describe(_ code: llhttp_errno_t) -> HTTP1Error {
        if let failure { return failure }
        let reason = String(cString: llhttp_get_error_reason(parser) ?? llhttp_errno_name(code))
        switch (code, reason) {
        case (HPE_INVALID_VERSION, "Invalid HTTP version"), (HPE_PAUSED_H2_UPGRADE, _):
            return fail(.unsupportedVersion, "the protocol is not HTTP/1.1 or HTTP/1.0")
        case (HPE_CLOSED_CONNECTION, _):
            return fail(.malformed, "bytes follow a request that announced the end of the connection")
        default:
            return fail(.malformed, "the request is not valid HTTP/1.1: \(reason)")
        }
    }

    // MARK: - Callbacks

    private static func of(_ parser: UnsafeMutablePointer<llhttp_t>?) -> HTTPRequestParser {
        Unmanaged<HTTPRequestParser>.fromOpaque(parser!.pointee.data).takeUnretainedValue()
    }

    /// 0 lets llhttp go on, -1 makes it stop with an error that `failure` describes.
    private static let goOn: Int32 = 0
    private static let stop: Int32 = -1
    private static let pause = Int32(HPE_PAUSED.rawValue)

    // Written once here, only read by llhttp afterwards.
    private nonisolated(unsafe) static let settings: UnsafeMutablePointer<llhttp_settings_t> = {
        let settings = UnsafeMutablePointer<llhttp_settings_t>.allocate(capacity: 1)
        llhttp_settings_init(settings)
        settings.pointee.on_message_begin = { parser in
            HTTPRequestParser.of(parser).messageBegins()
            return goOn
        }
        settings.pointee.on_url = { parser, at, length in
            HTTPRequestParser.of(parser).targetGrows(UnsafeRawBufferPointer(start: at, count: length))
        }
        settings.pointee.on_header_field = { parser, at, length in
            HTTPRequestParser.of(parser).fieldName(UnsafeRawBufferPointer(start: at, count: length))
        }
        settings.pointee.on_header_value = { parser, at, length in
            HTTPRequestParser.of(parser).collector.appendValue(UnsafeRawBufferPointer(start: at, count: length))
            return goOn
        }
        settings.pointee.on_header_value_complete = { parser in
            HTTPRequestParser.of(parser).collector.endValue()
            return goOn
        }
        settings.pointee.on_headers_complete = { parser in
            HTTPRequestParser.of(parser).headersComplete()
        }
        settings.pointee.on_body = { parser, at, length in
            HTTPRequestParser.of(parser).bodyGrows(UnsafeRawBufferPointer(start: at, count: length))
        }
        settings.pointee.on_chunk_header = { parser in
            HTTPRequestParser.of(parser).chunkBegins(length: parser!.pointee.content_length)
        }
        settings.pointee.on_chunk_complete = { parser in
            HTTPRequestParser.of(parser).chunkComplete()
        }
        settings.pointee.on_message_complete = { parser in
            HTTPRequestParser.of(parser).messageComplete()
        }
        return settings
    }()

    private func messageBegins() {
        isMidMessage = true
        target.removeAll(keepingCapacity: true)
        collector.removeAll()
        body = RequestBody()
        bodyCount = 0
        chunkBytes = 0
        framing = .none
        bodyLimit = limits.bodyBytes
    }

    private func targetGrows(_ piece: UnsafeRawBufferPointer) -> Int32 {
        guard target.count + piece.count <= limits.targetBytes else {
            _ = fail(.targetTooLong, "the request target is longer than \(limits.targetBytes) bytes")
            return HTTPRequestParser.stop
        }
        target.append(contentsOf: piece)
        return HTTPRequestParser.goOn
    }

    private func fieldName(_ piece: UnsafeRawBufferPointer) -> Int32 {
        collector.appendName(piece)
        guard collector.fields.count <= limits.fieldCount else {
            _ = fail(.headersTooLarge, "the header has more than \(limits.fieldCount) fields")
            return HTTPRequestParser.stop
        }
        return HTTPRequestParser.goOn
    }

    private func headersComplete() -> Int32 {
        do throws(HTTP1Error) {
            let head = try makeHead()
            framing = head.body
            event = .head(head)
        } catch {
            _ = fail(error.code, error.message)
            return HTTPRequestParser.stop
        }
        // No protocol is ever switched to, so a request to upgrade is a plain request, and its framing is what its fields say.
        parser.pointee.upgrade = 0
        collector.removeAll()
        section = framing == .chunked ? .chunkLine : .content
        return HTTPRequestParser.pause
    }

    private func bodyGrows(_ piece: UnsafeRawBufferPointer) -> Int32 {
        guard bodyCount + piece.count <= bodyLimit else {
            _ = fail(.bodyTooLarge, "the body is longer than the \(bodyLimit) bytes that are accepted")
            return HTTPRequestParser.stop
        }
        var announced: Int?
        // Of a body that is taken while it comes, the next piece is all that there will be.
        if case .length(let length) = framing, bodyCount == body.count { announced = length }
        bodyCount += piece.count
        body.append(piece, announced: announced)
        return HTTPRequestParser.goOn
    }

    private func chunkBegins(length: UInt64) -> Int32 {
        guard length <= UInt64(max(0, bodyLimit - bodyCount)) else {
            _ = fail(.bodyTooLarge, "the body is longer than the \(bodyLimit) bytes that are accepted")
            return HTTPRequestParser.stop
        }
        section = length > 0 ? .content : .trailers
        return HTTPRequestParser.pause
    }

    private func chunkComplete() -> Int32 {
        // The last chunk is complete only behind the trailers.
        guard section != .trailers else { return HTTPRequestParser.goOn }
        section = .chunkLine
        return HTTPRequestParser.pause
    }

    private func messageComplete() -> Int32 {
        if section == .trailers {
            if let error = refuseTrailers() {
                _ = fail(error.code, error.message)
                return HTTPRequestParser.stop
            }
            event = .end(trailers: makeFields())
        } else {
            event = .end(trailers: HTTPFields())
        }
        isMidMessage = false
        section = .head
        framing = .none
        return HTTPRequestParser.pause
    }
}
