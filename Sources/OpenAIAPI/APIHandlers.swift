import Adapters
import Executors
import HTTP1
import HTTPServing
import HTTPTypes
import Inference
import InstructionStore
import JSON
import Logging
import Observability
import Synchronization
import Tuning

/// All routes of the API over some transport. `APIServer` joins them to the real server.
package final class APIHandlers<Transport: ResponseTransport>: Sendable {
    /// What is under way. Confined to the transport.
    final class State {
        var exchanges: [ExchangeID: GenerationExchange] = [:]
        var sequences: [SequenceID: (exchange: GenerationExchange, choice: Int)] = [:]
        /// Requests whose bodies are decoded elsewhere, with what their closing needs.
        var preparing: [ExchangeID: APIRoute] = [:]
        /// Uploads that are being received, wait for the thread that publishes them, or are in its hands.
        var uploads: Set<ExchangeID> = []
        /// Files that are being received, wait for the thread that keeps them, or are in its hands.
        var fileUploads: [ExchangeID: FileUpload] = [:]
        /// Clients that follow a job.
        var jobStreams: [ExchangeID: JobStream] = [:]
        /// Clients that get the content of a file.
        var contentStreams: [ExchangeID: ContentStream] = [:]
        /// The answer of `/openapi.json`, once it was asked for.
        var description: [UInt8]?
        /// What keys have left of their limits.
        let limiter = RateLimiter()
        /// One for all requests, so that the engine posts one batch a step.
        var sink: EngineSink<Transport>?
    }

    let service: any GenerationService
    let models: any ModelResolver
    /// `nil`: this server has none.
    let adapters: (any AdapterService)?
    let adapterFormats: AdapterFormats
    /// `nil`: this server keeps none.
    let files: FileStore?
    let exchanges: ExchangeLog?
    /// `nil`: files for fine-tuning are kept unseen.
    let inspect: FileInspector?
    /// `nil`: this server tunes nothing.
    let tuning: (any TuningService)?
    /// Who may send requests.
    let keys: KeyRing
    let auditTrail: AuditTrail
    let configuration: APIConfiguration
    let preparation: RequestPreparation
    let metrics: APIMetrics
    let logger: Logger
    let state = Confined(State())
    private let registry: MetricsRegistry
    let router = APIRoute.router()
    let preparationExecutor: BlockingExecutor
    /// Reads adapters that requests wait for.
    let adapterLoads: BlockingExecutor
    /// Changes and exports adapters, one after another, so that nobody who waits for an answer waits for somebody's upload.
    let adapterChanges: BlockingExecutor
    /// Writes uploaded files to the disk while they come.
    let spooling: BlockingExecutor
    /// Keeps, looks into, makes and reads whole files, which can take long.
    let fileWork: BlockingExecutor
    /// Reads pieces of files for clients that get them.
    let contentReads: BlockingExecutor
    /// Asks the database for the rows of files and exchanges.
    let storeWork: BlockingExecutor
    /// Of answers, which sort by time when they are kept.
    let identifiers = TimedIdentifiers()
    /// Asks and changes fine-tuning jobs.
    let tuningCalls: BlockingExecutor
    private let draining = Atomic<Bool>(false)
    private let now: @Sendable () -> ContinuousClock.Instant

    package init(
        service: any GenerationService, models: any ModelResolver, adapters: (any AdapterService)? = nil, adapterFormats: AdapterFormats = .standard,
        files: FileStore? = nil, inspect: FileInspector? = nil, exchanges: ExchangeLog? = nil, tuning: (any TuningService)? = nil,
        keys: KeyRing = KeyRing(), audit: AuditTrail? = nil, configuration: APIConfiguration, registry: MetricsRegistry, logger: Logger,
        now: @escaping @Sendable () -> ContinuousClock.Instant = { .now }
    ) {
        self.service = service
        self.models = models
        self.adapters = adapters
        self.adapterFormats = adapterFormats
        self.files = files
        self.inspect = inspect
        self.exchanges = exchanges
        self.tuning = tuning
        self.keys = keys
        auditTrail = audit ?? AuditTrail(logger: logger)
        self.configuration = configuration
        self.registry = registry
        self.logger = logger
        self.now = now
        preparation = RequestPreparation(
            models: models, engineLimits: service.limits, limits: configuration.limits,
            keeping: exchanges.map { $0.keepsAll ? .unlessRefused : .onRequest } ?? .never)
        metrics = APIMetrics(
            registry, service: service, models: models, adapters: adapters, files: files, exchanges: exchanges, version: configuration.version)
        preparationExecutor = BlockingExecutor(
            name: "prepare", width: configuration.preparationThreads, capacity: configuration.preparationQueue)
        adapterLoads = BlockingExecutor(name: "adapters", width: 1, capacity: configuration.adapterLoadQueue)
        adapterChanges = BlockingExecutor(name: "adapter-files", width: 1, capacity: configuration.adapterChangeQueue)
        spooling = BlockingExecutor(name: "spool", width: 1, capacity: 2 * configuration.fileUploads + 1)
        fileWork = BlockingExecutor(name: "files", width: 2, capacity: configuration.fileQueue)
        // Each client has one piece under way at most, so there is always room for the next.
        contentReads = BlockingExecutor(name: "file-pieces", width: 2, capacity: configuration.contentStreams)
        storeWork = BlockingExecutor(name: "store", width: 1, capacity: configuration.storeQueue)
        tuningCalls = BlockingExecutor(name: "tuning-calls", width: 2, capacity: configuration.tuningCallQueue)
        if let tuning { JobMetrics.mirror(tuning, in: registry) }
    }

    var currentTime: ContinuousClock.Instant { now() }
    var isDraining: Bool { draining.load(ordering: .relaxed) }

    /// New work is refused and `/readyz` is 503 from now on; what runs goes on.
    package func beginDraining() {
        draining.store(true, ordering: .relaxed)
    }

    /// Ends what is still being answered: streams with an error event, others with an error. Nothing that comes afterwards is answered.
    package func endExchanges(on transport: isolated Transport) {
        let time = currentTime
        for exchange in Array(state.on(transport).exchanges.values) {
            exchange.fail(.shuttingDown)
            flush(exchange, on: transport, at: time)
        }
    }

    /// Finishes what the API's own threads have to do and ends them. The server must be closed.
    package func shutdown() {
        preparationExecutor.shutdown()
        adapterLoads.shutdown()
        adapterChanges.shutdown()
        spooling.shutdown()
        fileWork.shutdown()
        contentReads.shutdown()
        storeWork.shutdown()
        exchanges?.shutdown()
        tuningCalls.shutdown()
    }

    /// The word on a request of which only the head is known: uploads may be large, if they are wanted at all, and commands may not.
    package func admit(_ head: HTTPRequest, path: String, exchange: ExchangeID, on transport: isolated Transport) -> HTTPAdmission {
        let route: APIRoute? = if case .found(let route, _) = router.match(head.method, path) { route } else { nil }
        let state = state.on(transport)
        do throws(APIError) {
            // Before anything else, so that nobody learns more without a key, and no body is read for nothing.
            _ = try authorize(head, route, path: path)
            guard let route else { return .accept(bodyLimit: nil) }
            if route == .createJob { return .accept(bodyLimit: configuration.jobRequestBytes) }
            if route.isAdapterCommand || route == .createKey { return .accept(bodyLimit: configuration.adapterChangeBytes) }
            guard route == .createAdapter || route == .createFile else { return .accept(bodyLimit: nil) }
            if route == .createFile { return try admitFile(head, exchange: exchange, on: transport) }
            _ = try requireAdapters()
            if isDraining { throw .shuttingDown }
            _ = try uploadBoundary(head)
            guard state.uploads.count < configuration.adapterUploads else { throw .tooManyUploads(configuration.adapterUploads) }
        } catch {
            let label = route?.path ?? "unmatched"
            metrics.count(route: label, status: error.status.code, model: "")
            logger.info(
                "request",
                metadata: [
                    "route": "\(label)", "status": "\(error.status.code)", "code": "\(error.code ?? "-")",
                    "note": "the body was not read",
                ])
            return .refuse(error.head(), body: error.body())
        }
        state.uploads.insert(exchange)
        return .accept(bodyLimit: configuration.adapterUploadBytes)
    }

    /// Answers a request or sets its answer going.
    package func handle(_ incoming: IncomingRequest, on transport: isolated Transport) {
        let match = router.match(incoming.head.method, incoming.path)
        let wanted: APIRoute? = if case .found(let route, _) = match { route } else { nil }
        let request: APIRequest
        do throws(APIError) {
            request = APIRequest(incoming, caller: try authorize(incoming.head, wanted, path: incoming.path))
        } catch {
            endUpload(incoming.exchange, on: transport)
            return refuse(incoming.exchange, error, route: wanted, request: APIRequest(incoming, caller: .nobody), on: transport)
        }
        switch match {
        case .found(let route, let parameters):
            do throws(APIError) {
                try dispatch(request, to: route, id: parameters["id"], on: transport)
            } catch {
                endUpload(request.exchange, on: transport)
                refuse(request.exchange, error, route: route, request: request, on: transport)
            }
        case .methodNotAllowed(let known):
            var error = APIError(
                .methodNotAllowed, .invalidRequest, code: "method_not_allowed",
                "This path does not know the method \(quoted(request.head.method.rawValue)), expected \(known.map(\.rawValue).joined(separator: " or "))")
            error.allow = known
            refuse(request.exchange, error, route: nil, request: request, on: transport)
        case .notFound:
            let error = APIError(
                .notFound, .notFound, code: "unknown_url", "There is nothing at this path; the API's paths begin with /v1/")
            refuse(request.exchange, error, route: nil, request: request, on: transport)
        }
    }

    private func dispatch(_ request: APIRequest, to route: APIRoute, id: String?, on transport: isolated Transport) throws(APIError) {
        switch route {
        case .chat, .completions:
            try requireJSON(request)
            try generate(request, route: route, on: transport)
        case .tokenize, .detokenize:
            try requireJSON(request)
            try convert(request, route: route, on: transport)
        case .models: answer(request, route: route, modelList(for: request.caller.owner), on: transport)
        case .model: answer(request, route: route, card(try models.card(id ?? "", owner: request.caller.owner)), on: transport)
        case .deleteModel: try deleteModel(request, id ?? "", on: transport)
        case .createAdapter, .adapters, .adapter, .adapterVersions, .promoteAdapter, .rollbackAdapter, .pinAdapter, .exportAdapter, .deleteAdapter:
            try serveAdapters(request, route: route, id: id ?? "", on: transport)
        case .createFile, .files, .file, .fileContent, .deleteFile:
            try serveFiles(request, route: route, id: id ?? "", on: transport)
        case .keptChats, .keptChat, .changeKeptChat, .deleteKeptChat, .deleteKeptChats, .keptMessages, .feedback, .datasetFromLogs:
            try serveExchanges(request, route: route, id: id ?? "", on: transport)
        case .loadLoRA, .unloadLoRA: try serveLoRAPaths(request, route: route, on: transport)
        case .globalLoRA, .setGlobalLoRA: try serveGlobalLoRA(request, route: route, on: transport)
        case .createJob, .jobs, .job, .cancelJob, .pauseJob, .resumeJob, .jobEvents, .jobCheckpoints:
            try serveJobs(request, route: route, id: id ?? "", on: transport)
        case .createKey, .keys, .key, .revokeKey: try serveKeys(request, route: route, id: id ?? "", on: transport)
        case .livez: answer(request, route: route, ["status": "ok"], on: transport)
        case .readyz, .health:
            try requireReadiness()
            answer(request, route: route, ["status": "ok"], on: transport)
        case .version:
            answer(request, route: route, ["name": "graft", "version": .string(configuration.version)], on: transport)
        case .metrics:
            let head = HTTPResponse(status: .ok, headerFields: [.contentType: MetricsRegistry.contentType])
            transport.respond(to: request.exchange, head, body: registry.exposition())
            record(route: route, status: 200, model: "", request: request)
        case .openAPI:
            transport.respond(to: request.exchange, HTTPResponse(status: .ok, headerFields: [.contentType: ContentType.json]), body: description(on: transport))
            record(route: route, status: 200, model: "", request: request)
        }
    }

    /// The API's description, made when it is first asked for: a matter of milliseconds.
    private func description(on transport: isolated Transport) -> [UInt8] {
        let state = state.on(transport)
        let bytes = state.description ?? OpenAPIDocument.make(version: configuration.version, limits: configuration.limits).serialized()
        state.description = bytes
        return bytes
    }

    /// The client went away before its response was complete, or its request: its sequences are given up.
    package func exchangeClosed(_ id: ExchangeID, on transport: isolated Transport) {
        let state = state.on(transport)
        abandonJobStream(id, on: transport)
        abandonContentStream(id, on: transport)
        if let route = state.preparing.removeValue(forKey: id) {
            // An upload's body stays in memory until the thread that has it is done, so its place is not free before.
            metrics.count(route: route.path, status: Self.clientClosed, model: "")
        } else {
            endUpload(id, on: transport)
        }
        guard let exchange = state.exchanges[id] else { return }
        let status = exchange.isStreaming ? 200 : Self.clientClosed
        abandon(exchange, on: transport)
        finishRecord(exchange, status: status, note: "the client left")
    }

    /// Frees an upload's place, and what came of one that nobody works on.
    func endUpload(_ id: ExchangeID, on transport: isolated Transport) {
        let state = state.on(transport)
        state.uploads.remove(id)
        state.fileUploads.removeValue(forKey: id)?.discard()
    }

    /// The status that metrics show for a client that left before its answer; nginx's number, never sent.
    static var clientClosed: Int { 499 }

    /// A client that reads too slowly pauses its own sequences, and no other's.
    package func exchange(_ id: ExchangeID, isCongested: Bool, on transport: isolated Transport) {
        let state = state.on(transport)
        setJobStream(id, congested: isCongested, on: transport)
        setContentStream(id, congested: isCongested, on: transport)
        guard let exchange = state.exchanges[id], exchange.isCongested != isCongested else { return }
        exchange.isCongested = isCongested
        for sequence in exchange.liveSequences { service.setPaused(sequence, isCongested) }
    }

    // MARK: - Small answers

    func requireJSON(_ request: APIRequest) throws(APIError) {
        // A body without a type is taken for JSON: many small clients leave it out.
        guard let type = request.head.headerFields[.contentType] else { return }
        let essence = type.prefix { $0 != ";" }.lowercased()
        guard essence.split(separator: " ").joined() == "application/json" else { throw .unsupportedMediaType(found: type) }
    }

    private func modelList(for owner: String) -> JSONValue {
        ["object": "list", "data": .array(models.cards(owner: owner).map(card))]
    }

    private func card(_ card: ModelCard) -> JSONValue {
        var object: JSONObject = [
            "id": .string(card.id), "object": "model", "created": .integer(Int64(card.created)), "owned_by": .string(card.ownedBy),
            "root": .string(card.root), "parent": card.parent.map { .string($0) } ?? .null, "permission": [],
            "max_model_len": .integer(Int64(card.contextLength)), "digest": .string("sha256:" + card.digest),
        ]
        if let version = card.version { object["version"] = .integer(Int64(version)) }
        return .object(object)
    }

    /// Ready means: not shutting down, and the engine has ended a step lately, one for the heartbeat if it had nothing else to do.
    private func requireReadiness() throws(APIError) {
        if isDraining { throw .shuttingDown }
        guard let last = service.statistics.lastStep else {
            throw APIError(.serviceUnavailable, .unavailable, code: "engine_stalled", "The engine has not ended a step yet", retryAfter: 5)
        }
        let silence = now() - last
        guard silence >= configuration.stallLimit else { return }
        throw APIError(
            .serviceUnavailable, .unavailable, code: "engine_stalled", "The engine has not ended a step for \(Int(silence.inSeconds)) s", retryAfter: 5)
    }

    /// A whole JSON answer.
    func answer(_ request: APIRequest, route: APIRoute, _ value: JSONValue, model: String = "", ignored: [String] = [], on transport: isolated Transport) {
        var head = HTTPResponse(status: .ok, headerFields: [.contentType: ContentType.json])
        if !ignored.isEmpty { head.headerFields[.ignoredParameters] = headerList(ignored) }
        transport.respond(to: request.exchange, head, body: value.serialized())
        record(route: route, status: 200, model: model, request: request)
    }

    /// A whole error answer.
    func refuse(_ exchange: ExchangeID, _ error: APIError, route: APIRoute?, request: APIRequest, on transport: isolated Transport) {
        var head = error.head()
        if route?.isGeneration == true { head.headerFields.append(contentsOf: state.on(transport).limiter.fields(for: request.caller, at: now())) }
        transport.respond(to: exchange, head, body: error.body())
        record(route: route, status: error.status.code, model: "", request: request, code: error.code)
    }

    /// Counts a request and logs one line, which never has anything of the request's body in it.
    func record(route: APIRoute?, status: Int, model: String, request: APIRequest, code: String? = nil) {
        let label = route?.path ?? "unmatched"
        metrics.count(route: label, status: status, model: model)
        logger.log(
            level: route?.isProbe == true ? .debug : .info, "request",
            metadata: [
                "route": "\(label)", "status": "\(status)", "request_id": "\(request.requestID)",
                "ms": "\(Int((now() - request.receivedAt).inSeconds * 1000))", "code": "\(code ?? "-")",
            ])
    }
}
