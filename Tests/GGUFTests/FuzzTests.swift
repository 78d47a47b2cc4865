import GGUF
import Testing

/// Damaged files of every kind: each is either refused with a message or read; none ends the process.
@Suite struct FuzzTests {
    @Test func truncationAtEveryOffsetIsRefused() {
        let file = GGUFBuilder.small().file()
        var codes: [GGUFError.Code: Int] = [:]
        for length in 0..<file.count {
            do {
                _ = try GGUFHeader(parsing: Array(file[..<length]))
                Issue.record("a file cut to \(length) of \(file.count) bytes was accepted")
            } catch {
                codes[error.code, default: 0] += 1
            }
        }
        #expect(codes[.notGGUF] == 4)
        #expect(codes.values.reduce(0, +) == file.count)
    }

    /// Every single bit of the header flipped.
    @Test func everyBitFlipIsReadOrRefused() throws {
        let file = GGUFBuilder.small().file()
        let header = try GGUFHeader(parsing: file)
        var accepted = 0
        for bit in 0..<header.dataOffset * 8 {
            var damaged = file
            damaged[bit / 8] ^= 1 << (bit % 8)
            if let other = try? GGUFHeader(parsing: damaged) {
                accepted += 1
                expectSound(other, fileSize: damaged.count)
            }
        }
        // Flips in values and letters are other valid files; those in structure are not.
        #expect(accepted > 0 && accepted < header.dataOffset * 8)
    }

    /// Several random bytes changed, with interesting values among them.
    @Test(arguments: UInt64(0)..<20) func randomDamageIsReadOrRefused(seed: UInt64) {
        var random = SplitMix(seed: seed)
        let file = GGUFBuilder.small().file()
        let interesting: [UInt64] = [0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFF_FFFF, 0xFFFF_FFFF, 1 << 40, 1 << 61, UInt64(Int64.max), .max - 7, .max]
        for _ in 0..<1000 {
            var damaged = file
            for _ in 0..<Int.random(in: 1...4, using: &random) {
                let place = Int.random(in: 0..<damaged.count - 8, using: &random)
                if Bool.random(using: &random), let value = interesting.randomElement(using: &random) {
                    damaged.replaceSubrange(place..<place + 8, with: bytes(of: value))
                } else {
                    damaged[place] = UInt8.random(in: 0...255, using: &random)
                }
            }
            if Int.random(in: 0..<8, using: &random) == 0 { damaged.removeLast(Int.random(in: 0..<damaged.count, using: &random)) }
            if let other = try? GGUFHeader(parsing: damaged) { expectSound(other, fileSize: damaged.count) }
        }
    }

    @Test func randomBytesAfterTheMagicAreReadOrRefused() {
        var random = SplitMix(seed: 7)
        for length in 0..<2000 {
            let noise = (0..<length).map { _ in UInt8.random(in: 0...255, using: &random) }
            let file = Array("GGUF".utf8) + bytes(of: UInt32(3)) + bytes(of: UInt64(length % 3)) + bytes(of: UInt64(length % 5)) + noise
            if let other = try? GGUFHeader(parsing: file) { expectSound(other, fileSize: file.count) }
        }
    }

    private func expectSound(_ header: GGUFHeader, fileSize: Int) {
        var end = 0
        for tensor in header.tensors.sorted(by: { $0.offset < $1.offset }) {
            #expect(tensor.offset >= max(end, header.dataOffset))
            #expect(tensor.byteCount > 0 && tensor.byteCount <= fileSize - tensor.offset)
            #expect(tensor.byteCount == tensor.elementCount / tensor.type.blockSize * tensor.type.blockBytes)
            end = tensor.offset + tensor.byteCount
        }
    }
}
