import Kernels

/// Examples that are computed at once: their tokens side by side, each example seeing itself only. What several of them begin with is computed once.
package struct MicroBatch {
    package let tokens: [Int32]
    /// Of each token in its own example.
    package let positions: [Int32]
    /// Runs of rows that see each other, with what came before them.
    package let segments: [TrainingCompute.Segment]
    /// What chance is drawn from: equal for a token of an example wherever it lies.
    package private(set) var keys: [UInt64] = []
    package let exampleCount: Int
    /// Of the examples, a shared one counted for each.
    package let tokenCount: Int
    /// Rows whose next token is trained, with that token and the number of the example. A row that is shared may occur several times.
    package private(set) var rows: [Int] = []
    package private(set) var targets: [Int32] = []
    package private(set) var owners: [Int] = []

    /// - Parameters:
    ///   - examples: each with a key that tells it from all others of the run, and this time of seeing it from the other times.
    ///   - isSharing: whether tokens that several examples begin with are computed once; then chance, which falls differently on each, must stay out.
    package init(_ examples: [(example: TokenizedExample, key: UInt64)], isSharing: Bool) {
        var tree = PrefixTree(isSharing: isSharing)
        for (example, _) in examples { tree.insert(example.tokens) }
        let layout = tree.layout()
        tokens = layout.tokens
        positions = layout.positions
        segments = layout.segments
        exampleCount = examples.count
        tokenCount = examples.reduce(0) { $0 + $1.example.tokens.count }
        keys = zip(layout.examples, layout.positions).map { SplitMix.mix(examples[$0].key, UInt64($1)) }
        for (number, (example, _)) in examples.enumerated() {
            for piece in layout.pieces[number] {
                for i in piece.position..<min(piece.position + piece.count, example.tokens.count - 1) where example.isTrained[i + 1] {
                    rows.append(piece.first + i - piece.position)
                    targets.append(example.tokens[i + 1])
                    owners.append(number)
                }
            }
        }
    }
}

/// Divides examples among micro-batches.
package enum Packing {
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

    /// Tokens that all examples begin with and that none of them trains: computed once for each bin.
    package static func commonPrefix(_ examples: some Sequence<TokenizedExample>) -> Int {
        var common: ArraySlice<Int32>?
        for example in examples {
            // A token before a trained one is a row of the head: it counts for each example.
            let untrained = example.tokens[..<max(0, (example.isTrained.firstIndex(of: true) ?? 0) - 1)]
            common = common.map { $0.prefix(PrefixTree.commonCount($0, untrained)) } ?? untrained
        }
        let count = common?.count ?? 0
        return count < PrefixTree.shortestShare ? 0 : count
    }
}
