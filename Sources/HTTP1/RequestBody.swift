/// The content of one request. It is collected in pieces of bounded size, and what has come is neither moved nor copied when more comes:
/// hundreds of megabytes cost a server's thread no more at a time than one read.
///
/// Who needs all of it in one array calls `joined()`, for a large one on a thread that may take its time.
public struct RequestBody: Sendable {
    /// Collected pieces have this many bytes, but for the last one.
    public static let pieceBytes = 1 << 18

    public private(set) var pieces: [[UInt8]] = []
    public private(set) var count = 0

    public init() {}

    /// Content that is in one array already.
    public init(_ bytes: [UInt8]) {
        if !bytes.isEmpty { pieces = [bytes] }
        count = bytes.count
    }

    /// Content in pieces of whatever sizes.
    package init(pieces: [[UInt8]]) {
        self.pieces = pieces
        count = pieces.reduce(0) { $0 + $1.count }
    }

    public var isEmpty: Bool { count == 0 }

    /// - Parameter announced: how many bytes there will be in all, if that is known. Believed for one piece at a time, because an announcement
    ///   alone must not cost megabytes.
    mutating func append(_ bytes: UnsafeRawBufferPointer, announced: Int?) {
        var rest = bytes
        while !rest.isEmpty {
            if pieces.last.map({ $0.count >= RequestBody.pieceBytes }) ?? true {
                var piece: [UInt8] = []
                // A first piece without an announcement grows with what comes: most bodies are small.
                if let announced {
                    piece.reserveCapacity(min(max(announced - count, rest.count), RequestBody.pieceBytes))
                } else if !pieces.isEmpty {
                    piece.reserveCapacity(RequestBody.pieceBytes)
                }
                pieces.append(piece)
            }
            let last = pieces.count - 1
            let taken = min(rest.count, RequestBody.pieceBytes - pieces[last].count)
            pieces[last].append(contentsOf: UnsafeRawBufferPointer(rebasing: rest[..<taken]))
            count += taken
            rest = UnsafeRawBufferPointer(rebasing: rest[taken...])
        }
    }

    /// All bytes in one array, which costs nothing as long as there is one piece.
    public func joined() -> [UInt8] {
        pieces.count == 1 ? pieces[0] : bytes(in: 0..<count)
    }

    /// A copy of some of the bytes; the range must lie within the body.
    public func bytes(in range: Range<Int>) -> [UInt8] {
        precondition(range.lowerBound >= 0 && range.upperBound <= count, "the range \(range) is not within a body of \(count) bytes")
        return [UInt8](unsafeUninitializedCapacity: range.count) { buffer, initialized in
            var start = 0
            for piece in pieces {
                let part = range.clamped(to: start..<(start + piece.count))
                if !part.isEmpty {
                    let source = piece[(part.lowerBound - start)..<(part.upperBound - start)]
                    let target = UnsafeMutableBufferPointer(rebasing: buffer[initialized..<(initialized + part.count)])
                    _ = target.initialize(fromContentsOf: source)
                    initialized += part.count
                }
                start += piece.count
            }
        }
    }
}
