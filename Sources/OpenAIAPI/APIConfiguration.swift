/// How the API behaves, apart from the models it serves.
public struct APIConfiguration: Sendable {
    /// What `/version` reports.
    public var version: String
    public var limits = RequestLimits()
    /// A silent stream gets an SSE comment after this long, so that neither clients nor proxies give up during a slow prefill.
    public var keepAliveInterval = Duration.seconds(15)
    /// Bodies up to this many bytes are decoded and tokenised on the server's own thread, which takes one or two milliseconds; larger
    /// ones elsewhere.
    public var inlineBodyBytes = 32 * 1024
    /// An echoed prompt's log-probabilities up to this many (tokens times candidates) are written on the server's own thread, a matter of
    /// milliseconds; more elsewhere.
    public var inlineLogprobs = 20_000
    /// Threads that decode and tokenise large bodies.
    public var preparationThreads = 1
    /// Large bodies that may wait for such a thread; more are refused with 503.
    public var preparationQueue = 64
    /// `/readyz` is 503 when the engine had work for this long without ending a step.
    public var stallLimit = Duration.seconds(5)

    public init(version: String) {
        self.version = version
    }
}
