import CKernels

/// The low-rank pairs of one adapter, packed in 8 bits for the integer kernels (`graft_kernels.h`, "low rank"). Projections that share their
/// input form a stage. Immutable; its memory is a region of its own, given back when the last user lets go.
public final class LowRankStages: @unchecked Sendable {
    // @unchecked: written once, in init.

    /// One projection's pair: y += scale · B (A x), A [rank, in] and B [out, rank] row-major.
    public struct Pair {
        /// Its place among the projections of the stage, from 0.
        public var place: Int
        public var rank: Int
        public var scale: Float
        public var a: [Float], b: [Float]

        public init(place: Int, rank: Int, scale: Float, a: [Float], b: [Float]) {
            self.place = place
            self.rank = rank
            self.scale = scale
            self.a = a
            self.b = b
        }
    }

    public static let maximumRank = Int(GRAFT_LORA_MAX_RANK)
    /// The most projections of a stage.
    public static let maximumPairs = Int(GRAFT_LORA_PAIRS)

    let stages: UnsafeMutablePointer<graft_lora_stage>
    let stageCount: Int
    /// Of one row's h, over the widest stage.
    let hiddenBytes: Int
    private let region: MemoryRegion

    /// Bytes that the packed pairs take.
    public var byteCount: Int { region.byteCount }

    /// Packs on the caller's thread.
    ///
    /// - Parameters:
    ///   - stages: by number; a stage may be empty.
    ///   - widths: of each stage's input, multiples of 32.
    /// - Throws: `KernelError.outOfMemory`.
    public init(stages given: [[Pair]], widths: [Int]) throws(KernelError) {
        precondition(given.count == widths.count && widths.allSatisfy { $0 > 0 && $0 % Int(GRAFT_BLOCK) == 0 }, "stages of widths in multiples of 32")
        // First the places of everything, then one region, then the contents.
        var table = [graft_lora_stage](repeating: graft_lora_stage(), count: given.count)
        var places: [(a: Int, b: [Int])] = []
        var end = 0
        var widest = 0
        func take(_ bytes: Int) -> Int {
            defer { end = (end + bytes + 63) / 64 * 64 }
            return end
        }
        for (number, pairs) in given.enumerated() {
            let stacked = pairs.reduce(0) { $0 + LowRankStages.padded($1.rank) }
            widest = max(widest, stacked)
            guard stacked > 0 else {
                places.append((0, []))
                continue
            }
            let laidOut = graft_panels_layout(&table[number].a, Int32(GGMLType.q8_0.rawValue), Int64(stacked), Int64(widths[number]))
            precondition(laidOut == 1)
            let panels = (stacked + panelRows - 1) / panelRows
            let a = take(panels * Int(table[number].a.panel_bytes))
            places.append((a, pairs.map { pair in
                precondition((1...LowRankStages.maximumRank).contains(pair.rank) && (0..<LowRankStages.maximumPairs).contains(pair.place), "rank \(pair.rank), place \(pair.place)")
                precondition(pair.a.count == pair.rank * widths[number] && pair.b.count % pair.rank == 0, "a pair of another shape than its stage")
                return take(Int(graft_lora_b_bytes(Int64(pair.b.count / pair.rank), Int64(pair.rank))))
            }))
        }
        let region = try MemoryRegion(byteCount: end)
        for (number, pairs) in given.enumerated() where !pairs.isEmpty {
            table[number].a.data = region.base.assumingMemoryBound(to: UInt8.self) + places[number].a
            var offset = 0
            var exponents = [Int32](repeating: 0, count: LowRankStages.maximumRank)
            for (pair, place) in zip(pairs, places[number].b) {
                let b = region.base.assumingMemoryBound(to: UInt8.self) + place
                graft_lora_pack_a(&table[number].a, Int64(offset), pair.a, Int64(pair.rank), &exponents)
                graft_lora_pack_b(pair.b, Int64(pair.b.count / pair.rank), Int64(pair.rank), exponents, pair.scale, b)
                let packed = graft_lora_pair(rank: Int32(LowRankStages.padded(pair.rank)), offset: Int32(offset), b: b)
                switch pair.place {
                case 0: table[number].pairs.0 = packed
                case 1: table[number].pairs.1 = packed
                default: table[number].pairs.2 = packed
                }
                offset += LowRankStages.padded(pair.rank)
            }
        }
        self.region = region
        stageCount = given.count
        hiddenBytes = Int(graft_lora_hidden_bytes(Int64(widest)))
        stages = .allocate(capacity: table.count)
        stages.initialize(from: table, count: table.count)
    }

    deinit { stages.deallocate() }

    private static func padded(_ rank: Int) -> Int { (rank + Int(GRAFT_LORA_RANK_STEP) - 1) / Int(GRAFT_LORA_RANK_STEP) * Int(GRAFT_LORA_RANK_STEP) }
}

/// Which packed adapters each row of a step carries, and the working memory of their products. One owner at a time.
public final class LowRankRows {
    public let capacity: Int
    /// The most adapters of a row.
    public let maximumTerms: Int
    private var spans: [graft_lora_span] = []
    private var terms: [graft_lora_term] = []
    private var held: [LowRankStages] = []
    /// Sized for the most; pages that no step writes to cost nothing.
    private let hidden: MemoryRegion
    /// For steps of one row, whose hidden row the threads of the product share.
    private let deferred: MemoryRegion
    private var hiddenStride = 0

    public init(capacity: Int, maximumTerms: Int) throws(KernelError) {
        precondition(capacity > 0 && maximumTerms > 0)
        self.capacity = capacity
        self.maximumTerms = maximumTerms
        hidden = try MemoryRegion(byteCount: capacity * maximumTerms * Int(graft_lora_hidden_bytes(Int64(LowRankStages.maximumPairs * LowRankStages.maximumRank))))
        deferred = try MemoryRegion(byteCount: Int(graft_lora_deferred_bytes(Int64(maximumTerms))))
        spans.reserveCapacity(capacity)
    }

    /// Whether no row carries an adapter.
    public var isEmpty: Bool { terms.isEmpty }

    public func removeAll() {
        spans.removeAll(keepingCapacity: true)
        terms.removeAll(keepingCapacity: true)
        held.removeAll(keepingCapacity: true)
        hiddenStride = 0
    }

    /// The next `count` rows carry these adapters with these weights, applied in this order.
    public func append(rows count: Int, _ adapters: [(stages: LowRankStages, weight: Float)]) {
        precondition(count > 0 && spans.count + count <= capacity, "\(spans.count + count) rows, at most \(capacity)")
        precondition(adapters.count <= maximumTerms, "\(adapters.count) adapters on a row, at most \(maximumTerms)")
        if let last = spans.last, Int(last.count) == adapters.count,
            zip(terms.suffix(adapters.count), adapters).allSatisfy({ $0.stages == $1.stages.stages && $0.weight == $1.weight })
        {
            // Neighbours with the same adapters share their terms, and with them one pass over A.
            spans.append(contentsOf: repeatElement(last, count: count))
            return
        }
        let span = graft_lora_span(first: Int32(terms.count), count: Int32(adapters.count))
        var end = 0
        for (stages, weight) in adapters {
            terms.append(graft_lora_term(stages: stages.stages, weight: weight, hidden: Int32(end)))
            held.append(stages)
            end += stages.hiddenBytes
        }
        hiddenStride = max(hiddenStride, end)
        spans.append(contentsOf: repeatElement(span, count: count))
    }

    /// Goes on with these rows alone, in rising order, and with what they carry: row i is now what row `rows[i]` was.
    public func keep(_ rows: [Int]) {
        var kept: (spans: [graft_lora_span], terms: [graft_lora_term], held: [LowRankStages]) = ([], [], [])
        var last: graft_lora_span?
        for row in rows {
            let span = spans[row], range = Int(span.first)..<Int(span.first + span.count)
            // Neighbours that shared their terms still do.
            if let last, last.first == span.first, last.count == span.count {
                kept.spans.append(kept.spans.last!)
            } else {
                kept.spans.append(graft_lora_span(first: Int32(kept.terms.count), count: span.count))
                kept.terms += terms[range]
                kept.held += held[range]
            }
            last = span
        }
        (spans, terms, held) = kept
    }

    /// The kernels' view for one stage. Valid inside `body` only.
    func withStage<Result>(_ stage: Int, rows count: Int, _ body: (graft_lora) -> Result) -> Result {
        precondition(count <= spans.count && held.allSatisfy { stage < $0.stageCount }, "\(count) rows of \(spans.count), stage \(stage)")
        // What is put off is kept for one row's terms.
        precondition(spans.count > 1 || terms.count <= maximumTerms, "\(terms.count) terms on one row")
        return withExtendedLifetime(self) {
            spans.withUnsafeBufferPointer { spans in
                terms.withUnsafeBufferPointer { terms in
                    body(
                        graft_lora(
                            rows: spans.baseAddress, terms: terms.baseAddress, term_count: Int64(terms.count), stage: Int64(stage), hidden: hidden.base.assumingMemoryBound(to: UInt8.self),
                            hidden_stride: Int64(hiddenStride),
                            deferred: self.spans.count == 1 ? OpaquePointer(deferred.base) : nil))
                }
            }
        }
    }
}

/// The adapters of a step at one stage.
public struct LowRankStage {
    public var rows: LowRankRows
    public var number: Int

    public init(_ rows: LowRankRows, _ number: Int) {
        self.rows = rows
        self.number = number
    }
}
