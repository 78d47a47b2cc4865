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
    /// `/readyz` is 503 when the engine has not ended a step for this long. Whoever runs the server has the engine's `beat` called well more often.
    public var stallLimit = Duration.seconds(5)

    /// The largest upload of an adapter.
    public var adapterUploadBytes = 512 << 20
    /// Uploads that may be under way at once, from the first byte until the adapter is published or refused; more are refused with 503 before
    /// their bodies come. Each holds its body in memory.
    public var adapterUploads = 4
    /// The largest body of the other requests that change adapters. These are decoded on the server's own thread.
    public var adapterChangeBytes = 64 << 10
    /// Requests that may wait for adapters to be read from disk; more are refused with 503.
    public var adapterLoadQueue = 256
    /// Uploads and other changes of adapters that may wait for the one before; more are refused with 503.
    public var adapterChangeQueue = 16
    /// The largest uploaded file.
    public var fileBytes = 512 << 20
    /// Files that may be under way at once, from the first byte until they are kept or refused; more are refused with 503 before they come. They
    /// go to the disk as they come, and one for fine-tuning is in memory while it is looked into.
    public var fileUploads = 4
    /// Contents of files that may be on their way to clients at once; more are refused with 503. Each takes a file descriptor and less than a megabyte.
    public var contentStreams = 64
    /// Requests that may wait for threads that read, keep or make whole files, and for the one that asks the database; more are refused with 503.
    public var fileQueue = 64, storeQueue = 256
    /// The largest body of a request for a fine-tuning job; it is decoded on the server's own thread.
    public var jobRequestBytes = 64 << 10
    /// Requests about fine-tuning jobs that may wait; more are refused with 503.
    public var tuningCallQueue = 256
    /// Where `POST /v1/load_lora_adapter` may read adapters from, this directory and below; `nil` turns vLLM's two routes off.
    /// The setting `adapters.lora_paths_directory`.
    public var loraPathsDirectory: String?
    /// Whether `POST /lora-adapters` may set what requests without `model` get. The setting `adapters.allow_global_lora`.
    public var allowsGlobalLoRA = false

    public init(version: String) {
        self.version = version
    }
}
