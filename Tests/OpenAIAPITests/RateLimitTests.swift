import HTTPTypes
import Inference
import InstructionStore
import JSON
import OpenAIAPI
import Testing

@Suite struct RateLimitTests {
    private func fields(_ response: RecordingTransport.Response, _ unit: String) -> [String?] {
        ["limit", "remaining", "reset"].map { response.head?.headerFields[text: "x-ratelimit-\($0)-\(unit)"] }
    }

    @Test func requestsComeBackEvenly() async throws {
        let keyed = try KeyedHarness()
        let clock = keyed.harness.clock
        let key = try keyed.key(limits: KeyLimits(requestsPerMinute: 3)).text, other = try keyed.key(limits: KeyLimits(requestsPerMinute: 3)).text
        func ask(_ key: String) async -> RecordingTransport.Response {
            let count = keyed.harness.engine.submissions.count
            let id = await keyed.harness.send(.post, "/v1/completions", #"{"prompt":"Hi","max_tokens":3}"#, key: key)
            if keyed.harness.engine.submissions.count > count { keyed.harness.engine.answer("abc", to: count) }
            return await keyed.harness.response(id)
        }
        for remaining in [2, 1, 0] {
            let response = await ask(key)
            #expect(response.status == 200)
            #expect(fields(response, "requests") == ["3", "\(remaining)", "\((3 - remaining) * 20)s".replacing("60s", with: "1m0s")])
            #expect(fields(response, "tokens") == [nil, nil, nil])
        }
        let refused = await ask(key)
        #expect(refused.status == 429 && refused.head?.headerFields[.retryAfter] == "20")
        let error = try refused.json()["error"]
        #expect(error?["code"] == "rate_limit_exceeded" && error?["type"] == "requests" && error?["param"] == .null)
        #expect(fields(refused, "requests") == ["3", "0", "1m0s"])
        #expect(await ask(other).status == 200, "a key's flood is its own")
        clock.advance(by: .milliseconds(19_999))
        #expect(await ask(key).head?.headerFields[.retryAfter] == "1")
        clock.advance(by: .milliseconds(1))
        #expect(await ask(key).status == 200)
        #expect(await ask(key).status == 429)
        clock.advance(by: .seconds(3600))
        for _ in 0..<3 { #expect(await ask(key).status == 200) }
        #expect(await ask(key).status == 429, "no more than a minute's worth is saved up")
        #expect(await keyed.send(.get, "/v1/models", key: key).status == 200, "what does not generate is not limited")
    }

    @Test func badRequestsCountAndCarryTheFields() async throws {
        let keyed = try KeyedHarness()
        let key = try keyed.key(limits: KeyLimits(requestsPerMinute: 2, tokensPerMinute: 100)).text
        for (status, remaining) in [(400, "1"), (400, "0"), (429, "0")] {
            let response = await keyed.send(.post, "/v1/chat/completions", "{}", key: key)
            #expect(response.status == status)
            #expect(fields(response, "requests")[1] == remaining && fields(response, "tokens") == ["100", "100", "0s"])
        }
    }

    @Test func tokensAreReservedAndThenCharged() async throws {
        let keyed = try KeyedHarness()
        let harness = keyed.harness
        let key = try keyed.key(limits: KeyLimits(tokensPerMinute: 120)).text
        func remaining() async -> String? {
            let response = await keyed.send(.post, "/v1/completions", "{}", key: key)
            return fields(response, "tokens")[1]
        }
        // Two prompt tokens, two answers of at most ten: 22 reserved, then 2 + 3 + 4 used.
        let first = await harness.send(.post, "/v1/completions", #"{"prompt":"Hi","max_tokens":10,"n":2}"#, key: key)
        let prompt = harness.engine.requests[0].prompt.count
        #expect(await remaining() == "\(100 - prompt)")
        harness.engine.answer("abc", to: 0)
        #expect(await remaining() == "\(100 - prompt)")
        harness.engine.answer("abcd", to: 1)
        let answered = await harness.response(first)
        #expect(fields(answered, "tokens") == ["120", "\(100 - prompt)", RateLimiter.text(ofSeconds: Double(20 + prompt) / 2)])
        #expect(await remaining() == "\(113 - prompt)")
        // A client that leaves pays for what was made for it.
        let left = await harness.send(.post, "/v1/completions", #"{"prompt":"Hi","max_tokens":50}"#, key: key)
        harness.engine.emit(.started(cachedTokens: 0), to: 2)
        harness.engine.text("abcde", to: 2)
        _ = await harness.response(left)
        await harness.close(left)
        #expect(await remaining() == "\(108 - 2 * prompt)")
        // What the engine refuses is free.
        harness.engine.refuse(after: 0, with: .init(.queueFull, "full"))
        #expect(await keyed.send(.post, "/v1/completions", #"{"prompt":"Hi","max_tokens":50}"#, key: key).status == 503)
        #expect(await remaining() == "\(108 - 2 * prompt)")
        harness.engine.refuse(after: .max, with: .init(.queueFull, "full"))
        // What does not fit now fits later; what never fits is said to.
        let later = await keyed.send(.post, "/v1/completions", #"{"prompt":"Hi","max_tokens":115}"#, key: key)
        let missing = 115 + prompt - (108 - 2 * prompt)
        #expect(later.status == 429 && later.head?.headerFields[.retryAfter] == "\((missing + 1) / 2)")
        #expect(try later.json()["error"]?["type"] == "tokens")
        let never = await keyed.send(.post, "/v1/completions", #"{"prompt":"Hi","max_tokens":200}"#, key: key)
        #expect(never.status == 429 && never.head?.headerFields[.retryAfter] == nil && never.head?.headerFields[text: "x-should-retry"] == "false")
        harness.clock.advance(by: .seconds(60))
        #expect(await remaining() == "120")
    }

    @Test func whoDoesNotSayHowMuchPaysAfterwards() async throws {
        let keyed = try KeyedHarness()
        let harness = keyed.harness
        let key = try keyed.key(limits: KeyLimits(tokensPerMinute: 240)).text
        let body = #"{"prompt":"Hi"}"#
        let id = await harness.send(.post, "/v1/completions", #"{"prompt":"Hi","max_tokens":16}"#, key: key)
        harness.engine.answer("ab")
        _ = await harness.response(id)
        _ = await harness.send(.post, "/v1/chat/completions", #"{"messages":[{"role":"user","content":"H"}]}"#, key: key)
        let prompt = harness.engine.requests[1].prompt.count
        harness.engine.answer(String(repeating: "a", count: 400), to: 1)
        _ = await harness.transport.runJobs()
        let refused = await keyed.send(.post, "/v1/completions", body.replacing("}", with: #","max_tokens":1}"#), key: key)
        let first = harness.engine.requests[0].prompt.count
        // 240 less what both used is a debt, and this one wants its prompt and one more.
        let level = 240 - (first + 2) - (prompt + 400)
        #expect(refused.status == 429 && refused.head?.headerFields[.retryAfter] == "\((first + 1 - level + 3) / 4)")
        #expect(fields(refused, "tokens")[1] == "0")
    }

    @Test func limitsOfTheSettingsAreForKeysWithoutTheirOwn() async throws {
        let keyed = try KeyedHarness(defaults: KeyLimits(requestsPerMinute: 5, tokensPerMinute: 0))
        func limit(_ limits: KeyLimits) async throws -> [String?] {
            let response = await keyed.send(.post, "/v1/completions", "{}", key: try keyed.key(limits: limits).text)
            return [fields(response, "requests")[0], fields(response, "tokens")[0]]
        }
        #expect(try await limit(KeyLimits()) == ["5", nil])
        #expect(try await limit(KeyLimits(requestsPerMinute: 9, tokensPerMinute: 7)) == ["9", "7"])
        #expect(try await limit(KeyLimits(requestsPerMinute: 0)) == [nil, nil])
        let open = try KeyedHarness(isRequired: false, defaults: KeyLimits(requestsPerMinute: 1))
        let response = await open.send(.post, "/v1/completions", "{}", key: nil)
        #expect(fields(response, "requests") == [nil, nil, nil], "a server without keys has nobody to count for")
    }

    @Test(arguments: [(0, "0s"), (0.0001, "1ms"), (0.12, "120ms"), (1, "1s"), (1.5, "1.5s"), (59.999, "59.999s"), (60, "1m0s"), (360, "6m0s"), (61.05, "1m1.05s")])
    func spans(_ seconds: Double, _ text: String) {
        #expect(RateLimiter.text(ofSeconds: seconds) == text)
    }
}
