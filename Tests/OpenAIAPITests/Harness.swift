import Adapters
import HTTP1
import HTTPServing
import HTTPTypes
import Inference
import InstructionStore
import JSON
import Logging
import Observability
import OpenAIAPI
import Synchronization
import TestSupport
import Testing
import Training
import Tuning

/// Records what the handlers send. Posted jobs wait until a test runs them.
actor RecordingTransport: ResponseTransport {
    typealias Job = @Sendable (isolated RecordingTransport) -> Void

    struct Response {
        var head: HTTPResponse?
        var isStream = false
        var isOver = false
        /// What was written, call by call.
        var writes: [String] = []
        var keepAlive: Duration?
        /// Heads and ends; each must be at most one.
        var heads = 0
        var ends = 0
        /// Of a body that comes in pieces.
        var length: Int?
        var isAborted = false

        var status: Int? { head?.status.code }
        var text: String { writes.joined() }

        /// The body as JSON.
        func json() throws -> JSONValue { try JSONValue(parsing: Array(text.utf8)) }

        /// The data of the server-sent events; the framing is checked.
        func events() -> [String] {
            #expect(text.hasSuffix("\n\n"))
            return text.split(separator: "\n\n").map { event in
                #expect(event.hasPrefix("data: ") && !event.contains("\n"))
                return String(event.dropFirst("data: ".count))
            }
        }

        /// The chunks of a stream, without the closing `[DONE]`.
        func chunks() throws -> [JSONValue] {
            try events().filter { $0 != "[DONE]" }.map { try JSONValue(parsing: Array($0.utf8)) }
        }
    }

    private(set) var responses: [ExchangeID: Response] = [:]
    /// Called on each write, like a server that learns of a broken connection while writing.
    var onWrite: Job?
    private nonisolated let jobs = Mutex<[Job]>([])
    private nonisolated let waiters = Mutex<[CheckedContinuation<Void, Never>]>([])

    func respond(to exchange: ExchangeID, _ head: HTTPResponse, body: [UInt8]) {
        responses[exchange, default: Response()].head = head
        responses[exchange]?.writes.append(String(decoding: body, as: UTF8.self))
        responses[exchange]?.isOver = true
        responses[exchange]?.heads += 1
        responses[exchange]?.ends += 1
    }

    func startStream(_ exchange: ExchangeID, _ head: HTTPResponse, keepAlive: Duration?) {
        responses[exchange, default: Response()].head = head
        responses[exchange]?.isStream = true
        responses[exchange]?.keepAlive = keepAlive
        responses[exchange]?.heads += 1
    }

    func startBody(_ exchange: ExchangeID, _ head: HTTPResponse, length: Int) {
        responses[exchange, default: Response()].head = head
        responses[exchange]?.length = length
        responses[exchange]?.heads += 1
    }

    func abort(_ exchange: ExchangeID) {
        responses[exchange, default: Response()].isOver = true
        responses[exchange]?.isAborted = true
        responses[exchange]?.ends += 1
    }

    func write(_ exchange: ExchangeID, _ bytes: [UInt8]) {
        responses[exchange, default: Response()].writes.append(String(decoding: bytes, as: UTF8.self))
        onWrite?(self)
    }

    func finish(_ exchange: ExchangeID) {
        responses[exchange, default: Response()].isOver = true
        responses[exchange]?.ends += 1
    }

    private(set) var resumedBodies: [ExchangeID] = []

    func resumeBody(of exchange: ExchangeID) { resumedBodies.append(exchange) }

    nonisolated func post(_ job: @escaping Job) {
        jobs.withLock { $0.append(job) }
        for waiter in waiters.withLock({ waiters in
            defer { waiters = [] }
            return waiters
        }) {
            waiter.resume()
        }
    }

    func runJobs() {
        while runPostedJobs() {}
    }

    /// Runs what is posted so far, and not what that brings about.
    /// - Returns: whether there was anything.
    @discardableResult
    func runPostedJobs() -> Bool {
        let batch = jobs.withLock { jobs in
            defer { jobs = [] }
            return jobs
        }
        for job in batch { job(self) }
        return !batch.isEmpty
    }

    /// Returns when at least one job is posted, without running it.
    func waitForJob() async {
        await withCheckedContinuation { continuation in
            waiters.withLock { $0.append(continuation) }
            // A job that was posted before the waiter stood there wakes nobody.
            if jobs.withLock({ !$0.isEmpty }) {
                for waiter in waiters.withLock({ waiters in
                    defer { waiters = [] }
                    return waiters
                }) {
                    waiter.resume()
                }
            }
        }
    }

    func setOnWrite(_ job: Job?) { onWrite = job }

    func perform<Outcome: Sendable>(_ job: @Sendable (isolated RecordingTransport) -> Outcome) -> Outcome { job(self) }
}

/// A clock that stands until it is moved.
final class StandingClock: Sendable {
    private let offset = Mutex(Duration.zero)
    private let start = ContinuousClock.now

    var now: ContinuousClock.Instant { start + offset.withLock { $0 } }
    func advance(by duration: Duration) { offset.withLock { $0 += duration } }
}

/// The log lines of a test.
final class LogLines: Sendable {
    private let lines = Mutex<[String]>([])

    var text: String { lines.withLock { $0.joined() } }

    func logger() -> Logger {
        Logger(label: "test") { label in
            LineLogHandler(label: label, level: .trace, format: .text) { line in
                self.lines.withLock { $0.append(String(decoding: line, as: UTF8.self)) }
            }
        }
    }
}

/// A data directory of a test's own.
final class Storage: Sendable {
    let folder: TemporaryFolder
    let store: InstructionStore
    let files: FileStore

    init() throws {
        folder = try TemporaryFolder()
        store = try InstructionStore(directory: DataDirectory(path: "\(folder.path)/data"))
        files = try FileStore(store)
    }

    /// Files with a line that says "bad" have a bad line for each; without a brace at their beginning they are nothing that is known.
    static let inspect: FileInspector = { bytes throws(DatasetError) in
        let text = String(decoding: bytes, as: UTF8.self)
        guard text.hasPrefix("{") else { throw DatasetError("found no rows, expected one JSON object a line") }
        let lines = text.split(separator: "\n")
        let bad = lines.count { $0.contains("bad") }
        return FileFindings(
            exampleCount: lines.count - bad, problemCount: bad,
            json: [
                "format": "chat", "examples": .integer(Int64(lines.count - bad)), "bad_lines": .integer(Int64(bad)),
                "problems": bad > 0 ? [["line": 1, "message": "is bad"]] : [],
            ])
    }
}

/// Handlers between a scripted engine and a recording transport.
final class Harness: Sendable {
    let engine: ScriptedEngine
    let transport = RecordingTransport()
    let handlers: APIHandlers<RecordingTransport>
    let clock = StandingClock()
    let logs = LogLines()
    let registry = MetricsRegistry()
    /// Its folder lives as long as this.
    let storage: Storage?
    private let counter = Mutex<UInt64>(0)

    init(
        engine: ScriptedEngine = ScriptedEngine(), models: [ServedModel]? = nil, adapters: FakeAdapters? = nil, defaultAdapter: String? = nil,
        storage: Storage? = nil, keepsAll: Bool = false, retention: ExchangeRetention = ExchangeRetention(), tuning: (any TuningService)? = nil,
        keys: KeyRing = KeyRing(), configure: (inout APIConfiguration) -> Void = { _ in }
    ) throws {
        self.engine = engine
        self.storage = storage
        let models = try models ?? [TestModel.make()]
        let resolver: any ModelResolver =
            if let adapters {
                AdapterModels(base: models[0], adapters: adapters, defaultAdapter: defaultAdapter.flatMap { AdapterReference($0) })
            } else {
                FixedModels(models)
            }
        var configuration = APIConfiguration(version: "1.2.3")
        configure(&configuration)
        let clock = clock, logger = logs.logger()
        handlers = APIHandlers(
            service: engine, models: resolver, adapters: adapters, adapterFormats: .fake, files: storage?.files, inspect: Storage.inspect,
            exchanges: try storage.map { try ExchangeLog($0.store, keepsAll: keepsAll, retention: retention, logger: logger) }, tuning: tuning, keys: keys,
            configuration: configuration, registry: registry, logger: logger, now: { clock.now })
    }

    /// Hands a request in and runs what it posts at once.
    @discardableResult
    func send(
        _ method: HTTPRequest.Method, _ path: String, _ body: String = "", contentType: String? = "application/json", key: String? = nil,
        as exchange: ExchangeID? = nil
    ) async -> ExchangeID {
        let number = counter.withLock { counter in
            counter += 1
            return counter
        }
        let id = exchange ?? ExchangeID.numbered(number)
        var head = HTTPRequest(method: method, scheme: "http", authority: "localhost", path: path)
        if let contentType { head.headerFields[.contentType] = contentType }
        if let key { head.headerFields[.authorization] = "Bearer \(key)" }
        let halves = path.split(separator: "?", maxSplits: 1)
        let query = (halves.dropFirst().first ?? "").split(separator: "&").map { pair in
            let sides = pair.split(separator: "=", maxSplits: 1).map(String.init)
            return (name: sides[0], value: sides.dropFirst().first ?? "")
        }
        let request = IncomingRequest(
            exchange: id, head: head, path: String(halves[0]), query: query, body: Array(body.utf8), requestID: "req-\(number)", receivedAt: clock.now)
        await transport.perform { [handlers] transport in handlers.handle(request, on: transport) }
        await transport.runJobs()
        return id
    }

    func chat(_ body: String) async -> ExchangeID { await send(.post, "/v1/chat/completions", body) }
    func complete(_ body: String) async -> ExchangeID { await send(.post, "/v1/completions", body) }

    /// The response so far, after everything that was posted.
    func response(_ id: ExchangeID) async -> RecordingTransport.Response {
        await transport.runJobs()
        return await transport.responses[id] ?? RecordingTransport.Response()
    }

    /// The whole response of a request that other threads work on.
    func settled(_ id: ExchangeID) async -> RecordingTransport.Response {
        while true {
            let response = await response(id)
            if response.isOver { return response }
            await transport.waitForJob()
        }
    }

    /// A form as a browser or curl sends it.
    @discardableResult
    func upload(_ parts: [(name: String, content: String)], as exchange: ExchangeID? = nil) async -> ExchangeID {
        let body = parts.map { "--cut\r\nContent-Disposition: form-data; name=\"\($0.name)\"; filename=\"../../x\"\r\n\r\n\($0.content)\r\n" }.joined()
        return await send(.post, "/v1/adapters", body + "--cut--\r\n", contentType: "multipart/form-data; boundary=cut", as: exchange)
    }

    /// `POST /v1/files` as it comes over a connection, in pieces of this size.
    @discardableResult
    func sendFile(_ form: String, boundary: String = "cut", pieceSize: Int = 1000) async -> ExchangeID {
        let type = "multipart/form-data; boundary=\(boundary)"
        let (exchange, admission) = await admit(.post, "/v1/files", contentType: type)
        guard case .stream(_, let receiver) = admission else {
            Issue.record("the upload was refused")
            return exchange
        }
        var rest = Array(form.utf8)[...]
        while !rest.isEmpty {
            _ = receiver.receive(RequestBody(Array(rest.prefix(pieceSize))))
            rest = rest.dropFirst(pieceSize)
        }
        return await send(.post, "/v1/files", contentType: type, as: exchange)
    }

    /// A form with a file for fine-tuning and further parts.
    static func form(
        _ content: String, filename: String = "train.jsonl", fields: [(String, String)] = [("purpose", "fine-tune")], boundary: String = "cut"
    ) -> String {
        fields.map { "--\(boundary)\r\nContent-Disposition: form-data; name=\"\($0.0)\"\r\n\r\n\($0.1)\r\n" }.joined()
            + "--\(boundary)\r\nContent-Disposition: form-data; name=\"file\"; filename=\"\(filename)\"\r\nContent-Type: application/octet-stream\r\n\r\n"
            + content + "\r\n--\(boundary)--\r\n"
    }

    /// The word on a head. Its id is never that of a request that `send` numbers.
    func admit(_ method: HTTPRequest.Method, _ path: String, contentType: String?, key: String? = nil) async -> (exchange: ExchangeID, admission: HTTPAdmission) {
        var head = HTTPRequest(method: method, scheme: "http", authority: "x", path: path)
        if let contentType { head.headerFields[.contentType] = contentType }
        if let key { head.headerFields[.authorization] = "Bearer \(key)" }
        let number = counter.withLock { counter in
            counter += 1
            return counter
        }
        let exchange = ExchangeID(connection: number, sequence: 2)
        return (exchange, await transport.perform { [handlers, head] in handlers.admit(head, path: path, exchange: exchange, on: $0) })
    }

    func close(_ id: ExchangeID) async {
        await transport.perform { [handlers] transport in handlers.exchangeClosed(id, on: transport) }
    }

    func setCongested(_ id: ExchangeID, _ isCongested: Bool) async {
        await transport.perform { [handlers] transport in handlers.exchange(id, isCongested: isCongested, on: transport) }
    }

    /// A GET's response.
    func get(_ path: String) async -> RecordingTransport.Response {
        await response(send(.get, path, contentType: nil))
    }

    /// The lines of `/metrics` that begin with a name.
    func metric(_ name: String) -> [String] {
        String(decoding: registry.exposition(), as: UTF8.self).split(separator: "\n").map(String.init).filter { $0.hasPrefix(name) }
    }
}

extension JSONValue {
    /// An element of an array.
    subscript(_ index: Int) -> JSONValue? {
        guard let array, array.indices.contains(index) else { return nil }
        return array[index]
    }

    /// The keys of an object, sorted.
    var sortedKeys: [String] { object?.keys.sorted() ?? [] }
}

extension HTTPFields {
    subscript(text name: String) -> String? { self[HTTPField.Name(name)!] }
}

extension ExchangeID {
    /// The first request of a connection of this number.
    static func numbered(_ number: UInt64) -> ExchangeID {
        ExchangeID(connection: number, sequence: 1)
    }
}
