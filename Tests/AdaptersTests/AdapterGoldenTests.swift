import Adapters
import FoundationEssentials
import GGUF
import Kernels
import Modeling
import TestSupport
import Testing

/// Adapters that PEFT has saved and llama.cpp's converter has converted (`Scripts/make_adapter_fixtures.py`), against the logits of transformers with PEFT.
@Suite struct AdapterGoldenTests {
    private struct Golden: Decodable {
        let model: String
        let tokens: [Int32]
        let positions: [Int]
        let logits: [[Float]]
    }

    private struct Fixture {
        let name: String
        let golden: Golden
        let model: LanguageModel
        let pool: ComputePool
        let config, weights: [UInt8]
        let folder: URL

        init(_ name: String) throws {
            let folder = AdapterGoldenTests.folder.appending(path: name)
            func bytes(_ file: String) throws -> [UInt8] { try [UInt8](Data(contentsOf: folder.appending(path: file))) }
            self.name = name
            self.folder = folder
            golden = try JSONDecoder().decode(Golden.self, from: Data(contentsOf: folder.appending(path: "expected.json")))
            pool = try ComputePool(threads: 2)
            model = try LanguageModel(file: GGUFFile(path: goldenFolder.appending(path: "tiny/\(golden.model).gguf").path), pool: pool)
            config = try bytes("adapter_config.json")
            weights = try bytes("adapter_model.safetensors")
        }

        /// What llama.cpp's converter made.
        func converted() throws -> [UInt8] { try [UInt8](Data(contentsOf: folder.appending(path: "adapter.gguf"))) }

        var base: ModelConfiguration { model.configuration }

        func content() throws -> AdapterContent { try PEFTAdapter.read(config: config, weights: weights, base: base) }

        /// The largest difference from the reference's logits.
        func distance(_ content: AdapterContent?) throws -> Float {
            let c = base, tokens = golden.tokens
            var adapters = AdapterSet.none
            if let content {
                let adapter = try Adapter(name: name, version: 1, digest: content.digest, configuration: c, numerics: .exact, pairs: content.pairs)
                adapters = AdapterSet([(adapter, 1)])
            }
            let cache = try KVCache(layers: c.layerCount, kvHeads: c.kvHeadCount, headDim: c.headDim, blockCount: 8, precision: .float32)
            let pass = try ForwardPass(
                model: model, cache: cache, variant: KernelVariant(), pool: pool, numerics: .exact, maximumRows: tokens.count, maximumLogitsRows: tokens.count)
            let count = pass.run([ForwardSegment(tokens: tokens, position: 0, blocks: [5, 2, 7, 0], adapters: adapters, logits: .all)])
            let found = pass.logits(of: 0..<count)
            var worst: Float = 0
            for (position, expected) in zip(golden.positions, golden.logits) {
                #expect(expected.count == c.vocabularySize)
                for (a, b) in zip(found[position], expected) { worst = max(worst, abs(a - b)) }
            }
            return worst
        }
    }

    private static let folder = goldenFolder.appending(path: "adapters")
    private static let names = converted + ["qwen2-patterns"]
    /// Those that llama.cpp's converter keeps all of: it drops rsLoRA and patterns of ranks and alphas.
    private static let converted = ["llama", "qwen2", "qwen3-bf16", "gemma3-some-layers"]

    @Test func theListsAreWhatIsThere() throws {
        let found = try FileManager.default.contentsOfDirectory(atPath: Self.folder.path)
        #expect(found.sorted() == Self.names.sorted())
        #expect(
            found.filter { FileManager.default.fileExists(atPath: Self.folder.appending(path: "\($0)/adapter.gguf").path) }.sorted() == Self.converted.sorted())
    }

    @Test(arguments: names) func adaptersGivePEFTsLogits(name: String) throws {
        let fixture = try Fixture(name), content = try fixture.content()
        #expect(try fixture.distance(nil) > 1, "the adapter must matter")
        let worst = try fixture.distance(content)
        #expect(worst < 1e-4, "\(name): largest difference \(worst)")
    }

    /// llama.cpp's converter and this reader agree on every bit.
    @Test(arguments: converted) func theConvertersFileIsTheSameAdapter(name: String) throws {
        let fixture = try Fixture(name)
        let found = try GGUFAdapter.read(fixture.converted(), base: fixture.base), expected = try fixture.content()
        #expect(found.pairs == expected.pairs && found.storage == expected.storage && found.digest == expected.digest)
        let worst = try fixture.distance(found)
        #expect(worst < 1e-4, "\(name): largest difference \(worst)")
    }

    @Test(arguments: names) func exportsGiveTheSameLogits(name: String) throws {
        let fixture = try Fixture(name), content = try fixture.content(), base = fixture.base
        let peft = PEFTAdapter.write(content, base: base, baseModelName: "base")
        expectSame(try PEFTAdapter.read(config: peft.config, weights: peft.weights, base: base), content)
        let gguf = GGUFAdapter.write(content, base: base, name: name)
        let worst = try fixture.distance(try GGUFAdapter.read(gguf, base: base))
        #expect(worst < 1e-4, "\(name): largest difference \(worst)")
        // For `make_adapter_fixtures.py --verify`, which gives them to PEFT and to gguf-py.
        if let folder = ProcessInfo.processInfo.environment["GRAFT_EXPORT_ADAPTERS"] {
            let folder = URL(filePath: folder).appending(path: name)
            try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
            try Data(peft.config).write(to: folder.appending(path: "adapter_config.json"))
            try Data(peft.weights).write(to: folder.appending(path: "adapter_model.safetensors"))
            try Data(gguf).write(to: folder.appending(path: "adapter.gguf"))
        }
    }

    /// The mistake that loads cleanly: without interleaving, llama's answers are wrong, and the others' are right.
    @Test(arguments: names) func theRowOrderMatters(name: String) throws {
        let fixture = try Fixture(name)
        let plain = try PEFTAdapter.read(config: fixture.config, weights: fixture.weights, base: fixture.base, reordersRows: false)
        let worst = try fixture.distance(plain)
        #expect(name == "llama" ? worst > 0.1 : worst < 1e-4, "\(name): largest difference \(worst)")
    }
}
