import Executors
import HTTPServing
import HTTPTypes
import InstructionStore
import JSON
import Logging
import Training

/// The answer to a change of files or exchanges.
struct ChangeAnswer: Sendable {
    var value: JSONValue
    /// Names of unknown fields or parts of the request.
    var ignored: [String]

    init(_ value: JSONValue, ignored: [String] = []) {
        self.value = value
        self.ignored = ignored
    }
}

extension APIHandlers {
    func requireFiles() throws(APIError) -> FileStore {
        guard let files else { throw .filesDisabled }
        return files
    }

    // MARK: - Uploads

    /// Where the body of `POST /v1/files` goes, if it is wanted at all.
    func admitFile(_ head: HTTPRequest, exchange: ExchangeID, on transport: isolated Transport) throws(APIError) -> HTTPAdmission {
        let files = try requireFiles()
        if isDraining { throw .shuttingDown }
        let boundary = try uploadBoundary(head)
        let state = state.on(transport)
        guard state.fileUploads.count < configuration.fileUploads else { throw .tooManyUploads(configuration.fileUploads) }
        let logger = logger
        let upload = FileUpload(
            boundary: boundary, store: files, executor: spooling,
            reportFailure: { error in logger.error("the file store failed", metadata: ["cause": "\(error.message)"]) },
            resume: { [weak transport] in transport?.post { $0.resumeBody(of: exchange) } })
        state.fileUploads[exchange] = upload
        return .stream(bodyLimit: configuration.fileBytes, to: upload)
    }

    /// `POST /v1/files`: the whole form is here, its file in a spool.
    func createFile(_ request: APIRequest, on transport: isolated Transport) throws(APIError) {
        let files = try requireFiles()
        if isDraining { throw .shuttingDown }
        guard let upload = state.on(transport).fileUploads[request.exchange] else { throw .expectedForm(found: request.head.headerFields[.contentType]) }
        try changeObject(request, route: .createFile, action: "file.upload", on: transport) { handlers, subject throws(APIError) in
            let form = try upload.finish()
            guard let spool = form.spool else { throw .missing("file", expected: "a part with the file's content") }
            guard spool.byteCount > 0 else { throw .invalidValue("file", "The file is empty, expected at least one byte") }
            let purpose = try Self.purpose(form.texts["purpose"])
            let lifetime = try Self.lifetime(anchor: form.texts["expires_after[anchor]"], seconds: form.texts["expires_after[seconds]"])
            let file = try handlers.keep(
                spool, in: files, name: FileObjects.displayName(form.filename), purpose: purpose, lifetime: lifetime, owner: request.caller.owner,
                requestID: request.requestID)
            subject = file.id
            return ChangeAnswer(.object(FileObjects.file(file)), ignored: form.ignored)
        }
    }

    private static func purpose(_ word: String?) throws(APIError) -> String {
        let expected = "one of " + FilePurpose.uploadable.joined(separator: ", ")
        guard let word else { throw .missing("purpose", expected: expected) }
        guard FilePurpose.uploadable.contains(word) else { throw .invalidValue("purpose", "'purpose' is '\(quoted(word))', expected \(expected)") }
        return word
    }

    /// The seconds that a file is to be kept; OpenAI's bounds are an hour and thirty days.
    private static func lifetime(anchor: String?, seconds: String?) throws(APIError) -> Int? {
        guard anchor != nil || seconds != nil else { return nil }
        guard let anchor else { throw .missing("expires_after[anchor]", expected: "created_at") }
        guard anchor == "created_at" else {
            throw .invalidValue("expires_after[anchor]", "'expires_after[anchor]' is '\(quoted(anchor))', expected created_at")
        }
        guard let seconds else { throw .missing("expires_after[seconds]", expected: "an integer from 3600 to 2592000") }
        guard let number = Int(seconds), (3600...2_592_000).contains(number) else {
            throw .invalidValue("expires_after[seconds]", "'expires_after[seconds]' is '\(quoted(seconds))', expected an integer from 3600 to 2592000")
        }
        return number
    }

    /// Looks into what is to be trained on, and keeps it. Blocking.
    func keep(
        _ spool: FileSpool, in files: FileStore, name: String, purpose: String, lifetime: Int?, owner: String, requestID: String
    ) throws(APIError) -> StoredFile {
        var findings: FileFindings?
        if purpose == FilePurpose.fineTune, let inspect {
            let contents = try stored(requestID) { () throws(InstructionStoreError) in try spool.contents() }
            do throws(DatasetError) {
                findings = try inspect(contents)
            } catch {
                throw APIError(error)
            }
        }
        let status = findings?.status ?? .uploaded
        let report = findings.map { String(decoding: JSONValue.object($0.json).serialized(), as: UTF8.self) }
        let file = try stored(requestID) { () throws(InstructionStoreError) in
            try files.add(spool, name: name, purpose: purpose, owner: owner, lifetime: lifetime, status: status, report: report)
        }
        metrics.files?.count(file)
        return file
    }

    // MARK: - The other routes

    /// Everything below `/v1/files`.
    func serveFiles(_ request: APIRequest, route: APIRoute, id: String, on transport: isolated Transport) throws(APIError) {
        let files = try requireFiles()
        switch route {
        case .createFile: try createFile(request, on: transport)
        case .files: try listFiles(request, from: files, on: transport)
        case .file:
            try answer(request, route: route, with: storeWork, on: transport) { handlers throws(APIError) in
                .object(FileObjects.file(try handlers.find(id, in: files, for: request)))
            }
        case .fileContent: try sendContent(request, id, from: files, on: transport)
        case .deleteFile:
            try changeObject(request, route: route, action: "file.delete", subject: id, with: storeWork, on: transport) { handlers, _ throws(APIError) in
                let isDeleted = try handlers.stored(request.requestID) { () throws(InstructionStoreError) in try files.delete(id: id, owner: request.caller.owner) }
                guard isDeleted else { throw .fileNotFound(id) }
                return ChangeAnswer(["id": .string(id), "object": "file", "deleted": true])
            }
        default: preconditionFailure("\(route) is not below /v1/files")
        }
    }

    private func listFiles(_ request: APIRequest, from files: FileStore, on transport: isolated Transport) throws(APIError) {
        let query = QueryFields(request)
        let purpose = try query.string("purpose")
        if let purpose, !FilePurpose.known.contains(purpose) {
            throw .invalidValue("purpose", "'purpose' is '\(quoted(purpose))', expected one of \(FilePurpose.known.joined(separator: ", "))")
        }
        let limit = try query.integer("limit", in: 1...10_000) ?? 10_000
        let isAscending = try query.isAscending(otherwise: false)
        let after = try query.cursor { TimedIdentifiers.isValid($0, prefix: "file-") }
        try answer(request, route: .files, with: storeWork, on: transport) { handlers throws(APIError) in
            let page = try handlers.stored(request.requestID) { () throws(InstructionStoreError) in
                try files.files(owner: request.caller.owner, purpose: purpose, after: after, limit: limit, ascending: isAscending)
            }
            return FileObjects.list(page.files.map(FileObjects.file), hasMore: page.hasMore)
        }
    }

    func find(_ id: String, in files: FileStore, for request: APIRequest) throws(APIError) -> StoredFile {
        let file = try stored(request.requestID) { () throws(InstructionStoreError) in try files.file(id: id, owner: request.caller.owner) }
        guard let file else { throw .fileNotFound(id) }
        return file
    }

    // MARK: - Blocking work

    /// Asks the store for something. What only the operator may know of a failure is logged.
    func stored<Value>(_ requestID: String, _ work: () throws(InstructionStoreError) -> Value) throws(APIError) -> Value {
        do throws(InstructionStoreError) {
            return try work()
        } catch {
            switch error.code {
            case .conflict, .notFound, .invalidArgument: break
            default: logger.error("the store failed", metadata: ["request_id": "\(requestID)", "cause": "\(error.message)"])
            }
            throw APIError(error)
        }
    }

    /// Answers with what `work` finds on a thread that may block.
    func answer(
        _ request: APIRequest, route: APIRoute, with executor: BlockingExecutor, on transport: isolated Transport,
        _ work: @escaping @Sendable (APIHandlers) throws(APIError) -> JSONValue
    ) throws(APIError) {
        let request = request.withoutBody
        try perform(
            request, route: route, with: executor, on: transport, work: { () throws(APIError) in try work(self) },
            then: { (handlers: APIHandlers, value: JSONValue, transport: isolated Transport) throws(APIError) in
                handlers.answer(request, route: route, value, on: transport)
            })
    }

    /// Carries out a change of files, exchanges or keys, also when the client leaves, and leaves one audit line.
    /// - Parameter subject: the id of what is changed, which `work` may set.
    func changeObject(
        _ request: APIRequest, route: APIRoute, action: String, subject: String? = nil, with executor: BlockingExecutor? = nil,
        on transport: isolated Transport, _ work: @escaping @Sendable (APIHandlers, inout String?) throws(APIError) -> ChangeAnswer
    ) throws(APIError) {
        if isDraining { throw .shuttingDown }
        let request = request.withoutBody
        @Sendable func audit(_ subject: String?, _ result: String) {
            // What is no id may be anything that a client has put in the place of one.
            let id = subject.flatMap { TimedIdentifiers.isValid($0) || StoredKey.isValidID($0) ? $0 : nil }
            self.audit(action, id, request: request, result: result)
        }
        try perform(
            request, route: route, with: executor ?? fileWork, on: transport,
            work: { () throws(APIError) in
                var subject = subject
                do throws(APIError) {
                    let answer = try work(self, &subject)
                    audit(subject, "ok")
                    return answer
                } catch {
                    audit(subject, error.code ?? "error")
                    throw error
                }
            },
            then: { (handlers: APIHandlers, result: ChangeAnswer, transport: isolated Transport) throws(APIError) in
                handlers.answer(request, route: route, result.value, ignored: result.ignored, on: transport)
            })
    }
}
