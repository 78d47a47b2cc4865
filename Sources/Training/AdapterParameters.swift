import Kernels
import Modeling

/// Where the numbers of a trained adapter lie in one array: per layer and stage, the A's of its projections one after another, each [rank, in], so that
/// one product reads them all; then their B's, each transposed to [rank, out]. A and B then have gradients of one form.
struct AdapterLayout {
    struct Slot {
        var layer: Int
        var projection: Projection
        var rank: Int
        /// alpha / rank, or alpha / √rank.
        var scale: Float
        /// Of A [rank, in] and of the transposed B [rank, out].
        var a: Int, b: Int
        /// Its first number among the stage's hidden ones.
        var column: Int
        var shape: (rows: Int, columns: Int)
    }

    struct Stage {
        var slots: [Slot]
        /// Of all ranks.
        var rank: Int
        var a: Int
    }

    /// By `layer · stages + stage`.
    private let stages: [Stage?]
    let slots: [Slot]
    /// Numbers in all.
    let count: Int
    let lowestLayer: Int
    /// Of each stage, over all layers.
    let widestRank: [Int]

    /// - Parameter pairs: rank and scale of each projection of each layer; at least one.
    init(_ configuration: ModelConfiguration, pairs: [(layer: Int, projection: Projection, rank: Int, scale: Float)]) {
        var stages: [Stage?] = []
        var slots: [Slot] = []
        var end = 0
        for layer in 0..<configuration.layerCount {
            for stage in ProjectionStage.allCases {
                var members: [Slot] = []
                let start = end
                var column = 0
                for projection in stage.projections {
                    guard let pair = pairs.first(where: { $0.layer == layer && $0.projection == projection }) else { continue }
                    let shape = configuration.shape(of: projection)
                    members.append(
                        Slot(layer: layer, projection: projection, rank: pair.rank, scale: pair.scale, a: end, b: 0, column: column, shape: shape))
                    end += pair.rank * shape.columns
                    column += pair.rank
                }
                for i in members.indices {
                    members[i].b = end
                    end += members[i].rank * members[i].shape.rows
                }
                stages.append(members.isEmpty ? nil : Stage(slots: members, rank: column, a: start))
                slots += members
            }
        }
        precondition(!slots.isEmpty, "an adapter without pairs")
        self.stages = stages
        self.slots = slots
        count = end
        lowestLayer = slots[0].layer
        widestRank = ProjectionStage.allCases.map { stage in
            stride(from: stage.rawValue, to: stages.count, by: ProjectionStage.allCases.count).reduce(0) { max($0, stages[$1]?.rank ?? 0) }
        }
    }

    func stage(_ stage: ProjectionStage, layer: Int) -> Stage? { stages[layer * ProjectionStage.allCases.count + stage.rawValue] }
}

/// The numbers of an adapter under training, with their gradients and moments.
final class AdapterParameters {
    let layout: AdapterLayout
    private let memory: [FloatRows]
    let values, gradients, firstMoments, secondMoments: UnsafeMutablePointer<Float>

    init(layout: AdapterLayout) throws(KernelError) {
        self.layout = layout
        var memory: [FloatRows] = []
        for _ in 0..<4 { memory.append(try FloatRows(capacity: 1, width: layout.count)) }
        self.memory = memory
        (values, gradients, firstMoments, secondMoments) = (memory[0].pointer, memory[1].pointer, memory[2].pointer, memory[3].pointer)
    }

    /// A new adapter: A uniform in ±1/√in (PEFT's initialisation), B zero, so that step 0 is the base.
    func initialise(seed: UInt64) {
        var random = SplitMix(seed: SplitMix.mix(seed, 0x6c6f_7261))
        for slot in layout.slots {
            let bound = 1 / Float(slot.shape.columns).squareRoot()
            for i in 0..<slot.rank * slot.shape.columns { values[slot.a + i] = (2 * random.nextUnit() - 1) * bound }
            for i in 0..<slot.rank * slot.shape.rows { values[slot.b + i] = 0 }
        }
    }

    func set(_ pairs: [LowRankPair]) {
        for slot in layout.slots {
            guard let pair = pairs.first(where: { $0.layer == slot.layer && $0.projection == slot.projection }) else { continue }
            precondition(pair.rank == slot.rank && pair.a.count == slot.rank * slot.shape.columns && pair.b.count == slot.rank * slot.shape.rows)
            for i in pair.a.indices { values[slot.a + i] = pair.a[i] }
            for row in 0..<slot.shape.rows {
                for j in 0..<slot.rank { values[slot.b + j * slot.shape.rows + row] = pair.b[row * slot.rank + j] }
            }
        }
    }

    /// The numbers at `source` (values or gradients) as pairs.
    func pairs(of source: UnsafeMutablePointer<Float>) -> [LowRankPair] {
        layout.slots.map { slot in
            let a = Array(UnsafeBufferPointer(start: source + slot.a, count: slot.rank * slot.shape.columns))
            var b = [Float](repeating: 0, count: slot.rank * slot.shape.rows)
            for row in 0..<slot.shape.rows {
                for j in 0..<slot.rank { b[row * slot.rank + j] = source[slot.b + j * slot.shape.rows + row] }
            }
            return LowRankPair(layer: slot.layer, projection: slot.projection, scale: slot.scale, rank: slot.rank, a: a, b: b)
        }
    }

    func clearGradients() { gradients.update(repeating: 0, count: layout.count) }
}

/// A small generator with 64 bits of state (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
struct SplitMix {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        return SplitMix.scramble(state)
    }

    /// 0 ..< 1, in steps of 2⁻²⁴.
    mutating func nextUnit() -> Float { Float(next() >> 40) * 0x1p-24 }

    /// 0 ..< bound, which is not 0; each equally likely (Lemire, arXiv 1805.10941).
    mutating func next(below bound: UInt64) -> UInt64 {
        var product = next().multipliedFullWidth(by: bound)
        if product.low < bound {
            let least = (0 &- bound) % bound
            while product.low < least { product = next().multipliedFullWidth(by: bound) }
        }
        return product.high
    }

    private static func scramble(_ x: UInt64) -> UInt64 {
        var z = x
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }

    static func mix(_ a: UInt64, _ b: UInt64) -> UInt64 { scramble(scramble(a &+ 0x9e37_79b9_7f4a_7c15) ^ b) }
}
