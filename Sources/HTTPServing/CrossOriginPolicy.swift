import HTTPTypes

/// Which web pages may read answers of the server (CORS, Fetch Standard section 3.2). Without one no answer has such a field, and browsers keep pages out.
///
/// Origins are compared whole, byte for byte; there is no `*`. Credentials in the sense of the Fetch Standard (cookies, client certificates) are never
/// allowed: an API key in the Authorization field is none of these, and a page has to have been given it.
public struct CrossOriginPolicy: Sendable {
    public let origins: Set<String>

    /// - Parameter origins: as browsers send them: `https://app.example.com`, `http://localhost:3000`.
    public init(origins: some Sequence<String>) {
        self.origins = Set(origins)
    }

    /// Whether a text is an origin as browsers send it: a scheme, a host in lower case, and a port unless it is the scheme's own.
    public static func isOrigin(_ text: String) -> Bool {
        guard let scheme = ["https://", "http://"].first(where: { text.hasPrefix($0) }) else { return false }
        let host = text.dropFirst(scheme.count)
        return !host.isEmpty
            && host.utf8.allSatisfy {
                switch $0 {
                case 0x30...0x39, 0x61...0x7A, UInt8(ascii: "."), UInt8(ascii: "-"), UInt8(ascii: ":"), UInt8(ascii: "["), UInt8(ascii: "]"): true
                default: false
                }
            }
    }

    private static let exposed =
        "x-request-id, retry-after, openai-processing-ms, graft-ignored-parameters, graft-adapter, graft-adapter-version, graft-adapter-digest, "
        + "graft-adapter-scale, x-ratelimit-limit-requests, x-ratelimit-remaining-requests, x-ratelimit-reset-requests, x-ratelimit-limit-tokens, "
        + "x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens"

    private func allowed(_ request: HTTPRequest) -> String? {
        guard let origin = request.headerFields[.origin], origins.contains(origin) else { return nil }
        return origin
    }

    /// What every answer to the request has besides its own fields. Caches must not give one origin's answer to another.
    package func fields(for request: HTTPRequest) -> HTTPFields {
        guard let origin = allowed(request) else { return [.vary: "origin"] }
        return [.vary: "origin", .accessControlAllowOrigin: origin, .accessControlExposeHeaders: Self.exposed]
    }

    /// The answer to a browser that asks beforehand whether a page may send something; `nil`: the request is no such question, or the page may not. The
    /// fields of `fields(for:)` belong to it too.
    ///
    /// It comes before any key is asked for, because browsers send none with the question, and says nothing of which routes there are.
    package func preflight(_ request: HTTPRequest) -> HTTPResponse? {
        guard request.method == .options, request.headerFields[.accessControlRequestMethod] != nil, allowed(request) != nil else { return nil }
        return HTTPResponse(
            status: .noContent,
            headerFields: [
                .accessControlAllowMethods: "GET, HEAD, POST, DELETE", .accessControlMaxAge: "600",
                // `*` would not cover authorization.
                .accessControlAllowHeaders: request.headerFields[.accessControlRequestHeaders] ?? "authorization, content-type",
            ])
    }
}
