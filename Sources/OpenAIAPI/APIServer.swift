import Adapters
import HTTPServing
import HTTPTypes
import Inference
import Logging
import Observability

/// Graft's HTTP API: OpenAI's chat and completions, models, adapters, tokenisation, health and metrics.
///
/// Give it to an `HTTPServer` as its application. It holds no threads of its own but those that decode large bodies and work on adapters.
public final class APIServer: HTTPApplication {
    let handlers: APIHandlers<HTTPServer>

    /// - Parameters:
    ///   - service: the engine that all served models run on.
    ///   - adapters: what the routes for adapters work on, and where the versions that `models` finds are loaded from; `nil` for a server without adapters.
    ///   - registry: where the API registers its metrics; `GET /metrics` shows all of the registry.
    public init(
        service: any GenerationService, models: any ModelResolver, adapters: (any AdapterService)? = nil, configuration: APIConfiguration,
        registry: MetricsRegistry, logger: Logger
    ) {
        handlers = APIHandlers(
            service: service, models: models, adapters: adapters, configuration: configuration, registry: registry, logger: logger)
    }

    /// From now on new work is refused with 503 and `/readyz` says so, while what runs goes on. Call it before `HTTPServer.drain`.
    public func beginDraining() {
        handlers.beginDraining()
    }

    /// Ends the API's own threads. Call it after the server is closed; a process that exits need not.
    public func shutdown() {
        handlers.shutdown()
    }

    public func admit(_ head: HTTPRequest, path: String, exchange: ExchangeID, on server: isolated HTTPServer) -> HTTPAdmission {
        handlers.admit(head, path: path, exchange: exchange, on: server)
    }

    public func handle(_ request: IncomingRequest, on server: isolated HTTPServer) {
        handlers.handle(request, on: server)
    }

    public func exchangeClosed(_ exchange: ExchangeID, on server: isolated HTTPServer) {
        handlers.exchangeClosed(exchange, on: server)
    }

    public func exchange(_ exchange: ExchangeID, isCongested: Bool, on server: isolated HTTPServer) {
        handlers.exchange(exchange, isCongested: isCongested, on: server)
    }
}

extension HTTPServer: ResponseTransport {}
