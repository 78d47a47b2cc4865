import COpenSSL

/// A SHA-256 digest over bytes that come in pieces (FIPS 180-4, computed by OpenSSL, which uses the processor's SHA instructions).
///
/// Unique owner of an OpenSSL context, hence not copyable; it may move between threads.
public struct SHA256Digest: ~Copyable, @unchecked Sendable {
    /// Length of a digest in bytes.
    public static let byteCount = 32

    private let context: OpaquePointer

    /// Ends the process when OpenSSL has no memory or no SHA-256: neither can be recovered from.
    public init() {
        guard let context = EVP_MD_CTX_new(), EVP_DigestInit_ex(context, EVP_sha256(), nil) == 1 else {
            preconditionFailure("OpenSSL cannot provide SHA-256")
        }
        self.context = context
    }

    private init(context: OpaquePointer) {
        self.context = context
    }

    /// A digest of the same bytes so far, that goes its own way from here.
    public borrowing func copy() -> SHA256Digest {
        guard let other = EVP_MD_CTX_new(), EVP_MD_CTX_copy_ex(other, context) == 1 else {
            preconditionFailure("OpenSSL cannot copy a SHA-256 digest")
        }
        return SHA256Digest(context: other)
    }

    deinit {
        EVP_MD_CTX_free(context)
    }

    public mutating func update(_ bytes: UnsafeRawBufferPointer) {
        guard let base = bytes.baseAddress else { return }
        precondition(EVP_DigestUpdate(context, base, bytes.count) == 1, "OpenSSL failed to update a SHA-256 digest")
    }

    public mutating func update(_ bytes: [UInt8]) {
        bytes.withUnsafeBytes { update($0) }
    }

    /// The 32 bytes of the digest of everything that was added.
    public consuming func finish() -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: Self.byteCount) { buffer, initialized in
            var length: UInt32 = 0
            precondition(EVP_DigestFinal_ex(context, buffer.baseAddress, &length) == 1, "OpenSSL failed to finish a SHA-256 digest")
            initialized = Int(length)
        }
    }

    /// The digest as 64 lower-case hexadecimal digits.
    public consuming func finishHexadecimal() -> String {
        hexadecimal(finish())
    }

    /// The digest of bytes that are all in memory.
    public static func of(_ bytes: [UInt8]) -> [UInt8] {
        var digest = SHA256Digest()
        digest.update(bytes)
        return digest.finish()
    }
}

/// Two lower-case digits for each byte.
public func hexadecimal(_ bytes: some Sequence<UInt8>) -> String {
    let digits = Array("0123456789abcdef".utf8)
    var text: [UInt8] = []
    for byte in bytes {
        text.append(digits[Int(byte >> 4)])
        text.append(digits[Int(byte & 15)])
    }
    return String(decoding: text, as: UTF8.self)
}
