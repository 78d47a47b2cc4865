import HTTPTypes
import JSON

/// The refusals of the API's description: which statuses a route gives beside 200, and what each means.
enum OperationRefusals {
    /// What the server may say to any request at all.
    private static let always = [400, 408, 414, 417, 421, 431, 500, 501, 503, 505]

    /// Every status but 200 that a route can give, in order.
    static func statuses(of operation: Operation, isOpen: Bool) -> [Int] {
        var statuses = Set(always + operation.refusals)
        // The key: absent or wrong, of too narrow a scope, at its limit.
        if !isOpen { statuses.formUnion([401, 403, 429]) }
        if let body = operation.body {
            statuses.insert(413)
            if body.mediaType != "*/*" { statuses.insert(415) }
        }
        return statuses.sorted()
    }

    /// Of a status, the name of its response in `components`.
    static func name(_ status: Int) -> String { table[status]?.name ?? "Refusal\(status)" }

    private struct Refusal {
        var name: String
        var text: String
        var example: APIError
        var headers: [String] = []
    }

    private static func example(_ status: Int, _ category: APIError.Category, _ code: String, param: String? = nil, _ message: String) -> APIError {
        APIError(HTTPResponse.Status(code: status), category, code: code, param: param, message)
    }

    private static let table: [Int: Refusal] = [
        400: Refusal(
            name: "BadRequest",
            text: "The request is not acceptable: a field, a parameter or a part is missing, of the wrong kind, out of its bounds, or known and not supported; "
                + "or the body is not JSON, or not HTTP. `param` names what is at fault.",
            example: .invalidValue("temperature", "'temperature' is 3, expected a number from 0 to 2")),
        401: Refusal(
            name: "Unauthorized", text: "The server wants a key, and the request has none or one that is not known.",
            example: .missingKey,
            headers: ["www-authenticate"]),
        403: Refusal(
            name: "Forbidden", text: "The key is good and does not allow this route.",
            example: .missingScope(.train)),
        404: Refusal(
            name: "NotFound", text: "There is no such thing here, or it is somebody else's, or the server runs without what the route is about.",
            example: .modelNotFound("nobody")),
        408: Refusal(
            name: "RequestTimeout", text: "The request did not come in time.",
            example: example(408, .invalidRequest, "request_timeout", "The head was not complete after 10 s")),
        409: Refusal(
            name: "Conflict", text: "The thing is not in a state in which this can be done to it. Repeating the request does not help.",
            example: example(409, .invalidRequest, "job_conflict", "the job is not paused; GET it to see what can be done with it"), headers: ["x-should-retry"]
        ),
        413: Refusal(
            name: "ContentTooLarge", text: "The body is larger than this route takes.",
            example: example(413, .invalidRequest, "body_too_large", "the body is larger than 4194304 bytes")),
        414: Refusal(
            name: "URITooLong", text: "The target is longer than the server takes.",
            example: example(414, .invalidRequest, "target_too_long", "the target is longer than 8192 bytes")),
        415: Refusal(
            name: "UnsupportedMediaType", text: "The body's content-type is another than this route takes.", example: .unsupportedMediaType(found: "text/csv")),
        417: Refusal(
            name: "ExpectationFailed", text: "The field `expect` asks for something else than `100-continue`.",
            example: example(417, .invalidRequest, "expectation_failed", "the expectation is not 100-continue")),
        421: Refusal(
            name: "MisdirectedRequest", text: "The field `host` names none of the hosts that this server answers for.",
            example: example(421, .invalidRequest, "misdirected_request", "this server does not answer for the host of the request")),
        422: Refusal(
            name: "UnprocessableContent", text: "The form is well made, and the adapter's files in it cannot be served; `param` names the part.",
            example: example(
                422, .invalidRequest, "adapter_unsupported", param: "adapter_config", "use_dora is true, expected false; only plain LoRA is served")),
        429: Refusal(
            name: "TooManyRequests", text: "The key is at its limit of requests or tokens a minute. `retry-after` says when to try again.",
            example: .rateLimit(.requests, limit: 60, remaining: 0, requested: 1, wait: 2), headers: ["retry-after"]),
        431: Refusal(
            name: "HeadersTooLarge", text: "The header fields are too many or too long.",
            example: example(431, .invalidRequest, "headers_too_large", "the header has more than 100 fields")),
        500: Refusal(
            name: "InternalServerError", text: "The server failed at this request; its log has the cause under the request's id.",
            example: APIError(
                .internalServerError, .server, code: "internal_error", "The engine failed on this request; the server's log has the cause"),
            headers: ["x-should-retry"]),
        501: Refusal(
            name: "NotImplemented", text: "The field `transfer-encoding` names another coding than `chunked`.",
            example: example(501, .invalidRequest, "unsupported_transfer_coding", "the transfer coding is not chunked"), headers: ["x-should-retry"]),
        503: Refusal(
            name: "ServiceUnavailable",
            text: "The server is full, is shutting down, or cannot use the adapter that was asked for. `retry-after` says when to try again, if that helps.",
            example: .busy, headers: ["retry-after", "x-should-retry"]),
        505: Refusal(
            name: "HTTPVersionNotSupported", text: "The request is of another HTTP version than 1.0 or 1.1.",
            example: example(505, .invalidRequest, "unsupported_version", "the version is not 1.0 or 1.1"), headers: ["x-should-retry"]),
        507: Refusal(
            name: "InsufficientStorage", text: "The server's disk is full and nothing was changed. Repeating the request does not help before there is room.",
            example: example(507, .server, "storage_full", "The server's disk is full and nothing was kept; free some space, or delete files"),
            headers: ["x-should-retry"]),
    ]

    /// All of them, for `components`.
    static var components: JSONObject {
        var components = JSONObject()
        for (_, refusal) in table.sorted(by: { $0.key < $1.key }) {
            var headers: JSONObject = ["x-request-id": Operation.reference(header: "x-request-id")]
            for name in refusal.headers { headers[name] = Operation.reference(header: name) }
            let example = (try? JSONValue(parsing: refusal.example.body())) ?? .null
            components[refusal.name] = [
                "description": .string(refusal.text), "headers": .object(headers),
                "content": ["application/json": ["schema": ["$ref": "#/components/schemas/Error"], "example": example]] as JSONValue,
            ]
        }
        return components
    }

    /// The body of every refusal.
    static let schema = Schema.answer(
        "Every refusal, also the last event of a stream that broke.",
        [
            (
                "error",
                .answer(
                    "",
                    [
                        ("message", .string("For people: what was found, what was expected, and the way out.")),
                        ("type", .word(APIError.Category.allCases.map(\.rawValue))),
                        ("param", Schema.string("The field, parameter or part that is at fault, such as `messages[0].role`.").orNull),
                        ("code", Schema.string("A word for programs, such as `context_length_exceeded`.").orNull),
                    ])
            )
        ])

    /// The fields of answers and refusals, for `components`.
    static let headers: [(name: String, text: String, schema: Schema)] = [
        ("x-request-id", "The request's own `x-request-id` if it was acceptable, else a new one; the server's log has it.", .string()),
        ("retry-after", "Seconds after which another try makes sense.", .integer(in: 0 ... .max)),
        ("x-should-retry", "Whether repeating the request can help, where the status alone says otherwise.", .word(["true", "false"])),
        ("www-authenticate", "How to authenticate.", .string()),
        (
            "graft-ignored-parameters", "The fields or parts of the request that are not known and were ignored; absent when there are none.",
            .string()
        ),
        ("openai-processing-ms", "Milliseconds from the request's last byte to the answer's first.", .integer(in: 0 ... .max)),
        ("graft-adapter", "The adapters that took part, by name; absent for the base model alone.", .string()),
        ("graft-adapter-version", "Their versions, in the same order.", .string()),
        ("graft-adapter-digest", "Their digests, in the same order.", .string()),
        ("graft-adapter-scale", "Their scales, in the same order; only for a request with `lora`.", .string()),
        ("content-disposition", "Under which name to save the content.", .string()),
    ]
}
