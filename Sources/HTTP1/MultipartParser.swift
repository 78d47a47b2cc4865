import Glibc

/// A multipart/form-data body (RFC 7578, RFC 2046 5.1) as it comes in, cut anywhere: bytes in, parts out. No input or output is done here.
///
/// One call of `parse` gives at most one event and says how much it consumed. For each part come its head, its bytes in any number of
/// pieces, and its end; after the last part comes the end of the body:
///
///     while true {
///         let (consumed, event) = try parser.parse(rest)
///         rest = UnsafeRawBufferPointer(rebasing: rest[consumed...])
///         guard let event else { break }
///     }
///     … and when there is nothing more to come: try parser.finish()
///
/// What stands before the first boundary and after the end boundary is skipped. Lines end with CRLF. An object is used by one thread at a time.
public final class MultipartParser {
    public enum Event {
        case partHead(MultipartPartHead)
        /// A piece of the part's content: points into the input, or into the parser's own memory until it is freed.
        case partBytes(UnsafeRawBufferPointer)
        case partEnd
        /// The end boundary; what follows is skipped.
        case end
    }

    private enum State {
        case preamble
        /// Behind a boundary: padding and a line end, or the two dashes of the end.
        case boundaryTail, boundaryPadding, boundaryLineFeed, boundaryDash
        case head, content, epilogue
    }

    private enum Finding {
        case content(UnsafeRawBufferPointer)
        case delimiter
    }

    public let limits: MultipartLimits
    private var state = State.preamble
    private var failure: MultipartError?
    private var partCount = 0
    /// The header section of the part so far.
    private var header: [UInt8] = []
    private var lineStart = 0
    /// CRLF, two dashes and the boundary. A CR stands only at its beginning, so after a mismatch the search never has to go back.
    private let delimiter: UnsafeMutableRawBufferPointer
    /// How many bytes of the delimiter came at the end of the input so far and wait for the next piece.
    private var matched: Int
    /// Of these, the first CRLF may belong to what was before the content: an empty line, or nothing at all.
    private var borrowed: Int

    public init(boundary: MultipartBoundary, limits: MultipartLimits = MultipartLimits()) {
        self.limits = limits
        let bytes = Array("\r\n--\(boundary.text)".utf8)
        delimiter = .allocate(byteCount: bytes.count, alignment: 1)
        delimiter.copyBytes(from: bytes)
        // The first boundary may begin the body.
        matched = 2
        borrowed = 2
    }

    deinit {
        delimiter.deallocate()
    }

    /// Parses until something is complete or the bytes are used up.
    /// - Returns: how many bytes were used, and what is complete; without an event all were used.
    /// - Throws: why the body is refused; every later call throws the same.
    public func parse(_ bytes: UnsafeRawBufferPointer) throws(MultipartError) -> (consumed: Int, event: Event?) {
        if let failure { throw failure }
        var consumed = 0
        repeat {
            do throws(MultipartError) {
                let (count, event) = try advance(UnsafeRawBufferPointer(rebasing: bytes[consumed...]))
                consumed += count
                if let event { return (consumed, event) }
            } catch {
                failure = error
                throw error
            }
        } while consumed < bytes.count
        return (consumed, nil)
    }

    /// To be called when nothing more comes.
    public func finish() throws(MultipartError) {
        if let failure { throw failure }
        guard state == .epilogue else {
            throw MultipartError(
                .incomplete, partCount == 0 ? "the body has no part and no end boundary" : "the body ends inside part \(partCount), before its end boundary")
        }
    }

    private func advance(_ bytes: UnsafeRawBufferPointer) throws(MultipartError) -> (Int, Event?) {
        guard !bytes.isEmpty else { return (0, nil) }
        switch state {
        case .preamble:
            let (count, finding) = search(bytes)
            if case .delimiter = finding { state = .boundaryTail }
            return (count, nil)
        case .content:
            let (count, finding) = search(bytes)
            switch finding {
            case nil: return (count, nil)
            case .content(let piece): return (count, .partBytes(piece))
            case .delimiter:
                state = .boundaryTail
                return (count, .partEnd)
            }
        case .boundaryTail, .boundaryPadding, .boundaryLineFeed, .boundaryDash:
            return (1, try passBoundary(bytes[0]))
        case .head:
            return try readHead(bytes)
        case .epilogue:
            return (bytes.count, nil)
        }
    }

    // MARK: - Boundaries

    /// The next byte behind a boundary.
    private func passBoundary(_ byte: UInt8) throws(MultipartError) -> Event? {
        switch (state, byte) {
        case (.boundaryTail, UInt8(ascii: "-")):
            state = .boundaryDash
        case (.boundaryTail, 0x20), (.boundaryTail, 0x09), (.boundaryPadding, 0x20), (.boundaryPadding, 0x09):
            state = .boundaryPadding
        case (.boundaryTail, 0x0D), (.boundaryPadding, 0x0D):
            state = .boundaryLineFeed
        case (.boundaryLineFeed, 0x0A):
            partCount += 1
            guard partCount <= limits.parts else { throw MultipartError(.tooManyParts, "the body has more than the \(limits.parts) parts that are accepted") }
            header.removeAll(keepingCapacity: true)
            lineStart = 0
            state = .head
        case (.boundaryDash, UInt8(ascii: "-")):
            state = .epilogue
            return .end
        default:
            throw MultipartError(.malformed, "a boundary is not followed by the end of its line; choose one that occurs in no part, and end lines with CRLF")
        }
        return nil
    }

    /// Looks for the delimiter. What is certain to be content is found first, so that a delimiter found is always at the very beginning.
    private func search(_ bytes: UnsafeRawBufferPointer) -> (Int, Finding?) {
        if matched > 0, let result = goOnMatching(bytes) { return result }
        guard let base = bytes.baseAddress else { return (0, nil) }
        var from = 0
        while let found = memchr(base + from, 0x0D, bytes.count - from) {
            let at = UnsafeRawPointer(found) - base
            let count = matchCount(bytes, at: at, from: 0)
            if count == delimiter.count || at + count == bytes.count {
                if at > 0 { return (at, .content(UnsafeRawBufferPointer(rebasing: bytes[..<at]))) }
                if count == delimiter.count { return (count, .delimiter) }
                matched = count
                return (count, nil)
            }
            from = at + count
        }
        return (bytes.count, .content(bytes))
    }

    /// Compares on from a delimiter that has begun; nil when it turned out to be none and all of it is still in `bytes`.
    private func goOnMatching(_ bytes: UnsafeRawBufferPointer) -> (Int, Finding?)? {
        let before = matched
        let count = matchCount(bytes, at: 0, from: matched)
        matched += count
        if matched == delimiter.count {
            matched = 0
            borrowed = 0
            return (count, .delimiter)
        }
        if count == bytes.count { return (count, nil) }
        defer {
            matched = 0
            borrowed = 0
        }
        guard before > borrowed else { return nil }
        return (count, .content(UnsafeRawBufferPointer(rebasing: delimiter[borrowed..<matched])))
    }

    /// How many bytes at `at` are those of the delimiter from `start` on.
    private func matchCount(_ bytes: UnsafeRawBufferPointer, at: Int, from start: Int) -> Int {
        var count = 0
        while at + count < bytes.count, start + count < delimiter.count, bytes[at + count] == delimiter[start + count] { count += 1 }
        return count
    }

    // MARK: - Heads

    private func readHead(_ bytes: UnsafeRawBufferPointer) throws(MultipartError) -> (Int, Event?) {
        for (index, byte) in bytes.enumerated() {
            guard header.count < limits.headerBytes else {
                throw MultipartError(.headersTooLarge, "the header of part \(partCount) is longer than \(limits.headerBytes) bytes")
            }
            let isAfterCR = header.last == 0x0D
            guard isAfterCR == (byte == 0x0A) else {
                throw MultipartError(.malformed, "a header line of part \(partCount) does not end with CRLF")
            }
            header.append(byte)
            guard byte == 0x0A else { continue }
            let isEmpty = header.count - lineStart == 2
            lineStart = header.count
            guard isEmpty else { continue }
            let head = try MultipartPartHead(headerSection: header)
            state = .content
            // An empty part may have no other line end between this one and its boundary's dashes.
            matched = 2
            borrowed = 2
            return (index + 1, .partHead(head))
        }
        return (bytes.count, nil)
    }
}

extension MultipartParser {
    /// The parts of a body that is all in memory.
    public static func parts(of body: [UInt8], boundary: MultipartBoundary, limits: MultipartLimits = MultipartLimits()) throws(MultipartError)
        -> [MultipartPart]
    {
        try parts(of: RequestBody(body), boundary: boundary, limits: limits)
    }

    /// The parts of a body that is all in memory, in whatever pieces. Nothing is copied.
    public static func parts(of body: RequestBody, boundary: MultipartBoundary, limits: MultipartLimits = MultipartLimits()) throws(MultipartError)
        -> [MultipartPart]
    {
        let parser = MultipartParser(boundary: boundary, limits: limits)
        var scan = PartScan()
        for piece in body.pieces {
            try piece.withUnsafeBufferPointer { buffer throws(MultipartError) in
                try scan.read(UnsafeRawBufferPointer(buffer), with: parser)
            }
        }
        try parser.finish()
        return scan.parts
    }
}

/// Finds where the parts of a body stand while it is read.
private struct PartScan {
    var parts: [MultipartPart] = []
    /// How many bytes were read.
    private var position = 0
    private var head: MultipartPartHead?
    private var start = 0
    private var count = 0

    mutating func read(_ bytes: UnsafeRawBufferPointer, with parser: MultipartParser) throws(MultipartError) {
        var rest = bytes
        while true {
            let (consumed, event) = try parser.parse(rest)
            rest = UnsafeRawBufferPointer(rebasing: rest[consumed...])
            position += consumed
            switch event {
            case nil: return
            case .partHead(let new):
                head = new
                start = position
                count = 0
            case .partBytes(let piece):
                // What was held back at the end of a piece comes later, but a part's bytes follow one another, so counting them is enough.
                count += piece.count
            case .partEnd:
                if let head { parts.append(MultipartPart(head: head, range: start..<(start + count))) }
            case .end: break
            }
        }
    }
}
