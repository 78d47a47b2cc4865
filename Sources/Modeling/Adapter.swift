import Kernels

/// A low-rank change of a model's projections (LoRA, arXiv 2106.09685): W x becomes W x + scale · B (A x). Immutable; a sequence pins the
/// object that it started with.
public final class Adapter: Sendable {
    /// One projection's pair, A [rank, in] and B [out, rank], in float32.
    public struct Delta: Sendable {
        public let a, b: WeightMatrix
        /// alpha / rank, or alpha / √rank for rsLoRA.
        public let scale: Float

        public init(a: WeightMatrix, b: WeightMatrix, scale: Float) {
            precondition(a.rows == b.columns && !a.isQuantized && !b.isQuantized, "A [rank, in] and B [out, rank] in float")
            self.a = a
            self.b = b
            self.scale = scale
        }

        public var rank: Int { a.rows }
    }

    public let name: String
    public let version: Int
    /// Digest of the adapter's content: caches are keyed by it, never by the name.
    public let digest: String
    private let deltas: [Delta?]
    public let maximumRank: Int

    /// - Parameter deltas: by layer and projection.
    public init(name: String, version: Int, digest: String, configuration: ModelConfiguration, deltas given: [(layer: Int, projection: Projection, delta: Delta)]) {
        var table = [Delta?](repeating: nil, count: configuration.layerCount * Projection.allCases.count)
        for (layer, projection, delta) in given {
            let shape = configuration.shape(of: projection)
            precondition(delta.a.columns == shape.columns && delta.b.rows == shape.rows, "a delta of another shape than its projection")
            table[layer * Projection.allCases.count + projection.rawValue] = delta
        }
        self.name = name
        self.version = version
        self.digest = digest
        deltas = table
        maximumRank = given.map(\.delta.rank).max() ?? 0
    }

    func delta(layer: Int, projection: Projection) -> Delta? {
        deltas[layer * Projection.allCases.count + projection.rawValue]
    }
}

/// The adapters of one sequence with their weights: empty is the bare model.
public struct AdapterSet: Sendable {
    public let parts: [(adapter: Adapter, weight: Float)]

    public init(_ parts: [(adapter: Adapter, weight: Float)] = []) {
        self.parts = parts
    }

    public static let none = AdapterSet()

    public var isEmpty: Bool { parts.isEmpty }
}
