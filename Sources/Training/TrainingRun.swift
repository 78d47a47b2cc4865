import Modeling
import Synchronization

/// One optimiser step, reported.
public struct StepMetrics: Sendable, Equatable {
    /// 1 for the first.
    public var step: Int
    /// Mean over the step's trained tokens, or over its pairs.
    public var loss: Double
    /// The share of trained tokens that were the most likely ones; for pairs, the share whose chosen answer gained more than the rejected one.
    public var accuracy: Double
    /// For pairs: the mean of β times how much more the chosen answer gained.
    public var rewardMargin: Double?
    public var learningRate: Double
    /// Before clipping.
    public var gradientNorm: Double
    /// Tokens that went through the model, and those of them that the loss counted.
    public var tokenCount: Int, trainedTokenCount: Int

    public init(
        step: Int, loss: Double, accuracy: Double, rewardMargin: Double? = nil, learningRate: Double, gradientNorm: Double, tokenCount: Int,
        trainedTokenCount: Int
    ) {
        self.step = step
        self.loss = loss
        self.accuracy = accuracy
        self.rewardMargin = rewardMargin
        self.learningRate = learningRate
        self.gradientNorm = gradientNorm
        self.tokenCount = tokenCount
        self.trainedTokenCount = trainedTokenCount
    }
}

/// The whole validation set, dropout and noise off.
public struct EvaluationMetrics: Sendable, Equatable {
    /// Weighted by tokens (or mean over pairs).
    public var loss: Double
    public var accuracy: Double
    public var rewardMargin: Double?

    public init(loss: Double, accuracy: Double, rewardMargin: Double? = nil) {
        self.loss = loss
        self.accuracy = accuracy
        self.rewardMargin = rewardMargin
    }
}

public struct TrainingError: Error, Sendable, Equatable, CustomStringConvertible {
    public enum Code: Sendable, Equatable {
        /// A configuration or data that cannot be trained.
        case invalidArgument
        case outOfMemory
        /// OpenBLAS is missing, or the processor cannot do what was asked for.
        case unavailable
        /// Losses or gradients stopped being finite.
        case diverged
        /// A snapshot that is damaged, or of another run.
        case invalidSnapshot
        /// `Interruption.request()` was called; the run is where it was before the step.
        case interrupted
    }

    public let code: Code
    public let message: String

    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }

    public var description: String { message }
}

/// Lets any thread end a step or an evaluation that is under way, within milliseconds.
public final class Interruption: Sendable {
    private let flag = Atomic(false)

    public init() {}

    public var isRequested: Bool { flag.load(ordering: .relaxed) }
    public func request() { flag.store(true, ordering: .relaxed) }
}

/// What a run needs from the outside; its own state is in snapshots.
public struct TrainingPlan: Sendable {
    public var configuration: TrainingConfiguration
    public var training: TrainingExamples
    /// Of the same kind; `nil`: none.
    public var validation: TrainingExamples?
    /// Where to start from, at step 0: the adapter that is continued. `nil`: a new one, A uniform in ±1/√in, B zero.
    public var initial: [LowRankPair]?

    public init(configuration: TrainingConfiguration, training: TrainingExamples, validation: TrainingExamples? = nil, initial: [LowRankPair]? = nil) {
        self.configuration = configuration
        self.training = training
        self.validation = validation
        self.initial = initial
    }
}

/// One adapter being trained. Used by one thread at a time.
public protocol TrainingRun: AnyObject {
    /// All steps of the run, and those that are done.
    var stepCount: Int { get }
    var completedSteps: Int { get }
    /// Steps of one epoch.
    var stepsPerEpoch: Int { get }
    /// Since step 0, over restarts.
    var trainedTokenCount: Int { get }
    /// What must be known before the first step and takes a while: the reference's log-probabilities of preference tuning. Without it the first step does it.
    /// - Returns: whether there was something to do, which a snapshot keeps.
    func prepare() throws(TrainingError) -> Bool
    /// The next optimiser step; there must be one.
    func step() throws(TrainingError) -> StepMetrics
    /// The loss on the validation set as the adapter stands; `nil` without one.
    func evaluate() throws(TrainingError) -> EvaluationMetrics?
    /// The adapter as it stands.
    var pairs: [LowRankPair] { get }
    /// Adapter, moments, step, place in the data and random state: a run that starts from it goes on with the same bits.
    func snapshot() -> [UInt8]
}

/// Makes runs. `Trainer` is the one implementation; tests may bring another.
public protocol TrainingService: Sendable {
    /// Bytes that a run will need at its peak, beside the model.
    func memoryEstimate(for plan: TrainingPlan) -> Int
    /// - Parameter snapshot: where to go on; it must come from a run with the same plan.
    func start(_ plan: TrainingPlan, from snapshot: [UInt8]?, interruption: Interruption) throws(TrainingError) -> any TrainingRun
}
