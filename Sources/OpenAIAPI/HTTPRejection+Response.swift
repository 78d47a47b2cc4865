import HTTPServing
import HTTPTypes

extension APIError {
    /// What the server refuses before it is a request.
    init(_ rejection: HTTPRejection) {
        let (status, code): (HTTPResponse.Status, String) =
            switch rejection.reason {
            case .malformed: (.badRequest, "malformed_request")
            case .targetTooLong: (.uriTooLong, "target_too_long")
            case .headersTooLarge: (.requestHeaderFieldsTooLarge, "headers_too_large")
            case .bodyTooLarge: (.contentTooLarge, "body_too_large")
            case .unsupportedVersion: (.httpVersionNotSupported, "unsupported_version")
            case .unsupportedTransferCoding: (.notImplemented, "unsupported_transfer_coding")
            case .expectationFailed: (.expectationFailed, "expectation_failed")
            case .misdirected: (.misdirectedRequest, "misdirected_request")
            case .headerTimeout, .bodyTimeout: (.requestTimeout, "request_timeout")
            case .needsTLS: (.badRequest, "tls_required")
            case .tooManyConnections: (.serviceUnavailable, "too_many_connections")
            }
        let isUnavailable = rejection.reason == .tooManyConnections
        self.init(
            status, isUnavailable ? .unavailable : .invalidRequest, code: code, rejection.message, retryAfter: isUnavailable ? 1 : nil)
        // The client library repeats from 500 up, which helps against neither of these.
        if rejection.reason == .unsupportedVersion || rejection.reason == .unsupportedTransferCoding { shouldRetry = false }
    }
}

extension APIServer {
    public func response(to rejection: HTTPRejection) -> (HTTPResponse, [UInt8]) {
        handlers.response(to: rejection)
    }
}

extension APIHandlers {
    /// The answer to what is no acceptable request; counted like any other.
    package func response(to rejection: HTTPRejection) -> (HTTPResponse, [UInt8]) {
        let error = APIError(rejection)
        metrics.count(route: "rejected", status: error.status.code, model: "")
        return (error.head(), error.body())
    }
}
