import Adapters
import HTTPServing
import HTTPTypes
import Inference
import JSON
import Modeling
import OpenAIAPI
import Testing

/// Requests that name adapters: which versions they get, what they are told about it, and that they keep it.
@Suite struct AdapterModelTests {
    private static func body(_ fields: String) -> String {
        #"{"messages":[{"role":"user","content":"Hi"}]\#(fields.isEmpty ? "" : "," + fields)}"#
    }

    /// `bot` with three versions of which the second is promoted, and `cat` with one.
    private func harness(defaultAdapter: String? = nil, configure: (inout APIConfiguration) -> Void = { _ in }) throws -> (Harness, FakeAdapters) {
        let adapters = try FakeAdapters()
        try adapters.add("bot", versions: 3, promoted: 2)
        try adapters.add("cat")
        return (try Harness(adapters: adapters, defaultAdapter: defaultAdapter, configure: configure), adapters)
    }

    private func used(_ request: GenerationRequest) -> [String] {
        request.adapters.parts.map { "\($0.adapter.name)@\($0.adapter.version)*\($0.weight)" }
    }

    // MARK: - Names

    @Test(arguments: [
        ("bot", "bot@2*1.0", "bot"), ("bot@1", "bot@1*1.0", "bot@1"), ("bot@latest", "bot@3*1.0", "bot@3"), ("cat@1", "cat@1*1.0", "cat@1"),
    ]) func aNameGetsItsVersion(_ model: String, _ expected: String, _ shown: String) async throws {
        let (harness, adapters) = try harness()
        let id = await harness.chat(Self.body(#""model":"\#(model)""#))
        let request = try #require(harness.engine.requests.first)
        #expect(used(request) == [expected])
        #expect(request.owner == "local" && request.modelName == shown.split(separator: "@")[0])
        harness.engine.answer("Hello")
        let response = await harness.response(id)
        #expect(response.status == 200)
        #expect(try response.json()["model"]?.string == shown)
        let version = try #require(request.adapters.parts.first?.adapter)
        #expect(version === adapters.object(version.name, version.version))
        #expect(response.head?.headerFields[text: "graft-adapter"] == version.name)
        #expect(response.head?.headerFields[text: "graft-adapter-version"] == String(version.version))
        #expect(response.head?.headerFields[text: "graft-adapter-digest"] == "sha256:" + version.digest)
        #expect(response.head?.headerFields[text: "graft-adapter-scale"] == nil)
    }

    @Test(arguments: [
        "", #""model":"tiny""#, #""model":"small""#, #""model":"default""#, #""model":null"#, #""lora":[]"#, #""model":"tiny","lora":[]"#, #""lora":null"#,
    ])
    func theBaseAlone(_ fields: String) async throws {
        let (harness, _) = try harness()
        let id = await harness.chat(Self.body(fields))
        #expect(harness.engine.requests[0].adapters.isEmpty && harness.engine.requests[0].modelName == "tiny")
        harness.engine.answer("Hello")
        let response = await harness.response(id)
        #expect(try response.json()["model"] == "tiny")
        #expect(response.head?.headerFields.contains { $0.name.rawName.hasPrefix("graft-adapter") } == false)
    }

    @Test func aConfiguredDefault() async throws {
        let (harness, _) = try harness(defaultAdapter: "bot@1")
        for fields in ["", #""model":"default""#] { _ = await harness.chat(Self.body(fields)) }
        #expect(harness.engine.requests.map(used) == [["bot@1*1.0"], ["bot@1*1.0"]])
        _ = await harness.chat(Self.body(#""model":"tiny""#))
        // The list says all of the adapters, so that an empty one is the base.
        _ = await harness.chat(Self.body(#""lora":[]"#))
        _ = await harness.chat(Self.body(#""model":"default","lora":[{"id":"cat"}]"#))
        #expect(harness.engine.requests.dropFirst(2).map(used) == [[], [], ["cat@1*1.0"]])
        #expect(try await harness.get("/v1/models/default").json()["id"] == "bot@1")
    }

    @Test func aConfiguredDefaultThatIsGone() async throws {
        let (harness, _) = try harness(defaultAdapter: "dog")
        let response = await harness.response(await harness.chat(Self.body("")))
        #expect(response.status == 404)
        #expect(try response.json()["error"]?["message"]?.string?.contains("'dog'") == true)
    }

    @Test(arguments: ["dog", "bot@4", "bot@0", "bot@01", "bot@", "@1", "bot@x", "Bot", "bot@1@2", "b\u{E4}r", "tiny@1"]) func unknownNames(_ name: String)
        async throws
    {
        let (harness, _) = try harness()
        let response = await harness.response(await harness.chat(Self.body(#""model":"\#(name)""#)))
        #expect(response.status == 404)
        #expect(try response.json()["error"]?["code"] == "model_not_found")
        #expect(try response.json()["error"]?["param"] == "model")
        #expect(harness.engine.submissions.isEmpty)
    }

    @Test func aQuarantinedVersion() async throws {
        let (harness, adapters) = try harness()
        adapters.edit("bot") { $0.versions[1].quarantine = "adapter_model.safetensors is 12 bytes short" }
        for fields in [#""model":"bot""#, #""model":"bot@2""#, #""lora":[{"id":"bot"}]"#] {
            let response = await harness.response(await harness.chat(Self.body(fields)))
            #expect(response.status == 503)
            #expect(response.head?.headerFields[text: "x-should-retry"] == "false")
            let error = try #require(try response.json()["error"])
            #expect(error["code"] == "adapter_quarantined")
            #expect(error["message"]?.string?.contains("'bot@2'") == true && error["message"]?.string?.contains("12 bytes short") == true)
        }
        _ = await harness.chat(Self.body(#""model":"bot@3""#))
        #expect(used(harness.engine.requests[0]) == ["bot@3*1.0"])
    }

    @Test func aVersionForAnotherBase() async throws {
        let (harness, adapters) = try harness()
        adapters.edit("bot") {
            $0.versions[1].baseDigest = String(repeating: "e", count: 64)
            $0.versions[1].baseName = "huge"
        }
        let response = await harness.response(await harness.chat(Self.body(#""model":"bot""#)))
        #expect(response.status == 400)
        let error = try #require(try response.json()["error"])
        #expect(error["code"] == "adapter_wrong_base" && error["param"] == "model")
        #expect(error["message"]?.string?.contains("'huge'") == true && error["message"]?.string?.contains("'tiny'") == true)
    }

    @Test func withoutAdapters() async throws {
        let harness = try Harness()
        _ = await harness.chat(Self.body(#""lora":[]"#))
        #expect(harness.engine.requests.count == 1)
        let response = await harness.response(await harness.chat(Self.body(#""lora":[{"id":1}]"#)))
        #expect(response.status == 400)
        #expect(try response.json()["error"]?["param"] == "lora")
    }

    @Test func tokenizeWithAnAdapter() async throws {
        let (harness, _) = try harness()
        let response = await harness.response(await harness.send(.post, "/tokenize", #"{"model":"bot@1","content":"ab"}"#))
        #expect(try response.json()["tokens"] == [97, 98])
    }

    // MARK: - Blends

    @Test func aBlend() async throws {
        let (harness, _) = try harness()
        let id = await harness.complete(#"{"prompt":"a","model":"tiny","lora":[{"id":"bot@1","scale":0.5},{"id":2,"scale":-1.5},{"id":"bot","scale":0}]}"#)
        let request = try #require(harness.engine.requests.first)
        #expect(used(request) == ["bot@1*0.5", "cat@1*-1.5"])
        #expect(request.modelName == "tiny")
        harness.engine.answer("b")
        let response = await harness.response(id)
        #expect(try response.json()["model"] == "tiny")
        #expect(response.head?.headerFields[text: "graft-adapter"] == "bot, cat")
        #expect(response.head?.headerFields[text: "graft-adapter-version"] == "1, 1")
        #expect(
            response.head?.headerFields[text: "graft-adapter-digest"]
                == "sha256:\(FakeAdapters.digest("bot", 1)), sha256:\(FakeAdapters.digest("cat", 1))")
        #expect(response.head?.headerFields[text: "graft-adapter-scale"] == "0.5, -1.5")
    }

    @Test(
        arguments: [
            (#"[{"id":"bot"}]"#, ["bot@2*1.0"]), (#"[{"id":1}]"#, ["bot@2*1.0"]), (#"[{"id":"bot@latest","scale":100}]"#, ["bot@3*100.0"]),
            (#"[{"id":"bot@1"},{"id":"bot@2"},{"id":"bot@3","scale":1e-60}]"#, ["bot@1*1.0", "bot@2*1.0"]), (#"[{"id":"bot","scale":0}]"#, []),
            (#"[{"id":"bot","scale":null}]"#, ["bot@2*1.0"]),
        ] as [(String, [String])]) func entries(_ lora: String, _ expected: [String]) async throws
    {
        let (harness, _) = try harness()
        _ = await harness.chat(Self.body(#""lora":\#(lora)"#))
        #expect(harness.engine.requests.map(used) == [expected])
    }

    @Test func unknownMembersAreListed() async throws {
        let (harness, _) = try harness()
        let id = await harness.chat(Self.body(#""lora":[{"id":"bot","weight":2},{"id":"cat","weight":2}]"#))
        harness.engine.answer("b")
        #expect(await harness.response(id).head?.headerFields[text: "graft-ignored-parameters"] == "lora.weight")
    }

    @Test(arguments: [
        (#""bot""#, "lora", "invalid_type", 400), (#"["bot"]"#, "lora[0]", "invalid_type", 400), (#"[{}]"#, "lora[0].id", "missing_required_parameter", 400),
        (#"[{"id":true}]"#, "lora[0].id", "invalid_type", 400), (#"[{"id":1.5}]"#, "lora[0].id", "invalid_type", 400),
        (#"[{"id":"dog"}]"#, "lora[0].id", "adapter_not_found", 404), (#"[{"id":"bot"},{"id":9}]"#, "lora[1].id", "adapter_not_found", 404),
        (#"[{"id":"a b"}]"#, "lora[0].id", "adapter_not_found", 404), (#"[{"id":"dog","scale":0}]"#, "lora[0].id", "adapter_not_found", 404),
        (#"[{"id":-1}]"#, "lora[0].id", "adapter_not_found", 404), (#"[{"id":9223372036854775807}]"#, "lora[0].id", "adapter_not_found", 404),
        (#"[{"id":"bot","scale":"1"}]"#, "lora[0].scale", "invalid_type", 400), (#"[{"id":"bot","scale":100.5}]"#, "lora[0].scale", "invalid_value", 400),
        (#"[{"id":"bot","scale":-101}]"#, "lora[0].scale", "invalid_value", 400), (#"[{"id":"bot","scale":1e400}]"#, "scale", "invalid_json", 400),
        (#"[{"id":"bot"},{"id":"bot"}]"#, "lora[1].id", "invalid_value", 400), (#"[{"id":"bot"},{"id":"bot@2"}]"#, "lora[1].id", "invalid_value", 400),
        (#"[{"id":1},{"id":"cat"},{"id":"bot","scale":0}]"#, "lora[2].id", "invalid_value", 400),
        (#"[{"id":"bot@3"},{"id":"bot@latest"}]"#, "lora[1].id", "invalid_value", 400),
    ]) func badEntries(_ lora: String, _ param: String, _ code: String, _ status: Int) async throws {
        let (harness, _) = try harness()
        let response = await harness.response(await harness.chat(Self.body(#""lora":\#(lora)"#)))
        #expect(response.status == status)
        #expect(try response.json()["error"]?["param"]?.string == param)
        #expect(try response.json()["error"]?["code"]?.string == code)
        #expect(harness.engine.submissions.isEmpty)
    }

    @Test(arguments: [#""model":"bot","lora":[{"id":"cat"}]"#, #""model":"bot@1","lora":[]"#, #""model":"cat","lora":[{"id":"cat","scale":0}]"#])
    func aBlendOnAnAdapter(_ fields: String) async throws {
        let (harness, _) = try harness()
        let response = await harness.response(await harness.chat(Self.body(fields)))
        #expect(response.status == 400)
        #expect(try response.json()["error"]?["param"] == "lora")
    }

    @Test func aBlendOnAnUnknownModel() async throws {
        let (harness, _) = try harness()
        let response = await harness.response(await harness.chat(Self.body(#""model":"dog","lora":[{"id":"cat"}]"#)))
        #expect(response.status == 404)
        #expect(try response.json()["error"]?["param"] == "model")
    }

    @Test func asManyAsASequenceTakes() async throws {
        let (harness, adapters) = try harness()
        try adapters.add("many", versions: 9)
        func lora(_ numbers: ClosedRange<Int>) -> String { "\"lora\":[" + numbers.map { #"{"id":"many@\#($0)"}"# }.joined(separator: ",") + "]" }
        _ = await harness.chat(Self.body(lora(1...8)))
        #expect(harness.engine.requests[0].adapters.parts.map(\.adapter.version) == Array(1...8))
        let response = await harness.response(await harness.chat(Self.body(lora(1...9))))
        #expect(response.status == 400)
        #expect(try response.json()["error"]?["message"]?.string?.contains("9 adapters, expected at most 8") == true)
    }

    @Test func longListsAreNotRead() async throws {
        let (harness, _) = try harness()
        // No entry is acceptable, and none is looked at.
        let response = await harness.response(await harness.chat(Self.body("\"lora\":[" + Array(repeating: "1", count: 65).joined(separator: ",") + "]")))
        #expect(response.status == 400)
        #expect(try response.json()["error"]?["param"] == "lora")
        #expect(try response.json()["error"]?["message"]?.string?.contains("65 entries, expected at most 64") == true)
    }

    // MARK: - Canaries

    @Test(arguments: [
        (#""user":"carol""#, 3), (#""user":"alice""#, 2), (#""safety_identifier":"carol""#, 3), (#""user":"alice","safety_identifier":"carol""#, 2),
        (#""user":"","safety_identifier":"carol""#, 3), (#""user":5,"safety_identifier":"carol""#, 3), ("", 2),
    ]) func aCanary(_ fields: String, _ version: Int) async throws {
        let (harness, adapters) = try harness()
        adapters.edit("bot") { $0.canary = AdapterCanary(number: 3, share: 0.2) }
        adapters.state.withLock { $0.stickyKeys = [] }
        let id = await harness.chat(Self.body(#""model":"bot","n":2\#(fields.isEmpty ? "" : "," + fields)"#))
        #expect(harness.engine.requests.map { $0.adapters.parts.map(\.adapter.version) } == [[version], [version]])
        let key = fields.isEmpty ? nil : version == 3 ? "carol" : "alice"
        #expect(adapters.state.withLock { $0.stickyKeys } == [key], "one resolution for the whole request")
        harness.engine.answer("a", to: 0)
        harness.engine.answer("b", to: 1)
        let response = await harness.response(id)
        #expect(try response.json()["model"] == "bot")
        #expect(response.head?.headerFields[text: "graft-adapter-version"] == String(version))
    }

    // MARK: - Pinning and loading

    @Test func aStreamKeepsWhatItBeganWith() async throws {
        let (harness, adapters) = try harness()
        let id = await harness.chat(Self.body(#""model":"bot","stream":true"#))
        harness.engine.text("Hel")
        let begun = await harness.response(id)
        #expect(begun.isStream && begun.head?.headerFields[text: "graft-adapter"] == "bot")
        #expect(begun.head?.headerFields[text: "graft-adapter-version"] == "2")
        #expect(begun.head?.headerFields[text: "graft-adapter-digest"] == "sha256:" + FakeAdapters.digest("bot", 2))
        let pinned = adapters.object("bot", 2)
        let deleted = await harness.settled(await harness.send(.delete, "/v1/adapters/bot", contentType: nil))
        #expect(deleted.status == 200 && adapters.object("bot", 2) == nil)
        #expect(pinned != nil && harness.engine.requests[0].adapters.parts[0].adapter === pinned, "the sequence holds the object")
        #expect(await harness.response(await harness.chat(Self.body(#""model":"bot""#))).status == 404)
        harness.engine.text("lo")
        harness.engine.finish(completion: 5)
        let response = await harness.response(id)
        #expect(response.isOver && response.events().last == "[DONE]")
        #expect(try response.chunks().allSatisfy { $0["model"] == "bot" })
    }

    @Test func whatIsNotInMemoryIsLoadedElsewhere() async throws {
        let (harness, adapters) = try harness()
        adapters.evict("bot", 2)
        adapters.hold(true)
        let id = await harness.chat(Self.body(#""lora":[{"id":"cat","scale":2},{"id":"bot"}],"stream":true"#))
        #expect(harness.engine.submissions.isEmpty)
        // Others go on meanwhile.
        _ = await harness.chat(Self.body(#""model":"cat""#))
        #expect(harness.engine.requests.map(used) == [["cat@1*1.0"]])
        adapters.hold(false)
        await harness.transport.waitForJob()
        _ = await harness.response(id)
        #expect(harness.engine.requests.map(used) == [["cat@1*1.0"], ["cat@1*2.0", "bot@2*1.0"]])
        #expect(adapters.state.withLock { $0.loads } == ["cat@1", "bot@2"])
        harness.engine.answer("x", to: 1)
        #expect(await harness.response(id).events().last == "[DONE]")
    }

    @Test func theClientLeavesWhileAnAdapterIsLoaded() async throws {
        let (harness, adapters) = try harness()
        adapters.evict("cat", 1)
        adapters.hold(true)
        let id = await harness.chat(Self.body(#""model":"cat""#))
        await harness.close(id)
        adapters.hold(false)
        await harness.transport.waitForJob()
        #expect(await harness.response(id).head == nil)
        #expect(harness.engine.submissions.isEmpty && harness.engine.cancelled.isEmpty)
        #expect(harness.metric("graft_requests_total") == [#"graft_requests_total{route="/v1/chat/completions",status="499",model=""} 1"#])
        // The work was not in vain: the next request finds the adapter.
        _ = await harness.chat(Self.body(#""model":"cat""#))
        #expect(harness.engine.requests.count == 1)
    }

    @Test func tooManyLoads() async throws {
        let (harness, adapters) = try harness(configure: { $0.adapterLoadQueue = 1 })
        adapters.evict("cat", 1)
        let before = adapters.state.withLock { $0.heldCalls }
        adapters.hold(true)
        let first = await harness.chat(Self.body(#""model":"cat""#))
        // Once its thread has the first, the queue has place for one more.
        while adapters.state.withLock({ $0.heldCalls }) == before { nap() }
        let second = await harness.chat(Self.body(#""model":"cat""#))
        let third = await harness.response(await harness.chat(Self.body(#""model":"cat""#)))
        #expect(third.status == 503 && third.head?.headerFields[.retryAfter] == "1")
        #expect(try third.json()["error"]?["code"] == "server_busy")
        adapters.hold(false)
        while harness.engine.submissions.count < 2 {
            await harness.transport.waitForJob()
            await harness.transport.runJobs()
        }
        harness.engine.answer("a", to: 0)
        harness.engine.answer("b", to: 1)
        #expect(await harness.response(first).status == 200)
        #expect(await harness.response(second).status == 200)
    }

    @Test(
        arguments: [
            (AdapterError.Code.quarantined, 503, "adapter_quarantined", "false"), (.notFound, 404, "model_not_found", nil),
            (.wrongBase, 400, "adapter_wrong_base", nil),
            (.outOfMemory, 503, "out_of_memory", nil), (.storage, 500, "storage_error", "false"), (.unreadable, 503, "adapter_quarantined", "false"),
        ] as [(AdapterError.Code, Int, String, String?)]) func aLoadThatFails(_ code: AdapterError.Code, _ status: Int, _ word: String, _ shouldRetry: String?)
        async throws
    {
        let (harness, adapters) = try harness()
        adapters.evict("cat", 1)
        adapters.fail(code, "at /srv/adapters/cat")
        let response = await harness.settled(await harness.chat(Self.body(#""model":"cat","stream":true"#)))
        #expect(response.status == status && !response.isStream && response.heads == 1)
        #expect(response.head?.headerFields[text: "x-should-retry"] == shouldRetry)
        #expect(try response.json()["error"]?["code"]?.string == word)
        #expect(harness.engine.submissions.isEmpty)
        #expect(harness.metric("graft_adapter_requests_total") == [#"graft_adapter_requests_total{adapter="cat",version="1",status="\#(status)"} 1"#])
        if code == .storage {
            #expect(!response.text.contains("/srv") && harness.logs.text.contains("/srv/adapters/cat"))
        }
    }

    @Test func drainingWhileAnAdapterIsLoaded() async throws {
        let (harness, adapters) = try harness()
        adapters.evict("cat", 1)
        adapters.hold(true)
        let id = await harness.chat(Self.body(#""model":"cat""#))
        harness.handlers.beginDraining()
        adapters.hold(false)
        #expect(await harness.settled(id).status == 503)
    }

    // MARK: - Metrics

    @Test func metrics() async throws {
        let (harness, adapters) = try harness()
        let id = await harness.chat(Self.body(#""model":"bot""#))
        harness.clock.advance(by: .milliseconds(300))
        harness.engine.answer("abc", cached: 5)
        _ = await harness.response(id)
        let blend = await harness.chat(Self.body(#""lora":[{"id":"bot@1"},{"id":"cat"}]"#))
        await harness.close(blend)
        adapters.evict("cat", 1)
        let prompt = harness.engine.requests[0].prompt.count
        for line in [
            #"graft_requests_total{route="/v1/chat/completions",status="200",model="bot"} 1"#,
            #"graft_requests_total{route="/v1/chat/completions",status="499",model="tiny"} 1"#, #"graft_completion_tokens_total{model="bot"} 3"#,
            #"graft_adapter_requests_total{adapter="bot",version="2",status="200"} 1"#,
            #"graft_adapter_requests_total{adapter="bot",version="1",status="499"} 1"#,
            #"graft_adapter_requests_total{adapter="cat",version="1",status="499"} 1"#,
            #"graft_adapter_tokens_total{adapter="bot",version="2",kind="prompt"} \#(prompt)"#,
            #"graft_adapter_tokens_total{adapter="bot",version="2",kind="cached"} 5"#,
            #"graft_adapter_tokens_total{adapter="bot",version="2",kind="completion"} 3"#,
            #"graft_adapter_time_to_first_token_seconds_bucket{adapter="bot",version="2",le="0.25"} 0"#,
            #"graft_adapter_time_to_first_token_seconds_bucket{adapter="bot",version="2",le="0.5"} 1"#,
            #"graft_adapter_resident_bytes{adapter="bot",version="3"} 1003"#, "graft_adapter_resident_bytes_total 3006", "graft_adapter_budget_bytes 5000",
            #"graft_adapter_evictions_total{adapter="cat"} 1"#, "graft_adapter_loads_total 0",
        ] {
            #expect(harness.metric(String(line.prefix { $0 != " " && $0 != "{" })).contains(line), "\(line)")
        }
        #expect(harness.metric("graft_adapter_resident_bytes{").count == 3, "what was let go of has no series")
        adapters.evict("bot", 3)
        #expect(!harness.metric("graft_adapter_resident_bytes{").contains { $0.contains(#"version="3""#) })
    }

    @Test func deletionDropsSeries() async throws {
        let (harness, _) = try harness()
        for model in ["bot@1", "bot", "cat"] {
            let id = await harness.chat(Self.body(#""model":"\#(model)""#))
            harness.engine.answer("a", to: harness.engine.submissions.count - 1)
            _ = await harness.response(id)
        }
        func labels(_ text: String) -> Int { String(decoding: harness.registry.exposition(), as: UTF8.self).split(separator: "\n").count { $0.contains(text) } }
        #expect(labels(#"adapter="bot",version="1""#) > 3)
        _ = await harness.settled(await harness.send(.delete, "/v1/adapters/bot@1", contentType: nil))
        #expect(labels(#"adapter="bot",version="1""#) == 0 && labels(#"adapter="bot",version="2""#) > 3 && labels(#"model="bot""#) > 0)
        _ = await harness.settled(await harness.send(.delete, "/v1/adapters/bot", contentType: nil))
        #expect(labels("\"bot\"") == 0 && labels("\"cat\"") > 3)
    }

    @Test("requests in flight at a deletion bring no series back", arguments: [false, true]) func deletionWhileInFlight(_ isWhole: Bool) async throws {
        let (harness, _) = try harness()
        func labels(_ text: String) -> Int { String(decoding: harness.registry.exposition(), as: UTF8.self).split(separator: "\n").count { $0.contains(text) } }
        let deleted = isWhole ? "\"bot\"" : #"adapter="bot",version="1""#
        var ids: [ExchangeID] = []
        for model in ["bot@1", "cat", "tiny"] { ids.append(await harness.chat(Self.body(#""model":"\#(model)""#))) }
        #expect(labels(deleted) > 0)
        let response = await harness.settled(await harness.send(.delete, isWhole ? "/v1/adapters/bot" : "/v1/adapters/bot@1", contentType: nil))
        #expect(response.status == 200)
        for index in ids.indices { harness.engine.answer("a", to: index) }
        for id in ids { #expect(await harness.response(id).status == 200) }
        #expect(labels(deleted) == 0)
        #expect(isWhole || labels(#"status="200",model="bot""#) == 1)
        // Whoever stays is counted as before.
        for line in [
            #"graft_requests_total{route="/v1/chat/completions",status="200",model="cat"} 1"#,
            #"graft_requests_total{route="/v1/chat/completions",status="200",model="tiny"} 1"#, #"graft_completion_tokens_total{model="tiny"} 1"#,
            #"graft_adapter_requests_total{adapter="cat",version="1",status="200"} 1"#,
            #"graft_adapter_tokens_total{adapter="cat",version="1",kind="completion"} 1"#,
        ] {
            #expect(labels(line) == 1, "\(line)")
        }
    }

    @Test("more adapters than a family has places, each deleted under a request") func manySwaps() async throws {
        let (harness, adapters) = try harness()
        for round in 0..<530 {
            try adapters.add("swap-\(round)")
            let id = await harness.chat(Self.body(#""model":"swap-\#(round)""#))
            let response = await harness.settled(await harness.send(.delete, "/v1/adapters/swap-\(round)", contentType: nil))
            #expect(response.status == 200)
            harness.engine.answer("a", to: round)
            _ = await harness.response(id)
        }
        try adapters.add("last")
        let id = await harness.chat(Self.body(#""model":"last""#))
        harness.engine.answer("a", to: 530)
        _ = await harness.response(id)
        let text = String(decoding: harness.registry.exposition(), as: UTF8.self)
        #expect(!text.contains("\"other\"") && !text.contains("\"swap-"))
        #expect(text.contains(#"graft_adapter_requests_total{adapter="last",version="1",status="200"} 1"#))
    }
}
