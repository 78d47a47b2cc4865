import Kernels
import Testing

#if canImport(Glibc)
import Glibc
#endif

/// Norms, gates, rotary embedding and attention against plain double-precision loops; all variants bit for bit.
struct RowKernelTests {
    typealias SplitMix = PanelTests.SplitMix

    static func rows(_ count: Int, _ width: Int, _ random: inout SplitMix, _ range: ClosedRange<Float> = -2...2) throws -> FloatRows {
        let rows = try FloatRows(capacity: count, width: width)
        for i in 0..<count * width { rows.pointer[i] = Float.random(in: range, using: &random) }
        return rows
    }

    static func values(_ rows: FloatRows, _ count: Int) -> [Float] { (0..<count * rows.width).map { rows.pointer[$0] } }

    /// Runs `body` with every variant on one and two threads; all results must be equal, and the first is returned.
    static func agreed(_ body: (Compute) throws -> [Float]) throws -> [Float] {
        var results: [(String, [Float])] = []
        for variant in KernelVariant.available {
            for threads in [1, 2] {
                results.append(("\(variant), \(threads) threads", try body(Compute(variant: variant, pool: ComputePool(threads: threads)))))
            }
        }
        for (name, found) in results { #expect(found.map(\.bitPattern) == results[0].1.map(\.bitPattern), "\(name) differs from \(results[0].0)") }
        return results[0].1
    }

    @Test(arguments: [32, 64, 100, 576])
    func rmsNorm(width: Int) throws {
        var random = SplitMix(state: 1)
        let x = try RowKernelTests.rows(9, width, &random), weight = FloatVector((0..<width).map { _ in Float.random(in: -1...1, using: &random) })
        let found = try RowKernelTests.agreed { compute in
            let y = try FloatRows(capacity: 9, width: width)
            compute.rmsNorm(x, weight: weight, epsilon: 1e-5, count: 9, to: y, quantized: nil)
            return RowKernelTests.values(y, 9)
        }
        for r in 0..<9 {
            let mean = (0..<width).reduce(0.0) { $0 + pow(Double(x[r][$1]), 2) } / Double(width)
            for i in 0..<width {
                let expected = Double(x[r][i]) / (mean + 1e-5).squareRoot() * Double(weight.values[i])
                #expect(abs(Double(found[r * width + i]) - expected) < 1e-5)
            }
        }
    }

    @Test(arguments: [Compute.Gate.silu, .geluTanh])
    func gates(activation: Compute.Gate) throws {
        var random = SplitMix(state: 2)
        let width = 72
        let gate = try RowKernelTests.rows(5, width, &random, -12...12), up = try RowKernelTests.rows(5, width, &random)
        gate.pointer[0] = 200
        gate.pointer[1] = -200
        let found = try RowKernelTests.agreed { compute in
            let y = try FloatRows(capacity: 5, width: width)
            y.pointer.update(from: gate.pointer, count: 5 * width)
            compute.gate(y, up: up, activation: activation, count: 5, quantized: nil)
            return RowKernelTests.values(y, 5)
        }
        for i in 0..<5 * width {
            let x = Double(gate.pointer[i])
            let activated = activation == .silu ? x / (1 + exp(-x)) : 0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)))
            let expected = activated * Double(up.pointer[i])
            #expect(abs(Double(found[i]) - expected) <= 2e-6 * max(1, abs(expected)), "x = \(x)")
        }
    }

    struct AttentionCase: Sendable, CustomTestStringConvertible {
        var heads: Int, kvHeads: Int, headDim: Int, window: Int?, precision: KVCache.Precision, style: Compute.RotaryStyle, normed: Bool
        var testDescription: String { "\(heads)/\(kvHeads) heads of \(headDim), window \(window ?? 0), \(precision.rawValue)" }
    }

    static let cases = [
        AttentionCase(heads: 9, kvHeads: 3, headDim: 64, window: nil, precision: .float32, style: .interleaved, normed: false),
        AttentionCase(heads: 14, kvHeads: 2, headDim: 64, window: nil, precision: .float16, style: .halves, normed: false),
        AttentionCase(heads: 4, kvHeads: 1, headDim: 256, window: 40, precision: .float16, style: .halves, normed: true),
        AttentionCase(heads: 4, kvHeads: 4, headDim: 16, window: 7, precision: .float32, style: .halves, normed: true),
        AttentionCase(heads: 6, kvHeads: 2, headDim: 128, window: nil, precision: .int8, style: .halves, normed: false),
        AttentionCase(heads: 48, kvHeads: 1, headDim: 32, window: nil, precision: .float32, style: .halves, normed: false),
        AttentionCase(heads: 2, kvHeads: 2, headDim: 80, window: nil, precision: .float32, style: .interleaved, normed: false),
    ]

    @Test(arguments: cases)
    func attentionOverScatteredBlocks(_ c: AttentionCase) throws {
        let count = 75, blocks: [Int32] = [4, 1, 3]
        var random = SplitMix(state: 11)
        let q0 = try RowKernelTests.rows(count, c.heads * c.headDim, &random), k0 = try RowKernelTests.rows(count, c.kvHeads * c.headDim, &random)
        let v = try RowKernelTests.rows(count, c.kvHeads * c.headDim, &random)
        let frequencies = FloatVector((0..<c.headDim / 2).map { powf(10_000, -Float(2 * $0) / Float(c.headDim)) })
        let norm = FloatVector((0..<c.headDim).map { _ in Float.random(in: 0.5...1.5, using: &random) })
        let scale = 1 / Float(c.headDim).squareRoot()
        let found = try RowKernelTests.agreed { compute in
            let cache = try KVCache(layers: 2, kvHeads: c.kvHeads, headDim: c.headDim, blockCount: 5, precision: c.precision)
            let q = try FloatRows(capacity: count, width: q0.width), k = try FloatRows(capacity: count, width: k0.width), out = try FloatRows(capacity: count, width: q0.width)
            q.pointer.update(from: q0.pointer, count: count * q0.width)
            k.pointer.update(from: k0.pointer, count: count * k0.width)
            let cos = try FloatRows(capacity: count, width: c.headDim / 2), sin = try FloatRows(capacity: count, width: c.headDim / 2)
            let positions = (0..<Int32(count)).map { $0 }
            let slots = (0..<count).map { Int64(blocks[$0 / 32]) * 32 + Int64($0 % 32) }
            positions.withUnsafeBufferPointer { compute.rotaryTable(positions: $0, inverseFrequencies: frequencies, cos: cos, sin: sin) }
            slots.withUnsafeBufferPointer {
                compute.rotateAndStore(
                    q: q, k: k, v: v, slots: $0, cache: cache, layer: 1, style: c.style, cos: cos, sin: sin, qNorm: c.normed ? norm : nil,
                    kNorm: c.normed ? norm : nil, epsilon: 1e-6)
            }
            try blocks.withUnsafeBufferPointer { table in
                // In three runs: how a prompt is cut must not matter, and the reference below knows nothing of it.
                let runs = [(0, 33), (33, 1), (34, count - 34)].map { Compute.AttentionRun(row: $0.0, count: $0.1, position: $0.0, blocks: table.baseAddress!) }
                compute.attend(q: q, runs: runs, cache: cache, layer: 1, scale: scale, window: c.window, to: out)
                guard c.headDim % 32 == 0 else { return }
                let direct = try QuantizedRows(capacity: count, width: q.width), untouched = try FloatRows(capacity: count, width: q.width)
                compute.attend(q: q, runs: runs, cache: cache, layer: 1, scale: scale, window: c.window, to: untouched, quantized: direct)
                #expect(RowKernelTests.bytes(direct, count).map(\.bitPattern) == RowKernelTests.bytes(try RowKernelTests.quantized(out, count, compute), count).map(\.bitPattern))
                #expect(RowKernelTests.values(untouched, count).allSatisfy { $0 == 0 })
            }
            return RowKernelTests.values(out, count)
        }
        func rotated(_ x: UnsafeMutablePointer<Float>, _ position: Int) -> [Double] {
            var y = (0..<c.headDim).map { Double(x[$0]) }
            if c.normed {
                let mean = y.reduce(0) { $0 + $1 * $1 } / Double(c.headDim)
                for i in y.indices { y[i] *= Double(norm.values[i]) / (mean + 1e-6).squareRoot() }
            }
            var z = y
            for j in 0..<c.headDim / 2 {
                let angle = Double(Float(position) * frequencies.values[j])
                let (a, b) = c.style == .halves ? (j, j + c.headDim / 2) : (2 * j, 2 * j + 1)
                z[a] = y[a] * Glibc.cos(angle) - y[b] * Glibc.sin(angle)
                z[b] = y[b] * Glibc.cos(angle) + y[a] * Glibc.sin(angle)
            }
            return z
        }
        let tolerance = c.precision == .float32 ? 2e-5 : c.precision == .float16 ? 4e-3 : 6e-2
        let group = c.heads / c.kvHeads
        let keys = (0..<count).map { p in (0..<c.kvHeads).map { rotated(k0[p] + $0 * c.headDim, p) } }
        for p in [0, 1, 31, 32, 33, 40, 63, 64, 74] {
            for h in 0..<c.heads {
                let query = rotated(q0[p] + h * c.headDim, p)
                let first = c.window.map { max(0, p - $0 + 1) } ?? 0
                let scores = (first...p).map { key in zip(query, keys[key][h / group]).reduce(0) { $0 + $1.0 * $1.1 } * Double(scale) }
                let highest = scores.max()!, weights = scores.map { exp($0 - highest) }, total = weights.reduce(0, +)
                for i in stride(from: 0, to: c.headDim, by: 5) {
                    let expected = (first...p).reduce(0.0) { $0 + weights[$1 - first] / total * Double(v[$1][h / group * c.headDim + i]) }
                    #expect(abs(Double(found[p * q0.width + h * c.headDim + i]) - expected) < tolerance, "position \(p), head \(h)")
                }
            }
        }
    }

    static func bytes(_ rows: QuantizedRows, _ count: Int) -> [Float] {
        // As the bits of floats, so that they can be compared like other results; a row's bytes are a multiple of 64.
        let words = count * Int(rows.layout.bytes) / 4
        return rows.pointer.withMemoryRebound(to: UInt32.self, capacity: words) { words_ in (0..<words).map { Float(bitPattern: words_[$0]) } }
    }

    static func quantized(_ rows: FloatRows, _ count: Int, _ compute: Compute) throws -> QuantizedRows {
        let quantized = try QuantizedRows(capacity: count, width: rows.width)
        compute.quantize(rows, count: count, to: quantized)
        return quantized
    }

    /// A row in 8 bits is what its definition says, whatever lies beside its blocks: zeros, numbers at the edges, one large one.
    @Test(arguments: [32, 64, 96, 128, 160, 576])
    func quantization(width: Int) throws {
        var random = SplitMix(state: 3)
        let x = try RowKernelTests.rows(7, width, &random)
        for i in 0..<32 { x[1][i] = 0 }
        x[2][width - 1] = 1e6
        x[3][5] = -300
        _ = try RowKernelTests.agreed { compute in
            let rows = try RowKernelTests.quantized(x, 7, compute)
            for r in 0..<7 {
                let row = UnsafeRawPointer(rows.pointer + r * Int(rows.layout.bytes))
                for block in 0..<width / 32 {
                    let values = (0..<32).map { x[r][32 * block + $0] }, largest = values.map(abs).max()!
                    let scale = row.load(fromByteOffset: Int(rows.layout.d) + 4 * block, as: Float.self)
                    #expect(scale == largest / 127)
                    let q = (0..<32).map { Int(row.load(fromByteOffset: 32 * block + $0, as: Int8.self)) }
                    for (value, q) in zip(values, q) { #expect(abs(value - scale * Float(q)) <= 0.5001 * scale, "row \(r), block \(block)") }
                    let sums = [q[..<16].reduce(0, +), q[16...].reduce(0, +)]
                    for h in 0..<2 {
                        #expect(row.load(fromByteOffset: Int(rows.layout.s16) + 8 * block + 4 * h, as: Int32.self) == Int32(sums[h]))
                        #expect(row.load(fromByteOffset: Int(rows.layout.ds16) + 8 * block + 4 * h, as: Float.self) == scale * Float(sums[h]))
                    }
                    #expect(row.load(fromByteOffset: Int(rows.layout.s32) + 4 * block, as: Int32.self) == Int32(sums[0] + sums[1]))
                    #expect(row.load(fromByteOffset: Int(rows.layout.ds32) + 4 * block, as: Float.self) == scale * Float(sums[0] + sums[1]))
                }
            }
            return RowKernelTests.bytes(rows, 7)
        }
    }

    /// Norms and gates that leave in 8 bits give the bits of those that leave as floats and are quantised.
    @Test(arguments: [96, 128, 224, 576])
    func rowsThatLeaveInEightBits(width: Int) throws {
        var random = SplitMix(state: 4)
        let x = try RowKernelTests.rows(9, width, &random), up = try RowKernelTests.rows(9, width, &random)
        let weight = FloatVector((0..<width).map { _ in Float.random(in: -1...1, using: &random) })
        _ = try RowKernelTests.agreed { compute in
            let floats = try FloatRows(capacity: 9, width: width), beside = try FloatRows(capacity: 9, width: width)
            let direct = try QuantizedRows(capacity: 9, width: width), also = try QuantizedRows(capacity: 9, width: width)
            compute.rmsNorm(x, weight: weight, epsilon: 1e-5, count: 9, to: floats, quantized: nil)
            compute.rmsNorm(x, weight: weight, epsilon: 1e-5, count: 9, to: nil, quantized: direct)
            compute.rmsNorm(x, weight: weight, epsilon: 1e-5, count: 9, to: beside, quantized: also)
            let normed = RowKernelTests.bytes(try RowKernelTests.quantized(floats, 9, compute), 9).map(\.bitPattern)
            #expect(RowKernelTests.bytes(direct, 9).map(\.bitPattern) == normed && RowKernelTests.bytes(also, 9).map(\.bitPattern) == normed)
            #expect(RowKernelTests.values(beside, 9) == RowKernelTests.values(floats, 9))
            for activation in [Compute.Gate.silu, .geluTanh] {
                floats.pointer.update(from: x.pointer, count: 9 * width)
                compute.gate(floats, up: up, activation: activation, count: 9, quantized: nil)
                beside.pointer.update(from: x.pointer, count: 9 * width)
                compute.gate(beside, up: up, activation: activation, count: 9, quantized: direct, keepsFloats: false)
                #expect(RowKernelTests.bytes(direct, 9).map(\.bitPattern) == RowKernelTests.bytes(try RowKernelTests.quantized(floats, 9, compute), 9).map(\.bitPattern))
                #expect(RowKernelTests.values(beside, 9) == RowKernelTests.values(x, 9), "floats were written that nobody wanted")
            }
            return RowKernelTests.bytes(direct, 9)
        }
    }

    /// The gated product in one job gives the bits of the two products and their gate, for any number of rows.
    @Test(arguments: [GGMLType.q4_1, .q5_0, .q6_K, .q8_0], [1, 5, 23, 24, 131, 300])
    func gatedProducts(type: GGMLType, count: Int) throws {
        let columns = 256, width = 352
        var random = SplitMix(state: 5)
        let pool = try ComputePool(threads: 1)
        let gate = try PanelTests.RandomMatrix(type, rows: width, columns: columns, seed: 6).packed(pool), up = try PanelTests.RandomMatrix(type, rows: width, columns: columns, seed: 7).packed(pool)
        let x = try RowKernelTests.rows(count, columns, &random)
        _ = try RowKernelTests.agreed { compute in
            let rows = try RowKernelTests.quantized(x, count, compute)
            let g = try FloatRows(capacity: count, width: width), u = try FloatRows(capacity: count, width: width)
            var product = Compute.Product(rows, count: count)
            product.add(gate, to: g)
            product.add(up, to: u)
            compute.multiply(product)
            let found = try QuantizedRows(capacity: count, width: width)
            for activation in [Compute.Gate.geluTanh, .silu] {
                let gated = try FloatRows(capacity: count, width: width)
                gated.pointer.update(from: g.pointer, count: count * width)
                compute.gate(gated, up: u, activation: activation, count: count, quantized: nil)
                compute.multiplyGated(rows, gate: gate, up: up, activation: activation, count: count, to: found)
                #expect(RowKernelTests.bytes(found, count).map(\.bitPattern) == RowKernelTests.bytes(try RowKernelTests.quantized(gated, count, compute), count).map(\.bitPattern))
            }
            return RowKernelTests.bytes(found, count)
        }
    }

    /// Contexts of several spans: threads that share them, and prompts cut anywhere, give the bits of one thread that takes a whole prompt, and these are right.
    @Test(arguments: [
        AttentionCase(heads: 9, kvHeads: 3, headDim: 64, window: nil, precision: .float16, style: .interleaved, normed: false),
        AttentionCase(heads: 4, kvHeads: 1, headDim: 256, window: 300, precision: .float16, style: .halves, normed: false),
        AttentionCase(heads: 4, kvHeads: 2, headDim: 32, window: nil, precision: .float32, style: .halves, normed: false),
        AttentionCase(heads: 6, kvHeads: 2, headDim: 128, window: nil, precision: .int8, style: .halves, normed: false),
    ])
    func sharedSpansOfLongSequences(_ c: AttentionCase) throws {
        let count = 1100, blockCount = (count + 31) / 32
        let blocks = (0..<Int32(blockCount)).map { ($0 * 11 + 5) % Int32(blockCount) }
        var random = SplitMix(state: 12)
        let queries = try RowKernelTests.rows(count, c.heads * c.headDim, &random), keys = try RowKernelTests.rows(count, c.kvHeads * c.headDim, &random)
        let values = try RowKernelTests.rows(count, c.kvHeads * c.headDim, &random)
        let scale = 1 / Float(c.headDim).squareRoot()
        // The only difference between what is compared: the cut of the rows into runs, and whether their keys may be shared.
        let single = [255, 256, 257, 511, 512, 600, 1023, 1024, 1099]
        func attended(_ compute: Compute, _ runs: [(row: Int, count: Int)], _ partials: AttentionPartials?) throws -> [Float] {
            let cache = try KVCache(layers: 1, kvHeads: c.kvHeads, headDim: c.headDim, blockCount: blockCount, precision: c.precision)
            let q = try FloatRows(capacity: count, width: queries.width), k = try FloatRows(capacity: count, width: keys.width)
            q.pointer.update(from: queries.pointer, count: count * queries.width)
            k.pointer.update(from: keys.pointer, count: count * keys.width)
            let out = try FloatRows(capacity: count, width: q.width)
            let cos = try FloatRows(capacity: count, width: c.headDim / 2), sin = try FloatRows(capacity: count, width: c.headDim / 2)
            for i in 0..<count * cos.width { cos.pointer[i] = 1 }
            let slots = (0..<count).map { Int64(blocks[$0 / 32]) * 32 + Int64($0 % 32) }
            slots.withUnsafeBufferPointer {
                compute.rotateAndStore(
                    q: q, k: k, v: values, slots: $0, cache: cache, layer: 0, style: c.style, cos: cos, sin: sin, qNorm: nil, kNorm: nil, epsilon: 1e-6)
            }
            blocks.withUnsafeBufferPointer { table in
                // Twice, the second time over what the first left in the partials' memory.
                for _ in 0..<2 {
                    for run in runs {
                        let run = Compute.AttentionRun(row: run.row, count: run.count, position: run.row, blocks: table.baseAddress!)
                        compute.attend(q: q, runs: [run], cache: cache, layer: 0, scale: scale, window: c.window, partials: partials, to: out)
                    }
                }
            }
            return single.flatMap { row in (0..<out.width).map { out[row][$0] } }
        }
        let whole = try attended(Compute(variant: KernelVariant(), pool: ComputePool(threads: 1)), [(0, count)], nil)
        let alone = try RowKernelTests.agreed { try attended($0, single.map { ($0, 1) }, try AttentionPartials()) }
        #expect(alone.map(\.bitPattern) == whole.map(\.bitPattern))
        // Two tokens share a tile; and memory that has room for none of it.
        let pairs = try RowKernelTests.agreed { try attended($0, single.map { ($0 - 1, 2) }, try AttentionPartials()) }
        #expect(pairs.map(\.bitPattern) == whole.map(\.bitPattern))
        let crowded = try attended(Compute(variant: KernelVariant(), pool: ComputePool(threads: 3)), single.map { ($0, 1) }, try AttentionPartials(byteCount: 64))
        #expect(crowded.map(\.bitPattern) == whole.map(\.bitPattern))

        let group = c.heads / c.kvHeads, tolerance = c.precision == .float32 ? 2e-5 : c.precision == .float16 ? 4e-3 : 6e-2
        for (i, p) in single.enumerated() {
            for h in 0..<c.heads {
                let first = c.window.map { max(0, p - $0 + 1) } ?? 0
                let query = queries[p] + h * c.headDim
                let scores = (first...p).map { key in
                    (0..<c.headDim).reduce(0.0) { $0 + Double(query[$1]) * Double(keys[key][h / group * c.headDim + $1]) } * Double(scale)
                }
                let highest = scores.max()!, weights = scores.map { exp($0 - highest) }, total = weights.reduce(0, +)
                for j in stride(from: 0, to: c.headDim, by: 13) {
                    let expected = (first...p).reduce(0.0) { $0 + weights[$1 - first] / total * Double(values[$1][h / group * c.headDim + j]) }
                    #expect(abs(Double(alone[(i * c.heads + h) * c.headDim + j]) - expected) < tolerance, "position \(p), head \(h)")
                }
            }
        }
    }

    /// A component of the keys that is far larger than the others (as Qwen2.5's biases make it) leaves the others their precision in an 8-bit cache.
    @Test func eightBitKeysOutlastALargeComponent() throws {
        let count = 64, dim = 64
        var random = SplitMix(state: 13)
        let q = try RowKernelTests.rows(count, dim, &random), k = try RowKernelTests.rows(count, dim, &random), v = try RowKernelTests.rows(count, dim, &random)
        for row in 0..<count {
            k[row][3] = 90
            // What the queries ask for lies in the other groups of components.
            for i in 0..<16 { q[row][i] = 0 }
        }
        var found: [[Float]] = []
        for precision in [KVCache.Precision.float32, .int8] {
            found.append(try RowKernelTests.agreed { compute in
                let cache = try KVCache(layers: 1, kvHeads: 1, headDim: dim, blockCount: 2, precision: precision)
                let out = try FloatRows(capacity: count, width: dim), cos = try FloatRows(capacity: count, width: dim / 2), sin = try FloatRows(capacity: count, width: dim / 2)
                for i in 0..<count * dim / 2 { cos.pointer[i] = 1 }
                (0..<Int64(count)).map { $0 }.withUnsafeBufferPointer {
                    compute.rotateAndStore(q: q, k: k, v: v, slots: $0, cache: cache, layer: 0, style: .halves, cos: cos, sin: sin, qNorm: nil, kNorm: nil, epsilon: 1e-6)
                }
                [Int32(0), 1].withUnsafeBufferPointer { blocks in
                    let run = Compute.AttentionRun(row: 0, count: count, position: 0, blocks: blocks.baseAddress!)
                    compute.attend(q: q, runs: [run], cache: cache, layer: 0, scale: 1, window: nil, to: out)
                }
                return RowKernelTests.values(out, count)
            })
        }
        // One scale for the whole head would have steps of 0.7.
        let error = (zip(found[0], found[1]).reduce(0.0) { $0 + pow(Double($1.0 - $1.1), 2) } / Double(count * dim)).squareRoot()
        #expect(error < 0.05, "root mean square \(error)")
    }

    @Test func poolCoversEveryItemOnce() throws {
        for threads in [1, 2, 3, 8] {
            let pool = try ComputePool(threads: threads)
            for count in [1, 2, 7, 64, 1000] {
                for grain in [1, 3, 100] {
                    let hits = try FloatRows(capacity: 1, width: count)
                    nonisolated(unsafe) let pointer = hits.pointer
                    for _ in 0..<20 { pool.parallel(count, grain: grain) { for i in $0 { pointer[i] += 1 } } }
                    #expect(RowKernelTests.values(hits, 1).allSatisfy { $0 == 20 }, "\(threads) threads, \(count) items in chunks of \(grain)")
                }
            }
        }
    }

    @Test func unknownInstructionSetIsNamed() {
        #expect { try KernelVariant(forced: "sse9") } throws: { "\($0)".contains("'sse9'") && "\($0)".contains("generic") }
    }
}
