import FoundationEssentials
import Yams

/// The settings of `Config/graft.yaml`, overridden by the environment. Options of the command line are applied by the commands.
///
/// Every setting is one line of `keys`: what is not there is refused by name, so that a misspelt setting is never silently ignored.
struct Settings {
    private static let keys: Set<String> = [
        "model", "models_directory", "engine.threads", "engine.context_length", "engine.max_sequences", "engine.spare_sequences", "engine.draft_rows", "engine.max_queued", "engine.cache_megabytes",
        "engine.cache_type", "engine.exact", "server.host", "server.port", "server.max_connections", "server.allowed_hosts", "server.max_body_megabytes", "server.drain_seconds",
        "server.header_seconds", "server.body_idle_seconds", "server.idle_seconds", "server.write_idle_seconds", "server.min_bytes_per_second",
        "server.max_upload_megabytes", "server.tls_certificate", "server.tls_private_key", "server.insecure_listen", "data_directory", "adapters.directory", "adapters.memory_megabytes", "adapters.default", "adapters.lora_paths_directory",
        "adapters.allow_global_lora", "log_exchanges.enabled", "log_exchanges.retention_days", "log_exchanges.maximum",
        "tuning.enabled", "tuning.share_percent", "tuning.memory_megabytes", "tuning.precision", "tuning.max_length", "tuning.rank", "tuning.micro_batch_tokens",
        "tuning.snapshot_seconds", "tuning.snapshot_steps",
        "server.cors_origins", "limits.requests_per_minute", "limits.tokens_per_minute", "audit.file",
        "log.level", "log.format",
    ]

    static let defaultPath = "Config/graft.yaml"

    private struct Value {
        let text: String
        /// Where it was found, for messages.
        let origin: String
    }

    private var values: [String: Value] = [:]

    /// - Parameter path: a file that must exist; nil reads `Config/graft.yaml` if there is one.
    init(path: String?) throws(SettingsError) {
        if let path {
            try read(path)
        } else if FileManager.default.fileExists(atPath: Settings.defaultPath) {
            try read(Settings.defaultPath)
        }
        for key in Settings.keys {
            let name = Settings.environmentName(key)
            if let text = Environment[name] { values[key] = Value(text: text, origin: name) }
        }
    }

    private static func environmentName(_ key: String) -> String { "GRAFT_" + key.uppercased().replacing(".", with: "_") }

    private mutating func read(_ path: String) throws(SettingsError) {
        let root: Node?
        do {
            root = try Yams.compose(yaml: String(decoding: Data(contentsOf: URL(filePath: path)), as: UTF8.self))
        } catch let error as YamlError {
            throw SettingsError("\(path): \(error)")
        } catch {
            throw SettingsError("\(path): cannot be read; expected a YAML file such as Config/graft.yaml")
        }
        guard let root else { return }
        try add(root, prefix: "", path)
    }

    private mutating func add(_ node: Node, prefix: String, _ path: String) throws(SettingsError) {
        let line = node.mark.map { ":\($0.line)" } ?? ""
        guard case .mapping(let mapping) = node else {
            throw SettingsError("\(path)\(line): found \(node.string.map { "'\($0)'" } ?? "a list"), expected settings as `name: value`")
        }
        for (keyNode, valueNode) in mapping {
            let key = prefix + (keyNode.string ?? "")
            let place = path + (keyNode.mark.map { ":\($0.line)" } ?? "")
            if Settings.keys.contains(key), let text = valueNode.scalar?.string {
                values[key] = Value(text: text, origin: "\(place): \(key)")
            } else if Settings.keys.contains(where: { $0.hasPrefix(key + ".") }) {
                try add(valueNode, prefix: key + ".", path)
            } else {
                let known = Settings.keys.filter { $0.hasPrefix(prefix) }.map { $0.dropFirst(prefix.count) }.sorted().joined(separator: ", ")
                throw SettingsError("\(place): there is no setting '\(key)'; expected one of \(known)")
            }
        }
    }

    // MARK: Typed look-ups; absent or empty gives the default

    func string(_ key: String, _ otherwise: String) -> String {
        precondition(Settings.keys.contains(key))
        guard let value = values[key], !value.text.isEmpty else { return otherwise }
        return value.text
    }

    func integer(_ key: String, _ otherwise: Int, in range: ClosedRange<Int>) throws(SettingsError) -> Int {
        precondition(Settings.keys.contains(key))
        guard let value = values[key], !value.text.isEmpty else { return otherwise }
        guard let number = Int(value.text), range.contains(number) else {
            throw SettingsError("\(value.origin): found '\(value.text)', expected an integer from \(range.lowerBound) to \(range.upperBound)")
        }
        return number
    }

    func bool(_ key: String, _ otherwise: Bool) throws(SettingsError) -> Bool {
        precondition(Settings.keys.contains(key))
        switch values[key]?.text {
        case nil, "": return otherwise
        case "true", "1", "yes", "on": return true
        case "false", "0", "no", "off": return false
        case let other?: throw SettingsError("\(values[key]!.origin): found '\(other)', expected true or false")
        }
    }

    func choice<T: RawRepresentable & CaseIterable>(_ key: String, _ otherwise: T) throws(SettingsError) -> T where T.RawValue == String {
        precondition(Settings.keys.contains(key))
        guard let value = values[key], !value.text.isEmpty else { return otherwise }
        guard let choice = T(rawValue: value.text) else {
            throw SettingsError("\(value.origin): found '\(value.text)', expected one of \(T.allCases.map(\.rawValue).joined(separator: ", "))")
        }
        return choice
    }
}

struct SettingsError: Error, CustomStringConvertible {
    let description: String

    init(_ message: String) {
        description = message
    }
}
