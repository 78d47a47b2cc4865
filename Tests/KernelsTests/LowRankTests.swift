import Kernels
import Testing

/// Low-rank adapters fused with the base product: equal bits for every variant, thread count and company, close to the float equation.
struct LowRankTests {
    typealias SplitMix = PanelTests.SplitMix

    struct Pair {
        var place: Int, rows: Int, rank: Int, scale: Float
        var a: [Float], b: [Float]

        init(_ place: Int, rows: Int, width: Int, rank: Int, scale: Float, magnitude: Float = 1, _ random: inout SplitMix) {
            (self.place, self.rows, self.rank, self.scale) = (place, rows, rank, scale)
            a = (0..<rank * width).map { _ in Float.random(in: -0.05...0.05, using: &random) * magnitude }
            b = (0..<rows * rank).map { _ in Float.random(in: -0.1...0.1, using: &random) / magnitude }
        }

        var packed: LowRankStages.Pair { LowRankStages.Pair(place: place, rank: rank, scale: scale, a: a, b: b) }

        /// scale · B (A x) in double precision.
        func change(_ x: [Float]) -> [Double] {
            func dot(_ u: ArraySlice<Float>, _ v: [Double]) -> Double { zip(u, v).reduce(0) { $0 + Double($1.0) * $1.1 } }
            let wide = x.map(Double.init)
            let h = (0..<rank).map { dot(a[$0 * x.count..<($0 + 1) * x.count], wide) }
            return (0..<rows).map { Double(scale) * dot(b[$0 * rank..<($0 + 1) * rank], h) }
        }
    }

    static func matrix(_ type: GGMLType, rows: Int, columns: Int, _ random: inout SplitMix) throws -> WeightMatrix {
        let pool = try ComputePool(threads: 1)
        if type == .f32 { return try WeightMatrix(rows: rows, columns: columns, values: (0..<rows * columns).map { _ in Float.random(in: -1...1, using: &random) }) }
        var bytes = (0..<rows * columns / type.blockSize * type.blockBytes).map { _ in UInt8.random(in: 0...255, using: &random) }
        // Q8_0: a half scale of about 2⁻⁸ at the head of every block.
        for block in stride(from: 0, to: bytes.count, by: type.blockBytes) { (bytes[block], bytes[block + 1]) = (0, 0x1c) }
        return try bytes.withUnsafeBytes { try WeightMatrix(type: type, rows: rows, columns: columns, source: $0.baseAddress!, pool: pool) }
    }

    /// Three matrices of a stage over rows of `width`; `adapters[i]` are those of row i.
    static func run(
        _ matrices: [WeightMatrix], _ x: FloatRows, count: Int, adapters: [[(stages: LowRankStages, weight: Float)]], accumulating: Bool = false, _ compute: Compute
    ) throws -> [Float] {
        let quantized = try QuantizedRows(capacity: count, width: x.width), rows = try LowRankRows(capacity: count, maximumTerms: 4)
        for terms in adapters { rows.append(rows: 1, terms) }
        let stage = rows.isEmpty ? nil : LowRankStage(rows, 1)
        compute.quantize(x, count: count, to: quantized, lowRank: stage)
        let outputs = try matrices.map { try FloatRows(capacity: count, width: $0.rows) }
        for output in outputs { for i in 0..<count * output.width { output.pointer[i] = 0.5 } }
        var integers = Compute.Product(quantized, count: count), floats = Compute.Product(x, count: count)
        for (place, matrix) in matrices.enumerated() {
            if matrix.isQuantized { integers.add(matrix, to: outputs[place], place: place) } else { floats.add(matrix, to: outputs[place], place: place) }
        }
        if !integers.isEmpty { compute.multiply(integers, accumulating: accumulating, lowRank: stage) }
        if !floats.isEmpty { compute.multiply(floats, accumulating: accumulating, lowRank: stage) }
        return outputs.flatMap { RowKernelTests.values($0, count) }
    }

    /// Ragged ranks and rows, a float matrix among integer ones, a stage without pairs before it, a projection that is left alone, and rows with no, one and
    /// three adapters; few rows, and as many as have the weights expanded.
    @Test(arguments: [false, true], [9, 31])
    func everyVariantGivesTheSameBits(accumulating: Bool, count: Int) throws {
        var random = SplitMix(state: 5)
        let width = 96, heights = [40, 16, 7]
        let matrices = [
            try LowRankTests.matrix(.q8_0, rows: heights[0], columns: width, &random), try LowRankTests.matrix(.f32, rows: heights[1], columns: width, &random),
            try LowRankTests.matrix(.q8_0, rows: heights[2], columns: width, &random),
        ]
        let x = try RowKernelTests.rows(count, width, &random)
        func stages(_ ranks: [Int]) throws -> LowRankStages {
            let pairs = ranks.enumerated().filter { $0.element > 0 }.map { Pair($0.offset, rows: heights[$0.offset], width: width, rank: $0.element, scale: 1.5, &random) }
            return try LowRankStages(stages: [[], pairs.map(\.packed)], widths: [width, width])
        }
        let adapters = [try stages([16, 16, 16]), try stages([1, 0, 5]), try stages([0, 33, 0]), try stages([256, 256, 256])]
        let kinds: [[(stages: LowRankStages, weight: Float)]] = [
            [(adapters[0], 1)], [], [(adapters[1], -0.5)], [(adapters[2], 1), (adapters[0], 0.25), (adapters[1], 2)], [], [(adapters[3], 1)], [(adapters[0], 1)],
            [(adapters[1], 1)], [(adapters[2], 1)],
        ]
        let terms = (0..<count).map { kinds[$0 % kinds.count] }
        let together = try RowKernelTests.agreed { try LowRankTests.run(matrices, x, count: count, adapters: terms, accumulating: accumulating, $0) }
        let bare = try LowRankTests.run(matrices, x, count: count, adapters: terms.map { _ in [] }, accumulating: accumulating, Compute(variant: KernelVariant(), pool: ComputePool(threads: 1)))
        // Each row alone gives the bits that it has in company; a row without adapters those of the base.
        for row in 0..<count {
            let single = try FloatRows(capacity: 1, width: width)
            single.pointer.update(from: x[row], count: width)
            let alone = try LowRankTests.run(
                matrices, single, count: 1, adapters: [terms[row]], accumulating: accumulating, Compute(variant: KernelVariant(), pool: ComputePool(threads: 2)))
            var first = 0, offset = 0
            for height in heights {
                let inCompany = together[first + row * height..<first + (row + 1) * height]
                #expect(inCompany.map(\.bitPattern) == alone[offset..<offset + height].map(\.bitPattern), "row \(row)")
                if terms[row].isEmpty { #expect(inCompany == bare[first + row * height..<first + (row + 1) * height]) }
                first += count * height
                offset += height
            }
        }
        #expect(together != bare)
    }

    /// The threads that share A of a step's only row come to the bits that one thread has for it in company, however they meet.
    @Test func threadsShareTheOnlyRow() throws {
        var random = SplitMix(state: 11)
        let width = 288, heights = [288, 96, 96]
        let matrices = try heights.map { try LowRankTests.matrix(.q8_0, rows: $0, columns: width, &random) }
        let terms = try [64, 16, 8].map { rank in
            let pairs = heights.enumerated().map { Pair($0.offset, rows: $0.element, width: width, rank: rank, scale: 1, &random).packed }
            return (stages: try LowRankStages(stages: [[], pairs], widths: [width, width]), weight: Float(1))
        }
        let x = try RowKernelTests.rows(2, width, &random)
        let together = try LowRankTests.run(matrices, x, count: 2, adapters: [terms, []], Compute(variant: KernelVariant(), pool: ComputePool(threads: 1)))
        var expected: [Float] = [], first = 0
        for height in heights {
            expected += together[first..<first + height]
            first += 2 * height
        }
        for threads in [1, 2, 4] {
            let compute = Compute(variant: try KernelVariant(), pool: try ComputePool(threads: threads))
            for _ in 0..<100 {
                let alone = try LowRankTests.run(matrices, x, count: 1, adapters: [terms], compute)
                try #require(alone.map(\.bitPattern) == expected.map(\.bitPattern), "\(threads) threads")
            }
        }
    }

    /// The 8-bit product is W x + Σ weight · scale · B (A x) within the rounding of 8 bits, however the factor is spread over A and B.
    @Test(arguments: [Float(1), 1e-5, 1e5], [4, 16, 64])
    func changesWhatTheEquationSays(magnitude: Float, rank: Int) throws {
        var random = SplitMix(state: 9)
        let width = 576, height = 64
        let matrix = try LowRankTests.matrix(.q8_0, rows: height, columns: width, &random)
        let x = try RowKernelTests.rows(2, width, &random)
        let pairs = [Pair(0, rows: height, width: width, rank: rank, scale: 2, magnitude: magnitude, &random), Pair(0, rows: height, width: width, rank: 8, scale: 1, &random)]
        let stages = try pairs.map { try LowRankStages(stages: [[], [$0.packed]], widths: [width, width]) }
        let compute = Compute(variant: try KernelVariant(), pool: try ComputePool(threads: 1))
        let bare = try LowRankTests.run([matrix], x, count: 2, adapters: [[], []], compute)
        let found = try LowRankTests.run([matrix], x, count: 2, adapters: [[(stages[0], 1)], [(stages[0], 0.5), (stages[1], -1)]], compute)
        for row in 0..<2 {
            let values = (0..<width).map { x[row][$0] }
            let first = pairs[0].change(values), second = pairs[1].change(values)
            let expected = (0..<height).map { row == 0 ? first[$0] : 0.5 * first[$0] - second[$0] }
            let norm = expected.reduce(0) { $0 + $1 * $1 }.squareRoot()
            var squares = 0.0
            for i in 0..<height {
                let change = Double(found[row * height + i]) - Double(bare[row * height + i]) - expected[i]
                squares += change * change
            }
            let error = squares.squareRoot()
            #expect(error < 0.02 * norm, "row \(row): \(error / norm)")
            #expect(norm > 0.1)
        }
    }
}
