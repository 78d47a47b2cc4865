/// One piece of a word while it is being merged.
struct Symbol: BitwiseCopyable {
    /// Token id, -1 when these bytes are not a token.
    var id: Int32
    /// Byte range in the text.
    var start: Int32
    var end: Int32
}

/// What two neighbouring symbols would become, and how urgently.
struct MergeCandidate: BitwiseCopyable {
    /// The lowest is merged first; `none` never.
    var priority: UInt32
    var id: Int32

    static let none = MergeCandidate(priority: .max, id: -1)
}

protocol MergeRule {
    func candidate(_ left: Symbol, _ right: Symbol) -> MergeCandidate
}

/// Merges the most urgent pair of neighbours, the leftmost of equals, until no pair merges.
///
/// Words of ordinary length are scanned for their minimum again and again, which beats any structure; long ones (a megabyte without a
/// space is one word) go through a heap, so that the whole costs O(n log n).
struct SymbolMerger {
    /// The word's symbols before and after `merge`.
    var symbols: [Symbol] = []
    private var candidates: [MergeCandidate] = []

    /// The longest word, in symbols, that is scanned.
    static let scanLimit = 48

    mutating func merge(by rule: some MergeRule) {
        if symbols.count < 2 { return }
        if symbols.count <= Self.scanLimit { mergeByScanning(rule) } else { mergeByHeap(rule) }
    }

    @inline(__always)
    private mutating func mergeByScanning(_ rule: some MergeRule) {
        let initialCount = symbols.count
        if candidates.count < initialCount {
            candidates = [MergeCandidate](repeating: .none, count: max(initialCount, Self.scanLimit))
        }
        var count = initialCount
        symbols.withUnsafeMutableBufferPointer { symbolBuffer in
            candidates.withUnsafeMutableBufferPointer { candidateBuffer in
                let symbols = symbolBuffer.baseAddress!
                let candidates = candidateBuffer.baseAddress!
                for index in 0..<count - 1 { candidates[index] = rule.candidate(symbols[index], symbols[index + 1]) }
                while count > 1 {
                    var best = 0
                    var priority = UInt32.max
                    for index in 0..<count - 1 where candidates[index].priority < priority {
                        best = index
                        priority = candidates[index].priority
                    }
                    if priority == .max { break }
                    symbols[best].id = candidates[best].id
                    symbols[best].end = symbols[best + 1].end
                    count -= 1
                    for index in best + 1..<max(best + 1, count) {
                        symbols[index] = symbols[index + 1]
                        candidates[index] = candidates[index + 1]
                    }
                    if best > 0 { candidates[best - 1] = rule.candidate(symbols[best - 1], symbols[best]) }
                    if best + 1 < count { candidates[best] = rule.candidate(symbols[best], symbols[best + 1]) }
                }
            }
        }
        symbols.removeLast(initialCount - count)
    }

    private mutating func mergeByHeap(_ rule: some MergeRule) {
        let count = symbols.count
        let kept = symbols.withUnsafeMutableBufferPointer { buffer in
            let chain = SymbolChain(buffer.baseAddress!, count: count)
            defer { chain.deallocate() }
            return chain.merge(by: rule)
        }
        symbols.removeLast(count - kept)
    }
}

/// A long word's symbols as a doubly linked list, with a heap of the pairs that may merge.
private struct SymbolChain {
    private let symbols: UnsafeMutablePointer<Symbol>
    private let count: Int
    /// What each symbol and its right neighbour would become.
    private let candidates: UnsafeMutablePointer<MergeCandidate>
    private let previous: UnsafeMutablePointer<Int32>
    private let next: UnsafeMutablePointer<Int32>
    /// Room for the heap: a merge takes one entry out and puts two in at most, and there are fewer merges than symbols.
    private let heap: UnsafeMutablePointer<UInt64>

    init(_ symbols: UnsafeMutablePointer<Symbol>, count: Int) {
        self.symbols = symbols
        self.count = count
        candidates = .allocate(capacity: count)
        candidates.initialize(repeating: .none, count: count)
        previous = .allocate(capacity: count)
        next = .allocate(capacity: count)
        for index in 0..<count {
            (previous + index).initialize(to: Int32(index) - 1)
            (next + index).initialize(to: Int32(index) + 1)
        }
        heap = .allocate(capacity: 2 * count)
        heap.initialize(repeating: 0, count: 2 * count)
    }

    func deallocate() {
        candidates.deallocate()
        previous.deallocate()
        next.deallocate()
        heap.deallocate()
    }

    /// Merges, moves the symbols that are left to the front, and returns their number.
    func merge(by rule: some MergeRule) -> Int {
        var queue = PairHeap(storage: heap)
        for index in 0..<count - 1 {
            candidates[index] = rule.candidate(symbols[index], symbols[index + 1])
            if candidates[index].priority != .max { queue.appendUnordered(priority: candidates[index].priority, position: index) }
        }
        queue.order()
        while let top = queue.pop() {
            let left = top.position
            // An entry is stale when its left symbol is gone (its candidate is `none`) or has another neighbour by now.
            guard candidates[left].priority == top.priority else { continue }
            let right = Int(next[left])
            let after = Int(next[right])
            let before = Int(previous[left])
            symbols[left].id = candidates[left].id
            symbols[left].end = symbols[right].end
            next[left] = Int32(after)
            candidates[right] = .none
            candidates[left] = .none
            if after < count {
                previous[after] = Int32(left)
                consider(left, after, rule, &queue)
            }
            if before >= 0 { consider(before, left, rule, &queue) }
        }
        var kept = 0
        var index = 0
        while index < count {
            symbols[kept] = symbols[index]
            kept += 1
            index = Int(next[index])
        }
        return kept
    }

    @inline(__always)
    private func consider(_ left: Int, _ right: Int, _ rule: some MergeRule, _ queue: inout PairHeap) {
        let candidate = rule.candidate(symbols[left], symbols[right])
        candidates[left] = candidate
        if candidate.priority != .max { queue.push(priority: candidate.priority, position: left) }
    }
}

/// A binary heap of `priority << 32 | position`, the least on top: the most urgent first, then the leftmost.
private struct PairHeap {
    private let entries: UnsafeMutablePointer<UInt64>
    private var count = 0

    init(storage: UnsafeMutablePointer<UInt64>) { entries = storage }

    mutating func appendUnordered(priority: UInt32, position: Int) {
        entries[count] = UInt64(priority) << 32 | UInt64(UInt32(position))
        count += 1
    }

    func order() {
        for index in stride(from: count / 2 - 1, through: 0, by: -1) { sift(entries[index], down: index) }
    }

    mutating func push(priority: UInt32, position: Int) {
        let entry = UInt64(priority) << 32 | UInt64(UInt32(position))
        var child = count
        count += 1
        while child > 0 {
            let parent = (child - 1) / 2
            if entries[parent] <= entry { break }
            entries[child] = entries[parent]
            child = parent
        }
        entries[child] = entry
    }

    mutating func pop() -> (priority: UInt32, position: Int)? {
        guard count > 0 else { return nil }
        let top = entries[0]
        count -= 1
        if count > 0 { sift(entries[count], down: 0) }
        return (UInt32(truncatingIfNeeded: top >> 32), Int(UInt32(truncatingIfNeeded: top)))
    }

    private func sift(_ entry: UInt64, down start: Int) {
        var parent = start
        while true {
            var child = 2 * parent + 1
            if child >= count { break }
            if child + 1 < count, entries[child + 1] < entries[child] { child += 1 }
            if entries[child] >= entry { break }
            entries[parent] = entries[child]
            parent = child
        }
        entries[parent] = entry
    }
}
