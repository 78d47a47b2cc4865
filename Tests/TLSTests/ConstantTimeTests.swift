import CTestSupport
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

    /// Digests as they are kept of keys and made of what is sent: the number of instructions tells neither whether they are equal nor where they part.
    @Test("R40 the place of a difference does not show in the number of instructions") func placesDoNotShow() throws {
        struct Pair {
            var kept: [UInt8], sent: [UInt8]
        }
        func count(_ pair: Pair) -> Int {
            var pair = pair
            return withUnsafeMutablePointer(to: &pair) { pointer in
                Int(
                    graft_test_instruction_count(
                        { pointer in
                            let pair = pointer!.assumingMemoryBound(to: Pair.self)
                            _ = constantTimeEqual(pair.pointee.kept, pair.pointee.sent)
                        }, pointer))
            }
        }
        let kept = (0..<32).map { UInt8($0 * 7 + 1) }
        let equal = count(Pair(kept: kept, sent: kept.map { $0 }))
        guard equal >= 0 else { return print("skipped: this system lets no process be traced") }
        // The work is among what is counted: a longer text takes more.
        #expect(count(Pair(kept: kept + kept, sent: kept + kept)) > equal && equal > 32)
        for place in kept.indices {
            var sent = kept
            sent[place] ^= 0x40
            #expect(count(Pair(kept: kept, sent: sent)) == equal, "byte \(place)")
        }
    }

    @Test func lengthsThatDiffer() {
        #expect(!constantTimeEqual([], [0]))
        #expect(!constantTimeEqual([1, 2], [1]))
        #expect(!constantTimeEqual([1], [1, 0]))
    }
}
