import Adapters
import Inference
import InstructionStore
import Observability

/// The histograms and counters of one model name, looked up once a request.
struct ModelMeters: Sendable {
    let timeToFirstToken: Histogram
    let interToken: Histogram
    let requestDuration: Histogram
    let promptTokens: Counter
    let cachedTokens: Counter
    let completionTokens: Counter
    let brokenStreams: Counter
    /// One for each adapter that the request is computed with.
    let adapters: [AdapterMeters]
}

/// What `GET /metrics` shows. Label values come from bounded sets: route patterns, statuses and names of served models.
struct APIMetrics: Sendable {
    private let requests: MetricFamily<Counter>
    private let timeToFirstToken: MetricFamily<Histogram>
    private let interToken: MetricFamily<Histogram>
    private let requestDuration: MetricFamily<Histogram>
    private let promptTokens: MetricFamily<Counter>
    private let cachedTokens: MetricFamily<Counter>
    private let completionTokens: MetricFamily<Counter>
    private let brokenStreams: MetricFamily<Counter>
    let adapters: AdapterMetrics
    /// `nil`: there are none.
    let files: FileMetrics?
    /// The models that are no adapters.
    private let bases: Set<String>

    /// Seconds; CPU inference spans a wide range.
    private static let latencyBounds = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120]
    private static let interTokenBounds = [0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.6, 1, 2.5]

    init(
        _ registry: MetricsRegistry, service: any GenerationService, models: any ModelResolver, adapters: (any AdapterService)?, files: FileStore? = nil,
        exchanges: ExchangeLog? = nil, version: String
    ) {
        requests = registry.counter(
            "graft_requests_total", help: "Requests answered, by route, HTTP status (499: the client left) and model.",
            labels: ["route", "status", "model"])
        timeToFirstToken = registry.histogram(
            "graft_time_to_first_token_seconds", help: "From the request's arrival to its first token.", labels: ["model"],
            bounds: Self.latencyBounds)
        interToken = registry.histogram(
            "graft_inter_token_seconds", help: "Between two tokens of one answer.", labels: ["model"], bounds: Self.interTokenBounds)
        requestDuration = registry.histogram(
            "graft_request_duration_seconds", help: "From a generation request's arrival to the end of its answer.", labels: ["model"],
            bounds: Self.latencyBounds)
        promptTokens = registry.counter("graft_prompt_tokens_total", help: "Prompt tokens of finished requests.", labels: ["model"])
        cachedTokens = registry.counter(
            "graft_cached_tokens_total", help: "Prompt tokens of finished requests whose keys and values were in the cache.", labels: ["model"])
        completionTokens = registry.counter("graft_completion_tokens_total", help: "Tokens generated for finished requests.", labels: ["model"])
        brokenStreams = registry.counter("graft_broken_streams_total", help: "Streams that ended with an error event.", labels: ["model"])
        self.adapters = AdapterMetrics(registry, latencyBounds: Self.latencyBounds, adapters: adapters)
        self.files = files.map { _ in FileMetrics(registry) }
        exchanges?.register(in: registry)
        bases = Set(models.cards(owner: Owner.local).filter { $0.parent == nil }.map(\.id))
        registry.gauge("graft_build_info", help: "Always 1; the label has the version.", labels: ["version"]).series(version).set(1)
        Self.mirror(service, in: registry)
        if let adapters {
            registry.onCollect { [self, weak adapters] in
                if let adapters { forgetDeleted(adapters) }
            }
        }
    }

    /// The engine's own figures are read when they are asked for.
    private static func mirror(_ service: any GenerationService, in registry: MetricsRegistry) {
        let running = registry.gauge("graft_sequences_running", help: "Sequences in the batch.").series()
        let waiting = registry.gauge("graft_queue_depth", help: "Sequences that wait for a place in the batch.").series()
        let blocks = registry.gauge(
            "graft_kv_blocks", help: "Blocks of the key-value cache: all, held by sequences, kept for reuse.", labels: ["state"])
        let (total, inUse, cached) = (blocks.series("total"), blocks.series("in_use"), blocks.series("cached"))
        let windowBlocks = registry.gauge(
            "graft_kv_window_blocks", help: "Blocks that layers with a sliding window have of their own: all, held by sequences; 0 if the model has no such layers.",
            labels: ["state"])
        let (windowTotal, windowInUse) = (windowBlocks.series("total"), windowBlocks.series("in_use"))
        let steps = registry.counter("graft_engine_steps_total", help: "Engine steps.").series()
        let tokens = registry.counter(
            "graft_engine_tokens_total", help: "Tokens that the engine worked through, by kind; cached ones were spared, recomputed ones are what preemptions cost.",
            labels: ["kind"])
        let (prefill, decode, spared, recomputed) = (tokens.series("prefill"), tokens.series("decode"), tokens.series("cached"), tokens.series("recomputed"))
        let preemptions = registry.counter(
            "graft_preemptions_total", help: "How often a sequence had to leave its blocks of the key-value cache to others, to go on later.").series()
        let drafts = registry.counter(
            "graft_draft_tokens_total", help: "Draft tokens of speculative decoding: computed, and accepted.", labels: ["kind"])
        let (computed, accepted) = (drafts.series("computed"), drafts.series("accepted"))
        registry.onCollect { [weak service] in
            guard let statistics = service?.statistics else { return }
            computed.raise(to: statistics.draftTokens)
            accepted.raise(to: statistics.acceptedDraftTokens)
            running.set(Double(statistics.running))
            waiting.set(Double(statistics.waiting))
            total.set(Double(statistics.blocksTotal))
            inUse.set(Double(statistics.blocksInUse))
            cached.set(Double(statistics.blocksCached))
            windowTotal.set(Double(statistics.windowBlocksTotal))
            windowInUse.set(Double(statistics.windowBlocksInUse))
            steps.raise(to: statistics.steps)
            prefill.raise(to: statistics.prefillTokens)
            decode.raise(to: statistics.decodeTokens)
            spared.raise(to: statistics.cachedTokens)
            recomputed.raise(to: statistics.recomputedTokens)
            preemptions.raise(to: statistics.preemptions)
        }
    }

    func meters(for target: ModelTarget) -> ModelMeters {
        let model = target.label
        return ModelMeters(
            timeToFirstToken: timeToFirstToken.series(model), interToken: interToken.series(model),
            requestDuration: requestDuration.series(model), promptTokens: promptTokens.series(model),
            cachedTokens: cachedTokens.series(model), completionTokens: completionTokens.series(model),
            brokenStreams: brokenStreams.series(model), adapters: target.parts.map { adapters.meters(for: $0.version) })
    }

    /// Drops the series of adapters, and of versions of them, that there are no more.
    func forgetDeleted(_ service: any AdapterService) {
        let byAdapter = adapters.beginForgetting()
        let byModel =
            [promptTokens, cachedTokens, completionTokens, brokenStreams].map { $0.beginRemoval() }
            + [timeToFirstToken, interToken, requestDuration].map { $0.beginRemoval() }
        let byRequest = requests.beginRemoval()
        let records = service.records()
        byAdapter(records)
        // Requests that were answered for no model have none in their label.
        let models = bases.union(records.map(\.name)).union([""])
        for remove in byModel { remove { !models.contains($0[0]) } }
        byRequest { !models.contains($0[2]) }
    }

    /// - Parameter model: a resolved name, or empty where there is none.
    func count(route: String, status: Int, model: String) {
        requests.series(route, String(status), model).increment()
    }
}
