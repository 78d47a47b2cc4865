import CKernels

/// A run that was asked to stop between two units of work.
public struct TrainingInterrupted: Error, Sendable {}

/// What training computes with: the kernels of a variant, on a pool that serving uses as well.
///
/// Every operation is cut into units of a few milliseconds, and serving may take its turn between any two of them. How operations are cut depends on how
/// fast they were before, and has no influence on results.
public final class TrainingCompute {
    /// C = alpha op(A) op(B) + beta C of float32, row-major; called on several threads at once.
    public typealias MatrixProduct =
        @convention(c) (Int32, Int32, Int64, Int64, Int64, Float, UnsafePointer<Float>?, Int64, UnsafePointer<Float>?, Int64, Float, UnsafeMutablePointer<Float>?, Int64)
        -> Void

    public let variant: KernelVariant
    public let pool: ComputePool
    public let turnstile: ComputeTurnstile
    private let kernels: UnsafePointer<graft_training_kernels>
    private let matrixProduct: MatrixProduct
    private let isInterrupted: () -> Bool
    private let scratch: MemoryRegion
    private let attentionScratchBytes: Int
    /// How long a unit may take, in seconds.
    private let unitSeconds: Double
    public static let unitSeconds = 0.004
    /// How much longer it may be while nobody is served.
    private static let lullFactor = 5.0
    /// Work per second of each operation, as measured.
    private var rates: [Operation: Double] = [:]

    /// Multiply-adds of an item, at most about: a millisecond or two.
    private static let itemProducts = 100_000_000
    /// Places of a contraction that are done at once: a multiple of every kernel's block.
    private static let longestContraction = 6144

    private enum Operation {
        case product, outer, row, rope, attention, attentionBackward, loss, optimiser
    }

    /// Whether the processor multiplies bfloat16.
    public static func multipliesBFloat16(_ variant: KernelVariant) -> Bool {
        graft_training_kernels_for(variant.table, BFloat16Unit.tiles.rawValue).pointee.multiplies_bfloat16 != 0
    }

    /// What multiplies bfloat16, from the slowest to the fastest: float32 units, vector units (AVX-512 BF16), a matrix unit (AMX).
    public enum BFloat16Unit: Int32, Sendable, CaseIterable {
        case widened, vectors, tiles
    }

    /// The name of the kernels, for benchmarks.
    public static func name(_ variant: KernelVariant) -> String {
        String(cString: graft_training_kernels_for(variant.table, BFloat16Unit.tiles.rawValue).pointee.name)
    }

    /// - Parameters:
    ///   - longestExample: tokens of the longest example that attention will see.
    ///   - bfloat16: the best unit for it that is used if it is there; others than the best are for tests.
    public init(
        variant: KernelVariant, pool: ComputePool, turnstile: ComputeTurnstile, matrixProduct: @escaping MatrixProduct, longestExample: Int, headDim: Int,
        unitSeconds: Double = TrainingCompute.unitSeconds, bfloat16: BFloat16Unit = .tiles, isInterrupted: @escaping () -> Bool = { false }
    ) throws(KernelError) {
        self.variant = variant
        self.pool = pool
        self.turnstile = turnstile
        self.matrixProduct = matrixProduct
        self.unitSeconds = unitSeconds
        self.isInterrupted = isInterrupted
        kernels = graft_training_kernels_for(variant.table, bfloat16.rawValue)
        attentionScratchBytes = Int(graft_train_attention_scratch(Int64(longestExample), Int32(headDim)))
        scratch = try MemoryRegion(byteCount: TrainingCompute.scratchBytes(threads: pool.threadCount, longestExample: longestExample, headDim: headDim))
    }

    /// Memory that the threads work in.
    public static func scratchBytes(threads: Int, longestExample: Int, headDim: Int) -> Int {
        threads * max(Int(graft_train_attention_scratch(Int64(longestExample), Int32(headDim))), Int(graft_product_scratch()))
    }

    /// `work`: of one item, in any unit that stays the same for an operation.
    private func run<Context: BitwiseCopyable>(
        _ operation: Operation, _ job: graft_job, _ context: inout Context, items: Int, work: Double
    ) throws(TrainingInterrupted) {
        var next = 0
        while next < items {
            if isInterrupted() { throw TrainingInterrupted() }
            next += unit(operation, job, &context, first: next, items: items, work: work)
        }
    }

    /// The same for what must be done whole.
    private func runWhole<Context: BitwiseCopyable>(_ operation: Operation, _ job: graft_job, _ context: inout Context, items: Int, work: Double) {
        var next = 0
        while next < items { next += unit(operation, job, &context, first: next, items: items, work: work) }
    }

    /// Items from `first` on, as many as fit into one unit of time.
    private func unit<Context: BitwiseCopyable>(_ operation: Operation, _ job: graft_job, _ context: inout Context, first: Int, items: Int, work: Double) -> Int {
        // The first unit of an operation measures it.
        // Nobody is kept waiting between two tokens while nobody is served: then units are longer, because threads wait for each other at the end of each.
        let seconds = turnstile.isServing ? unitSeconds : Self.lullFactor * unitSeconds
        let fitting = rates[operation].map { Int(seconds * $0 / work) } ?? pool.threadCount
        // Whole rounds of all threads, so that none waits for the others.
        let count = min(max(fitting / pool.threadCount, 1) * pool.threadCount, items - first)
        var unit = Unit(job: job, context: nil, first: first)
        var elapsed = 0.0
        turnstile.train {
            let start = ContinuousClock.now
            withUnsafeMutablePointer(to: &context) { pointer in
                unit.context = UnsafeMutableRawPointer(pointer)
                graft_pool_run(pool.pool, { unit, begin, end, thread in
                    let unit = unit!.assumingMemoryBound(to: Unit.self).pointee
                    unit.job(unit.context, begin + unit.first, end + unit.first, thread)
                }, &unit, count, max(1, count / (8 * pool.threadCount)))
            }
            elapsed = (ContinuousClock.now - start).seconds
        }
        let rate = Double(count) * work / max(elapsed, 1e-6)
        rates[operation] = rates[operation].map { 0.8 * $0 + 0.2 * rate } ?? rate
        return count
    }

    private struct Unit {
        var job: graft_job
        var context: UnsafeMutableRawPointer?
        var first: Int
    }

    // MARK: Products

    /// One product of a sum: rows times a matrix.
    public struct Term {
        public enum Matrix {
            /// x Wᵀ, and x W.
            case weights(WeightMatrix), weightsTransposed(WeightMatrix)
            /// x bᵀ with b [columns][width], and x b with b [width][columns], both float32 with rows of `width` or `columns` floats.
            case rows(UnsafePointer<Float>, width: Int), columns(UnsafePointer<Float>, width: Int)
        }

        public var input: TrainingRows
        public var matrix: Matrix
        public var scale: Float

        public init(_ input: TrainingRows, _ matrix: Matrix, scale: Float = 1) {
            self.input = input
            self.matrix = matrix
            self.scale = scale
        }

        /// The part of the contraction that is meant, of transposed weights; `nil`: all.
        fileprivate var range: Range<Int>?

        /// Of the contraction.
        fileprivate var places: Int {
            if let range { return range.count }
            if case .weightsTransposed(let matrix) = matrix { return matrix.rows }
            return input.width
        }
    }

    /// output [rows][columns] = Σ terms (+ bias) (+ output).
    /// - Parameter splitsRows: for few columns: rows are divided among the threads as well.
    public func product(
        _ terms: [Term], rows: Int, columns: Int, to output: TrainingRows, bias: FloatVector? = nil, accumulating: Bool = false, splitsRows: Bool = false
    ) throws(TrainingInterrupted) {
        // A contraction over a whole vocabulary is done piece by piece; our own kernels go over the sums in such blocks anyway.
        if terms.count == 1, bias == nil, terms[0].range == nil, case .weightsTransposed(let matrix) = terms[0].matrix, matrix.rows > Self.longestContraction {
            for first in stride(from: 0, to: matrix.rows, by: Self.longestContraction) {
                var term = terms[0]
                term.range = first..<min(first + Self.longestContraction, matrix.rows)
                try product([term], rows: rows, columns: columns, to: output, accumulating: accumulating || first > 0, splitsRows: splitsRows)
            }
            return
        }
        precondition(!terms.isEmpty && terms.count <= Int(GRAFT_TERMS) && rows <= output.capacity && columns <= output.width && output.type == .float32)
        precondition(bias == nil || bias!.count == columns)
        var job = graft_product()
        withUnsafeMutableBytes(of: &job.terms) { memory in
            let slots = memory.bindMemory(to: graft_term.self)
            for (i, term) in terms.enumerated() {
                precondition(term.input.type == terms[0].input.type && rows <= term.input.capacity)
                var slot = graft_term(a: term.input.raw, k: Int64(term.input.width), operand: 0, scale: term.scale, w: graft_panels(), b: nil, ldb: 0)
                switch term.matrix {
                case .weights(let matrix):
                    precondition(matrix.rows == columns && matrix.columns == term.input.width, "a matrix [\(matrix.rows), \(matrix.columns)] for rows of \(term.input.width)")
                    slot.operand = Int32(GRAFT_OPERAND_PANELS.rawValue)
                    slot.w = matrix.panels
                case .weightsTransposed(let matrix):
                    precondition(matrix.columns == columns && matrix.rows <= term.input.width && columns % 16 == 0)
                    slot.k = Int64(term.places)
                    slot.operand = Int32(GRAFT_OPERAND_PANELS_TRANSPOSED.rawValue)
                    slot.w = matrix.panels
                    if let range = term.range {
                        slot.a = TrainingRows(columns: range.lowerBound, width: range.count, of: term.input).raw
                        slot.w.data += range.lowerBound / 16 * Int(slot.w.panel_bytes)
                        slot.w.rows = Int64(range.count)
                    }
                case .rows(let values, let width):
                    precondition(width >= term.input.width)
                    slot.operand = Int32(GRAFT_OPERAND_ROWS.rawValue)
                    slot.b = values
                    slot.ldb = Int64(width)
                case .columns(let values, let width):
                    precondition(width >= columns)
                    slot.operand = Int32(GRAFT_OPERAND_COLUMNS.rawValue)
                    slot.b = values
                    slot.ldb = Int64(width)
                }
                slots[i] = slot
            }
        }
        job.term_count = Int32(terms.count)
        job.accumulate = accumulating ? 1 : 0
        job.bias = bias.map { UnsafePointer($0.pointer) }
        job.c = output.floats
        job.ldc = Int64(output.floatStride)
        job.rows = Int64(rows)
        job.columns = Int64(columns)
        let isOwn = kernels.pointee.multiplies_float32 != 0, threads = pool.threadCount
        if terms[0].input.type == .float32 {
            // The library cuts its work itself; our own products want rows whose numbers stay in the second-level cache.
            let places = terms.reduce(0) { $0 + $1.places }
            let tiles = (columns + 63) / 64, wide = min(4, max(1, Self.itemProducts / (256 * 64 * places))), blocks = (tiles + wide - 1) / wide
            job.column_block = isOwn ? Int64((tiles + blocks - 1) / blocks * 64) : Int64(GRAFT_LIBRARY_COLUMNS)
            let most = isOwn ? 256 : splitsRows ? max(96, (rows + 4 * threads - 1) / (4 * threads)) : max(rows, 1)
            job.row_block = Int64(isOwn ? min(most, max(48, (rows * blocks + 2 * threads - 1) / (2 * threads))) : most)
        } else {
            // Equal blocks of columns, in multiples of 64; where they are few, rows are divided as well, although each part brings the columns into order again.
            let tiles = (columns + 63) / 64, wide = Int(kernels.pointee.bfloat16_columns) / 64
            let blocks = (tiles + wide - 1) / wide
            job.column_block = Int64((tiles + blocks - 1) / blocks * 64)
            let parts = splitsRows ? 4 * threads : wide > 1 && blocks % threads != 0 && blocks < 4 * threads ? threads : 1
            job.row_block = Int64(parts > 1 ? max(96, ((rows + parts - 1) / parts + 31) / 32 * 32) : max(rows, 1))
        }
        job.kernels = variant.table
        job.sgemm = isOwn ? nil : matrixProduct
        job.scratch = scratch.base.assumingMemoryBound(to: UInt8.self)
        try run(.product, kernels.pointee.product, &job, items: Int(graft_product_items(&job)), work: graft_product_item_work(&job))
        withExtendedLifetime((terms, output, bias)) {}
    }

    /// gradient [hidden.width][width] += scale · Σ over rows hidden[row][j] x[row][w].
    public func addOuter(_ hidden: TrainingRows, _ x: TrainingRows, rows: Int, scale: Float, to gradient: UnsafeMutablePointer<Float>, rank: Int) throws(TrainingInterrupted) {
        precondition(hidden.type == .float32 && rank <= hidden.width && rows <= hidden.capacity && rows <= x.capacity)
        var job = graft_outer(
            h: hidden.floats, h_stride: Int64(hidden.floatStride), x: x.raw, g: gradient, ldg: Int64(x.width), rows: Int64(rows), rank: Int64(rank),
            width: Int64(x.width), scale: scale)
        let columns = Int(GRAFT_OUTER_COLUMNS)
        try run(.outer, kernels.pointee.outer, &job, items: (x.width + columns - 1) / columns, work: Double(rows * rank))
        withExtendedLifetime((hidden, x)) {}
    }

    // MARK: Norms and gates

    /// y = norm(x) · weight. `save` receives x; with `residual`, y is added to it.
    public func norm(
        _ x: TrainingRows, weight: FloatVector, epsilon: Float, rows: Int, to y: TrainingRows?, save: TrainingRows? = nil, addingTo residual: TrainingRows? = nil
    ) throws(TrainingInterrupted) {
        precondition(weight.count == x.width)
        var job = graft_train_norm(
            x: x.raw, y: y?.raw ?? graft_rows(), save: save?.raw ?? graft_rows(), weight: weight.pointer, residual: residual?.floats,
            residual_stride: Int64(residual?.floatStride ?? 0), width: Int64(x.width), eps: epsilon)
        try run(.row, kernels.pointee.norm, &job, items: rows, work: Double(x.width))
        withExtendedLifetime((x, weight, y, save, residual)) {}
    }

    /// dx (+)= the norm's gradient; `copy` receives the new dx.
    public func normBackward(
        x: TrainingRows, weight: FloatVector, epsilon: Float, rows: Int, dy: TrainingRows, dx: TrainingRows, accumulating: Bool, copy: TrainingRows? = nil
    ) throws(TrainingInterrupted) {
        precondition(weight.count == x.width && dy.width >= x.width && dx.width >= x.width)
        var job = graft_train_norm_backward(
            x: x.raw, copy: copy?.raw ?? graft_rows(), weight: weight.pointer, dy: dy.floats, dx: dx.floats, dy_stride: Int64(dy.floatStride),
            dx_stride: Int64(dx.floatStride), width: Int64(x.width), eps: epsilon, accumulate: accumulating ? 1 : 0)
        try run(.row, kernels.pointee.norm_backward, &job, items: rows, work: 2 * Double(x.width))
        withExtendedLifetime((x, weight, dy, dx, copy)) {}
    }

    /// act = activation(gate) ∘ up; gate and up are kept.
    public func gate(
        _ gate: TrainingRows, up: TrainingRows, activation: Compute.Gate, rows: Int, saveGate: TrainingRows?, saveUp: TrainingRows?, to act: TrainingRows
    ) throws(TrainingInterrupted) {
        precondition(gate.width == up.width && act.width == gate.width && gate.floatStride == up.floatStride)
        var job = graft_train_gate(
            gate: gate.floats, up: up.floats, stride: Int64(gate.floatStride), save_gate: saveGate?.raw ?? graft_rows(), save_up: saveUp?.raw ?? graft_rows(),
            act: act.raw, width: Int64(gate.width), activation: activation.raw)
        try run(.row, kernels.pointee.gate, &job, items: rows, work: 3 * Double(gate.width))
        withExtendedLifetime((gate, up, saveGate, saveUp, act)) {}
    }

    public func gateBackward(
        gate: TrainingRows, up: TrainingRows, activation: Compute.Gate, rows: Int, dact: TrainingRows, act: TrainingRows, dgate: TrainingRows, dup: TrainingRows
    ) throws(TrainingInterrupted) {
        var job = graft_train_gate_backward(
            gate: gate.raw, up: up.raw, dact: dact.floats, dact_stride: Int64(dact.floatStride), act: act.raw, dgate: dgate.raw, dup: dup.raw,
            width: Int64(gate.width), activation: activation.raw)
        try run(.row, kernels.pointee.gate_backward, &job, items: rows, work: 4 * Double(gate.width))
        withExtendedLifetime((gate, up, dact, act, dgate, dup)) {}
    }

    // MARK: Attention

    /// How the heads of q or k are normed and rotated.
    public struct Rotation {
        var heads: Int, headDim: Int, rotaryDim: Int
        var style: Compute.RotaryStyle
        var weight: FloatVector?
        var epsilon: Float
        var cos: FloatRows, sin: FloatRows

        public init(heads: Int, headDim: Int, style: Compute.RotaryStyle, weight: FloatVector?, epsilon: Float, cos: FloatRows, sin: FloatRows) {
            precondition(cos.width == sin.width && 2 * cos.width <= headDim && headDim % 16 == 0 && (weight == nil || weight!.count == headDim))
            self.heads = heads
            self.headDim = headDim
            rotaryDim = 2 * cos.width
            self.style = style
            self.weight = weight
            self.epsilon = epsilon
            self.cos = cos
            self.sin = sin
        }
    }

    public func rotate(_ x: TrainingRows, _ rotation: Rotation, rows: Int, save: TrainingRows?, to y: TrainingRows) throws(TrainingInterrupted) {
        precondition(rotation.heads * rotation.headDim == x.width && y.width == x.width && rows <= rotation.cos.capacity)
        var job = graft_train_rope(
            x: x.raw, save: save?.raw ?? graft_rows(), y: y.floats, y_stride: Int64(y.floatStride), heads: Int32(rotation.heads), head_dim: Int32(rotation.headDim),
            rotary_dim: Int32(rotation.rotaryDim), style: rotation.style.raw, weight: rotation.weight.map { UnsafePointer($0.pointer) }, eps: rotation.epsilon,
            cos: rotation.cos.pointer, sin: rotation.sin.pointer)
        try run(.rope, kernels.pointee.rope, &job, items: rows, work: Double(x.width))
        withExtendedLifetime((x, y, save, rotation)) {}
    }

    /// dx from dy, which is overwritten.
    public func rotateBackward(x: TrainingRows, dy: TrainingRows, _ rotation: Rotation, rows: Int, dx: TrainingRows) throws(TrainingInterrupted) {
        precondition(rotation.heads * rotation.headDim == x.width && dy.width == x.width && dx.width == x.width)
        var job = graft_train_rope_backward(
            x: x.raw, dx: dx.raw, dy: dy.floats, dy_stride: Int64(dy.floatStride), heads: Int32(rotation.heads), head_dim: Int32(rotation.headDim),
            rotary_dim: Int32(rotation.rotaryDim), style: rotation.style.raw, weight: rotation.weight.map { UnsafePointer($0.pointer) }, eps: rotation.epsilon,
            cos: rotation.cos.pointer, sin: rotation.sin.pointer)
        try run(.rope, kernels.pointee.rope_backward, &job, items: rows, work: Double(x.width))
        withExtendedLifetime((x, dy, dx, rotation)) {}
    }

    /// The operands of attention, all float32: q [rows][heads · headDim], k and v [rows][kvHeads · headDim].
    public struct Attention {
        var q, k, v: TrainingRows
        var heads: Int, kvHeads: Int, headDim: Int
        var scale: Float
        var window: Int?

        public init(q: TrainingRows, k: TrainingRows, v: TrainingRows, heads: Int, kvHeads: Int, headDim: Int, scale: Float, window: Int?) {
            precondition(q.width == heads * headDim && k.width == kvHeads * headDim && v.width == k.width && heads % kvHeads == 0)
            (self.q, self.k, self.v) = (q, k, v)
            (self.heads, self.kvHeads, self.headDim) = (heads, kvHeads, headDim)
            self.scale = scale
            self.window = window
        }
    }

    /// Rows first … of an example's positions position ….
    public struct Piece: Sendable, Equatable {
        public var first, position, count: Int

        public init(first: Int, position: Int, count: Int) {
            self.first = first
            self.position = position
            self.count = count
        }
    }

    /// An example from its position 0 on. The last piece's rows are its own; those before it belong to segments that come earlier, and are shared.
    public typealias Segment = [Piece]

    private func attentionJob(_ a: Attention) -> graft_train_attention {
        var job = graft_train_attention()
        job.segment_count = 1
        (job.q, job.k, job.v) = (UnsafePointer(a.q.floats), UnsafePointer(a.k.floats), UnsafePointer(a.v.floats))
        (job.q_stride, job.kv_stride) = (Int64(a.q.floatStride), Int64(a.k.floatStride))
        (job.heads, job.kv_heads, job.head_dim) = (Int32(a.heads), Int32(a.kvHeads), Int32(a.headDim))
        job.scale = a.scale
        job.window = Int64(a.window ?? 0)
        job.sgemm = matrixProduct
        job.scratch = scratch.base.assumingMemoryBound(to: UInt8.self)
        job.scratch_bytes = Int64(attentionScratchBytes)
        return job
    }

    /// Items of unequal length are run segment by segment, and long segments by ranges of queries, so that a unit is never much longer than it should be.
    /// - Parameter products: of a query with a key that an item does, all heads of it together.
    private func attend(
        _ a: Attention, _ segments: [Segment], _ operation: Operation, _ kernel: graft_job, heads: Int, products: Int, _ fill: (inout graft_train_attention) -> Void
    ) throws(TrainingInterrupted) {
        var job = attentionJob(a)
        fill(&job)
        for segment in segments {
            let own = segment[segment.count - 1], length = own.position + own.count
            precondition(Int(graft_train_attention_scratch(Int64(length), Int32(a.headDim))) <= attentionScratchBytes, "an example longer than was announced")
            let pieces = segment.map { graft_train_piece(first: Int64($0.first), position: Int64($0.position), count: Int64($0.count)) }
            var raw = graft_train_segment(piece: 0, piece_count: Int64(pieces.count))
            let queries = max(1, Self.itemProducts / (products * length * a.headDim * 64)) * 64
            try pieces.withUnsafeBufferPointer { pieces throws(TrainingInterrupted) in
                try withUnsafePointer(to: &raw) { pointer throws(TrainingInterrupted) in
                    job.pieces = pieces.baseAddress
                    job.segments = pointer
                    for from in stride(from: 0, to: own.count, by: queries) {
                        let to = min(from + queries, own.count)
                        (job.from, job.to) = (Int64(from), Int64(to))
                        try run(operation, kernel, &job, items: heads, work: Double((to - from) * (own.position + to) * a.headDim))
                    }
                }
            }
        }
    }

    public func attend(_ a: Attention, _ segments: [Segment], to out: TrainingRows) throws(TrainingInterrupted) {
        precondition(out.width == a.q.width)
        try attend(a, segments, .attention, kernels.pointee.attention, heads: a.heads, products: 2) { $0.out = out.raw }
        withExtendedLifetime((a, out)) {}
    }

    public func attendBackward(
        _ a: Attention, _ segments: [Segment], dout: TrainingRows, dq: TrainingRows, dk: TrainingRows, dv: TrainingRows
    ) throws(TrainingInterrupted) {
        precondition(dout.floatStride == a.q.floatStride && dq.floatStride == a.q.floatStride && dk.floatStride == a.k.floatStride && dv.floatStride == a.k.floatStride)
        try attend(a, segments, .attentionBackward, kernels.pointee.attention_backward, heads: a.kvHeads, products: 5 * a.heads / a.kvHeads) { job in
            job.dout = UnsafePointer(dout.floats)
            (job.dq, job.dk, job.dv) = (dq.floats, dk.floats, dv.floats)
        }
        withExtendedLifetime((a, dout, dq, dk, dv)) {}
    }

    // MARK: Loss

    /// Per row: log p(target), and whether the target is the most likely; with `gradient`, weights[row] · (softmax - onehot), whose rows may be the logits' own.
    public func loss(
        _ logits: TrainingRows, width: Int, targets: UnsafePointer<Int32>, weights: UnsafePointer<Float>?, rows: Int, gradient: TrainingRows?,
        logProbabilities: UnsafeMutablePointer<Float>, hits: UnsafeMutablePointer<Int32>
    ) throws(TrainingInterrupted) {
        precondition(rows <= logits.capacity && width <= logits.width && (gradient == nil || weights != nil))
        var job = graft_train_loss(
            logits: logits.floats, stride: Int64(logits.floatStride), width: Int64(width), targets: targets, weights: weights, gradient: gradient?.raw ?? graft_rows(),
            log_probabilities: logProbabilities, hits: hits)
        try run(.loss, kernels.pointee.loss, &job, items: rows, work: Double(width))
        withExtendedLifetime((logits, gradient)) {}
    }

    // MARK: Rows, chance, the optimiser

    public func copy(_ from: TrainingRows, to: TrainingRows, rows: Int) throws(TrainingInterrupted) {
        precondition(from.width == to.width && rows <= from.capacity && rows <= to.capacity)
        var job = graft_train_copy(from: from.raw, to: to.raw, width: Int64(from.width))
        try run(.row, kernels.pointee.copy, &job, items: rows, work: Double(from.width))
        withExtendedLifetime((from, to)) {}
    }

    /// y = x with a share of its values gone and the others scaled up; drawn for each row's key.
    public func drop(_ x: TrainingRows, share: Float, keys: UnsafePointer<UInt64>, salt: UInt64, rows: Int, to y: TrainingRows) throws(TrainingInterrupted) {
        var job = graft_train_dropout(x: x.raw, y: y.raw, add: nil, add_stride: 0, keys: keys, salt: salt, width: Int64(x.width), share: share)
        try run(.row, kernels.pointee.dropout, &job, items: rows, work: 2 * Double(x.width))
        withExtendedLifetime((x, y)) {}
    }

    /// sum += x with the same share gone.
    public func addDropped(_ x: TrainingRows, share: Float, keys: UnsafePointer<UInt64>, salt: UInt64, rows: Int, to sum: TrainingRows) throws(TrainingInterrupted) {
        var job = graft_train_dropout(
            x: x.raw, y: graft_rows(), add: sum.floats, add_stride: Int64(sum.floatStride), keys: keys, salt: salt, width: Int64(x.width), share: share)
        try run(.row, kernels.pointee.dropout, &job, items: rows, work: 2 * Double(x.width))
        withExtendedLifetime((x, sum)) {}
    }

    /// x += amplitudes[row] · u, u uniform in -1 … 1.
    public func addNoise(to x: TrainingRows, amplitudes: UnsafePointer<Float>, keys: UnsafePointer<UInt64>, salt: UInt64, rows: Int) throws(TrainingInterrupted) {
        var job = graft_train_noise(x: x.floats, stride: Int64(x.floatStride), keys: keys, amplitudes: amplitudes, salt: salt, width: Int64(x.width))
        try run(.row, kernels.pointee.noise, &job, items: rows, work: 2 * Double(x.width))
        withExtendedLifetime(x) {}
    }

    /// x[i] = E[tokens[i]] · scale, and the rotary tables of the positions: small jobs, one unit each.
    public func embed(_ tokens: UnsafeBufferPointer<Int32>, table: WeightMatrix, scale: Float, to x: TrainingRows) {
        precondition(table.columns == x.width && x.floatStride == x.width && tokens.count <= x.capacity)
        precondition(tokens.allSatisfy { $0 >= 0 && Int($0) < table.rows }, "a token id outside the vocabulary of \(table.rows)")
        var job = graft_embed(table: table.panels, tokens: tokens.baseAddress, x: x.floats, width: Int64(x.width), scale: scale)
        turnstile.train { graft_pool_run(pool.pool, graft_embed_rows, &job, tokens.count, 16) }
        withExtendedLifetime((table, x)) {}
    }

    public func rotaryTable(positions: UnsafeBufferPointer<Int32>, inverseFrequencies: FloatVector, cos: FloatRows, sin: FloatRows) {
        let compute = Compute(variant: variant, pool: pool)
        turnstile.train { compute.rotaryTable(positions: positions, inverseFrequencies: inverseFrequencies, cos: cos, sin: sin) }
    }

    /// Σ x², summed in a fixed order.
    public func sumOfSquares(_ x: UnsafePointer<Float>, count: Int) throws(TrainingInterrupted) -> Double {
        let chunk = Int(GRAFT_OPTIMISER_CHUNK), chunks = (count + chunk - 1) / chunk
        var sums = [Double](repeating: 0, count: chunks)
        let operation = kernels.pointee.squares!
        try sums.withUnsafeMutableBufferPointer { sums throws(TrainingInterrupted) in
            var job = graft_train_squares(x: x, sums: sums.baseAddress, count: Int64(count))
            try run(.optimiser, operation, &job, items: chunks, work: Double(chunk))
        }
        return sums.reduce(0, +)
    }

    /// One step of AdamW.
    public struct AdamW {
        public var learningRate: Double
        public var beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8
        public var weightDecay: Double
        /// 1 for the first.
        public var step: Int
        /// Gradients are multiplied by it first.
        public var gradientScale: Double

        public init(learningRate: Double, weightDecay: Double, step: Int, gradientScale: Double) {
            self.learningRate = learningRate
            self.weightDecay = weightDecay
            self.step = step
            self.gradientScale = gradientScale
        }
    }

    /// Not to be interrupted: half of a step would be no step.
    public func update(
        _ parameters: UnsafeMutablePointer<Float>, gradients: UnsafePointer<Float>, first: UnsafeMutablePointer<Float>, second: UnsafeMutablePointer<Float>, count: Int,
        _ adamW: AdamW
    ) {
        var job = graft_train_adamw(
            parameters: parameters, first: first, second: second, gradients: gradients, count: Int64(count), gradient_scale: Float(adamW.gradientScale),
            learning_rate: Float(adamW.learningRate), beta1: Float(adamW.beta1), beta2: Float(adamW.beta2), epsilon: Float(adamW.epsilon),
            decay: Float(adamW.learningRate * adamW.weightDecay), correction1: Float(1 - power(adamW.beta1, adamW.step)),
            correction2: Float((1 - power(adamW.beta2, adamW.step)).squareRoot()))
        let chunk = Int(GRAFT_OPTIMISER_CHUNK), chunks = (count + chunk - 1) / chunk
        runWhole(.optimiser, kernels.pointee.adamw, &job, items: chunks, work: Double(chunk))
    }

    private func power(_ base: Double, _ exponent: Int) -> Double {
        var result = 1.0, factor = base, left = exponent
        while left > 0 {
            if left & 1 == 1 { result *= factor }
            factor *= factor
            left >>= 1
        }
        return result
    }
}

extension Compute.Gate {
    var raw: Int32 { self == .silu ? Int32(GRAFT_SILU.rawValue) : Int32(GRAFT_GELU_TANH.rawValue) }
}

extension Compute.RotaryStyle {
    var raw: Int32 { self == .interleaved ? Int32(GRAFT_ROPE_INTERLEAVED.rawValue) : Int32(GRAFT_ROPE_HALVES.rawValue) }
}

extension Duration {
    fileprivate var seconds: Double { Double(components.seconds) + Double(components.attoseconds) * 1e-18 }
}
