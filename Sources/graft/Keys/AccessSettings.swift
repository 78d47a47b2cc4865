import HTTPServing
import InstructionStore
import Logging
import Observability
import OpenAIAPI
import Tuning

/// Who may send requests, how many, and where it is told what they changed.
struct AccessSettings {
    /// Of keys that have none of their own.
    var limits: KeyLimits
    /// Web pages' origins that may read answers; empty: none.
    var origins: [String]
    /// `nil`: audit lines go to the log alone.
    var auditPath: String?

    init(_ settings: Settings) throws {
        limits = KeyLimits(
            requestsPerMinute: try settings.integer("limits.requests_per_minute", 0, in: 0...InstructionStore.largestKeyLimit),
            tokensPerMinute: try settings.integer("limits.tokens_per_minute", 0, in: 0...InstructionStore.largestKeyLimit))
        origins = settings.string("server.cors_origins", "").split(separator: ",").map { $0.filter { $0 != " " } }.filter { !$0.isEmpty }
        for origin in origins where !CrossOriginPolicy.isOrigin(origin) {
            throw SettingsError(
                "server.cors_origins: found '\(TerminalText.oneLine(origin))', expected origins as browsers send them, such as https://app.example.com, "
                    + "separated by commas; there is no * for all of them")
        }
        let path = settings.string("audit.file", "")
        auditPath = path.isEmpty ? nil : path
    }

    func trail(of store: InstructionStore, _ logger: Logger) throws -> AuditTrail {
        let file = try auditPath.map { path in
            try AuditFile(path: path) { message in logger.error("audit", metadata: ["cause": "\(message)"]) }
        }
        return AuditTrail(logger: logger, serverID: store.id, file: file)
    }
}

/// The keys of a store for a server at an address.
/// - Throws: when others than this machine could reach it and nobody has a key.
func serverKeys(of store: InstructionStore, host: String, isLoopback: Bool, defaults: KeyLimits) throws -> KeyRing {
    let keys = try KeyRing(store, isRequired: !isLoopback, defaults: defaults)
    guard isLoopback || keys.hasUsableKey else {
        throw CommandError(
            "others than this machine can reach \(TerminalText.oneLine(host)), and no API key has been made that they could be asked for: make one with "
                + "`graft keys create NAME`, or listen on 127.0.0.1")
    }
    return keys
}

extension AuditTrail {
    /// A job that the server has brought to its end by itself.
    func record(ended job: JobEnd) {
        func entry(_ action: String, _ object: String, _ result: String) -> AuditEntry {
            AuditEntry(actor: "system", tenant: job.owner, action: action, object: object, result: result)
        }
        if let adapter = job.adapter { record(entry("adapter.publish", adapter, "ok")) }
        record(entry("job.end", job.id, job.errorCode.map { "\(job.status.rawValue): \($0)" } ?? job.status.rawValue))
    }
}
