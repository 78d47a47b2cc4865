import TLS

/// Who gets the canary: a number that looks random, but is the same for the same key, name and canary in every process.
///
/// A key gets the canary as long as its number is below the share, so that raising the share only adds keys.
package enum CanaryDraw {
    /// Uniform in 0..<1.
    package static func position(stickyKey: String, name: String, number: Int) -> Double {
        // Neither names nor numbers contain the separators.
        let digest = SHA256Digest.of(Array("\(name)@\(number)\0\(stickyKey)".utf8))
        let bits = digest.prefix(8).reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        // The upper 53 bits are a Double's.
        return Double(bits >> 11) * 0x1p-53
    }
}
