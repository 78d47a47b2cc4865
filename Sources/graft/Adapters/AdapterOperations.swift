import Adapters
import HTTP1
import InstructionStore
import JSON
import OpenAIAPI

/// What `graft adapters` does, on the files themselves or through the server that holds them. Adapters and versions are the API's JSON objects.
protocol AdapterOperations {
    func list() throws -> [JSONValue]
    func show(_ name: String) throws -> JSONValue
    /// - Returns: the new version.
    func publish(_ files: [ExportedAdapter.File], as name: String, promote: Bool) throws -> JSONValue
    func export(_ reference: AdapterReference, as format: AdapterFormat) throws -> [ExportedAdapter.File]
    func promote(_ name: String, number: Int?, share: Double?) throws -> JSONValue
    func rollback(_ name: String) throws -> JSONValue
    func setPinned(_ name: String, _ isPinned: Bool) throws -> JSONValue
    func delete(_ reference: AdapterReference) throws
}

/// Works on the adapters themselves: no server runs.
struct LocalAdapters: AdapterOperations {
    let service: any AdapterService
    /// Held as long as this works on it.
    private let data: DataDirectory
    private let owner = Owner.local

    init(_ service: any AdapterService, holding data: DataDirectory) {
        self.service = service
        self.data = data
    }

    func list() throws -> [JSONValue] { service.records(owner: owner).map { AdapterObjects(service).adapter($0) } }

    func show(_ name: String) throws -> JSONValue {
        guard let record = service.record(named: name, owner: owner) else { throw unknown(name) }
        return AdapterObjects(service).adapter(record)
    }

    func publish(_ files: [ExportedAdapter.File], as name: String, promote: Bool) throws -> JSONValue {
        let (content, source) = try AdapterContent.read(files, base: service.base.configuration)
        return AdapterObjects(service).version(try service.publish(content, as: name, owner: owner, source: source, promote: promote))
    }

    func export(_ reference: AdapterReference, as format: AdapterFormat) throws -> [ExportedAdapter.File] {
        guard let version = service.resolve(reference, owner: owner, stickyKey: nil) else { throw unknown(reference.description) }
        return try service.export(version, as: format).files
    }

    func promote(_ name: String, number: Int?, share: Double?) throws -> JSONValue {
        AdapterObjects(service).adapter(try service.promote(name, number: number, share: share, owner: owner))
    }

    func rollback(_ name: String) throws -> JSONValue { AdapterObjects(service).adapter(try service.rollback(name, owner: owner)) }

    func setPinned(_ name: String, _ isPinned: Bool) throws -> JSONValue {
        AdapterObjects(service).adapter(try service.setPinned(name, isPinned, owner: owner))
    }

    func delete(_ reference: AdapterReference) throws {
        let number: Int? = switch reference.selector {
        case .promoted: nil
        case .number(let number): number
        case .latest: service.resolve(reference, owner: owner, stickyKey: nil)?.number ?? 0
        }
        try service.delete(reference.name, number: number, owner: owner)
    }

    private func unknown(_ name: String) -> CommandError {
        let names = service.records(owner: owner).map(\.name)
        let near = nearestName(to: name, among: names).map { ": did you mean \($0)?" } ?? "; `graft adapters list` shows those that are"
        return CommandError("there is no adapter '\(TerminalText.oneLine(name))'\(near)")
    }
}

/// Asks the running server.
struct RemoteAdapters: AdapterOperations {
    let server: RunningServer

    func list() throws -> [JSONValue] {
        var adapters: [JSONValue] = []
        while true {
            let after = adapters.last?["id"]?.integer.map { "?after=\($0)" } ?? ""
            let page = try server.json("GET", "/v1/adapters" + after)
            let found = page["data"]?.array ?? []
            adapters += found
            guard page["has_more"] == true, !found.isEmpty else { return adapters }
        }
    }

    func show(_ name: String) throws -> JSONValue { try server.json("GET", path(name)) }

    func publish(_ files: [ExportedAdapter.File], as name: String, promote: Bool) throws -> JSONValue {
        // The server tells formats by content; here only the names of the form's fields are chosen.
        var parts = [MultipartForm.Part("name", name), MultipartForm.Part("promote", "\(promote)")]
        for file in files {
            let field = if files.count > 1 { file.name.hasSuffix(".json") ? "adapter_config" : "adapter_model" } else { file.bytes.starts(with: Array("GGUF".utf8)) ? "gguf" : "archive" }
            parts.append(MultipartForm.Part(field, filename: field, file.bytes))
        }
        return try server.json("POST", "/v1/adapters", form: MultipartForm(parts))
    }

    func export(_ reference: AdapterReference, as format: AdapterFormat) throws -> [ExportedAdapter.File] {
        let response = try server.checked("GET", path(reference.description) + "/export?format=\(format.rawValue)")
        guard format == .peft else { return [ExportedAdapter.File(name: reference.name + ".gguf", bytes: response.body)] }
        let files = try AdapterArchive.read(response.body)
        return [
            ExportedAdapter.File(name: PEFTAdapter.configName, bytes: files.config), ExportedAdapter.File(name: PEFTAdapter.weightsName, bytes: files.weights),
        ]
    }

    func promote(_ name: String, number: Int?, share: Double?) throws -> JSONValue {
        var body = JSONObject()
        if let number { body["version"] = .integer(Int64(number)) }
        if let share { body["share"] = .number(share) }
        return try post(path(name) + "/promote", .object(body))
    }

    func rollback(_ name: String) throws -> JSONValue { try post(path(name) + "/rollback", [:]) }
    func setPinned(_ name: String, _ isPinned: Bool) throws -> JSONValue { try post(path(name) + "/pin", ["pinned": .bool(isPinned)]) }
    func delete(_ reference: AdapterReference) throws { _ = try server.checked("DELETE", path(reference.description)) }

    private func path(_ name: String) -> String { "/v1/adapters/" + PercentCoding.encode(name) }

    private func post(_ path: String, _ body: JSONValue) throws -> JSONValue { try server.json("POST", path, body: body) }
}
