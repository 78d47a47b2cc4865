import HTTP1
import HTTPTypes

/// All that a parser reports of one connection's bytes.
private struct HTTPOutcome: Equatable {
    struct Request: Equatable {
        var head: HTTPRequest
        var path: String
        var query: String?
        var host: String?
        var framing: HTTPRequestHead.BodyFraming
        var flags: [Bool]
        var body: [UInt8]?
        var trailers: HTTPFields?
    }

    var requests: [Request] = []
    var isRefused = false
    var isMidMessage = false
}

/// Small, so that the fuzzer reaches them.
private let limits: HTTPMessageLimits = {
    var limits = HTTPMessageLimits()
    limits.targetBytes = 128
    limits.headerBytes = 1024
    limits.fieldCount = 16
    limits.bodyBytes = 512
    return limits
}()

/// Promises: the pieces in which bytes come never change which requests are read, nor whether the rest is refused; every call consumes or reports
/// something; nothing exceeds its limit; a refusal is final.
func fuzzHTTP(_ input: [UInt8]) throws(FuzzFinding) {
    var whole: HTTPOutcome?
    for pieces in cuts(of: input[...]) {
        let outcome = try outcome(of: pieces)
        if let whole {
            try promise(outcome == whole, "\(pieces.count) pieces are read as \(outcome), the whole as \(whole)")
        } else {
            whole = outcome
        }
    }
}

private func outcome(of pieces: [ArraySlice<UInt8>]) throws(FuzzFinding) -> HTTPOutcome {
    let parser = HTTPRequestParser(limits: limits)
    var outcome = HTTPOutcome()
    for piece in pieces {
        let goesOn = try withExactCopy(of: piece) { bytes throws(FuzzFinding) in try feed(bytes, to: parser, &outcome) }
        guard goesOn else {
            outcome.isRefused = true
            // The request that was under way is not compared: a longer piece shows a mistake before the end of a head, a shorter one behind it.
            if outcome.requests.last?.trailers == nil { outcome.requests = outcome.requests.dropLast() }
            return outcome
        }
    }
    outcome.isMidMessage = parser.isMidMessage
    return outcome
}

/// - Returns: false when the parser refuses.
private func feed(_ bytes: UnsafeRawBufferPointer, to parser: HTTPRequestParser, _ outcome: inout HTTPOutcome) throws(FuzzFinding) -> Bool {
    var rest = bytes
    var mustAdvance = !rest.isEmpty
    while mustAdvance || !rest.isEmpty {
        let consumed: Int, event: HTTPRequestParser.Event?
        do throws(HTTP1Error) {
            (consumed, event) = try parser.parse(rest)
        } catch {
            let again: HTTP1Error?
            do throws(HTTP1Error) {
                _ = try parser.parse(rest)
                again = nil
            } catch {
                again = error
            }
            try promise(again == error, "after '\(error)' the parser says '\(again?.message ?? "nothing")'")
            return false
        }
        try promise(consumed <= rest.count && (consumed > 0 || event != nil || mustAdvance), "\(consumed) of \(rest.count) bytes consumed without an event")
        try promise(parser.body.count <= limits.bodyBytes, "\(parser.body.count) body bytes collected")
        mustAdvance = false
        rest = UnsafeRawBufferPointer(rebasing: rest[consumed...])
        switch event {
        case .head(let head):
            try check(head)
            outcome.requests.append(
                HTTPOutcome.Request(
                    head: head.request, path: head.path, query: head.query, host: head.host, framing: head.body, flags: [head.expectsContinue, head.isKeepAlive]))
            mustAdvance = true
        case .end(let trailers):
            let body = parser.takeBody().joined()
            guard let last = outcome.requests.indices.last, outcome.requests[last].trailers == nil else { throw FuzzFinding("the end of no request") }
            switch outcome.requests[last].framing {
            case .none: try promise(body.isEmpty, "\(body.count) bytes of no body")
            case .length(let length): try promise(body.count == length, "\(body.count) bytes of a body of \(length)")
            case .chunked: break
            }
            outcome.requests[last].body = body
            outcome.requests[last].trailers = trailers
        case nil:
            break
        }
    }
    return true
}

private func check(_ head: HTTPRequestHead) throws(FuzzFinding) {
    try promise(head.path.utf8.count <= limits.targetBytes, "a path of \(head.path.utf8.count) bytes")
    if let path = PercentCoding.decode(head.path) {
        try promise(PercentCoding.decode(PercentCoding.encode(path)) == path, "the path \(head.path) does not survive being encoded again")
    }
    for (name, value) in PercentCoding.pairs(head.query ?? "") {
        try promise(name.utf8.count + value.utf8.count <= limits.targetBytes, "\(name.utf8.count + value.utf8.count) bytes of one query pair")
    }
    try promise(head.request.headerFields.count <= limits.fieldCount, "\(head.request.headerFields.count) fields")
    try promise(head.request.headerFields[.transferEncoding] == nil || head.request.headerFields[.contentLength] == nil, "two framings")
    for field in head.request.headerFields {
        try promise(field.value.utf8.allSatisfy { $0 != 0 && $0 != 0x0A && $0 != 0x0D }, "a line end inside the field \(field.name)")
    }
}
