import CKernels
import Kernels
import Testing

/// Products of training against sums in double precision, on ragged shapes, with every instruction set of this machine, each operand kind, and both
/// precisions; float32 by our own kernels and by a library.
struct TrainingProductTests {
    /// C = alpha op(A) op(B) + beta C, as a library would do it.
    static let library: TrainingCompute.MatrixProduct = { transposeA, transposeB, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc in
        for i in 0..<Int(m) {
            for j in 0..<Int(n) {
                var sum = 0.0
                for l in 0..<Int(k) {
                    let left = transposeA == 0 ? a![i * Int(lda) + l] : a![l * Int(lda) + i]
                    let right = transposeB == 0 ? b![l * Int(ldb) + j] : b![j * Int(ldb) + l]
                    sum += Double(left) * Double(right)
                }
                let old = beta == 0 ? 0 : Double(beta) * Double(c![i * Int(ldc) + j])
                c![i * Int(ldc) + j] = Float(Double(alpha) * sum + old)
            }
        }
    }

    struct Random {
        var state: UInt64 = 7
        mutating func values(_ count: Int) -> [Float] {
            (0..<count).map { _ in
                state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
                return Float(Int(state >> 40) % 2001) / 1000 - 1
            }
        }
    }

    static func bfloat16(_ value: Float) -> Float {
        let bits = value.bitPattern
        return Float(bitPattern: (bits &+ 0x7fff &+ (bits >> 16 & 1)) & 0xffff_0000)
    }

    /// Rows, columns and the contraction. What panels hold has columns in multiples of 16.
    static let shapes = [(1, 16, 16), (5, 48, 64), (7, 64, 80), (13, 80, 448), (97, 208, 64), (300, 272, 416), (6, 320, 32)]

    @Test(arguments: [TrainingRowType.float32, .bfloat16])
    func productsAreSums(type: TrainingRowType) throws {
        let pool = try ComputePool(threads: 2)
        for variant in KernelVariant.available {
            for unit in type == .bfloat16 ? TrainingCompute.BFloat16Unit.allCases : [.tiles] {
                for (rows, columns, k) in Self.shapes { try check(variant, unit, pool, rows: rows, columns: columns, k: k, type) }
            }
        }
    }

    private func check(_ variant: KernelVariant, _ unit: TrainingCompute.BFloat16Unit, _ pool: ComputePool, rows: Int, columns: Int, k: Int, _ type: TrainingRowType) throws {
        var random = Random()
        let compute = try TrainingCompute(
            variant: variant, pool: pool, turnstile: ComputeTurnstile(), matrixProduct: Self.library, longestExample: 16, headDim: 16, bfloat16: unit)
        let x = random.values(rows * k), h = random.values(rows * 16), w = random.values(columns * k), bias = random.values(columns)
        let wide = random.values(columns * k)
        let input = try typedRows(x, rows: rows, width: k, type, compute), hidden = try typedRows(h, rows: rows, width: 16, type, compute)
        let forward = try WeightMatrix(rows: columns, columns: k, values: w), backward = try WeightMatrix(rows: k, columns: columns, values: wide)
        let output = try TrainingRows(capacity: rows, width: (columns + 15) / 16 * 16, type: .float32)
        let place = "\(variant.name) \(type) \(unit) [\(rows), \(columns), \(k)]"
        func exact(_ value: Float) -> Double { Double(type == .bfloat16 ? Self.bfloat16(value) : value) }
        /// Σ x w of a row and a column, with the sum of what is added as a measure for rounding.
        func expect(_ name: String, start: (Int, Int) -> Double, _ terms: [(count: Int, value: (Int, Int, Int) -> (Double, Double))]) {
            for row in 0..<rows {
                for column in 0..<columns {
                    var sum = start(row, column), size = abs(sum)
                    for term in terms {
                        for l in 0..<term.count {
                            let (left, right) = term.value(row, column, l)
                            sum += left * right
                            size += abs(left * right)
                        }
                    }
                    let found = Double(output.floats[row * output.floatStride + column])
                    guard abs(found - sum) <= 1e-5 * (size + 1) else {
                        Issue.record("\(place) \(name) [\(row), \(column)]: found \(found), expected \(sum)")
                        return
                    }
                }
            }
        }
        try w.withUnsafeBufferPointer { w throws in
            try wide.withUnsafeBufferPointer { wide throws in
                // x Wᵀ with bias, then x W added to it, then x by rows and by columns of plain matrices.
                try compute.product([.init(input, .weights(forward))], rows: rows, columns: columns, to: output, bias: FloatVector(bias))
                expect("weights", start: { _, c in Double(bias[c]) }, [(k, { r, c, l in (exact(x[r * k + l]), exact(w[c * k + l])) })])
                try compute.product([.init(input, .weightsTransposed(backward))], rows: rows, columns: columns, to: output, accumulating: true)
                let both: [(count: Int, value: (Int, Int, Int) -> (Double, Double))] = [
                    (k, { r, c, l in (exact(x[r * k + l]), exact(w[c * k + l])) }), (k, { r, c, l in (exact(x[r * k + l]), exact(wide[l * columns + c])) }),
                ]
                expect("weights transposed", start: { _, c in Double(bias[c]) }, both)
                try compute.product([.init(input, .rows(w.baseAddress!, width: k), scale: 0.5)], rows: rows, columns: columns, to: output, splitsRows: true)
                expect("rows", start: { _, _ in 0 }, [(k, { r, c, l in (exact(x[r * k + l]), exact(0.5 * w[c * k + l])) })])
                // Two terms, the second thin and scaled: what a projection with an adapter is.
                try compute.product(
                    [.init(input, .weights(forward)), .init(hidden, .columns(wide.baseAddress!, width: columns), scale: 0.25)], rows: rows, columns: columns, to: output)
                expect(
                    "with a thin term", start: { _, _ in 0 },
                    [
                        (k, { r, c, l in (exact(x[r * k + l]), exact(w[c * k + l])) }),
                        (16, { r, c, l in (exact(h[r * 16 + l]), exact(0.25 * wide[l * columns + c])) }),
                    ])
            }
        }
    }

    /// The gradients of low-rank matrices: g += scale Σ h x over the rows.
    @Test(arguments: [TrainingRowType.float32, .bfloat16])
    func outerProductsAreSums(type: TrainingRowType) throws {
        let pool = try ComputePool(threads: 2)
        for variant in KernelVariant.available {
            for unit in type == .bfloat16 ? TrainingCompute.BFloat16Unit.allCases : [.tiles] {
                let compute = try TrainingCompute(
                    variant: variant, pool: pool, turnstile: ComputeTurnstile(), matrixProduct: Self.library, longestExample: 16, headDim: 16, bfloat16: unit)
                for (rows, rank, width) in [(1, 16, 16), (5, 3, 48), (33, 16, 112), (300, 24, 208), (64, 8, 96), (257, 40, 304)] {
                    var random = Random()
                    let x = random.values(rows * width), h = random.values(rows * 48), before = random.values(rank * width)
                    let input = try typedRows(x, rows: rows, width: width, type, compute), hidden = try typedRows(h, rows: rows, width: 48, .float32, compute)
                    var gradient = before
                    try gradient.withUnsafeMutableBufferPointer { gradient throws in
                        try compute.addOuter(hidden, input, rows: rows, scale: 0.5, to: gradient.baseAddress!, rank: rank)
                    }
                    for j in 0..<rank {
                        for w in 0..<width {
                            var sum = Double(before[j * width + w]), size = abs(sum)
                            for r in 0..<rows {
                                let value = x[r * width + w], product = 0.5 * Double(h[r * 48 + j]) * Double(type == .bfloat16 ? Self.bfloat16(value) : value)
                                sum += product
                                size += abs(product)
                            }
                            let found = Double(gradient[j * width + w])
                            guard abs(found - sum) <= 1e-5 * (size + 1) else {
                                Issue.record("\(variant.name) \(type) \(unit) [\(rows), \(rank), \(width)] [\(j), \(w)]: found \(found), expected \(sum)")
                                return
                            }
                        }
                    }
                }
            }
        }
    }

    private func typedRows(_ values: [Float], rows: Int, width: Int, _ type: TrainingRowType, _ compute: TrainingCompute) throws -> TrainingRows {
        let floats = try TrainingRows(capacity: rows, width: width, type: .float32)
        for row in 0..<rows { for i in 0..<width { floats.floats[row * floats.floatStride + i] = values[row * width + i] } }
        guard type == .bfloat16 else { return floats }
        let typed = try TrainingRows(capacity: rows, width: width, type: type)
        try compute.copy(floats, to: typed, rows: rows)
        return typed
    }
}
