import Adapters
import HTTPServing
import HTTPTypes
import Inference
import InstructionStore
import Logging
import Observability
import Synchronization
import Tuning

/// Graft's HTTP API: OpenAI's chat and completions, models, adapters, tokenisation, health and metrics.
///
/// Give it to an `HTTPServer` as its application. It holds no threads of its own but those that decode large bodies and work on adapters.
public final class APIServer: HTTPApplication {
    let handlers: APIHandlers<HTTPServer>
    /// How often it is looked for keys that have ended while something runs for them.
    private static let accessPeriod = Duration.milliseconds(250)
    private let isWatching = Atomic<Bool>(false)

    /// - Parameters:
    ///   - service: the engine that all served models run on.
    ///   - adapters: what the routes for adapters work on, and where the versions that `models` finds are loaded from; `nil` for a server without adapters.
    ///   - files: where uploaded files are kept; `nil` for a server without.
    ///   - inspect: looks into files for fine-tuning when they come.
    ///   - exchanges: keeps what was asked and answered; `nil` for a server that does not, whatever a request asks for.
    ///   - keys: who is let in.
    ///   - audit: where changes are told of.
    ///   - tuning: what runs fine-tuning jobs; `nil` for a server without. Shut it down after `beginDraining`: that ends the streams of those who follow jobs.
    ///   - registry: where the API registers its metrics; `GET /metrics` shows all of the registry.
    public init(
        service: any GenerationService, models: any ModelResolver, adapters: (any AdapterService)? = nil, files: FileStore? = nil,
        inspect: FileInspector? = nil, exchanges: ExchangeLog? = nil, tuning: (any TuningService)? = nil, keys: KeyRing, audit: AuditTrail,
        configuration: APIConfiguration, registry: MetricsRegistry, logger: Logger
    ) {
        handlers = APIHandlers(
            service: service, models: models, adapters: adapters, files: files, inspect: inspect, exchanges: exchanges, tuning: tuning, keys: keys,
            audit: audit, configuration: configuration, registry: registry, logger: logger)
    }

    /// From now on new work is refused with 503 and `/readyz` says so, while what runs goes on. Call it before `HTTPServer.drain`.
    public func beginDraining() {
        handlers.beginDraining()
    }

    /// Writes the exchanges that are still to be kept. Call it when the server is closed; it blocks for as long as the disk takes.
    public func keepPendingExchanges() {
        handlers.exchanges?.drain()
    }

    /// Ends the API's own threads. Call it after the server is closed; a process that exits need not.
    public func shutdown() {
        handlers.shutdown()
    }

    public func admit(_ head: HTTPRequest, path: String, exchange: ExchangeID, on server: isolated HTTPServer) -> HTTPAdmission {
        // Nothing runs before the first request.
        if !isWatching.exchange(true, ordering: .relaxed) {
            server.schedule(after: Self.accessPeriod, every: Self.accessPeriod) { [handlers] in handlers.endUnauthorized(on: $0) }
        }
        return handlers.admit(head, path: path, exchange: exchange, on: server)
    }

    public func handle(_ request: IncomingRequest, on server: isolated HTTPServer) {
        handlers.handle(request, on: server)
    }

    public func exchangeClosed(_ exchange: ExchangeID, on server: isolated HTTPServer) {
        handlers.exchangeClosed(exchange, on: server)
    }

    public func drainIsOver(on server: isolated HTTPServer) {
        handlers.endExchanges(on: server)
    }

    public func exchange(_ exchange: ExchangeID, isCongested: Bool, on server: isolated HTTPServer) {
        handlers.exchange(exchange, isCongested: isCongested, on: server)
    }
}

extension HTTPServer: ResponseTransport {}
