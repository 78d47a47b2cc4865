import Testing
import TLS

@Suite struct ConstantTimeTests {
    /// Wherever the one difference is, at every length: a comparison that looks at a part only would miss some.
    @Test func everyLengthAndEveryPlace() {
        for count in 0...80 {
            let bytes = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 37 &+ 11) }
            #expect(constantTimeEqual(bytes, bytes.map { $0 }), "\(count) equal bytes")
            for place in 0..<count {
                for bit in [UInt8(1), 0x80] {
                    var other = bytes
                    other[place] ^= bit
                    #expect(!constantTimeEqual(bytes, other) && !constantTimeEqual(other, bytes), "\(count) bytes, byte \(place) differs")
                }
            }
        }
    }

    @Test func lengthsThatDiffer() {
        #expect(!constantTimeEqual([], [0]))
        #expect(!constantTimeEqual([1, 2], [1]))
        #expect(!constantTimeEqual([1], [1, 0]))
    }
}
