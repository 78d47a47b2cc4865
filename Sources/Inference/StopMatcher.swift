/// Ends a text before the first of several stop strings while it is still being produced.
///
/// Text is released as soon as it cannot be part of a stop string any more; what may still become one is held back. The stop
/// string whose last byte comes first ends the text, and of two that end at the same byte the longer one, so that nothing of
/// it is shown. The match is by UTF-8 bytes: no Unicode normalisation, and a character is never split, because a held-back
/// suffix starts where a stop string starts.
///
/// Each stop string is followed by its own Knuth-Morris-Pratt automaton, so the work per byte does not depend on the text.
public struct StopMatcher: Sendable {
    private struct Pattern: Sendable {
        let index: Int
        let bytes: [UInt8]
        /// For a match of i + 1 bytes, the length of its longest proper suffix that is a prefix.
        let fallback: [Int]
        var matched = 0

        init(index: Int, bytes: [UInt8]) {
            self.index = index
            self.bytes = bytes
            var fallback = [Int](repeating: 0, count: bytes.count)
            var length = 0
            for i in 1..<max(bytes.count, 1) {
                while length > 0, bytes[i] != bytes[length] { length = fallback[length - 1] }
                if bytes[i] == bytes[length] { length += 1 }
                fallback[i] = length
            }
            self.fallback = fallback
        }

        /// Returns whether the pattern is complete.
        mutating func step(_ byte: UInt8) -> Bool {
            while matched > 0, bytes[matched] != byte { matched = fallback[matched - 1] }
            if bytes[matched] == byte { matched += 1 }
            return matched == bytes.count
        }
    }

    private let stops: [String]
    private var patterns: [Pattern]
    private var held: [UInt8] = []

    /// The stop string that ended the text.
    public private(set) var matched: String?

    /// - Parameter stops: empty strings among them are ignored.
    public init(_ stops: [String]) {
        self.stops = stops
        patterns = stops.enumerated().compactMap { index, stop in
            stop.isEmpty ? nil : Pattern(index: index, bytes: Array(stop.utf8))
        }
    }

    /// Bytes that are held back.
    public var heldCount: Int { held.count }

    /// Takes the next piece of the text (whole characters) and appends to `visible` what may be shown.
    /// - Returns: whether a stop string is complete. From then on nothing is released and every piece is ignored.
    public mutating func append(_ piece: String, to visible: inout String) -> Bool {
        guard matched == nil else { return true }
        guard !patterns.isEmpty else {
            visible += piece
            return false
        }
        for byte in piece.utf8 {
            held.append(byte)
            var ended: Int?
            for i in patterns.indices where patterns[i].step(byte) {
                if ended.map({ patterns[i].bytes.count > patterns[$0].bytes.count }) ?? true { ended = i }
            }
            if let ended {
                held.removeLast(patterns[ended].bytes.count)
                matched = stops[patterns[ended].index]
                release(held.count, to: &visible)
                return true
            }
        }
        var longest = 0
        for pattern in patterns where pattern.matched > longest { longest = pattern.matched }
        release(held.count - longest, to: &visible)
        return false
    }

    /// The text ends here: what was held back is released, unless a stop string ended it before.
    public mutating func finish(to visible: inout String) {
        guard matched == nil else { return }
        release(held.count, to: &visible)
        for i in patterns.indices { patterns[i].matched = 0 }
    }

    private mutating func release(_ count: Int, to visible: inout String) {
        guard count > 0 else { return }
        held.withUnsafeBufferPointer { visible += String(decoding: $0[..<count], as: UTF8.self) }
        held.removeFirst(count)
    }
}
