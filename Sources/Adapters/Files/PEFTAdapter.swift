import GGUF
import Kernels
import Modeling

/// PEFT's adapter format: `adapter_config.json` and `adapter_model.safetensors`.
///
/// Keys are `base_model.model.<module path>.lora_A.weight` [rank, in] and `….lora_B.weight` [out, rank]; an adapter's name may stand before `weight`.
public enum PEFTAdapter {
    /// The two files of a PEFT directory.
    public static let configName = "adapter_config.json", weightsName = "adapter_model.safetensors"
    static let keyPrefix = "base_model.model."

    /// Reads an adapter and checks it against its base. Either all of it is honoured, exactly, or it is refused.
    ///
    /// - Parameters:
    ///   - config: the whole of `adapter_config.json`.
    ///   - weights: the whole of `adapter_model.safetensors`.
    public static func read(config: [UInt8], weights: [UInt8], base: ModelConfiguration) throws(AdapterError) -> AdapterContent {
        try read(config: config, weights: weights, base: base, reordersRows: true)
    }

    /// - Parameter reordersRows: false leaves the rows of llama's q and k in Hugging Face's order, which is wrong; a test shows that it is noticed.
    package static func read(config: [UInt8], weights: [UInt8], base: ModelConfiguration, reordersRows: Bool) throws(AdapterError) -> AdapterContent {
        let configuration = try PEFTConfiguration(parsing: config)
        let file: SafetensorsFile
        do {
            file = try SafetensorsFile(parsing: weights)
        } catch {
            throw AdapterError(.unreadable, "adapter_model.safetensors: \(error.message)")
        }
        var table = PairTable(base: base)
        var first: AdapterKey?
        for tensor in file.tensors {
            let key = try AdapterKey(tensor.name, base.architecture)
            if let first, first.stem != key.stem || first.adapterName != key.adapterName {
                throw AdapterError(
                    .unsupported,
                    "tensor \(shown(tensor.name)): found adapter \(shown(String(key.adapterName))) below '\(key.stem)', expected \(shown(String(first.adapterName))) below '\(first.stem)' as for the tensors before; keep one adapter of one model in the file"
                )
            }
            first = first ?? key
            let half = PairTable.Half(name: tensor.name, shape: tensor.shape, type: type(of: tensor), typeName: tensor.type.rawValue, range: tensor.range)
            try table.add(half, side: key.side, layer: key.layer, projection: key.projection)
        }
        let pairs = try table.pairs()
        let stem = first?.stem ?? "model"
        var budget = ModulePattern.Budget()
        try checkTargets(configuration, table, stem, &budget)
        var content = AdapterContent(pairs: [], storage: PairTable.storage(of: pairs), baseModelName: configuration.baseModelName)
        content.pairs.reserveCapacity(pairs.count)
        for pair in pairs {
            let module = module(pair.layer, pair.projection, stem)
            let rank = try configuration.rank(of: module, &budget)
            guard rank == pair.rank else {
                throw AdapterError(
                    .unreadable,
                    "tensor \(shown(pair.a.name)): found rank \(pair.rank), but adapter_config.json gives \(rank) (r and rank_pattern), expected the same; the two files do not belong together"
                )
            }
            let scale = try configuration.scale(of: module, rank: rank, &budget)
            let (a, stored) = try table.values(of: pair, scale: scale, in: weights)
            let isMoved = reordersRows && RotaryRows.areInterleaved(pair.projection, of: base)
            let b = isMoved ? RotaryRows.interleaved(stored, width: rank, headDim: base.headDim) : stored
            content.pairs.append(LowRankPair(layer: pair.layer, projection: pair.projection, scale: scale, rank: rank, a: a, b: b))
        }
        return content
    }

    private static func type(of tensor: SafetensorsFile.Tensor) -> GGMLType? {
        switch tensor.type {
        case .f32: .f32
        case .f16: .f16
        case .bf16: .bf16
        default: nil
        }
    }

    private static func module(_ layer: Int, _ projection: Projection, _ stem: String) -> PEFTConfiguration.Module {
        PEFTConfiguration.Module("\(stem).layers.\(layer).\(projection.moduleName)", layer: layer)
    }

    /// The modules that the configuration covers are those that the file has pairs for: otherwise a part of the adapter is missing or would be ignored.
    private static func checkTargets(
        _ configuration: PEFTConfiguration, _ table: PairTable, _ stem: String, _ budget: inout ModulePattern.Budget
    ) throws(AdapterError) {
        let head = stem.hasPrefix("language_model.") ? "language_model.lm_head" : "lm_head"
        for path in [head, "\(stem).embed_tokens"] where try configuration.covers(PEFTConfiguration.Module(path, layer: nil), &budget) {
            throw AdapterError(
                .unsupported,
                "adapter_config.json: target_modules: covers '\(path)', expected projections of the layers alone; adapters of embeddings and the output head are not supported"
            )
        }
        for layer in 0..<table.base.layerCount {
            for projection in Projection.allCases {
                let module = module(layer, projection, stem)
                let isCovered = try configuration.covers(module, &budget)
                guard isCovered != table.has(layer: layer, projection: projection) else { continue }
                throw AdapterError(
                    .unreadable,
                    isCovered
                        ? "adapter_config.json: target_modules: covers '\(module.path)', but adapter_model.safetensors has no tensors for it; the adapter is incomplete"
                        : "adapter_model.safetensors: has tensors for '\(module.path)', which target_modules in adapter_config.json does not cover; the two files do not belong together"
                )
            }
        }
    }
}

/// A tensor's name in a PEFT adapter, taken apart.
struct AdapterKey {
    /// What comes before `.layers`: `model`, or for Gemma 3 with its vision tower one of two longer paths.
    let stem: String
    /// What stands before `weight`; mostly nothing.
    let adapterName: Substring
    let layer: Int
    let projection: Projection
    let side: PairTable.Side

    init(_ name: String, _ architecture: ModelConfiguration.Architecture) throws(AdapterError) {
        guard name.utf8.starts(with: PEFTAdapter.keyPrefix.utf8) else { throw AdapterKey.refusal(of: name) }
        let words = name.utf8.dropFirst(PEFTAdapter.keyPrefix.utf8.count).split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false).map {
            Substring($0)
        }
        guard words.last == "weight", let mark = words.lastIndex(where: { $0 == "lora_A" || $0 == "lora_B" }) else { throw AdapterKey.refusal(of: name) }
        let adapterName = words[(mark + 1)..<(words.count - 1)]
        guard adapterName.count <= 1, adapterName.first != "", let layers = words[..<mark].firstIndex(of: "layers"), mark == layers + 4 else {
            throw AdapterKey.refusal(of: name)
        }
        let stem = words[..<layers].joined(separator: ".")
        let isGemmaStem = architecture == .gemma3 && (stem == "model.language_model" || stem == "language_model.model")
        let module = words[(layers + 2)..<mark].joined(separator: ".")
        guard stem == "model" || isGemmaStem, let layer = layerNumber(words[layers + 1]),
            let projection = Projection.allCases.first(where: { $0.moduleName == module })
        else { throw AdapterKey.refusal(of: name) }
        self.stem = stem
        self.adapterName = adapterName.first ?? ""
        self.layer = layer
        self.projection = projection
        side = words[mark] == "lora_A" ? .a : .b
    }

    /// Why a name is none of a supported adapter: the most telling of its words decides.
    private static func refusal(of name: String) -> AdapterError {
        let words = name.split(separator: ".")
        func has(_ word: String) -> Bool { words.contains { $0 == word } }
        let reason =
            if has("lora_magnitude_vector") {
                "DoRA is not supported; train without use_dora"
            } else if has("lora_embedding_A") || has("lora_embedding_B") || has("embed_tokens") || has("lm_head") {
                "adapters of embeddings and the output head are not supported; target the projections of the layers alone"
            } else if has("modules_to_save") || has("original_module") {
                "whole modules beside the adapter are not supported; train with modules_to_save=None"
            } else if has("bias") {
                "trained biases are not supported; train with bias=\"none\" and lora_bias=False"
            } else if has("lora_a") || has("lora_b") {
                "this is an adapter of mlx-lm, whose tensors are transposed and whose scale means something else; convert it to PEFT first"
            } else {
                "expected base_model.model.model.layers.N. with self_attn.{q,k,v,o}_proj or mlp.{gate,up,down}_proj, then lora_A.weight or lora_B.weight"
            }
        return AdapterError(.unsupported, "tensor \(shown(name)): \(reason)")
    }
}
