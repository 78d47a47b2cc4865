import Modeling
import Synchronization
import Testing
import Training

/// Trains nothing, but deterministically: numbers that are a pure function of the seed, the data and the step, and snapshots that are the whole state.
final class FakeTrainer: TrainingService {
    struct Settings {
        var validLoss: @Sendable (_ step: Int) -> Double = { 2 - Double($0) / 100 }
        /// Called before a step is done, with its number.
        var onStep: @Sendable (_ step: Int) -> Void = { _ in }
        var onEvaluation: @Sendable (_ step: Int) -> Void = { _ in }
        /// Thrown by the step of this number.
        var failure: (step: Int, error: TrainingError)?
        var memoryEstimate = 1000
        /// What the last estimate was asked for.
        var estimated: TrainingPlan?
        /// What the last start was given.
        var plan: TrainingPlan?
        var starts: [Int] = []
    }

    let settings = Mutex(Settings())

    func memoryEstimate(for plan: TrainingPlan) -> Int {
        settings.withLock { settings in
            settings.estimated = plan
            return settings.memoryEstimate
        }
    }

    func start(_ plan: TrainingPlan, from snapshot: [UInt8]?, interruption: Interruption) throws(TrainingError) -> any TrainingRun {
        if interruption.isRequested { throw TrainingError(.interrupted, "interrupted") }
        let run = FakeRun(plan, interruption, self)
        if let snapshot { try run.restore(snapshot) }
        settings.withLock { settings in
            settings.plan = plan
            settings.starts.append(run.completedSteps)
        }
        return run
    }
}

final class FakeRun: TrainingRun {
    private let plan: TrainingPlan
    private let interruption: Interruption
    private let trainer: FakeTrainer
    private(set) var completedSteps = 0
    private(set) var trainedTokenCount = 0
    private var values: [Float]

    static let width = 64

    init(_ plan: TrainingPlan, _ interruption: Interruption, _ trainer: FakeTrainer) {
        self.plan = plan
        self.interruption = interruption
        self.trainer = trainer
        values = plan.initial?.first?.a ?? (0..<2 * Self.width).map { Float($0 % 7) }
    }

    var stepsPerEpoch: Int { (plan.training.count - 1) / plan.configuration.batchSize + 1 }
    var stepCount: Int { stepsPerEpoch * plan.configuration.epochs }

    func prepare() throws(TrainingError) -> Bool { false }

    func step() throws(TrainingError) -> StepMetrics {
        let number = completedSteps + 1
        #expect(number <= stepCount, "a step after the last")
        let (onStep, failure) = trainer.settings.withLock { ($0.onStep, $0.failure) }
        onStep(number)
        if interruption.isRequested { throw TrainingError(.interrupted, "interrupted") }
        if let failure, failure.step == number { throw failure.error }
        for index in values.indices {
            values[index] += Float((number &* 31 &+ index &* 7 &+ Int(plan.configuration.seed % 101)) % 17 - 8) / 8
        }
        completedSteps = number
        trainedTokenCount += 10
        return StepMetrics(
            step: number, loss: 3 - Double(number) / 50, accuracy: Double(number) / 1000, rewardMargin: plan.configuration.method == .supervised ? nil : 0.5,
            learningRate: plan.configuration.learningRate, gradientNorm: 1, tokenCount: 40, trainedTokenCount: 10)
    }

    func evaluate() throws(TrainingError) -> EvaluationMetrics? {
        let (onEvaluation, loss) = trainer.settings.withLock { ($0.onEvaluation, $0.validLoss) }
        onEvaluation(completedSteps)
        if interruption.isRequested { throw TrainingError(.interrupted, "interrupted") }
        guard plan.validation != nil else { return nil }
        return EvaluationMetrics(loss: loss(completedSteps), accuracy: 0.5)
    }

    /// One pair of the tiny model's value projection.
    var pairs: [LowRankPair] {
        let shape = TuningFixture.model.shape(of: .v)
        let a = (0..<2 * shape.columns).map { values[$0 % values.count] }
        let b = (0..<shape.rows * 2).map { values[($0 * 3) % values.count] / 4 }
        return [LowRankPair(layer: 0, projection: .v, scale: 0.5, rank: 2, a: a, b: b)]
    }

    func snapshot() -> [UInt8] {
        var bytes: [UInt8] = []
        for number in [UInt64(completedSteps), UInt64(trainedTokenCount), plan.configuration.seed, UInt64(plan.training.count)] {
            withUnsafeBytes(of: number.littleEndian) { bytes += $0 }
        }
        values.withUnsafeBytes { bytes += $0 }
        return bytes
    }

    func restore(_ bytes: [UInt8]) throws(TrainingError) {
        guard bytes.count == 32 + 4 * values.count else { throw TrainingError(.invalidSnapshot, "found \(bytes.count) bytes") }
        func word(_ index: Int) -> UInt64 { bytes.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: 8 * index, as: UInt64.self) } }
        guard word(2) == plan.configuration.seed, word(3) == UInt64(plan.training.count) else { throw TrainingError(.invalidSnapshot, "another run's") }
        completedSteps = Int(word(0))
        trainedTokenCount = Int(word(1))
        values = bytes.withUnsafeBytes { raw in (0..<values.count).map { raw.loadUnaligned(fromByteOffset: 32 + 4 * $0, as: Float.self) } }
    }
}
