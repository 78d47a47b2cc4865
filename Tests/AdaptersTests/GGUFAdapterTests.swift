import Adapters
import GGUF
import Kernels
import Modeling
import Testing

@Suite struct GGUFAdapterTests {
    private let base: ModelConfiguration

    init() throws { base = try tinyBase("llama") }

    /// A GGUF adapter in the making: q of both layers, rank 4.
    private struct Fixture {
        var values: [(String, GGUFValue)] = [
            ("general.architecture", .string("llama")), ("general.type", .string("adapter")), ("adapter.type", .string("lora")),
            ("adapter.lora.alpha", .float32(8)),
        ]
        var tensors: [(name: String, type: GGMLType, dimensions: [Int], bytes: [UInt8])] = []

        init(_ base: ModelConfiguration, rank: Int = 4) {
            let shape = base.shape(of: .q)
            for layer in 0..<base.layerCount {
                add("blk.\(layer).attn_q.weight.lora_a", [shape.columns, rank], 0.5)
                add("blk.\(layer).attn_q.weight.lora_b", [rank, shape.rows], Float(layer + 1))
            }
        }

        mutating func add(_ name: String, type: GGMLType = .f32, _ dimensions: [Int], _ value: Float = 1) {
            var bytes: [UInt8] = []
            TensorValues.append([Float](repeating: value, count: dimensions.reduce(1, *)), as: type, to: &bytes)
            tensors.append((name, type, dimensions, bytes))
        }

        mutating func set(_ key: String, _ value: GGUFValue?) {
            values.removeAll { $0.0 == key }
            if let value { values.append((key, value)) }
        }

        var bytes: [UInt8] {
            var writer = GGUFWriter()
            for (key, value) in values { writer.set(key, to: value) }
            for tensor in tensors { writer.add(tensor.name, type: tensor.type, dimensions: tensor.dimensions, bytes: tensor.bytes) }
            return writer.bytes()
        }
    }

    private func expect(_ code: AdapterError.Code, _ words: String..., from fixture: Fixture, sourceLocation: SourceLocation = #_sourceLocation) {
        for word in words {
            expectRefusal(code, word, sourceLocation: sourceLocation) { () throws(AdapterError) in _ = try GGUFAdapter.read(fixture.bytes, base: base) }
        }
    }

    @Test func anAdapterIsRead() throws {
        var fixture = Fixture(base)
        fixture.add("blk.0.attn_norm.weight", [base.hiddenSize])
        fixture.set("general.base_model.0.name", .string("some/base"))
        let content = try GGUFAdapter.read(fixture.bytes, base: base)
        #expect(content.pairs.map(\.layer) == [0, 1] && content.pairs.allSatisfy { $0.projection == .q && $0.rank == 4 && $0.scale == 2 })
        #expect(content.pairs[1].a == [Float](repeating: 0.5, count: 4 * base.hiddenSize))
        #expect(content.pairs[1].b == [Float](repeating: 2, count: 4 * base.shape(of: .q).rows))
        #expect(content.storage == .float32 && content.baseModelName == "some/base")
    }

    /// The scale that llama.cpp computes: alpha / rank, and 1 when there is no alpha.
    @Test func theScaleIsAlphaOverEachRank() throws {
        var fixture = Fixture(base, rank: 3)
        let shape = base.shape(of: .up)
        fixture.add("blk.0.ffn_up.weight.lora_a", [shape.columns, 16])
        fixture.add("blk.0.ffn_up.weight.lora_b", [16, shape.rows])
        for (alpha, expected) in [
            (GGUFValue.float32(8), [Float(8) / 3, 0.5, Float(8) / 3]), (.float32(0), [1, 1, 1]), (.uint32(16), [Float(16) / 3, 1, Float(16) / 3]),
        ] {
            fixture.set("adapter.lora.alpha", alpha)
            #expect(try GGUFAdapter.read(fixture.bytes, base: base).pairs.map(\.scale) == expected)
        }
        fixture.set("adapter.lora.alpha", nil)
        #expect(try GGUFAdapter.read(fixture.bytes, base: base).pairs.map(\.scale) == [1, 1, 1])
    }

    @Test func q8IsExpanded() throws {
        var fixture = Fixture(base)
        let block: [UInt8] = [0x00, 0x38] + (0..<32).map { UInt8(bitPattern: Int8($0 - 16)) }
        fixture.tensors[0].type = .q8_0
        fixture.tensors[0].bytes = (0..<4 * base.hiddenSize / 32).flatMap { _ in block }
        let content = try GGUFAdapter.read(fixture.bytes, base: base)
        #expect(content.pairs[0].a.prefix(32).elementsEqual((0..<32).map { Float($0 - 16) / 2 }))
        #expect(content.storage == .float32)
    }

    @Test func onesBeyondTheSecondDimensionSayNothing() throws {
        var fixture = Fixture(base)
        fixture.tensors[0].dimensions += [1, 1]
        let columns = base.hiddenSize
        #expect(try GGUFAdapter.read(fixture.bytes, base: base).pairs.count == 2)
        fixture.tensors[0].dimensions = [columns, 2, 2]
        expect(.unsupported, "'blk.0.attn_q.weight.lora_a'", "two dimensions", from: fixture)
    }

    @Test func metadataMustFit() {
        var fixture = Fixture(base)
        func refused(_ code: AdapterError.Code, _ key: String, _ value: GGUFValue?, _ word: String) {
            fixture = Fixture(base)
            fixture.set(key, value)
            expect(code, key, word, from: fixture)
        }
        refused(.wrongBase, "general.architecture", .string("qwen2"), "'qwen2'")
        refused(.wrongBase, "general.architecture", nil, "nothing")
        refused(.unreadable, "general.type", .string("model"), "'model'")
        refused(.unreadable, "general.type", nil, "nothing")
        refused(.unsupported, "adapter.type", .string("control_vector"), "'control_vector'")
        refused(.unsupported, "adapter.type", nil, "nothing")
        refused(.unsupported, "adapter.alora.invocation_tokens", .array(.uint32s([1])), "activated LoRA")
        refused(.unreadable, "adapter.lora.alpha", .float32(.nan), "finite")
        refused(.unreadable, "adapter.lora.alpha", .string("8"), "a number")
        refused(.unsupported, "adapter.lora.alpha", .float32(1e30), "1048576")
        refused(.unreadable, "general.type", .uint32(1), "a string")
    }

    @Test(arguments: [
        ("token_embd.weight.lora_a", "embeddings"), ("output.weight.lora_b", "output head"), ("blk.0.attn_q.weight", ".lora_a or .lora_b"),
        ("blk.0.attn_q.bias.lora_a", "expected"),
        ("blk.0.attn_q_norm.weight.lora_a", "expected"), ("blk.00.attn_q.weight.lora_a", "expected"), ("blk.x.attn_q.weight.lora_a", "expected"),
        ("attn_q.weight.lora_a", "expected"),
        ("rope_freqs", ".lora_a"), ("blk.0.ffn_gate_exps.weight.lora_a", "expected"), (".lora_a", "expected"),
    ])
    func otherTensorsAreRefused(name: String, word: String) {
        var fixture = Fixture(base)
        fixture.add(name, [base.hiddenSize, 4])
        expect(.unsupported, "'\(name)'", word, from: fixture)
    }

    @Test func tensorsMustFit() throws {
        let columns = base.hiddenSize
        var fixture = Fixture(base)
        fixture.tensors.removeLast()
        expect(.unreadable, "'blk.1.attn_q.weight.lora_a'", "other half", from: fixture)

        fixture = Fixture(base)
        fixture.add("blk.2.attn_q.weight.lora_a", [columns, 4])
        expect(.wrongBase, "'blk.2.attn_q.weight.lora_a'", "layers 0 to 1", from: fixture)

        fixture = Fixture(base)
        fixture.tensors[0].dimensions = [4, columns]
        expect(.wrongBase, "'blk.0.attn_q.weight.lora_a'", "transposed", from: fixture)

        fixture = Fixture(base)
        fixture.tensors.removeAll()
        fixture.add("blk.0.attn_q.weight.lora_a", [columns, 4096])
        expect(.unsupported, "'blk.0.attn_q.weight.lora_a'", "rank 4096", from: fixture)

        fixture = Fixture(base)
        fixture.tensors.removeAll()
        expect(.unreadable, "no adapter tensors", from: fixture)

        fixture = Fixture(base)
        fixture.tensors[0].type = .q4_0
        fixture.tensors[0].bytes = [UInt8](repeating: 0, count: 4 * columns / 32 * 18)
        expect(.unsupported, "'blk.0.attn_q.weight.lora_a'", "Q4_0", from: fixture)

        fixture = Fixture(base)
        fixture.tensors[3].bytes.replaceSubrange(40..<44, with: [0, 0, 0x80, 0x7F])
        expect(.unreadable, "'blk.1.attn_q.weight.lora_b'", "index 10", from: fixture)

        expectRefusal(.unreadable, "GGUF") { () throws(AdapterError) in _ = try GGUFAdapter.read([1, 2, 3, 4, 5], base: base) }
        let whole = Fixture(base).bytes
        for length in stride(from: 0, to: whole.count, by: 7) {
            #expect(throws: AdapterError.self) { try GGUFAdapter.read(Array(whole[..<length]), base: base) }
        }
    }

    /// The same bounds as for PEFT's files.
    @Test func magnitudesAreBounded() throws {
        var fixture = Fixture(base)
        fixture.tensors[0].bytes.replaceSubrange(40..<44, with: withUnsafeBytes(of: Float(-3e38)) { Array($0) })
        expect(.unreadable, "'blk.0.attn_q.weight.lora_a'", "3e+38", from: fixture)
        fixture = Fixture(base)
        for index in [2, 3] { fixture.tensors[index].bytes.replaceSubrange(0..<4, with: withUnsafeBytes(of: Float(1e19)) { Array($0) }) }
        expect(.unsupported, "'blk.1.attn_q.weight.lora_a'", "'blk.1.attn_q.weight.lora_b'", "1e+19", from: fixture)
        fixture.set("adapter.lora.alpha", .float32(1e-3))
        #expect(try GGUFAdapter.read(fixture.bytes, base: base).pairs[1].b[0] == 1e19)
    }

    // MARK: - What is written

    @Test(arguments: ["llama", "qwen2", "qwen3", "gemma3"], [AdapterContent.Storage.float32, .float16, .bfloat16])
    func equalScalesAreWrittenBitForBit(name: String, storage: AdapterContent.Storage) throws {
        let base = try tinyBase(name)
        for (rank, scale) in [(4, Float(2)), (3, 8 / Float(3)), (16, 0.1), (7, -5 / Float(7)), (8, 16 / Float(8).squareRoot())] {
            let content = randomContent(base, storage: storage, ranks: [rank], scales: [scale])
            expectSame(try GGUFAdapter.read(GGUFAdapter.write(content, base: base, name: "n"), base: base), content)
        }
    }

    /// Ranks that share an alpha need no folding either.
    @Test func oneAlphaServesSeveralRanks() throws {
        var content = randomContent(base, storage: .bfloat16, ranks: [2, 8, 3])
        for index in content.pairs.indices { content.pairs[index].scale = 8 / Float(content.pairs[index].rank) }
        expectSame(try GGUFAdapter.read(GGUFAdapter.write(content, base: base, name: "n"), base: base), content)
    }

    @Test func otherScalesAreFoldedIntoB() throws {
        let content = randomContent(base, storage: .float16, ranks: [4, 4, 6], scales: [2, 2, 2, 0.3, 0, -1])
        let found = try GGUFAdapter.read(GGUFAdapter.write(content, base: base, name: "n"), base: base)
        #expect(found.storage == .float32)
        var exact = 0
        for (a, b) in zip(found.pairs, content.pairs) {
            #expect(a.a == b.a && a.rank == b.rank)
            if a.scale == b.scale {
                #expect(a.b == b.b)
                exact += 1
            }
            for (x, y) in zip(a.b, b.b) { #expect(abs(x * a.scale - y * b.scale) <= abs(y * b.scale) * 0x1p-22) }
        }
        #expect(exact > 0 && exact < content.pairs.count)
    }

    /// A scale of zero must not become an alpha of zero, which means a scale of one.
    @Test func aScaleOfZeroStaysZero() throws {
        let content = randomContent(base, scales: [0])
        let found = try GGUFAdapter.read(GGUFAdapter.write(content, base: base, name: "n"), base: base)
        #expect(found.pairs.allSatisfy { pair in pair.b.allSatisfy { $0 * pair.scale == 0 } })
    }

    @Test func theFormatsAgree() throws {
        for name in ["llama", "qwen2", "qwen3", "gemma3"] {
            let base = try tinyBase(name), content = randomContent(base, scales: [0.75])
            let peft = PEFTAdapter.write(content, base: base, baseModelName: "b")
            let first = try PEFTAdapter.read(config: peft.config, weights: peft.weights, base: base)
            let second = try GGUFAdapter.read(GGUFAdapter.write(first, base: base, name: "n"), base: base)
            let again = PEFTAdapter.write(second, base: base, baseModelName: "b")
            #expect(again.config == peft.config && again.weights == peft.weights)
            expectSame(second, content)
        }
    }

    @Test func theHeaderSaysWhatItIs() throws {
        let header = try GGUFHeader(parsing: GGUFAdapter.write(randomContent(base, storage: .bfloat16), base: base, name: "my-adapter"))
        let metadata = header.metadata
        #expect(
            try metadata.string("general.architecture") == "llama" && metadata.string("general.type") == "adapter" && metadata.string("adapter.type") == "lora")
        #expect(metadata["adapter.lora.alpha"] == .float32(8) && metadata["general.file_type"] == .uint32(32))
        #expect(try metadata.string("general.name") == "my-adapter" && metadata.string("general.base_model.0.name") == "some/base")
        #expect(header.tensors.count == 14 * base.layerCount && header.tensors.allSatisfy { $0.type == .bf16 })
        #expect(header.tensors[0].name == "blk.0.attn_q.weight.lora_a" && header.tensors[0].dimensions == [base.hiddenSize, 4])
        #expect(header.tensors[1].dimensions == [4, base.shape(of: .q).rows])
    }
}
