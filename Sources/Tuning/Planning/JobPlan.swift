import Modeling
import Training

/// Everything that decides what a job computes, with all numbers filled in. Made once, kept in the job's row and never made again: a job that goes on after
/// a restart goes on with the same.
public struct JobPlan: Sendable, Equatable {
    public struct Initial: Sendable, Equatable {
        public var name: String
        public var number: Int
        public var digest: String

        public init(name: String, number: Int, digest: String) {
            self.name = name
            self.number = number
            self.digest = digest
        }
    }

    public var configuration: TrainingConfiguration
    /// What the peak of the learning rate is to the rate that suits the model.
    public var learningRateMultiplier: Double
    /// Tokens; what is longer loses its end.
    public var maximumLength: Int
    /// The name of the adapter that comes of it.
    public var suffix: String
    /// The adapter that is continued.
    public var initial: Initial?
    /// Of the files' bytes: the same file is the same data.
    public var trainingDigest: String
    public var validationDigest: String?
    /// Usable examples of the training file, and how many of those are held out for validation.
    public var exampleCount: Int
    public var heldOutCount: Int
    /// Evaluations without improvement after which the job ends; 0: never.
    public var patience: Int

    /// Examples that are trained on.
    public var trainingCount: Int { exampleCount - heldOutCount }
}

/// What the automatic choices depend on, beside the request and the data.
public struct JobDefaults: Sendable, Equatable {
    public var maximumLength = 1024
    public var rank = 16
    /// What `precision: auto` means on this machine.
    public var precision = TrainingConfiguration.Precision.bfloat16
    /// Tokens computed at once.
    public var microBatchTokens = 1024

    public init() {}

    /// Examples from which on some are held out without being asked for.
    static let splitThreshold = 50
    static let splitShare = 0.1, splitMaximum = 100
    static let patience = 3
    /// Fewer evaluations than this are too few to judge a trend by.
    static let patienceThreshold = 6

    /// The peak that suits adapters of a model of this size.
    static func learningRate(parameterCount: Int, method: JobRequest.Method) -> Double {
        let base =
            switch parameterCount {
            case ..<300_000_000: 1e-3
            case ..<1_000_000_000: 5e-4
            default: 2e-4
            }
        return method == .dpo ? base / 10 : base
    }

    /// Small sets need more passes, large ones fewer.
    static func epochs(_ count: Int) -> Int {
        switch count {
        case ..<100: 6
        case ..<2000: 3
        case ..<20_000: 2
        default: 1
        }
    }

    /// A small set is cut into smaller batches, so that an epoch has some steps.
    static func batchSize(_ count: Int) -> Int {
        switch count {
        case ..<16: 1
        case ..<32: 2
        case ..<64: 4
        default: 8
        }
    }

    static func heldOut(_ count: Int, split: Double?, hasValidationFile: Bool) -> Int {
        if hasValidationFile { return 0 }
        if let split {
            // At least one of each when there is a share at all.
            guard split > 0, count > 1 else { return 0 }
            return min(max(1, Int((Double(count) * split).rounded(.down))), count - 1)
        }
        return count < splitThreshold ? 0 : min(splitMaximum, Int(Double(count) * splitShare))
    }
}

extension JobPlan {
    /// Fills in what a request leaves open.
    ///
    /// - Parameters:
    ///   - seed: for requests without one.
    ///   - initialScale: rank and scale of the adapter that is continued; they decide, not the request.
    package init(
        _ request: JobRequest, suffix: String, seed: Int, exampleCount: Int, parameterCount: Int, defaults: JobDefaults, trainingDigest: String,
        validationDigest: String?, initial: Initial?, initialPairs: [LowRankPair]?
    ) {
        var configuration = TrainingConfiguration()
        let heldOut = JobDefaults.heldOut(exampleCount, split: request.validationSplit, hasValidationFile: validationDigest != nil)
        let count = exampleCount - heldOut
        configuration.method = request.method == .dpo ? .preference(beta: request.beta ?? 0.1) : .supervised
        configuration.epochs = request.epochs ?? JobDefaults.epochs(count)
        configuration.batchSize = request.batchSize ?? JobDefaults.batchSize(count)
        let suitable = JobDefaults.learningRate(parameterCount: parameterCount, method: request.method)
        configuration.learningRate = request.learningRate ?? suitable * (request.learningRateMultiplier ?? 1)
        learningRateMultiplier = request.learningRate.map { $0 / suitable } ?? request.learningRateMultiplier ?? 1
        configuration.warmupRatio = request.warmupRatio ?? 0.05
        configuration.schedule = request.schedule ?? .cosine
        configuration.rank = request.rank ?? defaults.rank
        configuration.alpha = request.alpha ?? 2 * Double(configuration.rank)
        configuration.usesRankStabilisedScale = request.usesRankStabilisedScale ?? false
        configuration.projections = request.projections ?? Set(Projection.allCases)
        if let initialPairs {
            let widest = initialPairs.max { $0.rank < $1.rank }
            configuration.rank = widest?.rank ?? configuration.rank
            configuration.alpha = widest.map { Double($0.scale) * Double($0.rank) } ?? configuration.alpha
            configuration.usesRankStabilisedScale = false
            configuration.projections = Set(initialPairs.map(\.projection))
        }
        configuration.dropout = request.dropout ?? 0
        configuration.neftuneAlpha = request.neftuneAlpha ?? 0
        configuration.packs = request.packs ?? true
        configuration.microBatchTokens = defaults.microBatchTokens
        configuration.precision = request.precision ?? defaults.precision
        configuration.seed = UInt64(clamping: request.seed ?? seed)
        self.configuration = configuration
        maximumLength = request.maximumLength ?? defaults.maximumLength
        self.suffix = suffix
        self.initial = initial
        self.trainingDigest = trainingDigest
        self.validationDigest = validationDigest
        self.exampleCount = exampleCount
        heldOutCount = heldOut
        let hasValidation = heldOut > 0 || validationDigest != nil
        let steps = EvaluationSchedule.stepCount(exampleCount: count, batchSize: configuration.batchSize, epochs: configuration.epochs)
        let evaluations = EvaluationSchedule(stepCount: steps.total, stepsPerEpoch: steps.perEpoch).steps.count
        let automatic = evaluations >= JobDefaults.patienceThreshold ? JobDefaults.patience : 0
        patience = hasValidation ? request.earlyStoppingPatience ?? automatic : 0
    }
}

extension ModelConfiguration {
    /// Near enough to choose a learning rate by: the layers' projections and one table of embeddings.
    package var approximateParameterCount: Int {
        let layer = Projection.allCases.reduce(0) { sum, projection in
            let shape = shape(of: projection)
            return sum + shape.rows * shape.columns
        }
        return layerCount * layer + vocabularySize * hiddenSize
    }
}
