import Adapters
import Observability

/// The histograms and counters of one version of an adapter, looked up once a request.
struct AdapterMeters: Sendable {
    let timeToFirstToken: Histogram
    let promptTokens: Counter
    let cachedTokens: Counter
    let completionTokens: Counter
}

/// What `GET /metrics` shows of each version of each adapter. A blend counts for each of its parts.
///
/// The series of a version go when it is deleted, so that names that come and go do not use up the families' limits. Requests that were in flight
/// then make some of them anew when they end; these go at the next deletion or when metrics are next asked for, whichever comes first.
struct AdapterMetrics: Sendable {
    private let requests: MetricFamily<Counter>
    private let tokens: MetricFamily<Counter>
    private let timeToFirstToken: MetricFamily<Histogram>
    private let evictions: MetricFamily<Counter>

    init(_ registry: MetricsRegistry, latencyBounds: [Double], adapters: (any AdapterService)?) {
        requests = registry.counter(
            "graft_adapter_requests_total", help: "Requests for a version of an adapter, by HTTP status (499: the client left).",
            labels: ["adapter", "version", "status"])
        tokens = registry.counter(
            "graft_adapter_tokens_total", help: "Tokens of finished requests for a version of an adapter, by kind: prompt, cached (of the prompt), completion.",
            labels: ["adapter", "version", "kind"])
        timeToFirstToken = registry.histogram(
            "graft_adapter_time_to_first_token_seconds", help: "From the arrival of a request for a version of an adapter to its first token.",
            labels: ["adapter", "version"], bounds: latencyBounds)
        evictions = registry.counter(
            "graft_adapter_evictions_total", help: "How often an adapter was let go of to keep the memory budget.", labels: ["adapter"])
        if let adapters { mirror(adapters, in: registry) }
    }

    /// The registry's own figures are read when they are asked for.
    private func mirror(_ adapters: any AdapterService, in registry: MetricsRegistry) {
        let resident = registry.gauge(
            "graft_adapter_resident_bytes", help: "Memory of an adapter's version while it is packed and ready.", labels: ["adapter", "version"])
        let residentTotal = registry.gauge("graft_adapter_resident_bytes_total", help: "Memory of all adapters that are packed and ready.").series()
        let budget = registry.gauge("graft_adapter_budget_bytes", help: "Memory that packed adapters may take.").series()
        let loads = registry.counter("graft_adapter_loads_total", help: "Adapters read from disk and packed.").series()
        let evictions = evictions
        registry.onCollect { [weak adapters] in
            guard let adapters else { return }
            let statistics = adapters.statistics
            var labels: Set<[String]> = []
            // Versions of two owners may share their labels.
            var sums: [[String]: Int] = [:]
            for entry in statistics.resident { sums[[entry.name, String(entry.number)], default: 0] += entry.byteCount }
            for (label, byteCount) in sums {
                labels.insert(label)
                resident.series(label[0], label[1]).set(Double(byteCount))
            }
            resident.remove { !labels.contains($0) }
            residentTotal.set(Double(statistics.resident.reduce(0) { $0 + $1.byteCount }))
            budget.set(Double(statistics.budgetBytes))
            loads.raise(to: statistics.loads)
            let names = Set(adapters.records().map(\.name))
            for (name, count) in statistics.evictions where names.contains(name) { evictions.series(name).raise(to: count) }
        }
    }

    func meters(for version: AdapterVersion) -> AdapterMeters {
        let number = String(version.number)
        return AdapterMeters(
            timeToFirstToken: timeToFirstToken.series(version.name, number), promptTokens: tokens.series(version.name, number, "prompt"),
            cachedTokens: tokens.series(version.name, number, "cached"), completionTokens: tokens.series(version.name, number, "completion"))
    }

    func count(_ target: ModelTarget, status: Int) {
        for part in target.parts { requests.series(part.version.name, String(part.version.number), String(status)).increment() }
    }

    /// Drops the series of all versions and names that are not among the records any more. The records are read after it is begun.
    func beginForgetting() -> (_ records: [AdapterRecord]) -> Void {
        let byVersion = [requests.beginRemoval(), tokens.beginRemoval(), timeToFirstToken.beginRemoval()]
        let byName = evictions.beginRemoval()
        return { records in
            let versions = Set(records.flatMap { record in record.versions.map { [record.name, String($0.number)] } })
            for remove in byVersion { remove { !versions.contains([$0[0], $0[1]]) } }
            let names = Set(records.map(\.name))
            byName { !names.contains($0[0]) }
        }
    }
}
