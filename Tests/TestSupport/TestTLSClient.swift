import COpenSSL

/// A TLS client in memory, made with OpenSSL alone, so that what is tested does not answer to itself. Accepts any certificate.
public final class TestTLSClient {
    public struct Options {
        /// As the protocol numbers them: 0x0303 is TLS 1.2, 0x0304 is TLS 1.3.
        public var versions: ClosedRange<Int> = 0x0303...0x0304
        /// What is offered by ALPN; none offers nothing.
        public var protocols: [String] = ["http/1.1"]
        /// OpenSSL's names of the suites of TLS 1.2; nil is all that the library has.
        public var ciphers: String?
        /// What an earlier client left behind.
        public var session: TestTLSClient?

        public init() {}
    }

    private let context: OpaquePointer
    private let ssl: OpaquePointer
    private let input: OpaquePointer
    private let output: OpaquePointer
    /// The server said that it sends nothing more.
    public private(set) var sawCloseNotify = false
    /// Why the session is broken, in OpenSSL's words.
    public private(set) var failure: String?

    public init(_ options: Options = Options()) {
        context = SSL_CTX_new(TLS_client_method())
        // Weak versions and suites are refused by the server that is tested and not by this client.
        SSL_CTX_set_security_level(context, 0)
        SSL_CTX_ctrl(context, SSL_CTRL_SET_MIN_PROTO_VERSION, options.versions.lowerBound, nil)
        SSL_CTX_ctrl(context, SSL_CTRL_SET_MAX_PROTO_VERSION, options.versions.upperBound, nil)
        precondition(SSL_CTX_set_cipher_list(context, options.ciphers ?? "ALL:@SECLEVEL=0") == 1, "no such suites")
        let list = options.protocols.flatMap { [UInt8($0.utf8.count)] + Array($0.utf8) }
        if !list.isEmpty { SSL_CTX_set_alpn_protos(context, list, UInt32(list.count)) }
        ssl = SSL_new(context)
        input = BIO_new(BIO_s_mem())
        output = BIO_new(BIO_s_mem())
        graft_bio_never_ends(input)
        graft_bio_never_ends(output)
        SSL_set_bio(ssl, input, output)
        SSL_set_connect_state(ssl)
        if let earlier = options.session {
            let session = SSL_get1_session(earlier.ssl)
            SSL_set_session(ssl, session)
            SSL_SESSION_free(session)
        }
        _ = read()
    }

    deinit {
        // Unclean ends would make the client forget what it could resume.
        SSL_set_shutdown(ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN)
        SSL_free(ssl)
        SSL_CTX_free(context)
    }

    public var isEstablished: Bool { SSL_in_init(ssl) == 0 }
    public var isResumed: Bool { SSL_session_reused(ssl) == 1 }
    public var version: String { String(cString: SSL_get_version(ssl)) }
    public var cipher: String { SSL_get_current_cipher(ssl).map { String(cString: SSL_CIPHER_get_name($0)) } ?? "" }

    /// The serial number of the server's certificate.
    public var serial: Int? {
        guard let certificate = SSL_get1_peer_certificate(ssl) else { return nil }
        defer { X509_free(certificate) }
        return ASN1_INTEGER_get(X509_get0_serialNumber(certificate))
    }

    public func receive(_ bytes: [UInt8]) {
        guard !bytes.isEmpty else { return }
        precondition(BIO_write(input, bytes, Int32(bytes.count)) == bytes.count, "OpenSSL has no memory")
    }

    /// All plaintext that has come. Goes on with the handshake too.
    public func read() -> [UInt8] {
        var all: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 16384)
        while failure == nil {
            ERR_clear_error()
            let count = SSL_read(ssl, &buffer, Int32(buffer.count))
            if count > 0 {
                all += buffer[..<Int(count)]
                continue
            }
            switch SSL_get_error(ssl, count) {
            case SSL_ERROR_WANT_READ, SSL_ERROR_WANT_WRITE: return all
            case SSL_ERROR_ZERO_RETURN:
                sawCloseNotify = true
                return all
            default:
                failure = ERR_reason_error_string(ERR_peek_last_error()).map { String(cString: $0) } ?? "unknown"
            }
        }
        return all
    }

    /// - Returns: false before the handshake is complete, and after the end.
    @discardableResult
    public func write(_ bytes: [UInt8]) -> Bool {
        ERR_clear_error()
        return isEstablished && SSL_write(ssl, bytes, Int32(bytes.count)) == bytes.count
    }

    public func close() {
        SSL_shutdown(ssl)
    }

    /// Asks for new keys in the middle of the connection (RFC 8446 4.6.3), of both sides if `both`.
    public func updateKeys(both: Bool) {
        SSL_key_update(ssl, both ? SSL_KEY_UPDATE_REQUESTED : SSL_KEY_UPDATE_NOT_REQUESTED)
        SSL_do_handshake(ssl)
    }

    /// Asks for a new handshake (TLS 1.2 only).
    public func renegotiate() {
        SSL_renegotiate(ssl)
        SSL_do_handshake(ssl)
    }

    /// What is to be sent to the server.
    public func takeCiphertext() -> [UInt8] {
        var start: UnsafePointer<UInt8>?
        let count = graft_bio_contents(output, &start)
        let bytes = Array(UnsafeBufferPointer(start: start, count: count))
        graft_bio_clear(output)
        return bytes
    }
}
