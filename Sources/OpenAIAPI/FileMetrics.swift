import InstructionStore
import Observability

/// What `GET /metrics` shows of files.
struct FileMetrics: Sendable {
    private let files: MetricFamily<Counter>
    private let bytes: Counter

    init(_ registry: MetricsRegistry) {
        files = registry.counter(
            "graft_files_created_total", help: "Files kept, uploaded or made from logs, by purpose and status.", labels: ["purpose", "status"])
        bytes = registry.counter("graft_file_bytes_total", help: "Bytes of the files kept.").series()
    }

    func count(_ file: StoredFile) {
        files.series(file.purpose, file.status.rawValue).increment()
        bytes.increment(by: UInt64(file.byteCount))
    }
}
