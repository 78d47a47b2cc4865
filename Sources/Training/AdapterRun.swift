import Kernels
import Modeling

#if canImport(Glibc)
import Glibc
#endif

/// A run of `Trainer`. Everything that chance decides is drawn from (seed, step, example), so that the number of steps done is the whole place in the data.
final class AdapterRun: TrainingRun {
    let configuration: TrainingConfiguration
    let stepCount: Int
    let stepsPerEpoch: Int
    private(set) var completedSteps = 0
    private(set) var trainedTokenCount = 0
    private let plan: TrainingPlan
    private let parameters: AdapterParameters
    private let pass: Backpropagation
    private let compute: TrainingCompute
    /// log p of the chosen and the rejected answer of each training pair under the policy at step 0, and of each validation pair.
    private var references: (training: [(Double, Double)], validation: [(Double, Double)]) = ([], [])
    /// Of configuration and data, in snapshots.
    private let fingerprint: UInt64

    init(plan: TrainingPlan, parameters: AdapterParameters, pass: Backpropagation, compute: TrainingCompute) {
        self.plan = plan
        configuration = plan.configuration
        self.parameters = parameters
        self.pass = pass
        self.compute = compute
        stepsPerEpoch = (plan.training.count + configuration.batchSize - 1) / configuration.batchSize
        stepCount = stepsPerEpoch * configuration.epochs
        fingerprint = TrainingSnapshot.fingerprint(plan, parameters.layout)
    }

    var pairs: [LowRankPair] { parameters.pairs(of: parameters.values) }

    /// Gradients of the last step, as pairs.
    var gradientPairs: [LowRankPair] { parameters.pairs(of: parameters.gradients) }

    // MARK: Data

    /// The examples of a step, by number: each epoch has an order of its own.
    private func batch(of step: Int) -> [Int] {
        let epoch = step / stepsPerEpoch, first = step % stepsPerEpoch * configuration.batchSize
        var order = Array(0..<plan.training.count)
        var random = SplitMix(seed: SplitMix.mix(configuration.seed, UInt64(epoch)))
        for i in stride(from: order.count - 1, to: 0, by: -1) { order.swapAt(i, Int(random.next(below: UInt64(i + 1)))) }
        return Array(order[first..<min(first + configuration.batchSize, order.count)])
    }

    /// Examples that are computed together: one of supervised tuning, two of a pair.
    private static func units(_ examples: TrainingExamples, _ numbers: [Int]) -> [[TokenizedExample]] {
        switch examples {
        case .supervised(let examples): numbers.map { [examples[$0]] }
        case .preference(let pairs): numbers.map { [pairs[$0].chosen, pairs[$0].rejected] }
        }
    }

    /// - Parameter chance: falls differently on each example, therefore nothing is shared.
    /// - Returns: micro-batches, each with the places in `numbers` of its units.
    private func microBatches(
        _ examples: TrainingExamples, _ numbers: [Int], salt: UInt64, chance: Backpropagation.Chance? = nil
    ) -> [(batch: MicroBatch, units: [Int])] {
        let units = AdapterRun.units(examples, numbers), isSharing = !(chance?.isAtWork ?? false)
        // A bin holds what all begin with once, and of each unit at most what follows. There is room for the longest unit in any case.
        let common = isSharing ? Packing.commonPrefix(units.joined()) : 0
        let bins = Packing.bins(
            units.map { $0.reduce(0) { $0 + $1.tokens.count - common } }, capacity: max(configuration.microBatchTokens, pass.maximumRows) - common,
            isPacking: configuration.packs)
        return bins.map { bin in
            let members = bin.flatMap { unit in
                units[unit].enumerated().map { ($1, SplitMix.mix(salt, UInt64(numbers[unit]) &* 2 &+ UInt64($0))) }
            }
            return (MicroBatch(members, isSharing: isSharing), bin)
        }
    }

    /// The same for a whole set, a slice of it at a time, so that neither its packing nor its copies grow with it.
    private func eachMicroBatch(
        of examples: TrainingExamples, _ body: (_ batch: MicroBatch, _ units: [Int]) throws(TrainingInterrupted) -> Void
    ) throws(TrainingInterrupted) {
        let sliceCount = 512
        for first in stride(from: 0, to: examples.count, by: sliceCount) {
            let numbers = Array(first..<min(first + sliceCount, examples.count))
            for (batch, units) in microBatches(examples, numbers, salt: 0) { try body(batch, units.map { numbers[$0] }) }
        }
    }

    // MARK: Steps

    func prepare() throws(TrainingError) -> Bool {
        guard case .preference = configuration.method, references.training.isEmpty else { return false }
        do {
            try compute.turnstile.whileTraining { () throws(TrainingInterrupted) in try computeReferences() }
        } catch {
            throw TrainingError(.interrupted, "the reference's log-probabilities were interrupted")
        }
        return true
    }

    func step() throws(TrainingError) -> StepMetrics {
        precondition(completedSteps < stepCount, "no step is left")
        let numbers = batch(of: completedSteps)
        let salt = SplitMix.mix(SplitMix.mix(configuration.seed, 0x7374_6570), UInt64(completedSteps))
        let chance = Backpropagation.Chance(dropout: Float(configuration.dropout), neftuneAlpha: Float(configuration.neftuneAlpha), salt: salt)
        var totals = Totals()
        do {
            try compute.turnstile.whileTraining { () throws(TrainingInterrupted) in
                // `prepare` may have been left out.
                if case .preference = configuration.method, references.training.isEmpty { try computeReferences() }
                parameters.clearGradients()
                switch configuration.method {
                case .supervised: try supervised(numbers, salt: salt, chance, &totals)
                case .preference(let beta): try preference(numbers, salt: salt, chance, beta: beta, &totals)
                }
                totals.squares = try compute.sumOfSquares(parameters.gradients, count: parameters.layout.count)
            }
        } catch {
            throw TrainingError(.interrupted, "the step was interrupted")
        }
        let norm = totals.squares.squareRoot(), loss = totals.loss / totals.weight
        guard loss.isFinite, norm.isFinite else {
            throw TrainingError(
                .diverged,
                "step \(completedSteps + 1): found a loss of \(loss) and a gradient of norm \(norm), expected finite numbers; lower the learning rate (it was \(configuration.learningRate))")
        }
        let rate = configuration.learningRate(step: completedSteps, of: stepCount)
        let limit = configuration.maximumGradientNorm
        compute.turnstile.whileTraining {
            compute.update(
                parameters.values, gradients: parameters.gradients, first: parameters.firstMoments, second: parameters.secondMoments,
                count: parameters.layout.count,
                .init(
                    learningRate: rate, weightDecay: configuration.weightDecay, step: completedSteps + 1,
                    gradientScale: limit > 0 && norm > limit ? limit / (norm + 1e-6) : 1))
        }
        completedSteps += 1
        trainedTokenCount += totals.trainedTokens
        return StepMetrics(
            step: completedSteps, loss: loss, accuracy: totals.hits / totals.hitWeight, rewardMargin: totals.margin.map { $0 / totals.weight }, learningRate: rate,
            gradientNorm: norm, tokenCount: totals.tokens, trainedTokenCount: totals.trainedTokens)
    }

    fileprivate struct Totals {
        var loss = 0.0, weight = 0.0
        var hits = 0.0, hitWeight = 0.0
        var margin: Double?
        var tokens = 0, trainedTokens = 0
        var squares = 0.0

        mutating func count(_ batch: MicroBatch) {
            tokens += batch.tokenCount
            trainedTokens += batch.rows.count
        }
    }

    private func supervised(_ numbers: [Int], salt: UInt64, _ chance: Backpropagation.Chance, _ totals: inout Totals) throws(TrainingInterrupted) {
        let batches = microBatches(plan.training, numbers, salt: salt, chance: chance)
        // One mean over the trained tokens of the whole step, however they are divided.
        let count = batches.reduce(0) { $0 + $1.batch.rows.count }
        for (batch, _) in batches {
            try pass.forward(batch, chance: chance, keeps: true)
            let scores = try pass.head(batch, weights: Array(repeating: 1 / Float(count), count: batch.rows.count))
            try pass.backward(batch, chance: chance)
            totals.add(scores)
            totals.count(batch)
        }
    }

    private func preference(_ numbers: [Int], salt: UInt64, _ chance: Backpropagation.Chance, beta: Double, _ totals: inout Totals) throws(TrainingInterrupted) {
        // Model dropout is off, as in TRL: the reference was computed without it.
        var chance = chance
        chance.dropout = 0
        for (batch, units) in microBatches(plan.training, numbers, salt: salt, chance: chance) {
            try pass.forward(batch, chance: chance, keeps: true)
            let answers = AdapterRun.sums(try pass.head(batch, weights: nil), batch)
            var slopes = [Float](repeating: 0, count: batch.exampleCount)
            for (i, unit) in units.enumerated() {
                let delta = AdapterRun.delta(answers, i, references.training[numbers[unit]], beta)
                totals.add(delta)
                // d loss / d(-log p): the chosen answer is to become likelier, the rejected one less.
                let slope = Float(beta * AdapterRun.sigmoid(-delta) / Double(numbers.count))
                slopes[2 * i] = slope
                slopes[2 * i + 1] = -slope
            }
            _ = try pass.head(batch, weights: batch.owners.map { slopes[$0] })
            try pass.backward(batch, chance: chance)
            totals.count(batch)
        }
    }

    // MARK: Preference

    /// Σ log p of each answer.
    private static func sums(_ scores: Backpropagation.Scores, _ batch: MicroBatch) -> [Double] {
        var sums = [Double](repeating: 0, count: batch.exampleCount)
        for (i, owner) in batch.owners.enumerated() { sums[owner] += Double(scores.logProbabilities[i]) }
        return sums
    }

    /// β times how much more the chosen answer gained against the reference than the rejected one.
    private static func delta(_ answers: [Double], _ pair: Int, _ reference: (Double, Double), _ beta: Double) -> Double {
        beta * ((answers[2 * pair] - reference.0) - (answers[2 * pair + 1] - reference.1))
    }

    fileprivate static func sigmoid(_ x: Double) -> Double { x >= 0 ? 1 / (1 + exp(-x)) : exp(x) / (1 + exp(x)) }
    /// -log σ(x)
    fileprivate static func softplus(_ x: Double) -> Double { x > 0 ? log1p(exp(-x)) : -x + log1p(exp(x)) }

    private func computeReferences() throws(TrainingInterrupted) {
        precondition(completedSteps == 0, "the reference is the policy at step 0")
        references.validation = try referenceValues(plan.validation)
        references.training = try referenceValues(plan.training)
    }

    /// The policy of another adapter as the reference.
    func setReference(to pairs: [LowRankPair]) throws(TrainingInterrupted) {
        let own = self.pairs
        parameters.set(pairs)
        try computeReferences()
        parameters.set(own)
    }

    private func referenceValues(_ examples: TrainingExamples?) throws(TrainingInterrupted) -> [(Double, Double)] {
        guard let examples else { return [] }
        var values = [(Double, Double)](repeating: (0, 0), count: examples.count)
        try eachMicroBatch(of: examples) { batch, units throws(TrainingInterrupted) in
            try pass.forward(batch, chance: nil, keeps: false)
            let answers = AdapterRun.sums(try pass.head(batch, weights: nil), batch)
            for (i, unit) in units.enumerated() { values[unit] = (answers[2 * i], answers[2 * i + 1]) }
        }
        return values
    }

    // MARK: Evaluation

    func evaluate() throws(TrainingError) -> EvaluationMetrics? {
        guard let validation = plan.validation, validation.count > 0 else { return nil }
        var totals = Totals()
        do {
            try compute.turnstile.whileTraining { () throws(TrainingInterrupted) in
                if case .preference = configuration.method, references.training.isEmpty { try computeReferences() }
                try eachMicroBatch(of: validation) { batch, units throws(TrainingInterrupted) in
                    try pass.forward(batch, chance: nil, keeps: false)
                    let scores = try pass.head(batch, weights: nil)
                    switch configuration.method {
                    case .supervised: totals.add(scores)
                    case .preference(let beta):
                        let answers = AdapterRun.sums(scores, batch)
                        for (i, unit) in units.enumerated() { totals.add(AdapterRun.delta(answers, i, references.validation[unit], beta)) }
                    }
                }
            }
        } catch {
            throw TrainingError(.interrupted, "the evaluation was interrupted")
        }
        return EvaluationMetrics(
            loss: totals.loss / totals.weight, accuracy: totals.hits / totals.hitWeight, rewardMargin: totals.margin.map { $0 / totals.weight })
    }

    // MARK: Snapshots

    func snapshot() -> [UInt8] {
        TrainingSnapshot(
            fingerprint: fingerprint, completedSteps: completedSteps, trainedTokenCount: trainedTokenCount, references: references.training + references.validation
        ).encoded(parameters)
    }

    /// Goes on where another run of the same plan was.
    func restore(_ bytes: [UInt8]) throws(TrainingError) {
        let snapshot = try TrainingSnapshot(decoding: bytes, into: parameters)
        guard snapshot.fingerprint == fingerprint, snapshot.completedSteps <= stepCount else {
            throw TrainingError(.invalidSnapshot, "the snapshot is of another run: its data, model or configuration differ")
        }
        completedSteps = snapshot.completedSteps
        trainedTokenCount = snapshot.trainedTokenCount
        if !snapshot.references.isEmpty {
            guard snapshot.references.count == plan.training.count + (plan.validation?.count ?? 0) else {
                throw TrainingError(.invalidSnapshot, "the snapshot has \(snapshot.references.count) reference values, expected one for each pair")
            }
            references.training = Array(snapshot.references[..<plan.training.count])
            references.validation = Array(snapshot.references[plan.training.count...])
        }
    }
}

extension AdapterRun.Totals {
    fileprivate mutating func add(_ scores: Backpropagation.Scores) {
        for value in scores.logProbabilities { loss -= Double(value) }
        weight += Double(scores.logProbabilities.count)
        hits += Double(scores.hits.reduce(0) { $0 + Int($1) })
        hitWeight += Double(scores.hits.count)
    }

    fileprivate mutating func add(_ delta: Double) {
        loss += AdapterRun.softplus(delta)
        weight += 1
        margin = (margin ?? 0) + delta
        hits += delta > 0 ? 1 : 0
        hitWeight += 1
    }
}
