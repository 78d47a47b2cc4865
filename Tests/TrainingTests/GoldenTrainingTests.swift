import Adapters
import FoundationEssentials
import GGUF
import JSON
import Kernels
import Modeling
import TestSupport
import Testing
import Training

/// Losses and gradients against PyTorch and PEFT on tiny models of each architecture (`Scripts/make_training_fixtures.py`).
struct TinyGoldenTrainingTests {
    struct Golden: Decodable {
        struct Example: Decodable {
            let tokens: [Int32]
            let trained: [Int]
        }

        struct Supervised: Decodable {
            let losses: [Double]
        }

        struct Preference: Decodable {
            let beta: Double
            let losses: [Double]
        }

        let model: String
        let examples: [Example]
        let learning_rate: Double
        let supervised: Supervised
        let preference: Preference
    }

    static let names = ["llama", "qwen2", "qwen2-patterns", "qwen3-bf16", "gemma3-some-layers"]

    @Test(arguments: names, TrainingConfiguration.Precision.allCases)
    func lossesAndGradientsAreThoseOfPyTorch(name: String, precision: TrainingConfiguration.Precision) throws {
        let folder = goldenFolder.appending(path: "adapters/\(name)")
        func bytes(_ file: String) throws -> [UInt8] { try [UInt8](Data(contentsOf: folder.appending(path: file))) }
        let golden = try JSONDecoder().decode(Golden.self, from: Data(bytes("training.json")))
        let fixture = try TrainingFixture(tiny: golden.model)
        func pairs(_ file: String) throws -> [LowRankPair] {
            try PEFTAdapter.read(config: bytes("adapter_config.json"), weights: bytes(file), base: fixture.model.configuration).pairs
        }
        let initial = try pairs("adapter_model.safetensors")
        let examples = golden.examples.map { TokenizedExample(tokens: $0.tokens, isTrained: $0.trained.map { $0 == 1 }) }
        for (label, losses) in [("supervised", golden.supervised.losses), ("preference", golden.preference.losses)] {
            var c = GoldenTrainingTests.configuration(precision, steps: losses.count, batch: examples.count)
            c.learningRate = golden.learning_rate
            var data = TrainingExamples.supervised(examples)
            if label == "preference" {
                c.method = .preference(beta: golden.preference.beta)
                data = .preference([.init(chosen: examples[0], rejected: examples[1]), .init(chosen: examples[2], rejected: examples[3])])
            }
            let run = try fixture.trainer().run(TrainingPlan(configuration: c, training: data, initial: initial))
            if label == "preference" { try run.setReference(to: withoutEffect(initial)) }
            for (step, expected) in losses.enumerated() {
                let found = try run.step().loss
                let bound = precision == .float32 ? (step == 0 ? 1e-4 : max(0.005 * expected, 1e-3)) : max(0.03 * expected, 0.02)
                #expect(abs(found - expected) <= bound, "\(name), \(label), step \(step): loss \(found), expected \(expected)")
                guard step == 0 else { continue }
                for (mine, theirs) in zip(run.gradientPairs, try pairs("\(label)_gradients.safetensors")) {
                    #expect(mine.layer == theirs.layer && mine.projection == theirs.projection)
                    for (a, b) in [(mine.a, theirs.a), (mine.b, theirs.b)] {
                        let c = cosine(a, b), ratio = norm(a) / norm(b)
                        #expect(c > (precision == .float32 ? 0.999 : 0.98), "\(name), \(label), \(mine.layer) \(mine.projection): cosine \(c)")
                        #expect(abs(ratio - 1) < (precision == .float32 ? 0.01 : 0.1), "\(name), \(label), \(mine.layer) \(mine.projection): norms \(ratio)")
                    }
                }
            }
        }
    }
}

/// Pairs that add nothing: the bare model.
func withoutEffect(_ pairs: [LowRankPair]) -> [LowRankPair] {
    pairs.map { pair in
        var pair = pair
        pair.b = Array(repeating: 0, count: pair.b.count)
        return pair
    }
}

/// The same for SmolLM2 and whole layers. These reference files are large; the folder that GRAFT_TRAINING_GOLDEN names holds them (`expected.json`, `init/`,
/// `grads_step0_*.safetensors`).
struct GoldenTrainingTests {
    struct Reference {
        let fixture: TrainingFixture
        let initial: [LowRankPair]
        let expected: JSONObject
        let folder: URL

        init?() throws {
            guard let path = ProcessInfo.processInfo.environment["GRAFT_TRAINING_GOLDEN"], let model = testModelPath(smolLM2FileName) else {
                print("skipped: GRAFT_TRAINING_GOLDEN names no folder with PyTorch's losses and gradients")
                return nil
            }
            folder = URL(filePath: path)
            fixture = try TrainingFixture(path: model)
            initial = try PEFTAdapter.read(
                config: Array(Data(contentsOf: folder.appending(path: "init/adapter_config.json"))),
                weights: Array(Data(contentsOf: folder.appending(path: "init/adapter_model.safetensors"))), base: fixture.model.configuration
            ).pairs
            expected = try JSONValue(parsing: Array(Data(contentsOf: folder.appending(path: "expected.json")))).object!
        }

        func numbers(_ part: String, _ name: String) -> [Double] { expected[part]!.object![name]!.array!.map { $0.number! } }

        static func example(_ json: JSONValue) -> TokenizedExample {
            TokenizedExample(
                tokens: json.object!["ids"]!.array!.map { Int32($0.number!) }, isTrained: json.object!["loss_mask"]!.array!.map { $0.number! == 1 })
        }

        /// Gradients as PEFT names and orders them.
        func gradients(_ run: any TrainingRunInspection) throws -> [String: [Float]] {
            let content = AdapterContent(pairs: run.gradientPairs, storage: .float32, baseModelName: nil)
            return try Self.tensors(PEFTAdapter.write(content, base: fixture.model.configuration, baseModelName: "base").weights)
        }

        static func tensors(_ bytes: [UInt8]) throws -> [String: [Float]] {
            let file = try SafetensorsFile(parsing: bytes)
            return Dictionary(
                uniqueKeysWithValues: file.tensors.map {
                    ($0.name.replacing("base_model.model.", with: "", maxReplacements: 1), TensorValues.decode(bytes, at: $0.range, as: .f32))
                })
        }

        func check(_ run: any TrainingRunInspection, part: String, file: String, leastCosine: Double, normTolerance: Double) throws {
            let found = try gradients(run)
            for (name, value) in expected[part]!.object!["grad_norms_step0"]!.object! {
                let expected = value.number!
                #expect(abs(norm(found[name]!) - expected) <= normTolerance * expected, "\(part) \(name): norm \(norm(found[name]!)), expected \(expected)")
            }
            var least = 1.0
            for (name, values) in try Self.tensors(Array(Data(contentsOf: folder.appending(path: file)))) {
                let c = cosine(values, found[name]!)
                least = min(least, c)
                #expect(c > leastCosine, "\(part) \(name): cosine \(c)")
            }
            print("\(part): least cosine of a gradient \(least)")
        }
    }

    static func configuration(_ precision: TrainingConfiguration.Precision, steps: Int, batch: Int) -> TrainingConfiguration {
        var c = TrainingConfiguration()
        c.precision = precision
        c.schedule = .constant
        c.warmupRatio = 0
        c.learningRate = 1e-3
        c.maximumGradientNorm = 0
        c.epochs = steps
        c.batchSize = batch
        return c
    }

    @Test(arguments: TrainingConfiguration.Precision.allCases)
    func supervisedLossesAndGradients(precision: TrainingConfiguration.Precision) throws {
        guard let reference = try Reference() else { return }
        let examples = reference.expected["sft"]!.object!["examples"]!.array!.map(Reference.example)
        let losses = reference.numbers("sft", "losses")
        let run = try reference.fixture.trainer().run(
            TrainingPlan(
                configuration: Self.configuration(precision, steps: losses.count, batch: examples.count), training: .supervised(examples), initial: reference.initial))
        for (step, expected) in losses.enumerated() {
            let found = try run.step()
            let bound = precision == .float32 ? (step == 0 ? 1e-4 : max(0.005 * expected, 1e-3)) : max(0.03 * expected, 0.02)
            #expect(abs(found.loss - expected) <= bound, "step \(step): loss \(found.loss), expected \(expected)")
            print("\(precision) step \(step): loss \(found.loss), expected \(expected)")
            if step == 0 {
                try reference.check(
                    run, part: "sft", file: "grads_step0_sft.safetensors", leastCosine: precision == .float32 ? 0.999 : 0.99,
                    normTolerance: precision == .float32 ? 0.01 : 0.2)
            }
        }
    }

    @Test(arguments: TrainingConfiguration.Precision.allCases)
    func preferenceLossesAndGradients(precision: TrainingConfiguration.Precision) throws {
        guard let reference = try Reference() else { return }
        let part = reference.expected["dpo"]!.object!
        let pairs = part["pairs"]!.array!.map {
            PreferencePair(chosen: Reference.example($0.object!["chosen"]!), rejected: Reference.example($0.object!["rejected"]!))
        }
        let losses = reference.numbers("dpo", "losses")
        var configuration = Self.configuration(precision, steps: losses.count, batch: pairs.count)
        configuration.method = .preference(beta: part["beta"]!.number!)
        let run = try reference.fixture.trainer().run(TrainingPlan(configuration: configuration, training: .preference(pairs), initial: reference.initial))
        // The reference script compares with the bare model, not with the policy at step 0.
        try run.setReference(to: withoutEffect(reference.initial))
        for (step, expected) in losses.enumerated() {
            let found = try run.step()
            let bound = precision == .float32 ? (step == 0 ? 1e-4 : max(0.005 * expected, 1e-3)) : max(0.03 * expected, 0.02)
            #expect(abs(found.loss - expected) <= bound, "step \(step): loss \(found.loss), expected \(expected)")
            print("\(precision) DPO step \(step): loss \(found.loss), expected \(expected)")
            if step == 0 {
                try reference.check(
                    run, part: "dpo", file: "grads_step0_dpo.safetensors", leastCosine: precision == .float32 ? 0.999 : 0.99,
                    normTolerance: precision == .float32 ? 0.01 : 0.2)
            }
        }
    }
}
