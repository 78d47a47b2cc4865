import COpenBLAS
import Kernels
import Modeling

/// Trains adapters on the weights that are served, on the pool that serves them.
public final class Trainer: TrainingService {
    private let model: LanguageModel
    private let variant: KernelVariant
    private let pool: ComputePool
    private let turnstile: ComputeTurnstile
    private let bfloat16: TrainingCompute.BFloat16Unit
    private let unitSeconds: Double

    /// How long a unit of work is at most, about, between two of which serving may take its turn.
    public static let unitSeconds = TrainingCompute.unitSeconds

    /// - Parameters:
    ///   - pool: used in turns at the turnstile only.
    ///   - unitSeconds: of another length than `Trainer.unitSeconds`, to measure what that costs.
    public init(model: LanguageModel, variant: KernelVariant, pool: ComputePool, turnstile: ComputeTurnstile, unitSeconds: Double = Trainer.unitSeconds) {
        self.model = model
        self.variant = variant
        self.pool = pool
        self.turnstile = turnstile
        bfloat16 = .tiles
        self.unitSeconds = unitSeconds
    }

    /// For tests: with the best unit for bfloat16 up to one.
    package init(model: LanguageModel, variant: KernelVariant, pool: ComputePool, bfloat16: TrainingCompute.BFloat16Unit) {
        self.model = model
        self.variant = variant
        self.pool = pool
        turnstile = ComputeTurnstile()
        unitSeconds = Self.unitSeconds
        self.bfloat16 = bfloat16
    }

    /// The precision that is faster here: bfloat16 where the processor multiplies it.
    public static func fastestPrecision(_ variant: KernelVariant) -> TrainingConfiguration.Precision {
        TrainingCompute.multipliesBFloat16(variant) ? .bfloat16 : .float32
    }

    /// The name of the kernels that OpenBLAS chose, for benchmarks; empty without OpenBLAS.
    public static var openBLASCore: String { String(cString: graft_openblas_core()) }

    // MARK: TrainingService

    public func memoryEstimate(for plan: TrainingPlan) -> Int {
        let layout = layout(of: plan), rows = Trainer.maximumRows(plan)
        // Values, gradients, two moments; a snapshot holds three of them once more while it is written.
        return plan.training.byteCount + (plan.validation?.byteCount ?? 0) + layout.count * 4 * 7
            + TrainingCompute.scratchBytes(threads: pool.threadCount, longestExample: Trainer.longestExample(plan), headDim: model.configuration.headDim)
            + Backpropagation.byteCount(
                model.configuration, layout: layout, type: Trainer.type(plan.configuration), rows: rows, dropout: plan.configuration.dropout > 0)
    }

    public func start(_ plan: TrainingPlan, from snapshot: [UInt8]?, interruption: Interruption) throws(TrainingError) -> any TrainingRun {
        try run(plan, from: snapshot, interruption: interruption)
    }

    package func run(_ plan: TrainingPlan, from snapshot: [UInt8]? = nil, interruption: Interruption = Interruption()) throws(TrainingError) -> any TrainingRunInspection {
        try check(plan)
        guard let sgemm = graft_openblas_sgemm() else {
            throw TrainingError(
                .unavailable, "OpenBLAS: cannot be loaded (\(String(cString: graft_openblas_failure()))); training needs it: install the package libopenblas0-pthread")
        }
        let rows = Trainer.maximumRows(plan)
        do {
            let parameters = try AdapterParameters(layout: layout(of: plan))
            let compute = try TrainingCompute(
                variant: variant, pool: pool, turnstile: turnstile, matrixProduct: sgemm, longestExample: Trainer.longestExample(plan),
                headDim: model.configuration.headDim, unitSeconds: unitSeconds, bfloat16: bfloat16, isInterrupted: { interruption.isRequested })
            let pass = try Backpropagation(
                model: model, parameters: parameters, compute: compute, type: Trainer.type(plan.configuration), maximumRows: rows,
                usesDropout: plan.configuration.dropout > 0)
            let run = AdapterRun(plan: plan, parameters: parameters, pass: pass, compute: compute)
            if let snapshot {
                try run.restore(snapshot)
            } else if let initial = plan.initial {
                parameters.set(initial)
            } else {
                parameters.initialise(seed: plan.configuration.seed)
            }
            return run
        } catch let error as TrainingError {
            throw error
        } catch {
            throw TrainingError(.outOfMemory, "training needs \(memoryEstimate(for: plan) >> 20) MiB beside the model: \(error)")
        }
    }

    // MARK: What a plan asks for

    private static func type(_ configuration: TrainingConfiguration) -> TrainingRowType { configuration.precision == .float32 ? .float32 : .bfloat16 }

    private func layout(of plan: TrainingPlan) -> AdapterLayout {
        let c = plan.configuration
        if let initial = plan.initial {
            return AdapterLayout(model.configuration, pairs: initial.map { ($0.layer, $0.projection, $0.rank, $0.scale) })
        }
        let scale = Float(c.alpha / (c.usesRankStabilisedScale ? Double(c.rank).squareRoot() : Double(c.rank)))
        return AdapterLayout(
            model.configuration,
            pairs: (0..<model.configuration.layerCount).flatMap { layer in
                Projection.allCases.filter(c.projections.contains).map { (layer, $0, c.rank, scale) }
            })
    }

    private static func lengths(_ examples: TrainingExamples?) -> (units: [Int], longest: Int) {
        switch examples {
        case nil: ([], 0)
        case .supervised(let examples): (examples.map(\.tokens.count), examples.reduce(0) { max($0, $1.tokens.count) })
        case .preference(let pairs):
            (pairs.map { $0.chosen.tokens.count + $0.rejected.tokens.count }, pairs.reduce(0) { max($0, $1.chosen.tokens.count, $1.rejected.tokens.count) })
        }
    }

    private static func longestExample(_ plan: TrainingPlan) -> Int { max(lengths(plan.training).longest, lengths(plan.validation).longest) }

    /// Rows of the largest micro-batch that can occur.
    private static func maximumRows(_ plan: TrainingPlan) -> Int {
        let training = lengths(plan.training).units, validation = lengths(plan.validation).units
        let longest = max(training.max() ?? 1, validation.max() ?? 1)
        guard plan.configuration.packs else { return longest }
        let all = max(training.reduce(0, +), validation.reduce(0, +))
        return max(longest, min(plan.configuration.microBatchTokens, all))
    }

    private func check(_ plan: TrainingPlan) throws(TrainingError) {
        let c = plan.configuration, m = model.configuration
        func require(_ condition: Bool, _ message: @autoclosure () -> String) throws(TrainingError) {
            if !condition { throw TrainingError(.invalidArgument, message()) }
        }
        try require(plan.training.count > 0, "training data: found no example, expected at least one")
        try require(c.epochs > 0 && c.batchSize > 0 && c.microBatchTokens > 0, "epochs \(c.epochs), batch size \(c.batchSize): expected 1 and more")
        try require(c.learningRate > 0 && c.learningRate.isFinite, "learning rate: found \(c.learningRate), expected a positive number")
        try require((1...Adapter.maximumRank).contains(c.rank), "rank: found \(c.rank), expected 1 to \(Adapter.maximumRank)")
        try require(c.dropout >= 0 && c.dropout < 1, "dropout: found \(c.dropout), expected 0 and more, less than 1")
        try require(c.neftuneAlpha >= 0 && c.neftuneAlpha.isFinite, "NEFTune's alpha: found \(c.neftuneAlpha), expected 0 and more")
        try require(!c.projections.isEmpty || plan.initial != nil, "target modules: found none, expected at least one")
        try require(plan.initial.map { !$0.isEmpty } ?? true, "the adapter to start from: found no pair, expected at least one")
        try require(
            m.hiddenSize % 16 == 0 && m.intermediateSize % 16 == 0,
            "the model's widths: found \(m.hiddenSize) and \(m.intermediateSize), expected multiples of 16; this model can be served but not trained")
        for examples in [plan.training, plan.validation].compactMap({ $0 }) {
            switch (examples, c.method) {
            case (.supervised(let examples), .supervised): for example in examples { try check(example) }
            case (.preference(let pairs), .preference):
                for pair in pairs {
                    try check(pair.chosen)
                    try check(pair.rejected)
                }
            default: throw TrainingError(.invalidArgument, "the data is of another kind than the method: supervised tuning takes examples, preference tuning takes pairs")
            }
        }
    }

    private func check(_ example: TokenizedExample) throws(TrainingError) {
        guard example.trainedCount > 0 else { throw TrainingError(.invalidArgument, "an example: found no trained token, expected at least one") }
        guard example.tokens.count <= model.configuration.contextLength else {
            throw TrainingError(
                .invalidArgument, "an example: found \(example.tokens.count) tokens, expected at most the \(model.configuration.contextLength) that the model was trained for")
        }
        guard example.tokens.allSatisfy({ $0 >= 0 && Int($0) < model.configuration.vocabularySize }) else {
            throw TrainingError(.invalidArgument, "an example: found a token outside the vocabulary of \(model.configuration.vocabularySize)")
        }
    }
}

/// A run that shows more of itself, for tests.
package protocol TrainingRunInspection: TrainingRun {
    /// Of the last step, before clipping.
    var gradientPairs: [LowRankPair] { get }
    /// Replaces the policy at step 0 as the reference of preference tuning by that of other pairs.
    func setReference(to pairs: [LowRankPair]) throws(TrainingInterrupted)
}

extension AdapterRun: TrainingRunInspection {}
