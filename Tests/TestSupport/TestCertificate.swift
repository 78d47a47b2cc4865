import COpenSSL

/// A certificate and its private key, made for one test.
public final class TestCertificate {
    public enum Key { case p256, rsa(bits: Int) }

    private let key: OpaquePointer
    private let certificate: OpaquePointer

    /// - Parameters:
    ///   - name: the subject's common name.
    ///   - alternatives: names and addresses as OpenSSL writes them.
    ///   - serial: what tells it from others.
    ///   - begins: when it becomes valid, in seconds from now.
    ///   - ends: when it ceases to be.
    ///   - issuer: signs it; nil: itself.
    ///   - isAuthority: it may sign others.
    public init(
        name: String = "localhost", alternatives: String = "DNS:localhost,IP:127.0.0.1", serial: Int = 1, key kind: Key = .p256, begins: Int = -3600,
        ends: Int = 3600, issuer: TestCertificate? = nil, isAuthority: Bool = false
    ) {
        key = TestCertificate.makeKey(kind)
        certificate = X509_new()
        X509_set_version(certificate, 2)
        ASN1_INTEGER_set(X509_get_serialNumber(certificate), serial)
        X509_gmtime_adj(X509_getm_notBefore(certificate), begins)
        X509_gmtime_adj(X509_getm_notAfter(certificate), ends)
        X509_set_pubkey(certificate, key)
        let subject = X509_get_subject_name(certificate)
        X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, name, -1, -1, 0)
        let signer = issuer ?? self
        X509_set_issuer_name(certificate, X509_get_subject_name(signer.certificate))
        add(NID_basic_constraints, isAuthority ? "critical,CA:TRUE" : "CA:FALSE")
        if !isAuthority { add(NID_subject_alt_name, alternatives) }
        precondition(X509_sign(certificate, signer.key, EVP_sha256()) > 0, "the certificate cannot be signed")
    }

    deinit {
        X509_free(certificate)
        EVP_PKEY_free(key)
    }

    private static func makeKey(_ kind: Key) -> OpaquePointer {
        let context: OpaquePointer
        switch kind {
        case .p256:
            context = EVP_PKEY_CTX_new_id(EVP_PKEY_EC, nil)
            EVP_PKEY_keygen_init(context)
            EVP_PKEY_CTX_set_ec_paramgen_curve_nid(context, NID_X9_62_prime256v1)
        case .rsa(let bits):
            context = EVP_PKEY_CTX_new_id(EVP_PKEY_RSA, nil)
            EVP_PKEY_keygen_init(context)
            EVP_PKEY_CTX_set_rsa_keygen_bits(context, Int32(bits))
        }
        defer { EVP_PKEY_CTX_free(context) }
        var key: OpaquePointer?
        precondition(EVP_PKEY_keygen(context, &key) == 1, "no key can be made")
        return key!
    }

    private func add(_ kind: Int32, _ value: String) {
        let extension_ = X509V3_EXT_conf_nid(nil, nil, kind, value)
        precondition(X509_add_ext(certificate, extension_, -1) == 1, "the extension '\(value)' is not accepted")
        X509_EXTENSION_free(extension_)
    }

    public var certificatePEM: [UInt8] {
        TestCertificate.bytes { PEM_write_bio_X509($0, certificate) }
    }

    public var certificateDER: [UInt8] {
        TestCertificate.bytes { i2d_X509_bio($0, certificate) }
    }

    public var keyPEM: [UInt8] {
        TestCertificate.bytes { PEM_write_bio_PrivateKey($0, key, nil, nil, 0, nil, nil) }
    }

    /// The key, encrypted with a pass phrase.
    public var encryptedKeyPEM: [UInt8] {
        let phrase = Array("secret".utf8)
        return TestCertificate.bytes { PEM_write_bio_PKCS8PrivateKey($0, key, EVP_aes_256_cbc(), phrase.map { CChar($0) }, Int32(phrase.count), nil, nil) }
    }

    private static func bytes(_ write: (OpaquePointer) -> Int32) -> [UInt8] {
        let bio = BIO_new(BIO_s_mem())!
        defer { BIO_free(bio) }
        precondition(write(bio) == 1, "OpenSSL cannot write")
        var buffer = [UInt8](repeating: 0, count: 16384)
        let count = BIO_read(bio, &buffer, Int32(buffer.count))
        return Array(buffer[..<Int(count)])
    }
}
