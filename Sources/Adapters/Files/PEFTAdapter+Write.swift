import GGUF
import JSON
import Modeling

extension PEFTAdapter {
    /// Writes an adapter such that reading it gives the same content, bit for bit, and PEFT loads it.
    ///
    /// - Parameters:
    ///   - content: by layer, then projection; shaped for `base`.
    ///   - baseModelName: for `base_model_name_or_path`, when the content does not name its base itself.
    public static func write(_ content: AdapterContent, base: ModelConfiguration, baseModelName: String) -> (config: [UInt8], weights: [UInt8]) {
        let storage = content.losslessStorage
        var tensors: [SafetensorsWriter.Tensor] = []
        tensors.reserveCapacity(2 * content.pairs.count)
        for pair in content.pairs {
            let shape = base.shape(of: pair.projection)
            let b = RotaryRows.areInterleaved(pair.projection, of: base) ? RotaryRows.halves(pair.b, width: pair.rank, headDim: base.headDim) : pair.b
            let name = keyPrefix + modulePath(pair)
            tensors.append(.init(name: name + ".lora_A.weight", type: storage.type, shape: [pair.rank, shape.columns], values: pair.a))
            tensors.append(.init(name: name + ".lora_B.weight", type: storage.type, shape: [shape.rows, pair.rank], values: b))
        }
        let config = configuration(content, base, content.baseModelName ?? baseModelName)
        return (config.serialized(sortedKeys: true), SafetensorsWriter.bytes(of: tensors))
    }

    private static func modulePath(_ pair: LowRankPair) -> String { "model.layers.\(pair.layer).\(pair.projection.moduleName)" }

    /// A float has 24 significant bits and a rank at most 9, so that scale · rank is exact in a double and divides back to the very scale.
    private static func alpha(_ pair: LowRankPair) -> Double { Double(pair.scale) * Double(pair.rank) }

    private static func configuration(_ content: AdapterContent, _ base: ModelConfiguration, _ baseModelName: String) -> JSONValue {
        let rank = mostCommon(content.pairs.map(\.rank)) ?? 1
        // By bits, so that zeros of both signs stay two values.
        let alpha = mostCommon(content.pairs.map { Self.alpha($0).bitPattern }).map { Double(bitPattern: $0) } ?? 1
        let ranks = content.pairs.filter { $0.rank != rank }.map { (modulePath($0), JSONValue.integer(Int64($0.rank))) }
        let alphas = content.pairs.filter { Self.alpha($0).bitPattern != alpha.bitPattern }.map { (modulePath($0), number(Self.alpha($0))) }
        return .object([
            "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": .string(baseModelName), "inference_mode": true,
            "r": .integer(Int64(rank)), "lora_alpha": number(alpha), "rank_pattern": .object(JSONObject(ranks)), "alpha_pattern": .object(JSONObject(alphas)),
            "use_rslora": false, "use_dora": false, "lora_dropout": 0.0, "bias": "none", "lora_bias": false, "fan_in_fan_out": false, "init_lora_weights": true,
            "modules_to_save": .null, "layers_to_transform": .null, "layers_pattern": .null, "exclude_modules": .null,
            "target_modules": .array(targets(content.pairs, base).map { .string($0) }),
        ])
    }

    /// Short names when every layer has the same projections, else paths.
    private static func targets(_ pairs: [LowRankPair], _ base: ModelConfiguration) -> [String] {
        let projections = Projection.allCases.filter { projection in pairs.contains { $0.projection == projection } }
        return pairs.count == projections.count * base.layerCount ? projections.map(\.shortModuleName) : pairs.map { modulePath($0) }
    }

    private static func number(_ value: Double) -> JSONValue {
        // Not for negative zero, whose sign an integer has not.
        if let integer = Int64(exactly: value), value != 0 || value.sign == .plus { .integer(integer) } else { .number(value) }
    }

    /// The first of the values that occur most often.
    static func mostCommon<Value: Hashable>(_ values: [Value]) -> Value? {
        var counts: [Value: Int] = [:]
        for value in values { counts[value, default: 0] += 1 }
        let most = counts.values.max()
        return values.first { counts[$0] == most }
    }
}
