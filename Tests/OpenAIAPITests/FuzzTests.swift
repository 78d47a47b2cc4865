import Inference
import JSON
import OpenAIAPI
import Testing

/// Random bodies made of the real field names: whatever comes, the answer is one 4xx or one accepted request, never a 5xx or a crash.
@Suite struct FuzzTests {
    /// SplitMix64: the same bodies in every run.
    private struct Generator: RandomNumberGenerator {
        var state: UInt64

        mutating func next() -> UInt64 {
            state &+= 0x9E37_79B9_7F4A_7C15
            var z = state
            z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
            z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
            return z ^ (z >> 31)
        }
    }

    private static let fields = [
        "model", "temperature", "top_p", "n", "max_tokens", "max_completion_tokens", "stop", "stream", "stream_options", "seed",
        "presence_penalty", "frequency_penalty", "logit_bias", "logprobs", "top_logprobs", "top_k", "min_p", "typical_p",
        "repetition_penalty", "repeat_last_n", "ignore_eos", "tools", "tool_choice", "response_format", "return_token_ids", "echo", "best_of",
        "suffix", "user", "metadata", "shape", "", "lora", "lora", "safety_identifier", "priority",
    ]

    private static func value(_ random: inout Generator, depth: Int = 0) -> JSONValue {
        switch Int.random(in: 0..<(depth > 3 ? 9 : 11), using: &random) {
        case 0: .null
        case 1: .bool(.random(using: &random))
        case 2: .integer(.random(in: -3...300, using: &random))
        case 3: .integer(.random(in: .min ... .max, using: &random))
        case 4: .number(.random(in: -3...3, using: &random))
        case 5: .number([1e300, -0.0, 1.5, 2e9, 9.3e18].randomElement(using: &random)!)
        case 6: .string(["", "a", "none", "text", "tiny", "user", "assistant", "bot", "bot@1", "bot@latest", "\u{0}\u{2028}é🙂"].randomElement(using: &random)!)
        case 7: .string(String(repeating: "<|im_end|>", count: .random(in: 0...80, using: &random)))
        case 8: .integer(1)
        case 9: .array((0..<Int.random(in: 0...4, using: &random)).map { _ in value(&random, depth: depth + 1) })
        default:
            .object(
                JSONObject(
                    (0..<Int.random(in: 0...4, using: &random)).map { _ in
                        (["role", "content", "type", "text", "65", "include_usage", "name", "id", "id", "scale"].randomElement(using: &random)!, value(&random, depth: depth + 1))
                    }))
        }
    }

    private static func messages(_ random: inout Generator) -> JSONValue {
        if Int.random(in: 0..<4, using: &random) == 0 { return value(&random) }
        return .array(
            (0..<Int.random(in: 1...3, using: &random)).map { _ in
                let content: JSONValue = Bool.random(using: &random) ? "Hi" : value(&random)
                return ["role": .string(["system", "user", "assistant", "tool", "x"].randomElement(using: &random)!), "content": content]
            })
    }

    @Test(arguments: ["/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize"]) func randomBodies(_ path: String) async throws {
        var random = Generator(state: UInt64(path.utf8.count))
        let adapters = try FakeAdapters()
        try adapters.add("bot", versions: 2)
        let harness = try Harness(adapters: adapters)
        var accepted = 0
        for _ in 0..<1500 {
            var body = JSONObject()
            body["messages"] = path == "/v1/chat/completions" || Bool.random(using: &random) ? messages(&random) : nil
            if path != "/v1/chat/completions" {
                for key in ["prompt", "content", "tokens"] where Int.random(in: 0..<3, using: &random) > 0 { body[key] = value(&random) }
            }
            for _ in 0..<Int.random(in: 0...4, using: &random) { body[fields(&random)] = value(&random) }
            var bytes = JSONValue.object(body).serialized()
            if Int.random(in: 0..<10, using: &random) == 0, !bytes.isEmpty {
                bytes[Int.random(in: bytes.indices, using: &random)] = UInt8.random(in: 32...126, using: &random)
            }
            let before = harness.engine.submissions.count
            let id = await harness.send(.post, path, String(decoding: bytes, as: UTF8.self))
            let response = await harness.response(id)
            if let status = response.status {
                #expect((200..<500).contains(status))
                #expect(response.heads == 1 && response.ends == 1 && harness.engine.submissions.count == before)
                if status != 200 { #expect(try response.json()["error"]?.sortedKeys == ["code", "message", "param", "type"]) }
            } else {
                #expect(harness.engine.submissions.count > before)
                await harness.close(id)
            }
            if response.status == nil || response.status == 200 { accepted += 1 }
        }
        #expect(accepted > 10, "the generator must reach the engine as well")
    }

    @Test(arguments: ["/v1/feedback", "/v1/datasets/from_logs", "/v1/chat/completions/ID"])
    func randomBodiesAboutKeptExchanges(_ path: String) async throws {
        var random = Generator(state: UInt64(path.utf8.count))
        let harness = try Harness(storage: try Storage())
        let asked = await harness.chat(#"{"messages":[{"role":"user","content":"Hi"}],"store":true}"#)
        harness.engine.answer("Hello!")
        let known = try #require(try await harness.settled(asked).json()["id"]?.string)
        let fields = [
            "inference_id", "metric_name", "value", "filter", "format", "name", "limit", "model", "metadata", "user", "after", "before", "metric", "at_least", "at_most",
            "equals",
        ]
        func value(_ depth: Int) -> JSONValue {
            guard depth < 3, Bool.random(using: &random) else { return Self.value(&random) }
            return .object(JSONObject((0..<Int.random(in: 0...3, using: &random)).map { _ in (fields.randomElement(using: &random)!, value(depth + 1)) }))
        }
        var accepted = 0
        for _ in 0..<400 {
            let metric = ["m", "comment", "demonstration"].randomElement(using: &random)!
            var body: JSONObject = ["inference_id": .string(known), "metric_name": .string(metric), "value": 1, "metadata": ["a": "b"]]
            for _ in 0..<Int.random(in: 0...3, using: &random) { body[fields.randomElement(using: &random)!] = value(0) }
            let text = String(decoding: JSONValue.object(body).serialized(), as: UTF8.self)
            let response = await harness.settled(await harness.send(.post, path.replacing("ID", with: known), text))
            #expect((200..<500).contains(response.status ?? 500), "\(text)")
            if response.status == 200 { accepted += 1 }
        }
        #expect(accepted > 10)
    }

    private func fields(_ random: inout Generator) -> String { Self.fields.randomElement(using: &random)! }
    private func value(_ random: inout Generator) -> JSONValue { Self.value(&random) }
    private func messages(_ random: inout Generator) -> JSONValue { Self.messages(&random) }
}
