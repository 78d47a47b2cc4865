import Adapters
import FoundationEssentials
import GGUF
import Kernels
import Modeling
import TestSupport
import Testing
import Tokenization

#if canImport(Glibc)
import Glibc
#endif

/// What 8-bit activations cost: fast mode against exact mode on real text, position by position.
struct FastModeTests {
    /// Log-probabilities of whole rows, in chunks of one context window each.
    static func compare(
        _ model: LanguageModel, _ ids: [Int32], pool: ComputePool, adapters: (Numerics) throws -> AdapterSet, body: (Int32, UnsafeMutableBufferPointer<Float>, UnsafeMutableBufferPointer<Float>) -> Void
    ) throws {
        let c = model.configuration, window = 512, rows = 64
        var passes: [ForwardPass] = []
        for numerics in [Numerics.exact, .fast] {
            let cache = try KVCache(
                layers: c.layerCount, kvHeads: c.kvHeadCount, headDim: c.headDim, blockCount: window / KVCache.blockTokens, precision: numerics == .exact ? .float32 : .float16)
            passes.append(
                try ForwardPass(model: model, cache: cache, variant: KernelVariant(), pool: pool, numerics: numerics, maximumRows: window, maximumLogitsRows: rows))
        }
        let sets = [try adapters(.exact), try adapters(.fast)]
        for start in stride(from: 0, to: ids.count - 1, by: window) {
            let chunk = Array(ids[start..<min(start + window, ids.count)])
            for (pass, adapters) in zip(passes, sets) {
                _ = pass.run([
                    ForwardSegment(tokens: chunk, position: 0, blocks: Array(0..<Int32(window / KVCache.blockTokens)), adapters: adapters, logits: .all)
                ])
            }
            for first in stride(from: 0, to: chunk.count, by: rows) {
                let range = first..<min(first + rows, chunk.count)
                let exact = passes[0].logits(of: range), fast = passes[1].logits(of: range)
                for i in range where start + i + 1 < ids.count && i + 1 < chunk.count {
                    body(chunk[i + 1], exact[i - first], fast[i - first])
                }
            }
        }
    }

    /// ln Σ exp
    static func logSum(_ row: UnsafeMutableBufferPointer<Float>) -> Double {
        let largest = row.max()!
        return Double(largest) + log(row.reduce(0.0) { $0 + exp(Double($1 - largest)) })
    }

    static let models = [
        smolLM2FileName, "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf", "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf", "gemma-3-270m-q4_k_m.gguf",
    ]

    @Test(arguments: models)
    func fastModeStaysWithinItsBounds(name: String) throws {
        try FastModeTests.check(name, "bare") { _, _ in .none }
    }

    /// 8-bit adapters cost no more than 8-bit activations do: the same bounds.
    @Test func adaptersStayWithinTheSameBounds() throws {
        try FastModeTests.check(smolLM2FileName, "a random adapter") { c, numerics in
            AdapterSet([(try randomAdapter(c, "random", seed: 3, rank: 16, strength: 0.03, numerics: numerics), 1)])
        }
    }

    /// Trained adapters are not kept in the repository: PEFT directories in `Models/adapters/<model file>/` are tested when they are there.
    @Test(arguments: models)
    func trainedAdaptersStayWithinTheSameBounds(name: String) throws {
        guard testModelPath(name) != nil else { return }
        let folder = repositoryRoot.appending(path: "Models/adapters/\(name)")
        for adapter in (try? FileManager.default.contentsOfDirectory(at: folder, includingPropertiesForKeys: nil)) ?? [] {
            let config = [UInt8](try Data(contentsOf: adapter.appending(path: "adapter_config.json")))
            let weights = [UInt8](try Data(contentsOf: adapter.appending(path: "adapter_model.safetensors")))
            try FastModeTests.check(name, adapter.lastPathComponent) { c, numerics in
                let content = try PEFTAdapter.read(config: config, weights: weights, base: c)
                return AdapterSet([(try Adapter(name: "trained", version: 1, digest: content.digest, configuration: c, numerics: numerics, pairs: content.pairs), 1)])
            }
        }
    }

    static func check(_ name: String, _ label: String, adapters: (ModelConfiguration, Numerics) throws -> AdapterSet) throws {
        guard let path = testModelPath(name) else { return }
        let pool = try ComputePool(threads: 2)
        let file = try GGUFFile(path: path)
        let model = try LanguageModel(file: file, pool: pool), tokenizer = try Tokenizer(metadata: file.metadata)
        let text = try String(decoding: Data(contentsOf: goldenFolder.appending(path: "text/evaluation.txt")), as: UTF8.self)
        let ids = Array(tokenizer.encode(text, addSpecial: true, parseSpecial: false).prefix(2560))
        var positions = 0, agreed = 0
        var divergence = 0.0, exactLoss = 0.0, fastLoss = 0.0
        try FastModeTests.compare(model, ids, pool: pool, adapters: { try adapters(model.configuration, $0) }) { next, exact, fast in
            let exactSum = FastModeTests.logSum(exact), fastSum = FastModeTests.logSum(fast)
            var kl = 0.0, best = 0, fastBest = 0
            for token in exact.indices {
                let p = Double(exact[token]) - exactSum
                kl += exp(p) * (p - (Double(fast[token]) - fastSum))
                if exact[token] > exact[best] { best = token }
                if fast[token] > fast[fastBest] { fastBest = token }
            }
            positions += 1
            divergence += kl
            agreed += best == fastBest ? 1 : 0
            exactLoss += exactSum - Double(exact[Int(next)])
            fastLoss += fastSum - Double(fast[Int(next)])
        }
        let meanKL = divergence / Double(positions), agreement = Double(agreed) / Double(positions)
        let perplexities = (exp(exactLoss / Double(positions)), exp(fastLoss / Double(positions)))
        print("\(name), \(label): \(positions) positions, mean KL \(meanKL), top-1 agreement \(agreement), perplexity \(perplexities.1) against \(perplexities.0) exact")
        #expect(positions >= 2000)
        #expect(meanKL <= 0.01)
        #expect(agreement >= 0.94)
        #expect(abs(perplexities.1 / perplexities.0 - 1) < 0.01)
    }
}
