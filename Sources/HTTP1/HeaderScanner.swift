import Glibc

/// Checks the raw bytes of header and trailer sections for what llhttp lets pass although another recipient could read it
/// differently: bare CR and LF, lines that continue the one before (obs-fold, RFC 9112 5.2), empty or padded names, padding in the
/// request line. It sees every byte once, in whatever reads they came.
struct HeaderScanner {
    private enum State {
        /// Empty lines before the request line (RFC 9112 2.2).
        case leading
        case requestLine, lineStart, name, value
        /// A CR at the beginning of a line: the section's end.
        case ending
    }

    enum Finding {
        case bareCarriageReturn, bareLineFeed, foldedLine, badName

        var message: String {
            switch self {
            case .bareCarriageReturn: "a CR in the header is not followed by LF"
            case .bareLineFeed: "a line of the header ends with a bare LF, not with CRLF"
            case .foldedLine: "a header field is continued on a second line (obs-fold)"
            case .badName: "a header line does not begin with a field name and a colon"
            }
        }
    }

    private var state = State.leading
    private var last: UInt8 = 0
    /// Bytes of the request line so far, without its CRLF once that has come.
    private(set) var requestLineCount = 0

    private static let cr: UInt8 = 0x0D
    private static let lf: UInt8 = 0x0A

    /// Which bytes may stand in a field name (RFC 9110 5.6.2).
    private static let isToken: [Bool] = (0..<256).map { byte in
        switch UInt8(byte) {
        case 0x30...0x39, 0x41...0x5A, 0x61...0x7A: true
        default: "!#$%&'*+-.^_`|~".utf8.contains(UInt8(byte))
        }
    }

    mutating func beginRequest() {
        state = .leading
        last = 0
        requestLineCount = 0
    }

    mutating func beginTrailers() {
        state = .lineStart
        last = 0
    }

    /// Scans the next bytes of the section; llhttp has accepted them already.
    mutating func scan(_ bytes: UnsafeRawBufferPointer) -> Finding? {
        var i = 0
        while i < bytes.count {
            let byte = bytes[i]
            switch state {
            case .leading:
                if last == HeaderScanner.cr, byte != HeaderScanner.lf { return .bareCarriageReturn }
                if byte == HeaderScanner.lf, last != HeaderScanner.cr { return .bareLineFeed }
                if byte != HeaderScanner.cr, byte != HeaderScanner.lf {
                    state = .requestLine
                    continue
                }
                last = byte
                i += 1
            case .requestLine:
                let from = i
                guard endLine(bytes, &i) else { return .bareLineFeed }
                requestLineCount += i - from - (state == .lineStart ? 2 : 0)
            case .lineStart:
                if byte == 0x20 || byte == 0x09 { return .foldedLine }
                if byte == HeaderScanner.lf { return .bareLineFeed }
                if byte == UInt8(ascii: ":") { return .badName }
                state = byte == HeaderScanner.cr ? .ending : .name
                if state == .ending { i += 1 }
            case .name:
                let valid = HeaderScanner.isToken.withUnsafeBufferPointer { isToken in
                    while i < bytes.count, isToken[Int(bytes[i])] { i += 1 }
                    return i == bytes.count || bytes[i] == UInt8(ascii: ":")
                }
                guard valid else { return .badName }
                if i < bytes.count {
                    i += 1
                    last = 0
                    state = .value
                }
            case .value:
                guard endLine(bytes, &i) else { return .bareLineFeed }
            case .ending:
                guard byte == HeaderScanner.lf else { return .bareCarriageReturn }
                state = .lineStart
                i += 1
            }
        }
        return nil
    }

    /// Moves on to the next line, or to the end of the bytes. False when the line's LF has no CR before it.
    private mutating func endLine(_ bytes: UnsafeRawBufferPointer, _ i: inout Int) -> Bool {
        guard let base = bytes.baseAddress else { return true }
        let from = i
        guard let found = memchr(base + from, Int32(HeaderScanner.lf), bytes.count - from) else {
            i = bytes.count
            last = bytes[i - 1]
            return true
        }
        let at = UnsafeRawPointer(found) - base
        let before = at > from ? bytes[at - 1] : last
        i = at + 1
        last = 0
        state = .lineStart
        return before == HeaderScanner.cr
    }
}

/// Checks the raw bytes of the lines that begin chunks: llhttp skips any number of zeros and any length of extension.
struct ChunkLineScanner {
    private var digits = 0
    private var isInSize = true
    private var count = 0

    /// A size of more hexadecimal digits would not fit 64 bits.
    private static let longestSize = 16
    /// A line with its extensions, which nobody uses.
    private static let longestLine = 1024

    mutating func begin() {
        self = ChunkLineScanner()
    }

    /// False when the line is longer than any honest one.
    mutating func scan(_ bytes: UnsafeRawBufferPointer) -> Bool {
        count += bytes.count
        for byte in bytes where isInSize {
            switch byte {
            case 0x30...0x39, 0x41...0x46, 0x61...0x66: digits += 1
            default: isInSize = false
            }
        }
        return digits <= ChunkLineScanner.longestSize && count <= ChunkLineScanner.longestLine
    }
}
