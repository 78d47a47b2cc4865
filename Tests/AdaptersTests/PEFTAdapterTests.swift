import Adapters
import GGUF
import JSON
import Kernels
import Modeling
import Testing

@Suite struct PEFTAdapterTests {
    private let base: ModelConfiguration, llama: ModelConfiguration

    init() throws {
        base = try tinyBase("qwen2")
        llama = try tinyBase("llama")
    }

    // MARK: - What is read

    @Test func anAdapterIsRead() throws {
        let fixture = PEFTFixture(base), content = try fixture.read()
        #expect(content.pairs.map(\.layer) == [0, 0, 1, 1])
        #expect(content.pairs.map(\.projection) == [.q, .down, .q, .down])
        #expect(content.pairs.allSatisfy { $0.scale == 2 && $0.rank == 4 })
        #expect(content.pairs[3].a == fixture["layers.1.mlp.down_proj.lora_A.weight"].values)
        #expect(content.pairs[3].b == fixture["layers.1.mlp.down_proj.lora_B.weight"].values)
        #expect(content.storage == .float32 && content.baseModelName == "some/base" && content.maximumRank == 4)
    }

    /// An independent statement of the converter's rule: row 2j + p of a head is row p · d/2 + j.
    @Test func rowsOfQAndKAreInterleavedForLlamaAlone() throws {
        for (base, moves) in [(llama, true), (base, false)] {
            var fixture = PEFTFixture(base, projections: [.q, .k, .v, .o])
            fixture.config["target_modules"] = ["q_proj", "k_proj", "v_proj", "o_proj"]
            let content = try fixture.read(), d = base.headDim
            for pair in content.pairs {
                let stored = fixture["layers.\(pair.layer).\(PEFTFixture.names[pair.projection.rawValue]).lora_B.weight"].values
                for row in 0..<base.shape(of: pair.projection).rows {
                    let isMoved = moves && (pair.projection == .q || pair.projection == .k)
                    let head = row / d, source = isMoved ? head * d + row % d % 2 * (d / 2) + row % d / 2 : row
                    #expect(pair.b[row * 4..<row * 4 + 4].elementsEqual(stored[source * 4..<source * 4 + 4]))
                }
                #expect(pair.a == fixture["layers.\(pair.layer).\(PEFTFixture.names[pair.projection.rawValue]).lora_A.weight"].values)
            }
            let plain = try PEFTAdapter.read(
                config: fixture.configBytes, weights: SafetensorsWriter.bytes(of: fixture.tensors), base: base, reordersRows: false)
            #expect((plain.pairs == content.pairs) == !moves)
        }
    }

    @Test func theTwoRowOrdersAreInverse() {
        var random = RandomFloats(state: 4)
        for (headDim, width, heads) in [(16, 4, 3), (2, 1, 1), (64, 3, 2)] {
            let rows = (0..<headDim * width * heads).map { _ in random.fine() }
            let moved = RotaryRows.interleaved(rows, width: width, headDim: headDim)
            #expect(RotaryRows.halves(moved, width: width, headDim: headDim) == rows)
            #expect((moved == rows) == (headDim == 2))
        }
    }

    @Test func adapterNamesInKeysAreAccepted() throws {
        var fixture = PEFTFixture(base)
        for index in fixture.tensors.indices {
            fixture.tensors[index].name = String(fixture.tensors[index].name.dropLast("weight".count)) + "default.weight"
        }
        #expect(try fixture.read().pairs == PEFTFixture(base).read().pairs)
    }

    @Test(arguments: ["model.language_model", "language_model.model"]) func gemmaHasTwoMorePaths(stem: String) throws {
        func fixture(_ base: ModelConfiguration) -> PEFTFixture {
            var fixture = PEFTFixture(base)
            for index in fixture.tensors.indices {
                let rest = fixture.tensors[index].name.dropFirst("base_model.model.model".count)
                fixture.tensors[index].name = "base_model.model.\(stem)\(rest)"
            }
            fixture.config["target_modules"] = .string("\(stem.split(separator: ".").joined(separator: "\\."))\\.layers\\.\\d+\\..*\\.(q|down)_proj")
            return fixture
        }
        let gemma = try tinyBase("gemma3")
        #expect(try fixture(gemma).read().pairs == PEFTFixture(gemma).read().pairs)
        expectRefusal(.unsupported, "'base_model.model.\(stem).layers.") { () throws(AdapterError) in _ = try fixture(base).read() }
    }

    @Test(arguments: [
        (JSONValue.integer(8), false, Float(2)), (.number(6.5), false, 1.625), (.integer(3), true, 1.5), (.integer(0), false, 0), (.integer(-4), false, -1),
    ])
    func theScaleIsAlphaOverRankOrItsRoot(alpha: JSONValue, isRankStabilized: Bool, scale: Float) throws {
        var fixture = PEFTFixture(base)
        fixture.config["lora_alpha"] = alpha
        fixture.config["use_rslora"] = .bool(isRankStabilized)
        #expect(try fixture.read().pairs.allSatisfy { $0.scale == scale })
    }

    @Test func patternsGiveRanksAndAlphas() throws {
        var fixture = PEFTFixture(base)
        for half in ["lora_A", "lora_B"] {
            let name = "layers.1.self_attn.q_proj.\(half).weight", old = fixture[name]
            let shape = half == "lora_A" ? [2, old.shape[1]] : [old.shape[0], 2]
            fixture[name] = .init(name: old.name, type: .f32, shape: shape, values: Array(old.values.prefix(shape[0] * shape[1])))
        }
        fixture.config["rank_pattern"] = [#"layers\.1\.self_attn\.q_proj"#: 2]
        // The first that matches counts, and a key that matches only inside of a name does not.
        fixture.config["alpha_pattern"] = ["proj": 100, "wn_proj": 100, "down_proj": 16, "1.mlp.down_proj": 100, "^model.layers.0.self_attn.q_proj": 1]
        let content = try fixture.read()
        #expect(content.pairs.map(\.rank) == [4, 4, 2, 4])
        #expect(content.pairs.map(\.scale) == [0.25, 4, 4, 4])
    }

    @Test func storageIsWhatAllTensorsShare() throws {
        for (type, storage) in [(GGMLType.f32, AdapterContent.Storage.float32), (.f16, .float16), (.bf16, .bfloat16)] {
            var fixture = PEFTFixture(base)
            for index in fixture.tensors.indices { fixture.tensors[index].type = type }
            let content = try fixture.read()
            #expect(content.storage == storage)
            #expect(try content.pairs == PEFTFixture(base).read().pairs)
            fixture.tensors[0].type = type == .f16 ? .bf16 : .f16
            #expect(try fixture.read().storage == .float32)
        }
    }

    @Test func harmlessSettingsPass() throws {
        var fixture = PEFTFixture(base)
        let harmless: [(String, JSONValue)] = [
            ("peft_version", "9.9"), ("revision", "main"), ("auto_mapping", ["a": "b"]), ("task_type", "CAUSAL_LM"), ("inference_mode", true),
            ("lora_dropout", 0.1),
            ("megatron_core", "megatron.core"), ("megatron_config", .null), ("loftq_config", [:]), ("eva_config", .null), ("qalora_group_size", 16),
            ("use_dora", false), ("some_future_flag", false), ("some_future_list", []), ("some_future_name", ""), ("some_future_config", .null),
            ("modules_to_save", .null), ("layers_pattern", .null), ("exclude_modules", .null), ("init_lora_weights", "gaussian"), ("fan_in_fan_out", false),
            ("bias", "none"), ("target_parameters", []), ("rank_pattern", .null), ("alpha_pattern", [:]), ("use_rslora", .null), ("ensure_weight_tying", false),
        ]
        for (key, value) in harmless { fixture.config[key] = value }
        #expect(try fixture.read().pairs == PEFTFixture(base).read().pairs)
        for value: JSONValue in [true, false, "orthogonal", .null] {
            fixture.config["init_lora_weights"] = value
            #expect(throws: Never.self) { try fixture.read() }
        }
    }

    // MARK: - Targets

    @Test(
        arguments: [
            [.array(["q_proj", "down_proj"])], [.array(["self_attn.q_proj", "mlp.down_proj", "c_attn"])],
            [.array(["model.layers.0.self_attn.q_proj", "layers.1.self_attn.q_proj", "0.mlp.down_proj", "model.layers.1.mlp.down_proj"])],
            [.string(#".*\.(q|down)_proj"#)], [.string(#"^model\.layers\.\d+\.(self_attn\.q_proj|mlp\.down_proj)$"#)],
            [.array(["q_proj", "k_proj", "down_proj"]), .array(["k_proj"])], [.string(".*(q|k|down)_proj"), .string(".*k_proj")],
            [.string(".*"), .string(".*(k|v|o|gate|up)_proj|lm_head|.*tokens")],
        ] as [[JSONValue]])
    func targetsThatAgreeAreAccepted(targets: [JSONValue]) throws {
        var fixture = PEFTFixture(base)
        fixture.config["target_modules"] = targets[0]
        if targets.count > 1 { fixture.config["exclude_modules"] = targets[1] }
        #expect(try fixture.read().pairs.count == 4)
    }

    @Test func allLinearIsEveryProjection() throws {
        var fixture = PEFTFixture(base, projections: Projection.allCases)
        fixture.config["target_modules"] = "all-linear"
        #expect(try fixture.read().pairs.count == 7 * base.layerCount)
        fixture.tensors.removeLast(2)
        expectRefusal(.unreadable, "'model.layers.1.mlp.down_proj'") { () throws(AdapterError) in _ = try fixture.read() }
    }

    @Test func someLayersAreChosen() throws {
        var fixture = PEFTFixture(base, layers: 1..<2)
        for layers: JSONValue in [1, [1], [1, 7]] {
            fixture.config["layers_to_transform"] = layers
            fixture.config["layers_pattern"] = .null
            #expect(try fixture.read().pairs.map(\.layer) == [1, 1])
            fixture.config["layers_pattern"] = "layers"
            #expect(try fixture.read().pairs.count == 2)
            fixture.config["layers_pattern"] = ["h", "layers"]
            #expect(try fixture.read().pairs.count == 2)
        }
        fixture.config["layers_pattern"] = "blocks"
        expectRefusal(.unreadable, "'model.layers.1.self_attn.q_proj'") { () throws(AdapterError) in _ = try fixture.read() }
        fixture.config["layers_pattern"] = .null
        fixture.config["layers_to_transform"] = [0]
        expectRefusal(.unreadable, "'model.layers.0.self_attn.q_proj'", "no tensors") { () throws(AdapterError) in _ = try fixture.read() }
        fixture.config["layers_to_transform"] = 1
        fixture.config["target_modules"] = ".*(q|down)_proj"
        expectRefusal(.unreadable, "layers_to_transform") { () throws(AdapterError) in _ = try fixture.read() }
    }

    @Test func targetsAndTensorsMustAgree() {
        var fixture = PEFTFixture(base)
        func refused(_ code: AdapterError.Code, _ word: String, _ targets: JSONValue) {
            fixture.config["target_modules"] = targets
            expectRefusal(code, word, "target_modules") { () throws(AdapterError) in _ = try fixture.read() }
        }
        refused(.unreadable, "'model.layers.0.mlp.down_proj'", ["q_proj"])
        refused(.unreadable, "'model.layers.0.self_attn.q_proj'", ["proj", "down_proj"])
        refused(.unreadable, "'model.layers.0.self_attn.v_proj'", ["q_proj", "down_proj", "v_proj"])
        refused(.unreadable, "'model.layers.0.self_attn.k_proj'", ".*proj")
        refused(.unreadable, "'model.layers.1.self_attn.q_proj'", #".*down_proj|.*\.0\..*q_proj"#)
        refused(.unsupported, "'lm_head'", ["q_proj", "down_proj", "lm_head"])
        refused(.unsupported, "'model.embed_tokens'", ["q_proj", "down_proj", "embed_tokens"])
        refused(.unsupported, "'lm_head'", ".*")
        refused(.unreadable, "null", .null)
        refused(.unreadable, "found 1", [1])
        refused(.unsupported, "(?<", "(?<=a)b")
        fixture.config["target_modules"] = ["q_proj", "down_proj"]
        fixture.config["exclude_modules"] = ["0.mlp.down_proj"]
        expectRefusal(.unreadable, "'model.layers.0.mlp.down_proj'") { () throws(AdapterError) in _ = try fixture.read() }
    }

    @Test func manyHostilePatternsEndSoon() throws {
        var fixture = PEFTFixture(base, projections: Projection.allCases)
        fixture.config["target_modules"] = "all-linear"
        fixture.config["rank_pattern"] = .object(JSONObject((0..<280).map { ("((a|b|.){0,9}){0,9}x\($0)", .integer(4)) }))
        expectRefusal(.unsupported, "rank_pattern", "too many steps") { () throws(AdapterError) in _ = try fixture.read() }
    }

    // MARK: - Refused settings

    @Test(
        arguments: [
            ("use_dora", true), ("modules_to_save", ["lm_head"]), ("bias", "all"), ("bias", "lora_only"), ("lora_bias", true), ("fan_in_fan_out", true),
            ("trainable_token_indices", [1]), ("layer_replication", [[0, 1]]), ("use_qalora", true), ("use_bdlora", ["a": 1]), ("alora_invocation_tokens", [5]),
            ("target_parameters", ["mlp.experts"]), ("velora_config", ["a": 1]), ("kasa_config", ["a": 1]), ("arrow_config", ["a": 1]),
            ("monteclora_config", ["a": 1]),
            ("some_future_flag", true), ("some_future_number", 1), ("init_lora_weights", "pissa"), ("init_lora_weights", "pissa_niter_16"),
            ("init_lora_weights", "olora"),
            ("init_lora_weights", "corda"), ("init_lora_weights", "loftq"), ("init_lora_weights", "lora_ga"), ("init_lora_weights", "eva"),
            ("init_lora_weights", "mica"),
            ("peft_type", "LOHA"),
        ] as [(String, JSONValue)])
    func settingsThatCannotBeHonouredAreRefused(key: String, value: JSONValue) {
        var fixture = PEFTFixture(base)
        fixture.config[key] = value
        expectRefusal(.unsupported, key) { () throws(AdapterError) in _ = try fixture.read() }
    }

    @Test(
        arguments: [
            ("r", 0), ("r", "8"), ("r", 4.0), ("lora_alpha", "x"), ("use_rslora", 1), ("rank_pattern", []), ("rank_pattern", ["q": 0]),
            ("alpha_pattern", ["q": "x"]),
            ("exclude_modules", 1), ("layers_to_transform", "1"), ("layers_to_transform", ["1"]),
        ] as [(String, JSONValue)])
    func malformedSettingsAreRefused(key: String, value: JSONValue) {
        var fixture = PEFTFixture(base)
        fixture.config[key] = value
        expectRefusal(.unreadable, key) { () throws(AdapterError) in _ = try fixture.read() }
    }

    @Test func otherFilesAreRefused() {
        let weights = SafetensorsWriter.bytes(of: PEFTFixture(base).tensors)
        func refused(_ code: AdapterError.Code, _ word: String, _ config: String) {
            expectRefusal(code, word, "adapter_config.json") { () throws(AdapterError) in
                _ = try PEFTAdapter.read(config: Array(config.utf8), weights: weights, base: base)
            }
        }
        refused(.unreadable, "JSON", "{")
        refused(.unreadable, "an array", "[]")
        refused(.unreadable, "peft_type", "{}")
        refused(.unreadable, "twice", #"{"peft_type":"LORA","r":4,"r":8}"#)
        refused(.unsupported, "mlx-lm", #"{"fine_tune_type":"lora","num_layers":4,"lora_parameters":{"rank":4,"scale":20.0}}"#)
        refused(.unreadable, "at most", String(repeating: " ", count: 1 << 20 + 1))
        expectRefusal(.unreadable, "adapter_model.safetensors") { () throws(AdapterError) in
            _ = try PEFTAdapter.read(config: PEFTFixture(base).configBytes, weights: Array(weights.dropLast()), base: base)
        }
    }

    // MARK: - Refused tensors

    @Test(arguments: [
        ("base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector", "DoRA"),
        ("base_model.model.model.embed_tokens.lora_embedding_A", "embeddings"),
        ("base_model.model.lm_head.lora_A.weight", "output head"), ("base_model.model.lm_head.modules_to_save.weight", "output head"),
        ("base_model.model.score.modules_to_save.weight", "modules_to_save"), ("base_model.model.model.layers.0.self_attn.q_proj.lora_B.bias", "bias"),
        ("base_model.model.model.layers.0.self_attn.q_proj.bias", "bias"), ("model.layers.0.self_attn.q_proj.lora_a", "mlx-lm"),
        ("model.layers.0.self_attn.q_proj.lora_A.weight", "expected base_model.model."),
        ("base_model.model.model.layers.0.mlp.q_proj.lora_A.weight", "expected"),
        ("base_model.model.model.layers.00.mlp.up_proj.lora_A.weight", "expected"), ("base_model.model.model.layers.+1.mlp.up_proj.lora_A.weight", "expected"),
        ("base_model.model.model.layers.0.mlp.experts.0.up_proj.lora_A.weight", "expected"),
        ("base_model.model.model.layers.99999999999999999999.mlp.up_proj.lora_A.weight", "expected"),
        ("base_model.model.vision_tower.layers.0.self_attn.q_proj.lora_A.weight", "expected"),
        ("base_model.model.model.layers.0.mlp.up_proj.lora_A.a.b.weight", "expected"),
        ("base_model.model.model.layers.0.mlp.up_proj.lora_A..weight", "expected"), ("base_model.model.model.layers.0.mlp.up_proj.lora_A", "expected"),
        ("x", "expected"),
    ])
    func otherTensorsAreRefused(name: String, reason: String) {
        var fixture = PEFTFixture(base)
        fixture.add(name, [4, base.hiddenSize])
        expectRefusal(.unsupported, "'\(name)'", reason) { () throws(AdapterError) in _ = try fixture.read() }
    }

    /// Taking a name apart costs many times its length, so that length is bounded first.
    @Test(arguments: [String(repeating: ".", count: 8_000_000), String(repeating: "x.lora_A", count: 1_000_000), String(repeating: "e\u{301}", count: 300)])
    func longNamesAreRefusedAsTheyAre(rest: String) {
        let name = "base_model.model." + rest
        let header = Array("{\"\(name)\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}".utf8)
        let weights = withUnsafeBytes(of: UInt64(header.count)) { Array($0) } + header + [0, 0, 0, 0]
        do throws(AdapterError) {
            _ = try PEFTAdapter.read(config: PEFTFixture(base).configBytes, weights: weights, base: base)
            Issue.record("accepted a name of \(name.utf8.count) bytes")
        } catch {
            #expect(error.code == .unreadable && error.message.contains("has a name of \(name.utf8.count) bytes"))
            #expect(error.message.utf8.count < 400, "\(error.message.utf8.count) bytes")
        }
    }

    /// A shape of a megabyte does not become a message of a megabyte.
    @Test func longShapesAreRefusedInShort() {
        let entry = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
        let shape = "[" + String(repeating: "1,", count: 500_000) + "1]"
        let header = Array("{\"\(entry)\":{\"dtype\":\"F32\",\"shape\":\(shape),\"data_offsets\":[0,4]}}".utf8)
        let weights = withUnsafeBytes(of: UInt64(header.count)) { Array($0) } + header + [0, 0, 0, 0]
        do throws(AdapterError) {
            _ = try PEFTAdapter.read(config: PEFTFixture(base).configBytes, weights: weights, base: base)
            Issue.record("accepted 500,001 extents")
        } catch {
            #expect(error.code == .unreadable && error.message.contains("500001 integers"))
            #expect(error.message.utf8.count < 400, "\(error.message.utf8.count) bytes")
        }
    }

    @Test func theShapesAreTheBases() {
        let q = "layers.0.self_attn.q_proj.lora_A.weight", width = base.hiddenSize
        func refused(_ code: AdapterError.Code, _ ending: String, _ shape: [Int], _ words: String...) {
            var fixture = PEFTFixture(base)
            let name = fixture[ending].name
            fixture[ending] = .init(name: name, type: .f32, shape: shape, values: [Float](repeating: 1, count: shape.reduce(1, *)))
            for word in words + ["'\(name)'", "\(shape)"] { expectRefusal(code, word) { () throws(AdapterError) in _ = try fixture.read() } }
        }
        refused(.wrongBase, q, [4, width + 1], "expected [rank, \(width)]", "another base model")
        refused(.wrongBase, q, [width, 4], "transposed")
        refused(.wrongBase, "layers.1.mlp.down_proj.lora_B.weight", [width - 1, 4], "expected [\(width), rank]")
        refused(.wrongBase, "layers.1.mlp.down_proj.lora_B.weight", [4, width], "transposed")
        refused(.unsupported, q, [4, width, 1], "two dimensions")
        refused(.unsupported, q, [4 * width], "two dimensions")
        refused(.unreadable, q, [0, width], "rank of 1 or more")
    }

    @Test func ranksAreBounded() throws {
        for rank in [256, 257, 4096] {
            var fixture = PEFTFixture(base, rank: rank)
            fixture.config["r"] = .integer(Int64(rank))
            if rank == 256 {
                #expect(try fixture.read().maximumRank == 256)
            } else {
                expectRefusal(.unsupported, "rank \(rank)", "at most 256", "layers.0") { () throws(AdapterError) in _ = try fixture.read() }
            }
        }
    }

    @Test func halvesMustBelongTogether() {
        var fixture = PEFTFixture(base)
        let lone = fixture.tensors.removeLast()
        let other = lone.name.replacingEnd("lora_B.weight", "lora_A.weight")
        expectRefusal(.unreadable, "'\(other)'", "other half") { () throws(AdapterError) in _ = try fixture.read() }

        fixture = PEFTFixture(base)
        let b = fixture["layers.1.mlp.down_proj.lora_B.weight"]
        fixture["layers.1.mlp.down_proj.lora_B.weight"] = .init(
            name: b.name, type: .f32, shape: [b.shape[0], 3], values: Array(b.values.prefix(3 * b.shape[0])))
        expectRefusal(.unreadable, "'\(b.name)'", "4 and 3") { () throws(AdapterError) in _ = try fixture.read() }

        fixture = PEFTFixture(base)
        fixture.config["r"] = 8
        expectRefusal(.unreadable, "'\(fixture.tensors[0].name)'", "rank 4", "gives 8") { () throws(AdapterError) in _ = try fixture.read() }

        fixture.tensors = []
        expectRefusal(.unreadable, "no adapter tensors") { () throws(AdapterError) in _ = try fixture.read() }

        fixture = PEFTFixture(base)
        fixture.add("base_model.model.model.layers.2.self_attn.q_proj.lora_A.weight", [4, base.hiddenSize])
        expectRefusal(.wrongBase, "layers.2.self_attn.q_proj", "layers 0 to 1") { () throws(AdapterError) in _ = try fixture.read() }
    }

    @Test(arguments: [Float.nan, .infinity, -.infinity], [GGMLType.f32, .f16, .bf16]) func numbersAreFinite(value: Float, type: GGMLType) {
        for ending in ["layers.0.self_attn.q_proj.lora_A.weight", "layers.1.self_attn.q_proj.lora_B.weight"] {
            var fixture = PEFTFixture(base)
            for index in fixture.tensors.indices { fixture.tensors[index].type = type }
            fixture[ending].values[77] = value
            expectRefusal(.unreadable, "'\(fixture[ending].name)'", "index 77") { () throws(AdapterError) in _ = try fixture.read() }
        }
    }

    @Test(arguments: [1e300, -4.2e6, 4_194_305]) func scalesAreBounded(alpha: Double) throws {
        var fixture = PEFTFixture(base)
        fixture.config["lora_alpha"] = .number(alpha)
        expectRefusal(.unsupported, "scale of model.layers.0.self_attn.q_proj") { () throws(AdapterError) in _ = try fixture.read() }
        fixture.config["lora_alpha"] = 4_194_304
        #expect(try fixture.read().pairs[0].scale == 1_048_576)
    }

    @Test func oneAdapterIsInAFile() {
        var fixture = PEFTFixture(base)
        for ending in ["lora_A.weight", "lora_B.weight"] {
            let name = fixture["layers.1.mlp.down_proj.\(ending)"].name
            fixture["layers.1.mlp.down_proj.\(ending)"].name = name.replacingEnd("weight", "other.weight")
        }
        expectRefusal(.unsupported, "'other'", "layers.1.mlp.down_proj") { () throws(AdapterError) in _ = try fixture.read() }
    }

    /// They come from the file, and go to terminals and logs.
    @Test(arguments: [0, 2]) func adapterNamesInMessagesAreEscapedAndShort(changed: Int) throws {
        var fixture = PEFTFixture(base)
        let name = "\u{1B}]0;x\u{7}\u{9B}\n" + String(repeating: "n", count: 400)
        for index in changed...changed + 1 { fixture.tensors[index].name = fixture.tensors[index].name.replacingEnd("weight", "\(name).weight") }
        do throws(AdapterError) {
            _ = try fixture.read()
            Issue.record("accepted two adapters")
        } catch {
            #expect(error.code == .unsupported && error.message.contains("\\u{1B}]0;x"), "\(error.message)")
            #expect(error.message.unicodeScalars.allSatisfy { $0.properties.generalCategory != .control } && error.message.utf8.count < 600)
        }
    }

    // MARK: - Magnitudes

    @Test(arguments: ["lora_A", "lora_B"], [Float(3e38), -1.1e30]) func singleNumbersAreBounded(half: String, value: Float) throws {
        var fixture = PEFTFixture(base)
        let ending = "layers.1.self_attn.q_proj.\(half).weight"
        fixture[ending].values[77] = value
        expectRefusal(.unreadable, "'\(fixture[ending].name)'", "\(abs(value))", "1e+30") { () throws(AdapterError) in _ = try fixture.read() }
        // The largest that is let in, beside zeros.
        fixture[ending].values[77] = -1e30
        let other = "layers.1.self_attn.q_proj.\(half == "lora_A" ? "lora_B" : "lora_A").weight"
        fixture[other].values = fixture[other].values.map { _ in 0 }
        #expect(try fixture.read().pairs.count == 4)
    }

    /// max|A| · max|B| · |scale| · columns stays below the largest float32.
    @Test func productsAreBounded() throws {
        var fixture = PEFTFixture(base)
        let a = "layers.0.mlp.down_proj.lora_A.weight", b = "layers.0.mlp.down_proj.lora_B.weight"
        let columns = Float(base.shape(of: .down).columns)
        // With the scale 2 the bound is 2^127; the next power of two is infinite.
        fixture[a].values[5] = -0x1p63
        fixture[b].values[9] = 0x1p63 / columns
        #expect(try fixture.read().pairs[1].a[5] == -0x1p63)
        fixture[b].values[9] *= 2
        let names = [fixture[a].name, fixture[b].name]
        expectRefusal(.unsupported, "'\(names[0])'", "'\(names[1])'", "\(Float(0x1p63))", "\(0x1p64 / columns)") { () throws(AdapterError) in
            _ = try fixture.read()
        }
        // Half the scale makes up for it, whatever its sign; a scale of zero for anything.
        for alpha: JSONValue in [4, -4, 0] {
            fixture.config["lora_alpha"] = alpha
            #expect(try fixture.read().pairs.count == 4)
        }
        fixture.config["lora_alpha"] = -8
        expectRefusal(.unsupported, "down_proj.lora_B.weight") { () throws(AdapterError) in _ = try fixture.read() }
    }

    /// Two spellings of é are the same text to Swift and two names to a file.
    @Test func aHalfIsThereOnce() {
        var fixture = PEFTFixture(base)
        for index in fixture.tensors.indices { fixture.tensors[index].name = fixture.tensors[index].name.replacingEnd("weight", "\u{E9}.weight") }
        let a = fixture.tensors[0]
        fixture.tensors.append(a)
        fixture.tensors[fixture.tensors.count - 1].name = a.name.replacingEnd("\u{E9}.weight", "e\u{301}.weight")
        // By hand, because the writer takes the two for one name.
        var end = 0
        let entries = fixture.tensors.map { tensor in
            let size = tensor.values.count * 4
            defer { end += size }
            return "\"\(tensor.name)\":{\"dtype\":\"F32\",\"shape\":\(tensor.shape),\"data_offsets\":[\(end),\(end + size)]}"
        }
        let text = Array("{\(entries.joined(separator: ","))}".utf8)
        let weights = withUnsafeBytes(of: UInt64(text.count)) { Array($0) } + text + [UInt8](repeating: 0, count: end)
        expectRefusal(.unreadable, "layers.0.self_attn.q_proj.lora_A", "expected one") { () throws(AdapterError) in
            _ = try PEFTAdapter.read(config: fixture.configBytes, weights: weights, base: base)
        }
    }

    /// Changed bytes anywhere are refused or read; nothing ends the process, and what is read has the base's shapes.
    @Test func damageIsReadOrRefused() throws {
        let fixture = PEFTFixture(base), config = fixture.configBytes, weights = SafetensorsWriter.bytes(of: fixture.tensors)
        var random = RandomFloats(state: 77)
        func damaged(_ bytes: [UInt8], _ end: Int) -> [UInt8] {
            var bytes = bytes
            for _ in 0..<2 { bytes[Int(abs(random.fine()) * Float(end - 1))] = UInt8(Int(abs(random.fine()) * 255)) }
            return bytes
        }
        var readable = 0
        for round in 0..<4000 {
            let other = round % 2 == 0
            let content = try? PEFTAdapter.read(
                config: other ? damaged(config, config.count) : config, weights: other ? weights : damaged(weights, 1200), base: base)
            guard let content else { continue }
            readable += 1
            for pair in content.pairs {
                let shape = base.shape(of: pair.projection)
                #expect(
                    pair.a.count == pair.rank * shape.columns && pair.b.count == pair.rank * shape.rows && pair.scale.isFinite && pair.layer < base.layerCount)
            }
        }
        #expect(readable > 0 && readable < 4000)
        let gguf = GGUFAdapter.write(try fixture.read(), base: base, name: "n")
        let archive = AdapterArchive.write([.init(name: "adapter_config.json", bytes: config), .init(name: "adapter_model.safetensors", bytes: weights)])
        for _ in 0..<2000 {
            _ = try? GGUFAdapter.read(damaged(gguf, 1200), base: base)
            _ = try? AdapterArchive.read(damaged(archive, 1536))
        }
    }

    @Test func patternsTakeLittleMemory() {
        var fixture = PEFTFixture(base)
        fixture.config["alpha_pattern"] = .object(JSONObject((0..<500).map { ("(a{900})?\($0)", .integer(4)) }))
        expectRefusal(.unsupported, "alpha_pattern", "too many or too large") { () throws(AdapterError) in _ = try fixture.read() }
    }

    @Test func otherElementTypesAreRefused() {
        var fixture = PEFTFixture(base, projections: [.q])
        fixture.config["target_modules"] = ["q_proj"]
        let weights = SafetensorsWriter.bytes(of: fixture.tensors)
        // As many bytes for each number, so that the file stays sound.
        let text = Array(#""F32""#.utf8), other = Array(#""I32""#.utf8)
        guard let place = (0..<weights.count - 5).first(where: { weights[$0..<$0 + 5].elementsEqual(text) }) else { return #expect(Bool(false)) }
        let changed = Array(weights[..<place]) + other + weights[(place + 5)...]
        expectRefusal(.unsupported, "I32", "layers.0.self_attn.q_proj.lora_A.weight") { () throws(AdapterError) in
            _ = try PEFTAdapter.read(config: fixture.configBytes, weights: changed, base: base)
        }
    }

    // MARK: - What is written

    @Test(arguments: ["llama", "qwen2", "qwen3", "gemma3", "mistral"], [AdapterContent.Storage.float32, .float16, .bfloat16])
    func whatIsWrittenIsReadBitForBit(name: String, storage: AdapterContent.Storage) throws {
        let base = try tinyBase(name)
        // Scales of many bits, of rsLoRA, tiny, negative and zero.
        let content = randomContent(
            base, storage: storage, ranks: [4, 4, 3, 16], scales: [2, 0.1, 1 / 3, 8 / Float(3).squareRoot(), 1e-30, -1.7, 0, -0.0, 1_048_576])
        let written = PEFTAdapter.write(content, base: base, baseModelName: "ignored")
        expectSame(try PEFTAdapter.read(config: written.config, weights: written.weights, base: base), content)
        var nameless = content
        nameless.baseModelName = nil
        let named = PEFTAdapter.write(nameless, base: base, baseModelName: "the/base")
        #expect(try PEFTAdapter.read(config: named.config, weights: named.weights, base: base).baseModelName == "the/base")
        #expect(named.weights == written.weights)
    }

    @Test func aPartOfTheProjectionsIsWritten() throws {
        var content = randomContent(llama)
        content.pairs.removeAll { $0.layer == 0 && $0.projection != .k || $0.projection == .up }
        let written = PEFTAdapter.write(content, base: llama, baseModelName: "b")
        expectSame(try PEFTAdapter.read(config: written.config, weights: written.weights, base: llama), content)
    }

    @Test func numbersThatTheStorageWouldRoundAreWrittenWide() throws {
        var content = randomContent(base, storage: .bfloat16)
        content.pairs[5].b[1] = 0.1
        let written = PEFTAdapter.write(content, base: base, baseModelName: "b")
        content.storage = .float32
        expectSame(try PEFTAdapter.read(config: written.config, weights: written.weights, base: base), content)
    }

    @Test func theConfigurationIsPlain() throws {
        let written = PEFTAdapter.write(randomContent(base), base: base, baseModelName: "b")
        let config = try JSONValue(parsing: written.config)
        #expect(config["r"] == 4 && config["lora_alpha"] == 8 && config["rank_pattern"] == [:] && config["alpha_pattern"] == [:])
        #expect(config["target_modules"] == ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"])
        #expect(config["use_rslora"] == false && config["base_model_name_or_path"] == "some/base")
    }
}

extension String {
    fileprivate func replacingEnd(_ end: String, _ other: String) -> String { String(dropLast(end.count)) + other }
}
