import GGUF
import Kernels

/// The frozen weights of one model, packed for the kernels. Immutable: the engine, and later the trainer, read the same object.
public final class LanguageModel: Sendable {
    package struct Layer: Sendable {
        package let attentionNorm: FloatVector
        package let q, k, v, o: WeightMatrix
        package let qBias, kBias, vBias, oBias: FloatVector?
        package let qNorm, kNorm: FloatVector?
        package let postAttentionNorm: FloatVector?
        package let feedForwardNorm: FloatVector
        package let gate, up, down: WeightMatrix
        package let postFeedForwardNorm: FloatVector?
    }

    public let configuration: ModelConfiguration
    package let embedding: WeightMatrix
    /// The output matrix; the embedding itself in models with a tied head.
    package let head: WeightMatrix
    package let outputNorm: FloatVector
    package let layers: [Layer]
    /// [rotaryDim / 2] of global layers, and of gemma3's local ones.
    package let inverseFrequencies, localInverseFrequencies: FloatVector

    public var hasTiedHead: Bool { head === embedding }

    /// Bytes of packed weights.
    public var byteCount: Int { bytesReadByAStep + (hasTiedHead ? 0 : embedding.byteCount) }

    /// Bytes of weights that a step reads with logits, however few its rows are; of the embeddings it looks up some lines only.
    public var bytesReadByAStep: Int {
        layers.reduce(head.byteCount) { sum, layer in
            sum + [layer.q, layer.k, layer.v, layer.o, layer.gate, layer.up, layer.down].reduce(0) { $0 + $1.byteCount }
        }
    }

    /// Parameters in matrices (norms and biases are left out: a rounding error).
    public var parameterCount: Int { layerParameterCount + configuration.vocabularySize * configuration.hiddenSize * (hasTiedHead ? 1 : 2) }

    /// Those of the layers: the multiply-adds that every token of a prompt takes.
    public var layerParameterCount: Int {
        configuration.layerCount
            * Projection.allCases.reduce(0) { sum, projection in
                let shape = configuration.shape(of: projection)
                return sum + shape.rows * shape.columns
            }
    }

    /// Reads every tensor and packs it.
    ///
    /// - Throws: `ModelingError` that names the key or tensor, what was found and what was expected.
    public init(file: GGUFFile, pool: ComputePool) throws(ModelingError) {
        let c = try ModelConfiguration(metadata: file.metadata)
        let reader = TensorReader(file: file, pool: pool)
        embedding = try reader.matrix("token_embd.weight", rows: c.vocabularySize, columns: c.hiddenSize)
        head = try reader.matrixIfPresent("output.weight", rows: c.vocabularySize, columns: c.hiddenSize) ?? embedding
        outputNorm = try reader.vector("output_norm.weight", count: c.hiddenSize)
        let isGemma = c.architecture == .gemma3
        let hasHeadNorms = isGemma || c.architecture == .qwen3
        var layers: [Layer] = []
        layers.reserveCapacity(c.layerCount)
        for i in 0..<c.layerCount {
            let p = "blk.\(i)."
            func matrix(_ name: String, _ projection: Projection) throws(ModelingError) -> WeightMatrix {
                let shape = c.shape(of: projection)
                return try reader.matrix(p + name + ".weight", rows: shape.rows, columns: shape.columns)
            }
            func bias(_ name: String, _ projection: Projection) throws(ModelingError) -> FloatVector? {
                try reader.vectorIfPresent(p + name + ".bias", count: c.shape(of: projection).rows)
            }
            layers.append(
                Layer(
                    attentionNorm: try reader.vector(p + "attn_norm.weight", count: c.hiddenSize),
                    q: try matrix("attn_q", .q), k: try matrix("attn_k", .k), v: try matrix("attn_v", .v), o: try matrix("attn_output", .o),
                    qBias: try bias("attn_q", .q), kBias: try bias("attn_k", .k), vBias: try bias("attn_v", .v), oBias: try bias("attn_output", .o),
                    qNorm: hasHeadNorms ? try reader.vector(p + "attn_q_norm.weight", count: c.headDim) : nil,
                    kNorm: hasHeadNorms ? try reader.vector(p + "attn_k_norm.weight", count: c.headDim) : nil,
                    postAttentionNorm: isGemma ? try reader.vector(p + "post_attention_norm.weight", count: c.hiddenSize) : nil,
                    feedForwardNorm: try reader.vector(p + "ffn_norm.weight", count: c.hiddenSize),
                    gate: try matrix("ffn_gate", .gate), up: try matrix("ffn_up", .up), down: try matrix("ffn_down", .down),
                    postFeedForwardNorm: isGemma ? try reader.vector(p + "post_ffw_norm.weight", count: c.hiddenSize) : nil))
        }
        self.layers = layers
        // Llama 3's scaling arrives as one divisor per pair.
        let divisors = try reader.vectorIfPresent("rope_freqs.weight", count: c.rotaryDim / 2)?.values
        inverseFrequencies = FloatVector(LanguageModel.frequencies(c.rotaryDim, theta: c.ropeTheta, scale: c.ropeScale, divisors: divisors))
        localInverseFrequencies = FloatVector(LanguageModel.frequencies(c.rotaryDim, theta: c.localRopeTheta, scale: 1, divisors: nil))
        configuration = c
        try reader.refuseUnknownTensors()
    }

    /// θ^(-2j/d) / (scale · divisor): in float32, as transformers computes it.
    private static func frequencies(_ dimensions: Int, theta: Float, scale: Float, divisors: [Float]?) -> [Float] {
        (0..<dimensions / 2).map { j in
            let frequency = 1 / power(theta, Float(2 * j) / Float(dimensions))
            return frequency / scale / (divisors?[j] ?? 1)
        }
    }
}
