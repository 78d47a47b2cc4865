import Observability
import Tuning

/// What `GET /metrics` shows of fine-tuning. The service's own figures are read when they are asked for.
enum JobMetrics {
    static func mirror(_ tuning: any TuningService, in registry: MetricsRegistry) {
        let jobs = registry.gauge("graft_tuning_jobs", help: "Fine-tuning jobs, by status.", labels: ["status"])
        let steps = registry.counter("graft_tuning_steps_total", help: "Optimiser steps of fine-tuning jobs.").series()
        let tokens = registry.counter(
            "graft_tuning_tokens_total", help: "Tokens of fine-tuning, by kind: seen are all that went through the model, trained those that the loss counted.",
            labels: ["kind"])
        let (seen, trained) = (tokens.series("seen"), tokens.series("trained"))
        registry.onCollect { [weak tuning] in
            guard let statistics = tuning?.statistics else { return }
            for status in JobState.Status.allCases { jobs.series(status.rawValue).set(Double(statistics.jobs[status] ?? 0)) }
            steps.raise(to: statistics.steps)
            seen.raise(to: statistics.tokens)
            trained.raise(to: statistics.trainedTokens)
        }
    }
}
