import COpenSSL

/// Who a server is: its certificate, those of the authorities between it and a root, and its private key.
public struct TLSIdentity: @unchecked Sendable {
    /// The server's own certificate first.
    public let chain: [TLSCertificate]
    let privateKey: PrivateKey
    /// What does not keep the identity from being used, but will trouble clients: each a sentence without full stop that names the file.
    public let warnings: [String]

    /// The server's own certificate.
    public var certificate: TLSCertificate { chain[0] }

    /// Holds a key until the last user is gone.
    final class PrivateKey {
        let pointer: OpaquePointer

        init(owning pointer: OpaquePointer) {
            self.pointer = pointer
        }

        deinit {
            EVP_PKEY_free(pointer)
        }
    }

    /// - Parameters:
    ///   - chain: a PEM file's bytes: the server's certificate, then the authorities' (RFC 8446 4.4.2).
    ///   - privateKey: a PEM file's bytes, not encrypted; may be the same file.
    ///   - chainName: the first file's name, for messages.
    ///   - keyName: the second file's.
    /// - Throws: `badCertificate`, `badPrivateKey` or `keyMismatch`.
    public init(chain: [UInt8], chainName: String, privateKey: [UInt8], keyName: String) throws(TLSError) {
        let certificates = try TLSCertificate.parse(pem: chain, name: chainName)
        let key = try TLSIdentity.parseKey(privateKey, name: keyName)
        let owner = certificates.firstIndex { X509_check_private_key($0.pointer, key.pointer) == 1 }
        OpenSSLErrors.clear()
        guard owner == 0 else {
            let hint = owner.map { "it belongs to certificate \($0 + 1) of that file, which must come first" } ?? "give the key that the certificate was made for"
            throw TLSError(
                .keyMismatch, "\(keyName): the private key is not that of the first certificate in \(chainName) (\(certificates[0].subject)); \(hint)")
        }
        self.chain = certificates
        self.privateKey = key
        warnings = TLSIdentity.doubts(certificates, name: chainName)
    }

    private static func parseKey(_ pem: [UInt8], name: String) throws(TLSError) -> PrivateKey {
        guard !pem.isEmpty else { throw TLSError(.badPrivateKey, "\(name): found an empty file, expected a private key in PEM") }
        var isEncrypted = false
        let pointer = withUnsafeMutablePointer(to: &isEncrypted) { flag in
            withMemoryBIO(pem) { bio in
                OpenSSLErrors.clear()
                // Without a callback OpenSSL would ask the terminal for a pass phrase.
                return PEM_read_bio_PrivateKey(bio, nil, { _, _, _, context in
                    context!.assumingMemoryBound(to: Bool.self).pointee = true
                    return -1
                }, flag)
            }
        }
        if let pointer { return PrivateKey(owning: pointer) }
        let reason = OpenSSLErrors.takeReason()
        if isEncrypted {
            throw TLSError(
                .badPrivateKey, "\(name): the private key is encrypted, expected one without pass phrase; `openssl pkey -in FILE -out NEW` takes it off")
        }
        // OpenSSL has the same word for no key and for one of an unknown kind.
        if !String(decoding: pem, as: UTF8.self).contains("PRIVATE KEY-----") {
            throw TLSError(.badPrivateKey, "\(name): found no private key ('-----BEGIN PRIVATE KEY-----' or the like), expected one in PEM")
        }
        throw TLSError(.badPrivateKey, "\(name): the private key is damaged (\(reason))")
    }

    private static func doubts(_ chain: [TLSCertificate], name: String) -> [String] {
        var found: [String] = []
        for (index, certificate) in chain.enumerated() {
            let which = chain.count == 1 ? "the certificate" : "certificate \(index + 1)"
            if certificate.isExpired {
                found.append("\(name): \(which) (\(certificate.subject)) expired on \(certificate.expiry); clients will refuse it")
            } else if certificate.isNotYetValid {
                found.append("\(name): \(which) (\(certificate.subject)) is not valid yet; clients will refuse it")
            }
            if index > 0, !chain[index - 1].isIssued(by: certificate) {
                found.append("\(name): certificate \(index + 1) did not issue certificate \(index); clients may not find the way to an authority they trust")
            }
        }
        OpenSSLErrors.clear()
        return found
    }
}
