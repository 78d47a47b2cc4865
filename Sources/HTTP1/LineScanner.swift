import Glibc

/// Checks line ends of a header section that llhttp lets pass: a bare LF, and a line that begins with white space and so continues
/// the one before (obs-fold, RFC 9112 5.2). Works on raw bytes, whatever the reads they came in.
struct LineScanner {
    private var last: UInt8 = 0
    /// The byte that comes next begins a line.
    private var isAtLineStart = false

    enum Finding {
        case bareLineFeed, foldedLine
    }

    /// Begins a section; `isAtLineStart` when a folded first line is to be noticed.
    mutating func reset(atLineStart: Bool) {
        last = 0
        isAtLineStart = atLineStart
    }

    mutating func scan(_ bytes: UnsafeRawBufferPointer) -> Finding? {
        guard let base = bytes.baseAddress, bytes.count > 0 else { return nil }
        if isAtLineStart, LineScanner.isBlank(bytes[0]) { return .foldedLine }
        var from = 0
        while from < bytes.count, let found = memchr(base + from, 0x0A, bytes.count - from) {
            let at = UnsafeRawPointer(found) - base
            let before = at > 0 ? bytes[at - 1] : last
            if before != 0x0D { return .bareLineFeed }
            if at + 1 < bytes.count, LineScanner.isBlank(bytes[at + 1]) { return .foldedLine }
            from = at + 1
        }
        last = bytes[bytes.count - 1]
        isAtLineStart = last == 0x0A
        return nil
    }

    private static func isBlank(_ byte: UInt8) -> Bool {
        byte == 0x20 || byte == 0x09
    }
}
