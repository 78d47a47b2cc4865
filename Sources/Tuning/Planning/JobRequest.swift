import Adapters
import Modeling
import Training

/// What a client asks for. What it leaves open (`nil`) is decided when the data is known, or by the server's settings.
public struct JobRequest: Sendable, Equatable {
    public enum Method: String, Sendable, CaseIterable {
        case supervised, dpo
    }

    /// The model to start from: the base, an adapter (`name`, `name@3`, `name@latest`) or a tuned model (`ft:…`); the latter two are continued.
    public var model: String
    /// Ids of files.
    public var trainingFile: String
    public var validationFile: String?
    public var method = Method.supervised

    public var epochs: Int?
    public var batchSize: Int?
    /// Scales the rate that suits the model.
    public var learningRateMultiplier: Double?
    /// How strongly a preferred answer is told from a rejected one (`dpo` only).
    public var beta: Double?

    /// The name of the adapter that comes of it.
    public var suffix: String?
    public var seed: Int?
    public var metadata: [String: String] = [:]

    public var rank: Int?
    public var alpha: Double?
    public var dropout: Double?
    public var projections: Set<Projection>?
    public var usesRankStabilisedScale: Bool?
    /// Tokens; what is longer loses its end.
    public var maximumLength: Int?
    public var neftuneAlpha: Double?
    public var packs: Bool?
    public var precision: TrainingConfiguration.Precision?
    /// An adapter to continue, when `model` is the base.
    public var initialAdapter: String?
    /// Whether the adapter's bare name means the result from then on.
    public var promotes = true
    /// The share of the examples that is held out when there is no validation file; 0 is none.
    public var validationSplit: Double?
    /// Evaluations without improvement after which the job ends; 0: it never ends early.
    public var earlyStoppingPatience: Int?
    public var schedule: TrainingConfiguration.Schedule?
    public var warmupRatio: Double?
    /// The peak itself, instead of what `learningRateMultiplier` scales.
    public var learningRate: Double?

    public init(model: String, trainingFile: String) {
        self.model = model
        self.trainingFile = trainingFile
    }

    // MARK: What is accepted

    public static let epochRange = 1...50
    public static let batchSizeRange = 1...256
    public static let multiplierRange = 0.0...1000.0
    public static let betaRange = 0.0...2.0
    public static let suffixLength = 1...64
    public static let rankRange = 1...Adapter.maximumRank
    public static let alphaRange = 0.0...10_000.0
    /// Exclusive above.
    public static let dropoutRange = 0.0...0.99
    public static let lengthRange = 8...1 << 20
    public static let neftuneRange = 0.0...100.0
    public static let splitRange = 0.0...0.9
    public static let patienceRange = 0...1000
    public static let warmupRange = 0.0...1.0
    public static let learningRateRange = 0.0...1.0
    public static let seedRange = 0...Int(Int32.max)
    public static let metadataCount = 16, metadataKeyLength = 64, metadataValueLength = 512

    /// Refuses numbers out of their ranges and what contradicts itself. Whether files and models are there is not looked at.
    public func check() throws(TuningError) {
        try Self.check(epochs, Self.epochRange, "n_epochs")
        try Self.check(batchSize, Self.batchSizeRange, "batch_size")
        try Self.check(learningRateMultiplier, Self.multiplierRange, "learning_rate_multiplier", excludingLower: true)
        try Self.check(beta, Self.betaRange, "beta", excludingLower: true)
        try Self.check(seed, Self.seedRange, "seed")
        try Self.check(rank, Self.rankRange, "lora.rank")
        try Self.check(alpha, Self.alphaRange, "lora.alpha", excludingLower: true)
        try Self.check(dropout, Self.dropoutRange, "lora.dropout")
        try Self.check(maximumLength, Self.lengthRange, "lora.max_length")
        try Self.check(neftuneAlpha, Self.neftuneRange, "lora.neftune_alpha")
        try Self.check(validationSplit, Self.splitRange, "lora.validation_split")
        try Self.check(earlyStoppingPatience, Self.patienceRange, "lora.early_stopping_patience")
        try Self.check(warmupRatio, Self.warmupRange, "lora.warmup_ratio")
        try Self.check(learningRate, Self.learningRateRange, "lora.learning_rate", excludingLower: true)
        guard projections?.isEmpty != true else {
            throw TuningError(
                .invalidArgument, "'lora.target_modules' is empty, expected at least one module, or \"all-linear\"", parameter: "lora.target_modules")
        }
        guard beta == nil || method == .dpo else {
            throw TuningError(.invalidArgument, "'beta' is set for the method supervised, expected it with dpo only; leave it out", parameter: "beta")
        }
        guard learningRate == nil || learningRateMultiplier == nil else {
            throw TuningError(
                .invalidArgument, "'lora.learning_rate' and 'learning_rate_multiplier' are both set, expected one of them", parameter: "lora.learning_rate")
        }
        guard validationFile == nil || (validationSplit ?? 0) == 0 else {
            throw TuningError(
                .invalidArgument, "'lora.validation_split' and 'validation_file' are both set, expected one of them", parameter: "lora.validation_split")
        }
        try checkMetadata()
    }

    private func checkMetadata() throws(TuningError) {
        guard metadata.count <= Self.metadataCount else {
            throw TuningError(.invalidArgument, "'metadata' has \(metadata.count) pairs, expected at most \(Self.metadataCount)", parameter: "metadata")
        }
        for (key, value) in metadata where key.unicodeScalars.count > Self.metadataKeyLength || value.unicodeScalars.count > Self.metadataValueLength {
            throw TuningError(
                .invalidArgument,
                "'metadata' has a key of \(key.unicodeScalars.count) characters with a value of \(value.unicodeScalars.count), "
                    + "expected at most \(Self.metadataKeyLength) and \(Self.metadataValueLength)", parameter: "metadata")
        }
    }

    private static func check<Value: Comparable>(
        _ value: Value?, _ range: ClosedRange<Value>, _ name: String, excludingLower: Bool = false
    ) throws(TuningError) {
        guard let value, !range.contains(value) || (excludingLower && value == range.lowerBound) else { return }
        let expected =
            excludingLower ? "more than \(range.lowerBound) and at most \(range.upperBound)" : "\(range.lowerBound) to \(range.upperBound)"
        throw TuningError(.invalidArgument, "'\(name)' is \(value), expected \(expected)", parameter: name)
    }
}
