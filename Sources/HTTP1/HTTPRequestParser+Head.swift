import CLLHTTP
import HTTPTypes

/// From collected bytes to a checked head (RFC 9110, RFC 9112).
extension HTTPRequestParser {
    private static let methods: [HTTPRequest.Method?] = (0..<64 as Range<UInt32>).map { code -> HTTPRequest.Method? in
        // RTSP's methods and HTTP/2's preface have no place here.
        guard code <= HTTP_SOURCE.rawValue else { return nil }
        return HTTPRequest.Method(String(cString: llhttp_method_name(llhttp_method_t(rawValue: code))))
    }

    /// The fields that decide how the message is read.
    private struct FramingFields {
        var host: ArraySlice<UInt8>?
        var hostCount = 0
        var contentLength: ArraySlice<UInt8>?
        var contentLengthCount = 0
        var transferCoding: ArraySlice<UInt8>?
        var transferCodingCount = 0
        var expectation: ArraySlice<UInt8>?
    }

    func makeHead() throws(HTTP1Error) -> HTTPRequestHead {
        let version: HTTPRequestHead.Version
        switch (parser.pointee.http_major, parser.pointee.http_minor) {
        case (1, 1): version = .http1_1
        case (1, 0): version = .http1_0
        case (let major, let minor):
            throw HTTP1Error(.unsupportedVersion, "the protocol is HTTP/\(major).\(minor), expected HTTP/1.1 or HTTP/1.0")
        }
        let code = Int(parser.pointee.method)
        guard code < HTTPRequestParser.methods.count, let method = HTTPRequestParser.methods[code] else {
            throw HTTP1Error(.malformed, "the request method is not one of HTTP's")
        }
        let framing = framingFields()
        let body = try bodyFraming(framing, version: version)
        let target = try RequestTarget(self.target, isOptions: method == .options)
        let (authority, host) = try self.authority(framing, target: target, version: version)
        var expectsContinue = false
        if let expectation = framing.expectation, version == .http1_1 {
            guard HTTPRequestParser.equals(expectation, "100-continue") else {
                throw HTTP1Error(.expectationFailed, "the expectation is not 100-continue, the only one that can be met")
            }
            expectsContinue = body != .none
        }
        let request = HTTPRequest(
            method: method, scheme: nil, authority: authority, path: target.pathAndQuery, headerFields: makeFields(droppingHost: true))
        return HTTPRequestHead(
            request: request, path: target.path, query: target.query, host: host, version: version, body: body,
            expectsContinue: expectsContinue, isKeepAlive: llhttp_should_keep_alive(parser) != 0)
    }

    func makeFields(droppingHost: Bool = false) -> HTTPFields {
        var fields = HTTPFields()
        fields.reserveCapacity(collector.fields.count)
        for field in collector.fields {
            if droppingHost, collector.isNamed(field, "host") { continue }
            // llhttp has checked that it is a token.
            guard let name = FieldNames.name(collector.name(field)) else { continue }
            fields.append(HTTPField(name: name, value: String(decoding: collector.value(field), as: UTF8.self)))
        }
        return fields
    }

    /// Fields that decide about the message have no place behind it (RFC 9110 6.5.1).
    func refuseTrailers() -> HTTP1Error? {
        let found = framingFields()
        guard found.hostCount + found.contentLengthCount + found.transferCodingCount == 0 else {
            return HTTP1Error(.malformed, "a trailer field is host, content-length or transfer-encoding")
        }
        return nil
    }

    private func framingFields() -> FramingFields {
        var found = FramingFields()
        for field in collector.fields {
            switch field.nameEnd - field.nameStart {
            case 4 where collector.isNamed(field, "host"):
                found.host = collector.value(field)
                found.hostCount += 1
            case 14 where collector.isNamed(field, "content-length"):
                found.contentLength = collector.value(field)
                found.contentLengthCount += 1
            case 17 where collector.isNamed(field, "transfer-encoding"):
                found.transferCoding = collector.value(field)
                found.transferCodingCount += 1
            case 6 where collector.isNamed(field, "expect"):
                found.expectation = collector.value(field)
            default:
                break
            }
        }
        return found
    }

    /// RFC 9112 6, and stricter: anything that two recipients could read in two ways is refused.
    private func bodyFraming(
        _ fields: FramingFields, version: HTTPRequestHead.Version
    ) throws(HTTP1Error) -> HTTPRequestHead.BodyFraming {
        if let coding = fields.transferCoding {
            guard fields.contentLengthCount == 0 else {
                throw HTTP1Error(.malformed, "the request has both content-length and transfer-encoding")
            }
            guard fields.transferCodingCount == 1 else {
                throw HTTP1Error(.malformed, "the request has more than one transfer-encoding field")
            }
            guard version == .http1_1 else {
                throw HTTP1Error(.malformed, "the request is HTTP/1.0, which has no transfer-encoding")
            }
            if HTTPRequestParser.equals(coding, "chunked") { return .chunked }
            let codings = coding.split(separator: UInt8(ascii: ","), omittingEmptySubsequences: false)
            guard codings.count > 1, let last = codings.last, HTTPRequestParser.equals(last.drop { $0 == 0x20 || $0 == 0x09 }, "chunked"),
                codings.dropLast().allSatisfy({ $0.contains { $0 != 0x20 && $0 != 0x09 } })
            else {
                throw HTTP1Error(.malformed, "the transfer-encoding does not end with chunked, so the body has no end")
            }
            throw HTTP1Error(.unsupportedTransferCoding, "the transfer-encoding is not chunked alone, the only one that is understood")
        }
        guard let digits = fields.contentLength else { return .none }
        guard fields.contentLengthCount == 1 else {
            throw HTTP1Error(.malformed, "the request has more than one content-length field")
        }
        var length = 0
        guard !digits.isEmpty else { throw HTTP1Error(.malformed, "the content-length is empty") }
        for digit in digits {
            let (product, overflow) = length.multipliedReportingOverflow(by: 10)
            guard (0x30...0x39).contains(digit), !overflow, case let (sum, carry) = product.addingReportingOverflow(Int(digit - 0x30)), !carry else {
                throw HTTP1Error(.malformed, "the content-length is not a decimal number that fits")
            }
            length = sum
        }
        return length == 0 ? .none : .length(length)
    }

    private func authority(
        _ fields: FramingFields, target: RequestTarget, version: HTTPRequestHead.Version
    ) throws(HTTP1Error) -> (authority: String?, host: String?) {
        guard fields.hostCount <= 1 else {
            throw HTTP1Error(.malformed, "the request has more than one host field")
        }
        guard let field = fields.host else {
            guard version == .http1_0 else {
                throw HTTP1Error(.malformed, "the request has no host field, which HTTP/1.1 asks for")
            }
            guard let absolute = target.authority else { return (nil, nil) }
            return (absolute, try Authority(absolute.utf8).host)
        }
        let own = try Authority(field)
        // RFC 9112 3.2.2: the target's own authority wins over the field.
        if let absolute = target.authority {
            return (absolute, try Authority(absolute.utf8).host)
        }
        return (String(decoding: field, as: UTF8.self), own.host)
    }

    /// Compares without regard to case.
    private static func equals(_ bytes: ArraySlice<UInt8>, _ lowercased: StaticString) -> Bool {
        guard bytes.count == lowercased.utf8CodeUnitCount else { return false }
        for (i, byte) in bytes.enumerated() where FieldCollector.lowercase(byte) != lowercased.utf8Start[i] {
            return false
        }
        return true
    }
}
