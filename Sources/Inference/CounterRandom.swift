/// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): a random number is a function of a
/// key and a counter, so a draw needs no state and can be repeated or skipped.
package enum CounterRandom {
    /// The four words of one block.
    package static func philox(
        counter: SIMD4<UInt32>, key: SIMD2<UInt32>
    ) -> SIMD4<UInt32> {
        var c = counter
        var k = key
        for _ in 0..<10 {
            let a = UInt64(c.x) * 0xD251_1F53
            let b = UInt64(c.z) * 0xCD9E_8D57
            c = SIMD4(
                UInt32(truncatingIfNeeded: b >> 32) ^ c.y ^ k.x, UInt32(truncatingIfNeeded: b),
                UInt32(truncatingIfNeeded: a >> 32) ^ c.w ^ k.y, UInt32(truncatingIfNeeded: a))
            k &+= SIMD2(0x9E37_79B9, 0xBB67_AE85)
        }
        return c
    }

    /// A number in [0, 1) with 53 random bits that depends only on `seed` and `index`.
    package static func uniform(seed: UInt64, index: Int) -> Double {
        let counter = UInt64(index)
        let words = philox(
            counter: SIMD4(UInt32(truncatingIfNeeded: counter), UInt32(truncatingIfNeeded: counter >> 32), 0, 0),
            key: SIMD2(UInt32(truncatingIfNeeded: seed), UInt32(truncatingIfNeeded: seed >> 32)))
        let bits = UInt64(words.y) << 32 | UInt64(words.x)
        return Double(bits >> 11) * 0x1p-53
    }
}
