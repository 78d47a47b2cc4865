#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif
import Kernels

/// The first `count` entries of the scratch's candidate arrays.
struct Candidates {
    var count: Int
    /// The weight of the distribution that the next step of the chain sees, of which the candidates may be a part.
    var mass: Double = 0
}

extension SamplerScratch {
    // MARK: Whole rows

    /// The largest logit. Leaves the lane maxima of the groups behind for `collectLargest`.
    mutating func largest(of row: UnsafeBufferPointer<Float>) throws(InferenceError) -> Float {
        guard !kernels.maxima(row, into: maxima) else {
            let token = row.firstIndex { $0.isNaN } ?? 0
            throw InferenceError(
                .internalFailure,
                "The model's output holds NaN (the first at token \(token) of \(row.count)), so no token can be chosen; the weights or the cache are damaged.")
        }
        var top = -Float.infinity
        for value in maxima where value > top { top = value }
        guard top.isFinite else {
            throw InferenceError(
                .internalFailure,
                top < 0
                    ? "Every token of the vocabulary (\(row.count)) has probability zero, so none can be chosen; a logit_bias that bans all of them does this."
                    : "The model's output holds +infinity at token \(row.firstIndex(of: top) ?? 0), so no token can be chosen; the weights or the cache are damaged.")
        }
        return top
    }

    /// The sum of exp(logit - top) over the row, its groups added in order.
    mutating func mass(of row: UnsafeBufferPointer<Float>, top: Float) -> Double {
        kernels.exponentialSums(row, top: top, scale: 1, into: sums)
        return sums.reduce(0, +)
    }

    /// Draws from softmax((row - top) * scale): the group first, then the token within it.
    mutating func draw(_ u: Double, from row: UnsafeBufferPointer<Float>, top: Float, scale: Float) -> Int32 {
        kernels.exponentialSums(row, top: top, scale: scale, into: sums)
        let target = u * sums.reduce(0, +)
        var chosen = 0
        var before = 0.0
        var through = 0.0
        // Rounding may leave the target beyond the last sum: then the last group that weighs anything has it.
        for group in 0..<sums.count where sums[group] > 0 {
            chosen = group
            before = through
            through += sums[group]
            if through > target { break }
        }
        let start = chosen * LogitKernels.groupSize
        let group = UnsafeBufferPointer(rebasing: row[start..<min(start + LogitKernels.groupSize, row.count)])
        kernels.exponentials(group, top: top, scale: scale, into: weights)
        return Int32(start + pick(target - before, count: group.count))
    }

    /// The first of `count` weights whose running sum exceeds `target`, or the last that is not zero.
    private func pick(_ target: Double, count: Int) -> Int {
        var sum = 0.0
        var last = 0
        for i in 0..<count where weights[i] > 0 {
            sum += Double(weights[i])
            last = i
            if sum > target { break }
        }
        return last
    }

    // MARK: Candidates

    /// A value that probably not much more than the `count` largest elements of the row reach, from the maxima that
    /// `largest(of:)` left.
    ///
    /// Each maximum stands for an element of its own, so the count-th largest of them is reached by `count` elements for certain.
    /// That is of no use when there are not many more maxima than that: then the value is an estimate, for which a lane's elements
    /// are taken as drawn at random from the row.
    private func cut(forLargest count: Int) -> Float {
        var rank = count
        if count * 2 > maxima.count {
            let share = 1.25 * Double(count) / Double(vocabularySize)
            let perLane = Double(LogitKernels.groupSize / LogitKernels.lanes)
            rank = Int(Double(maxima.count) * (1 - pow(max(1 - share, 0), perLane)))
            guard rank > 0, rank * 10 <= maxima.count * 9 else { return -.greatestFiniteMagnitude }
        }
        // A heap of the largest maxima so far, the smallest of them at the root.
        let heap = UnsafeMutableBufferPointer(rebasing: keys[0..<rank])
        for i in 0..<rank { heap[i] = maxima[i] }
        for i in stride(from: rank / 2 - 1, through: 0, by: -1) { siftDown(heap, i) }
        for i in rank..<maxima.count where maxima[i] > heap[0] {
            heap[0] = maxima[i]
            siftDown(heap, 0)
        }
        return max(heap[0], -.greatestFiniteMagnitude)
    }

    /// Ids and values of elements of the row among which are the `count` largest (or all above -inf, if those are fewer).
    private mutating func collectLargest(_ count: Int, of row: UnsafeBufferPointer<Float>) -> Int {
        let found = kernels.collect(row, atLeast: cut(forLargest: count), ids: ids.baseAddress!, values: values.baseAddress!)
        guard found < count else { return found }
        return kernels.collect(
            row, atLeast: -.greatestFiniteMagnitude, ids: ids.baseAddress!, values: values.baseAddress!)
    }

    private func siftDown(_ heap: UnsafeMutableBufferPointer<Float>, _ start: Int) {
        var parent = start
        while true {
            var child = 2 * parent + 1
            guard child < heap.count else { return }
            if child + 1 < heap.count, heap[child + 1] < heap[child] { child += 1 }
            guard heap[child] < heap[parent] else { return }
            heap.swapAt(parent, child)
            parent = child
        }
    }

    /// The candidates that are at least `cut`.
    mutating func collect(_ row: UnsafeBufferPointer<Float>, atLeast cut: Float, top: Float) -> Candidates {
        weigh(kernels.collect(row, atLeast: cut, ids: ids.baseAddress!, values: values.baseAddress!), top: top)
    }

    /// Candidates among which are the `count` most likely tokens; `largest(of:)` has seen the row.
    mutating func collectLargest(_ count: Int, of row: UnsafeBufferPointer<Float>, top: Float) -> Candidates {
        weigh(collectLargest(count, of: row), top: top)
    }

    private mutating func weigh(_ count: Int, top: Float) -> Candidates {
        kernels.exponentials(UnsafeBufferPointer(rebasing: values[0..<count]), top: top, scale: 1, into: weights)
        return Candidates(count: count)
    }

    func mass(of candidates: Candidates) -> Double {
        var sum = 0.0
        for i in 0..<candidates.count { sum += Double(weights[i]) }
        return sum
    }

    /// Draws from softmax(logits * scale) of the candidates.
    mutating func draw(_ u: Double, from candidates: Candidates, scale: Float) -> Int32 {
        reweigh(candidates, scale: scale)
        return ids[pick(u * mass(of: candidates), count: candidates.count)]
    }

    /// What `draw` draws from.
    mutating func probabilities(of candidates: Candidates, scale: Float) -> [(token: Int32, probability: Double)] {
        reweigh(candidates, scale: scale)
        let mass = mass(of: candidates)
        return (0..<candidates.count).map { (ids[$0], Double(weights[$0]) / mass) }
    }

    private mutating func reweigh(_ candidates: Candidates, scale: Float) {
        let kept = UnsafeBufferPointer(rebasing: values[0..<candidates.count])
        var top = -Float.infinity
        for value in kept where value > top { top = value }
        kernels.exponentials(kept, top: top, scale: scale, into: weights)
    }

    /// Top-k.
    mutating func keepLargest(_ count: Int, of candidates: inout Candidates) {
        guard count < candidates.count else { return }
        keep(&candidates, rankedBy: values, until: Double(count), counting: true)
    }

    /// Top-p: the most likely candidates until they weigh `p` of `candidates.mass`.
    mutating func keepNucleus(_ p: Float, of candidates: inout Candidates) {
        keep(&candidates, rankedBy: values, until: Double(p) * candidates.mass, counting: false)
    }

    /// Locally typical sampling (Meister et al., arXiv 2202.00666): those candidates first whose surprise -ln p is nearest the
    /// entropy of the distribution, until they weigh `p` of it.
    mutating func keepTypical(_ p: Float, of candidates: inout Candidates, top: Float) {
        let logMass = Float(log(candidates.mass))
        var weightedLogits = 0.0
        for i in 0..<candidates.count where weights[i] > 0 { weightedLogits += Double(weights[i]) * Double(values[i] - top) }
        let entropy = logMass - Float(weightedLogits / candidates.mass)
        for i in 0..<candidates.count { keys[i] = -abs(logMass - (values[i] - top) - entropy) }
        keep(&candidates, rankedBy: keys, until: Double(p) * candidates.mass, counting: false)
    }

    /// Min-p: those within `logShare` (ln of the share, not positive) of the best candidate.
    mutating func keepAbove(_ logShare: Float, of candidates: inout Candidates) {
        var top = -Float.infinity
        for i in 0..<candidates.count where values[i] > top { top = values[i] }
        let cut = top + logShare
        var kept = 0
        for i in 0..<candidates.count where values[i] >= cut {
            move(i, to: kept)
            kept += 1
        }
        candidates.count = kept
    }

    private func move(_ from: Int, to: Int) {
        ids[to] = ids[from]
        values[to] = values[from]
        weights[to] = weights[from]
    }

    /// Keeps the candidates that rank first by `ranks` (ties: lower id), up to and with the one that brings their weight (or
    /// their number) to `target`; at least one. Those kept stay in the order of their ids.
    ///
    /// Sorting them all would cost the most here. Instead they are counted into bins of equal width below the best rank, and
    /// only the bin in which the target is reached is sorted.
    private mutating func keep(
        _ candidates: inout Candidates, rankedBy ranks: UnsafeMutableBufferPointer<Float>, until target: Double, counting: Bool
    ) {
        let count = candidates.count
        guard count > 1 else { return }
        var best = ranks[0], worst = ranks[0]
        for i in 1..<count {
            if ranks[i] > best { best = ranks[i] }
            if ranks[i] < worst { worst = ranks[i] }
        }
        let binCount = count > 64 ? Self.binCount : 1
        let width = Float(binCount) / (best - worst)
        let perUnit = width.isFinite ? width : 0
        func bin(_ rank: Float) -> Int { Int(min((best - rank) * perUnit, Float(binCount - 1))) }

        var crossing = 0
        var reached = 0.0
        if binCount > 1 {
            for b in 0..<binCount { bins[b] = 0 }
            for i in 0..<count { bins[bin(ranks[i])] += counting ? 1 : Double(weights[i]) }
            while crossing < binCount, reached + bins[crossing] < target {
                reached += bins[crossing]
                crossing += 1
            }
            if crossing == binCount { return }
        }

        var packedCount = 0
        for i in 0..<count where binCount == 1 || bin(ranks[i]) == crossing {
            packed[packedCount] = Self.pack(ranks[i], i)
            packedCount += 1
        }
        let inBin = UnsafeMutableBufferPointer(rebasing: packed[0..<packedCount])
        sortAscending(inBin)
        var last = UInt64.max
        for entry in inBin {
            last = entry
            reached += counting ? 1 : Double(weights[Int(entry & 0xFFFF_FFFF)])
            if reached >= target { break }
        }

        var kept = 0
        for i in 0..<count {
            let b = binCount == 1 ? crossing : bin(ranks[i])
            if b < crossing || (b == crossing && Self.pack(ranks[i], i) <= last) {
                move(i, to: kept)
                kept += 1
            }
        }
        candidates.count = kept
    }

    /// A number that is smaller for a higher rank, and for an earlier position among equal ranks.
    private static func pack(_ rank: Float, _ position: Int) -> UInt64 {
        // + 0 turns -0 into 0. The bits of floats order like signed magnitudes: flip them into unsigned order, then reverse it.
        let bits = (rank + 0).bitPattern
        let ordered = bits >> 31 == 0 ? bits | 0x8000_0000 : ~bits
        return UInt64(~ordered) << 32 | UInt64(UInt32(truncatingIfNeeded: position))
    }

    // MARK: Log-probabilities

    /// The `count` tokens of the row with the largest logits, best first, as packed rank and token.
    fileprivate mutating func mostLikely(_ count: Int, of row: UnsafeBufferPointer<Float>) -> UnsafeMutableBufferPointer<UInt64> {
        let wanted = min(count, row.count)
        guard wanted > 0 else { return UnsafeMutableBufferPointer(rebasing: packed[0..<0]) }
        var found = collectLargest(wanted, of: row)
        if found < wanted {
            // Logits of -inf pass no finite cut.
            found = kernels.collect(row, atLeast: -.infinity, ids: ids.baseAddress!, values: values.baseAddress!)
        }
        for i in 0..<found { packed[i] = Self.pack(values[i], Int(ids[i])) }
        sortAscending(UnsafeMutableBufferPointer(rebasing: packed[0..<found]))
        return UnsafeMutableBufferPointer(rebasing: packed[0..<wanted])
    }
}

extension Sampler {
    /// What `token` and the `count` most likely tokens cost: natural-log softmax over the whole of `logits`, which are the
    /// model's own, before bias, penalties and temperature. Ties: lower token id first.
    /// - Throws: `internalFailure` if the logits hold a NaN or +inf.
    public static func logprobs(
        of token: Int32, top count: Int, logits: UnsafeBufferPointer<Float>, scratch: inout SamplerScratch
    ) throws(InferenceError) -> TokenLogprobs {
        precondition(logits.count == scratch.vocabularySize, "the scratch is for \(scratch.vocabularySize) logits, not \(logits.count)")
        precondition(token >= 0 && Int(token) < logits.count, "token \(token) is not in the vocabulary of \(logits.count)")
        let largest = try scratch.largest(of: logits)
        let logMass = log(scratch.mass(of: logits, top: largest))
        func logprob(_ token: Int32) -> Float {
            Float(Double(logits[Int(token)]) - Double(largest) - logMass)
        }
        let best = scratch.mostLikely(count, of: logits)
        let top = [TokenProbability](unsafeUninitializedCapacity: best.count) { buffer, initialized in
            for (i, entry) in best.enumerated() {
                let token = Int32(truncatingIfNeeded: entry & 0xFFFF_FFFF)
                buffer.initializeElement(at: i, to: TokenProbability(token: token, logprob: logprob(token)))
            }
            initialized = best.count
        }
        return TokenLogprobs(logprob: logprob(token), top: top)
    }
}

/// In place and without allocating: insertion sort for short runs, heapsort otherwise.
func sortAscending(_ a: UnsafeMutableBufferPointer<UInt64>) {
    if a.count <= 24 {
        for i in stride(from: 1, to: a.count, by: 1) {
            let entry = a[i]
            var j = i
            while j > 0, a[j - 1] > entry {
                a[j] = a[j - 1]
                j -= 1
            }
            a[j] = entry
        }
        return
    }
    func siftDown(_ start: Int, _ end: Int) {
        let entry = a[start]
        var parent = start
        while true {
            var child = 2 * parent + 1
            guard child < end else { break }
            if child + 1 < end, a[child + 1] > a[child] { child += 1 }
            guard a[child] > entry else { break }
            a[parent] = a[child]
            parent = child
        }
        a[parent] = entry
    }
    for i in stride(from: a.count / 2 - 1, through: 0, by: -1) { siftDown(i, a.count) }
    for end in stride(from: a.count - 1, to: 0, by: -1) {
        a.swapAt(0, end)
        siftDown(0, end)
    }
}
