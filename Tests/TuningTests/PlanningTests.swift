import InstructionStore
import JSON
import Modeling
import Testing
import Training
import Tuning

struct PlanningTests {
    private func plan(_ count: Int, parameters: Int = 134_000_000, hasValidation: Bool = false, _ change: (inout JobRequest) -> Void = { _ in }) -> JobPlan {
        var request = JobRequest(model: "tiny", trainingFile: "file-1")
        change(&request)
        return JobPlan(
            request, suffix: "bot", seed: 7, exampleCount: count, parameterCount: parameters, defaults: JobDefaults(), trainingDigest: "t",
            validationDigest: hasValidation ? "v" : nil, initial: nil, initialPairs: nil)
    }

    // MARK: Automatic choices

    @Test func learningRates() {
        #expect(plan(100).configuration.learningRate == 1e-3)
        #expect(plan(100, parameters: 600_000_000).configuration.learningRate == 5e-4)
        #expect(plan(100, parameters: 1_700_000_000).configuration.learningRate == 2e-4)
        #expect(plan(100) { $0.method = .dpo }.configuration.learningRate == 1e-4)
        #expect(plan(100) { $0.learningRateMultiplier = 2 }.configuration.learningRate == 2e-3)
        let absolute = plan(100) { $0.learningRate = 5e-4 }
        #expect(absolute.configuration.learningRate == 5e-4 && absolute.learningRateMultiplier == 0.5)
    }

    @Test func sizes() {
        #expect(plan(10).configuration.batchSize == 1 && plan(1000).configuration.batchSize == 8)
        #expect([10, 99, 200, 10_000, 100_000].map { plan($0).configuration.epochs } == [6, 6, 3, 2, 1])
        let usual = plan(1000).configuration
        #expect(usual.rank == 16 && usual.alpha == 32 && usual.schedule == .cosine && usual.warmupRatio == 0.05 && usual.seed == 7)
        #expect(plan(1000) { $0.rank = 4 }.configuration.alpha == 8)
        #expect(plan(1000) { $0.method = .dpo }.configuration.method == .preference(beta: 0.1))
    }

    @Test func holdingOut() {
        #expect([1, 49, 50, 500, 5000].map { plan($0).heldOutCount } == [0, 0, 5, 50, 100])
        #expect(plan(500, hasValidation: true).heldOutCount == 0)
        #expect(plan(500) { $0.validationSplit = 0 }.heldOutCount == 0)
        #expect(plan(3) { $0.validationSplit = 0.1 }.heldOutCount == 1)
        #expect(plan(2) { $0.validationSplit = 0.9 }.heldOutCount == 1)
        #expect(plan(1) { $0.validationSplit = 0.9 }.heldOutCount == 0)
    }

    @Test func patience() {
        #expect(plan(1000).patience == 3)
        #expect(plan(1000) { $0.earlyStoppingPatience = 0 }.patience == 0)
        #expect(plan(1000) { $0.validationSplit = 0 }.patience == 0, "nothing to judge by")
        // Three steps are looked at three times, which is too few for a trend.
        let short = plan(60) {
            $0.epochs = 1
            $0.batchSize = 20
        }
        #expect(short.heldOutCount == 6 && short.patience == 0)
    }

    @Test func theAdapterThatIsContinuedDecides() {
        let pairs = [
            LowRankPair(layer: 0, projection: .q, scale: 0.25, rank: 8, a: [], b: []), LowRankPair(layer: 1, projection: .v, scale: 0.25, rank: 8, a: [], b: []),
        ]
        let plan = JobPlan(
            JobRequest(model: "bot", trainingFile: "f"), suffix: "bot", seed: 1, exampleCount: 100, parameterCount: 1, defaults: JobDefaults(),
            trainingDigest: "t", validationDigest: nil, initial: JobPlan.Initial(name: "bot", number: 3, digest: "d"), initialPairs: pairs)
        #expect(plan.configuration.rank == 8 && plan.configuration.alpha == 2 && plan.configuration.projections == [.q, .v])
    }

    @Test func plansSurviveBeingStored() throws {
        var plans = [plan(10), plan(1000), plan(1000) { $0.method = .dpo }, plan(77, hasValidation: true)]
        plans.append(
            plan(500) {
                $0.rank = 3
                $0.alpha = 0.1
                $0.dropout = 0.3
                $0.projections = [.q, .down]
                $0.usesRankStabilisedScale = true
                $0.maximumLength = 99
                $0.neftuneAlpha = 5
                $0.packs = false
                $0.precision = .float32
                $0.schedule = .constant
                $0.warmupRatio = 0.123456789
                $0.learningRate = 1 / 3
                $0.seed = Int(Int32.max)
            })
        plans[0].initial = JobPlan.Initial(name: "bot", number: 2, digest: "d")
        plans[0].configuration.seed = .max
        for plan in plans {
            let bytes = plan.json.serialized()
            #expect(JobPlan(try JSONValue(parsing: bytes)) == plan)
        }
        #expect(JobPlan(["epochs": 3]) == nil)
    }

    @Test func requestsSurviveBeingStored() throws {
        var request = JobRequest(model: "tiny", trainingFile: "file-1")
        #expect(JobRequest(try JSONValue(parsing: request.json.serialized())) == request)
        request.validationFile = "file-2"
        request.method = .dpo
        request.epochs = 2
        request.batchSize = 3
        request.learningRateMultiplier = 0.7
        request.beta = 0.2
        request.suffix = "a"
        request.seed = 9
        request.metadata = ["a": "b", "ä\n": "\""]
        request.rank = 5
        request.alpha = 6
        request.dropout = 0.1
        request.projections = [.k]
        request.usesRankStabilisedScale = false
        request.maximumLength = 77
        request.neftuneAlpha = 1
        request.packs = false
        request.precision = .bfloat16
        request.initialAdapter = "bot@2"
        request.promotes = false
        request.validationSplit = 0.2
        request.earlyStoppingPatience = 4
        request.schedule = .linear
        request.warmupRatio = 0.3
        request.learningRate = 0.01
        #expect(JobRequest(try JSONValue(parsing: request.json.serialized())) == request)
    }

    // MARK: What is refused

    @Test func numbersOutOfRange() {
        func parameter(_ change: (inout JobRequest) -> Void) -> String? {
            var request = JobRequest(model: "m", trainingFile: "f")
            change(&request)
            return refusal { try request.check() }?.parameter
        }
        #expect(parameter { _ in } == nil)
        #expect(parameter { $0.epochs = 0 } == "n_epochs" && parameter { $0.epochs = 51 } == "n_epochs" && parameter { $0.epochs = 50 } == nil)
        #expect(parameter { $0.batchSize = 257 } == "batch_size")
        #expect(parameter { $0.learningRateMultiplier = 0 } == "learning_rate_multiplier" && parameter { $0.learningRateMultiplier = .nan } == "learning_rate_multiplier")
        #expect(parameter { $0.beta = 0.1 } == "beta", "only preferences have one")
        #expect(parameter { ($0.method, $0.beta) = (.dpo, 2) } == nil && parameter { ($0.method, $0.beta) = (.dpo, 2.1) } == "beta")
        #expect(parameter { $0.rank = 0 } == "lora.rank" && parameter { $0.dropout = 1 } == "lora.dropout")
        #expect(parameter { $0.projections = [] } == "lora.target_modules")
        #expect(parameter { ($0.learningRate, $0.learningRateMultiplier) = (0.1, 1) } == "lora.learning_rate")
        #expect(parameter { ($0.validationFile, $0.validationSplit) = ("f", 0.1) } == "lora.validation_split")
        #expect(parameter { ($0.validationFile, $0.validationSplit) = ("f", 0) } == nil)
        #expect(parameter { $0.metadata = Dictionary(uniqueKeysWithValues: (0..<17).map { ("\($0)", "") }) } == "metadata")
        #expect(parameter { $0.metadata = ["k": String(repeating: "x", count: 513)] } == "metadata")
    }

    // MARK: When a run is looked at

    @Test func evaluations() {
        #expect(EvaluationSchedule(stepCount: 3, stepsPerEpoch: 3).steps == [1, 2, 3])
        #expect(EvaluationSchedule(stepCount: 20, stepsPerEpoch: 5).steps.contains(20))
        for (total, perEpoch) in [(1, 1), (7, 7), (20, 5), (225, 75), (1000, 1000), (999, 37), (50, 1), (100, 50)] {
            let schedule = EvaluationSchedule(stepCount: total, stepsPerEpoch: perEpoch)
            #expect(schedule.steps == schedule.steps.sorted() && Set(schedule.steps).count == schedule.steps.count)
            #expect(schedule.steps.last == total && schedule.steps.allSatisfy { $0 >= 1 })
            for end in stride(from: perEpoch, through: total, by: perEpoch) { #expect(schedule.contains(end)) }
            #expect(schedule.steps.count >= min(total, 8), "\(total) steps are looked at \(schedule.steps.count) times")
            #expect(schedule.steps.count <= 12 + total / perEpoch)
            #expect((0...total + 1).filter { schedule.contains($0) } == schedule.steps)
        }
        #expect(EvaluationSchedule(stepCount: 0, stepsPerEpoch: 0).steps.isEmpty)
    }

    @Test func partingExamples() {
        let examples = TrainingExamples.supervised((0..<60).map { TokenizedExample(tokens: [Int32($0), 1], isTrained: [false, true]) })
        func firsts(_ examples: TrainingExamples?) -> [Int32] {
            guard case .supervised(let all)? = examples else { return [] }
            return all.map { $0.tokens[0] }
        }
        let (kept, held) = HoldOut.split(examples, heldOut: 6, seed: 3)
        #expect(firsts(kept).count == 54 && firsts(held).count == 6 && Set(firsts(kept)).isDisjoint(with: firsts(held)))
        #expect(firsts(kept) == firsts(kept).sorted() && firsts(held) == firsts(held).sorted())
        #expect(firsts(HoldOut.split(examples, heldOut: 6, seed: 3).validation) == firsts(held))
        #expect(firsts(HoldOut.split(examples, heldOut: 6, seed: 4).validation) != firsts(held))
        #expect(HoldOut.split(examples, heldOut: 0, seed: 3).validation == nil)
        // The draw is part of what a job is: it must not change from one build to the next.
        #expect(HoldOut.indices(of: 20, choosing: 4, seed: 5).sorted() == [5, 13, 15, 19])
    }

    // MARK: Which checkpoints stay

    private func checkpoint(_ step: Int, _ loss: Double?, removed: Bool = false) -> JobCheckpointRow {
        JobCheckpointRow(
            step: step, createdAt: 0, alias: "a\(step)", adapter: "x", version: step, trainLoss: 1, trainAccuracy: 1, validLoss: loss, validAccuracy: nil,
            rewardMargin: nil, removedAt: removed ? 1 : nil)
    }

    @Test func theBestAndTheLastThreeStay() {
        let losses: [Double] = [5, 2, 3, 2, 4, 6, 7]
        let all = losses.enumerated().map { checkpoint($0.offset + 1, $0.element) }
        #expect(CheckpointPolicy.best(all)?.step == 2)
        #expect(CheckpointPolicy.superfluous(all).map(\.step) == [1, 3, 4])
        #expect(CheckpointPolicy.superfluous([checkpoint(1, 5, removed: true)] + all.dropFirst()).map(\.step) == [3, 4])
        let blind = (1...5).map { checkpoint($0, nil) }
        #expect(CheckpointPolicy.best(blind)?.step == 5)
        #expect(CheckpointPolicy.superfluous(blind).map(\.step) == [1, 2])
        #expect(CheckpointPolicy.best([checkpoint(1, 3), checkpoint(2, .nan)])?.step == 1)
        #expect(CheckpointPolicy.superfluous([]).isEmpty && CheckpointPolicy.best([]) == nil)
    }

    @Test func givingUp() {
        let falling = (1...9).map { checkpoint($0, 10 - Double($0)) }
        #expect(!CheckpointPolicy.isExhausted(falling, patience: 3))
        let rising = [checkpoint(1, 1)] + (2...4).map { checkpoint($0, 1 + Double($0)) }
        #expect(CheckpointPolicy.isExhausted(rising, patience: 3) && !CheckpointPolicy.isExhausted(Array(rising.dropLast()), patience: 3))
        #expect(!CheckpointPolicy.isExhausted(rising, patience: 0))
        #expect(!CheckpointPolicy.isExhausted((1...9).map { checkpoint($0, nil) }, patience: 3))
        #expect(CheckpointPolicy.isExhausted((1...4).map { checkpoint($0, 1) }, patience: 3), "as good is no better")
    }
}
