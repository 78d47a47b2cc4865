import Kernels

/// One projection's low-rank change: W x becomes W x + scale · B (A x) (LoRA, arXiv 2106.09685).
public struct LowRankPair: Sendable, Equatable {
    public var layer: Int
    public var projection: Projection
    /// alpha / rank, or alpha / √rank for rsLoRA.
    public var scale: Float
    public var rank: Int
    /// A [rank, in], row-major.
    public var a: [Float]
    /// B [out, rank], row-major, rows in the order of the base's own rows.
    public var b: [Float]

    public init(layer: Int, projection: Projection, scale: Float, rank: Int, a: [Float], b: [Float]) {
        self.layer = layer
        self.projection = projection
        self.scale = scale
        self.rank = rank
        self.a = a
        self.b = b
    }
}

/// Projections that share their input: their adapters' A's are multiplied together.
package enum ProjectionStage: Int, CaseIterable, Sendable {
    case attentionInput, attentionOutput, feedForwardInput, feedForwardOutput

    /// In the order of their places in the stage.
    package var projections: [Projection] {
        switch self {
        case .attentionInput: [.q, .k, .v]
        case .attentionOutput: [.o]
        case .feedForwardInput: [.gate, .up]
        case .feedForwardOutput: [.down]
        }
    }

    func number(layer: Int) -> Int { layer * ProjectionStage.allCases.count + rawValue }
}

extension Projection {
    /// Its place among the projections of its stage.
    var place: Int {
        switch self {
        case .q, .o, .gate, .down: 0
        case .k, .up: 1
        case .v: 2
        }
    }
}

/// An adapter, packed for the kernels. Immutable; a sequence pins the object that it started with, and the last user frees its memory.
///
/// For fast numerics its matrices are held in 8 bits, for exact ones (and for inputs whose width is no multiple of 32) in float32.
public final class Adapter: Sendable {
    /// The widest pair that the engine takes.
    public static let maximumRank = LowRankStages.maximumRank

    struct Delta: Sendable {
        let a, b: WeightMatrix
        let scale: Float
        var rank: Int { a.rows }
    }

    public let name: String
    public let version: Int
    /// Digest of the adapter's content: caches are keyed by it, never by the name.
    public let digest: String
    /// Of packed memory.
    public let byteCount: Int
    let stages: LowRankStages?
    private let deltas: [Delta?]
    /// Whether any pair is held in float32.
    let hasDeltas: Bool

    /// Packs on the caller's thread.
    ///
    /// - Parameter pairs: at most one for each layer and projection; their shapes must be the configuration's, their ranks 1…`maximumRank`.
    /// - Throws: `KernelError.outOfMemory`.
    public init(name: String, version: Int, digest: String, configuration: ModelConfiguration, numerics: Numerics, pairs: [LowRankPair]) throws(KernelError) {
        var table = [Delta?](repeating: nil, count: configuration.layerCount * Projection.allCases.count)
        var packed = [[LowRankStages.Pair]](repeating: [], count: configuration.layerCount * ProjectionStage.allCases.count)
        var bytes = 0
        for pair in pairs {
            let shape = configuration.shape(of: pair.projection)
            precondition((0..<configuration.layerCount).contains(pair.layer) && (1...Adapter.maximumRank).contains(pair.rank), "layer \(pair.layer), rank \(pair.rank)")
            precondition(pair.a.count == pair.rank * shape.columns && pair.b.count == shape.rows * pair.rank, "a pair of another shape than its projection")
            if numerics == .fast, shape.columns % 32 == 0 {
                let stage = ProjectionStage.allCases.first { $0.projections.contains(pair.projection) }!
                packed[stage.number(layer: pair.layer)].append(
                    LowRankStages.Pair(place: pair.projection.place, rank: pair.rank, scale: pair.scale, a: pair.a, b: pair.b))
            } else {
                let a = try WeightMatrix(rows: pair.rank, columns: shape.columns, values: pair.a)
                let b = try WeightMatrix(rows: shape.rows, columns: pair.rank, values: pair.b)
                bytes += a.byteCount + b.byteCount
                table[pair.layer * Projection.allCases.count + pair.projection.rawValue] = Delta(a: a, b: b, scale: pair.scale)
            }
        }
        if packed.contains(where: { !$0.isEmpty }) {
            let widths = (0..<configuration.layerCount).flatMap { _ in
                ProjectionStage.allCases.map { stage in
                    // A stage of such a width is empty; the table wants a width all the same.
                    let width = configuration.shape(of: stage.projections[0]).columns
                    return width % 32 == 0 ? width : 32
                }
            }
            let stages = try LowRankStages(stages: packed, widths: widths)
            bytes += stages.byteCount
            self.stages = stages
        } else {
            stages = nil
        }
        self.name = name
        self.version = version
        self.digest = digest
        byteCount = bytes
        deltas = table
        hasDeltas = table.contains { $0 != nil }
    }

    func delta(layer: Int, projection: Projection) -> Delta? {
        deltas[layer * Projection.allCases.count + projection.rawValue]
    }
}

/// The adapters of one sequence with their weights: empty is the bare model.
public struct AdapterSet: Sendable {
    /// The most adapters that one sequence blends.
    public static let maximumCount = 8

    public let parts: [(adapter: Adapter, weight: Float)]

    public init(_ parts: [(adapter: Adapter, weight: Float)] = []) {
        precondition(parts.count <= AdapterSet.maximumCount, "\(parts.count) adapters on one sequence, at most \(AdapterSet.maximumCount)")
        self.parts = parts
    }

    public static let none = AdapterSet()

    public var isEmpty: Bool { parts.isEmpty }
}
