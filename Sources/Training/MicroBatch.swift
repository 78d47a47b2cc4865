import Kernels

/// Examples that are computed at once: their tokens side by side, each example seeing itself only.
struct MicroBatch {
    var tokens: [Int32] = []
    /// Of each token in its own example.
    var positions: [Int32] = []
    var segments: [TrainingCompute.Segment] = []
    /// What chance is drawn from: equal for a token of an example wherever it lies.
    var keys: [UInt64] = []
    /// Rows whose next token is trained, with that token and the number of the example's segment.
    var rows: [Int] = []
    var targets: [Int32] = []
    var owners: [Int] = []

    /// - Parameter key: tells the example from all others of the run, and this time of seeing it from the other times.
    mutating func append(_ example: TokenizedExample, key: UInt64) {
        let first = tokens.count
        tokens += example.tokens
        for i in example.tokens.indices {
            positions.append(Int32(i))
            keys.append(SplitMix.mix(key, UInt64(i)))
            if i + 1 < example.tokens.count, example.isTrained[i + 1] {
                rows.append(first + i)
                targets.append(example.tokens[i + 1])
                owners.append(segments.count)
            }
        }
        segments.append((first, example.tokens.count))
    }
}

/// Divides examples among micro-batches.
enum Packing {
    /// Best fit, longest first (Dósa and Sgall, 2014): each goes where it leaves the least room. Equal input gives equal bins.
    ///
    /// - Parameters:
    ///   - lengths: tokens of each item.
    ///   - capacity: of a bin; an item that is longer gets a bin of its own.
    ///   - isPacking: false: a bin for each.
    /// - Returns: items of each bin, in rising order; bins in the order of their first items.
    static func bins(_ lengths: [Int], capacity: Int, isPacking: Bool) -> [[Int]] {
        guard isPacking else { return lengths.indices.map { [$0] } }
        var bins: [(left: Int, items: [Int])] = []
        for item in lengths.indices.sorted(by: { (lengths[$1], $0) < (lengths[$0], $1) }) {
            let length = lengths[item]
            var best: Int?
            for (i, bin) in bins.enumerated() where bin.left >= length && (best == nil || bin.left < bins[best!].left) { best = i }
            if let best {
                bins[best].left -= length
                bins[best].items.append(item)
            } else {
                bins.append((capacity - length, [item]))
            }
        }
        return bins.map { $0.items.sorted() }.sorted { $0[0] < $1[0] }
    }
}
