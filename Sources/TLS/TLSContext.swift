import COpenSSL

/// What all sessions of a server, or of a client, have in common: who they are, whom they trust, what they accept.
///
/// TLS 1.2 and 1.3 only. For 1.2, ephemeral keys on elliptic curves and authenticated encryption only (what RFC 9325 4.2 recommends); no
/// renegotiation, no compression, no early data. Immutable once made, and OpenSSL locks what sessions share, so it may be used from any thread. A
/// session keeps its context, however often a server takes up a new one.
public final class TLSContext: @unchecked Sendable {
    let pointer: OpaquePointer
    let isServer: Bool
    /// A server's own; nil for a client.
    public let identity: TLSIdentity?

    /// How many sessions a server remembers so that clients need no full handshake, and for how many seconds. About 2 KiB each.
    public static let sessionCacheCount = 4096, sessionSeconds = 7200

    /// The suites of TLS 1.2. Those of 1.3 are all of that kind.
    private static let ciphers = "ECDHE+AESGCM:ECDHE+CHACHA20"

    private init(isServer: Bool, identity: TLSIdentity?) {
        guard let pointer = SSL_CTX_new(isServer ? TLS_server_method() : TLS_client_method()), graft_ssl_restrict(pointer) == 1,
            SSL_CTX_set_cipher_list(pointer, TLSContext.ciphers) == 1
        else { preconditionFailure("OpenSSL cannot provide TLS 1.2 and 1.3: \(OpenSSLErrors.takeReason())") }
        self.pointer = pointer
        self.isServer = isServer
        self.identity = identity
    }

    deinit {
        SSL_CTX_free(pointer)
    }

    // MARK: - Servers

    /// A server's context. Clients that offer protocols (ALPN, RFC 7301) must offer `http/1.1`; those that offer none are served.
    /// - Throws: `badCertificate` when OpenSSL will not use the identity, for example because its key is too short to be safe.
    public convenience init(server identity: TLSIdentity) throws(TLSError) {
        self.init(isServer: true, identity: identity)
        OpenSSLErrors.clear()
        guard SSL_CTX_use_certificate(pointer, identity.certificate.pointer) == 1, SSL_CTX_use_PrivateKey(pointer, identity.privateKey.pointer) == 1,
            identity.chain.dropFirst().allSatisfy({ graft_ssl_add_chain(pointer, $0.pointer) == 1 })
        else {
            throw TLSError(.badCertificate, "the certificate \(identity.certificate.subject) cannot be used: \(OpenSSLErrors.takeReason())")
        }
        graft_ssl_cache_sessions(pointer, TLSContext.sessionCacheCount, TLSContext.sessionSeconds)
        let scope = Array("graft".utf8)
        precondition(SSL_CTX_set_session_id_context(pointer, scope, UInt32(scope.count)) == 1, "OpenSSL refuses the scope of sessions")
        SSL_CTX_set_alpn_select_cb(pointer, { _, chosen, chosenCount, offered, offeredCount, _ in
            guard let chosen, let chosenCount, let offered else { return SSL_TLSEXT_ERR_ALERT_FATAL }
            let list = UnsafeBufferPointer(start: offered, count: Int(offeredCount))
            guard let name = TLSContext.findHTTP1(in: list) else { return SSL_TLSEXT_ERR_ALERT_FATAL }
            chosen.pointee = offered + name.lowerBound
            chosenCount.pointee = UInt8(name.count)
            return SSL_TLSEXT_ERR_OK
        }, nil)
    }

    /// `http/1.1` as RFC 7301 registers it.
    private static let http1 = Array("http/1.1".utf8)

    /// Where a client's list of protocol names, each behind its length, has `http/1.1`.
    private static func findHTTP1(in list: UnsafeBufferPointer<UInt8>) -> Range<Int>? {
        var offset = 0
        while offset < list.count {
            let end = offset + 1 + Int(list[offset])
            guard end <= list.count else { return nil }
            if list[offset + 1..<end].elementsEqual(http1) { return offset + 1..<end }
            offset = end
        }
        return nil
    }

    // MARK: - Clients

    /// A client's context that accepts servers whose certificate leads to an authority that the system trusts, or one of `authorities`.
    public convenience init(clientTrusting authorities: [TLSCertificate]) {
        self.init(isServer: false, identity: nil)
        offerHTTP1()
        SSL_CTX_set_verify(pointer, SSL_VERIFY_PEER, nil)
        SSL_CTX_set_default_verify_paths(pointer)
        let store = SSL_CTX_get_cert_store(pointer)
        for authority in authorities { X509_STORE_add_cert(store, authority.pointer) }
        OpenSSLErrors.clear()
    }

    /// A client's context that accepts any certificate: for those who know the one they expect and compare it after the handshake
    /// (`TLSSession.peerCertificate`), before they send anything.
    public static func clientThatComparesCertificates() -> TLSContext {
        let context = TLSContext(isServer: false, identity: nil)
        context.offerHTTP1()
        SSL_CTX_set_verify(context.pointer, SSL_VERIFY_NONE, nil)
        return context
    }

    private func offerHTTP1() {
        let list = [UInt8(TLSContext.http1.count)] + TLSContext.http1
        precondition(SSL_CTX_set_alpn_protos(pointer, list, UInt32(list.count)) == 0, "OpenSSL refuses the protocol http/1.1")
    }
}
