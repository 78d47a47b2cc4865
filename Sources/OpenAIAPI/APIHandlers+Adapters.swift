import Adapters
import HTTPServing
import HTTPTypes
import JSON
import Observability

/// What a change of adapters is about, for the audit line; filled in while it becomes known.
struct AdapterSubject: Sendable {
    var name: String?
    var version: Int?
}

/// The answer to a change.
enum AdapterAnswer: Sendable {
    case json(JSONValue, ignored: [String] = [])
    case text(String, ignored: [String] = [])
}

extension APIHandlers {
    func requireAdapters() throws(APIError) -> any AdapterService {
        guard let adapters else { throw .adaptersDisabled }
        return adapters
    }

    /// The registry's refusal as the client sees it; what only the operator may see is logged.
    func refusal(_ error: AdapterError, in situation: APIError.AdapterSituation, param: String? = nil, requestID: String) -> APIError {
        switch error.code {
        case .storage, .storageFull, .outOfMemory:
            logger.error("the adapter registry failed", metadata: ["request_id": "\(requestID)", "cause": "\(error.message)"])
        default: break
        }
        return APIError(error, in: situation, param: param)
    }

    /// Everything below `/v1/adapters`.
    func serveAdapters(_ request: APIRequest, route: APIRoute, id: String, on transport: isolated Transport) throws(APIError) {
        let adapters = try requireAdapters()
        let owner = request.caller.owner
        switch route {
        case .createAdapter:
            try upload(request, to: adapters, on: transport)
        case .adapters:
            answer(request, route: route, try page(request, of: adapters), on: transport)
        case .adapter:
            let (reference, record) = try find(id, of: owner, in: adapters)
            let objects = AdapterObjects(adapters)
            guard reference.selector != .promoted else { return answer(request, route: route, objects.adapter(record), on: transport) }
            guard let version = record.version(reference.selector) else { throw .adapterNotFound(id) }
            answer(request, route: route, objects.version(version), on: transport)
        case .adapterVersions:
            let record = try findName(id, of: owner, in: adapters)
            answer(request, route: route, AdapterObjects.list(record.versions.map(AdapterObjects(adapters).version)), on: transport)
        case .promoteAdapter:
            try promote(request, id, in: adapters, on: transport)
        case .rollbackAdapter:
            try requireJSON(request)
            let ignored = try optionalObject(request).unread
            let name = try findName(id, of: owner, in: adapters).name
            try changeRecord(request, route: route, action: "rollback", name: name, ignored: ignored, of: adapters, on: transport) {
                subject throws(AdapterError) in
                let record = try adapters.rollback(name, owner: owner)
                subject.version = record.promoted
                return record
            }
        case .pinAdapter:
            try requireJSON(request)
            var fields = try optionalObject(request)
            guard let isPinned = try fields.bool("pinned") else { throw .missing("pinned", expected: "true or false") }
            let ignored = fields.unread
            let name = try findName(id, of: owner, in: adapters).name
            try changeRecord(request, route: route, action: isPinned ? "pin" : "unpin", name: name, ignored: ignored, of: adapters, on: transport) {
                _ throws(AdapterError) in try adapters.setPinned(name, isPinned, owner: owner)
            }
        case .exportAdapter:
            try export(request, id, from: adapters, on: transport)
        case .deleteAdapter:
            try delete(request, route: route, id, object: "adapter", from: adapters, on: transport)
        default:
            preconditionFailure("\(route) is not below /v1/adapters")
        }
    }

    // MARK: - Looking

    /// A page of adapters by their ids, which grow. The adapter that the page before ended with need not exist any more.
    private func page(_ request: APIRequest, of adapters: any AdapterService) throws(APIError) -> JSONValue {
        let query = QueryFields(request)
        let limit = try query.integer("limit", in: AdapterObjects.pageRange) ?? AdapterObjects.pageSize
        let after = try query.integer("after", in: 0...Int.max) ?? 0
        let rest = adapters.records(owner: request.caller.owner).drop { $0.id <= after }
        let page = rest.prefix(limit)
        let objects = AdapterObjects(adapters)
        return AdapterObjects.list(page.map(objects.adapter), hasMore: page.count < rest.count)
    }

    /// What an id in a path names: an adapter, or one version of it. The version need not exist.
    private func find(_ id: String, of owner: String, in adapters: any AdapterService) throws(APIError) -> (AdapterReference, AdapterRecord) {
        guard let reference = AdapterReference(id), let record = adapters.record(named: reference.name, owner: owner) else { throw .adapterNotFound(id) }
        return (reference, record)
    }

    /// The adapter of a path that takes no version.
    private func findName(_ id: String, of owner: String, in adapters: any AdapterService) throws(APIError) -> AdapterRecord {
        let (reference, record) = try find(id, of: owner, in: adapters)
        guard reference.selector == .promoted else {
            throw APIError(
                .badRequest, .invalidRequest, code: "invalid_value",
                "The path names the version '\(quoted(id))', expected the adapter's name '\(record.name)' alone")
        }
        return record
    }

    /// The fields of a body that may be left out.
    private func optionalObject(_ request: APIRequest) throws(APIError) -> RequestFields {
        RequestFields(request.body.isEmpty ? JSONObject() : try preparation.object(request.body.joined()))
    }

    private func export(_ request: APIRequest, _ id: String, from adapters: any AdapterService, on transport: isolated Transport) throws(APIError) {
        let named = request.query.filter { $0.name == "format" }
        let word = named.last?.value ?? AdapterFormat.peft.rawValue
        guard named.count <= 1, let format = AdapterFormat(rawValue: word) else {
            throw .invalidValue("format", "'format' is '\(quoted(word))', expected one of \(AdapterFormat.allCases.map(\.rawValue).joined(separator: ", "))")
        }
        let (reference, record) = try find(id, of: request.caller.owner, in: adapters)
        guard let version = record.version(reference.selector) else {
            throw reference.selector == .promoted ? .adapterNotPromoted(record.name) : .adapterNotFound(id)
        }
        let writeArchive = adapterFormats.writeArchive
        let requestID = request.requestID
        try perform(
            request, route: .exportAdapter, with: adapterChanges, on: transport,
            work: { () throws(APIError) in
                do throws(AdapterError) {
                    let exported = try adapters.export(version, as: format)
                    return format == .gguf ? exported.files.first?.bytes ?? [] : writeArchive(exported.files)
                } catch {
                    throw self.refusal(error, in: .change, requestID: requestID)
                }
            },
            then: { (handlers: APIHandlers, bytes: [UInt8], transport: isolated Transport) throws(APIError) in
                var head = HTTPResponse(status: .ok, headerFields: [.contentType: format == .gguf ? ContentType.bytes : ContentType.tar])
                head.headerFields[.contentDisposition] = "attachment; filename=\"\(version.name)-\(version.number).\(format == .gguf ? "gguf" : "tar")\""
                head.headerFields.append(contentsOf: version.responseFields)
                transport.respond(to: request.exchange, head, body: bytes)
                handlers.record(route: .exportAdapter, status: 200, model: "", request: request)
            })
    }

    // MARK: - Changing

    private func promote(_ request: APIRequest, _ id: String, in adapters: any AdapterService, on transport: isolated Transport) throws(APIError) {
        try requireJSON(request)
        var fields = try optionalObject(request)
        let number: Int?
        if let word = fields.value("version")?.string {
            guard word == "latest" else { throw .invalidValue("version", "'version' is \"\(quoted(word))\", expected a number or \"latest\"") }
            number = nil
        } else {
            number = try fields.integer("version", in: 1...Int.max)
        }
        let share = try fields.number("share", in: 0...1)
        let ignored = fields.unread
        let owner = request.caller.owner
        let record = try findName(id, of: owner, in: adapters)
        if let number, record.version(.number(number)) == nil { throw .adapterNotFound("\(record.name)@\(number)", param: "version") }
        let action = share.map { $0 < 1 } == true ? "canary" : "promote"
        try changeRecord(request, route: .promoteAdapter, action: action, name: record.name, ignored: ignored, of: adapters, on: transport) {
            subject throws(AdapterError) in
            subject.version = number
            let changed = try adapters.promote(record.name, number: number, share: share, owner: owner)
            subject.version = action == "promote" ? changed.promoted : changed.canary?.number ?? number
            return changed
        }
    }

    /// `DELETE /v1/models/{id}`.
    func deleteModel(_ request: APIRequest, _ id: String, on transport: isolated Transport) throws(APIError) {
        if models.isBase(id) || id == defaultModelName {
            throw APIError(
                .badRequest, .invalidRequest, code: "invalid_value", param: "model",
                "'\(quoted(id))' is the base model, expected an adapter; only adapters can be deleted")
        }
        let owner = request.caller.owner
        if let adapters, let version = adapters.version(alias: id, owner: owner) {
            // The name stands for one version, and that one goes; the answer says the name that was asked for.
            let requestID = request.requestID
            return try change(
                request, route: .deleteModel, action: "delete", subject: AdapterSubject(name: version.name, version: version.number), on: transport
            ) { handlers, _ throws(APIError) in
                try handlers.delete(version.name, number: version.number, of: owner, from: adapters, requestID: requestID)
                return .json(["id": .string(id), "object": "model", "deleted": true])
            }
        }
        guard let adapters, let reference = AdapterReference(id), adapters.record(named: reference.name, owner: owner) != nil else {
            throw .modelNotFound(id)
        }
        try delete(request, route: .deleteModel, id, object: "model", from: adapters, on: transport)
    }

    private func delete(
        _ request: APIRequest, route: APIRoute, _ id: String, object: String, from adapters: any AdapterService, on transport: isolated Transport
    ) throws(APIError) {
        let (requestID, owner) = (request.requestID, request.caller.owner)
        let (reference, record) = try find(id, of: owner, in: adapters)
        let number: Int?
        switch reference.selector {
        case .promoted: number = nil
        case .latest, .number:
            guard let version = record.version(reference.selector) else { throw .adapterNotFound(id) }
            number = version.number
        }
        let name = record.name
        try change(request, route: route, action: "delete", subject: AdapterSubject(name: name, version: number), on: transport) {
            handlers, _ throws(APIError) in
            try handlers.delete(name, number: number, of: owner, from: adapters, requestID: requestID)
            let deleted = number.map { "\(name)@\($0)" } ?? name
            return .json([
                "id": .string(deleted), "object": .string(object == "adapter" && number != nil ? "adapter.version" : object), "deleted": true,
            ])
        }
    }

    /// Blocking.
    func delete(_ name: String, number: Int?, of owner: String, from adapters: any AdapterService, requestID: String) throws(APIError) {
        do throws(AdapterError) {
            try adapters.delete(name, number: number, owner: owner)
        } catch {
            throw refusal(error, in: .change, requestID: requestID)
        }
        metrics.forgetDeleted(adapters)
    }

    /// A change whose answer is the adapter as it is afterwards.
    private func changeRecord(
        _ request: APIRequest, route: APIRoute, action: String, name: String, ignored: [String], of adapters: any AdapterService,
        on transport: isolated Transport, _ work: @escaping @Sendable (inout AdapterSubject) throws(AdapterError) -> AdapterRecord
    ) throws(APIError) {
        try change(request, route: route, action: action, subject: AdapterSubject(name: name), on: transport) { handlers, subject throws(APIError) in
            do throws(AdapterError) {
                return .json(AdapterObjects(adapters).adapter(try work(&subject)), ignored: ignored)
            } catch {
                throw handlers.refusal(error, in: .change, requestID: request.requestID)
            }
        }
    }

    /// Carries out a change on the thread for changes, after those that came before, and answers. It is carried out also when the client leaves,
    /// and leaves one audit line either way.
    func change(
        _ request: APIRequest, route: APIRoute, action: String, subject: AdapterSubject, on transport: isolated Transport,
        _ work: @escaping @Sendable (APIHandlers, inout AdapterSubject) throws(APIError) -> AdapterAnswer
    ) throws(APIError) {
        if isDraining { throw .shuttingDown }
        let request = request.withoutBody
        try perform(
            request, route: route, with: adapterChanges, on: transport,
            work: { () throws(APIError) in
                var subject = subject
                do throws(APIError) {
                    let answer = try work(self, &subject)
                    self.audit(action, subject, request: request, result: "ok")
                    return answer
                } catch {
                    self.audit(action, subject, request: request, result: error.code ?? "error")
                    throw error
                }
            },
            then: { (handlers: APIHandlers, result: AdapterAnswer, transport: isolated Transport) throws(APIError) in
                switch result {
                case .json(let value, let ignored): handlers.answer(request, route: route, value, ignored: ignored, on: transport)
                case .text(let text, let ignored):
                    var head = HTTPResponse(status: .ok, headerFields: [.contentType: ContentType.text])
                    if !ignored.isEmpty { head.headerFields[.ignoredParameters] = headerList(ignored) }
                    transport.respond(to: request.exchange, head, body: Array(text.utf8))
                    handlers.record(route: route, status: 200, model: "", request: request)
                }
            })
    }

    /// One audit line for each change of adapters that was tried.
    func audit(_ action: String, _ subject: AdapterSubject, request: APIRequest, result: String) {
        let object = subject.name.map { name in subject.version.map { "\(name)@\($0)" } ?? name }
        audit("adapter." + action, object, request: request, result: result)
    }

    /// One audit line for each change that was tried.
    /// - Parameter object: an id or a name that is known to be one.
    func audit(_ action: String, _ object: String?, request: APIRequest, result: String) {
        auditTrail.record(
            AuditEntry(
                actor: request.caller.actor, tenant: request.caller.owner, action: action, object: object ?? "-", result: result,
                requestID: request.requestID))
    }
}

extension AdapterVersion {
    /// What tells a client which version it got.
    var responseFields: HTTPFields {
        [.graftAdapter: name, .graftAdapterVersion: String(number), .graftAdapterDigest: "sha256:" + digest]
    }
}
