import FoundationEssentials
import GGUF
import Kernels
import Modeling
import Testing

/// Random models of every architecture and tensor type, written by `Scripts/make_tiny_models.py`, against transformers in float32.
struct TinyModelTests {
    struct Golden: Decodable {
        let tokens: [Int32]
        let positions: [Int]
        let logits: [[Float]]
    }

    static let folder = "\(#filePath)".split(separator: "/").dropLast(2).reduce("") { $0 + "/" + $1 } + "/Golden/tiny"
    static let names = [
        "llama", "llama3", "mistral", "qwen2", "qwen3", "gemma3", "gemma3-scaled", "llama-mixed", "llama-f16", "llama-bf16", "llama-q8_0", "llama-q4_0",
        "llama-q4_1", "llama-q5_0", "llama-q5_1", "llama-q2_k", "llama-q3_k", "llama-q4_k", "llama-q5_k", "llama-q6_k",
    ]

    static func golden(_ name: String) throws -> Golden {
        try JSONDecoder().decode(Golden.self, from: Data(contentsOf: URL(filePath: "\(folder)/\(name).json")))
    }

    static func model(_ name: String, pool: ComputePool) throws -> LanguageModel {
        try LanguageModel(file: GGUFFile(path: "\(folder)/\(name).gguf"), pool: pool)
    }

    static func logits(_ model: LanguageModel, _ tokens: [Int32], numerics: Numerics, variant: KernelVariant, pool: ComputePool) throws -> [[Float]] {
        let c = model.configuration
        let cache = try KVCache(
            layers: c.layerCount, kvHeads: c.kvHeadCount, headDim: c.headDim, blockCount: 8, precision: numerics == .exact ? .float32 : .float16)
        let pass = try ForwardPass(
            model: model, cache: cache, variant: variant, pool: pool, numerics: numerics, maximumRows: tokens.count, maximumLogitsRows: tokens.count)
        let count = pass.run([ForwardSegment(tokens: tokens, position: 0, blocks: [5, 2, 7, 0], logits: .all)])
        let result = pass.logits(of: 0..<count)
        return (0..<result.count).map { Array(result[$0]) }
    }

    @Test(arguments: names)
    func exactModeGivesTransformersLogits(name: String) throws {
        let pool = try ComputePool(threads: 2)
        let golden = try TinyModelTests.golden(name)
        let model = try TinyModelTests.model(name, pool: pool)
        let found = try TinyModelTests.logits(model, golden.tokens, numerics: .exact, variant: KernelVariant(), pool: pool)
        var worst: Float = 0
        for (position, expected) in zip(golden.positions, golden.logits) {
            #expect(expected.count == model.configuration.vocabularySize)
            for (a, b) in zip(found[position], expected) { worst = max(worst, abs(a - b)) }
        }
        #expect(worst < 1e-4, "\(name): largest difference \(worst)")
    }
}
