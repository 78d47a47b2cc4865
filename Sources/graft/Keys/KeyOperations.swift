import HTTP1
import InstructionStore
import JSON
import Logging
import Observability
import OpenAIAPI

/// What `graft keys` does, on the store itself or through the server that holds it. Keys are the API's JSON objects.
protocol KeyOperations {
    /// - Returns: the key with its text under `value`.
    func create(_ wanted: WantedKey) throws -> JSONValue
    /// In the order in which they were made.
    func list() throws -> [JSONValue]
    func revoke(_ id: String) throws
}

/// What the command line says of a key that is to be made.
struct WantedKey {
    var name: String
    var owner: String
    var scopes: [KeyScope]
    /// In seconds; `nil`: until it is revoked.
    var lifetime: Int?
    var limits: KeyLimits
}

/// Works on the store: no server runs. Audit lines go to the audit file, if there is one; a command has no log.
struct LocalKeys: KeyOperations {
    let keys: KeyRing
    let audit: AuditTrail
    /// Held as long as this works on it.
    private let store: InstructionStore

    init(_ store: InstructionStore, _ settings: AccessSettings) throws {
        self.store = store
        keys = try KeyRing(store, isRequired: false)
        audit = try settings.trail(of: store, Logger(label: "graft") { _ in SwiftLogNoOpLogHandler() })
    }

    func create(_ wanted: WantedKey) throws -> JSONValue {
        let made = try keys.create(
            StoredKey.Grant(
                name: wanted.name, owner: wanted.owner, scopes: wanted.scopes.isEmpty ? KeyScope.standard : Set(wanted.scopes), limits: wanted.limits,
                expiresAt: keys.end(after: wanted.lifetime)))
        record("key.create", made.key)
        return .object(KeyObjects.key(made.key, lastUse: nil, value: made.text))
    }

    func list() throws -> [JSONValue] { keys.list().map { .object(KeyObjects.key($0.key, lastUse: $0.lastUse)) } }

    func revoke(_ id: String) throws {
        guard let key = try keys.revoke(id) else {
            throw CommandError("there is no API key '\(TerminalText.oneLine(id))'; `graft keys list` shows those that are")
        }
        record("key.revoke", key)
    }

    private func record(_ action: String, _ key: StoredKey) {
        audit.record(AuditEntry(actor: "command-line", tenant: InstructionStore.localOwner, action: action, object: key.objectID, result: "ok"))
    }
}

/// Asks the running server.
struct RemoteKeys: KeyOperations {
    let server: RunningServer
    private static let path = "/v1/organization/admin_api_keys"

    func create(_ wanted: WantedKey) throws -> JSONValue {
        var body: JSONObject = ["name": .string(wanted.name), "owner": .string(wanted.owner)]
        if !wanted.scopes.isEmpty { body["scopes"] = .array(wanted.scopes.map { .string($0.rawValue) }) }
        if let lifetime = wanted.lifetime { body["expires_in_seconds"] = .integer(Int64(lifetime)) }
        if let limit = wanted.limits.requestsPerMinute { body["requests_per_minute"] = .integer(Int64(limit)) }
        if let limit = wanted.limits.tokensPerMinute { body["tokens_per_minute"] = .integer(Int64(limit)) }
        return try server.json("POST", Self.path, body: .object(body))
    }

    func list() throws -> [JSONValue] {
        var found: [JSONValue] = []
        while true {
            let cursor = found.last?["id"]?.string.map { "&after=" + PercentCoding.encode($0) } ?? ""
            let page = try server.json("GET", "\(Self.path)?limit=1000\(cursor)")
            found += page["data"]?.array ?? []
            if page["has_more"]?.bool != true { return found }
        }
    }

    func revoke(_ id: String) throws { _ = try server.json("DELETE", Self.path + "/" + PercentCoding.encode(id)) }
}

/// The keys of the data directory: opened here, or asked of the server that has it open.
func openKeys(_ options: KeyOptions) throws -> any KeyOperations {
    let key = try options.access.key()
    if let address = options.server { return RemoteKeys(server: try RunningServer(address: address, key: key, authorities: options.caFile)) }
    let settings = try Settings(path: options.config)
    do {
        let data = try DataDirectory(path: AdapterSettings(settings).dataDirectory)
        return try LocalKeys(try InstructionStore(directory: data), AccessSettings(settings))
    } catch let error as DataDirectoryError {
        guard let holder = error.holder, let address = holder.address else { throw error }
        return RemoteKeys(server: try RunningServer(address: address, key: key, certificate: holder.certificate))
    }
}
