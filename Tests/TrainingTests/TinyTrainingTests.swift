import Kernels
import Modeling
import Testing
import Training

#if canImport(Glibc)
import Glibc
#endif

/// What must hold on a tiny random model of each architecture, in float32: gradients, packing, accumulation, resuming.
struct TinyTrainingTests {
    static let models = ["llama", "llama3", "llama-q4_1", "llama-q6_k", "mistral", "qwen2", "qwen3", "gemma3", "gemma3-scaled"]

    /// Numbers that look random and are the same everywhere.
    struct Numbers {
        var state: UInt64

        mutating func next() -> UInt64 {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return state >> 33
        }

        /// -1 … 1
        mutating func unit() -> Float { Float(next() % 20001) / 10000 - 1 }
    }

    static func examples(_ model: LanguageModel, lengths: [Int], seed: UInt64 = 1) -> [TokenizedExample] {
        var numbers = Numbers(state: seed)
        return lengths.map { length in
            let tokens = (0..<length).map { _ in Int32(numbers.next() % UInt64(model.configuration.vocabularySize)) }
            // Two stretches of trained tokens, as two answers of a conversation have them.
            return TokenizedExample(tokens: tokens, isTrained: (0..<length).map { $0 >= 2 && $0 % 7 > 2 })
        }
    }

    /// Pairs with nothing zero, so that every gradient is exercised.
    static func pairs(_ model: LanguageModel, rank: Int, seed: UInt64, where isWanted: (Int, Projection) -> Bool = { _, _ in true }) -> [LowRankPair] {
        var numbers = Numbers(state: seed)
        let c = model.configuration
        return (0..<c.layerCount).flatMap { layer in
            Projection.allCases.filter { isWanted(layer, $0) }.map { projection in
                let shape = c.shape(of: projection)
                return LowRankPair(
                    layer: layer, projection: projection, scale: 1.5, rank: rank,
                    a: (0..<rank * shape.columns).map { _ in numbers.unit() / Float(shape.columns).squareRoot() },
                    b: (0..<rank * shape.rows).map { _ in numbers.unit() * 0.1 })
            }
        }
    }

    static func configuration(batch: Int = 100) -> TrainingConfiguration {
        var c = TrainingConfiguration()
        c.precision = .float32
        c.schedule = .constant
        c.warmupRatio = 0
        c.maximumGradientNorm = 0
        c.batchSize = batch
        c.epochs = 1
        return c
    }

    static func run(_ fixture: TrainingFixture, _ c: TrainingConfiguration, _ examples: TrainingExamples, _ initial: [LowRankPair]? = nil) throws -> any TrainingRunInspection {
        try fixture.trainer().run(TrainingPlan(configuration: c, training: examples, initial: initial))
    }

    static func flat(_ pairs: [LowRankPair]) -> [Float] { pairs.flatMap { $0.a + $0.b } }

    /// The pairs moved along a direction.
    static func moved(_ pairs: [LowRankPair], along direction: [LowRankPair], by step: Float) -> [LowRankPair] {
        zip(pairs, direction).map { pair, d in
            var pair = pair
            for i in pair.a.indices { pair.a[i] += step * d.a[i] }
            for i in pair.b.indices { pair.b[i] += step * d.b[i] }
            return pair
        }
    }

    /// The slope of the loss along some directions, from gradients and from differences.
    static func checkGradient(_ fixture: TrainingFixture, _ c: TrainingConfiguration, _ examples: TrainingExamples, _ pairs: [LowRankPair], _ name: String) throws {
        let run = try run(fixture, c, examples, pairs)
        _ = try run.step()
        let gradient = run.gradientPairs
        let length = norm(flat(gradient))
        #expect(length > 0)
        // Along the gradient itself, and for each projection alone along a random direction.
        var directions: [(String, [LowRankPair])] = [("all", gradient)]
        for projection in Set(pairs.map(\.projection)).sorted(by: { $0.rawValue < $1.rawValue }) {
            var numbers = Numbers(state: 99)
            directions.append(
                (
                    "\(projection)",
                    gradient.map { pair in
                        var pair = pair
                        let part = pair.projection == projection ? Float(1) : 0
                        // Signs of the gradient times random sizes: the slope is then far from zero.
                        for i in pair.a.indices { pair.a[i] = part * (pair.a[i] < 0 ? -1 : 1) * abs(numbers.unit()) }
                        for i in pair.b.indices { pair.b[i] = part * (pair.b[i] < 0 ? -1 : 1) * abs(numbers.unit()) }
                        return pair
                    }
                ))
        }
        for (label, direction) in directions {
            let size = norm(flat(direction))
            let step = Float(0.02 / size)
            let forward = try Self.run(fixture, c, examples, moved(pairs, along: direction, by: step)).step().loss
            let backward = try Self.run(fixture, c, examples, moved(pairs, along: direction, by: -step)).step().loss
            let slope = (forward - backward) / (2 * Double(step))
            let expected = zip(flat(gradient), flat(direction)).reduce(0.0) { $0 + Double($1.0) * Double($1.1) }
            #expect(abs(slope - expected) <= 0.02 * abs(expected) + 1e-5 / Double(step), "\(name), \(label): slope \(slope), expected \(expected)")
        }
    }

    @Test(arguments: models)
    func gradientsAgreeWithDifferences(name: String) throws {
        let fixture = try TrainingFixture(tiny: name)
        try Self.checkGradient(
            fixture, Self.configuration(), .supervised(Self.examples(fixture.model, lengths: [17, 40, 9])), Self.pairs(fixture.model, rank: 3, seed: 5), name)
    }

    @Test(arguments: ["llama", "gemma3"])
    func gradientsAgreeWithDropoutAndNoise(name: String) throws {
        let fixture = try TrainingFixture(tiny: name)
        var c = Self.configuration()
        c.dropout = 0.3
        c.neftuneAlpha = 5
        try Self.checkGradient(
            fixture, c, .supervised(Self.examples(fixture.model, lengths: [17, 40, 9])), Self.pairs(fixture.model, rank: 4, seed: 6), name + ", dropout")
    }

    @Test(arguments: ["llama", "qwen3"])
    func gradientsOfSomeProjections(name: String) throws {
        let fixture = try TrainingFixture(tiny: name)
        let examples = TrainingExamples.supervised(Self.examples(fixture.model, lengths: [12, 33]))
        let last = fixture.model.configuration.layerCount - 1
        for (label, isWanted) in [
            ("q and v", { _, p in p == .q || p == .v }), ("o and down of the last layer", { layer, p in layer == last && (p == .o || p == .down) }),
            ("up", { _, p in p == .up }),
        ] as [(String, (Int, Projection) -> Bool)] {
            try Self.checkGradient(fixture, Self.configuration(), examples, Self.pairs(fixture.model, rank: 2, seed: 7, where: isWanted), "\(name), \(label)")
        }
    }

    @Test(arguments: ["llama", "qwen2", "gemma3"])
    func preferenceGradientsAgreeWithDifferences(name: String) throws {
        let fixture = try TrainingFixture(tiny: name)
        let all = Self.examples(fixture.model, lengths: [14, 21, 30, 11])
        var c = Self.configuration()
        c.method = .preference(beta: 0.3)
        let pairs = TrainingExamples.preference([.init(chosen: all[0], rejected: all[1]), .init(chosen: all[2], rejected: all[3])])
        let start = Self.pairs(fixture.model, rank: 2, seed: 8)
        let run = try Self.run(fixture, c, pairs, start)
        // The reference is the policy itself: neither answer has gained.
        let first = try run.step()
        #expect(abs(first.loss - log(2)) < 1e-6)
        #expect(abs(first.rewardMargin!) < 1e-6)
        // Against another reference the loss has a slope that differences can see.
        let other = Self.pairs(fixture.model, rank: 2, seed: 9)
        func loss(_ at: [LowRankPair]) throws -> (Double, [LowRankPair]) {
            let run = try Self.run(fixture, c, pairs, at)
            try run.setReference(to: other)
            return (try run.step().loss, run.gradientPairs)
        }
        let gradient = try loss(start).1
        let step = Float(0.02 / norm(Self.flat(gradient)))
        let slope = (try loss(Self.moved(start, along: gradient, by: step)).0 - (try loss(Self.moved(start, along: gradient, by: -step)).0)) / (2 * Double(step))
        let expected = Self.flat(gradient).reduce(0.0) { $0 + Double($1) * Double($1) }
        #expect(abs(slope - expected) <= 0.02 * expected, "\(name): slope \(slope), expected \(expected)")
    }

    @Test func aNewAdapterIsTheBaseAndPreferenceBeginsAtLn2() throws {
        let fixture = try TrainingFixture(tiny: "llama")
        let all = Self.examples(fixture.model, lengths: [14, 21])
        var c = Self.configuration()
        c.method = .preference(beta: 0.1)
        let run = try Self.run(fixture, c, .preference([.init(chosen: all[0], rejected: all[1])]))
        #expect(run.pairs.allSatisfy { $0.b.allSatisfy { $0 == 0 } && $0.a.contains { $0 != 0 } })
        #expect(try run.step().loss == log(2))
    }

    @Test(arguments: models)
    func packedIsUnpackedAndAccumulatedIsWhole(name: String) throws {
        let fixture = try TrainingFixture(tiny: name)
        let examples = TrainingExamples.supervised(Self.examples(fixture.model, lengths: [17, 40, 9, 70, 25, 33, 5]))
        let start = Self.pairs(fixture.model, rank: 4, seed: 3)
        var results: [(loss: Double, gradient: [Float])] = []
        for (tokens, packs) in [(1024, true), (1024, false), (75, true)] {
            var c = Self.configuration()
            c.microBatchTokens = tokens
            c.packs = packs
            let run = try Self.run(fixture, c, examples, start)
            results.append((try run.step().loss, Self.flat(run.gradientPairs)))
        }
        for result in results[1...] {
            #expect(abs(result.loss - results[0].loss) < 1e-5 * results[0].loss)
            #expect(cosine(result.gradient, results[0].gradient) > 0.999_999)
            #expect(abs(norm(result.gradient) / norm(results[0].gradient) - 1) < 1e-4)
        }
    }

    /// Examples that begin alike are computed together up to where they part, and learn as if each were alone: one system prompt, two questions below it, answers
    /// that part at once or late, one example that ends inside another, one that occurs twice.
    @Test(arguments: models)
    func sharedBeginningsChangeNothing(name: String) throws {
        let fixture = try TrainingFixture(tiny: name)
        let e = Self.examples(fixture.model, lengths: [20, 24, 30, 11, 9, 26], seed: 4)
        func joined(_ parts: Int...) -> TokenizedExample {
            let tokens = parts.flatMap { e[$0].tokens }
            return TokenizedExample(tokens: tokens, isTrained: tokens.indices.map { $0 >= 30 && $0 % 3 > 0 })
        }
        let examples = [joined(0, 1, 2), joined(0, 1, 3), joined(0, 1, 2, 4), joined(5, 4, 1), joined(0, 5, 3), joined(0, 1, 2), joined(0, 1, 4, 3)]
        let start = Self.pairs(fixture.model, rank: 4, seed: 3)
        var results: [(loss: Double, gradient: [Float])] = []
        for packs in [true, false] {
            var c = Self.configuration()
            c.packs = packs
            let run = try Self.run(fixture, c, .supervised(examples), start)
            let metrics = try run.step()
            #expect(metrics.tokenCount == examples.reduce(0) { $0 + $1.tokens.count } && metrics.trainedTokenCount == examples.reduce(0) { $0 + $1.trainedCount })
            results.append((metrics.loss, Self.flat(run.gradientPairs)))
        }
        #expect(abs(results[1].loss - results[0].loss) < 1e-5 * results[0].loss)
        #expect(cosine(results[1].gradient, results[0].gradient) > 0.999_999)
        #expect(abs(norm(results[1].gradient) / norm(results[0].gradient) - 1) < 1e-4)
        try Self.checkGradient(fixture, Self.configuration(), .supervised(examples), start, name)
    }

    @Test func chanceDoesNotDependOnPacking() throws {
        let fixture = try TrainingFixture(tiny: "qwen2")
        let examples = TrainingExamples.supervised(Self.examples(fixture.model, lengths: [17, 40, 9]))
        var losses: [Double] = []
        for packs in [true, false] {
            var c = Self.configuration()
            c.packs = packs
            c.dropout = 0.2
            c.neftuneAlpha = 10
            losses.append(try Self.run(fixture, c, examples, Self.pairs(fixture.model, rank: 2, seed: 4)).step().loss)
        }
        #expect(abs(losses[0] - losses[1]) < 1e-5 * losses[0])
        var c = Self.configuration()
        c.dropout = 0.2
        c.neftuneAlpha = 10
        c.seed = 1
        #expect(try Self.run(fixture, c, examples, Self.pairs(fixture.model, rank: 2, seed: 4)).step().loss != losses[0])
    }

    @Test(arguments: TrainingConfiguration.Precision.allCases)
    func anInterruptedRunEndsWithTheSameBits(precision: TrainingConfiguration.Precision) throws {
        var results: [[Float]] = []
        for threads in [2, 1] {
            let fixture = try TrainingFixture(tiny: "llama-q4_1", threads: threads)
            let examples = Self.examples(fixture.model, lengths: [17, 40, 9, 22, 31, 12, 8])
            var c = Self.configuration(batch: 3)
            c.precision = precision
            c.epochs = 3
            c.schedule = .cosine
            c.maximumGradientNorm = 1
            c.dropout = 0.1
            c.learningRate = 1e-2
            let plan = TrainingPlan(configuration: c, training: .supervised(examples), validation: .supervised(Array(examples[..<2])))
            let trainer = try fixture.trainer()
            let whole = try trainer.run(plan)
            while whole.completedSteps < whole.stepCount { _ = try whole.step() }
            results.append(Self.flat(whole.pairs))
            var parts = try trainer.run(plan)
            while parts.completedSteps < parts.stepCount {
                _ = try parts.step()
                _ = try parts.evaluate()
                parts = try trainer.run(plan, from: parts.snapshot())
            }
            #expect(Self.flat(parts.pairs) == results[0])
            #expect(parts.trainedTokenCount == whole.trainedTokenCount && whole.trainedTokenCount > 0)
        }
        #expect(results[0] == results[1])
    }

    @Test func aSnapshotOfAnotherRunIsRefused() throws {
        let fixture = try TrainingFixture(tiny: "llama")
        let examples = Self.examples(fixture.model, lengths: [17, 40])
        let run = try Self.run(fixture, Self.configuration(), .supervised(examples))
        let bytes = run.snapshot()
        var c = Self.configuration()
        c.learningRate = 0.5
        let other = TrainingPlan(configuration: c, training: .supervised(examples))
        #expect(throws: TrainingError.self) { try fixture.trainer().run(other, from: bytes) }
        let same = TrainingPlan(configuration: Self.configuration(), training: .supervised(examples))
        #expect(throws: TrainingError.self) { try fixture.trainer().run(same, from: Array(bytes.dropLast())) }
        #expect(throws: TrainingError.self) { try fixture.trainer().run(same, from: []) }
        #expect(try fixture.trainer().run(same, from: bytes).completedSteps == 0)
    }

    @Test func aRequestedInterruptionEndsTheStep() throws {
        let fixture = try TrainingFixture(tiny: "llama")
        let interruption = Interruption()
        let run = try fixture.trainer().run(
            TrainingPlan(configuration: Self.configuration(), training: .supervised(Self.examples(fixture.model, lengths: [17]))), interruption: interruption)
        let before = Self.flat(run.pairs)
        interruption.request()
        let error = #expect(throws: TrainingError.self) { try run.step() }
        #expect(error?.code == .interrupted)
        #expect(run.completedSteps == 0 && Self.flat(run.pairs) == before)
    }

    /// The processor's products of bfloat16 by each unit that it has against products in float32 of the same numbers, and against float32 throughout.
    @Test(arguments: models)
    func bfloat16IsCloseToFloat32(name: String) throws {
        let fixture = try TrainingFixture(tiny: name)
        let examples = TrainingExamples.supervised(Self.examples(fixture.model, lengths: [17, 40, 9]))
        let start = Self.pairs(fixture.model, rank: 3, seed: 5)
        var gradients: [[Float]] = []
        var losses: [Double] = []
        for (precision, unit) in [(TrainingConfiguration.Precision.float32, TrainingCompute.BFloat16Unit.tiles), (.bfloat16, .widened), (.bfloat16, .vectors), (.bfloat16, .tiles)] {
            var c = Self.configuration()
            c.precision = precision
            let run = try fixture.trainer(bfloat16: unit).run(TrainingPlan(configuration: c, training: examples, initial: start))
            losses.append(try run.step().loss)
            gradients.append(Self.flat(run.gradientPairs))
        }
        #expect(cosine(gradients[0], gradients[1]) > 0.99)
        #expect(abs(losses[1] - losses[0]) < max(0.03 * losses[0], 0.02))
        for unit in 2...3 {
            #expect(cosine(gradients[1], gradients[unit]) > 0.9999)
            #expect(abs(losses[unit] - losses[1]) < 1e-3 * losses[1])
        }
    }

    @Test func trainingLowersTheLoss() throws {
        let fixture = try TrainingFixture(tiny: "qwen3")
        let examples = TrainingExamples.supervised(Self.examples(fixture.model, lengths: [17, 12]))
        var c = Self.configuration()
        c.epochs = 40
        c.learningRate = 2e-2
        c.precision = .bfloat16
        let run = try fixture.trainer().run(TrainingPlan(configuration: c, training: examples, validation: examples))
        let before = try #require(try run.evaluate()).loss
        while run.completedSteps < run.stepCount { _ = try run.step() }
        let after = try #require(try run.evaluate())
        #expect(after.loss < 0.5 * before)
        #expect(after.accuracy > 0.5)
    }

    @Test func plansThatCannotBeTrainedAreRefused() throws {
        let fixture = try TrainingFixture(tiny: "llama")
        let example = Self.examples(fixture.model, lengths: [9])[0]
        let trainer = try fixture.trainer()
        func refusal(_ change: (inout TrainingPlan) -> Void) -> TrainingError? {
            var plan = TrainingPlan(configuration: Self.configuration(), training: .supervised([example]))
            change(&plan)
            do {
                _ = try trainer.run(plan)
                return nil
            } catch {
                return error
            }
        }
        #expect(refusal { _ in } == nil)
        #expect(refusal { $0.training = .supervised([]) }?.code == .invalidArgument)
        #expect(refusal { $0.configuration.rank = 0 }?.message.hasPrefix("rank: found 0") == true)
        #expect(refusal { $0.configuration.method = .preference(beta: 0.1) }?.code == .invalidArgument)
        #expect(refusal { $0.configuration.learningRate = .nan }?.code == .invalidArgument)
        #expect(refusal { $0.training = .supervised([TokenizedExample(tokens: [1, -1], isTrained: [false, true])]) }?.message.contains("vocabulary") == true)
        #expect(refusal { $0.training = .supervised([TokenizedExample(tokens: [1, 2], isTrained: [false, false])]) }?.message.contains("no trained token") == true)
    }
}
