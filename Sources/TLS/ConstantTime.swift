import COpenSSL

/// Whether two byte strings are equal, told in a time that depends on their lengths alone (OpenSSL's `CRYPTO_memcmp`).
///
/// For comparing secrets, or digests of them: where two texts differ first cannot be found out by measuring. Lengths are not secret; different ones give
/// `false` at once.
public func constantTimeEqual(_ first: [UInt8], _ second: [UInt8]) -> Bool {
    guard first.count == second.count else { return false }
    return first.withUnsafeBytes { first in
        second.withUnsafeBytes { second in
            // Empty arrays may have no address, and the C function is not promised to take none.
            guard let left = first.baseAddress, let right = second.baseAddress else { return true }
            return CRYPTO_memcmp(left, right, first.count) == 0
        }
    }
}
