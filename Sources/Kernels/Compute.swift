import CKernels

/// A kernel variant and a pool: what a forward pass computes with. Every operation checks its shapes, then runs without failing.
///
/// The C kernels get bare pointers, so every operation keeps its operands alive until it has run.
///
/// Rows of one operation are independent of each other: neither their number nor the pool's threads change a row's bits.
public struct Compute {
    public let variant: KernelVariant
    public let pool: ComputePool

    public init(variant: KernelVariant, pool: ComputePool) {
        self.variant = variant
        self.pool = pool
    }

    /// `smallest` items at least, and a multiple of them, go to a thread at once; below that the caller does them alone.
    private func run<Context: BitwiseCopyable>(_ job: graft_job, _ context: inout Context, count: Int, smallest: Int) {
        // Not so few that claiming them costs more than waiting for the last thread.
        let share = count / (16 * pool.threadCount)
        graft_pool_run(pool.pool, job, &context, count, max(share, smallest) / smallest * smallest)
    }

    /// Multiply-adds of 8-bit numbers that all threads together carry out in a second when nothing else is to be done: the best of several passes.
    public func productCeiling() -> Double {
        let count = 16 * pool.threadCount
        var ceiling = graft_product_ceiling()
        let clock = ContinuousClock()
        var best = Duration.seconds(1000)
        for _ in 0..<5 { best = min(best, clock.measure { graft_pool_run(pool.pool, variant.table.pointee.products, &ceiling, count, 1) }) }
        return Double(count) * Double(GRAFT_CEILING_PRODUCTS) / (Double(best.components.seconds) + Double(best.components.attoseconds) * 1e-18)
    }

    /// Row-wise jobs of fewer rows than this are not worth waking a thread for.
    private static let rowsPerThread = 4
    /// So many rows with adapters go to a thread in one piece, if there are enough for all: A of the next adapter is fetched beside the product with the last one.
    private static let adaptedRowsPerThread = 12

    /// With so many heads of keys for each thread, those of long and short sequences come out even, and sharing spans gains nothing.
    private static let headsPerThread = 16

    /// The fewest units of a product of so many rows that a thread takes at once.
    private static func fewestUnits(rows: Int) -> Int { rows < Int(GRAFT_MANY_ROWS) ? 1 : Int(GRAFT_MANY_ROWS_UNITS) }

    // MARK: matmul

    /// y = W x, for up to four matrices that share their input rows.
    public struct Product {
        fileprivate var matmul = graft_matmul()
        private let width: Int
        // The C structure holds bare pointers: these keep what they point to alive until the product has run.
        private let input: AnyObject
        private var held: (Part?, Part?, Part?, Part?)

        private typealias Part = (weights: WeightMatrix, bias: FloatVector?, output: FloatRows)

        /// Float32 rows `first` ..< `first + count` of `input`.
        public init(_ input: FloatRows, first: Int = 0, count: Int) {
            precondition(first >= 0 && first + count <= input.capacity)
            width = input.width
            self.input = input
            matmul.x = UnsafeRawPointer(input[first])
            matmul.x_stride = input.stride
            matmul.tokens = Int64(count)
        }

        /// 8-bit rows: every matrix must be quantised.
        public init(_ input: QuantizedRows, first: Int = 0, count: Int) {
            precondition(first >= 0 && first + count <= input.capacity)
            width = input.width
            self.input = input
            matmul.x = UnsafeRawPointer(input.pointer + first * Int(input.layout.bytes))
            matmul.x_stride = input.layout.bytes
            matmul.tokens = Int64(count)
            matmul.quantised = 1
        }

        public var isEmpty: Bool { matmul.part_count == 0 }

        /// Rows `first`… of `output`, from its column 0, receive W x + bias.
        /// - Parameter place: the matrix's place in the adapters' stage.
        public mutating func add(_ weights: WeightMatrix, bias: FloatVector? = nil, to output: FloatRows, first: Int = 0, place: Int? = nil) {
            precondition(place == nil || (0..<LowRankStages.maximumPairs).contains(place!))
            precondition(weights.columns == width, "a matrix of \(weights.columns) columns on rows of \(width)")
            precondition(output.width >= weights.rows && first + Int(matmul.tokens) <= output.capacity, "output rows too narrow or too few")
            precondition(bias == nil || bias!.count == weights.rows, "a bias of \(bias?.count ?? 0) for \(weights.rows) rows")
            precondition(matmul.quantised == 0 || weights.isQuantized, "float weights take float rows")
            precondition(matmul.part_count < 4, "at most four matrices share an input")
            let part = graft_matmul_part(weights: weights.panels, bias: bias.map { UnsafePointer($0.pointer) }, y: output[first], ldy: Int64(output.width), pair: Int32(place ?? -1))
            switch matmul.part_count {
            case 0: (matmul.parts.0, held.0) = (part, (weights, bias, output))
            case 1: (matmul.parts.1, held.1) = (part, (weights, bias, output))
            case 2: (matmul.parts.2, held.2) = (part, (weights, bias, output))
            default: (matmul.parts.3, held.3) = (part, (weights, bias, output))
            }
            matmul.part_count += 1
        }
    }

    /// - Parameters:
    ///   - accumulating: adds to the outputs (the residual stream) instead of overwriting them.
    ///   - lowRank: the adapters that the operation which made the input was given; row i of the product is row i of the step.
    public func multiply(_ product: Product, accumulating: Bool = false, lowRank: LowRankStage? = nil) {
        var product = product
        product.matmul.accumulate = accumulating ? 1 : 0
        let units = Int(graft_matmul_units(&product.matmul))
        withLowRank(lowRank, rows: Int(product.matmul.tokens)) { lora in
            product.matmul.lora = lora
            run(variant.table.pointee.matmul, &product.matmul, count: units, smallest: Compute.fewestUnits(rows: Int(product.matmul.tokens)))
        }
        withExtendedLifetime(product) {}
    }

    private func withLowRank(_ stage: LowRankStage?, rows: Int, _ body: (graft_lora) -> Void) {
        guard let stage else { return body(graft_lora()) }
        stage.rows.withStage(stage.number, rows: rows, body)
    }

    /// The fewest rows of a job that a thread is woken for: an adapter makes a row worth it.
    private func smallest(_ lowRank: LowRankStage?, of count: Int) -> Int {
        lowRank == nil ? Compute.rowsPerThread : max(1, min(Compute.adaptedRowsPerThread, (count + pool.threadCount - 1) / pool.threadCount))
    }

    // MARK: norms and gates

    /// y = x / √(mean x² + ε) · weight for rows 0 ..< count, as 8-bit rows if `quantized` is given, as floats if `y` is.
    /// - Parameter lowRank: adapters whose hidden rows are made of the 8-bit rows, here or, for a step of one row, in the product that follows.
    public func rmsNorm(
        _ x: FloatRows, weight: FloatVector, epsilon: Float, count: Int, to y: FloatRows?, quantized: QuantizedRows?, lowRank: LowRankStage? = nil
    ) {
        precondition(weight.count == x.width && count <= x.capacity && (y != nil || quantized != nil))
        precondition(y == nil || (y!.width == x.width && count <= y!.capacity))
        norm(x, weight, epsilon, count, y, nil, quantized, lowRank)
    }

    /// residual += norm(x), x being overwritten (gemma's norms after attention and feed-forward).
    public func addRMSNorm(_ x: FloatRows, weight: FloatVector, epsilon: Float, count: Int, to residual: FloatRows) {
        precondition(weight.count == x.width && residual.width == x.width && count <= x.capacity && count <= residual.capacity)
        norm(x, weight, epsilon, count, x, residual, nil, nil)
    }

    public func quantize(_ x: FloatRows, count: Int, to quantized: QuantizedRows, lowRank: LowRankStage? = nil) {
        norm(x, nil, 0, count, nil, nil, quantized, lowRank)
    }

    private func norm(
        _ x: FloatRows, _ weight: FloatVector?, _ epsilon: Float, _ count: Int, _ y: FloatRows?, _ residual: FloatRows?, _ quantized: QuantizedRows?,
        _ lowRank: LowRankStage?
    ) {
        precondition(quantized == nil || (quantized!.width == x.width && count <= quantized!.capacity))
        precondition(lowRank == nil || quantized != nil, "adapters read 8-bit rows")
        var job = graft_norm(
            x: x.pointer, weight: weight.map { UnsafePointer($0.pointer) }, y: y?.pointer, residual: residual?.pointer, quantised: quantized?.pointer,
            x_stride: x.stride, y_stride: y?.stride ?? 0, residual_stride: residual?.stride ?? 0, quantised_stride: quantized?.layout.bytes ?? 0,
            width: Int64(x.width), eps: epsilon, lora: graft_lora())
        withLowRank(lowRank, rows: count) { lora in
            job.lora = lora
            run(variant.table.pointee.norm, &job, count: count, smallest: smallest(lowRank, of: count))
        }
        withExtendedLifetime((x, weight, y, residual, quantized)) {}
    }

    public enum Gate: Sendable {
        case silu, geluTanh

        fileprivate var kernel: Int32 { Int32((self == .silu ? GRAFT_SILU : GRAFT_GELU_TANH).rawValue) }
    }

    /// activation(gate) · up for rows 0 ..< count: as 8-bit rows if `quantized` is given, and in the place of `gate` without it or if `keepsFloats`.
    public func gate(
        _ gate: FloatRows, up: FloatRows, activation: Gate, count: Int, quantized: QuantizedRows?, keepsFloats: Bool = true, lowRank: LowRankStage? = nil
    ) {
        precondition(lowRank == nil || quantized != nil, "adapters read 8-bit rows")
        precondition(gate.width == up.width && count <= gate.capacity && count <= up.capacity)
        precondition(quantized == nil || (quantized!.width == gate.width && count <= quantized!.capacity))
        var job = graft_gated(
            gate: gate.pointer, up: up.pointer, y: quantized == nil || keepsFloats ? gate.pointer : nil, quantised: quantized?.pointer, stride: gate.stride, y_stride: gate.stride,
            quantised_stride: quantized?.layout.bytes ?? 0, width: Int64(gate.width),
            activation: activation.kernel, lora: graft_lora())
        withLowRank(lowRank, rows: count) { lora in
            job.lora = lora
            run(variant.table.pointee.gated, &job, count: count, smallest: smallest(lowRank, of: count))
        }
        withExtendedLifetime((gate, up, quantized)) {}
    }

    /// activation(W_gate x) · (W_up x) for rows 0 ..< count, in 8 bits: as `multiply` and `gate` compute it, without their passes over memory.
    public func multiplyGated(
        _ x: QuantizedRows, gate: WeightMatrix, up: WeightMatrix, activation: Gate, count: Int, to y: QuantizedRows
    ) {
        precondition(gate.isQuantized && up.isQuantized && gate.columns == x.width && up.columns == x.width, "matrices of \(gate.columns) and \(up.columns) columns on rows of \(x.width)")
        precondition(gate.rows == y.width && up.rows == y.width && count <= x.capacity && count <= y.capacity)
        var job = graft_gated_matmul(
            gate: gate.panels, up: up.panels, x: UnsafePointer(x.pointer), y: y.pointer, x_stride: x.layout.bytes, y_stride: y.layout.bytes, tokens: Int64(count),
            activation: activation.kernel)
        run(variant.table.pointee.gated_matmul, &job, count: y.width / Int(GRAFT_BLOCK), smallest: Compute.fewestUnits(rows: count))
        withExtendedLifetime((x, gate, up, y)) {}
    }

    // MARK: embedding and rotary tables

    /// x[i] = E[tokens[i]] · scale. Every token must be a row of the matrix.
    public func embed(_ tokens: UnsafeBufferPointer<Int32>, table: WeightMatrix, scale: Float, to x: FloatRows) {
        precondition(table.columns == x.width && tokens.count <= x.capacity)
        precondition(tokens.allSatisfy { $0 >= 0 && Int($0) < table.rows }, "a token id outside the vocabulary of \(table.rows)")
        var job = graft_embed(table: table.panels, tokens: tokens.baseAddress, x: x.pointer, width: Int64(x.width), scale: scale)
        run(graft_embed_rows, &job, count: tokens.count, smallest: Compute.rowsPerThread)
        withExtendedLifetime((table, x)) {}
    }

    /// cos[i][j] = cos(positions[i] · inverseFrequencies[j]), sin likewise, in float32 as transformers computes them.
    public func rotaryTable(positions: UnsafeBufferPointer<Int32>, inverseFrequencies: FloatVector, cos: FloatRows, sin: FloatRows) {
        precondition(cos.width == inverseFrequencies.count && sin.width == cos.width && positions.count <= cos.capacity && positions.count <= sin.capacity)
        var job = graft_rope_table(
            positions: positions.baseAddress, inverse_frequencies: inverseFrequencies.pointer, cos: cos.pointer, sin: sin.pointer, pairs: Int64(cos.width))
        run(graft_rope_table_rows, &job, count: positions.count, smallest: Compute.rowsPerThread)
        withExtendedLifetime((inverseFrequencies, cos, sin)) {}
    }

    // MARK: attention

    public enum RotaryStyle: Sendable {
        /// Pairs (2j, 2j + 1): GGUF's order for the llama architecture.
        case interleaved
        /// Pairs (j, j + d/2): Hugging Face's order, kept by the other architectures.
        case halves
    }

    /// Per-head norms and rotary embedding of q and k, in place; then k and v go into the cache. `slots[i]` is block · 32 + place,
    /// where `block` is one of the layer's kind.
    public func rotateAndStore(
        q: FloatRows, k: FloatRows, v: FloatRows, slots: UnsafeBufferPointer<Int64>, cache: KVCache, layer: Int, style: RotaryStyle,
        cos: FloatRows, sin: FloatRows, qNorm: FloatVector?, kNorm: FloatVector?, epsilon: Float
    ) {
        let headDim = cache.headDim
        precondition(k.width == cache.kvHeads * headDim && v.width == k.width && q.width % headDim == 0 && 2 * cos.width <= headDim)
        precondition(slots.count <= q.capacity && slots.count <= k.capacity && slots.count <= v.capacity && slots.count <= cos.capacity)
        precondition((qNorm == nil || qNorm!.count == headDim) && (kNorm == nil || kNorm!.count == headDim))
        let end = Int64(cache.blockCount(layer: layer) * KVCache.blockTokens)
        precondition(slots.allSatisfy { $0 >= 0 && $0 < end }, "a slot outside the cache")
        var job = graft_rope_write(
            layout: cache.layout, cache: cache.base(layer: layer), block_stride: cache.blockStride(layer: layer), slots: slots.baseAddress,
            q: q.pointer, k: k.pointer, v: v.pointer, q_stride: q.stride, k_stride: k.stride, v_stride: v.stride,
            heads: Int32(q.width / headDim), rotary_dim: Int32(2 * cos.width),
            style: style == .interleaved ? Int32(GRAFT_ROPE_INTERLEAVED.rawValue) : Int32(GRAFT_ROPE_HALVES.rawValue),
            q_norm: qNorm.map { UnsafePointer($0.pointer) }, k_norm: kNorm.map { UnsafePointer($0.pointer) }, eps: epsilon,
            cos: cos.pointer, sin: sin.pointer)
        run(variant.table.pointee.rope_write, &job, count: slots.count, smallest: Compute.rowsPerThread)
        withExtendedLifetime((q, k, v, cache, cos, sin, qNorm, kNorm)) {}
    }

    /// Consecutive rows of one sequence.
    public struct AttentionRun {
        public var row: Int, count: Int, position: Int
        /// The sequence's table of the layer's kind of blocks; must stay alive and hold a block for every position that the rows see. Entries before are not read.
        public var blocks: UnsafePointer<Int32>

        public init(row: Int, count: Int, position: Int, blocks: UnsafePointer<Int32>) {
            self.row = row
            self.count = count
            self.position = position
            self.blocks = blocks
        }

        /// Its last row alone.
        public var last: AttentionRun { AttentionRun(row: row + count - 1, count: 1, position: position + count - 1, blocks: blocks) }
    }

    /// out = softmax(scale · q Kᵀ) V per head, causal, and limited to the last `window` keys if given.
    /// - Parameters:
    ///   - partials: lets threads share the keys of a long sequence, where otherwise each takes whole heads. Without influence on the result.
    ///   - quantized: the rows go there, in 8 bits, and not to `out`; for head sizes that are multiples of 32.
    public func attend(
        q: FloatRows, runs: [AttentionRun], cache: KVCache, layer: Int, scale: Float, window: Int?, partials: AttentionPartials? = nil, to out: FloatRows,
        quantized: QuantizedRows? = nil
    ) {
        precondition(quantized == nil || (cache.headDim % Int(GRAFT_BLOCK) == 0 && quantized!.width == out.width && out.capacity <= quantized!.capacity))
        precondition(q.width == out.width && q.width % cache.headDim == 0 && q.width / cache.headDim % cache.kvHeads == 0)
        precondition(q.width / cache.headDim / cache.kvHeads <= KVCache.maximumGroup, "more query heads on one key head than the kernel holds")
        precondition(runs.allSatisfy { $0.row >= 0 && $0.count > 0 && $0.row + $0.count <= min(q.capacity, out.capacity) && $0.position >= 0 })
        withUnsafeTemporaryAllocation(of: graft_attention_run.self, capacity: max(runs.count, 1)) { table in
            for (i, run) in runs.enumerated() {
                table[i] = graft_attention_run(row: Int64(run.row), count: Int64(run.count), position: Int64(run.position), blocks: run.blocks, partials: nil)
            }
            var job = graft_attention(
                layout: cache.layout, cache: cache.base(layer: layer), block_stride: cache.blockStride(layer: layer), runs: table.baseAddress, run_count: Int64(runs.count),
                q: q.pointer, out: out.pointer, quantised: quantized?.pointer, q_stride: q.stride, out_stride: out.stride,
                quantised_stride: quantized?.layout.bytes ?? 0, heads: Int32(q.width / cache.headDim), scale: scale,
                window: Int64(window ?? 0))
            var items = runs.indices.reduce(0) { $0 + Int(graft_attention_items(&job, table.baseAddress! + $1)) }
            if let partials, pool.threadCount > 1, items < Compute.headsPerThread * pool.threadCount {
                partials.share(UnsafeMutableBufferPointer(rebasing: table[0..<runs.count]), of: &job)
                items = runs.indices.reduce(0) { $0 + Int(graft_attention_items(&job, table.baseAddress! + $1)) }
            }
            run(variant.table.pointee.attention, &job, count: items, smallest: 1)
            withExtendedLifetime((q, cache, out, quantized, partials)) {}
        }
    }
}
