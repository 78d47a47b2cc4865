import Adapters
import HTTPServing
import HTTPTypes
import JSON
import OpenAIAPI
import Testing

/// The routes that list, publish, change and export adapters.
@Suite struct AdapterRouteTests {
    private func harness(configure: (inout APIConfiguration) -> Void = { _ in }) throws -> (Harness, FakeAdapters) {
        let adapters = try FakeAdapters()
        try adapters.add("bot", versions: 2)
        return (try Harness(adapters: adapters, configure: configure), adapters)
    }

    private func post(_ harness: Harness, _ path: String, _ body: String = "") async -> RecordingTransport.Response {
        await harness.settled(await harness.send(.post, path, body))
    }

    private func delete(_ harness: Harness, _ path: String) async -> RecordingTransport.Response {
        await harness.settled(await harness.send(.delete, path, contentType: nil))
    }

    private func version(_ number: Int, name: String = "bot", resident: Bool = true, source: JSONValue = "peft") -> JSONValue {
        [
            "object": "adapter.version", "name": .string(name), "version": .integer(Int64(number)),
            "digest": .string("sha256:" + FakeAdapters.digest(name, number)), "base": "tiny",
            "base_digest": .string("sha256:" + String(repeating: "b", count: 64)),
            "rank": 4, "pairs": 7, "source": source, "created_at": .integer(Int64(1_800_000_000 + number)), "bytes": .integer(Int64(100 * number)),
            "status": "available", "error": .null, "resident": .bool(resident),
        ]
    }

    // MARK: - Looking

    @Test func models() async throws {
        let (harness, adapters) = try harness()
        try adapters.add("other-base") { $0.baseDigest = String(repeating: "e", count: 64) }
        try adapters.add("broken") { $0.quarantine = "damaged" }
        try adapters.add("unpromoted")
        adapters.edit("unpromoted") { $0.promoted = nil }
        let list = try await harness.get("/v1/models").json()
        #expect(list["data"]?.array?.map { $0["id"] } == ["tiny", "bot"])
        #expect(list["data"]?[0]?["parent"] == .null && list["data"]?[0]?["version"] == nil)
        let card: JSONValue = [
            "id": "bot", "object": "model", "created": 1_800_000_002, "owned_by": "local", "root": "bot", "parent": "tiny", "permission": [],
            "max_model_len": 512, "digest": .string("sha256:" + FakeAdapters.digest("bot", 2)), "version": 2,
        ]
        #expect(list["data"]?[1] == card)
        #expect(try await harness.get("/v1/models/bot").json() == card)
        let first = try await harness.get("/v1/models/bot%401").json()
        #expect(first["id"] == "bot@1" && first["root"] == "bot" && first["version"] == 1)
        #expect(try await harness.get("/v1/models/small").json()["id"] == "tiny")
        #expect(await harness.get("/v1/models/dog").status == 404)
        #expect(await harness.get("/v1/models/bot@9").status == 404)
        #expect(await harness.get("/v1/models/unpromoted").status == 404)
        #expect(await harness.get("/v1/models/broken").status == 503)
        #expect(await harness.get("/v1/models/other-base").status == 400)
        // A card does not depend on the luck of a draw.
        adapters.edit("bot") { $0.canary = AdapterCanary(number: 1, share: 0.9) }
        #expect(try await harness.get("/v1/models/bot").json() == card)
    }

    @Test func objects() async throws {
        let (harness, adapters) = try harness()
        adapters.evict("bot", 1)
        adapters.edit("bot") {
            $0.canary = AdapterCanary(number: 1, share: 0.25)
            $0.isPinned = true
        }
        let object: JSONValue = [
            "id": 1, "object": "adapter", "name": "bot", "owned_by": "local", "promoted": 2, "canary": ["version": 1, "share": 0.25], "pinned": true,
            "versions": [version(1, resident: false), version(2)],
        ]
        #expect(
            try await harness.get("/v1/adapters").json() == ["object": "list", "data": [object], "has_more": false, "first_id": 1, "last_id": 1])
        #expect(try await harness.get("/v1/adapters/bot").json() == object)
        #expect(
            try await harness.get("/v1/adapters/bot/versions").json() == [
                "object": "list", "data": [version(1, resident: false), version(2)], "has_more": false,
            ])
        #expect(try await harness.get("/v1/adapters/bot%402").json() == version(2))
        #expect(try await harness.get("/v1/adapters/bot@latest").json() == version(2))
        #expect(await harness.response(await harness.send(.head, "/v1/adapters/bot")).status == 200)
        // Listing is no use: it must not keep an adapter in memory.
        #expect(adapters.state.withLock { $0.stickyKeys.isEmpty && $0.loads.isEmpty })
    }

    @Test func pages() async throws {
        let adapters = try FakeAdapters()
        for name in ["a", "b", "c", "d", "e"] { try adapters.add(name, versions: 1) }
        let harness = try Harness(adapters: adapters)
        func page(_ query: String) async throws -> (names: [String], json: JSONValue) {
            let json = try await harness.get("/v1/adapters" + query).json()
            return (json["data"]?.array?.compactMap { $0["name"]?.string } ?? [], json)
        }
        var seen: [[String]] = []
        var query = "?limit=2"
        while seen.count < 4 {
            let (names, json) = try await page(query)
            seen.append(names)
            guard json["has_more"] == true else { break }
            query = "?limit=2&after=\(try #require(json["last_id"]?.integer))"
        }
        #expect(seen == [["a", "b"], ["c", "d"], ["e"]])
        #expect(try await page("").names.count == 5)
        #expect(try await page("?limit=5").json["has_more"] == false)
        let beyond = try await page("?after=99")
        #expect(beyond.names.isEmpty && beyond.json["first_id"] == .null && beyond.json["has_more"] == false)
        for (query, param) in [
            ("?limit=0", "limit"), ("?limit=1001", "limit"), ("?limit=x", "limit"), ("?after=a", "after"), ("?after=-1", "after"), ("?after=1&after=2", "after"),
        ] {
            let response = await harness.get("/v1/adapters" + query)
            #expect(response.status == 400)
            #expect(try response.json()["error"]?["param"]?.string == param)
        }
    }

    @Test func states() async throws {
        let (harness, adapters) = try harness()
        adapters.edit("bot") {
            $0.promoted = nil
            $0.versions[0].quarantine = "adapter_model.safetensors is missing"
            $0.versions[1].baseDigest = String(repeating: "e", count: 64)
            $0.versions[1].baseName = "huge"
            $0.versions[1].source = .job("ftjob-7")
        }
        let object = try await harness.get("/v1/adapters/bot").json()
        #expect(object["promoted"] == .null && object["canary"] == .null && object["pinned"] == false)
        #expect(object["versions"]?[0]?["status"] == "quarantined" && object["versions"]?[0]?["error"] == "adapter_model.safetensors is missing")
        #expect(object["versions"]?[1]?["status"] == "other_base" && object["versions"]?[1]?["error"]?.string?.contains("'huge'") == true)
        #expect(object["versions"]?[1]?["source"] == "ftjob-7" && object["versions"]?[1]?["base"] == "huge")
    }

    @Test(arguments: [
        "/v1/adapters/dog", "/v1/adapters/bot@9", "/v1/adapters/dog/versions", "/v1/adapters/a%2Fb", "/v1/adapters/..", "/v1/adapters/dog/export",
    ])
    func unknown(_ path: String) async throws {
        let (harness, _) = try harness()
        let response = await harness.get(path)
        #expect(response.status == 404)
        #expect(try response.json()["error"]?["code"] == "adapter_not_found")
    }

    @Test func methods() async throws {
        let (harness, _) = try harness()
        for (method, path, allow) in [
            (HTTPRequest.Method.put, "/v1/adapters", "POST, GET, HEAD"), (.delete, "/v1/adapters", "POST, GET, HEAD"),
            (.post, "/v1/adapters/bot", "GET, DELETE, HEAD"),
            (.get, "/v1/adapters/bot/promote", "POST"), (.post, "/v1/models/bot", "GET, DELETE, HEAD"), (.get, "/v1/load_lora_adapter", "POST"),
            (.delete, "/lora-adapters", "GET, POST, HEAD"),
        ] {
            let response = await harness.response(await harness.send(method, path))
            #expect(response.status == 405 && response.head?.headerFields[.allow] == allow, "\(method) \(path)")
        }
    }

    @Test(arguments: [
        (HTTPRequest.Method.get, "/v1/adapters"), (.post, "/v1/adapters"), (.get, "/v1/adapters/bot"), (.post, "/v1/adapters/bot/promote"),
        (.delete, "/v1/adapters/bot"), (.get, "/v1/adapters/bot/export"), (.post, "/v1/load_lora_adapter"), (.get, "/lora-adapters"), (.post, "/lora-adapters"),
    ]) func withoutAdapters(_ method: HTTPRequest.Method, _ path: String) async throws {
        let harness = try Harness(configure: {
            $0.loraPathsDirectory = "/tmp"
            $0.allowsGlobalLoRA = true
        })
        let response = await harness.response(await harness.send(method, path, "{}"))
        #expect(response.status == 404)
        #expect(try response.json()["error"]?["code"] == "adapters_disabled")
    }

    // MARK: - Publishing

    @Test func aPEFTUpload() async throws {
        let (harness, adapters) = try harness()
        let id = await harness.upload([("name", "new-one"), ("adapter_config", "{}"), ("adapter_model", "A\r\n--cu"), ("comment", "x")])
        let response = await harness.settled(id)
        #expect(response.status == 200)
        #expect(response.head?.headerFields[text: "graft-ignored-parameters"] == "comment")
        #expect(try response.json() == version(1, name: "new-one", resident: false))
        let published = try #require(adapters.state.withLock { $0.publications.first })
        #expect(published.content.baseModelName == "{}|A\r\n--cu" && published.name == "new-one" && published.source == .peft && published.promote)
        #expect(harness.logs.text.contains("action=adapter.publish") && harness.logs.text.contains("object=new-one@1"))
        #expect(harness.metric("graft_requests_total") == [#"graft_requests_total{route="/v1/adapters",status="200",model=""} 1"#])
    }

    @Test func aGGUFUpload() async throws {
        let (harness, adapters) = try harness()
        let response = await harness.settled(await harness.upload([("gguf", "GGUF\u{0}"), ("promote", "false"), ("name", "bot")]))
        #expect(try response.json()["version"] == 3 && response.json()["source"] == "gguf")
        #expect(adapters.state.withLock { $0.publications.map(\.promote) } == [false])
        #expect(adapters.state.withLock { $0.publications.map(\.content.baseModelName) } == ["gguf 5 GGUF\u{0}"])
    }

    @Test func anArchiveUpload() async throws {
        let (harness, adapters) = try harness()
        let response = await harness.settled(await harness.upload([("archive", "{config}|weights"), ("promote", "true"), ("name", "bot")]))
        #expect(response.status == 200)
        #expect(adapters.state.withLock { $0.publications.map(\.content.baseModelName) } == ["{config}|weights"])
        #expect(adapters.state.withLock { $0.publications.map(\.source) } == [.peft])
    }

    struct Refusal: Sendable, CustomTestStringConvertible {
        let parts: [(name: String, content: String)]
        let status: Int
        let code: String
        let param: String?

        init(_ status: Int, _ code: String, _ param: String?, _ parts: (name: String, content: String)...) {
            self.parts = parts
            self.status = status
            self.code = code
            self.param = param
        }

        var testDescription: String { "\(status) \(code) \(parts.map { "\($0.name)=\($0.content.prefix(20))" })" }
    }

    private static let forms: [Refusal] = [
        Refusal(400, "missing_required_parameter", "name", ("gguf", "x")), Refusal(400, "missing_required_parameter", "adapter_model", ("name", "a")),
        Refusal(400, "missing_required_parameter", "adapter_model", ("name", "a"), ("adapter_config", "{}")),
        Refusal(400, "missing_required_parameter", "adapter_config", ("name", "a"), ("adapter_model", "x")),
        Refusal(400, "invalid_value", "archive", ("name", "a"), ("gguf", "x"), ("archive", "x")),
        Refusal(400, "invalid_value", "adapter_model", ("name", "a"), ("adapter_config", "{}"), ("adapter_model", "x"), ("gguf", "x")),
        Refusal(400, "invalid_value", "name", ("name", "a"), ("name", "a"), ("gguf", "x")),
        Refusal(400, "invalid_value", "name", ("name", "a/../b"), ("gguf", "x")), Refusal(400, "invalid_value", "name", ("name", ""), ("gguf", "x")),
        Refusal(400, "invalid_value", "name", ("name", String(repeating: "a", count: 65)), ("gguf", "x")),
        Refusal(400, "invalid_value", "name", ("name", String(repeating: "a", count: 100_000)), ("gguf", "x")),
        Refusal(400, "invalid_value", "name", ("name", ".."), ("gguf", "x")),
        Refusal(400, "invalid_value", "promote", ("name", "a"), ("promote", "yes"), ("gguf", "x")),
    ]

    private static let files: [Refusal] = [
        Refusal(422, "adapter_unsupported", "adapter_config", ("name", "a"), ("adapter_config", "bad"), ("adapter_model", "x")),
        Refusal(422, "adapter_unreadable", "adapter_model", ("name", "a"), ("adapter_config", "{}"), ("adapter_model", "bad")),
        Refusal(422, "adapter_wrong_base", "adapter_model", ("name", "a"), ("adapter_config", "{}"), ("adapter_model", "bad base")),
        Refusal(422, "adapter_unsupported", "gguf", ("name", "a"), ("gguf", "bad")),
        Refusal(422, "adapter_unreadable", "archive", ("name", "a"), ("archive", "no tar")),
        Refusal(422, "adapter_unsupported", "archive", ("name", "a"), ("archive", "bad|x")),
    ]

    private func refuse(_ test: Refusal) async throws {
        let (harness, adapters) = try harness()
        let response = await harness.settled(await harness.upload(test.parts))
        #expect(response.status == test.status)
        let error = try #require(try response.json()["error"])
        #expect(error["code"]?.string == test.code)
        #expect(error["param"]?.string == test.param)
        #expect((error["message"]?.string?.utf8.count ?? 0) < 400)
        #expect(adapters.state.withLock { $0.publications.isEmpty })
        #expect(harness.logs.text.contains("result=\(test.code)"))
    }

    @Test(arguments: forms) func badForm(_ test: Refusal) async throws { try await refuse(test) }
    @Test(arguments: files) func badFile(_ test: Refusal) async throws { try await refuse(test) }

    @Test(arguments: [
        "--cut\r\nContent-Disposition: form-data; name=name\r\n\r\na", "", "name=a", "--cut--",
        "--cut\r\nContent-Disposition: form-data; name=\"a\u{0}\"\r\n\r\na\r\n--cut--",
        (0..<17).map { "--cut\r\nContent-Disposition: form-data; name=a\($0)\r\n\r\nx\r\n" }.joined() + "--cut--",
    ]) func badMultipart(_ body: String) async throws {
        let (harness, adapters) = try harness()
        let response = await harness.settled(await harness.send(.post, "/v1/adapters", body, contentType: "multipart/form-data; boundary=cut"))
        #expect(response.status == 400)
        #expect(try response.json()["error"]?["code"]?.string == (body == "--cut--" ? "missing_required_parameter" : "invalid_multipart"))
        #expect(adapters.state.withLock { $0.publications.isEmpty })
    }

    @Test(
        arguments: [
            ("application/json", 415), (nil, 415), ("multipart/mixed; boundary=cut", 415), ("multipart/form-data", 400),
            ("multipart/form-data; boundary=a{b", 400),
        ] as [(String?, Int)]) func uploadTypes(_ type: String?, _ status: Int) async throws
    {
        let (harness, _) = try harness()
        let response = await harness.response(await harness.send(.post, "/v1/adapters", "--cut--", contentType: type))
        #expect(response.status == status)
        #expect(try response.json()["error"]?["code"] == (status == 415 ? "unsupported_media_type" : "invalid_multipart"))
    }

    @Test(
        arguments: [
            (AdapterError.Code.invalidName, 400, "invalid_value", "name", nil), (.conflict, 409, "adapter_conflict", nil, "false"),
            (.storageFull, 507, "storage_full", nil, "false"), (.storage, 500, "storage_error", nil, "false"), (.outOfMemory, 503, "out_of_memory", nil, nil),
            (.wrongBase, 422, "adapter_wrong_base", "gguf", nil),
        ] as [(AdapterError.Code, Int, String, String?, String?)])
    func theRegistryRefuses(_ code: AdapterError.Code, _ status: Int, _ word: String, _ param: String?, _ shouldRetry: String?) async throws {
        let (harness, adapters) = try harness()
        adapters.fail(code, "at /srv/adapters")
        let response = await harness.settled(await harness.upload([("name", "default"), ("gguf", "x")]))
        #expect(response.status == status)
        #expect(response.head?.headerFields[text: "x-should-retry"] == shouldRetry)
        #expect(try response.json()["error"]?["code"]?.string == word)
        #expect(try response.json()["error"]?["param"]?.string == param)
        if code == .storage || code == .storageFull {
            #expect(!response.text.contains("/srv") && harness.logs.text.contains("/srv/adapters"))
        }
    }

    @Test func theRealReadersRefuseRubbish() throws {
        let base = try FakeAdapters().base.configuration
        let formats = AdapterFormats.standard
        #expect { try formats.readGGUF(Array("rubbish".utf8), base) } throws: { ($0 as? AdapterError)?.code == .unreadable }
        #expect { try formats.readArchive(Array("rubbish".utf8)) } throws: { ($0 as? AdapterError)?.code == .unreadable }
        #expect(throws: AdapterError.self) { try formats.readPEFT(Array("{}".utf8), Array("rubbish".utf8), base) }
    }

    @Test func theClientLeavesDuringAnUpload() async throws {
        let (harness, adapters) = try harness()
        adapters.hold(true)
        let id = await harness.upload([("name", "late"), ("gguf", "x")])
        await harness.close(id)
        adapters.hold(false)
        await harness.transport.waitForJob()
        #expect(await harness.response(id).head == nil)
        #expect(adapters.record(named: "late", owner: "local") != nil)
        #expect(harness.logs.text.contains("action=adapter.publish") && harness.logs.text.contains("result=ok"))
    }

    @Test func uploadsWaitInABoundedQueue() async throws {
        let (harness, adapters) = try harness(configure: { $0.adapterChangeQueue = 1 })
        let before = adapters.state.withLock { $0.heldCalls }
        adapters.hold(true)
        let first = await harness.upload([("name", "a"), ("gguf", "x")])
        while adapters.state.withLock({ $0.heldCalls }) == before { nap() }
        let second = await harness.upload([("name", "b"), ("gguf", "x")])
        let third = await harness.response(await harness.upload([("name", "c"), ("gguf", "x")]))
        #expect(third.status == 503 && third.head?.headerFields[.retryAfter] == "1")
        // Chats do not wait for uploads.
        _ = await harness.chat(#"{"model":"bot","messages":[{"role":"user","content":"Hi"}]}"#)
        #expect(harness.engine.submissions.count == 1)
        adapters.hold(false)
        #expect(await harness.settled(first).status == 200)
        #expect(await harness.settled(second).status == 200)
        #expect(adapters.records(owner: "local").map(\.name) == ["bot", "a", "b"])
    }

    // MARK: - Admission

    private func admission(
        _ harness: Harness, _ method: HTTPRequest.Method, _ path: String, contentType: String?
    ) async -> (limit: Int?, status: Int?, body: String) {
        switch await harness.admit(method, path, contentType: contentType).admission {
        case .accept(let limit), .stream(let limit, _): return (limit, nil, "")
        case .refuse(let head, let body): return (nil, head.status.code, String(decoding: body, as: UTF8.self))
        }
    }

    /// The id of an upload that is accepted; nil when there is no place for it.
    private func admitUpload(_ harness: Harness) async throws -> ExchangeID? {
        let (exchange, admission) = await harness.admit(.post, "/v1/adapters", contentType: "multipart/form-data; boundary=cut")
        guard case .refuse(let head, let body) = admission else { return exchange }
        #expect(head.status.code == 503 && head.headerFields[.retryAfter] == "1")
        #expect(try JSONValue(parsing: body)["error"]?["code"] == "server_busy")
        return nil
    }

    @Test func uploadsUnderWayAreBounded() async throws {
        let (harness, _) = try harness(configure: { $0.adapterUploads = 2 })
        let first = try #require(try await admitUpload(harness))
        let second = try #require(try await admitUpload(harness))
        #expect(try await admitUpload(harness) == nil)
        #expect(
            harness.metric("graft_requests_total").contains(#"graft_requests_total{route="/v1/adapters",status="503",model=""} 1"#),
            "refusals are counted")
        // Other requests are none of this business.
        #expect(await admission(harness, .post, "/v1/chat/completions", contentType: "application/json").status == nil)
        #expect(await admission(harness, .get, "/v1/adapters", contentType: nil).status == nil)
        // A client that leaves while it sends makes place for one.
        await harness.close(first)
        await harness.close(first)
        let third = try #require(try await admitUpload(harness))
        #expect(try await admitUpload(harness) == nil)
        // So does an answer, whether it is a success or not.
        #expect(await harness.settled(await harness.upload([("name", "a"), ("gguf", "x")], as: second)).status == 200)
        #expect(await harness.settled(await harness.upload([("gguf", "x")], as: third)).status == 400)
        let fourth = try #require(try await admitUpload(harness))
        let fifth = try #require(try await admitUpload(harness))
        #expect(try await admitUpload(harness) == nil)
        // And a refusal that comes at once, when the whole body is there.
        for id in [fourth, fifth] {
            #expect(await harness.response(await harness.send(.post, "/v1/adapters", "x", contentType: "text/plain", as: id)).status == 415)
        }
        for _ in 0..<2 { #expect(try await admitUpload(harness) != nil) }
    }

    @Test func anUploadWhoseClientLeftKeepsItsPlaceUntilItIsPublished() async throws {
        let (harness, adapters) = try harness(configure: { $0.adapterUploads = 1 })
        adapters.hold(true)
        let id = try #require(try await admitUpload(harness))
        await harness.upload([("name", "late"), ("gguf", "x")], as: id)
        await harness.close(id)
        // Its body is in memory still.
        #expect(try await admitUpload(harness) == nil)
        adapters.hold(false)
        await harness.transport.waitForJob()
        #expect(await harness.response(id).head == nil)
        #expect(try await admitUpload(harness) != nil)
    }

    @Test func anUploadThatFindsTheQueueFullGivesItsPlaceBack() async throws {
        let (harness, adapters) = try harness(configure: {
            $0.adapterUploads = 3
            $0.adapterChangeQueue = 1
        })
        let before = adapters.state.withLock { $0.heldCalls }
        adapters.hold(true)
        var ids: [ExchangeID] = []
        for _ in 0..<3 { ids.append(try #require(try await admitUpload(harness))) }
        await harness.upload([("name", "a"), ("gguf", "x")], as: ids[0])
        while adapters.state.withLock({ $0.heldCalls }) == before { nap() }
        await harness.upload([("name", "b"), ("gguf", "x")], as: ids[1])
        #expect(await harness.response(await harness.upload([("name", "c"), ("gguf", "x")], as: ids[2])).status == 503)
        #expect(try await admitUpload(harness) != nil)
        #expect(try await admitUpload(harness) == nil)
        adapters.hold(false)
        #expect(await harness.settled(ids[1]).status == 200)
    }

    @Test(arguments: [
        "/v1/adapters/bot/promote", "/v1/adapters/bot/rollback", "/v1/adapters/bot%401/pin", "/v1/load_lora_adapter", "/v1/unload_lora_adapter",
        "/lora-adapters",
    ]) func commandsMustBeSmall(_ path: String) async throws {
        let (harness, _) = try harness()
        let admission = await admission(harness, .post, path, contentType: "application/json")
        #expect(admission.limit == 65_536 && admission.status == nil)
    }

    @Test func onlyUploadsMayBeLarge() async throws {
        let (harness, _) = try harness(configure: { $0.adapterUploadBytes = 12345 })
        let form = "multipart/form-data; boundary=cut"
        #expect(await admission(harness, .post, "/v1/adapters", contentType: form).limit == 12345)
        #expect(await admission(harness, .post, "/v1/%61dapters", contentType: form).limit == 12345)
        for (method, path) in [
            (HTTPRequest.Method.get, "/v1/adapters"), (.delete, "/v1/adapters/bot"), (.post, "/v1/chat/completions"), (.put, "/v1/adapters"),
        ] {
            let admission = await admission(harness, method, path, contentType: form)
            #expect(admission.limit == nil && admission.status == nil)
        }
        // What would be refused anyway is refused before the body comes.
        #expect(await admission(harness, .post, "/v1/adapters", contentType: "text/plain").status == 415)
        #expect(await admission(harness, .post, "/v1/adapters", contentType: nil).status == 415)
        #expect(await admission(harness, .post, "/v1/adapters", contentType: "multipart/form-data").status == 400)
        harness.handlers.beginDraining()
        #expect(await admission(harness, .post, "/v1/adapters", contentType: form).status == 503)
        let without = await admission(try Harness(), .post, "/v1/adapters", contentType: form)
        #expect(without.status == 404 && without.body.contains("adapters_disabled"))
    }

    // MARK: - Promoting

    @Test func promoting() async throws {
        let (harness, adapters) = try harness()
        _ = try adapters.publish(AdapterContent(pairs: [], storage: .float32, baseModelName: nil), as: "bot", owner: "local", source: .gguf, promote: false)
        let first = await post(harness, "/v1/adapters/bot/promote", #"{"version":1,"shade":1}"#)
        #expect(try first.json()["object"] == "adapter" && first.json()["promoted"] == 1 && first.json()["versions"]?.array?.count == 3)
        #expect(first.head?.headerFields[text: "graft-ignored-parameters"] == "shade")
        #expect(try await post(harness, "/v1/adapters/bot/promote", #"{"version":"latest"}"#).json()["promoted"] == 3)
        _ = await post(harness, "/v1/adapters/bot/promote", #"{"version":1.0,"share":1}"#)
        #expect(try await post(harness, "/v1/adapters/bot/promote").json()["promoted"] == 3)
        let canary = try await post(harness, "/v1/adapters/bot/promote", #"{"version":2,"share":0.25}"#).json()
        #expect(canary["promoted"] == 3 && canary["canary"] == ["version": 2, "share": 0.25])
        let back = try await post(harness, "/v1/adapters/bot/rollback").json()
        #expect(back["promoted"] == 3 && back["canary"] == .null)
        #expect(try await post(harness, "/v1/adapters/bot/rollback", "{}").json()["promoted"] == 1)
        for _ in 0..<3 { _ = await post(harness, "/v1/adapters/bot/rollback", "{}") }
        let exhausted = await post(harness, "/v1/adapters/bot/rollback", "{}")
        #expect(exhausted.status == 409 && exhausted.head?.headerFields[text: "x-should-retry"] == "false")
        #expect(try exhausted.json()["error"]?["code"] == "adapter_conflict")
        let log = harness.logs.text
        #expect(log.contains("action=adapter.promote") && log.contains("action=adapter.canary") && log.contains("action=adapter.rollback") && log.contains("result=adapter_conflict"))
    }

    @Test(
        arguments: [
            (#"{"version":0}"#, "version", 400), (#"{"version":-1}"#, "version", 400), (#"{"version":"newest"}"#, "version", 400),
            (#"{"version":1.5}"#, "version", 400),
            (#"{"version":true}"#, "version", 400), (#"{"share":1.1}"#, "share", 400), (#"{"share":-0.1}"#, "share", 400), (#"{"share":"half"}"#, "share", 400),
            ("[]", nil, 400), ("{", nil, 400), (#"{"version":9}"#, "version", 404),
        ] as [(String, String?, Int)]) func badPromotions(_ body: String, _ param: String?, _ status: Int) async throws
    {
        let (harness, adapters) = try harness()
        let response = await post(harness, "/v1/adapters/bot/promote", body)
        #expect(response.status == status)
        #expect(try response.json()["error"]?["param"]?.string == param)
        #expect(adapters.record(named: "bot", owner: "local")?.promoted == 2)
    }

    @Test(arguments: ["promote", "rollback", "pin"]) func changesOfUnknownNames(_ action: String) async throws {
        let (harness, _) = try harness()
        #expect(await post(harness, "/v1/adapters/dog/\(action)", #"{"pinned":true}"#).status == 404)
        let version = await post(harness, "/v1/adapters/bot@1/\(action)", #"{"pinned":true}"#)
        #expect(version.status == 400)
        #expect(try version.json()["error"]?["message"]?.string?.contains("'bot'") == true)
        let type = await harness.response(await harness.send(.post, "/v1/adapters/bot/\(action)", "{}", contentType: "text/plain"))
        #expect(type.status == 415)
    }

    @Test func pinning() async throws {
        let (harness, _) = try harness()
        #expect(try await post(harness, "/v1/adapters/bot/pin", #"{"pinned":true}"#).json()["pinned"] == true)
        #expect(try await harness.get("/v1/adapters/bot").json()["pinned"] == true)
        #expect(try await post(harness, "/v1/adapters/bot/pin", #"{"pinned":false}"#).json()["pinned"] == false)
        for body in ["", "{}", #"{"pinned":1}"#, #"{"pinned":null}"#] {
            let response = await post(harness, "/v1/adapters/bot/pin", body)
            #expect(response.status == 400)
            #expect(try response.json()["error"]?["param"] == "pinned")
        }
    }

    @Test func drainingRefusesChanges() async throws {
        let (harness, adapters) = try harness()
        harness.handlers.beginDraining()
        #expect(await harness.settled(await harness.upload([("name", "a"), ("gguf", "x")])).status == 503)
        #expect(await post(harness, "/v1/adapters/bot/promote").status == 503)
        #expect(await delete(harness, "/v1/adapters/bot").status == 503)
        #expect(await harness.get("/v1/adapters").status == 200)
        #expect(adapters.records(owner: "local").count == 1)
    }

    // MARK: - Deleting

    @Test(
        arguments: [
            ("/v1/adapters/bot", "bot", "adapter", []), ("/v1/adapters/bot@1", "bot@1", "adapter.version", [2]),
            ("/v1/adapters/bot%401", "bot@1", "adapter.version", [2]),
            ("/v1/adapters/bot@latest", "bot@2", "adapter.version", [1]), ("/v1/models/bot", "bot", "model", []), ("/v1/models/bot%402", "bot@2", "model", [1]),
        ] as [(String, String, String, [Int])]) func deleting(_ path: String, _ id: String, _ object: String, _ left: [Int]) async throws
    {
        let (harness, adapters) = try harness()
        let response = await delete(harness, path)
        #expect(response.status == 200)
        #expect(try response.json() == ["id": .string(id), "object": .string(object), "deleted": true])
        #expect(adapters.record(named: "bot", owner: "local")?.versions.map(\.number) ?? [] == left)
        #expect(harness.logs.text.contains("action=adapter.delete") && harness.logs.text.contains("result=ok"))
    }

    @Test(arguments: ["tiny", "small", "default"]) func theBaseStays(_ name: String) async throws {
        let (harness, _) = try harness()
        let response = await delete(harness, "/v1/models/\(name)")
        #expect(response.status == 400)
        #expect(try response.json()["error"]?["param"] == "model")
        let without = try Harness()
        #expect(await delete(without, "/v1/models/\(name)").status == 400)
        #expect(await delete(without, "/v1/models/dog").status == 404)
    }

    @Test(arguments: ["/v1/adapters/dog", "/v1/adapters/bot@9", "/v1/models/dog", "/v1/models/bot@9"]) func deletingWhatIsNotThere(_ path: String) async throws
    {
        let (harness, adapters) = try harness()
        #expect(await delete(harness, path).status == 404)
        #expect(adapters.records(owner: "local").count == 1)
    }

    @Test func aDeletionThatIsRefused() async throws {
        let (harness, adapters) = try harness()
        adapters.fail(.conflict, "the bare name stands for version 2; promote another first")
        let response = await delete(harness, "/v1/adapters/bot@2")
        #expect(response.status == 409 && response.head?.headerFields[text: "x-should-retry"] == "false")
        #expect(try response.json()["error"]?["message"] == "the bare name stands for version 2; promote another first")
    }

    // MARK: - Exporting

    @Test func exporting() async throws {
        let (harness, adapters) = try harness()
        let peft = await harness.settled(await harness.send(.get, "/v1/adapters/bot/export", contentType: nil))
        #expect(peft.status == 200 && peft.head?.headerFields[.contentType] == "application/x-tar")
        #expect(peft.head?.headerFields[.contentDisposition] == "attachment; filename=\"bot-2.tar\"")
        #expect(peft.head?.headerFields[text: "graft-adapter-digest"] == "sha256:" + FakeAdapters.digest("bot", 2))
        #expect(peft.text == "[adapter_config.json]adapter_config.json of bot@2[adapter_model.safetensors]adapter_model.safetensors of bot@2")
        let gguf = await harness.settled(await harness.send(.get, "/v1/adapters/bot%401/export?format=gguf", contentType: nil))
        #expect(gguf.head?.headerFields[.contentType] == "application/octet-stream")
        #expect(gguf.head?.headerFields[.contentDisposition] == "attachment; filename=\"bot-1.gguf\"")
        #expect(gguf.text == "bot.gguf of bot@1")
        #expect(await harness.settled(await harness.send(.get, "/v1/adapters/bot@latest/export?format=peft", contentType: nil)).status == 200)
        for query in ["format=zip", "format=", "format=peft&format=gguf"] {
            let response = await harness.get("/v1/adapters/bot/export?\(query)")
            #expect(response.status == 400)
            #expect(try response.json()["error"]?["param"] == "format")
        }
        #expect(await harness.get("/v1/adapters/bot@9/export").status == 404)
        adapters.edit("bot") { $0.promoted = nil }
        let unpromoted = await harness.get("/v1/adapters/bot/export")
        #expect(unpromoted.status == 404)
        #expect(try unpromoted.json()["error"]?["code"] == "adapter_not_promoted")
        adapters.fail(.quarantined, "bot@1 is damaged")
        let damaged = await harness.settled(await harness.send(.get, "/v1/adapters/bot@1/export", contentType: nil))
        #expect(damaged.status == 503 && damaged.head?.headerFields[text: "x-should-retry"] == "false")
    }
}
