import GGUF
import Kernels
import Modeling

extension GGUFAdapter {
    /// Writes an adapter such that reading it gives the same content, bit for bit, wherever the format's single alpha allows it.
    ///
    /// The file's scale of a pair is alpha / rank. Alpha is chosen so that as many pairs as possible have their own scale; the others get the ratio
    /// of the two multiplied into B, which rounds its numbers once.
    ///
    /// - Parameters:
    ///   - content: by layer, then projection; shaped for `base`.
    ///   - name: for `general.name`.
    public static func write(_ content: AdapterContent, base: ModelConfiguration, name: String) -> [UInt8] {
        let alpha = alpha(for: content.pairs)
        let isFolded = content.pairs.contains { fileScale(alpha, $0) != $0.scale }
        let storage = isFolded ? AdapterContent.Storage.float32 : content.losslessStorage
        var writer = GGUFWriter()
        writer.set("general.architecture", to: .string(base.architecture.rawValue))
        writer.set("general.type", to: .string("adapter"))
        writer.set("adapter.type", to: .string("lora"))
        writer.set("general.name", to: .string(name))
        if let baseName = content.baseModelName {
            writer.set("general.base_model.count", to: .uint32(1))
            writer.set(baseNameKey, to: .string(baseName))
        }
        writer.set("general.file_type", to: .uint32(storage.fileType))
        writer.set(alphaKey, to: .float32(alpha))
        for pair in content.pairs {
            let shape = base.shape(of: pair.projection)
            let tensor = "blk.\(pair.layer).\(pair.projection.tensorName)"
            let ratio = Double(pair.scale) / Double(fileScale(alpha, pair))
            let b = fileScale(alpha, pair) == pair.scale ? pair.b : pair.b.map { Float(Double($0) * ratio) }
            writer.add("\(tensor).lora_a", type: storage.type, dimensions: [shape.columns, pair.rank], bytes: bytes(pair.a, storage))
            writer.add("\(tensor).lora_b", type: storage.type, dimensions: [pair.rank, shape.rows], bytes: bytes(b, storage))
        }
        return writer.bytes()
    }

    private static func bytes(_ values: [Float], _ storage: AdapterContent.Storage) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(values.count * storage.type.blockBytes)
        TensorValues.append(values, as: storage.type, to: &bytes)
        return bytes
    }

    /// What a reader makes of the alpha; the same expression as in `read`.
    private static func fileScale(_ alpha: Float, _ pair: LowRankPair) -> Float { alpha / Float(pair.rank) }

    /// The alpha that gives the most pairs their own scale. It is never 0, which readers take for a scale of 1.
    private static func alpha(for pairs: [LowRankPair]) -> Float {
        var candidates: [Float] = []
        var seen: Set<Float> = []
        for pair in pairs {
            let product = Float(Double(pair.scale) * Double(pair.rank))
            // Divided by a rank that is no power of two, the nearest alpha may miss the scale by a rounding where its neighbour does not.
            for alpha in [product, product.nextUp, product.nextDown] where alpha.isNormal && fileScale(alpha, pair) == pair.scale && seen.insert(alpha).inserted
            {
                candidates.append(alpha)
            }
            if candidates.isEmpty, product.isNormal, seen.insert(product).inserted { candidates.append(product) }
        }
        func exactPairs(_ alpha: Float) -> Int { pairs.count { fileScale(alpha, $0) == $0.scale } }
        var best: (alpha: Float, count: Int) = (1, -1)
        for alpha in candidates {
            let count = exactPairs(alpha)
            if count > best.count { best = (alpha, count) }
        }
        return best.alpha
    }
}

extension AdapterContent.Storage {
    /// gguf-py's `LlamaFileType`.
    fileprivate var fileType: UInt32 {
        switch self {
        case .float32: 0
        case .float16: 1
        case .bfloat16: 32
        }
    }
}
