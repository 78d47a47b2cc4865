import Adapters
import Executors
import HTTP1
import HTTPTypes
import Inference
import InstructionStore
import JSON
import Training
import Tuning

/// A refusal as the client sees it. This file is the one place that turns failures into HTTP statuses.
///
/// The body is OpenAI's: `{"error":{"message","type","param","code"}}`, where `param` and `code` are strings or null. Messages name the
/// field, what was found and what was expected; they never quote the text of a prompt.
public struct APIError: Error, Sendable, CustomStringConvertible {
    /// OpenAI's `type`, which decides the exception that the client libraries raise together with the status.
    public enum Category: String, Sendable, CaseIterable {
        case invalidRequest = "invalid_request_error"
        case notFound = "not_found_error"
        case authentication = "authentication_error"
        case permission = "permission_error"
        /// What a key has used up: OpenAI's types of its rate limits.
        case requests, tokens
        case server = "server_error"
        case unavailable = "unavailable_error"
    }

    public let status: HTTPResponse.Status
    public let category: Category
    /// A word for programs, such as `model_not_found`.
    public let code: String?
    /// The request's field that is at fault, such as `messages[0].role`.
    public let param: String?
    public let message: String
    /// Whole seconds after which another try makes sense, sent as `retry-after`.
    public var retryAfter: Int?
    /// Sent as `x-should-retry` when the client library's own rule (408, 409, 429 and from 500 up) would be wrong.
    public var shouldRetry: Bool?
    /// The methods that a path does know, sent as `allow` with a 405.
    public var allow: [HTTPRequest.Method] = []
    /// What the server wants to see, sent as `www-authenticate` with a 401 or 403.
    public var challenge: String?

    public init(
        _ status: HTTPResponse.Status, _ category: Category, code: String?, param: String? = nil, _ message: String, retryAfter: Int? = nil,
        shouldRetry: Bool? = nil
    ) {
        self.status = status
        self.category = category
        self.code = code
        self.param = param
        self.message = message
        self.retryAfter = retryAfter
        self.shouldRetry = shouldRetry
    }

    public var description: String {
        "\(status.code) \(code ?? category.rawValue): \(message)"
    }

    /// The whole JSON body.
    public func body() -> [UInt8] {
        var out: [UInt8] = []
        out.reserveCapacity(160 + message.utf8.count)
        out.append("{\"error\":")
        appendObject(to: &out)
        out.append("}")
        return out
    }

    /// The object under `error`, which a broken stream sends as well.
    func appendObject(to out: inout [UInt8]) {
        out.append("{\"message\":")
        appendJSONString(message, to: &out)
        out.append(",\"type\":\"")
        out.append(contentsOf: category.rawValue.utf8)
        out.append("\",\"param\":")
        out.appendStringOrNull(param)
        out.append(",\"code\":")
        out.appendStringOrNull(code)
        out.append("}")
    }

    /// The response head that goes with the body.
    func head() -> HTTPResponse {
        var head = HTTPResponse(status: status, headerFields: [.contentType: ContentType.json])
        if let retryAfter { head.headerFields[.retryAfter] = String(retryAfter) }
        if let shouldRetry { head.headerFields[.xShouldRetry] = shouldRetry ? "true" : "false" }
        if let challenge { head.headerFields[.wwwAuthenticate] = challenge }
        if !allow.isEmpty { head.headerFields[.allow] = allow.map(\.rawValue).joined(separator: ", ") }
        return head
    }
}

extension APIError {
    static func invalidValue(_ param: String, _ message: String) -> APIError {
        APIError(.badRequest, .invalidRequest, code: "invalid_value", param: param, message)
    }

    static func invalidType(_ param: String, found: JSONValue, expected: String) -> APIError {
        APIError(.badRequest, .invalidRequest, code: "invalid_type", param: param, "'\(param)' is \(describe(found)), expected \(expected)")
    }

    static func missing(_ param: String, expected: String) -> APIError {
        APIError(.badRequest, .invalidRequest, code: "missing_required_parameter", param: param, "'\(param)' is missing, expected \(expected)")
    }

    /// A parameter that Graft knows and does not do.
    static func unsupportedParameter(_ param: String, _ remedy: String) -> APIError {
        APIError(.badRequest, .invalidRequest, code: "unsupported_parameter", param: param, "'\(param)' is not supported; \(remedy)")
    }

    static func unsupportedValue(_ param: String, _ message: String) -> APIError {
        APIError(.badRequest, .invalidRequest, code: "unsupported_value", param: param, message)
    }

    static func modelNotFound(_ name: String) -> APIError {
        APIError(
            .notFound, .notFound, code: "model_not_found", param: "model",
            "The model '\(quoted(name))' is not served here; GET /v1/models lists those that are")
    }

    static func contextLengthExceeded(param: String, promptTokens: Int, contextLength: Int) -> APIError {
        APIError(
            .badRequest, .invalidRequest, code: "context_length_exceeded", param: param,
            "The prompt has \(promptTokens) tokens; the context of this model holds \(contextLength), the answer included. Shorten the prompt")
    }

    static let busy = APIError(
        .serviceUnavailable, .unavailable, code: "server_busy", "The server's queue is full; try again shortly", retryAfter: 1)

    static func tooManyUploads(_ limit: Int) -> APIError {
        APIError(
            .serviceUnavailable, .unavailable, code: "server_busy", "All \(limit) uploads that may be under way at once are; try again shortly", retryAfter: 1)
    }

    static func tooManyDownloads(_ limit: Int) -> APIError {
        APIError(
            .serviceUnavailable, .unavailable, code: "server_busy", "All \(limit) contents of files that may be sent at once are; try again shortly",
            retryAfter: 1)
    }

    static let shuttingDown = APIError(
        .serviceUnavailable, .unavailable, code: "shutting_down", "The server is shutting down and takes no new work", retryAfter: 5)

    static func unsupportedMediaType(found type: String) -> APIError {
        APIError(
            .unsupportedMediaType, .invalidRequest, code: "unsupported_media_type",
            "The body's content-type is '\(quoted(type))', expected application/json; with curl use --json, or add -H 'content-type: application/json'")
    }

    /// - Parameter type: `nil` when there is none.
    static func expectedForm(found type: String?) -> APIError {
        APIError(
            .unsupportedMediaType, .invalidRequest, code: "unsupported_media_type",
            "The body's content-type is \(type.map { "'\(quoted($0))'" } ?? "absent"), expected multipart/form-data; with curl use -F for each part")
    }

    /// A form whose parts cannot be told apart.
    init(_ error: MultipartError) {
        self.init(.badRequest, .invalidRequest, code: "invalid_multipart", "The body is not an acceptable form: \(error.message)")
    }

    /// An executor's refusals.
    init(_ error: ExecutorError) {
        switch error.code {
        case .queueFull: self = .busy
        case .shutDown: self = .shuttingDown
        }
    }

    /// The engine's refusals.
    init(_ error: InferenceError, param: String) {
        switch error.code {
        case .contextLengthExceeded:
            self.init(.badRequest, .invalidRequest, code: "context_length_exceeded", param: param, error.message)
        case .queueFull:
            self = .busy
        case .shuttingDown:
            self = .shuttingDown
        case .invalidRequest:
            self.init(.badRequest, .invalidRequest, code: "invalid_value", error.message)
        case .internalFailure:
            // The engine's message may name files and addresses; it goes to the log, not to the client.
            self.init(
                .internalServerError, .server, code: "internal_error",
                "The engine failed on this request; the server's log has the cause",
                // It would fail in the same way each time.
                shouldRetry: false)
        }
    }

    // MARK: Adapters

    static let adaptersDisabled = APIError(
        .notFound, .notFound, code: "adapters_disabled",
        "This server runs without adapters; its operator turns them on by starting it with a directory to keep them in")

    /// A route that is off unless the operator wants it.
    static func routeDisabled(setting: String) -> APIError {
        APIError(.notFound, .notFound, code: "route_disabled", "This route is turned off; the setting \(setting) turns it on")
    }

    static func adapterNotFound(_ name: String, param: String? = nil) -> APIError {
        APIError(
            .notFound, .notFound, code: "adapter_not_found", param: param,
            "There is no adapter '\(quoted(name))' here; GET /v1/adapters lists those that there are, with their versions")
    }

    static func adapterNotPromoted(_ name: String) -> APIError {
        APIError(
            .notFound, .notFound, code: "adapter_not_promoted",
            "No version of the adapter '\(name)' is promoted; name one, such as '\(name)@latest', or POST /v1/adapters/\(name)/promote")
    }

    static func blendAndAdapter(_ name: String, base: String) -> APIError {
        .invalidValue(
            "lora", "'lora' is set and 'model' is the adapter '\(quoted(name))'; send one of them, or '\(base)' as 'model' and all adapters in 'lora'")
    }

    static func duplicateAdapter(_ name: String, param: String?) -> APIError {
        APIError(
            .badRequest, .invalidRequest, code: "invalid_value", param: param,
            "The adapter '\(name)' is named twice; name each adapter once, with the sum of its scales")
    }

    /// A version whose files are damaged. Repeating the request would not help.
    static func adapterQuarantined(_ name: String, _ reason: String, param: String?) -> APIError {
        APIError(
            .serviceUnavailable, .unavailable, code: "adapter_quarantined", param: param,
            "The adapter '\(name)' is out of service because its files are damaged (\(reason)); publish it again, or choose another version", shouldRetry: false
        )
    }

    static func adapterWrongBase(_ version: AdapterVersion, served: AdapterBase, param: String?) -> APIError {
        APIError(
            .badRequest, .invalidRequest, code: "adapter_wrong_base", param: param,
            "The adapter '\(version.qualifiedName)' was made for \(baseSpelling(version.baseName, version.baseDigest)), "
                + "and this server runs \(baseSpelling(served.name, served.digest)); publish one for this base, or serve the other")
    }

    /// What the registry was asked for when it refused.
    enum AdapterSituation: Sendable {
        /// To generate with a version that exists.
        case use
        /// To change something or to read it.
        case change
        /// To take a file that the request carried along.
        case upload
    }

    /// The registry's refusals.
    /// - Parameter param: the request's field or part that is at fault if the content is.
    init(_ error: AdapterError, in situation: AdapterSituation, param: String? = nil) {
        // A faulty file in an upload is the one thing that is 422.
        let content: HTTPResponse.Status = situation == .upload ? .unprocessableContent : .badRequest
        switch (error.code, situation) {
        case (.quarantined, _), (.unreadable, .use), (.unsupported, .use):
            self.init(.serviceUnavailable, .unavailable, code: "adapter_quarantined", param: param, error.message, shouldRetry: false)
        case (.unreadable, _):
            self.init(content, .invalidRequest, code: "adapter_unreadable", param: param, error.message)
        case (.unsupported, _):
            self.init(content, .invalidRequest, code: "adapter_unsupported", param: param, error.message)
        case (.wrongBase, _):
            self.init(content, .invalidRequest, code: "adapter_wrong_base", param: param, error.message)
        case (.invalidName, _):
            self.init(.badRequest, .invalidRequest, code: "invalid_value", param: param ?? "name", error.message)
        case (.invalidArgument, _):
            self.init(.badRequest, .invalidRequest, code: "invalid_value", param: param, error.message)
        case (.notFound, .use):
            self.init(.notFound, .notFound, code: "model_not_found", param: "model", error.message)
        case (.notFound, _):
            self.init(.notFound, .notFound, code: "adapter_not_found", error.message)
        case (.conflict, _):
            self.init(.conflict, .invalidRequest, code: "adapter_conflict", error.message, shouldRetry: false)
        case (.storageFull, _):
            self.init(
                .insufficientStorage, .server, code: "storage_full", "The server's disk is full and nothing was changed; free some space, or delete adapters",
                shouldRetry: false)
        case (.storage, _):
            // The message names files of the server; it goes to the log, not to the client.
            self.init(
                .internalServerError, .server, code: "storage_error",
                "The server's disk failed and the request was not carried out; the server's log has the cause",
                shouldRetry: false)
        case (.outOfMemory, _):
            self.init(
                .serviceUnavailable, .unavailable, code: "out_of_memory", "There is no memory for this adapter now; try again later, or with a smaller rank",
                retryAfter: 10)
        }
    }

    // MARK: Files and exchanges

    static let filesDisabled = APIError(
        .notFound, .notFound, code: "files_disabled", "This server runs without a data directory and keeps no files and no exchanges")

    static func fileNotFound(_ id: String, param: String? = nil) -> APIError {
        APIError(.notFound, .notFound, code: "file_not_found", param: param, "There is no file '\(quoted(id))' here; GET /v1/files lists those that there are")
    }

    static func exchangeNotFound(_ id: String, param: String? = nil) -> APIError {
        APIError(
            .notFound, .notFound, code: "completion_not_found", param: param,
            "There is no kept completion '\(quoted(id))' here; GET /v1/chat/completions lists those that there are, and 'store': true keeps one")
    }

    /// Content that is no training data of any known format.
    init(_ error: DatasetError) {
        self.init(.badRequest, .invalidRequest, code: "invalid_file_format", param: "file", error.message)
    }

    /// The store's refusals. What they say of the server's disk goes to the log, not to the client.
    init(_ error: InstructionStoreError) {
        switch error.code {
        case .storageFull:
            self.init(
                .insufficientStorage, .server, code: "storage_full", "The server's disk is full and nothing was kept; free some space, or delete files",
                shouldRetry: false)
        case .busy:
            self.init(
                .serviceUnavailable, .unavailable, code: "server_busy", "The server's database is in use by another program; try again shortly",
                retryAfter: 1)
        case .conflict: self.init(.conflict, .invalidRequest, code: "conflict", error.message, shouldRetry: false)
        case .notFound: self.init(.notFound, .notFound, code: "not_found", error.message)
        case .invalidArgument: self.init(.badRequest, .invalidRequest, code: "invalid_value", error.message)
        case .storage, .failed, .damaged, .newerSchema:
            self.init(
                .internalServerError, .server, code: "storage_error",
                "The server's disk failed and the request was not carried out; the server's log has the cause", shouldRetry: false)
        }
    }

    // MARK: Fine-tuning

    static let tuningDisabled = APIError(
        .notFound, .notFound, code: "tuning_disabled", "This server runs no fine-tuning jobs; its operator turns them on with the setting tuning.enabled")

    /// The job queue's refusals.
    init(_ error: TuningError) {
        switch error.code {
        case .invalidArgument:
            self.init(.badRequest, .invalidRequest, code: "invalid_value", param: error.parameter, error.message)
        case .notFound where error.parameter == "model":
            self.init(.notFound, .notFound, code: "model_not_found", param: "model", error.message)
        case .notFound:
            self.init(.notFound, .notFound, code: "fine_tuning_job_not_found", param: error.parameter, error.message)
        case .conflict:
            // The client library would repeat it, and it would be refused again.
            self.init(.conflict, .invalidRequest, code: "job_conflict", error.message, shouldRetry: false)
        case .tooLarge:
            self.init(.badRequest, .invalidRequest, code: "memory_limit_exceeded", param: error.parameter, error.message)
        case .storageFull:
            self.init(
                .insufficientStorage, .server, code: "storage_full", "The server's disk is full and nothing was changed; free some space, or delete files",
                shouldRetry: false)
        case .storage:
            self.init(
                .internalServerError, .server, code: "storage_error",
                "The server's disk failed and the request was not carried out; the server's log has the cause", shouldRetry: false)
        }
    }

    /// A body that is not JSON. When the fault lies in the value of a member, `param` is that member's key.
    init(_ error: JSONError, in body: [UInt8]) {
        let key = memberKey(before: error.offset, in: body)
        let subject = key.map { "The value of '\($0)'" } ?? "The body"
        self.init(
            .badRequest, .invalidRequest, code: "invalid_json", param: key,
            "\(subject) is not valid JSON at byte \(error.offset): \(error.message)")
    }
}

/// A base model in a message: its name is for people, its digest decides.
private func baseSpelling(_ name: String, _ digest: String) -> String { "'\(quoted(name))' (sha256:\(digest.prefix(12))…)" }

/// How a message names a value that was found: numbers and booleans as they are, everything else by kind, because strings may be prompts.
func describe(_ value: JSONValue) -> String {
    switch value {
    case .bool(let value): value ? "true" : "false"
    case .integer(let value): String(value)
    case .number(let value): value.description
    default: value.kindName
    }
}

/// A client's word made fit for a message: at most 100 characters, control characters replaced.
func quoted(_ word: String) -> String {
    var result = ""
    for (count, scalar) in word.unicodeScalars.enumerated() {
        if count == 100 { return result + "…" }
        result.unicodeScalars.append(scalar.properties.generalCategory == .control ? "\u{FFFD}" : scalar)
    }
    return result
}

/// The key of the member whose value starts at or surrounds `offset`: walks back over the number or word there, the colon and the quoted
/// key. `nil` unless the key is a plain word of at most 64 letters, digits and underscores.
private func memberKey(before offset: Int, in body: [UInt8]) -> String? {
    var index = min(offset, body.count) - 1
    func isWord(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "_"): true
        default: false
        }
    }
    func isSpace(_ byte: UInt8) -> Bool { byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09 }
    let limit = max(0, index - 400)
    func skip(while test: (UInt8) -> Bool) {
        while index >= limit, test(body[index]) { index -= 1 }
    }
    skip { isWord($0) || $0 == UInt8(ascii: "+") || $0 == UInt8(ascii: "-") || $0 == UInt8(ascii: ".") }
    skip(while: isSpace)
    guard index >= limit, body[index] == UInt8(ascii: ":") else { return nil }
    index -= 1
    skip(while: isSpace)
    guard index >= limit, body[index] == UInt8(ascii: "\"") else { return nil }
    let end = index
    index -= 1
    skip(while: isWord)
    guard index >= limit, body[index] == UInt8(ascii: "\""), (1...64).contains(end - index - 1) else { return nil }
    return String(decoding: body[(index + 1)..<end], as: UTF8.self)
}

/// The content types of responses.
enum ContentType {
    static let json = "application/json"
    static let eventStream = "text/event-stream; charset=utf-8"
    static let text = "text/plain; charset=utf-8"
    static let tar = "application/x-tar"
    static let bytes = "application/octet-stream"
}

extension HTTPResponse.Status {
    static let insufficientStorage = Self(code: 507, reasonPhrase: "Insufficient Storage")
}

extension HTTPField.Name {
    static let xShouldRetry = Self("x-should-retry")!
    static let openAIProcessingTime = Self("openai-processing-ms")!
    static let ignoredParameters = Self("graft-ignored-parameters")!
    static let accelBuffering = Self("x-accel-buffering")!
    static let graftAdapter = Self("graft-adapter")!
    static let graftAdapterVersion = Self("graft-adapter-version")!
    static let graftAdapterDigest = Self("graft-adapter-digest")!
    static let graftAdapterScale = Self("graft-adapter-scale")!
}
