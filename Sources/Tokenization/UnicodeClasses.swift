/// What a pre-tokenizer's regular expression can ask of a character. The classes do not overlap.
enum UnicodeClass: UInt8 {
    /// Anything else: symbols, controls, unassigned.
    case other = 0
    /// `\p{L}`
    case letter = 1
    /// `\p{N}`
    case number = 2
    /// `\s`
    case whitespace = 3
    /// `\p{P}`
    case punctuation = 4
    /// `\p{M}`
    case mark = 5
}

/// Class of every code point, as a two-level table: 4,352 block numbers over distinct blocks of 256 classes.
///
/// The standard library's `generalCategory` is not used: it follows the toolchain's Unicode version, while a model's words were
/// split by the version its own tokenizer knew, and a table look-up is several times faster.
final class UnicodeClasses: Sendable {
    static let shared = UnicodeClasses(runs: unicodeClassRuns)

    private let blockNumbers: ConstantBuffer<UInt16>
    private let blocks: ConstantBuffer<UInt8>

    /// - Parameter runs: `first << 3 | class` in rising order, the first run beginning at 0.
    private init(runs: [UInt32]) {
        var numbers: [UInt16] = []
        var flat: [UInt8] = []
        var known: [[UInt8]: UInt16] = [:]
        var run = 0
        for blockStart in stride(from: UInt32(0), to: 0x110000, by: 256) {
            var block = [UInt8](repeating: 0, count: 256)
            for offset in 0..<256 {
                let codePoint = blockStart + UInt32(offset)
                while run + 1 < runs.count, runs[run + 1] >> 3 <= codePoint { run += 1 }
                block[offset] = UInt8(truncatingIfNeeded: runs[run] & 7)
            }
            if let number = known[block] {
                numbers.append(number)
            } else {
                let number = UInt16(flat.count / 256)
                known[block] = number
                numbers.append(number)
                flat += block
            }
        }
        blockNumbers = ConstantBuffer(numbers)
        blocks = ConstantBuffer(flat)
    }

    /// - Parameter codePoint: below 0x110000.
    @inline(__always)
    func rawClass(of codePoint: UInt32) -> UInt8 {
        blocks[Int(blockNumbers[Int(codePoint >> 8)]) << 8 | Int(codePoint & 0xFF)]
    }

    func `class`(of scalar: Unicode.Scalar) -> UnicodeClass {
        UnicodeClass(rawValue: rawClass(of: scalar.value)) ?? .other
    }
}
