import GGUF
import Kernels

/// The only place that knows the model keys of GGUF metadata (gguf-py's `constants.py` lists them).
extension ModelConfiguration {
    public init(metadata: GGUFMetadata) throws(ModelingError) {
        let reader = KeyReader(metadata)
        guard let name = try reader.string("general.architecture") else {
            throw ModelingError(.missingMetadata, "general.architecture: absent; this GGUF file does not say what model it holds")
        }
        guard let architecture = Architecture(rawValue: name) else {
            throw ModelingError(
                .unsupportedArchitecture,
                "general.architecture: found '\(name)', expected one of \(Architecture.allCases.map(\.rawValue).joined(separator: ", "))")
        }
        let prefix = name + "."
        self.architecture = architecture
        layerCount = try reader.count(prefix + "block_count", in: 1...4096)
        hiddenSize = try reader.count(prefix + "embedding_length", in: 16...1 << 20)
        intermediateSize = try reader.count(prefix + "feed_forward_length", in: 16...1 << 22)
        headCount = try reader.count(prefix + "attention.head_count", in: 1...4096)
        kvHeadCount = try reader.count(prefix + "attention.head_count_kv", in: 1...4096, otherwise: headCount)
        guard headCount % kvHeadCount == 0 else {
            throw ModelingError(.invalidMetadata, "\(prefix)attention.head_count_kv: found \(kvHeadCount), expected a divisor of the \(headCount) query heads")
        }
        guard headCount / kvHeadCount <= KVCache.maximumGroup else {
            throw ModelingError(
                .invalidMetadata,
                "\(prefix)attention.head_count: found \(headCount) query heads on \(kvHeadCount) heads of keys, expected at most \(KVCache.maximumGroup) on each")
        }
        contextLength = try reader.count(prefix + "context_length", in: 1...1 << 27)
        headDim = try reader.count(prefix + "attention.key_length", in: 16...256, otherwise: hiddenSize / headCount)
        guard headDim % 16 == 0, headDim <= 256 else {
            throw ModelingError(.invalidMetadata, "\(prefix)attention.key_length: found \(headDim), expected a multiple of 16 up to 256")
        }
        let valueDim = try reader.count(prefix + "attention.value_length", in: 1...4096, otherwise: headDim)
        guard valueDim == headDim else {
            throw ModelingError(.invalidMetadata, "\(prefix)attention.value_length: found \(valueDim), expected \(headDim), the length of keys")
        }
        rotaryDim = try reader.count(prefix + "rope.dimension_count", in: 2...headDim, otherwise: headDim)
        guard rotaryDim % 2 == 0 else {
            throw ModelingError(.invalidMetadata, "\(prefix)rope.dimension_count: found \(rotaryDim), expected an even number")
        }
        rmsEpsilon = try reader.positive(prefix + "attention.layer_norm_rms_epsilon")
        ropeTheta = try reader.positive(prefix + "rope.freq_base", otherwise: architecture == .gemma3 ? 1_000_000 : 10_000)
        localRopeTheta = try reader.positive(prefix + "rope.freq_base_swa", otherwise: 10_000)
        switch try reader.string(prefix + "rope.scaling.type") ?? "none" {
        case "none": ropeScale = 1
        case "linear": ropeScale = try reader.positive(prefix + "rope.scaling.factor")
        case let other:
            throw ModelingError(.invalidMetadata, "\(prefix)rope.scaling.type: found '\(other)', expected none or linear (Llama 3's scaling comes as the tensor rope_freqs.weight)")
        }
        if try reader.string(prefix + "rope.scaling.type") == nil {
            // Older converters write the factor alone.
            ropeScale = try reader.positive(prefix + "rope.scale_linear", otherwise: 1)
        }
        if architecture == .gemma3 {
            slidingWindow = try reader.count(prefix + "attention.sliding_window", in: 1...1 << 27)
            slidingWindowPattern = try reader.count(prefix + "attention.sliding_window_pattern", in: 1...4096, otherwise: 6)
            embeddingScale = Float(hiddenSize).squareRoot()
        } else {
            slidingWindow = nil
            slidingWindowPattern = 1
            embeddingScale = 1
        }
        // Gemma 3 27B, the one with 62 layers, scales by its width per head, and the file does not say so.
        let scaledDim = architecture == .gemma3 && layerCount == 62 ? hiddenSize / headCount : headDim
        attentionScale = try reader.positive(prefix + "attention.scale", otherwise: 1 / Float(scaledDim).squareRoot())
        vocabularySize = try reader.vocabularySize(prefix)
        for unsupported in ["expert_count"] where try reader.count(prefix + unsupported, in: 0...Int(Int32.max), otherwise: 0) > 0 {
            throw ModelingError(.unsupportedArchitecture, "\(prefix)\(unsupported): mixtures of experts are not supported, expected a dense model")
        }
    }
}

/// Typed look-ups whose errors name the key, what was found and what was expected.
private struct KeyReader {
    let metadata: GGUFMetadata

    init(_ metadata: GGUFMetadata) {
        self.metadata = metadata
    }

    private func translating<T>(_ body: () throws(GGUFError) -> T) throws(ModelingError) -> T {
        do { return try body() } catch { throw ModelingError(.invalidMetadata, error.message) }
    }

    func string(_ key: String) throws(ModelingError) -> String? {
        try translating { () throws(GGUFError) in try metadata.string(key) }
    }

    func count(_ key: String, in range: ClosedRange<Int>, otherwise: Int? = nil) throws(ModelingError) -> Int {
        guard let value = try translating({ () throws(GGUFError) in try metadata.integer(key) }) ?? otherwise else {
            throw ModelingError(.missingMetadata, "\(key): absent, expected an integer from \(range.lowerBound) to \(range.upperBound)")
        }
        guard range.contains(value) else {
            throw ModelingError(.invalidMetadata, "\(key): found \(value), expected \(range.lowerBound) to \(range.upperBound)")
        }
        return value
    }

    func positive(_ key: String, otherwise: Float? = nil) throws(ModelingError) -> Float {
        let found = try translating { () throws(GGUFError) in try metadata.number(key) }
        guard let value = found.map({ Float($0) }) ?? otherwise else {
            throw ModelingError(.missingMetadata, "\(key): absent, expected a positive number")
        }
        guard value.isFinite, value > 0 else {
            throw ModelingError(.invalidMetadata, "\(key): found \(value), expected a positive number")
        }
        return value
    }

    func vocabularySize(_ prefix: String) throws(ModelingError) -> Int {
        if case .array(let tokens) = metadata["tokenizer.ggml.tokens"] { return tokens.count }
        return try count(prefix + "vocab_size", in: 1...1 << 24)
    }
}
