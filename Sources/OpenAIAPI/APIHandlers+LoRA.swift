import Adapters
import HTTPServing
import HTTPTypes
import JSON

extension APIHandlers {
    // MARK: - vLLM

    /// `POST /v1/load_lora_adapter` and `/v1/unload_lora_adapter`, with vLLM's fields and its answers in plain text.
    func serveLoRAPaths(_ request: APIRequest, route: APIRoute, on transport: isolated Transport) throws(APIError) {
        let adapters = try requireAdapters()
        guard let directory = configuration.loraPathsDirectory else { throw .routeDisabled(setting: "adapters.lora_paths_directory") }
        try requireJSON(request)
        var fields = RequestFields(try preparation.object(request.body.joined()))
        guard let name = try fields.string("lora_name", maximumBytes: 1024) else { throw .missing("lora_name", expected: "the adapter's name") }
        try requirePublishable(name, param: "lora_name")
        let (requestID, owner) = (request.requestID, request.caller.owner)
        let subject = AdapterSubject(name: name)
        guard route == .loadLoRA else {
            let ignored = fields.unread
            guard adapters.record(named: name, owner: owner) != nil else { throw .adapterNotFound(name, param: "lora_name") }
            return try change(request, route: route, action: "delete", subject: subject, on: transport) { handlers, _ throws(APIError) in
                try handlers.delete(name, number: nil, of: owner, from: adapters, requestID: requestID)
                return .text("Success: LoRA adapter '\(name)' removed successfully.", ignored: ignored)
            }
        }
        guard let path = try fields.string("lora_path", maximumBytes: 4096) else {
            throw .missing("lora_path", expected: "the path of a PEFT directory or of a .gguf file on the server")
        }
        let replaces = try fields.bool("load_inplace") ?? false
        let ignored = fields.unread
        try change(request, route: route, action: "publish", subject: subject, on: transport) { handlers, subject throws(APIError) in
            guard replaces || adapters.record(named: name, owner: owner) == nil else {
                throw APIError(
                    .badRequest, .invalidRequest, code: "adapter_exists", param: "lora_name",
                    "The adapter '\(name)' is loaded already; set load_inplace to publish a new version, or unload it first")
            }
            let files = try handlers.adapterFiles(at: path, in: directory)
            do throws(AdapterError) {
                let content = try files.content(handlers.adapterFormats, base: adapters.base.configuration)
                subject.version = try adapters.publish(content, as: name, owner: owner, source: files.source, promote: true).number
            } catch {
                let param = error.code == .invalidName ? "lora_name" : "lora_path"
                throw handlers.refusal(error, in: .change, param: param, requestID: requestID)
            }
            return .text("Success: LoRA adapter '\(name)' added successfully.", ignored: ignored)
        }
    }

    /// Blocking. The files that a client's path names.
    private func adapterFiles(at path: String, in directory: String) throws(APIError) -> AdapterFiles {
        do throws(ConfinedDirectory.Refusal) {
            let directory = try ConfinedDirectory(directory, limit: configuration.adapterUploadBytes)
            if case .directory = try directory.item(at: path) {
                let config = try directory.read(path + "/" + PEFTAdapter.configName)
                return .peft(config: config, weights: try directory.read(path + "/" + PEFTAdapter.weightsName))
            }
            guard path.lowercased().hasSuffix(".gguf") else {
                throw ConfinedDirectory.Refusal(code: .notReadable, message: "'\(quoted(path))' is a file, expected a PEFT directory or a .gguf file")
            }
            return .gguf(try directory.read(path))
        } catch {
            let message = "The adapter cannot be read: \(error.message)"
            switch error.code {
            case .notFound: throw APIError(.notFound, .notFound, code: "file_not_found", param: "lora_path", message)
            case .outside, .notReadable, .tooLarge: throw .invalidValue("lora_path", message)
            }
        }
    }

    // MARK: - llama.cpp

    /// `GET /lora-adapters` and `POST /lora-adapters`, which sets the adapters of its owner's requests that name neither `model` nor `lora`.
    func serveGlobalLoRA(_ request: APIRequest, route: APIRoute, on transport: isolated Transport) throws(APIError) {
        let adapters = try requireAdapters()
        let owner = request.caller.owner
        guard route == .setGlobalLoRA else {
            let entries = preparation.defaultBlend[owner] ?? []
            let list = adapters.records(owner: owner).map { record -> JSONValue in
                let scale = entries.reduce(Float(0)) { $0 + ($1.names(record) ? $1.scale : 0) }
                return ["id": .integer(Int64(record.id)), "path": .string(record.name), "scale": .number(Double(scale.description) ?? 0)]
            }
            return answer(request, route: route, .array(list), on: transport)
        }
        guard configuration.allowsGlobalLoRA else { throw .routeDisabled(setting: "adapters.allow_global_lora") }
        if isDraining { throw .shuttingDown }
        try requireJSON(request)
        var ignored: [String] = []
        let value = try preparation.value(request.body.joined())
        var entries = try BlendEntry.list(value, path: "body", unknown: &ignored)
        // Checked now, so that a mistake is refused here and not in everybody's requests.
        let target = try models.resolve(ModelQuery(name: nil, owner: owner, blend: entries))
        for index in entries.indices { entries[index].param = nil }
        preparation.defaultBlend[owner] = entries
        let names = target.parts.map { "\($0.version.name)*\($0.weight)" }.joined(separator: ",")
        audit("set_global", AdapterSubject(name: names.isEmpty ? nil : names), request: request, result: "ok")
        answer(request, route: route, ["success": true], ignored: ignored, on: transport)
    }
}

extension BlendEntry {
    /// Whether the entry is about some version of this adapter.
    fileprivate func names(_ record: AdapterRecord) -> Bool {
        switch adapter {
        case .id(let id): id == record.id
        case .reference(let reference): reference.name == record.name
        }
    }
}
