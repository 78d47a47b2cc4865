import COpenSSL

/// Why a certificate, a key, a handshake or a record was refused.
public struct TLSError: Error, Sendable, Equatable, CustomStringConvertible {
    public enum Code: Sendable, Equatable {
        /// A file of certificates holds none, or a damaged one.
        case badCertificate
        /// A file of a private key holds none, a damaged or an encrypted one.
        case badPrivateKey
        /// The private key is not that of the certificate.
        case keyMismatch
        /// What the client sent first is no TLS but a request in clear text.
        case plainText
        /// The two sides found no common protocol, or what came is not TLS.
        case handshakeFailed
        /// The certificate of a server cannot be verified.
        case untrusted
        /// A record after the handshake was damaged, or the peer reported an error.
        case broken
    }

    public let code: Code
    /// A sentence without full stop.
    public let message: String

    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }

    public var description: String { message }
}

/// The queue in which OpenSSL leaves the errors of a thread.
enum OpenSSLErrors {
    /// Every call whose result is asked for with `SSL_get_error` needs an empty queue before it.
    static func clear() {
        ERR_clear_error()
    }

    /// The reason of the newest error in OpenSSL's words, such as "no shared cipher"; empties the queue.
    static func takeReason() -> String {
        defer { ERR_clear_error() }
        let code = ERR_peek_last_error()
        guard code != 0 else { return "no reason given" }
        guard let text = ERR_reason_error_string(code) else { return "OpenSSL's error \(String(code, radix: 16))" }
        return String(cString: text)
    }

    /// Whether the newest error only says that a PEM file has no more entries.
    static var newestIsEndOfPEM: Bool {
        let code = ERR_peek_last_error()
        return graft_error_library(code) == ERR_LIB_PEM && graft_error_reason(code) == PEM_R_NO_START_LINE
    }
}
