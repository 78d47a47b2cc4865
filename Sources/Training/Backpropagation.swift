import Kernels
import Modeling

/// The forward pass of training and its gradients, over frozen weights with low-rank pairs on them:
///
///     y = W x + s B (A x̃),   x̃ = dropout(x)
///     h = A x̃;   dh = s Bᵀ dy;   dB = s dy hᵀ;   dA = dh x̃ᵀ;   dx = Wᵀ dy + dropout(Aᵀ dh)
///
/// Kept for the gradients, per token and layer: what the norms read, q, k, v before rotation, what attention gives, gate and up, and the h's. Norms,
/// rotations, softmax and activations are computed again. One micro-batch at a time; one owner.
final class Backpropagation {
    let model: LanguageModel
    let parameters: AdapterParameters
    let maximumRows: Int
    private let compute: TrainingCompute
    private let c: ModelConfiguration
    private let type: TrainingRowType

    /// What a layer keeps.
    private struct Kept {
        let input, middle: TrainingRows
        let q, k, v, attended: TrainingRows
        let gate, up: TrainingRows
        /// What gemma's norms after the branches read.
        let attentionBranch, feedForwardBranch: TrainingRows?
        /// By stage; float32.
        let hidden: [TrainingRows?]
    }

    private var kept: [Kept] = []
    private let x, normed, branch: TrainingRows
    private let q, k, v, rotatedQ, rotatedK: TrainingRows
    private let gate, up: TrainingRows
    private let act, dgate, dup: TrainingRows
    private let typedHidden: [TrainingRows?]
    private let dx, dNormed, dAttended, dq, dk, dv: TrainingRows
    private let dTyped, typedDq, typedDk, typedDv: TrainingRows
    private let dHidden, typedDHidden: [TrainingRows?]
    private let dropped: TrainingRows?
    private let cos, sin, localCos, localSin: FloatRows
    // The head.
    private let selected, selectedNormed, logits, dSelected: TrainingRows
    private let chunkRows: Int

    /// Chance that a pass draws; `nil` for evaluation.
    struct Chance {
        var dropout: Float
        var neftuneAlpha: Float
        /// Of the step.
        var salt: UInt64

        var isAtWork: Bool { dropout > 0 || neftuneAlpha > 0 }
    }

    /// Bytes of memory for the given number of rows.
    static func byteCount(_ c: ModelConfiguration, layout: AdapterLayout, type: TrainingRowType, rows: Int, dropout: Bool) -> Int {
        let t = type.byteCount, hidden = c.hiddenSize, attention = c.headCount * c.headDim, kv = c.kvHeadCount * c.headDim, inner = c.intermediateSize
        let ranks = layout.widestRank.reduce(0) { $0 + padded($1) }
        let branches = c.architecture == .gemma3 ? 2 * hidden : 0
        let keptLayers = c.layerCount - layout.lowestLayer
        let kept = keptLayers * ((2 * hidden + branches + 2 * attention + 2 * kv + 2 * inner) * t + 4 * ranks)
        let work = (hidden * 5 + attention * 5 + kv * 5 + inner * 2) * 4 + (hidden * 2 + attention + kv * 2 + inner * 3) * t + ranks * (4 + 2 * t) + c.rotaryDim * 8
        let chunk = Backpropagation.chunkRows(c)
        return rows * (kept + work + (dropout ? max(hidden, inner, attention) * t : 0)) + chunk * padded(c.vocabularySize) * 4
    }

    private static func padded(_ width: Int) -> Int { (width + 15) / 16 * 16 }

    /// Rows whose logits are held at once: about 64 MB of them.
    private static func chunkRows(_ c: ModelConfiguration) -> Int { min(max((64 << 20) / (4 * c.vocabularySize), 48), 384) }

    init(
        model: LanguageModel, parameters: AdapterParameters, compute: TrainingCompute, type: TrainingRowType, maximumRows: Int, usesDropout: Bool
    ) throws(KernelError) {
        let c = model.configuration
        self.model = model
        self.parameters = parameters
        self.compute = compute
        self.type = type
        self.maximumRows = maximumRows
        self.c = c
        let hidden = c.hiddenSize, attention = c.headCount * c.headDim, kvWidth = c.kvHeadCount * c.headDim, inner = c.intermediateSize
        func floats(_ width: Int, _ rows: Int = maximumRows) throws(KernelError) -> TrainingRows { try TrainingRows(capacity: rows, width: width, type: .float32) }
        func typed(_ width: Int) throws(KernelError) -> TrainingRows { try TrainingRows(capacity: maximumRows, width: width, type: type) }
        func byStage(_ make: (Int) throws(KernelError) -> TrainingRows) throws(KernelError) -> [TrainingRows?] {
            var rows: [TrainingRows?] = []
            // A product of bfloat16 writes whole vectors: beyond the last rank there is room for one more.
            for rank in parameters.layout.widestRank { rows.append(rank == 0 ? nil : try make(Backpropagation.padded(rank) + 16)) }
            return rows
        }
        for _ in parameters.layout.lowestLayer..<c.layerCount {
            let isGemma = model.layers[0].postAttentionNorm != nil
            kept.append(
                Kept(
                    input: try typed(hidden), middle: try typed(hidden), q: try typed(attention), k: try typed(kvWidth), v: try typed(kvWidth),
                    attended: try typed(attention), gate: try typed(inner), up: try typed(inner), attentionBranch: isGemma ? try typed(hidden) : nil,
                    feedForwardBranch: isGemma ? try typed(hidden) : nil, hidden: try byStage { width throws(KernelError) in try floats(width) }))
        }
        x = try floats(hidden)
        normed = try typed(hidden)
        branch = try floats(hidden)
        q = try floats(attention)
        k = try floats(kvWidth)
        v = try floats(kvWidth)
        rotatedQ = try floats(attention)
        rotatedK = try floats(kvWidth)
        gate = try floats(inner)
        up = try floats(inner)
        act = try typed(inner)
        dgate = try typed(inner)
        dup = try typed(inner)
        typedHidden = try byStage { width throws(KernelError) in try typed(width) }
        dx = try floats(hidden)
        dNormed = try floats(hidden)
        dAttended = try floats(attention)
        dq = try floats(attention)
        dk = try floats(kvWidth)
        dv = try floats(kvWidth)
        dTyped = try typed(hidden)
        typedDq = try typed(attention)
        typedDk = try typed(kvWidth)
        typedDv = try typed(kvWidth)
        dHidden = try byStage { width throws(KernelError) in try floats(width) }
        typedDHidden = try byStage { width throws(KernelError) in try typed(width) }
        dropped = usesDropout ? try typed(max(hidden, inner, attention)) : nil
        cos = try FloatRows(capacity: maximumRows, width: c.rotaryDim / 2)
        sin = try FloatRows(capacity: maximumRows, width: c.rotaryDim / 2)
        localCos = try FloatRows(capacity: c.slidingWindow == nil ? 1 : maximumRows, width: c.rotaryDim / 2)
        localSin = try FloatRows(capacity: c.slidingWindow == nil ? 1 : maximumRows, width: c.rotaryDim / 2)
        chunkRows = Backpropagation.chunkRows(c)
        selected = try floats(hidden)
        selectedNormed = try typed(hidden)
        dSelected = try floats(hidden)
        logits = try floats(Backpropagation.padded(c.vocabularySize), chunkRows)
    }

    // MARK: Forward

    /// Computes the micro-batch up to the last layer, and keeps what its gradients need if `keeps`.
    func forward(_ batch: MicroBatch, chance: Chance?, keeps: Bool) throws(TrainingInterrupted) {
        let rows = batch.tokens.count
        precondition(rows > 0 && rows <= maximumRows, "\(rows) rows in a pass of at most \(maximumRows)")
        batch.tokens.withUnsafeBufferPointer { compute.embed($0, table: model.embedding, scale: c.embeddingScale, to: x) }
        batch.positions.withUnsafeBufferPointer { positions in
            compute.rotaryTable(positions: positions, inverseFrequencies: model.inverseFrequencies, cos: cos, sin: sin)
            if c.slidingWindow != nil {
                compute.rotaryTable(positions: positions, inverseFrequencies: model.localInverseFrequencies, cos: localCos, sin: localSin)
            }
        }
        if let chance, chance.neftuneAlpha > 0 {
            // α / √(L d) (arXiv 2310.05914), L being the example's own length.
            var amplitudes: [Float] = []
            for segment in batch.segments {
                precondition(segment.count == 1, "noise on shared rows")
                let count = segment[0].count
                amplitudes += Array(repeating: chance.neftuneAlpha / Float(count * c.hiddenSize).squareRoot(), count: count)
            }
            try compute.addNoise(to: x, amplitudes: amplitudes, keys: batch.keys, salt: SplitMix.mix(chance.salt, 1), rows: rows)
        }
        for i in 0..<c.layerCount {
            let kept = self.kept[keeps ? max(i - parameters.layout.lowestLayer, 0) : 0]
            try attention(i, batch, kept, chance)
            try feedForward(i, batch, kept, chance)
        }
    }

    /// The weights of a projection, its bias, and its place in the adapter.
    private func term(_ slot: AdapterLayout.Slot?, _ hidden: TrainingRows?) -> [TrainingCompute.Term] {
        guard let slot, let hidden else { return [] }
        return [
            TrainingCompute.Term(
                TrainingRows(columns: slot.column, width: slot.rank, of: hidden), .columns(parameters.values + slot.b, width: slot.shape.rows), scale: slot.scale)
        ]
    }

    private func slot(_ stage: AdapterLayout.Stage?, _ projection: Projection) -> AdapterLayout.Slot? { stage?.slots.first { $0.projection == projection } }

    private func salt(_ chance: Chance, _ slot: AdapterLayout.Slot) -> UInt64 {
        SplitMix.mix(chance.salt, UInt64(2 + slot.layer * Projection.allCases.count + slot.projection.rawValue))
    }

    /// h = A x̃ of a stage, in float32 and in the type of products.
    private func hidden(_ stage: ProjectionStage, _ slots: AdapterLayout.Stage?, _ input: TrainingRows, _ batch: MicroBatch, _ kept: Kept, _ chance: Chance?)
        throws(TrainingInterrupted)
    {
        guard let slots, let hidden = kept.hidden[stage.rawValue], let typed = typedHidden[stage.rawValue] else { return }
        let rows = batch.tokens.count
        if let chance, chance.dropout > 0 {
            for slot in slots.slots {
                let dropped = TrainingRows(columns: 0, width: input.width, of: self.dropped!)
                try compute.drop(input, share: chance.dropout, keys: batch.keys, salt: salt(chance, slot), rows: rows, to: dropped)
                try compute.product(
                    [.init(dropped, .rows(parameters.values + slot.a, width: input.width))], rows: rows, columns: slot.rank,
                    to: TrainingRows(columns: slot.column, width: hidden.width - slot.column, of: hidden), splitsRows: true)
            }
        } else {
            try compute.product([.init(input, .rows(parameters.values + slots.a, width: input.width))], rows: rows, columns: slots.rank, to: hidden, splitsRows: true)
        }
        try compute.copy(hidden, to: typed, rows: rows)
    }

    private func project(
        _ weights: WeightMatrix, _ bias: FloatVector?, _ slot: AdapterLayout.Slot?, _ stage: ProjectionStage, from input: TrainingRows, to output: TrainingRows, rows: Int,
        accumulating: Bool = false
    ) throws(TrainingInterrupted) {
        try compute.product(
            [.init(input, .weights(weights))] + term(slot, typedHidden[stage.rawValue]), rows: rows, columns: weights.rows, to: output, bias: bias,
            accumulating: accumulating)
    }

    private func rotation(_ i: Int, _ heads: Int, _ weight: FloatVector?) -> TrainingCompute.Rotation {
        let isLocal = c.window(layer: i) != nil
        return .init(
            heads: heads, headDim: c.headDim, style: c.rotaryStyle, weight: weight, epsilon: c.rmsEpsilon, cos: isLocal ? localCos : cos, sin: isLocal ? localSin : sin)
    }

    private func operands(_ i: Int) -> TrainingCompute.Attention {
        .init(q: rotatedQ, k: rotatedK, v: v, heads: c.headCount, kvHeads: c.kvHeadCount, headDim: c.headDim, scale: c.attentionScale, window: c.window(layer: i))
    }

    private func attention(_ i: Int, _ batch: MicroBatch, _ kept: Kept, _ chance: Chance?) throws(TrainingInterrupted) {
        let layer = model.layers[i], rows = batch.tokens.count
        try compute.norm(x, weight: layer.attentionNorm, epsilon: c.rmsEpsilon, rows: rows, to: normed, save: kept.input)
        let stage = parameters.layout.stage(.attentionInput, layer: i)
        try hidden(.attentionInput, stage, normed, batch, kept, chance)
        try project(layer.q, layer.qBias, slot(stage, .q), .attentionInput, from: normed, to: q, rows: rows)
        try project(layer.k, layer.kBias, slot(stage, .k), .attentionInput, from: normed, to: k, rows: rows)
        try project(layer.v, layer.vBias, slot(stage, .v), .attentionInput, from: normed, to: v, rows: rows)
        try compute.rotate(q, rotation(i, c.headCount, layer.qNorm), rows: rows, save: kept.q, to: rotatedQ)
        try compute.rotate(k, rotation(i, c.kvHeadCount, layer.kNorm), rows: rows, save: kept.k, to: rotatedK)
        try compute.copy(v, to: kept.v, rows: rows)
        try compute.attend(operands(i), batch.segments, to: kept.attended)
        try addBranch(i, .attentionOutput, layer.o, layer.oBias, .o, from: kept.attended, batch, kept, chance, postNorm: layer.postAttentionNorm, save: kept.attentionBranch)
    }

    private func feedForward(_ i: Int, _ batch: MicroBatch, _ kept: Kept, _ chance: Chance?) throws(TrainingInterrupted) {
        let layer = model.layers[i], rows = batch.tokens.count
        try compute.norm(x, weight: layer.feedForwardNorm, epsilon: c.rmsEpsilon, rows: rows, to: normed, save: kept.middle)
        let stage = parameters.layout.stage(.feedForwardInput, layer: i)
        try hidden(.feedForwardInput, stage, normed, batch, kept, chance)
        try project(layer.gate, nil, slot(stage, .gate), .feedForwardInput, from: normed, to: gate, rows: rows)
        try project(layer.up, nil, slot(stage, .up), .feedForwardInput, from: normed, to: up, rows: rows)
        try compute.gate(gate, up: up, activation: c.gate, rows: rows, saveGate: kept.gate, saveUp: kept.up, to: act)
        try addBranch(i, .feedForwardOutput, layer.down, nil, .down, from: act, batch, kept, chance, postNorm: layer.postFeedForwardNorm, save: kept.feedForwardBranch)
    }

    /// x += W input, with gemma's norm in between where there is one.
    private func addBranch(
        _ i: Int, _ stage: ProjectionStage, _ weights: WeightMatrix, _ bias: FloatVector?, _ projection: Projection, from input: TrainingRows, _ batch: MicroBatch,
        _ kept: Kept, _ chance: Chance?, postNorm: FloatVector?, save: TrainingRows?
    ) throws(TrainingInterrupted) {
        let rows = batch.tokens.count, slots = parameters.layout.stage(stage, layer: i)
        try hidden(stage, slots, input, batch, kept, chance)
        try project(weights, bias, slot(slots, projection), stage, from: input, to: postNorm == nil ? x : branch, rows: rows, accumulating: postNorm == nil)
        if let postNorm {
            try compute.norm(branch, weight: postNorm, epsilon: c.rmsEpsilon, rows: rows, to: nil, save: save, addingTo: x)
        }
    }

    // MARK: The head

    /// What the head found for the micro-batch's trained rows.
    struct Scores {
        var logProbabilities: [Float]
        var hits: [Int32]
    }

    /// log p of the targets; with `weights`, also the gradient of Σ weight · -log p, from which `backward` goes on.
    ///
    /// Logits are held for a few rows at a time only.
    func head(_ batch: MicroBatch, weights: [Float]?) throws(TrainingInterrupted) -> Scores {
        let count = batch.rows.count
        var scores = Scores(logProbabilities: Array(repeating: 0, count: count), hits: Array(repeating: 0, count: count))
        for (i, row) in batch.rows.enumerated() { selected.copyRow(i, from: x, row: row) }
        var first = 0
        while first < count {
            let rows = min(chunkRows, count - first), range = first..<first + rows
            let input = TrainingRows(rows: range, of: selected), output = TrainingRows(rows: range, of: selectedNormed)
            try compute.norm(input, weight: model.outputNorm, epsilon: c.rmsEpsilon, rows: rows, to: output)
            try compute.product([.init(output, .weights(model.head))], rows: rows, columns: c.vocabularySize, to: logits)
            let gradient = weights == nil ? nil : TrainingRows(overlaying: logits, type: type)
            let compute = self.compute, logits = self.logits, vocabularySize = c.vocabularySize
            try batch.targets.withUnsafeBufferPointer { targets throws(TrainingInterrupted) in
                try scores.logProbabilities.withUnsafeMutableBufferPointer { probabilities throws(TrainingInterrupted) in
                    try scores.hits.withUnsafeMutableBufferPointer { hits throws(TrainingInterrupted) in
                        try (weights ?? []).withUnsafeBufferPointer { weights throws(TrainingInterrupted) in
                            try compute.loss(
                                logits, width: vocabularySize, targets: targets.baseAddress! + first, weights: weights.baseAddress.map { $0 + first }, rows: rows,
                                gradient: gradient, logProbabilities: probabilities.baseAddress! + first, hits: hits.baseAddress! + first)
                        }
                    }
                }
            }
            if let gradient {
                let slope = TrainingRows(rows: range, of: dSelected)
                try compute.product([.init(gradient, .weightsTransposed(model.head))], rows: rows, columns: c.hiddenSize, to: slope)
                try compute.normBackward(x: input, weight: model.outputNorm, epsilon: c.rmsEpsilon, rows: rows, dy: slope, dx: slope, accumulating: false)
            }
            first += rows
        }
        return scores
    }

    // MARK: Backward

    /// Adds the micro-batch's gradients to the parameters', from what `forward` kept and `head` left.
    func backward(_ batch: MicroBatch, chance: Chance?) throws(TrainingInterrupted) {
        let rows = batch.tokens.count, lowest = parameters.layout.lowestLayer
        dx.floats.update(repeating: 0, count: rows * dx.width)
        // A shared row has a gradient from each of its examples.
        for (i, row) in batch.rows.enumerated() { dx.addRow(row, from: dSelected, row: i) }
        for i in (lowest..<c.layerCount).reversed() {
            let kept = self.kept[i - lowest]
            try feedForwardBackward(i, batch, kept, chance)
            try attentionBackward(i, batch, kept, chance, isLast: i == lowest)
        }
    }

    /// The gradient of a branch's output in the type of products.
    private func branchGradient(_ rows: Int, postNorm: FloatVector?, save: TrainingRows?) throws(TrainingInterrupted) {
        if let postNorm, let save {
            try compute.normBackward(x: save, weight: postNorm, epsilon: c.rmsEpsilon, rows: rows, dy: dx, dx: branch, accumulating: false, copy: dTyped)
        } else {
            try compute.copy(dx, to: dTyped, rows: rows)
        }
    }

    /// dh of a stage from its projections' dy's, and the gradients of its A's and B's.
    private func pairGradients(
        _ stage: ProjectionStage, _ slots: AdapterLayout.Stage?, input: TrainingRows, _ gradients: [(projection: Projection, dy: TrainingRows)], _ batch: MicroBatch,
        _ kept: Kept, _ chance: Chance?
    ) throws(TrainingInterrupted) {
        let rows = batch.tokens.count
        try hiddenGradient(stage, slots, gradients, rows)
        try matrixGradients(stage, slots, input: input, gradients, batch, kept, chance)
    }

    /// The gradients of a stage's A's and B's, once dh is known.
    private func matrixGradients(
        _ stage: ProjectionStage, _ slots: AdapterLayout.Stage?, input: TrainingRows, _ gradients: [(projection: Projection, dy: TrainingRows)], _ batch: MicroBatch,
        _ kept: Kept, _ chance: Chance?
    ) throws(TrainingInterrupted) {
        guard let slots, let hidden = kept.hidden[stage.rawValue], let dHidden = dHidden[stage.rawValue] else { return }
        let rows = batch.tokens.count
        for slot in slots.slots {
            let dy = gradients.first { $0.projection == slot.projection }!.dy
            try compute.addOuter(
                TrainingRows(columns: slot.column, width: slot.rank, of: hidden), dy, rows: rows, scale: slot.scale, to: parameters.gradients + slot.b, rank: slot.rank)
        }
        if let chance, chance.dropout > 0 {
            for slot in slots.slots {
                let dropped = TrainingRows(columns: 0, width: input.width, of: self.dropped!)
                try compute.drop(input, share: chance.dropout, keys: batch.keys, salt: salt(chance, slot), rows: rows, to: dropped)
                try compute.addOuter(
                    TrainingRows(columns: slot.column, width: slot.rank, of: dHidden), dropped, rows: rows, scale: 1, to: parameters.gradients + slot.a, rank: slot.rank)
            }
        } else {
            try compute.addOuter(dHidden, input, rows: rows, scale: 1, to: parameters.gradients + slots.a, rank: slots.rank)
        }
    }

    /// output = Σ dy W + the pairs' share of the gradient of the stage's input.
    private func inputGradient(
        _ stage: ProjectionStage, _ slots: AdapterLayout.Stage?, _ products: [(dy: TrainingRows, weights: WeightMatrix)], _ batch: MicroBatch, _ chance: Chance?,
        to output: TrainingRows, columns: Int
    ) throws(TrainingInterrupted) {
        let rows = batch.tokens.count
        var terms = products.map { TrainingCompute.Term($0.dy, .weightsTransposed($0.weights)) }
        let drops = (chance?.dropout ?? 0) > 0
        if let slots, let typed = typedDHidden[stage.rawValue], !drops {
            terms.append(.init(TrainingRows(columns: 0, width: slots.rank, of: typed), .columns(parameters.values + slots.a, width: columns)))
        }
        try compute.product(terms, rows: rows, columns: columns, to: output)
        guard let slots, let typed = typedDHidden[stage.rawValue], let chance, drops else { return }
        // Through each projection's own dropout. `up` and `gate` are free in the backward pass.
        let share = TrainingRows(columns: 0, width: columns, of: columns <= gate.width ? gate : rotatedQ)
        for slot in slots.slots {
            try compute.product(
                [.init(TrainingRows(columns: slot.column, width: slot.rank, of: typed), .columns(parameters.values + slot.a, width: columns))], rows: rows, columns: columns,
                to: share)
            try compute.addDropped(share, share: chance.dropout, keys: batch.keys, salt: salt(chance, slot), rows: rows, to: output)
        }
    }

    private func feedForwardBackward(_ i: Int, _ batch: MicroBatch, _ kept: Kept, _ chance: Chance?) throws(TrainingInterrupted) {
        let layer = model.layers[i], rows = batch.tokens.count, layout = parameters.layout
        try branchGradient(rows, postNorm: layer.postFeedForwardNorm, save: kept.feedForwardBranch)
        let output = layout.stage(.feedForwardOutput, layer: i), input = layout.stage(.feedForwardInput, layer: i)
        // The pairs of `down` read act, which is computed again together with the gate's gradient; that needs dact, and dact needs dh.
        let dact = up
        try hiddenGradient(.feedForwardOutput, output, [(.down, dTyped)], rows)
        try inputGradient(.feedForwardOutput, output, [(dTyped, layer.down)], batch, chance, to: dact, columns: c.intermediateSize)
        try compute.gateBackward(gate: kept.gate, up: kept.up, activation: c.gate, rows: rows, dact: dact, act: act, dgate: dgate, dup: dup)
        try matrixGradients(.feedForwardOutput, output, input: act, [(.down, dTyped)], batch, kept, chance)
        try compute.norm(kept.middle, weight: layer.feedForwardNorm, epsilon: c.rmsEpsilon, rows: rows, to: normed)
        try pairGradients(.feedForwardInput, input, input: normed, [(.gate, dgate), (.up, dup)], batch, kept, chance)
        try inputGradient(.feedForwardInput, input, [(dgate, layer.gate), (dup, layer.up)], batch, chance, to: dNormed, columns: c.hiddenSize)
        try compute.normBackward(x: kept.middle, weight: layer.feedForwardNorm, epsilon: c.rmsEpsilon, rows: rows, dy: dNormed, dx: dx, accumulating: true)
    }

    /// dh of a stage, in float32 and in the type of products.
    private func hiddenGradient(
        _ stage: ProjectionStage, _ slots: AdapterLayout.Stage?, _ gradients: [(projection: Projection, dy: TrainingRows)], _ rows: Int
    ) throws(TrainingInterrupted) {
        guard let slots, let dHidden = dHidden[stage.rawValue], let typed = typedDHidden[stage.rawValue] else { return }
        // In rising order of columns: each product may write beyond its own, into what comes next.
        for slot in slots.slots {
            let dy = gradients.first { $0.projection == slot.projection }!.dy
            try compute.product(
                [.init(dy, .rows(parameters.values + slot.b, width: slot.shape.rows), scale: slot.scale)], rows: rows, columns: slot.rank,
                to: TrainingRows(columns: slot.column, width: dHidden.width - slot.column, of: dHidden), splitsRows: true)
        }
        try compute.copy(dHidden, to: typed, rows: rows)
    }

    private func attentionBackward(_ i: Int, _ batch: MicroBatch, _ kept: Kept, _ chance: Chance?, isLast: Bool) throws(TrainingInterrupted) {
        let layer = model.layers[i], rows = batch.tokens.count, layout = parameters.layout
        try branchGradient(rows, postNorm: layer.postAttentionNorm, save: kept.attentionBranch)
        let output = layout.stage(.attentionOutput, layer: i), input = layout.stage(.attentionInput, layer: i)
        try pairGradients(.attentionOutput, output, input: kept.attended, [(.o, dTyped)], batch, kept, chance)
        // Below the lowest pair nothing is to be learnt.
        if isLast, input == nil { return }
        try inputGradient(.attentionOutput, output, [(dTyped, layer.o)], batch, chance, to: dAttended, columns: c.headCount * c.headDim)
        let queries = rotation(i, c.headCount, layer.qNorm), keys = rotation(i, c.kvHeadCount, layer.kNorm)
        try compute.rotate(kept.q, queries, rows: rows, save: nil, to: rotatedQ)
        try compute.rotate(kept.k, keys, rows: rows, save: nil, to: rotatedK)
        try compute.copy(kept.v, to: v, rows: rows)
        try compute.attendBackward(operands(i), batch.segments, dout: dAttended, dq: dq, dk: dk, dv: dv)
        try compute.rotateBackward(x: kept.q, dy: dq, queries, rows: rows, dx: typedDq)
        try compute.rotateBackward(x: kept.k, dy: dk, keys, rows: rows, dx: typedDk)
        try compute.copy(dv, to: typedDv, rows: rows)
        try compute.norm(kept.input, weight: layer.attentionNorm, epsilon: c.rmsEpsilon, rows: rows, to: normed)
        try pairGradients(.attentionInput, input, input: normed, [(.q, typedDq), (.k, typedDk), (.v, typedDv)], batch, kept, chance)
        if isLast { return }
        try inputGradient(
            .attentionInput, input, [(typedDq, layer.q), (typedDk, layer.k), (typedDv, layer.v)], batch, chance, to: dNormed, columns: c.hiddenSize)
        try compute.normBackward(x: kept.input, weight: layer.attentionNorm, epsilon: c.rmsEpsilon, rows: rows, dy: dNormed, dx: dx, accumulating: true)
    }
}
