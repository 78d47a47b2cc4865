import CTestSupport
import FoundationEssentials
import HTTPServing
import HTTPTypes
import Inference
import InstructionStore
import JSON
import OpenAIAPI
import Synchronization
import Testing
import Tuning

/// Seconds since 1970 that stand until they are moved.
final class StandingTime: Sendable {
    private let seconds = Mutex(1_800_000_000)
    var now: Int { seconds.withLock { $0 } }
    func advance(by count: Int) { seconds.withLock { $0 += count } }
}

/// A server with keys, and what its tests need of it.
struct KeyedHarness {
    let harness: Harness
    let keys: KeyRing
    let time = StandingTime()
    let adapters: FakeAdapters
    let tuning = FakeTuning()

    init(isRequired: Bool = true, defaults: KeyLimits = KeyLimits()) throws {
        let storage = try Storage()
        let time = time
        keys = try KeyRing(storage.store, isRequired: isRequired, defaults: defaults, now: { time.now })
        adapters = try FakeAdapters()
        harness = try Harness(adapters: adapters, storage: storage, keepsAll: true, tuning: tuning, keys: keys) { $0.allowsGlobalLoRA = true }
    }

    func key(
        _ scopes: Set<KeyScope> = Set(KeyScope.allCases), owner: String = "alice", limits: KeyLimits = KeyLimits(), expiresAt: Int? = nil
    ) throws -> (id: String, text: String) {
        let made = try keys.create(StoredKey.Grant(name: "test", owner: owner, scopes: scopes, limits: limits, expiresAt: expiresAt))
        return (made.key.objectID, made.text)
    }

    func send(_ method: HTTPRequest.Method, _ path: String, _ body: String = "", key: String?) async -> RecordingTransport.Response {
        await harness.settled(await harness.send(method, path, body, key: key))
    }

    /// What the routes of `APIRoute` are called with, ids filled in.
    static func path(of route: APIRoute, id: String = "x") -> String { route.path.replacing("{id}", with: id) }
}

@Suite struct AccessTests {
    private static func error(_ response: RecordingTransport.Response) throws -> JSONValue? { try response.json()["error"] }

    // MARK: - Routes

    /// The list is for the tests of the whole server, which cannot ask Swift; this holds it to the truth.
    @Test func theRouteListOfTheEndToEndTests() throws {
        let file = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent().appending(path: "EndToEnd/routes.txt")
        let listed = try String(decoding: Data(contentsOf: file), as: UTF8.self).split(separator: "\n").filter { !$0.hasPrefix("#") }.map(String.init)
        let routes = APIRoute.allCases.map { route in
            let access =
                switch route.access {
                case .open: "open"
                case .anyKey: "any"
                case .scope(let scope): scope.rawValue
                }
            return "\(route.method.rawValue) \(route.path) \(access)"
        }
        #expect(Set(listed) == Set(routes) && listed.count == routes.count, "expected in routes.txt:\n\(routes.joined(separator: "\n"))")
    }

    @Test(arguments: APIRoute.allCases) func withoutAKey(_ route: APIRoute) async throws {
        let keyed = try KeyedHarness()
        let path = KeyedHarness.path(of: route)
        if [.livez, .readyz, .health].contains(route) {
            let step = keyed.harness.clock.now
            keyed.harness.engine.setStatistics { $0.lastStep = step }
            return #expect(await keyed.send(route.method, path, key: nil).status == 200)
        }
        for key in [nil, "nonsense", APIKeyText().text] {
            let response = await keyed.send(route.method, path, "{}", key: key)
            #expect(response.status == 401)
            let error = try #require(try Self.error(response))
            #expect(error["code"] == "invalid_api_key" && error["type"] == "authentication_error" && error["param"] == .null)
            let challenge = response.head?.headerFields[.wwwAuthenticate]
            #expect(challenge == (key == nil ? "Bearer realm=\"graft\"" : "Bearer realm=\"graft\", error=\"invalid_token\""))
            // Decided from the head, before any body.
            let (_, admission) = await keyed.harness.admit(route.method, path, contentType: "multipart/form-data; boundary=cut", key: key)
            guard case .refuse(let head, _) = admission else { Issue.record("the body would be read"); continue }
            #expect(head.status == .unauthorized)
        }
    }

    @Test(arguments: ["/", "/v1/nothing", "/v1/chat/completions/x/y"]) func pathsThatAreNoneAreToldOnlyToThoseWithAKey(_ path: String) async throws {
        let keyed = try KeyedHarness()
        #expect(await keyed.send(.get, path, key: nil).status == 401)
        #expect(await keyed.send(.get, path, key: try keyed.key().text).status == 404)
        #expect(await keyed.send(.put, "/v1/models", key: nil).status == 401)
        #expect(await keyed.send(.put, "/v1/models", key: try keyed.key([.train]).text).status == 405)
        // A path that is open to all says to all what it knows.
        for path in ["/health", "/livez", "/readyz"] { #expect(await keyed.send(.trace, path, key: nil).status == 405) }
    }

    @Test(arguments: APIRoute.allCases) func aScopeIsMissing(_ route: APIRoute) async throws {
        guard case .scope(let scope) = route.access else { return }
        let keyed = try KeyedHarness()
        let others = try keyed.key(Set(KeyScope.allCases).subtracting([scope]))
        let response = await keyed.send(route.method, KeyedHarness.path(of: route), "{}", key: others.text)
        #expect(response.status == 403)
        let error = try #require(try Self.error(response))
        #expect(error["type"] == "permission_error" && error["code"] == "missing_scope" && error["message"]?.string?.contains("'\(scope.rawValue)'") == true)
        #expect(response.head?.headerFields[.wwwAuthenticate]?.hasSuffix("error=\"insufficient_scope\", scope=\"\(scope.rawValue)\"") == true)
        let only = try keyed.key([scope])
        let let_in = await keyed.harness.send(route.method, KeyedHarness.path(of: route), "{}", key: only.text)
        let status = await keyed.harness.transport.responses[let_in]?.status
        #expect(status != 401 && status != 403)
    }

    /// The same text is sent to rings whose key differs from it in one byte: the whole way from the field to the refusal takes as many instructions wherever
    /// that byte is.
    @Test("R40 where a key differs does not show in the number of instructions") func theDifferenceDoesNotShow() throws {
        final class Attempt {
            let ring: KeyRing, field: String
            init(_ ring: KeyRing, _ field: String) { (self.ring, self.field) = (ring, field) }
        }
        func count(_ attempt: Attempt, _ body: @convention(c) (UnsafeMutableRawPointer?) -> Void) -> Int {
            Int(graft_test_instruction_count(body, Unmanaged.passUnretained(attempt).toOpaque()))
        }
        let ask: @convention(c) (UnsafeMutableRawPointer?) -> Void = {
            let attempt = Unmanaged<Attempt>.fromOpaque($0!).takeUnretainedValue()
            _ = try? attempt.ring.caller(attempt.field)
        }
        let sent = APIKeyText().text
        let secret = sent.utf8.count - 43
        func attempt(kept: String) throws -> Attempt {
            let storage = try Storage()
            _ = try storage.store.insertKey(try #require(APIKeyText(kept)), StoredKey.Grant(name: "test"), at: 1_800_000_000)
            let ring = try KeyRing(storage.store, isRequired: true, now: { 1_800_000_001 })
            return Attempt(ring, "Bearer " + sent)
        }
        var attempts: [Attempt] = []
        for place in [0, 1, 21, 41, 42] {
            var bytes = Array(sent.utf8)
            bytes[secret + place] = bytes[secret + place] == UInt8(ascii: "A") ? UInt8(ascii: "B") : UInt8(ascii: "A")
            attempts.append(try attempt(kept: String(decoding: bytes, as: UTF8.self)))
        }
        for attempt in attempts {
            do {
                _ = try attempt.ring.caller(attempt.field)
                Issue.record("let in with another key")
            } catch { #expect(error.code == "invalid_api_key") }
        }
        let counts = attempts.map { count($0, ask) }
        guard counts[0] >= 0 else { return print("skipped: this system lets no process be traced") }
        #expect(Set(counts).count == 1 && counts[0] > 1000, "\(counts)")
    }

    @Test func theAuthorizationField() async throws {
        let keyed = try KeyedHarness()
        let key = try keyed.key().text
        func status(_ field: String) async -> Int? {
            var head = HTTPRequest(method: .get, scheme: "http", authority: "x", path: "/version")
            head.headerFields[.authorization] = field
            let request = IncomingRequest(
                exchange: .numbered(900), head: head, path: "/version", query: [], body: [], requestID: "r", receivedAt: keyed.harness.clock.now)
            return await keyed.harness.transport.perform { transport in
                keyed.harness.handlers.handle(request, on: transport)
                return transport.responses[.numbered(900)]?.status
            }
        }
        for good in ["Bearer \(key)", "bearer \(key)", "BEARER  \(key)"] { #expect(await status(good) == 200, "\(good.prefix(8))") }
        for bad in ["Basic \(key)", key, "Bearer", "Bearer \(key) x", "Bearer \(key), Bearer \(key)", "Bearer \(key.dropLast())", "Bearer \(key)A", ""] {
            #expect(await status(bad) == 401, "\(bad.prefix(8))")
        }
        // One character of the secret at a time.
        for offset in [26, 40, 68] {
            var other = Array(key)
            other[offset] = other[offset] == "A" ? "B" : "A"
            #expect(await status("Bearer \(String(other))") == 401)
        }
    }

    // MARK: - Beginning and end

    @Test func aServerAsksForKeysAsSoonAsThereIsOne() async throws {
        let keyed = try KeyedHarness(isRequired: false)
        #expect(await keyed.send(.get, "/version", key: nil).status == 200)
        #expect(await keyed.send(.get, "/version", key: "unused").status == 200, "what client libraries send when they must send something")
        let made = await keyed.send(.post, "/v1/organization/admin_api_keys", #"{"name":"first","scopes":["infer"]}"#, key: nil)
        let text = try #require(try made.json()["value"]?.string), id = try #require(try made.json()["id"]?.string)
        #expect(await keyed.send(.get, "/version", key: nil).status == 401)
        #expect(await keyed.send(.get, "/version", key: "unused").status == 401)
        #expect(await keyed.send(.get, "/version", key: text).status == 200)
        _ = try keyed.keys.revoke(id)
        #expect(await keyed.send(.get, "/version", key: nil).status == 401, "revoking the last key does not open the server")
        #expect(keyed.keys.isRequired && !keyed.keys.hasUsableKey)
    }

    @Test func revocationAndExpiryHoldAtOnce() async throws {
        let keyed = try KeyedHarness()
        let ending = try keyed.key(expiresAt: keyed.time.now + 60), revoked = try keyed.key(), rotated = try keyed.key()
        for key in [ending, revoked, rotated] { #expect(await keyed.send(.get, "/v1/models", key: key.text).status == 200) }
        keyed.time.advance(by: 59)
        #expect(await keyed.send(.get, "/v1/models", key: ending.text).status == 200)
        keyed.time.advance(by: 1)
        let expired = await keyed.send(.get, "/v1/models", key: ending.text)
        #expect(try expired.status == 401 && Self.error(expired)?["message"]?.string?.contains("has expired") == true)
        _ = try keyed.keys.revoke(revoked.id)
        let refused = await keyed.send(.get, "/v1/models", key: revoked.text)
        #expect(try refused.status == 401 && Self.error(refused)?["message"]?.string?.contains("was revoked") == true)
        #expect(await keyed.send(.get, "/v1/models", key: rotated.text).status == 200)
    }

    @Test(arguments: [true, false]) func whatRunsForAKeyThatEndsIsEnded(_ revokes: Bool) async throws {
        let keyed = try KeyedHarness()
        let harness = keyed.harness
        let ending = try keyed.key([.infer], expiresAt: keyed.time.now + 60), other = try keyed.key([.infer])
        let body = #"{"messages":[{"role":"user","content":"Hi"}],"stream":true}"#
        let stream = await harness.send(.post, "/v1/chat/completions", body, key: ending.text)
        let whole = await harness.send(.post, "/v1/chat/completions", #"{"messages":[{"role":"user","content":"Hi"}]}"#, key: ending.text)
        let untouched = await harness.send(.post, "/v1/chat/completions", body, key: other.text)
        for index in 0..<3 {
            harness.engine.emit(.started(cachedTokens: 0), to: index)
            harness.engine.text("Hello", to: index)
        }
        func sweep() async { await harness.transport.perform { harness.handlers.endUnauthorized(on: $0) } }
        await sweep()
        #expect(await harness.response(stream).isOver == false && harness.engine.cancelled.isEmpty)
        if revokes { _ = try keyed.keys.revoke(ending.id) } else { keyed.time.advance(by: 60) }
        await sweep()
        let ended = await harness.response(stream)
        #expect(ended.status == 200 && ended.isOver && ended.ends == 1)
        let last = try JSONValue(parsing: Array(try #require(ended.events().last).utf8))
        #expect(last["error"]?["code"] == "invalid_api_key" && !ended.text.contains("[DONE]"))
        let refused = await harness.response(whole)
        #expect(refused.status == 401 && refused.isOver)
        #expect(Set(harness.engine.cancelled) == Set(harness.engine.submissions.prefix(2).map(\.id)), "their sequences are given up")
        harness.engine.text(" there", to: 2)
        harness.engine.finish(2, completion: 11)
        #expect(await harness.response(untouched).text.contains("[DONE]"))
        await sweep()
    }

    @Test func whoFollowsAJobIsSentAway() async throws {
        let keyed = try KeyedHarness()
        let key = try keyed.key([.train])
        _ = try keyed.tuning.create(JobRequest(model: "tiny", trainingFile: "f"), owner: "alice")
        let id = await keyed.harness.send(.get, "/v1/fine_tuning/jobs/ftjob-1/events?stream=true", key: key.text)
        while await keyed.harness.response(id).isStream == false { await keyed.harness.transport.waitForJob() }
        _ = try keyed.keys.revoke(key.id)
        await keyed.harness.transport.perform { keyed.harness.handlers.endUnauthorized(on: $0) }
        let response = await keyed.harness.response(id)
        #expect(response.isOver && response.text.contains(#""code":"invalid_api_key""#))
        #expect(keyed.tuning.observerCount == 0)
    }

    @Test func aDownloadEndsWithItsKey() async throws {
        let keyed = try KeyedHarness(), harness = keyed.harness
        let key = try keyed.key([.files])
        let file = try #require(harness.storage).files.add(
            Array(repeating: 0x61, count: 1 << 20), name: "a", purpose: "batch", owner: "alice", status: .uploaded, report: nil)
        let exchange = ExchangeID.numbered(1000)
        // The client takes nothing, so the content does not come to its end.
        await harness.transport.setOnWrite { [handlers = harness.handlers] in handlers.exchange(exchange, isCongested: true, on: $0) }
        _ = await harness.send(.get, "/v1/files/\(file.id)/content", contentType: nil, key: key.text, as: exchange)
        while await harness.response(exchange).writes.isEmpty { await harness.transport.waitForJob() }
        func sweep() async { await harness.transport.perform { harness.handlers.endUnauthorized(on: $0) } }
        await sweep()
        #expect(await harness.response(exchange).isOver == false)
        _ = try keyed.keys.revoke(key.id)
        await sweep()
        let ended = await harness.response(exchange)
        #expect(ended.isAborted && ended.ends == 1 && ended.writes.count == 1)
        await sweep()
    }

    // MARK: - Tenants

    /// Bodies with the ids that were asked for made equal.
    private func refusal(_ keyed: KeyedHarness, _ method: HTTPRequest.Method, _ path: String, _ id: String, _ body: String, _ key: String) async -> String {
        let response = await keyed.send(method, path.replacing("{id}", with: id), body.replacing("{id}", with: id), key: key)
        return "\(response.status ?? 0) " + response.text.replacing(id, with: "ID")
    }

    @Test func anotherOwnersObjectsLookLikeNone() async throws {
        let keyed = try KeyedHarness()
        let harness = keyed.harness
        let alice = try keyed.key(), bob = try keyed.key(owner: "bob")
        // A file, a kept exchange, an adapter with a version, and a job, all of Alice's.
        let storage = try #require(harness.storage)
        let file = try storage.files.add(Array("x".utf8), name: "a.txt", purpose: "user_data", owner: "alice", status: .uploaded, report: nil).id
        let chat = await harness.send(.post, "/v1/chat/completions", #"{"messages":[{"role":"user","content":"Hi"}],"store":true}"#, key: alice.text)
        harness.engine.answer("Hello")
        let kept = try #require(try await harness.settled(chat).json()["id"]?.string)
        keyed.adapters.state.withLock { $0.lastID = 40 }
        try keyed.adapters.add("alices", owner: "alice", versions: 2)
        keyed.adapters.state.withLock { $0.aliases["ft:tiny:x"] = "alices@1" }
        let job = try keyed.tuning.create(JobRequest(model: "tiny", trainingFile: "f"), owner: "alice").id
        #expect(harness.engine.requests[0].owner == "alice", "cached keys and values are the owner's")

        let absent = ["file": "file-" + String(repeating: "0", count: 32), "chat": "chatcmpl-" + String(repeating: "0", count: 32), "adapter": "absent"]
        let questions: [(HTTPRequest.Method, String, String, String, String)] = [
            (.get, "/v1/files/{id}", file, absent["file"]!, ""), (.get, "/v1/files/{id}/content", file, absent["file"]!, ""),
            (.delete, "/v1/files/{id}", file, absent["file"]!, ""), (.get, "/v1/chat/completions/{id}", kept, absent["chat"]!, ""),
            (.post, "/v1/chat/completions/{id}", kept, absent["chat"]!, #"{"metadata":{}}"#),
            (.get, "/v1/chat/completions/{id}/messages", kept, absent["chat"]!, ""), (.delete, "/v1/chat/completions/{id}", kept, absent["chat"]!, ""),
            (.post, "/v1/feedback", kept, absent["chat"]!, #"{"inference_id":"{id}","metric_name":"good","value":true}"#),
            (.get, "/v1/adapters/{id}", "alices", "absent", ""), (.get, "/v1/adapters/{id}/versions", "alices", "absent", ""),
            (.get, "/v1/adapters/{id}", "alices@1", "absent@1", ""), (.get, "/v1/adapters/{id}/export", "alices", "absent", ""),
            (.post, "/v1/adapters/{id}/promote", "alices", "absent", "{}"), (.post, "/v1/adapters/{id}/rollback", "alices", "absent", "{}"),
            (.post, "/v1/adapters/{id}/pin", "alices", "absent", #"{"pinned":true}"#), (.delete, "/v1/adapters/{id}", "alices", "absent", ""),
            (.get, "/v1/models/{id}", "alices", "absent", ""), (.delete, "/v1/models/{id}", "alices", "absent", ""),
            (.get, "/v1/models/{id}", "ft:tiny:x", "ft:tiny:y", ""), (.get, "/v1/models/{id}", "alices@1", "absent@1", ""),
            (.post, "/v1/chat/completions", "alices", "absent", #"{"model":"{id}","messages":[{"role":"user","content":"Hi"}]}"#),
            (.post, "/v1/chat/completions", "alices", "absent", #"{"lora":[{"id":"{id}"}],"messages":[{"role":"user","content":"Hi"}]}"#),
            (.post, "/v1/chat/completions", "41", "77", #"{"lora":[{"id":{id}}],"messages":[{"role":"user","content":"Hi"}]}"#),
            (.post, "/v1/completions", "ft:tiny:x", "ft:tiny:y", #"{"model":"{id}","prompt":"Hi"}"#),
            (.post, "/tokenize", "alices", "absent", #"{"model":"{id}","content":"Hi"}"#), (.post, "/lora-adapters", "41", "77", #"[{"id":{id},"scale":1}]"#),
            (.get, "/v1/fine_tuning/jobs/{id}", job, "ftjob-9", ""), (.get, "/v1/fine_tuning/jobs/{id}/events", job, "ftjob-9", ""),
            (.get, "/v1/fine_tuning/jobs/{id}/events?stream=true", job, "ftjob-9", ""), (.get, "/v1/fine_tuning/jobs/{id}/checkpoints", job, "ftjob-9", ""),
            (.post, "/v1/fine_tuning/jobs/{id}/pause", job, "ftjob-9", ""), (.post, "/v1/fine_tuning/jobs/{id}/resume", job, "ftjob-9", ""),
            (.post, "/v1/fine_tuning/jobs/{id}/cancel", job, "ftjob-9", ""),
        ]
        for (method, path, id, other, body) in questions {
            let found = await refusal(keyed, method, path, id, body, bob.text)
            #expect(found == (await refusal(keyed, method, path, other, body, bob.text)), "\(method.rawValue) \(path) \(body)")
            #expect(found.hasPrefix("404 "), "\(method.rawValue) \(path): \(found)")
        }
        for path in ["/v1/files", "/v1/chat/completions", "/v1/adapters", "/v1/fine_tuning/jobs"] {
            #expect(try await keyed.send(.get, path, key: bob.text).json()["data"]?.array?.isEmpty == true, "\(path)")
            #expect(try await keyed.send(.get, path, key: alice.text).json()["data"]?.array?.count == 1, "\(path)")
        }
        #expect(try await keyed.send(.get, "/v1/models", key: bob.text).json()["data"]?.array?.map { $0["id"] } == ["tiny"])
        #expect(try await keyed.send(.get, "/v1/models", key: alice.text).json()["data"]?.array?.map { $0["id"] } == ["tiny", "alices"])
        #expect(try await keyed.send(.get, "/lora-adapters", key: bob.text).json() == [])
        // Everything is still there for a second key of the same owner.
        let second = try keyed.key(owner: "alice")
        _ = try keyed.keys.revoke(alice.id)
        #expect(await keyed.send(.get, "/v1/files/\(file)/content", key: second.text).text == "x")
        #expect(await keyed.send(.get, "/v1/chat/completions/\(kept)", key: second.text).status == 200)
        #expect(await keyed.send(.get, "/v1/adapters/alices", key: second.text).status == 200)
        #expect(await keyed.send(.get, "/v1/fine_tuning/jobs/\(job)", key: second.text).status == 200)
    }

    @Test func theGlobalAdaptersAreTheirOwnersOwn() async throws {
        let keyed = try KeyedHarness()
        let alice = try keyed.key(), bob = try keyed.key(owner: "bob")
        try keyed.adapters.add("alices", owner: "alice")
        #expect(await keyed.send(.post, "/lora-adapters", #"[{"id":1,"scale":0.5}]"#, key: alice.text).status == 200)
        #expect(try await keyed.send(.get, "/lora-adapters", key: alice.text).json()[0]?["scale"] == 0.5)
        for key in [alice, bob] {
            _ = await keyed.harness.send(.post, "/v1/completions", #"{"prompt":"Hi","max_tokens":5}"#, key: key.text)
        }
        #expect(keyed.harness.engine.requests.map { $0.adapters.isEmpty } == [false, true])
        #expect(keyed.harness.engine.requests.map(\.owner) == ["alice", "bob"])
    }

    // MARK: - Privacy

    @Test func nothingSecretIsLogged() async throws {
        let keyed = try KeyedHarness()
        let key = try keyed.key().text
        let canary = "canary-3f1b"
        _ = await keyed.send(.get, "/v1/files/\(key)", key: key)
        _ = await keyed.send(.delete, "/v1/files/\(key)", key: key)
        _ = await keyed.send(.post, "/v1/fine_tuning/jobs/\(key)/cancel", key: key)
        _ = await keyed.send(.delete, "/v1/organization/admin_api_keys/\(key)", key: key)
        _ = await keyed.send(.get, "/v1/models?api_key=\(key)", key: nil)
        _ = await keyed.send(.post, "/v1/adapters/\(key)/promote", "{}", key: key)
        _ = await keyed.send(.get, "/\(key)", key: key + "x")
        _ = await keyed.send(.post, "/v1/chat/completions", #"{"model":"\#(key)","messages":[{"role":"user","content":"\#(canary)"}]}"#, key: key)
        let chat = await keyed.harness.send(.post, "/v1/chat/completions", #"{"messages":[{"role":"user","content":"\#(canary)"}]}"#, key: key)
        keyed.harness.engine.answer(canary)
        #expect(await keyed.harness.response(chat).text.contains(canary))
        let log = keyed.harness.logs.text
        #expect(log.split(separator: "\n").count >= 9)
        #expect(!log.contains(canary) && !log.contains(key) && !log.contains(key.suffix(43)))
        #expect(!String(decoding: keyed.harness.registry.exposition(), as: UTF8.self).contains(key.suffix(43)))
    }
}
