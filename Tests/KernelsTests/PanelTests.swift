import CKernels
import Kernels
import Testing

/// Random matrices of every type: panels keep values, and every variant gives the generic twin's bits.
struct PanelTests {
    /// A matrix of random blocks whose scales are ordinary numbers.
    struct RandomMatrix {
        let type: GGMLType, rows: Int, columns: Int
        let bytes: [UInt8]

        init(_ type: GGMLType, rows: Int, columns: Int, seed: UInt64) {
            self.type = type
            self.rows = rows
            self.columns = columns
            var random = SplitMix(state: seed)
            var bytes = (0..<rows * columns / type.blockSize * type.blockBytes).map { _ in UInt8.random(in: 0...255, using: &random) }
            // The half-precision fields of a block, as offsets.
            let halves: [Int] =
                switch type {
                case .q4_1, .q5_1, .q4_K, .q5_K: [0, 2]
                case .q2_K: [80, 82]
                case .q3_K: [108]
                case .q6_K: [208]
                case .f32, .f16, .bf16: []
                default: [0]
                }
            for block in stride(from: 0, to: bytes.count, by: type.blockBytes) {
                for offset in halves {
                    let half = Float16(Float.random(in: -0.02...0.02, using: &random)).bitPattern
                    bytes[block + offset] = UInt8(half & 255)
                    bytes[block + offset + 1] = UInt8(half >> 8)
                }
                guard halves.isEmpty else { continue }
                let value = Float.random(in: -2...2, using: &random)
                let pattern = type == .f32 ? value.bitPattern : type == .f16 ? UInt32(Float16(value).bitPattern) : value.bitPattern >> 16
                for i in 0..<type.blockBytes { bytes[block + i] = UInt8(pattern >> (8 * i) & 255) }
            }
            self.bytes = bytes
        }

        /// The reference dequantisation, which is checked against PyPI's `gguf`.
        var values: [Float] {
            var values = [Float](repeating: 0, count: rows * columns)
            bytes.withUnsafeBytes { graft_dequantize_row(Int32(type.rawValue), $0.baseAddress, &values, rows * columns) }
            return values
        }

        func packed(_ pool: ComputePool) throws -> WeightMatrix {
            try bytes.withUnsafeBytes { try WeightMatrix(type: type, rows: rows, columns: columns, source: $0.baseAddress!, pool: pool) }
        }
    }

    struct SplitMix: RandomNumberGenerator {
        var state: UInt64

        mutating func next() -> UInt64 {
            state &+= 0x9e37_79b9_7f4a_7c15
            var z = state
            z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
            z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
            return z ^ (z >> 31)
        }
    }

    static let quantized: [GGMLType] = GGMLType.allCases.filter { $0.blockSize > 1 }

    @Test(arguments: GGMLType.allCases)
    func repackingKeepsEveryBit(type: GGMLType) throws {
        let pool = try ComputePool(threads: 2)
        // 37 rows: the last panel is ragged.
        let source = RandomMatrix(type, rows: 37, columns: 512, seed: UInt64(type.rawValue) + 1)
        let matrix = try source.packed(pool), expected = source.values
        for variant in KernelVariant.available {
            var tile = [Float](repeating: 0, count: 37 * 512)
            matrix.expandTile(rows: 0..<37, columns: 0..<512, into: &tile, variant: variant)
            #expect(tile.map(\.bitPattern) == expected.map(\.bitPattern), "\(type.name) expanded by \(variant)")
            var part = [Float](repeating: 0, count: 16 * 96)
            matrix.expandTile(rows: 16..<32, columns: 64..<160, into: &part, variant: variant)
            for r in 0..<16 {
                #expect(Array(part[r * 96..<(r + 1) * 96]) == Array(expected[(16 + r) * 512 + 64..<(16 + r) * 512 + 160]), "\(type.name), row \(r) of a tile")
            }
        }
        var row = [Float](repeating: 0, count: 512)
        for r in [0, 15, 16, 36] {
            matrix.copyRow(r, to: &row)
            #expect(row.map(\.bitPattern) == expected[r * 512..<(r + 1) * 512].map(\.bitPattern), "\(type.name), row \(r)")
        }
    }

    @Test func bfloat16TilesAreRoundedPairs() throws {
        let pool = try ComputePool(threads: 1)
        let source = RandomMatrix(.q4_K, rows: 32, columns: 256, seed: 5), expected = source.values
        let matrix = try source.packed(pool)
        var tile = [UInt16](repeating: 0, count: 32 * 256)
        matrix.expandTile(rows: 0..<32, columns: 0..<256, intoPairs: &tile, variant: try KernelVariant())
        for r in 0..<32 {
            for k in 0..<256 {
                let found = Float(bitPattern: UInt32(tile[(r / 2 * 256 + k) * 2 + r % 2]) << 16), value = expected[r * 256 + k]
                #expect(abs(found - value) <= abs(value) / 256)
            }
        }
    }

    @Test(arguments: quantized)
    func integerDotsEqualTheGenericTwin(type: GGMLType) throws {
        let pool = try ComputePool(threads: 1)
        let source = RandomMatrix(type, rows: 16, columns: 256, seed: 77)
        let matrix = try source.packed(pool)
        var random = SplitMix(state: 9)
        // Extreme activations: sums that a saturating instruction would cut off.
        for amplitude: Float in [1, 0] {
            let x = (0..<256).map { _ in amplitude == 0 ? (Bool.random(using: &random) ? Float(1) : -1) : Float.random(in: -1...1, using: &random) }
            var results: [[Int32]] = []
            for variant in KernelVariant.available {
                let layout = graft_activation_layout_for(256)
                var dots = [Int32](repeating: 0, count: 16 * 16)
                withUnsafeTemporaryAllocation(byteCount: Int(layout.bytes), alignment: 64) { row in
                    let row = row.baseAddress!.assumingMemoryBound(to: UInt8.self)
                    variant.table.pointee.quantize_row(x, 256, row)
                    var panels = matrix.panels
                    variant.table.pointee.panel_dots(&panels, 0, row, &dots)
                }
                results.append(dots)
            }
            for (variant, dots) in zip(KernelVariant.available, results) { #expect(dots == results.last!, "\(type.name) by \(variant)") }
        }
    }

    /// One part of a product on `tokens` rows.
    static func multiply(_ matrix: WeightMatrix, _ x: [Float], tokens: Int, variant: KernelVariant, pool: ComputePool, quantized: Bool) throws -> [Float] {
        let input = try FloatRows(capacity: tokens, width: matrix.columns), output = try FloatRows(capacity: tokens, width: matrix.rows)
        for (i, value) in x.prefix(tokens * matrix.columns).enumerated() { input.pointer[i] = value }
        let compute = Compute(variant: variant, pool: pool)
        var product: Compute.Product
        if quantized {
            let rows = try QuantizedRows(capacity: tokens, width: matrix.columns)
            compute.quantize(input, count: tokens, to: rows)
            product = Compute.Product(rows, count: tokens)
        } else {
            product = Compute.Product(input, count: tokens)
        }
        product.add(matrix, to: output)
        compute.multiply(product)
        return (0..<tokens * matrix.rows).map { output.pointer[$0] }
    }

    @Test(arguments: GGMLType.allCases)
    func variantsThreadsAndCompanyGiveEqualBits(type: GGMLType) throws {
        let one = try ComputePool(threads: 1), two = try ComputePool(threads: 2)
        let source = RandomMatrix(type, rows: 85, columns: 256, seed: 3)
        let matrix = try source.packed(two)
        var random = SplitMix(state: 4)
        let tokens = 13
        let x = (0..<tokens * 256).map { _ in Float.random(in: -3...3, using: &random) }
        for quantized in matrix.isQuantized ? [true, false] : [false] {
            let reference = try PanelTests.multiply(matrix, x, tokens: tokens, variant: KernelVariant(forced: "generic"), pool: one, quantized: quantized)
            for variant in KernelVariant.available {
                for count in [1, 2, 3, 5, 6, 7, 12, 13] {
                    let found = try PanelTests.multiply(matrix, x, tokens: count, variant: variant, pool: two, quantized: quantized)
                    #expect(found.map(\.bitPattern) == reference.prefix(count * 85).map(\.bitPattern), "\(type.name), \(variant), \(count) rows, quantised: \(quantized)")
                }
            }
            // And the reference is the product: within rounding in float32, within the activations' 8 bits otherwise.
            let values = source.values
            for t in 0..<tokens {
                for r in 0..<85 {
                    var sum = 0.0, magnitude = 0.0
                    for k in 0..<256 {
                        let term = Double(values[r * 256 + k]) * Double(x[t * 256 + k])
                        sum += term
                        magnitude += abs(Double(values[r * 256 + k]))
                    }
                    let bound = quantized ? magnitude * 3 / 254 * 1.01 + 1e-3 : magnitude * 3 * 1e-6 + 1e-6
                    #expect(abs(Double(reference[t * 85 + r]) - sum) <= bound, "\(type.name), row \(r), token \(t)")
                }
            }
        }
    }

    /// Enough rows for the weights to be expanded once for all of them: several blocks of rows, slabs of columns, groups of panels.
    @Test(arguments: quantized)
    func manyRowsGiveTheBitsOfFew(type: GGMLType) throws {
        let one = try ComputePool(threads: 1), two = try ComputePool(threads: 2)
        let matrix = try RandomMatrix(type, rows: 150, columns: 1024, seed: 13).packed(two)
        var random = SplitMix(state: 6)
        let tokens = 140
        let x = (0..<tokens * 1024).map { _ in Float.random(in: -3...3, using: &random) }
        // Row by row, each alone.
        let reference = try (0..<tokens).flatMap { t in
            try PanelTests.multiply(matrix, Array(x[t * 1024..<(t + 1) * 1024]), tokens: 1, variant: KernelVariant(forced: "generic"), pool: one, quantized: true)
        }
        for variant in KernelVariant.available {
            for (count, pool) in [(24, one), (27, two), (128, two), (129, one), (140, two)] {
                let found = try PanelTests.multiply(matrix, x, tokens: count, variant: variant, pool: pool, quantized: true)
                #expect(found.map(\.bitPattern) == reference.prefix(count * 150).map(\.bitPattern), "\(type.name), \(variant), \(count) rows")
            }
        }
    }
}
