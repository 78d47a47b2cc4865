import HTTP1

/// All that a parser reports of one body.
private struct MultipartOutcome: Equatable {
    struct Part: Equatable {
        var head: MultipartPartHead
        var content: [UInt8] = []
    }

    var parts: [Part] = []
    var isOpen = false
    var ends = 0
    var error: MultipartError.Code?
}

private let limits: MultipartLimits = {
    var limits = MultipartLimits()
    limits.parts = 4
    limits.headerBytes = 256
    return limits
}()

/// Promises: the pieces in which a body comes change neither its parts nor the error; what a part holds is what the ranges of the parser for whole
/// bodies point at; a name is never empty, and neither names nor types hold control characters.
func fuzzMultipart(_ input: [UInt8]) throws(FuzzFinding) {
    let line = input.prefix { $0 != 0x0A }
    let contentType = String(decoding: line, as: UTF8.self)
    guard let boundary = try? MultipartBoundary(contentType: contentType) else { return }
    try promise((1...70).contains(boundary.text.utf8.count), "a boundary of \(boundary.text.utf8.count) bytes")
    let body = input[line.endIndex...].dropFirst()
    var whole: MultipartOutcome?
    for pieces in cuts(of: body) {
        let outcome = try outcome(of: pieces, boundary)
        if let whole {
            try promise(outcome == whole, "\(pieces.count) pieces are read as \(outcome), the whole as \(whole)")
        } else {
            whole = outcome
            try compare(outcome, body: Array(body), boundary)
        }
    }
}

private func outcome(of pieces: [ArraySlice<UInt8>], _ boundary: MultipartBoundary) throws(FuzzFinding) -> MultipartOutcome {
    let parser = MultipartParser(boundary: boundary, limits: limits)
    var outcome = MultipartOutcome()
    for piece in pieces {
        try withExactCopy(of: piece) { bytes throws(FuzzFinding) in try feed(bytes, to: parser, &outcome) }
        if outcome.error != nil { return outcome }
    }
    do throws(MultipartError) {
        try parser.finish()
    } catch {
        outcome.error = error.code
    }
    return outcome
}

private func feed(_ bytes: UnsafeRawBufferPointer, to parser: MultipartParser, _ outcome: inout MultipartOutcome) throws(FuzzFinding) {
    var rest = bytes
    while true {
        let consumed: Int, event: MultipartParser.Event?
        do throws(MultipartError) {
            (consumed, event) = try parser.parse(rest)
        } catch {
            outcome.error = error.code
            return
        }
        rest = UnsafeRawBufferPointer(rebasing: rest[consumed...])
        switch event {
        case .partHead(let head):
            try promise(!outcome.isOpen && outcome.ends == 0 && outcome.parts.count < limits.parts, "a part's head out of its place")
            try promise(!head.name.isEmpty, "a part without a name")
            for text in [head.name, head.filename, head.contentType].compactMap({ $0 }) {
                try promise(text.utf8.allSatisfy { $0 >= 0x20 && $0 != 0x7F || $0 == 0x09 }, "a control character in a part's head")
            }
            outcome.parts.append(MultipartOutcome.Part(head: head))
            outcome.isOpen = true
        case .partBytes(let piece):
            try promise(outcome.isOpen && !piece.isEmpty, "bytes of no part, or none")
            outcome.parts[outcome.parts.count - 1].content += piece
        case .partEnd:
            try promise(outcome.isOpen, "the end of no part")
            outcome.isOpen = false
        case .end:
            try promise(!outcome.isOpen && outcome.ends == 0, "an end out of its place")
            outcome.ends += 1
        case nil:
            try promise(rest.isEmpty, "\(rest.count) bytes left over without an event")
            return
        }
    }
}

private func compare(_ streamed: MultipartOutcome, body: [UInt8], _ boundary: MultipartBoundary) throws(FuzzFinding) {
    let parts: [MultipartPart]
    do throws(MultipartError) {
        parts = try MultipartParser.parts(of: body, boundary: boundary, limits: limits)
    } catch {
        return try promise(error.code == streamed.error, "whole: \(error.code), streamed: \(streamed)")
    }
    let found = parts.map { MultipartOutcome.Part(head: $0.head, content: Array(body[$0.range])) }
    try promise(streamed.error == nil && found == streamed.parts, "whole: \(found), streamed: \(streamed)")
}
