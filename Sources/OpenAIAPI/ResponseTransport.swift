import HTTPServing
import HTTPTypes

/// What the handlers need of the server. `HTTPServer` is the real one; tests bring one that records.
package protocol ResponseTransport: Actor {
    /// A whole response.
    func respond(to exchange: ExchangeID, _ head: HTTPResponse, body: [UInt8])
    /// - Parameter keepAlive: after each such silence the transport sends an SSE comment.
    func startStream(_ exchange: ExchangeID, _ head: HTTPResponse, keepAlive: Duration?)
    /// A body that comes in pieces.
    /// - Parameter length: in bytes; exactly as many are written before `finish`, or `abort` is called.
    func startBody(_ exchange: ExchangeID, _ head: HTTPResponse, length: Int)
    func write(_ exchange: ExchangeID, _ bytes: [UInt8])
    /// Ends the connection before the body's end, so that the client sees that something is missing.
    func abort(_ exchange: ExchangeID)
    func finish(_ exchange: ExchangeID)
    /// Reads on from a client after the receiver of its request's body has said that it has enough.
    func resumeBody(of exchange: ExchangeID)
    /// Runs a job on the actor; from any thread, in order.
    nonisolated func post(_ job: @escaping @Sendable (isolated Self) -> Void)
}

/// State that only one actor's code touches. The actor is not known where the state is declared, so the compiler cannot check this.
final class Confined<Value>: @unchecked Sendable {
    // Promise: every access goes through `on(_:)`, whose caller proves by its isolation that it runs on the actor. All callers pass the one
    // server that the handlers belong to, and none keeps the value beyond its own job.
    private let value: Value

    init(_ value: sending Value) {
        self.value = value
    }

    func on(_ actor: isolated some Actor) -> Value { value }
}
