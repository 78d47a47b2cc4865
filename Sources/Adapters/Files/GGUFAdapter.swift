import GGUF
import Kernels
import Modeling

/// llama.cpp's adapter format: a GGUF file whose tensors are the base's names with `.lora_a` and `.lora_b`. B's rows are in the order of the base's rows.
public enum GGUFAdapter {
    static let alphaKey = "adapter.lora.alpha"
    static let baseNameKey = "general.base_model.0.name"

    /// Reads an adapter and checks it against its base. Either all of it is honoured, exactly, or it is refused; norms, which llama.cpp's loader
    /// passes over as well, are the exception.
    public static func read(_ bytes: [UInt8], base: ModelConfiguration) throws(AdapterError) -> AdapterContent {
        let header = try translating { () throws(GGUFError) in try GGUFHeader(parsing: bytes) }
        let metadata = header.metadata
        let alpha = try alpha(metadata, base)
        var table = PairTable(base: base)
        for tensor in header.tensors where !tensor.name.hasSuffix("_norm.weight") {
            let (layer, projection, side) = try place(of: tensor.name)
            // From ggml's order to row-major; extents of one beyond the second say nothing.
            var extents = tensor.dimensions
            while extents.count > 2, extents.last == 1 { extents.removeLast() }
            while extents.count < 2 { extents.append(1) }
            let half = PairTable.Half(
                name: tensor.name, shape: extents.reversed(), type: TensorValues.canDecode(tensor.type) ? tensor.type : nil, typeName: tensor.type.name,
                range: tensor.offset..<tensor.offset + tensor.byteCount)
            try table.add(half, side: side, layer: layer, projection: projection)
        }
        let pairs = try table.pairs()
        var content = AdapterContent(pairs: [], storage: PairTable.storage(of: pairs), baseModelName: try string(baseNameKey, metadata))
        content.pairs.reserveCapacity(pairs.count)
        for pair in pairs {
            // As llama.cpp computes it: an alpha of 0 means none.
            let scale = alpha == 0 ? 1 : try PairTable.checkedScale(Double(alpha / Float(pair.rank)), "\(alphaKey) / rank of tensor \(shown(pair.b.name))")
            let (a, b) = try table.values(of: pair, scale: scale, in: bytes)
            content.pairs.append(LowRankPair(layer: pair.layer, projection: pair.projection, scale: scale, rank: pair.rank, a: a, b: b))
        }
        return content
    }

    private static func translating<T>(_ body: () throws(GGUFError) -> T) throws(AdapterError) -> T {
        do { return try body() } catch { throw AdapterError(.unreadable, error.message) }
    }

    private static func string(_ key: String, _ metadata: GGUFMetadata) throws(AdapterError) -> String? {
        try translating { () throws(GGUFError) in try metadata.string(key) }
    }

    /// Checks what the file says it is, and gives its alpha.
    private static func alpha(_ metadata: GGUFMetadata, _ base: ModelConfiguration) throws(AdapterError) -> Float {
        func found(_ text: String?) -> String { text.map { shown($0) } ?? "nothing" }
        let type = try string("general.type", metadata)
        guard type == "adapter" else {
            throw AdapterError(
                .unreadable, "general.type: found \(found(type)), expected 'adapter'; this GGUF file is a model or something else, no adapter")
        }
        let kind = try string("adapter.type", metadata)
        guard kind == "lora" else {
            throw AdapterError(.unsupported, "adapter.type: found \(found(kind)), expected 'lora'; other kinds of adapters are not supported")
        }
        if let key = metadata.keys.first(where: { $0.hasPrefix("adapter.alora.") }) {
            throw AdapterError(.unsupported, "\(shown(key)): activated LoRA is not supported, expected a plain LoRA adapter")
        }
        let architecture = try string("general.architecture", metadata)
        guard architecture == base.architecture.rawValue else {
            throw AdapterError(
                .wrongBase,
                "general.architecture: found \(found(architecture)), expected '\(base.architecture.rawValue)' as the base model has; the adapter was made for another model"
            )
        }
        let alpha = Float(try translating { () throws(GGUFError) in try metadata.number(alphaKey) } ?? 0)
        guard alpha.isFinite else { throw AdapterError(.unreadable, "\(alphaKey): found \(alpha), expected a finite number") }
        return alpha
    }

    private static func place(of name: String) throws(AdapterError) -> (Int, Projection, PairTable.Side) {
        let side: PairTable.Side? = name.hasSuffix(".lora_a") ? .a : name.hasSuffix(".lora_b") ? .b : nil
        guard let side else {
            throw AdapterError(.unsupported, "tensor \(shown(name)): expected a name that ends in .lora_a or .lora_b; its effect would be lost")
        }
        let tensor = name.dropLast(".lora_a".count)
        guard tensor != "token_embd.weight", tensor != "output.weight" else {
            throw AdapterError(
                .unsupported, "tensor \(shown(name)): adapters of embeddings and the output head are not supported; target the projections of the layers alone")
        }
        let words = tensor.split(separator: ".", maxSplits: 2, omittingEmptySubsequences: false)
        guard words.count == 3, words[0] == "blk", let layer = layerNumber(words[1]),
            let projection = Projection.allCases.first(where: { $0.tensorName == words[2] })
        else {
            let names = Projection.allCases.map(\.tensorName).joined(separator: ", ")
            throw AdapterError(.unsupported, "tensor \(shown(name)): expected blk.N. and one of \(names), then .lora_a or .lora_b")
        }
        return (layer, projection, side)
    }
}
