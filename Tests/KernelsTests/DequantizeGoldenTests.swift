import CKernels
import FoundationEssentials
import Testing

/// Dequantisation against PyPI's `gguf`, bit for bit. The fixtures are written by Scripts/make_dequant_golden.py.
@Suite struct DequantizeGoldenTests {
    private static let types: [(name: String, number: Int32, blockSize: Int)] = [
        ("F32", 0, 1), ("F16", 1, 1), ("BF16", 30, 1),
        ("Q4_0", 2, 32), ("Q4_1", 3, 32), ("Q5_0", 6, 32), ("Q5_1", 7, 32), ("Q8_0", 8, 32),
        ("Q2_K", 10, 256), ("Q3_K", 11, 256), ("Q4_K", 12, 256), ("Q5_K", 13, 256), ("Q6_K", 14, 256),
    ]

    /// A fixture file: "DEQ1", type, element count, blocks, expected floats.
    private struct Golden {
        var type: Int32
        var blocks: [UInt8]
        var expected: [UInt32]

        init(named name: String) throws {
            let url = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "Fixtures/dequantize_\(name).bin")
            let bytes = [UInt8](try Data(contentsOf: url))
            try #require(bytes.starts(with: "DEQ1".utf8))
            func word(at offset: Int) -> UInt32 {
                bytes.withUnsafeBytes { UInt32(littleEndian: $0.loadUnaligned(fromByteOffset: offset, as: UInt32.self)) }
            }
            type = Int32(word(at: 4))
            let start = bytes.count - 4 * Int(word(at: 8))
            blocks = Array(bytes[12..<start])
            expected = stride(from: start, to: bytes.count, by: 4).map { word(at: $0) }
        }
    }

    @Test(arguments: types.indices) func bitsEqualThoseOfTheReference(index: Int) throws {
        let type = Self.types[index]
        let golden = try Golden(named: type.name)
        #expect(golden.type == type.number)
        #expect(golden.expected.count % type.blockSize == 0)

        let guardPattern: UInt32 = 0x7FC0_BEEF
        var row = [Float](repeating: Float(bitPattern: guardPattern), count: golden.expected.count + 1)
        golden.blocks.withUnsafeBytes { blocks in
            graft_dequantize_row(type.number, blocks.baseAddress, &row, golden.expected.count)
        }
        let found = row.dropLast().map(\.bitPattern)
        let differing = zip(found, golden.expected).enumerated().filter { $1.0 != $1.1 }.map(\.offset)
        #expect(differing.isEmpty, "\(type.name): \(differing.count) of \(found.count) elements differ, first at \(differing.first ?? -1)")
        #expect(row.last?.bitPattern == guardPattern, "\(type.name) wrote past the row")
    }

    /// Every half, against the conversion that Swift's own Float16 does.
    @Test func everyHalfConverts() {
        var wrong: [UInt16] = []
        for bits in UInt16.min...UInt16.max {
            let half = Float16(bitPattern: bits)
            let found = graft_half_to_float(bits)
            if half.isNaN ? !found.isNaN : found.bitPattern != Float(half).bitPattern { wrong.append(bits) }
        }
        #expect(wrong.isEmpty)
    }

    @Test func anUnknownTypeWritesNothing() {
        var row: [Float] = [1, 2, 3]
        let source: [UInt8] = [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]
        graft_dequantize_row(4, source, &row, 3)
        #expect(row == [1, 2, 3])
    }

    @Test func anEmptyRowIsFine() {
        var row: [Float] = [1]
        for type in Self.types { graft_dequantize_row(type.number, [UInt8](repeating: 0, count: 256), &row, 0) }
        #expect(row == [1])
    }
}
