import Kernels

/// Which of a segment's rows need logits.
public enum LogitsWanted: Sendable {
    case none, last, all
}

/// Consecutive tokens of one sequence in a step.
public struct ForwardSegment {
    public var tokens: [Int32]
    /// The position of the first token.
    public var position: Int
    /// The sequence's block table, long enough for the last token.
    public var blocks: [Int32]
    /// With a cache that has window blocks: those of the last so many of `blocks`, from the first one on that the first token sees in layers with a window.
    public var windowBlocks: [Int32]
    public var adapters: AdapterSet
    public var logits: LogitsWanted

    public init(tokens: [Int32], position: Int, blocks: [Int32], windowBlocks: [Int32] = [], adapters: AdapterSet = .none, logits: LogitsWanted) {
        self.tokens = tokens
        self.position = position
        self.blocks = blocks
        self.windowBlocks = windowBlocks
        self.adapters = adapters
        self.logits = logits
    }
}

/// How numbers are computed.
public enum Numerics: Sendable {
    /// Float32 activations, keys and values: the reference path, which answers to PyTorch.
    case exact
    /// 8-bit activations against the quantised weights.
    case fast
}

/// Runs a model over batches of rows. Owns the workspace; one owner (the engine) at a time.
///
/// A row's logits depend on its sequence's tokens and adapters only: not on the segments beside it, on how a prompt was cut into steps, or on the number of threads.
public final class ForwardPass {
    public let model: LanguageModel
    public let cache: KVCache
    public let maximumRows: Int
    /// The most rows of one call of `logits`.
    public let maximumLogitsRows: Int
    private let compute: Compute
    private let x, normed, q, k, v, attended, gate, up: FloatRows
    /// The output of a branch that is normed before it joins the residual stream (gemma3).
    private let branch: FloatRows?
    private let hiddenQ, attendedQ, gateQ: QuantizedRows?
    private let attentionPartials: AttentionPartials
    private let cos, sin: FloatRows
    private let localCos, localSin: FloatRows?
    private let selected, selectedNormed: FloatRows
    private let selectedQ: QuantizedRows?
    /// The 8-bit adapters of the step's rows, and the hidden rows of adapters in float32.
    private let lowRank: LowRankRows
    private let deltaHidden: FloatRows
    private let logits: FloatRows
    private var selectedCount = 0

    /// - Parameters:
    ///   - cache: only layers that have a window in the model may have window blocks; they need not have any.
    ///   - maximumRows: of a step.
    ///   - maximumLogitsRows: of one call of `logits`.
    /// - Throws: `KernelError.outOfMemory`.
    public init(
        model: LanguageModel, cache: KVCache, variant: KernelVariant, pool: ComputePool, numerics: Numerics, maximumRows: Int, maximumLogitsRows: Int
    ) throws(KernelError) {
        let c = model.configuration
        precondition(cache.layers == c.layerCount && cache.kvHeads == c.kvHeadCount && cache.headDim == c.headDim, "a cache of another model's shape")
        precondition((0..<c.layerCount).allSatisfy { !cache.isWindowed(layer: $0) || c.window(layer: $0) != nil }, "window blocks for a layer that sees everything")
        self.model = model
        self.cache = cache
        self.maximumRows = maximumRows
        self.maximumLogitsRows = maximumLogitsRows
        compute = Compute(variant: variant, pool: pool)
        let attentionWidth = c.headCount * c.headDim, kvWidth = c.kvHeadCount * c.headDim
        func rows(_ width: Int, _ capacity: Int = maximumRows) throws(KernelError) -> FloatRows { try FloatRows(capacity: capacity, width: width) }
        // Widths that are no multiple of 32 only occur beside float weights.
        func quantized(_ width: Int) throws(KernelError) -> QuantizedRows? {
            numerics == .fast && width % 32 == 0 ? try QuantizedRows(capacity: maximumRows, width: width) : nil
        }
        x = try rows(c.hiddenSize)
        normed = try rows(c.hiddenSize)
        branch = model.layers[0].postAttentionNorm == nil ? nil : try rows(c.hiddenSize)
        q = try rows(attentionWidth)
        k = try rows(kvWidth)
        v = try rows(kvWidth)
        attended = try rows(attentionWidth)
        gate = try rows(c.intermediateSize)
        up = try rows(c.intermediateSize)
        hiddenQ = try quantized(c.hiddenSize)
        attendedQ = try quantized(attentionWidth)
        gateQ = try quantized(c.intermediateSize)
        attentionPartials = try AttentionPartials()
        cos = try rows(c.rotaryDim / 2)
        sin = try rows(c.rotaryDim / 2)
        localCos = c.slidingWindow == nil ? nil : try rows(c.rotaryDim / 2)
        localSin = c.slidingWindow == nil ? nil : try rows(c.rotaryDim / 2)
        selected = try rows(c.hiddenSize)
        selectedNormed = try rows(c.hiddenSize)
        selectedQ = try quantized(c.hiddenSize)
        lowRank = try LowRankRows(capacity: maximumRows, maximumTerms: AdapterSet.maximumCount)
        deltaHidden = try rows(Adapter.maximumRank)
        logits = try rows(c.vocabularySize, maximumLogitsRows)
    }

    /// Logits [count][vocabularySize]. Valid until the next call of `logits`; may be written to.
    public struct Logits {
        public let count: Int
        let rows: FloatRows

        public subscript(row: Int) -> UnsafeMutableBufferPointer<Float> {
            precondition((0..<count).contains(row))
            return UnsafeMutableBufferPointer(start: rows[row], count: rows.width)
        }
    }

    /// Rows of a segment whose adapters hold pairs in float32.
    private struct DeltaRun {
        var first: Int, count: Int
        var adapters: AdapterSet
    }

    /// What a step's rows carry besides the model.
    private struct StepAdapters {
        var deltaRuns: [DeltaRun] = []
        /// `nil`: no row carries an 8-bit adapter.
        var lowRank: LowRankRows?

        func stage(_ stage: ProjectionStage, layer: Int) -> LowRankStage? { lowRank.map { LowRankStage($0, stage.number(layer: layer)) } }
    }

    /// One step: writes the segments' keys and values into the cache and keeps the rows whose logits are wanted, in the order of the segments.
    /// - Returns: how many those are.
    public func run(_ segments: [ForwardSegment]) -> Int {
        let order = ForwardPass.groupedByAdapters(segments)
        // The last user frees an adapter's memory: no step holds it beyond its own end.
        defer { lowRank.removeAll() }
        return run(order.map { segments[$0] }, order, stepAdapters(order.map { segments[$0] }))
    }

    /// Indices of the segments, those with the same adapters side by side: then each of an adapter's matrices is read once.
    private static func groupedByAdapters(_ segments: [ForwardSegment]) -> [Int] {
        struct Part: Hashable {
            var adapter: ObjectIdentifier
            var weight: Float
        }
        var groups: [[Part]: Int] = [:]
        let keys = segments.map { segment in
            let parts = segment.adapters.parts.map { Part(adapter: ObjectIdentifier($0.adapter), weight: $0.weight) }
            if let group = groups[parts] { return group }
            defer { groups[parts] = groups.count }
            return groups.count
        }
        guard groups.count > 1 else { return Array(segments.indices) }
        return segments.indices.sorted { (keys[$0], $0) < (keys[$1], $1) }
    }

    private func stepAdapters(_ segments: [ForwardSegment]) -> StepAdapters {
        var step = StepAdapters()
        var row = 0
        for segment in segments {
            let packed = segment.adapters.parts.compactMap { part in part.adapter.stages.map { (stages: $0, weight: part.weight) } }
            lowRank.append(rows: segment.tokens.count, packed)
            if segment.adapters.parts.contains(where: \.adapter.hasDeltas) {
                step.deltaRuns.append(DeltaRun(first: row, count: segment.tokens.count, adapters: segment.adapters))
            }
            row += segment.tokens.count
        }
        if !lowRank.isEmpty { step.lowRank = lowRank }
        return step
    }

    /// - Parameter order: the caller's index of each segment; the rows that are kept are in the caller's order.
    private func run(_ segments: [ForwardSegment], _ order: [Int], _ adapters: StepAdapters) -> Int {
        let c = model.configuration
        let rowCount = segments.reduce(0) { $0 + $1.tokens.count }
        precondition(rowCount > 0 && rowCount <= maximumRows, "\(rowCount) rows in a step of at most \(maximumRows)")
        return withUnsafeTemporaryAllocation(of: Int32.self, capacity: 2 * rowCount) { ids in
            withUnsafeTemporaryAllocation(of: Int64.self, capacity: rowCount) { slots in
                let tokens = UnsafeMutableBufferPointer(rebasing: ids[0..<rowCount]), positions = UnsafeMutableBufferPointer(rebasing: ids[rowCount...])
                var row = 0
                // In the order of the rows.
                var wanted: [(segment: Int, row: Int)] = []
                // One flat table of blocks: a run's pointer into it stays valid for the step.
                var blockOffsets: [Int] = []
                var blockTable: [Int32] = []
                for (number, segment) in zip(order, segments) {
                    let count = segment.tokens.count
                    precondition(count > 0 && segment.position >= 0 && segment.blocks.count * KVCache.blockTokens >= segment.position + count, "a segment without blocks")
                    blockOffsets.append(blockTable.count)
                    blockTable += segment.blocks
                    for i in 0..<count {
                        let position = segment.position + i
                        tokens[row] = segment.tokens[i]
                        positions[row] = Int32(position)
                        slots[row] = Int64(segment.blocks[position / KVCache.blockTokens]) * Int64(KVCache.blockTokens) + Int64(position % KVCache.blockTokens)
                        if segment.logits == .all || (segment.logits == .last && i == count - 1) { wanted.append((number, row)) }
                        row += 1
                    }
                }
                blockTable.withUnsafeBufferPointer { table in
                    let whole = AttentionPlaces(segments, slots: UnsafeBufferPointer(slots), table: table, offsets: blockOffsets)
                    compute.embed(UnsafeBufferPointer(tokens), table: model.embedding, scale: c.embeddingScale, to: x)
                    let places = UnsafeBufferPointer(positions)
                    compute.rotaryTable(positions: places, inverseFrequencies: model.inverseFrequencies, cos: cos, sin: sin)
                    if let localCos, let localSin {
                        compute.rotaryTable(positions: places, inverseFrequencies: model.localInverseFrequencies, cos: localCos, sin: localSin)
                    }
                    withWindowPlaces(segments) { windowed in
                        func places(_ layer: Int) -> AttentionPlaces { cache.isWindowed(layer: layer) ? windowed! : whole }
                        for i in 0..<c.layerCount - 1 {
                            projectAttention(i, slots: places(i).slots, rows: rowCount, adapters)
                            let quantizes = quantizesAttended(i, adapters)
                            attend(i, places(i).runs, quantizes: quantizes)
                            finishLayer(i, rows: rowCount, isAttendedQuantized: quantizes, adapters)
                        }
                        // Of the last layer a row without logits leaves its keys and values, and no more.
                        let last = c.layerCount - 1
                        projectAttention(last, slots: places(last).slots, rows: rowCount, adapters)
                        if wanted.isEmpty { return }
                        attend(last, zip(segments, places(last).runs).compactMap { $0.logits == .none ? nil : $0.logits == .all ? $1 : $1.last }, quantizes: false)
                        finishLayer(last, rows: wanted.count, isAttendedQuantized: false, keep(wanted.map(\.row), of: rowCount, adapters))
                    }
                }
                let places = wanted.indices.sorted { (wanted[$0].segment, wanted[$0].row) < (wanted[$1].segment, wanted[$1].row) }
                for (i, place) in places.enumerated() { selected[i].update(from: x[place], count: c.hiddenSize) }
                compute.rmsNorm(selected, weight: model.outputNorm, epsilon: c.rmsEpsilon, count: wanted.count, to: selectedNormed, quantized: selectedQ)
                selectedCount = wanted.count
                return wanted.count
            }
        }
    }

    /// Moves these rows, in rising order, of the residual stream and of attention's output to the front, and what they carry with them.
    private func keep(_ kept: [Int], of rows: Int, _ adapters: StepAdapters) -> StepAdapters {
        if kept.count == rows { return adapters }
        for (i, row) in kept.enumerated() where i != row {
            x[i].update(from: x[row], count: x.width)
            attended[i].update(from: attended[row], count: attended.width)
        }
        var adapters = adapters
        adapters.lowRank?.keep(kept)
        if adapters.lowRank?.isEmpty == true { adapters.lowRank = nil }
        adapters.deltaRuns = adapters.deltaRuns.compactMap { run in
            guard let first = kept.firstIndex(where: { $0 >= run.first }) else { return nil }
            let count = kept[first...].prefix { $0 < run.first + run.count }.count
            return count == 0 ? nil : DeltaRun(first: first, count: count, adapters: run.adapters)
        }
        return adapters
    }

    /// q, k and v of the rows; k and v go into the cache.
    private func projectAttention(_ i: Int, slots: UnsafeBufferPointer<Int64>, rows: Int, _ adapters: StepAdapters) {
        let c = model.configuration, layer = model.layers[i]
        let window = c.window(layer: i)
        // A width without 8-bit rows has no 8-bit adapters either.
        let input = hiddenQ == nil ? nil : adapters.stage(.attentionInput, layer: i)
        let floats = needsFloats(beside: hiddenQ, layer.q, layer.k, layer.v, adapters: adapters) ? normed : nil
        compute.rmsNorm(x, weight: layer.attentionNorm, epsilon: c.rmsEpsilon, count: rows, to: floats, quantized: hiddenQ, lowRank: input)
        project([(layer.q, layer.qBias, q), (layer.k, layer.kBias, k), (layer.v, layer.vBias, v)], from: normed, hiddenQ, rows: rows, lowRank: input)
        addDeltas(adapters.deltaRuns, i, [(.q, q), (.k, k), (.v, v)], from: normed)
        compute.rotateAndStore(
            q: q, k: k, v: v, slots: slots, cache: cache, layer: i, style: c.rotaryStyle, cos: window == nil ? cos : localCos!,
            sin: window == nil ? sin : localSin!, qNorm: layer.qNorm, kNorm: layer.kNorm, epsilon: c.rmsEpsilon)
    }

    private func attend(_ i: Int, _ runs: [Compute.AttentionRun], quantizes: Bool) {
        let c = model.configuration
        compute.attend(
            q: q, runs: runs, cache: cache, layer: i, scale: c.attentionScale, window: c.window(layer: i), partials: attentionPartials, to: attended,
            quantized: quantizes ? attendedQ : nil)
    }

    /// Whether attention's output can leave its kernel in 8 bits: nobody reads the floats, and no adapter's hidden rows are to be made along with it.
    private func quantizesAttended(_ i: Int, _ adapters: StepAdapters) -> Bool {
        model.configuration.headDim % 32 == 0 && adapters.lowRank == nil && !needsFloats(beside: attendedQ, model.layers[i].o, adapters: adapters)
    }

    /// Whether anything reads the float rows of a product's input.
    private func needsFloats(beside quantized: QuantizedRows?, _ weights: WeightMatrix..., adapters: StepAdapters) -> Bool {
        quantized == nil || !adapters.deltaRuns.isEmpty || !weights.allSatisfy(\.isQuantized)
    }

    /// What follows attention: its output's projection, then the feed-forward branch.
    private func finishLayer(_ i: Int, rows: Int, isAttendedQuantized: Bool, _ adapters: StepAdapters) {
        let c = model.configuration, layer = model.layers[i]
        let output = attendedQ == nil ? nil : adapters.stage(.attentionOutput, layer: i)
        if let attendedQ, !isAttendedQuantized { compute.quantize(attended, count: rows, to: attendedQ, lowRank: output) }
        addBranch(layer.o, layer.oBias, .o, from: attended, attendedQ, i, rows, adapters, output, postNorm: layer.postAttentionNorm)
        let input = hiddenQ == nil ? nil : adapters.stage(.feedForwardInput, layer: i)
        let floats = needsFloats(beside: hiddenQ, layer.gate, layer.up, adapters: adapters) ? normed : nil
        compute.rmsNorm(x, weight: layer.feedForwardNorm, epsilon: c.rmsEpsilon, count: rows, to: floats, quantized: hiddenQ, lowRank: input)
        let keepsFloats = needsFloats(beside: gateQ, layer.down, adapters: adapters)
        let gated = gateQ == nil ? nil : adapters.stage(.feedForwardOutput, layer: i)
        if let hiddenQ, let gateQ, floats == nil, !keepsFloats, adapters.lowRank == nil {
            compute.multiplyGated(hiddenQ, gate: layer.gate, up: layer.up, activation: c.gate, count: rows, to: gateQ)
        } else {
            project([(layer.gate, nil, gate), (layer.up, nil, up)], from: normed, hiddenQ, rows: rows, lowRank: input)
            addDeltas(adapters.deltaRuns, i, [(.gate, gate), (.up, up)], from: normed)
            compute.gate(gate, up: up, activation: c.gate, count: rows, quantized: gateQ, keepsFloats: keepsFloats, lowRank: gated)
        }
        addBranch(layer.down, nil, .down, from: gate, gateQ, i, rows, adapters, gated, postNorm: layer.postFeedForwardNorm)
    }

    /// x += W input + deltas, with gemma's norm in between where there is one.
    private func addBranch(
        _ weights: WeightMatrix, _ bias: FloatVector?, _ projection: Projection, from input: FloatRows, _ quantized: QuantizedRows?, _ layer: Int, _ rows: Int,
        _ adapters: StepAdapters, _ lowRank: LowRankStage?, postNorm: FloatVector?
    ) {
        let output = postNorm == nil ? x : branch!
        project([(weights, bias, output)], from: input, quantized, rows: rows, accumulating: postNorm == nil, lowRank: lowRank)
        addDeltas(adapters.deltaRuns, layer, [(projection, output)], from: input)
        if let postNorm { compute.addRMSNorm(output, weight: postNorm, epsilon: model.configuration.rmsEpsilon, count: rows, to: x) }
    }

    /// Each matrix in integers if it and the input allow, in float32 otherwise. The parts are in the order of their places in the adapters' stage.
    private func project(
        _ parts: [(weights: WeightMatrix, bias: FloatVector?, output: FloatRows)], from input: FloatRows, _ quantized: QuantizedRows?, first: Int = 0, rows: Int,
        accumulating: Bool = false, lowRank: LowRankStage? = nil
    ) {
        var floats = Compute.Product(input, first: first, count: rows)
        if let quantized {
            var integers = Compute.Product(quantized, first: first, count: rows)
            for (place, part) in parts.enumerated() {
                if part.weights.isQuantized {
                    integers.add(part.weights, bias: part.bias, to: part.output, place: place)
                } else {
                    floats.add(part.weights, bias: part.bias, to: part.output, place: place)
                }
            }
            if !integers.isEmpty { compute.multiply(integers, accumulating: accumulating, lowRank: lowRank) }
        } else {
            for (place, part) in parts.enumerated() { floats.add(part.weights, bias: part.bias, to: part.output, place: place) }
        }
        if !floats.isEmpty { compute.multiply(floats, accumulating: accumulating, lowRank: lowRank) }
    }

    /// output += weight · scale · B (A input) on the rows of each run that carries adapters.
    private func addDeltas(_ runs: [DeltaRun], _ layer: Int, _ outputs: [(projection: Projection, output: FloatRows)], from input: FloatRows) {
        for run in runs {
            for part in run.adapters.parts {
                for (projection, output) in outputs {
                    guard let delta = part.adapter.delta(layer: layer, projection: projection) else { continue }
                    let hidden = FloatRows(reshaping: deltaHidden, width: delta.rank)
                    var down = Compute.Product(input, first: run.first, count: run.count)
                    down.add(delta.a, to: hidden)
                    compute.multiply(down)
                    for i in 0..<run.count * delta.rank { hidden.pointer[i] *= delta.scale * part.weight }
                    var up = Compute.Product(hidden, count: run.count)
                    up.add(delta.b, to: output, first: run.first)
                    compute.multiply(up, accumulating: true)
                }
            }
        }
    }

    /// The logits of a range of the rows that the last `run` kept; at most `maximumLogitsRows` of them.
    public func logits(of range: Range<Int>) -> Logits {
        precondition(range.lowerBound >= 0 && range.upperBound <= selectedCount && range.count <= maximumLogitsRows, "rows \(range) of \(selectedCount)")
        guard !range.isEmpty else { return Logits(count: 0, rows: logits) }
        project([(model.head, nil, logits)], from: selectedNormed, selectedQ, first: range.lowerBound, rows: range.count)
        return Logits(count: range.count, rows: logits)
    }
}
