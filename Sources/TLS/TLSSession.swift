import COpenSSL

/// One TLS connection without a socket: ciphertext of the peer and plaintext of the owner go in, ciphertext for the peer and plaintext for the
/// owner come out (RFC 8446, RFC 5246).
///
/// Nothing piles up inside: `receive` takes at most `inputLimit` bytes, and once `read` has said `.needsMore` what is left of them is less than
/// one record; what `write`, `read` and `close` leave for the peer is taken with `takeCiphertext` after each.
///
/// Belongs to one thread at a time.
public final class TLSSession {
    public enum ReadResult: Equatable {
        /// So many bytes of plaintext.
        case bytes(Int)
        /// All that came was used; more may follow.
        case needsMore
        /// The peer sends nothing more, and said so (`close_notify`).
        case ended
        /// The session is over. There may still be an alert for the peer among the ciphertext.
        case failed(TLSError)
    }

    public enum WriteResult: Equatable {
        case written
        /// The handshake is not complete: try again, with the same bytes first, after more has come.
        case notYet
        case failed(TLSError)
    }

    /// The most bytes that `receive` takes at once.
    public static let inputLimit = 16384
    /// The most plaintext that one record holds (RFC 8446 5.1): a good size of the buffer for `read` and of the pieces for `write`.
    public static let recordSize = 16384

    private let context: TLSContext
    private let ssl: OpaquePointer
    // The session owns both.
    private let input: OpaquePointer
    private let output: OpaquePointer
    private var failure: TLSError?
    private var hasReceived = false
    /// The handshake is complete: plaintext can be sent.
    public private(set) var isEstablished = false
    private var hasClosed = false

    /// A server's side.
    /// - Parameter context: made for servers.
    public convenience init(server context: TLSContext) {
        precondition(context.isServer, "a client's context cannot serve")
        self.init(context)
        SSL_set_accept_state(ssl)
    }

    /// A client's side. `read` begins the handshake.
    /// - Parameters:
    ///   - context: made for clients.
    ///   - host: the name or address that the server's certificate must be for.
    public convenience init(client context: TLSContext, host: String) {
        precondition(!context.isServer, "a server's context cannot ask")
        self.init(context)
        SSL_set_connect_state(ssl)
        if X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host) != 1 {
            SSL_set1_host(ssl, host)
            // Addresses are not sent (RFC 6066 3).
            _ = graft_ssl_set_server_name(ssl, host)
        }
        OpenSSLErrors.clear()
    }

    private init(_ context: TLSContext) {
        guard let ssl = SSL_new(context.pointer), let input = BIO_new(BIO_s_mem()), let output = BIO_new(BIO_s_mem()) else {
            preconditionFailure("OpenSSL has no memory for a session")
        }
        graft_bio_never_ends(input)
        graft_bio_never_ends(output)
        SSL_set_bio(ssl, input, output)
        self.context = context
        self.ssl = ssl
        self.input = input
        self.output = output
    }

    deinit {
        // A connection that ended without the peer's close_notify can be resumed nevertheless (RFC 8446 6.1, RFC 5246 7.2.1); OpenSSL would forget it.
        if failure == nil, isEstablished { SSL_set_shutdown(ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN) }
        SSL_free(ssl)
    }

    // MARK: - What comes

    /// Takes ciphertext.
    /// - Returns: how many of the bytes were taken, at most `inputLimit`; read until `.needsMore`, then give the rest.
    public func receive(_ bytes: UnsafeRawBufferPointer) -> Int {
        guard failure == nil, let base = bytes.baseAddress, !bytes.isEmpty else { return bytes.count }
        if !hasReceived {
            hasReceived = true
            // Every record of a handshake begins with the byte 22, every request with a letter.
            if context.isServer, (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains(bytes[0]) {
                failure = TLSError(.plainText, "found a request in clear text, expected TLS")
                return bytes.count
            }
        }
        let count = min(bytes.count, TLSSession.inputLimit)
        precondition(BIO_write(input, base, Int32(count)) == count, "OpenSSL has no memory for \(count) bytes")
        return count
    }

    /// Goes on with the handshake, or decrypts.
    /// - Parameter buffer: gets at most one record's plaintext.
    public func read(into buffer: UnsafeMutableRawBufferPointer) -> ReadResult {
        if let failure { return .failed(failure) }
        OpenSSLErrors.clear()
        var count = 0
        let status = SSL_read_ex(ssl, buffer.baseAddress, buffer.count, &count)
        if !isEstablished, SSL_in_init(ssl) == 0 { isEstablished = true }
        if status == 1 { return .bytes(count) }
        switch SSL_get_error(ssl, status) {
        case SSL_ERROR_WANT_READ, SSL_ERROR_WANT_WRITE: return .needsMore
        case SSL_ERROR_ZERO_RETURN: return .ended
        default: return .failed(fail())
        }
    }

    // MARK: - What goes

    /// Encrypts plaintext, all of it or nothing.
    public func write(_ bytes: UnsafeRawBufferPointer) -> WriteResult {
        if let failure { return .failed(failure) }
        guard isEstablished, !hasClosed else { return .notYet }
        guard !bytes.isEmpty else { return .written }
        OpenSSLErrors.clear()
        var count = 0
        let status = SSL_write_ex(ssl, bytes.baseAddress, bytes.count, &count)
        if status == 1 { return .written }
        switch SSL_get_error(ssl, status) {
        // In the middle of a message that follows the handshake (a client's new key) nothing can be sent.
        case SSL_ERROR_WANT_READ, SSL_ERROR_WANT_WRITE: return .notYet
        default: return .failed(fail())
        }
    }

    /// Says to the peer that nothing follows (`close_notify`). The peer may still send.
    public func close() {
        guard failure == nil, isEstablished, !hasClosed else { return }
        hasClosed = true
        OpenSSLErrors.clear()
        SSL_shutdown(ssl)
    }

    /// Gives out what waits for the peer; it is gone afterwards. Not called when there is nothing.
    public func takeCiphertext(_ take: (UnsafeRawBufferPointer) -> Void) {
        var start: UnsafePointer<UInt8>?
        let count = graft_bio_contents(output, &start)
        guard count > 0 else { return }
        take(UnsafeRawBufferPointer(start: start, count: count))
        graft_bio_clear(output)
    }

    private func fail() -> TLSError {
        let verdict = SSL_get_verify_result(ssl)
        let reason = OpenSSLErrors.takeReason()
        let error =
            if !context.isServer, !isEstablished, verdict != Int(X509_V_OK) {
                TLSError(.untrusted, String(cString: X509_verify_cert_error_string(verdict)))
            } else {
                TLSError(isEstablished ? .broken : .handshakeFailed, reason)
            }
        failure = error
        return error
    }

    // MARK: - What was agreed

    /// `TLSv1.2` or `TLSv1.3`, once agreed.
    public var version: String { String(cString: SSL_get_version(ssl)) }

    /// The cipher suite, such as `TLS_AES_128_GCM_SHA256`.
    public var cipher: String { SSL_get_current_cipher(ssl).map { String(cString: SSL_CIPHER_get_name($0)) } ?? "" }

    /// The handshake took up an earlier session.
    public var isResumed: Bool { SSL_session_reused(ssl) == 1 }

    /// The protocol that was agreed on by ALPN; nil when the client offered none.
    public var applicationProtocol: String? {
        var start: UnsafePointer<UInt8>?
        var count: UInt32 = 0
        SSL_get0_alpn_selected(ssl, &start, &count)
        return count > 0 ? String(decoding: UnsafeBufferPointer(start: start, count: Int(count)), as: UTF8.self) : nil
    }

    /// The other side's certificate; nil before the handshake and for clients, which are not asked for one.
    public var peerCertificate: TLSCertificate? {
        SSL_get1_peer_certificate(ssl).map(TLSCertificate.init(owning:))
    }
}
