import Kernels

/// The shape of a decoder-only transformer and the choices in which the supported architectures differ.
public struct ModelConfiguration: Sendable, Equatable {
    public enum Architecture: String, Sendable, CaseIterable {
        /// Llama 1–3, Mistral, SmolLM2 and everything else that is converted under this name.
        case llama
        /// Biases on q, k and v.
        case qwen2
        /// RMS norms on each head of q and k.
        case qwen3
        /// q/k norms, norms around both branches, GeGLU, scaled embeddings, five local layers for each global one.
        case gemma3
    }

    public var architecture: Architecture
    public var vocabularySize: Int
    /// The context that the model was trained for.
    public var contextLength: Int
    public var layerCount: Int
    public var hiddenSize: Int
    public var intermediateSize: Int
    public var headCount: Int
    public var kvHeadCount: Int
    public var headDim: Int
    /// Leading dimensions of a head that are rotated; even.
    public var rotaryDim: Int
    public var rmsEpsilon: Float
    public var ropeTheta: Float
    /// Positions are divided by this (linear scaling); 1 is none. In gemma3 it holds for global layers only.
    public var ropeScale: Float
    /// gemma3: the base frequency of local layers.
    public var localRopeTheta: Float
    /// gemma3: local layers see this many keys.
    public var slidingWindow: Int?
    /// gemma3: every n-th layer is global.
    public var slidingWindowPattern: Int
    public var attentionScale: Float
    public var embeddingScale: Float

    /// llama's converter interleaves the rows of q and k; the others keep Hugging Face's order.
    public var rotaryStyle: Compute.RotaryStyle { architecture == .llama ? .interleaved : .halves }
    public var gate: Compute.Gate { architecture == .gemma3 ? .geluTanh : .silu }

    /// The window of a layer; `nil` where it attends to everything before.
    public func window(layer: Int) -> Int? {
        guard let slidingWindow, (layer + 1) % slidingWindowPattern != 0 else { return nil }
        return slidingWindow
    }

    /// The layers that have one.
    public var windowedLayers: Set<Int> { Set((0..<layerCount).filter { window(layer: $0) != nil }) }
}

/// A projection's place in a layer.
public enum Projection: Int, Sendable, CaseIterable {
    case q, k, v, o, gate, up, down
}

extension ModelConfiguration {
    /// [rows, columns] = [out, in] of a projection.
    public func shape(of projection: Projection) -> (rows: Int, columns: Int) {
        switch projection {
        case .q: (headCount * headDim, hiddenSize)
        case .k, .v: (kvHeadCount * headDim, hiddenSize)
        case .o: (hiddenSize, headCount * headDim)
        case .gate, .up: (intermediateSize, hiddenSize)
        case .down: (hiddenSize, intermediateSize)
        }
    }
}

public struct ModelingError: Error, Sendable, CustomStringConvertible {
    public enum Code: Sendable, Equatable {
        case unsupportedArchitecture, missingMetadata, invalidMetadata, missingTensor, wrongShape, unreadable, outOfMemory
    }

    public let code: Code
    public let message: String

    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }

    public var description: String { message }
}
