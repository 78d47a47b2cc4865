import COpenSSL

/// An X.509 certificate. Immutable, hence free to cross threads.
public final class TLSCertificate: @unchecked Sendable {
    let pointer: OpaquePointer

    /// Takes over a reference.
    init(owning pointer: OpaquePointer) {
        self.pointer = pointer
    }

    deinit {
        X509_free(pointer)
    }

    /// The certificates of a PEM file, in its order; other entries (keys, parameters) are passed over.
    /// - Parameter name: the file's, for messages.
    /// - Throws: `badCertificate` when there is none, or one that is damaged.
    public static func parse(pem: [UInt8], name: String) throws(TLSError) -> [TLSCertificate] {
        guard !pem.isEmpty else { throw TLSError(.badCertificate, "\(name): found an empty file, expected a certificate in PEM") }
        var found: [TLSCertificate] = []
        let isAtEnd = withMemoryBIO(pem) { bio in
            OpenSSLErrors.clear()
            while let certificate = PEM_read_bio_X509(bio, nil, nil, nil) {
                found.append(TLSCertificate(owning: certificate))
            }
            return OpenSSLErrors.newestIsEndOfPEM
        }
        let reason = OpenSSLErrors.takeReason()
        guard isAtEnd else { throw TLSError(.badCertificate, "\(name): certificate \(found.count + 1) of the file is damaged (\(reason))") }
        guard !found.isEmpty else {
            throw TLSError(
                .badCertificate,
                "\(name): found no '-----BEGIN CERTIFICATE-----', expected a certificate in PEM, then those of its authorities; "
                    + "`openssl x509 -inform der -in FILE` makes PEM of a DER file")
        }
        return found
    }

    /// The serial number in upper-case hexadecimal digits, as `openssl x509 -serial` prints it.
    public var serial: String {
        guard let number = ASN1_INTEGER_to_BN(X509_get0_serialNumber(pointer), nil) else { return "" }
        defer { BN_free(number) }
        guard let text = BN_bn2hex(number) else { return "" }
        defer { CRYPTO_free(text, nil, 0) }
        return String(cString: text)
    }

    /// Whom it names, such as `CN=example.org,O=Example` (RFC 2253).
    public var subject: String {
        withTextFromBIO { graft_print_subject($0, pointer) == 1 }
    }

    /// The end of its validity, such as `Nov 28 20:00:00 2027 GMT`.
    public var expiry: String {
        withTextFromBIO { ASN1_TIME_print($0, X509_get0_notAfter(pointer)) == 1 }
    }

    /// SHA-256 of the certificate's DER form in 64 lower-case hexadecimal digits: what tells it from all others.
    public var fingerprint: String {
        var length: UInt32 = 0
        let digest = [UInt8](unsafeUninitializedCapacity: SHA256Digest.byteCount) { buffer, count in
            precondition(X509_digest(pointer, EVP_sha256(), buffer.baseAddress, &length) == 1, "OpenSSL cannot digest a certificate")
            count = Int(length)
        }
        return hexadecimal(digest)
    }

    /// Its time of validity is over.
    public var isExpired: Bool { X509_cmp_current_time(X509_get0_notAfter(pointer)) < 0 }

    /// Its time of validity has not begun.
    public var isNotYetValid: Bool { X509_cmp_current_time(X509_get0_notBefore(pointer)) > 0 }

    /// Whether `other` names itself as the issuer of this one and may be that.
    func isIssued(by other: TLSCertificate) -> Bool {
        X509_check_issued(other.pointer, pointer) == X509_V_OK
    }
}

/// Calls `body` with a BIO that reads `bytes`.
func withMemoryBIO<Result>(_ bytes: [UInt8], _ body: (OpaquePointer) -> Result) -> Result {
    bytes.withUnsafeBytes { bytes in
        guard let bio = BIO_new_mem_buf(bytes.baseAddress, Int32(clamping: bytes.count)) else { preconditionFailure("OpenSSL has no memory") }
        defer { BIO_free(bio) }
        return body(bio)
    }
}

/// What `write` prints into a BIO; empty when it fails.
private func withTextFromBIO(_ write: (OpaquePointer) -> Bool) -> String {
    guard let bio = BIO_new(BIO_s_mem()) else { return "" }
    defer { BIO_free(bio) }
    guard write(bio) else { return "" }
    var start: UnsafePointer<UInt8>?
    let count = graft_bio_contents(bio, &start)
    return String(decoding: UnsafeBufferPointer(start: start, count: count), as: UTF8.self)
}
