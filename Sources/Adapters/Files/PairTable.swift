import GGUF
import Kernels
import Modeling

/// Collects the halves of low-rank pairs as a file lists them, checks each against the base, and reads their numbers once all are known to fit.
/// Messages name tensors as the file does and give shapes row-major.
struct PairTable {
    struct Half {
        /// The tensor's name in the file.
        var name: String
        /// Row-major: A is [rank, in], B is [out, rank]. Of so few extents that messages may show them all; both formats' readers see to that.
        var shape: [Int]
        /// Nil when the file stores it in a type that is not read; `typeName` is for the message.
        var type: GGMLType?
        var typeName: String
        /// In bytes from the start of the file.
        var range: Range<Int>
    }

    enum Side: String {
        case a = "A", b = "B"
    }

    /// A pair whose halves have been found to fit the base and each other.
    struct Pair {
        var layer: Int
        var projection: Projection
        var a, b: Half
        var rank: Int { a.shape[0] }
    }

    /// What no sane adapter multiplies its product with; beyond it the sums of the projections lose all precision.
    static let largestScale: Float = 1_048_576
    /// No number of a trained adapter comes near to it, and products with larger ones overflow.
    static let largestMagnitude: Float = 1e30

    let base: ModelConfiguration
    private var halves: [(a: Half?, b: Half?)]

    init(base: ModelConfiguration) {
        self.base = base
        halves = Array(repeating: (nil, nil), count: base.layerCount * Projection.allCases.count)
    }

    mutating func add(_ half: Half, side: Side, layer: Int, projection: Projection) throws(AdapterError) {
        guard layer < base.layerCount else {
            throw AdapterError(
                .wrongBase,
                "tensor \(shown(half.name)): names layer \(layer), but the base model has layers 0 to \(base.layerCount - 1); the adapter was made for another model"
            )
        }
        try check(half, side, projection)
        let index = layer * Projection.allCases.count + projection.rawValue
        if let other = side == .a ? halves[index].a : halves[index].b {
            // Names are distinct by their bytes, but an adapter's name in them may be spelt in two equivalent ways.
            throw AdapterError(
                .unreadable,
                "tensors \(shown(other.name)) and \(shown(half.name)): both are \(side.rawValue) of layer \(layer)'s \(projection.moduleName), expected one; keep one adapter in the file"
            )
        }
        switch side {
        case .a: halves[index].a = half
        case .b: halves[index].b = half
        }
    }

    private func check(_ half: Half, _ side: Side, _ projection: Projection) throws(AdapterError) {
        guard half.type != nil else {
            throw AdapterError(
                .unsupported,
                "tensor \(shown(half.name)): found type \(half.typeName), expected F32, F16 or BF16 (in GGUF also Q8_0); save the adapter in one of these")
        }
        guard half.shape.count == 2 else {
            throw AdapterError(
                .unsupported, "tensor \(shown(half.name)): found shape \(half.shape), expected two dimensions; only adapters of linear layers are supported")
        }
        let wanted = base.shape(of: projection)
        let (rank, extent, expected) =
            side == .a ? (half.shape[0], half.shape[1], wanted.columns) : (half.shape[1], half.shape[0], wanted.rows)
        guard extent == expected else {
            let expectation = side == .a ? "[rank, \(expected)]" : "[\(expected), rank]"
            let isTransposed = rank == expected
            throw AdapterError(
                .wrongBase,
                "tensor \(shown(half.name)): found shape \(half.shape), expected \(expectation) for the base's \(projection.moduleName); "
                    + (isTransposed
                        ? "it would fit transposed, as mlx-lm stores it: convert the adapter to PEFT's layout" : "the adapter was made for another base model"))
        }
        guard rank > 0 else {
            throw AdapterError(.unreadable, "tensor \(shown(half.name)): found shape \(half.shape), expected a rank of 1 or more")
        }
        guard rank <= Adapter.maximumRank else {
            throw AdapterError(
                .unsupported, "tensor \(shown(half.name)): found rank \(rank), expected at most \(Adapter.maximumRank); train the adapter with a lower rank")
        }
    }

    /// By layer, then projection.
    func pairs() throws(AdapterError) -> [Pair] {
        var pairs: [Pair] = []
        for layer in 0..<base.layerCount {
            for projection in Projection.allCases {
                switch halves[layer * Projection.allCases.count + projection.rawValue] {
                case (nil, nil):
                    continue
                case (let half?, nil), (nil, let half?):
                    throw AdapterError(
                        .unreadable,
                        "tensor \(shown(half.name)): its other half is missing, expected A and B for layer \(layer)'s \(projection.moduleName); the file is incomplete"
                    )
                case (let a?, let b?):
                    guard a.shape[0] == b.shape[1] else {
                        throw AdapterError(
                            .unreadable,
                            "tensors \(shown(a.name)) and \(shown(b.name)): found ranks \(a.shape[0]) and \(b.shape[1]), expected the same; the file is damaged"
                        )
                    }
                    pairs.append(Pair(layer: layer, projection: projection, a: a, b: b))
                }
            }
        }
        guard !pairs.isEmpty else {
            throw AdapterError(.unreadable, "the file has no adapter tensors, expected a pair of A and B for at least one projection")
        }
        return pairs
    }

    /// Whether the file has anything for the projection.
    func has(layer: Int, projection: Projection) -> Bool {
        let (a, b) = halves[layer * Projection.allCases.count + projection.rawValue]
        return a != nil || b != nil
    }

    /// The numbers of both halves, all finite and so small that the projection of an input of ones cannot overflow.
    func values(of pair: Pair, scale: Float, in file: [UInt8]) throws(AdapterError) -> (a: [Float], b: [Float]) {
        let a = try Self.values(of: pair.a, in: file), b = try Self.values(of: pair.b, in: file)
        let magnitudeA = try Self.checkedMagnitude(a, of: pair.a), magnitudeB = try Self.checkedMagnitude(b, of: pair.b)
        let columns = base.shape(of: pair.projection).columns
        let bound = Double(magnitudeA) * Double(magnitudeB) * Double(abs(scale)) * Double(columns)
        guard bound <= Double(Float.greatestFiniteMagnitude) else {
            throw AdapterError(
                .unsupported,
                "tensors \(shown(pair.a.name)) and \(shown(pair.b.name)): found magnitudes of \(magnitudeA) and \(magnitudeB), which with the scale \(scale) over \(columns) columns may add up to \(bound), expected at most \(Float.greatestFiniteMagnitude); training diverged or the scale is wrong"
            )
        }
        return (a, b)
    }

    private static func values(of half: Half, in file: [UInt8]) throws(AdapterError) -> [Float] {
        guard let type = half.type else { preconditionFailure("a half of type \(half.typeName) was let in") }
        let values = TensorValues.decode(file, at: half.range, as: type)
        if let index = TensorValues.firstNonFinite(in: values) {
            throw AdapterError(
                .unreadable,
                "tensor \(shown(half.name)): found \(values[index]) at index \(index), expected finite numbers; training diverged or the file is damaged")
        }
        return values
    }

    private static func checkedMagnitude(_ values: [Float], of half: Half) throws(AdapterError) -> Float {
        let magnitude = TensorValues.largestMagnitude(in: values)
        guard magnitude <= largestMagnitude else {
            throw AdapterError(
                .unreadable,
                "tensor \(shown(half.name)): found a number of magnitude \(magnitude), expected at most \(largestMagnitude); training diverged or the file is damaged"
            )
        }
        return magnitude
    }

    static func checkedScale(_ scale: Double, _ subject: String) throws(AdapterError) -> Float {
        let rounded = Float(scale)
        guard rounded.isFinite, abs(rounded) <= largestScale else {
            throw AdapterError(.unsupported, "\(subject): found \(scale), expected a number from -\(Int(largestScale)) to \(Int(largestScale))")
        }
        return rounded
    }

    /// The narrowest storage that keeps what the file has: one type if all halves share it, else float32.
    static func storage(of pairs: [Pair]) -> AdapterContent.Storage {
        func all(_ type: GGMLType) -> Bool { pairs.allSatisfy { $0.a.type == type && $0.b.type == type } }
        if all(.f16) { return .float16 }
        return all(.bf16) ? .bfloat16 : .float32
    }
}

extension AdapterContent.Storage {
    var type: GGMLType {
        switch self {
        case .float32: .f32
        case .float16: .f16
        case .bfloat16: .bf16
        }
    }
}

extension AdapterContent {
    /// The storage that files are written in: the content's own where every number survives it, else float32.
    var losslessStorage: Storage {
        let isExact = pairs.allSatisfy { TensorValues.areExact($0.a, as: storage.type) && TensorValues.areExact($0.b, as: storage.type) }
        return isExact ? storage : .float32
    }
}
