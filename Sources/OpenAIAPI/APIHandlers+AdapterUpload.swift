import Adapters
import HTTP1
import HTTPServing
import HTTPTypes
import JSON
import Synchronization

/// A large body on its way to the one thread that works on it: whoever takes it is the only one who holds it, so its memory ends with the work.
private final class Handover: Sendable {
    private let body: Mutex<RequestBody>

    init(_ body: RequestBody) {
        self.body = Mutex(body)
    }

    func take() -> RequestBody {
        body.withLock { body in
            defer { body = RequestBody() }
            return body
        }
    }
}

/// A decoded `POST /v1/adapters`.
private struct AdapterUpload {
    var name: String
    var isPromoted = true
    var files: AdapterFiles
    /// The part that holds the numbers, for refusals.
    var filePart: String
    /// Names of unknown parts.
    var ignored: [String] = []

    private static let fields = ["name", "promote"]
    private static let config = "adapter_config", weights = "adapter_model", gguf = "gguf", archive = "archive"
    private static let known = fields + [config, weights, gguf, archive]

    init(_ body: RequestBody, boundary: MultipartBoundary) throws(APIError) {
        let parts: [MultipartPart]
        do throws(MultipartError) {
            parts = try MultipartParser.parts(of: body, boundary: boundary)
        } catch {
            throw APIError(error)
        }
        var ranges: [String: Range<Int>] = [:]
        for part in parts {
            let name = part.head.name
            guard AdapterUpload.known.contains(name) else {
                ignored.append(name)
                continue
            }
            guard ranges.updateValue(part.range, forKey: name) == nil else {
                throw .invalidValue(name, "The form has two parts '\(name)', expected one")
            }
        }
        func text(_ name: String) throws(APIError) -> String? {
            guard let range = ranges[name] else { return nil }
            guard range.count <= 256, let text = String(validating: body.bytes(in: range), as: UTF8.self) else {
                throw .invalidValue(name, "The part '\(name)' has \(range.count) bytes, expected a short text in UTF-8")
            }
            return text
        }
        guard let name = try text("name") else { throw .missing("name", expected: "a part with the adapter's name") }
        try requirePublishable(name, param: "name")
        self.name = name
        switch try text("promote") {
        case nil, "true": isPromoted = true
        case "false": isPromoted = false
        case let word?: throw .invalidValue("promote", "'promote' is '\(quoted(word))', expected true or false")
        }

        func file(_ name: String) -> [UInt8] { body.bytes(in: ranges[name] ?? 0..<0) }
        let sent = [Self.config, Self.weights, Self.gguf, Self.archive].filter { ranges[$0] != nil }
        let expected = "either \(Self.config) and \(Self.weights), or \(Self.gguf), or \(Self.archive)"
        switch sent {
        case [Self.config, Self.weights]:
            files = .peft(config: file(Self.config), weights: file(Self.weights))
            filePart = Self.weights
        case [Self.gguf]:
            files = .gguf(file(Self.gguf))
            filePart = Self.gguf
        case [Self.archive]:
            files = .archive(file(Self.archive))
            filePart = Self.archive
        case []: throw .missing(Self.weights, expected: "the adapter's files: \(expected)")
        case [Self.config]: throw .missing(Self.weights, expected: "the file adapter_model.safetensors that belongs to \(Self.config)")
        case [Self.weights]: throw .missing(Self.config, expected: "the file adapter_config.json that belongs to \(Self.weights)")
        default: throw .invalidValue(sent[1], "The form has the parts \(sent.joined(separator: ", ")), expected \(expected)")
        }
    }

    /// The part that a refusal is about.
    func part(of error: AdapterError) -> String {
        if error.code == .invalidName { return "name" }
        if case .peft = files, error.message.contains(PEFTAdapter.configName) { return Self.config }
        return filePart
    }
}

/// Refuses a name that no adapter may get, before anything is read for it. Folders are named after adapters, so none may begin with a dot.
func requirePublishable(_ name: String, param: String) throws(APIError) {
    guard AdapterReference.isValidName(name), !name.hasPrefix(".") else {
        throw .invalidValue(
            param, "'\(param)' is '\(quoted(name))', expected 1 to 64 letters, digits, dots, underscores and hyphens, the first one no dot")
    }
}

extension APIHandlers {
    /// The boundary of an upload's form; refuses what is no form.
    func uploadBoundary(_ head: HTTPRequest) throws(APIError) -> MultipartBoundary {
        guard let type = head.headerFields[.contentType], MultipartBoundary.isFormData(type) else {
            throw .expectedForm(found: head.headerFields[.contentType])
        }
        do throws(MultipartError) {
            return try MultipartBoundary(contentType: type)
        } catch {
            throw APIError(error)
        }
    }

    /// `POST /v1/adapters`: a new version of a name, from files.
    func upload(_ request: APIRequest, to adapters: any AdapterService, on transport: isolated Transport) throws(APIError) {
        let boundary = try uploadBoundary(request.head)
        let body = Handover(request.body)
        let (requestID, owner) = (request.requestID, request.caller.owner)
        try change(request, route: .createAdapter, action: "publish", subject: AdapterSubject(), on: transport) { handlers, subject throws(APIError) in
            let upload = try AdapterUpload(body.take(), boundary: boundary)
            subject.name = upload.name
            let content: AdapterContent
            do throws(AdapterError) {
                content = try upload.files.content(handlers.adapterFormats, base: adapters.base.configuration)
            } catch {
                throw handlers.refusal(error, in: .upload, param: upload.part(of: error), requestID: requestID)
            }
            do throws(AdapterError) {
                let version = try adapters.publish(content, as: upload.name, owner: owner, source: upload.files.source, promote: upload.isPromoted)
                subject.version = version.number
                return .json(AdapterObjects(adapters).version(version), ignored: upload.ignored)
            } catch {
                throw handlers.refusal(error, in: .upload, param: upload.part(of: error), requestID: requestID)
            }
        }
    }
}
