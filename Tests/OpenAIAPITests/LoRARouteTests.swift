import Adapters
import Glibc
import HTTPTypes
import Inference
import JSON
import OpenAIAPI
import Testing

/// vLLM's and llama.cpp's own routes for adapters.
@Suite struct LoRARouteTests {
    /// A directory of its own, removed at the end.
    private final class Directory {
        let path: String

        init() throws {
            var template = Array("/tmp/graft-lora-XXXXXX".utf8CString)
            let made = mkdtemp(&template)
            try #require(made != nil)
            path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        }

        deinit {
            func remove(_ path: String) {
                if let stream = opendir(path) {
                    var names: [String] = []
                    while let entry = readdir(stream) {
                        names.append(
                            withUnsafePointer(to: &entry.pointee.d_name) { $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) } })
                    }
                    closedir(stream)
                    var status = stat()
                    lstat(path, &status)
                    if status.st_mode & S_IFMT == S_IFDIR { for name in names where name != "." && name != ".." { remove(path + "/" + name) } }
                }
                if unlink(path) != 0 { rmdir(path) }
            }
            remove(path)
        }

        func makeDirectory(_ name: String) throws { try #require(mkdir(path + "/" + name, 0o700) == 0) }

        func write(_ name: String, _ text: String) throws {
            let file = try #require(fopen(path + "/" + name, "w"))
            fputs(text, file)
            fclose(file)
        }

        func link(_ name: String, to target: String) throws { try #require(symlink(target, path + "/" + name) == 0) }
    }

    /// Below `allowed` are a PEFT directory, a GGUF file and links; `secret` beside it is out of bounds.
    private func harness(configure: (inout APIConfiguration) -> Void = { _ in }) throws -> (Harness, FakeAdapters, Directory) {
        let directory = try Directory()
        for name in ["allowed", "allowed/deep", "allowed/deep/bot", "allowed/half", "allowed/name.gguf", "secret", "allowed-not"] {
            try directory.makeDirectory(name)
        }
        for name in ["allowed/deep/bot", "secret", "allowed-not"] {
            try directory.write(name + "/adapter_config.json", "{}")
            try directory.write(name + "/adapter_model.safetensors", "weights of \(name)")
        }
        try directory.write("allowed/half/adapter_config.json", "{}")
        try directory.write("allowed/a.gguf", "GGUF")
        try directory.write("allowed/notes.txt", "text")
        try directory.write("allowed/bad.gguf", "bad")
        try directory.write("secret/s.gguf", "GGUF")
        try directory.link("allowed/inside", to: "deep/bot")
        try directory.link("allowed/outside", to: "../secret")
        try directory.link("allowed/outside.gguf", to: directory.path + "/secret/s.gguf")
        try directory.link("allowed/loop", to: "loop")
        try directory.link("allowed/half/adapter_model.safetensors", to: "../../secret/adapter_model.safetensors")
        try #require(mkfifo(directory.path + "/allowed/pipe.gguf", 0o600) == 0)
        let adapters = try FakeAdapters()
        return (
            try Harness(
                adapters: adapters,
                configure: {
                    $0.loraPathsDirectory = directory.path + "/allowed/"
                    configure(&$0)
                }), adapters, directory
        )
    }

    private func load(_ harness: Harness, _ name: String, _ path: String, _ rest: String = "") async -> RecordingTransport.Response {
        let body: JSONValue = ["lora_name": .string(name), "lora_path": .string(path)]
        var text = String(decoding: body.serialized(), as: UTF8.self)
        if !rest.isEmpty { text = text.dropLast() + "," + rest + "}" }
        return await harness.settled(await harness.send(.post, "/v1/load_lora_adapter", text))
    }

    // MARK: - vLLM

    @Test(arguments: ["deep/bot", "deep//bot/", "./deep/./bot", "inside"]) func loading(_ path: String) async throws {
        let (harness, adapters, directory) = try harness()
        let response = await load(harness, "bot", path)
        #expect(response.status == 200)
        #expect(response.text == "Success: LoRA adapter 'bot' added successfully.")
        #expect(response.head?.headerFields[.contentType] == "text/plain; charset=utf-8")
        let published = try #require(adapters.state.withLock { $0.publications.first })
        #expect(published.content.baseModelName == "{}|weights of allowed/deep/bot" && published.source == .peft && published.promote)
        #expect(harness.logs.text.contains("action=adapter.publish") && harness.logs.text.contains("object=bot@1"))
        withExtendedLifetime(directory) {}
    }

    @Test func absolutePathsAndFiles() async throws {
        let (harness, adapters, directory) = try harness()
        #expect(await load(harness, "one", directory.path + "/allowed/deep/bot").status == 200)
        #expect(await load(harness, "two", directory.path + "/allowed/a.gguf").status == 200)
        #expect(await load(harness, "three", "a.gguf").status == 200)
        #expect(adapters.state.withLock { $0.publications.map(\.source) } == [.peft, .gguf, .gguf])
    }

    @Test func loadingAgain() async throws {
        let (harness, adapters, directory) = try harness()
        _ = await load(harness, "bot", "inside")
        for rest in ["", #""load_inplace":false"#] {
            let refused = await load(harness, "bot", "inside", rest)
            #expect(refused.status == 400)
            #expect(try refused.json()["error"]?["code"] == "adapter_exists")
            #expect(try refused.json()["error"]?["param"] == "lora_name")
        }
        #expect(await load(harness, "bot", "a.gguf", #""load_inplace":true"#).status == 200)
        #expect(adapters.record(named: "bot", owner: "local")?.versions.map(\.number) == [1, 2])
        #expect(adapters.record(named: "bot", owner: "local")?.promoted == 2)
        withExtendedLifetime(directory) {}
    }

    @Test(arguments: [
        "../secret", "deep/../../secret", "..", "/etc/passwd", "/", "", "outside", "outside.gguf", "outside/adapter_model.safetensors", "a\u{0}.gguf", "half",
        "deep/..", String(repeating: "a/", count: 2040),
    ]) func pathsThatLeadOut(_ path: String) async throws {
        let (harness, adapters, directory) = try harness()
        let response = await load(harness, "bot", path)
        #expect(response.status == (path.hasPrefix("a/") ? 404 : 400))
        #expect(try response.json()["error"]?["param"] == "lora_path")
        #expect(!response.text.contains(directory.path) && !response.text.contains("weights"))
        #expect(adapters.state.withLock { $0.publications.isEmpty })
    }

    @Test func absolutePathsThatLeadOut() async throws {
        let (harness, _, directory) = try harness()
        for path in ["/secret", "/allowed-not", "/allowed/../secret", "/allowed/outside", ""] {
            #expect(await load(harness, "bot", directory.path + path).status == 400, "\(path)")
        }
    }

    @Test(arguments: [
        ("nothing", 404, "file_not_found"), ("deep", 404, "file_not_found"), ("loop", 404, "file_not_found"), ("name.gguf", 404, "file_not_found"),
        ("notes.txt", 400, "invalid_value"), ("pipe.gguf", 400, "invalid_value"), ("bad.gguf", 400, "adapter_unsupported"),
    ]) func filesThatAreNone(_ path: String, _ status: Int, _ code: String) async throws {
        let (harness, _, directory) = try harness()
        let response = await load(harness, "bot", path)
        #expect(response.status == status)
        #expect(try response.json()["error"]?["code"]?.string == code)
        #expect(try response.json()["error"]?["param"] == "lora_path")
        #expect(!response.text.contains(directory.path))
    }

    @Test func filesAreCapped() async throws {
        let (harness, _, directory) = try harness(configure: { $0.adapterUploadBytes = 3 })
        let response = await load(harness, "bot", "a.gguf")
        #expect(response.status == 400)
        #expect(try response.json()["error"]?["message"]?.string?.contains("4 bytes, expected at most 3") == true)
        withExtendedLifetime(directory) {}
    }

    @Test func unloading() async throws {
        let (harness, adapters, directory) = try harness()
        try adapters.add("bot", versions: 2)
        let response = await harness.settled(await harness.send(.post, "/v1/unload_lora_adapter", #"{"lora_name":"bot"}"#))
        #expect(response.status == 200 && response.text == "Success: LoRA adapter 'bot' removed successfully.")
        #expect(adapters.records(owner: "local").isEmpty)
        let again = await harness.settled(await harness.send(.post, "/v1/unload_lora_adapter", #"{"lora_name":"bot"}"#))
        #expect(again.status == 404)
        #expect(try again.json()["error"]?["code"] == "adapter_not_found")
        withExtendedLifetime(directory) {}
    }

    @Test(arguments: [
        ("load", "{}", "lora_name"), ("load", #"{"lora_name":"a"}"#, "lora_path"), ("load", #"{"lora_name":"a b","lora_path":"x"}"#, "lora_name"),
        ("load", #"{"lora_name":1,"lora_path":"x"}"#, "lora_name"), ("load", #"{"lora_name":"a","lora_path":"x","load_inplace":1}"#, "load_inplace"),
        ("unload", "{}", "lora_name"), ("unload", #"{"lora_name":"../x"}"#, "lora_name"),
    ]) func badFields(_ action: String, _ body: String, _ param: String) async throws {
        let (harness, _, directory) = try harness()
        let response = await harness.settled(await harness.send(.post, "/v1/\(action)_lora_adapter", body))
        #expect(response.status == 400)
        #expect(try response.json()["error"]?["param"]?.string == param)
        withExtendedLifetime(directory) {}
    }

    @Test func unknownFields() async throws {
        let (harness, _, directory) = try harness()
        func ignored(_ response: RecordingTransport.Response) -> String? { response.head?.headerFields[text: "graft-ignored-parameters"] }
        let loaded = await load(harness, "bot", "a.gguf", #""load_inplace":false,"base_model_name":"tiny","lora_int_id":null,"mode":1"#)
        #expect(loaded.status == 200 && ignored(loaded) == "base_model_name, mode")
        let unloaded = await harness.settled(await harness.send(.post, "/v1/unload_lora_adapter", #"{"lora_name":"bot","lora_int_id":1}"#))
        #expect(unloaded.status == 200 && ignored(unloaded) == "lora_int_id")
        let plain = await load(harness, "bot", "a.gguf")
        #expect(plain.status == 200 && ignored(plain) == nil)
        withExtendedLifetime(directory) {}
    }

    @Test(arguments: ["/v1/load_lora_adapter", "/v1/unload_lora_adapter"]) func turnedOff(_ path: String) async throws {
        let harness = try Harness(adapters: FakeAdapters())
        let response = await harness.response(await harness.send(.post, path, #"{"lora_name":"a","lora_path":"b"}"#))
        #expect(response.status == 404)
        #expect(try response.json()["error"]?["message"]?.string?.contains("adapters.lora_paths_directory") == true)
    }

    @Test func aMissingDirectory() async throws {
        let harness = try Harness(adapters: FakeAdapters(), configure: { $0.loraPathsDirectory = "/nonexistent/graft" })
        let response = await load(harness, "bot", "a.gguf")
        #expect(response.status == 400 && !response.text.contains("/nonexistent"))
    }

    // MARK: - llama.cpp

    private func globalHarness(defaultAdapter: String? = nil) throws -> (Harness, FakeAdapters) {
        let adapters = try FakeAdapters()
        try adapters.add("bot", versions: 2)
        try adapters.add("cat")
        return (try Harness(adapters: adapters, defaultAdapter: defaultAdapter, configure: { $0.allowsGlobalLoRA = true }), adapters)
    }

    private func used(_ harness: Harness, _ fields: String) async throws -> [String] {
        _ = await harness.chat(#"{"messages":[{"role":"user","content":"Hi"}]\#(fields)}"#)
        return try #require(harness.engine.requests.last).adapters.parts.map { "\($0.adapter.name)@\($0.adapter.version)*\($0.weight)" }
    }

    @Test func theGlobalDefault() async throws {
        let (harness, adapters) = try globalHarness()
        #expect(
            try await harness.get("/lora-adapters").json() == [["id": 1, "path": "bot", "scale": 0.0], ["id": 2, "path": "cat", "scale": 0.0]])
        let set = await harness.response(await harness.send(.post, "/lora-adapters", #"[{"id":2,"scale":0.5}]"#))
        #expect(try set.status == 200 && set.json() == ["success": true])
        #expect(
            try await harness.get("/lora-adapters").json() == [["id": 1, "path": "bot", "scale": 0.0], ["id": 2, "path": "cat", "scale": 0.5]])
        #expect(try await used(harness, "") == ["cat@1*0.5"])
        // It touches nobody who says what they want.
        #expect(try await used(harness, #","model":"tiny""#) == [])
        #expect(try await used(harness, #","model":"default""#) == [])
        #expect(try await used(harness, #","model":"bot""#) == ["bot@2*1.0"])
        #expect(try await used(harness, #","lora":[]"#) == [])
        #expect(try await used(harness, #","lora":[{"id":1,"scale":2}]"#) == ["bot@2*2.0"])
        #expect(harness.logs.text.contains("action=adapter.set_global"))
        // What is absent is 0.
        _ = await harness.send(.post, "/lora-adapters", #"[{"id":1}]"#)
        #expect(try await used(harness, "") == ["bot@2*1.0"])
        adapters.edit("bot") { $0.promoted = 1 }
        #expect(try await used(harness, "") == ["bot@1*1.0"])
        _ = await harness.send(.post, "/lora-adapters", "[]")
        #expect(try await used(harness, "") == [])
    }

    @Test func longDefaults() async throws {
        let (harness, adapters) = try globalHarness()
        try adapters.add("many", versions: 65)
        func list(_ count: Int) -> String { "[" + (1...count).map { #"{"id":"many@\#($0)","scale":0}"# }.joined(separator: ",") + "]" }
        #expect(await harness.response(await harness.send(.post, "/lora-adapters", list(64))).status == 200)
        let response = await harness.response(await harness.send(.post, "/lora-adapters", list(65)))
        #expect(response.status == 400)
        #expect(try response.json()["error"]?["param"] == "body")
        #expect(try response.json()["error"]?["message"]?.string?.contains("65 entries, expected at most 64") == true)
    }

    @Test func theGlobalDefaultGoesBeforeTheConfiguredOne() async throws {
        let (harness, _) = try globalHarness(defaultAdapter: "bot")
        #expect(try await used(harness, "") == ["bot@2*1.0"])
        _ = await harness.send(.post, "/lora-adapters", #"[{"id":2}]"#)
        #expect(try await used(harness, "") == ["cat@1*1.0"])
        #expect(try await used(harness, #","model":"default""#) == ["bot@2*1.0"])
        _ = await harness.send(.post, "/lora-adapters", "[]")
        #expect(try await used(harness, "") == [])
    }

    @Test(
        arguments: [
            ("{}", "body", 400), (#"[{"id":9}]"#, "body[0].id", 404), (#"[{"id":1},{"id":1}]"#, "body[1].id", 400),
            (#"[{"id":1,"scale":"x"}]"#, "body[0].scale", 400),
            ("[", nil, 400),
        ] as [(String, String?, Int)]) func badDefaults(_ body: String, _ param: String?, _ status: Int) async throws
    {
        let (harness, _) = try globalHarness()
        _ = await harness.send(.post, "/lora-adapters", #"[{"id":2}]"#)
        let response = await harness.response(await harness.send(.post, "/lora-adapters", body))
        #expect(response.status == status)
        #expect(try response.json()["error"]?["param"]?.string == param)
        #expect(try await used(harness, "") == ["cat@1*1.0"], "what was set stays")
    }

    @Test func aDefaultThatIsGone() async throws {
        let (harness, _) = try globalHarness()
        _ = await harness.send(.post, "/lora-adapters", #"[{"id":2}]"#)
        _ = await harness.settled(await harness.send(.delete, "/v1/adapters/cat", contentType: nil))
        let response = await harness.response(await harness.chat(#"{"messages":[{"role":"user","content":"Hi"}]}"#))
        #expect(response.status == 404)
        #expect(try response.json()["error"]?["code"] == "adapter_not_found")
        #expect(try response.json()["error"]?["param"] == .null)
        #expect(harness.engine.submissions.isEmpty, "never a silent answer of the base")
    }

    @Test func settingIsTurnedOff() async throws {
        let adapters = try FakeAdapters()
        try adapters.add("bot")
        let harness = try Harness(adapters: adapters)
        let response = await harness.response(await harness.send(.post, "/lora-adapters", #"[{"id":1}]"#))
        #expect(response.status == 404)
        #expect(try response.json()["error"]?["message"]?.string?.contains("adapters.allow_global_lora") == true)
        #expect(try await harness.get("/lora-adapters").json() == [["id": 1, "path": "bot", "scale": 0.0]])
        #expect(try await used(harness, "") == [])
    }
}
