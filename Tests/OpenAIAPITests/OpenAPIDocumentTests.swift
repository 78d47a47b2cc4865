import FoundationEssentials
import HTTPTypes
import JSON
import OpenAIAPI
import Testing

/// `/openapi.json` against the router, against itself, and against what the decoders accept.
@Suite struct OpenAPIDocumentTests {
    private let harness: Harness
    private let document: JSONValue

    init() async throws {
        harness = try Harness(adapters: try FakeAdapters(), storage: try Storage(), tuning: FakeTuning()) {
            $0.loraPathsDirectory = "/nowhere"
            $0.allowsGlobalLoRA = true
        }
        let response = await harness.get("/openapi.json")
        #expect(response.status == 200 && response.head?.headerFields[.contentType] == "application/json")
        document = try response.json()
    }

    private static let methods = ["get", "put", "post", "delete", "patch", "options", "head", "trace"]

    /// Each operation with its path and method.
    private var operations: [(path: String, method: String, object: JSONObject)] {
        (document["paths"]?.object ?? [:]).flatMap { path, methods in
            (methods.object ?? [:]).map { (path, $0.key, $0.value.object ?? [:]) }
        }
    }

    private func operation(_ method: String, _ path: String) throws -> JSONValue { try #require(document["paths"]?[path]?[method]) }

    /// A value, or what its `$ref` points at.
    private func resolved(_ value: JSONValue) throws -> JSONValue {
        guard let reference = value["$ref"]?.string else { return value }
        var target = document
        for step in reference.split(separator: "/").dropFirst() { target = try #require(target[String(step)], "\(reference) leads nowhere") }
        return target
    }

    private func visit(_ value: JSONValue, _ action: (JSONObject) throws -> Void) rethrows {
        if let object = value.object {
            try action(object)
            for (_, member) in object { try visit(member, action) }
        }
        for element in value.array ?? [] { try visit(element, action) }
    }

    // MARK: - Against the router

    @Test func everyRouteIsDescribed() {
        let described = Set(operations.map { "\($0.method) \($0.path)" })
        let routes = APIRoute.allCases.map { "\($0.method.rawValue.lowercased()) \($0.path)" }
        #expect(described == Set(routes) && described.count == routes.count)
    }

    /// What is described is there, and no method besides: the server names the same ones in `allow`.
    @Test func everyDescribedPathExistsWithItsMethods() async throws {
        for (path, methods) in try #require(document["paths"]?.object) {
            let known = Set(try #require(methods.object).keys)
            #expect(known.isSubset(of: Self.methods))
            let response = await harness.response(await harness.send(HTTPRequest.Method("BREW")!, path.replacing("{id}", with: "x"), contentType: nil))
            let allowed = response.head?.headerFields[.allow]?.split(separator: ", ").map { $0.lowercased() } ?? []
            #expect(response.status == 405 && Set(allowed).subtracting(["head"]) == known, "\(path)")
        }
    }

    @Test func operationsHaveUniqueNamesAndTheirPathsParameters() throws {
        let ids = operations.compactMap { $0.object["operationId"]?.string }
        #expect(ids.count == operations.count && Set(ids).count == ids.count)
        let tags = Set(document["tags"]?.array?.compactMap { $0["name"]?.string } ?? [])
        for (path, method, object) in operations {
            let declared = object["parameters"]?.array?.filter { $0["in"] == "path" }.compactMap { $0["name"]?.string } ?? []
            #expect(declared == (path.contains("{id}") ? ["id"] : []), "\(method) \(path)")
            let names = object["parameters"]?.array?.compactMap { $0["name"]?.string } ?? []
            #expect(Set(names).count == names.count)
            #expect(object["tags"]?.array?.allSatisfy { tags.contains($0.string ?? "") } == true)
            #expect(
                object["responses"]?["200"] != nil && (method == "get" || method == "delete" || path.contains("/jobs/{id}/") || object["requestBody"] != nil))
        }
    }

    // MARK: - Against itself

    @Test func everyReferenceLeadsSomewhere() throws {
        var count = 0
        try visit(document) { object in
            guard object["$ref"] != nil else { return }
            _ = try resolved(.object(object))
            count += 1
        }
        #expect(count > 500)
    }

    @Test func nothingInComponentsIsUnused() throws {
        var used: Set<String> = []
        visit(document) { if let reference = $0["$ref"]?.string { used.insert(reference) } }
        for kind in ["schemas", "responses", "headers"] {
            for name in try #require(document["components"]?[kind]?.object).keys { #expect(used.contains("#/components/\(kind)/\(name)"), "\(name)") }
        }
    }

    @Test func refusalsAreThoseOfTheirRoutes() throws {
        for (path, method, object) in operations {
            let statuses = Set(object["responses"]?.object?.keys ?? [])
            #expect(statuses.isSuperset(of: ["200", "400", "408", "414", "421", "431", "500", "503"]))
            let isOpen = ["/livez", "/readyz", "/health"].contains(path)
            #expect((object["security"] == []) == isOpen)
            #expect(["401", "403", "429"].allSatisfy { statuses.contains($0) != isOpen }, "\(method) \(path)")
            #expect(statuses.contains("413") == (object["requestBody"] != nil))
            #expect(statuses.contains("422") == (method == "post" && path == "/v1/adapters"), "only an adapter's files are 422")
        }
        for (_, response) in try #require(document["components"]?["responses"]?.object) {
            let content = try #require(response["content"]?["application/json"])
            #expect(content["schema"] == ["$ref": "#/components/schemas/Error"])
            #expect(content["example"]?["error"]?.sortedKeys == ["code", "message", "param", "type"])
        }
    }

    // MARK: - Against the decoders

    /// The request schemas by route.
    private func schema(_ path: String) throws -> JSONValue {
        try resolved(try #require(try operation("post", path)["requestBody"]?["content"]?["application/json"]?["schema"]))
    }

    private static let chat: JSONObject = ["messages": [["role": "user", "content": "Hi"]]]
    private static let completion: JSONObject = ["prompt": "Hi"]

    /// The whole answer, the engine's part included.
    private func send(_ path: String, _ body: JSONObject) async -> RecordingTransport.Response {
        let before = harness.engine.submissions.count
        let id = await harness.send(.post, path, String(decoding: JSONValue.object(body).serialized(), as: UTF8.self))
        for index in before..<harness.engine.submissions.count { harness.engine.answer("a", to: index) }
        return await harness.settled(id)
    }

    /// No described member is unknown, and null counts as absent in each that may be left out.
    @Test(
        arguments: [("/v1/chat/completions", chat), ("/v1/completions", completion), ("/tokenize", ["content": "a"]), ("/detokenize", ["tokens": [1]])]
            as [(String, JSONObject)])
    func describedMembersAreKnown(path: String, body: JSONObject) async throws {
        let schema = try schema(path)
        let required = schema["required"]?.array?.compactMap(\.string) ?? []
        var checked = 0
        for (name, member) in try #require(schema["properties"]?.object) where !required.contains(name) && body[name] == nil {
            var full = body
            switch name {
            case "stream_options": full["stream"] = true
            case "top_logprobs": full["logprobs"] = true
            default: break
            }
            full[name] = .null
            if path == "/tokenize" { full["content"] = "a" }
            #expect(await send(path, full).status == 200, "null does not count as absent in \(name)")
            if path == "/tokenize", name == "prompt" { full["content"] = nil }
            full[name] = if let choice = member["enum"]?.array?.first, !choice.isNull { choice } else { Self.sample(member) }
            let response = await send(path, full)
            if response.status == 200 {
                #expect(response.head?.headerFields[text: "graft-ignored-parameters"] == nil, "\(name) is described and unknown")
            } else {
                // It is known well enough to be refused by name.
                let param = try response.json()["error"]?["param"]?.string
                #expect(param == name || (path == "/tokenize" && name == "messages"), "\(name): \(response.text)")
            }
            checked += 1
        }
        #expect(checked > (path == "/detokenize" ? 0 : 5))
        var unknown = body
        unknown["colour"] = "red"
        #expect(await send(path, unknown).head?.headerFields[text: "graft-ignored-parameters"] == "colour")
    }

    /// Some value of a member's kind.
    private static func sample(_ schema: JSONValue) -> JSONValue {
        let type = schema["type"]?.string ?? schema["type"]?[0]?.string
        return switch type {
        case "boolean": true
        case "integer", "number": .integer(1)
        case "string": "a"
        case "array": []
        case "object": [:]
        default: schema["anyOf"]?[0].map(sample) ?? 1
        }
    }

    /// Numbers at a described bound are accepted, and those beyond it refused by name.
    @Test(arguments: [("/v1/chat/completions", chat), ("/v1/completions", completion)] as [(String, JSONObject)])
    func describedBoundsHold(path: String, body: JSONObject) async throws {
        var checked = 0
        for (name, member) in try #require(try schema(path)["properties"]?.object) where member["enum"] == nil {
            let step = member["type"]?[0] == "integer" ? 1 : 1e-3
            for (key, direction) in [("minimum", -1.0), ("exclusiveMinimum", -1.0), ("maximum", 1.0)] {
                guard let bound = member[key]?.number else { continue }
                func value(_ number: Double) -> JSONValue { Int64(exactly: number).map { .integer($0) } ?? .number(number) }
                var full = body
                if name == "top_logprobs" { full["logprobs"] = true }
                if name == "max_tokens", bound == 0 { full["echo"] = true }
                if name == "best_of" { full["n"] = value(bound) }
                full[name] = value(key == "exclusiveMinimum" ? bound + 1e-3 : bound)
                let inside = await send(path, full)
                #expect(inside.status == 200, "\(name) \(bound): \(inside.text)")
                full[name] = value(key == "exclusiveMinimum" ? bound : bound + direction * step)
                let outside = await send(path, full)
                #expect(outside.status == 400, "\(name) beyond \(bound)")
                #expect(try outside.json()["error"]?["param"]?.string == name)
                checked += 1
            }
        }
        #expect(checked > 20)
    }

    /// Every name that a decoder reads is described. The names are those of the sources, so a new one cannot be forgotten.
    @Test func whatTheDecodersReadIsDescribed() throws {
        let places: [(file: String, schemas: [String])] = [
            ("ChatRequest", ["ChatCompletionRequest", "ChatMessage"]), ("CompletionRequest", ["CompletionRequest"]),
            ("GenerationOptions", ["ChatCompletionRequest"]), ("GenerationOptions", ["CompletionRequest"]), ("BlendEntry", ["BlendEntry"]),
            ("KeptExchange", ["ChatCompletionRequest"]), ("APIHandlers+Tokens", ["TokenizeRequest", "createBody:/detokenize"]),
            ("JobFields", ["FineTuningJobRequest"]), ("APIHandlers+LoRA", ["createBody:/v1/load_lora_adapter"]),
            ("APIHandlers+Adapters", ["createBody:/v1/adapters/{id}/promote", "createBody:/v1/adapters/{id}/pin"]),
            ("APIHandlers+Exchanges", ["createBody:/v1/feedback", "createBody:/v1/chat/completions/{id}"]),
            ("APIHandlers+Datasets", ["createBody:/v1/datasets/from_logs"]),
        ]
        for (file, schemas) in places {
            var described: Set<String> = []
            for name in schemas {
                let schema =
                    name.hasPrefix("createBody:")
                    ? try schema(String(name.dropFirst("createBody:".count))) : try #require(document["components"]?["schemas"]?[name])
                visit(schema) { described.formUnion($0["properties"]?.object?.keys ?? []) }
            }
            let read = try Self.namesRead(in: file)
            #expect(!read.isEmpty && read.subtracting(described) == [], "\(file).swift reads them, and \(schemas) do not have them")
        }
    }

    /// The names in calls such as `fields.bool("stream")` of one source file.
    private static func namesRead(in file: String) throws -> Set<String> {
        let folder = #filePath.split(separator: "/").dropLast(3).joined(separator: "/")
        let source = String(decoding: try Data(contentsOf: URL(filePath: "/\(folder)/Sources/OpenAIAPI/\(file).swift")), as: UTF8.self)
        let call = #/(?:fields|options|parts|inner)\.(?:value|bool|string|integer|number|object)\("([a-z_]+)"|(?:isAutomatic|word)\("([a-z_]+)", &fields/#
        return Set(source.matches(of: call).compactMap { ($0.output.1 ?? $0.output.2).map(String.init) })
    }

    // MARK: - Examples

    /// Each example is accepted as it stands; those that name a thing that must exist are refused for that alone.
    @Test func examplesWork() async throws {
        let adapters = try FakeAdapters()
        try adapters.add("support-bot", versions: 2)
        let plain = try Harness(adapters: adapters, storage: try Storage(), tuning: FakeTuning()) { $0.allowsGlobalLoRA = true }
        // The first key of a server closes it to everybody without one.
        let storage = try Storage()
        let keyed = try Harness(storage: storage, keys: KeyRing(storage.store, isRequired: false, now: { 1_800_000_000 }))
        var checked = 0
        for (path, method, object) in operations {
            for (name, example) in object["requestBody"]?["content"]?["application/json"]?["examples"]?.object ?? [:] {
                let body = String(decoding: try #require(example["value"]).serialized(), as: UTF8.self)
                let harness = path.hasPrefix("/v1/organization/") ? keyed : plain
                let id = await harness.send(.post, path.replacing("{id}", with: "support-bot"), body)
                var response = await harness.response(id)
                #expect(method == "post")
                if path.hasSuffix("completions") {
                    #expect(response.status == nil, "\(path) \(name): \(response.text)")
                    await harness.close(id)
                } else {
                    response = await harness.settled(id)
                    let code = response.status == 200 ? nil : try response.json()["error"]?["code"]?.string
                    #expect(
                        response.status == 200 || ["completion_not_found", "no_examples", "route_disabled"].contains(code),
                        "\(path) \(name): \(response.text)")
                }
                checked += 1
            }
        }
        #expect(checked >= 15)
    }

    // MARK: - Answers

    /// The members of an answer that its schema does not describe, or describes as always there and that are not.
    private func differences(_ value: JSONValue, _ schema: JSONValue, at place: String = "") throws -> [String] {
        let schema = try resolved(schema)
        if let choices = schema["anyOf"]?.array {
            let all = try choices.map { try differences(value, $0, at: place) }
            return all.contains([]) ? [] : all.first ?? []
        }
        if let constant = schema["const"] { return constant == value ? [] : ["\(place) is not \(constant)"] }
        if let values = schema["enum"]?.array, !values.contains(value) { return ["\(place) is none of \(values)"] }
        let types = schema["type"].map { $0.array?.compactMap(\.string) ?? [$0.string ?? ""] } ?? []
        let kinds: [String] =
            switch value {
            case .null: ["null"]
            case .bool: ["boolean"]
            case .integer: ["integer", "number"]
            case .number: ["number"]
            case .string: ["string"]
            case .array: ["array"]
            case .object: ["object"]
            }
        guard types.isEmpty || !Set(types).isDisjoint(with: kinds) else { return ["\(place) is \(kinds[0]), described as \(types)"] }
        var found: [String] = []
        if let object = value.object, let properties = schema["properties"]?.object {
            for name in schema["required"]?.array?.compactMap(\.string) ?? [] where object[name] == nil { found.append("\(place).\(name) is missing") }
            for (name, member) in object {
                guard let description = properties[name] else {
                    found.append("\(place).\(name) is not described")
                    continue
                }
                found += try differences(member, description, at: "\(place).\(name)")
            }
        } else if let object = value.object, let member = schema["additionalProperties"] {
            for (name, value) in object { found += try differences(value, member, at: "\(place).\(name)") }
        }
        if let elements = value.array, let element = schema["items"] {
            for (index, value) in elements.enumerated() { found += try differences(value, element, at: "\(place)[\(index)]") }
        }
        return found
    }

    private func check(_ value: JSONValue, answers method: String, _ path: String) throws {
        let schema = try #require(try operation(method, path)["responses"]?["200"]?["content"]?["application/json"]?["schema"])
        #expect(try differences(value, schema) == [], "\(method) \(path)")
    }

    @Test func answersAreAsDescribed() async throws {
        let adapters = try FakeAdapters()
        try adapters.add("bot", versions: 2)
        let storage = try Storage()
        let tuning = FakeTuning()
        let harness = try Harness(adapters: adapters, storage: storage, tuning: tuning)
        func get(_ path: String) async throws -> JSONValue { try await harness.settled(await harness.send(.get, path, contentType: nil)).json() }
        let step = harness.clock.now
        harness.engine.setStatistics { $0.lastStep = step }

        for path in ["/livez", "/readyz", "/health", "/version", "/v1/models", "/v1/adapters", "/lora-adapters", "/openapi.json"] {
            try check(try await get(path), answers: "get", path)
        }
        for id in ["tiny", "bot", "bot@1"] { try check(try await get("/v1/models/\(id)"), answers: "get", "/v1/models/{id}") }
        for id in ["bot", "bot@2"] { try check(try await get("/v1/adapters/\(id)"), answers: "get", "/v1/adapters/{id}") }
        try check(try await get("/v1/adapters/bot/versions"), answers: "get", "/v1/adapters/{id}/versions")

        let file = try await harness.settled(await harness.sendFile(Harness.form("{\n{bad\n"))).json()
        try check(file, answers: "post", "/v1/files")
        try check(try await get("/v1/files"), answers: "get", "/v1/files")

        let asked = await harness.chat(#"{"messages":[{"role":"user","content":"Hi"}],"store":true,"logprobs":true,"return_token_ids":true,"user":"ada"}"#)
        harness.engine.answer("Hello!")
        let chat = try await harness.settled(asked).json()
        try check(chat, answers: "post", "/v1/chat/completions")
        let id = try #require(chat["id"]?.string)
        let said = await harness.send(.post, "/v1/feedback", #"{"inference_id":"\#(id)","metric_name":"good","value":true}"#)
        try check(try await harness.settled(said).json(), answers: "post", "/v1/feedback")
        try check(try await get("/v1/chat/completions"), answers: "get", "/v1/chat/completions")
        try check(try await get("/v1/chat/completions/\(id)"), answers: "get", "/v1/chat/completions/{id}")
        try check(try await get("/v1/chat/completions/\(id)/messages"), answers: "get", "/v1/chat/completions/{id}/messages")
        let dataset = await harness.settled(await harness.send(.post, "/v1/datasets/from_logs", #"{"name":"a.jsonl"}"#))
        try check(try dataset.json(), answers: "post", "/v1/datasets/from_logs")
        let tokens = await harness.response(await harness.send(.post, "/tokenize", #"{"content":"aé","with_pieces":true}"#))
        try check(try tokens.json(), answers: "post", "/tokenize")

        for method in ["supervised", "dpo"] {
            let body = #"{"model":"tiny","training_file":"file-1","suffix":"bot","metadata":{"a":"b"},"method":{"type":"\#(method)"}}"#
            let job = try await harness.settled(await harness.send(.post, "/v1/fine_tuning/jobs", body)).json()
            try check(job, answers: "post", "/v1/fine_tuning/jobs")
            let id = try #require(job["id"]?.string)
            tuning.add("step 1", to: id, kind: .metrics, data: ["train_loss": 0.5])
            try check(try await get("/v1/fine_tuning/jobs/\(id)"), answers: "get", "/v1/fine_tuning/jobs/{id}")
            try check(try await get("/v1/fine_tuning/jobs/\(id)/events"), answers: "get", "/v1/fine_tuning/jobs/{id}/events")
        }
        try check(try await get("/v1/fine_tuning/jobs"), answers: "get", "/v1/fine_tuning/jobs")

        let streamed = await harness.chat(
            #"{"messages":[{"role":"user","content":"Hi"}],"stream":true,"stream_options":{"include_usage":true},"logprobs":true}"#)
        harness.engine.answer("Hello!", to: 1)
        let chunks = try await harness.response(streamed).chunks()
        #expect(chunks.count >= 3)
        for chunk in chunks { #expect(try differences(chunk, ["$ref": "#/components/schemas/ChatCompletionChunk"]) == []) }

        let refused = await harness.get("/v1/models/nobody")
        #expect(try differences(refused.json(), ["$ref": "#/components/schemas/Error"]) == [])
        // And the check itself can fail.
        #expect(try differences(["error": ["message": 1]], ["$ref": "#/components/schemas/Error"]).count == 4)
    }

    /// On a server of their own: the first key closes it to everybody without one.
    @Test func answersAboutKeysAreAsDescribed() async throws {
        let keyed = try KeyedHarness()
        let admin = try keyed.key(), path = "/v1/organization/admin_api_keys"
        func answer(_ method: HTTPRequest.Method, _ path: String, _ body: String = "") async throws -> JSONValue {
            try await keyed.send(method, path, body, key: admin.text).json()
        }
        let made = try await answer(.post, path, #"{"name":"x","expires_in_seconds":60,"tokens_per_minute":9}"#)
        try check(made, answers: "post", path)
        #expect(made["value"] != nil)
        try check(try await answer(.get, path), answers: "get", path)
        try check(try await answer(.get, "\(path)/\(admin.id)"), answers: "get", "\(path)/{id}")
        try check(try await answer(.delete, "\(path)/\(admin.id)"), answers: "delete", "\(path)/{id}")
    }
}
