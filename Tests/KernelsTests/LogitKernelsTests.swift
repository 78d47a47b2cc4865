import Kernels
import Testing

#if canImport(Glibc)
import Glibc
#endif

private let levels = LogitKernels.Level.allCases.filter { $0 <= LogitKernels.best.level }
private let lengths = [1, 2, 15, 16, 17, 31, 33, 63, 64, 65, 1000, 1023, 1024, 1025, 3000, 49152]

private func randomRow(_ count: Int, seed: UInt64) -> [Float] {
    var state = seed &+ 0x9E37_79B9_7F4A_7C15
    return (0..<count).map { _ in
        state ^= state << 13
        state ^= state >> 7
        state ^= state << 17
        return Float(state >> 40) / Float(1 << 24) * 60 - 45
    }
}

struct LogitKernelsTests {
    @Test func exponentialsAreAccurate() {
        let row = (0...40000).map { -Float($0) * 0.00218 }
        var out = [Float](repeating: 0, count: row.count)
        var worst = 0.0
        row.withUnsafeBufferPointer { row in
            out.withUnsafeMutableBufferPointer { out in
                LogitKernels.best.exponentials(row, top: 0, scale: 1, into: out)
                for i in 0..<row.count where row[i] > -87.33 {
                    let exact = exp(Double(row[i]))
                    worst = max(worst, abs(Double(out[i]) - exact) / exact)
                }
            }
        }
        #expect(worst < 5e-7)
        #expect(out[0] == 1)
    }

    @Test func exponentialsOfExtremes() {
        let row: [Float] = [3, -.infinity, -3e38, 3 - 87.4, 3 - 87.3, 2]
        var out = [Float](repeating: -1, count: row.count)
        row.withUnsafeBufferPointer { row in
            out.withUnsafeMutableBufferPointer { LogitKernels.best.exponentials(row, top: 3, scale: 1, into: $0) }
        }
        #expect(out[0] == 1 && out[1] == 0 && out[2] == 0 && out[3] == 0)
        #expect(out[4] > 0)
        #expect(abs(out[5] - 0.36787944) < 1e-7)
    }

    @Test(arguments: lengths) func levelsAgreeToTheBit(length: Int) {
        let row = randomRow(length, seed: UInt64(length))
        let groups = LogitKernels.groupCount(length)
        row.withUnsafeBufferPointer { row in
            let top = row.max()!
            var reference: ([Float], [Double], [Float], [Int32], [Float], Int?)?
            for level in levels {
                let kernels = LogitKernels(level: level)
                var maxima = [Float](repeating: 0, count: groups * LogitKernels.lanes)
                var sums = [Double](repeating: 0, count: groups)
                var weights = [Float](repeating: 0, count: length)
                var ids = [Int32](repeating: 0, count: length + LogitKernels.collectSlack)
                var values = [Float](repeating: 0, count: length + LogitKernels.collectSlack)
                let hasNaN = maxima.withUnsafeMutableBufferPointer { kernels.maxima(row, into: $0) }
                #expect(!hasNaN)
                sums.withUnsafeMutableBufferPointer { kernels.exponentialSums(row, top: top, scale: 0.7, into: $0) }
                weights.withUnsafeMutableBufferPointer { kernels.exponentials(row, top: top, scale: 0.7, into: $0) }
                let count = kernels.collect(row, atLeast: 10, ids: &ids, values: &values)
                ids.removeSubrange(count...)
                values.removeSubrange(count...)
                let first = kernels.firstIndex(of: top, in: row)
                if let reference {
                    #expect(maxima == reference.0 && sums == reference.1 && weights == reference.2)
                    #expect(ids == reference.3 && values == reference.4 && first == reference.5)
                } else {
                    reference = (maxima, sums, weights, ids, values, first)
                    #expect(maxima.max() == top)
                    #expect(first == row.firstIndex(of: top))
                    #expect(ids == (0..<length).filter { row[$0] >= 10 }.map(Int32.init))
                    #expect(values == row.filter { $0 >= 10 })
                    let exact = row.map { exp(Double(($0 - top) * 0.7)) }.reduce(0, +)
                    #expect(abs(sums.reduce(0, +) - exact) < 1e-6 * exact)
                }
            }
        }
    }

    @Test func maximaAreOfDistinctElements() {
        let row = randomRow(2500, seed: 9)
        var maxima = [Float](repeating: 0, count: 3 * LogitKernels.lanes)
        row.withUnsafeBufferPointer { row in
            maxima.withUnsafeMutableBufferPointer { _ = LogitKernels.best.maxima(row, into: $0) }
        }
        for group in 0..<3 {
            for lane in 0..<16 {
                let elements = stride(from: group * 1024 + lane, to: min(group * 1024 + 1024, 2500), by: 16).map { row[$0] }
                #expect(maxima[group * 16 + lane] == elements.max() ?? -.infinity)
            }
        }
    }

    @Test(arguments: [1, 5, 16, 40, 1024, 1100]) func nanIsFoundAnywhere(length: Int) {
        for level in levels {
            for place in [0, length / 2, length - 1] {
                var row = [Float](repeating: 1, count: length)
                row[place] = .nan
                var maxima = [Float](repeating: 0, count: LogitKernels.groupCount(length) * LogitKernels.lanes)
                let found = row.withUnsafeBufferPointer { row in
                    maxima.withUnsafeMutableBufferPointer { LogitKernels(level: level).maxima(row, into: $0) }
                }
                #expect(found)
            }
        }
    }

    @Test func firstOfEqualsIsFound() {
        var row = [Float](repeating: 0, count: 300)
        row[77] = 5
        row[78] = 5
        row[299] = 6
        row.withUnsafeBufferPointer { row in
            for level in levels {
                let kernels = LogitKernels(level: level)
                #expect(kernels.firstIndex(of: 5, in: row) == 77)
                #expect(kernels.firstIndex(of: 6, in: row) == 299)
                #expect(kernels.firstIndex(of: 7, in: row) == nil)
            }
        }
    }
}
