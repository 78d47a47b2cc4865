import Adapters
import FoundationEssentials
import GGUF
import JSON
import Kernels
import Modeling
import TestSupport
import Testing

/// A generator of numbers that are the same in every run.
struct RandomFloats {
    var state: UInt64

    /// From -1 to 1, in steps of 2^-7: exact in every storage.
    mutating func coarse() -> Float { Float(Int(next() >> 56) - 128) / 128 }

    /// From -1 to 1, with all bits.
    mutating func fine() -> Float { Float(next() >> 40) / Float(1 << 23) - 1 }

    private mutating func next() -> UInt64 {
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return state
    }
}

/// The tiny model of an architecture.
func tinyBase(_ name: String) throws -> ModelConfiguration {
    try ModelConfiguration(metadata: GGUFFile(path: goldenFolder.appending(path: "tiny/\(name).gguf").path).metadata)
}

/// A PEFT adapter in the making: valid, until a test makes one thing wrong.
struct PEFTFixture {
    var config: JSONObject = [
        "peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"], "base_model_name_or_path": "some/base", "bias": "none",
    ]
    var tensors: [SafetensorsWriter.Tensor] = []
    let base: ModelConfiguration

    /// q and down of every layer, rank 4.
    init(_ base: ModelConfiguration, projections: [Projection] = [.q, .down], layers: Range<Int>? = nil, rank: Int = 4) {
        self.base = base
        var random = RandomFloats(state: 9)
        for layer in layers ?? 0..<base.layerCount {
            for projection in projections {
                let shape = base.shape(of: projection)
                let path = "base_model.model.model.layers.\(layer).\(PEFTFixture.names[projection.rawValue])"
                add("\(path).lora_A.weight", [rank, shape.columns]) { random.coarse() }
                add("\(path).lora_B.weight", [shape.rows, rank]) { random.coarse() }
            }
        }
    }

    static let names = [
        "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
    ]

    mutating func add(_ name: String, type: GGMLType = .f32, _ shape: [Int], _ value: () -> Float = { 0.5 }) {
        tensors.append(.init(name: name, type: type, shape: shape, values: (0..<shape.reduce(1, *)).map { _ in value() }))
    }

    /// The tensor whose name ends so.
    subscript(_ ending: String) -> SafetensorsWriter.Tensor {
        get { tensors.first { $0.name.hasSuffix(ending) }! }
        set { tensors[tensors.firstIndex { $0.name.hasSuffix(ending) }!] = newValue }
    }

    var configBytes: [UInt8] { JSONValue.object(config).serialized() }

    func read() throws(AdapterError) -> AdapterContent {
        try PEFTAdapter.read(config: configBytes, weights: SafetensorsWriter.bytes(of: tensors), base: base)
    }
}

/// Expects a refusal with this code whose message has all of these words.
func expectRefusal(
    _ code: AdapterError.Code, _ words: String..., sourceLocation: SourceLocation = #_sourceLocation, _ body: () throws(AdapterError) -> Void
) {
    do throws(AdapterError) {
        try body()
        Issue.record("accepted, expected a refusal with \(words)", sourceLocation: sourceLocation)
    } catch {
        #expect(error.code == code, "\(error.message)", sourceLocation: sourceLocation)
        for word in words { #expect(error.message.contains(word), "\(error.message)", sourceLocation: sourceLocation) }
    }
}

/// Content of random numbers for every projection, of one or several ranks and scales.
func randomContent(_ base: ModelConfiguration, storage: AdapterContent.Storage = .float32, ranks: [Int] = [4], scales: [Float] = [2], seed: UInt64 = 1)
    -> AdapterContent
{
    var random = RandomFloats(state: seed)
    var pairs: [LowRankPair] = []
    for layer in 0..<base.layerCount {
        for projection in Projection.allCases {
            let shape = base.shape(of: projection), rank = ranks[pairs.count % ranks.count]
            func values(_ count: Int) -> [Float] { (0..<count).map { _ in storage == .float32 ? random.fine() : random.coarse() } }
            pairs.append(
                LowRankPair(
                    layer: layer, projection: projection, scale: scales[pairs.count % scales.count], rank: rank, a: values(rank * shape.columns),
                    b: values(shape.rows * rank)))
        }
    }
    return AdapterContent(pairs: pairs, storage: storage, baseModelName: "some/base")
}

/// Equal bits throughout.
func expectSame(_ found: AdapterContent, _ expected: AdapterContent, sourceLocation: SourceLocation = #_sourceLocation) {
    #expect(found.pairs.count == expected.pairs.count, sourceLocation: sourceLocation)
    for (a, b) in zip(found.pairs, expected.pairs) {
        #expect((a.layer, a.projection, a.rank) == (b.layer, b.projection, b.rank), sourceLocation: sourceLocation)
        #expect(a.scale.bitPattern == b.scale.bitPattern, "scale \(a.scale), expected \(b.scale)", sourceLocation: sourceLocation)
        #expect(
            a.a.map(\.bitPattern) == b.a.map(\.bitPattern) && a.b.map(\.bitPattern) == b.b.map(\.bitPattern), "layer \(a.layer) \(a.projection)",
            sourceLocation: sourceLocation)
    }
    #expect(found.storage == expected.storage && found.baseModelName == expected.baseModelName, sourceLocation: sourceLocation)
    #expect(found.digest == expected.digest, sourceLocation: sourceLocation)
}
