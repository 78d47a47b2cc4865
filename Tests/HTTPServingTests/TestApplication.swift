import EventLoops
import HTTP1
import HTTPServing
import HTTPTypes
import Synchronization
import Testing

/// An application whose handler is a closure and which tells what it is told.
final class TestApplication: HTTPApplication {
    typealias Handler = @Sendable (IncomingRequest, isolated HTTPServer) -> Void

    enum Event: Equatable {
        case request(String), closed(ExchangeID), congested(ExchangeID, Bool), rejected(HTTPRejection.Reason)
    }

    private let handler: Handler
    private let admission: @Sendable (HTTPRequest, String, ExchangeID) -> HTTPAdmission
    private let onDrainOver: @Sendable (isolated HTTPServer) -> Void
    private let stream: AsyncStream<Event>
    private let continuation: AsyncStream<Event>.Continuation

    init(
        admission: @escaping @Sendable (HTTPRequest, String, ExchangeID) -> HTTPAdmission = { _, _, _ in .accept(bodyLimit: nil) },
        drainIsOver: @escaping @Sendable (isolated HTTPServer) -> Void = { _ in },
        _ handler: @escaping Handler
    ) {
        self.handler = handler
        self.admission = admission
        onDrainOver = drainIsOver
        (stream, continuation) = AsyncStream.makeStream()
    }

    func admit(_ head: HTTPRequest, path: String, exchange: ExchangeID, on server: isolated HTTPServer) -> HTTPAdmission {
        admission(head, path, exchange)
    }

    func handle(_ request: IncomingRequest, on server: isolated HTTPServer) {
        continuation.yield(.request(request.path))
        handler(request, server)
    }

    func exchangeClosed(_ exchange: ExchangeID, on server: isolated HTTPServer) {
        continuation.yield(.closed(exchange))
    }

    func exchange(_ exchange: ExchangeID, isCongested: Bool, on server: isolated HTTPServer) {
        continuation.yield(.congested(exchange, isCongested))
    }

    func drainIsOver(on server: isolated HTTPServer) {
        onDrainOver(server)
    }

    func response(to rejection: HTTPRejection) -> (HTTPResponse, [UInt8]) {
        continuation.yield(.rejected(rejection.reason))
        let code =
            switch rejection.reason {
            case .malformed, .needsTLS: 400
            case .targetTooLong: 414
            case .headersTooLarge: 431
            case .bodyTooLarge: 413
            case .unsupportedVersion: 505
            case .unsupportedTransferCoding: 501
            case .expectationFailed: 417
            case .misdirected: 421
            case .headerTimeout, .bodyTimeout: 408
            case .tooManyConnections: 503
            }
        return (HTTPResponse(status: HTTPResponse.Status(code: code)), Array(rejection.message.utf8))
    }

    /// Waits for the first event that `matches`, and returns it and those before it.
    func events(until matches: (Event) -> Bool) async -> [Event] {
        var seen: [Event] = []
        for await event in stream {
            seen.append(event)
            if matches(event) { return seen }
        }
        return seen
    }
}

extension HTTPResponse {
    static let text: HTTPResponse = {
        var response = HTTPResponse(status: .ok)
        response.headerFields[.contentType] = "text/plain"
        return response
    }()
}

/// A server on a loop and port of its own for the length of `body`.
func withServer(
    _ application: TestApplication, configure: (inout HTTPServerConfiguration) -> Void = { _ in },
    _ body: (HTTPServer, Int) async throws -> Void
) async throws {
    var configuration = HTTPServerConfiguration()
    configure(&configuration)
    let loop = try EventLoop(name: "test")
    let server = HTTPServer(loop: loop, configuration: configuration, application: application)
    let port = try await server.listen(host: "127.0.0.1", port: 0)
    do {
        try await body(server, port)
    } catch {
        await server.close()
        loop.shutdown()
        throw error
    }
    await server.close()
    loop.shutdown()
}
