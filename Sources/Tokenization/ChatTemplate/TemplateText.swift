#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// A text in UTF-8 that knows for each byte whether it is trusted (`TextPiece.isTrusted`).
///
/// Positions inside this type are byte offsets on scalar borders; Python's positions, which count scalars, are converted
/// at the edge. Nearly all texts have one origin, and then `borders` is empty and costs nothing.
struct TemplateText: Sendable {
    private(set) var bytes: [UInt8]
    /// The trust of the first byte; it flips at each border.
    private var startsTrusted: Bool
    /// Ascending offsets in `1..<bytes.count`.
    private var borders: [Int]

    init() {
        bytes = []
        startsTrusted = true
        borders = []
    }

    init(_ string: String, isTrusted: Bool = true) {
        bytes = Array(string.utf8)
        startsTrusted = isTrusted
        borders = []
    }

    init(bytes: [UInt8], isTrusted: Bool) {
        self.bytes = bytes
        startsTrusted = isTrusted
        borders = []
    }

    var isEmpty: Bool { bytes.isEmpty }
    var byteCount: Int { bytes.count }
    var string: String { String(decoding: bytes, as: UTF8.self) }
    var isASCII: Bool { bytes.allSatisfy { $0 < 0x80 } }

    // MARK: Origin

    private var endsTrusted: Bool { startsTrusted == (borders.count & 1 == 0) }

    /// How many borders lie at or before `offset`.
    private func bordersReached(at offset: Int) -> Int {
        var low = 0
        var high = borders.count
        while low < high {
            let middle = (low + high) / 2
            if borders[middle] <= offset { low = middle + 1 } else { high = middle }
        }
        return low
    }

    func isTrusted(at offset: Int) -> Bool { startsTrusted == (bordersReached(at: offset) & 1 == 0) }

    /// The text cut at its borders, without empty pieces.
    var pieces: [TextPiece] {
        guard !bytes.isEmpty else { return [] }
        var result: [TextPiece] = []
        result.reserveCapacity(borders.count + 1)
        var start = 0
        var isTrusted = startsTrusted
        for end in borders + [bytes.count] {
            result.append(TextPiece(text: String(decoding: bytes[start..<end], as: UTF8.self), isTrusted: isTrusted))
            start = end
            isTrusted.toggle()
        }
        return result
    }

    // MARK: Building

    mutating func reserveCapacity(_ count: Int) { bytes.reserveCapacity(count) }

    mutating func append(_ other: TemplateText) {
        if bytes.isEmpty, bytes.capacity < other.bytes.count {
            self = other
        } else {
            append(other, 0..<other.bytes.count)
        }
    }

    mutating func append(_ other: TemplateText, _ range: Range<Int>) {
        guard !range.isEmpty else { return }
        var next = other.bordersReached(at: range.lowerBound)
        beginRun(isTrusted: other.startsTrusted == (next & 1 == 0))
        while next < other.borders.count, other.borders[next] < range.upperBound {
            borders.append(bytes.count + other.borders[next] - range.lowerBound)
            next += 1
        }
        bytes.append(contentsOf: other.bytes[range])
    }

    mutating func append(_ string: String, isTrusted: Bool) {
        guard !string.isEmpty else { return }
        beginRun(isTrusted: isTrusted)
        bytes.append(contentsOf: string.utf8)
    }

    mutating func append(byte: UInt8, isTrusted: Bool) {
        beginRun(isTrusted: isTrusted)
        bytes.append(byte)
    }

    mutating func append(_ scalar: Unicode.Scalar, isTrusted: Bool) {
        beginRun(isTrusted: isTrusted)
        if scalar.isASCII {
            bytes.append(UInt8(truncatingIfNeeded: scalar.value))
        } else {
            bytes.append(contentsOf: UTF8.encode(scalar)!)
        }
    }

    private mutating func beginRun(isTrusted: Bool) {
        if bytes.isEmpty {
            startsTrusted = isTrusted
        } else if endsTrusted != isTrusted {
            borders.append(bytes.count)
        }
    }

    subscript(_ range: Range<Int>) -> TemplateText {
        if range.count == bytes.count { return self }
        var result = TemplateText()
        result.append(self, range)
        return result
    }

    func repeated(_ count: Int) -> TemplateText {
        var result = TemplateText()
        guard count > 0, !isEmpty else { return result }
        result.reserveCapacity(bytes.count * count)
        for _ in 0..<count { result.append(self, 0..<bytes.count) }
        return result
    }

    // MARK: Scalars

    /// The number of Unicode scalars, which is Python's `len`.
    var scalarCount: Int { scalarCount(in: 0..<bytes.count) }

    func scalarCount(in range: Range<Int>) -> Int {
        var count = 0
        for byte in bytes[range] where byte & 0xC0 != 0x80 { count += 1 }
        return count
    }

    /// The byte offset of the scalar with this number, the end for the number of scalars.
    func offset(ofScalar number: Int) -> Int {
        var remaining = number
        return bytes.withUnsafeBufferPointer { bytes in
            for offset in bytes.indices where bytes[offset] & 0xC0 != 0x80 {
                if remaining == 0 { return offset }
                remaining -= 1
            }
            return bytes.count
        }
    }

    /// The scalar that starts at `offset`, and its length in bytes.
    func scalar(at offset: Int) -> (scalar: Unicode.Scalar, length: Int) {
        let lead = UInt32(bytes[offset])
        func tail(_ index: Int) -> UInt32 { UInt32(bytes[offset + index] & 0x3F) }
        let value: UInt32
        let length: Int
        if lead < 0x80 {
            (value, length) = (lead, 1)
        } else if lead < 0xE0 {
            (value, length) = ((lead & 0x1F) << 6 | tail(1), 2)
        } else if lead < 0xF0 {
            (value, length) = ((lead & 0x0F) << 12 | tail(1) << 6 | tail(2), 3)
        } else {
            (value, length) = ((lead & 0x07) << 18 | tail(1) << 12 | tail(2) << 6 | tail(3), 4)
        }
        return (Unicode.Scalar(value) ?? "\u{FFFD}", length)
    }

    /// Where the scalar before `offset` starts.
    func offset(before offset: Int) -> Int {
        var start = offset - 1
        while bytes[start] & 0xC0 == 0x80 { start -= 1 }
        return start
    }

    /// Each scalar as a text of its own, as Python iterates over a string.
    var characters: [TemplateText] {
        var result: [TemplateText] = []
        result.reserveCapacity(bytes.count)
        var offset = 0
        while offset < bytes.count {
            let end = offset + scalar(at: offset).length
            result.append(self[offset..<end])
            offset = end
        }
        return result
    }

    // MARK: Searching

    /// Where `pattern` first occurs at or after `start`; linear in the text, whatever the pattern.
    func offset(of pattern: TemplateText, from start: Int = 0) -> Int? {
        let length = pattern.byteCount
        if length == 0 { return start }
        guard start + length <= bytes.count else { return nil }
        if length > 32 { return offset(ofLong: pattern, from: start) }
        return bytes.withUnsafeBytes { text in
            pattern.bytes.withUnsafeBytes { wanted in
                var position = start
                let lastStart = text.count - length
                while position <= lastStart,
                    let found = memchr(text.baseAddress! + position, Int32(wanted[0]), lastStart - position + 1)
                {
                    position = UnsafeRawPointer(found) - text.baseAddress!
                    if memcmp(found, wanted.baseAddress!, length) == 0 { return position }
                    position += 1
                }
                return nil
            }
        }
    }

    /// Knuth, Morris and Pratt's search: a long pattern may come from a request, and must not make the search quadratic.
    private func offset(ofLong pattern: TemplateText, from start: Int) -> Int? {
        let wanted = pattern.bytes
        // For each prefix of the pattern the length of its longest proper border.
        var borderLengths = [0]
        borderLengths.reserveCapacity(wanted.count)
        var length = 0
        for byte in wanted.dropFirst() {
            while length > 0, byte != wanted[length] { length = borderLengths[length - 1] }
            if byte == wanted[length] { length += 1 }
            borderLengths.append(length)
        }
        length = 0
        for position in start..<bytes.count {
            while length > 0, bytes[position] != wanted[length] { length = borderLengths[length - 1] }
            if bytes[position] == wanted[length] { length += 1 }
            if length == wanted.count { return position + 1 - length }
        }
        return nil
    }

    /// Where `pattern` last occurs so that it ends at or before `end`.
    func lastOffset(of pattern: TemplateText, endingAt end: Int) -> Int? {
        if pattern.isEmpty { return end }
        var start = end - pattern.byteCount
        return bytes.withUnsafeBytes { text in
            pattern.bytes.withUnsafeBytes { wanted in
                while start >= 0 {
                    if text[start] == wanted[0], memcmp(text.baseAddress! + start, wanted.baseAddress!, wanted.count) == 0 { return start }
                    start -= 1
                }
                return nil
            }
        }
    }

    func hasPrefix(_ prefix: TemplateText, in range: Range<Int>) -> Bool {
        prefix.byteCount <= range.count && bytes[range.lowerBound..<(range.lowerBound + prefix.byteCount)].elementsEqual(prefix.bytes)
    }

    func hasSuffix(_ suffix: TemplateText, in range: Range<Int>) -> Bool {
        suffix.byteCount <= range.count && bytes[(range.upperBound - suffix.byteCount)..<range.upperBound].elementsEqual(suffix.bytes)
    }
}

extension TemplateText: Hashable {
    /// Texts are equal when they read the same, whatever their origin.
    static func == (left: TemplateText, right: TemplateText) -> Bool { left.bytes == right.bytes }
    func hash(into hasher: inout Hasher) { hasher.combine(bytes) }
}

extension TemplateText: Comparable {
    /// Python's order by code points, which is that of UTF-8.
    static func < (left: TemplateText, right: TemplateText) -> Bool { left.bytes.lexicographicallyPrecedes(right.bytes) }
}

extension TemplateText: ExpressibleByStringLiteral {
    init(stringLiteral value: StaticString) { self.init(value.description, isTrusted: true) }
}
