import Kernels

/// Examples that begin alike, such as those of one system prompt, or the two answers of a pair: what their first tokens compute is the same, and is held once.
///
/// A run of tokens follows the run before it; every example ends at the end of a run. Exact: in a causal model a token depends on those before it only,
/// and gradients of shared rows are the sums of the examples'.
package struct PrefixTree {
    private struct Run {
        var tokens: ArraySlice<Int32>
        var position: Int
        var parent: Int?
        var children: [Int] = []
        /// The first example that has it.
        let example: Int
    }

    /// A run costs attention a product of its own: shorter ones are computed again instead.
    package static let shortestShare = 16

    private var runs: [Run] = []
    private var roots: [Int] = []
    /// The last run of each example.
    private var ends: [Int] = []
    private let isSharing: Bool

    package init(isSharing: Bool) { self.isSharing = isSharing }

    package mutating func insert(_ tokens: [Int32]) {
        var rest = tokens[...], parent: Int?
        while let (run, count) = longestShare(of: rest, below: parent) {
            if count < runs[run].tokens.count { split(run, at: count) }
            parent = run
            rest = rest.dropFirst(count)
        }
        // An example that ends inside the tree has no tokens of its own.
        ends.append(rest.isEmpty && parent != nil ? parent! : append(rest, below: parent))
    }

    /// The run below another that begins with most of the tokens, and how many those are; `nil` if no run is worth sharing.
    private func longestShare(of rest: ArraySlice<Int32>, below parent: Int?) -> (run: Int, count: Int)? {
        guard isSharing, !rest.isEmpty else { return nil }
        var best: (run: Int, count: Int)?
        for run in parent.map({ runs[$0].children }) ?? roots {
            let count = PrefixTree.commonCount(rest, runs[run].tokens)
            if count > (best?.count ?? 0), count >= PrefixTree.shortestShare || count == runs[run].tokens.count { best = (run, count) }
        }
        return best
    }

    static func commonCount(_ a: ArraySlice<Int32>, _ b: ArraySlice<Int32>) -> Int { zip(a, b).prefix { $0 == $1 }.count }

    private mutating func append(_ tokens: ArraySlice<Int32>, below parent: Int?) -> Int {
        let number = runs.count
        runs.append(Run(tokens: tokens, position: parent.map { runs[$0].position + runs[$0].tokens.count } ?? 0, parent: parent, example: ends.count))
        if let parent { runs[parent].children.append(number) } else { roots.append(number) }
        return number
    }

    /// Leaves the run its first tokens, and gives the others, with all that follows or ends there, to a new run behind it.
    private mutating func split(_ run: Int, at count: Int) {
        let number = runs.count, whole = runs[run]
        runs.append(
            Run(tokens: whole.tokens.dropFirst(count), position: whole.position + count, parent: run, children: whole.children, example: whole.example))
        for child in whole.children { runs[child].parent = number }
        runs[run].tokens = whole.tokens.prefix(count)
        runs[run].children = [number]
        for (i, end) in ends.enumerated() where end == run { ends[i] = number }
    }

    /// Where everything lies: runs one after another, each behind the run that it follows.
    package struct Layout {
        package var tokens: [Int32] = []
        package var positions: [Int32] = []
        /// Of each row, the first example that has it.
        package var examples: [Int] = []
        /// Of each run, in the order of rows: the example up to its end.
        package var segments: [TrainingCompute.Segment] = []
        /// Of each example.
        package var pieces: [TrainingCompute.Segment] = []
    }

    package func layout() -> Layout {
        var layout = Layout()
        var segments = [TrainingCompute.Segment](repeating: [], count: runs.count)
        var next = Array(roots.reversed())
        while let number = next.popLast() {
            let run = runs[number]
            segments[number] =
                (run.parent.map { segments[$0] } ?? []) + [.init(first: layout.tokens.count, position: run.position, count: run.tokens.count)]
            layout.segments.append(segments[number])
            layout.tokens += run.tokens
            layout.positions += run.tokens.indices.map { Int32(run.position + $0 - run.tokens.startIndex) }
            layout.examples += Array(repeating: run.example, count: run.tokens.count)
            next += run.children.reversed()
        }
        layout.pieces = ends.map { segments[$0] }
        return layout
    }
}
