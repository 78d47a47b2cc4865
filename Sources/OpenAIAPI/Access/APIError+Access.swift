import HTTPTypes
import InstructionStore

/// Refusals of those who may not, or not now.
extension APIError {
    private static let wayOut = "send 'Authorization: Bearer' and a key; the server's operator makes one with `graft keys create`"

    /// RFC 6750 section 3: who brought no credentials is told of the scheme and of no error.
    private static func unauthorized(_ message: String, challenge: String = "Bearer realm=\"graft\", error=\"invalid_token\"") -> APIError {
        var error = APIError(.unauthorized, .authentication, code: "invalid_api_key", message)
        error.challenge = challenge
        return error
    }

    static let missingKey = unauthorized("This server wants an API key and the request has none; \(wayOut)", challenge: "Bearer realm=\"graft\"")
    static let malformedAuthorization = unauthorized("The Authorization field is not 'Bearer' and one key; \(wayOut)")
    /// Whether it is the id or the secret that is wrong is not said.
    static let unknownKey = unauthorized("The API key is none of this server's; \(wayOut)")

    /// Only for whoever has the whole key.
    static func endedKey(_ how: String) -> APIError {
        unauthorized("The API key \(how); \(wayOut)")
    }

    static func missingScope(_ scope: KeyScope) -> APIError {
        var error = APIError(
            .forbidden, .permission, code: "missing_scope",
            "The API key does not have the scope '\(scope.rawValue)' that this route wants; use a key that has it, as made with `graft keys create --scope \(scope.rawValue)`")
        error.challenge = "Bearer realm=\"graft\", error=\"insufficient_scope\", scope=\"\(scope.rawValue)\""
        return error
    }

    static func keyNotFound(_ id: String) -> APIError {
        APIError(
            .notFound, .notFound, code: "api_key_not_found",
            "There is no API key '\(quoted(id))' here; GET /v1/organization/admin_api_keys lists those that there are")
    }

    /// A key's own limit, which other keys' requests have no part in.
    /// - Parameters:
    ///   - unit: `requests` or `tokens`, OpenAI's types of this error.
    ///   - wait: seconds until so much is there again; `nil`: never, because the limit itself is smaller.
    static func rateLimit(_ unit: Category, limit: Int, remaining: Int, requested: Int, wait: Int?) -> APIError {
        let what = unit == .requests ? "requests" : "tokens"
        var error = APIError(
            .tooManyRequests, unit, code: "rate_limit_exceeded",
            wait.map { "This key may use \(limit) \(what) a minute; \(remaining) are left and \(requested) are asked for. Try again in \($0) s" }
                ?? "This key may use \(limit) \(what) a minute, and this request alone asks for \(requested); send a shorter prompt or lower max_tokens",
            retryAfter: wait)
        // Waiting would not help.
        if wait == nil { error.shouldRetry = false }
        return error
    }
}
