import Inference
import JSON
import OpenAIAPI
import Testing

@Suite struct ChatTests {
    static let hello = #"{"messages":[{"role":"user","content":"Hi"}]}"#
    static let helloStream = #"{"messages":[{"role":"user","content":"Hi"}],"stream":true}"#

    @Test func wholeAnswer() async throws {
        let harness = try Harness()
        let id = await harness.chat(Self.hello)
        #expect(await harness.response(id).head == nil)
        harness.engine.answer("Hello!", cached: 3)
        let response = await harness.response(id)
        #expect(response.status == 200)
        #expect(response.heads == 1 && response.ends == 1)
        #expect(response.head?.headerFields[.contentType] == "application/json")
        #expect(response.head?.headerFields[text: "openai-processing-ms"] == "0")
        #expect(response.head?.headerFields[text: "graft-ignored-parameters"] == nil)
        let json = try response.json()
        #expect(json.sortedKeys == ["choices", "created", "id", "model", "object", "system_fingerprint", "usage"])
        #expect(json["object"] == "chat.completion")
        #expect(json["model"] == "tiny")
        #expect(json["system_fingerprint"] == "fp_0123456789ab")
        #expect(try #require(json["id"]?.string).hasPrefix("chatcmpl-"))
        #expect(try #require(json["created"]?.integer) > 1_700_000_000)
        #expect(
            json["choices"] == [
                [
                    "index": 0, "message": ["role": "assistant", "content": "Hello!", "refusal": .null], "logprobs": .null,
                    "finish_reason": "stop",
                ]
            ])
        // <|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n
        let prompt = [TestModel.startOfTurn] + TestModel.ids("user\nHi") + [TestModel.endOfTurn] + TestModel.ids("\n")
            + [TestModel.startOfTurn] + TestModel.ids("assistant\n")
        #expect(harness.engine.requests.map(\.prompt) == [prompt])
        #expect(
            json["usage"] == [
                "prompt_tokens": .integer(Int64(prompt.count)), "completion_tokens": 6, "total_tokens": .integer(Int64(prompt.count + 6)),
                "prompt_tokens_details": ["cached_tokens": 3], "completion_tokens_details": ["reasoning_tokens": 0],
            ])
    }

    @Test func streamedAnswer() async throws {
        let harness = try Harness()
        let id = await harness.chat(Self.helloStream)
        #expect(await harness.response(id).head == nil, "no status before the engine has begun")
        harness.engine.emit(.started(cachedTokens: 0))
        var response = await harness.response(id)
        #expect(response.status == 200 && response.isStream && !response.isOver)
        #expect(response.head?.headerFields[.contentType] == "text/event-stream; charset=utf-8")
        #expect(response.head?.headerFields[.cacheControl] == "no-cache")
        #expect(response.keepAlive == .seconds(15))
        harness.engine.text("Hé")
        harness.engine.text("llo \"you\"\n")
        harness.engine.finish(completion: 13)
        response = await harness.response(id)
        #expect(response.isOver && response.ends == 1 && response.heads == 1)
        #expect(response.events().last == "[DONE]")
        let chunks = try response.chunks()
        #expect(chunks.count == 4)
        for chunk in chunks {
            #expect(chunk.sortedKeys == ["choices", "created", "id", "model", "object", "system_fingerprint"])
            #expect(chunk["object"] == "chat.completion.chunk")
            #expect(chunk["id"] == chunks[0]["id"] && chunk["created"] == chunks[0]["created"])
            #expect(chunk["choices"]?[0]?.sortedKeys == ["delta", "finish_reason", "index", "logprobs"])
            #expect(chunk["choices"]?[0]?["logprobs"] == .null)
        }
        #expect(chunks.map { $0["choices"]?[0]?["delta"] } == [
            ["role": "assistant", "content": ""], ["content": "Hé"], ["content": "llo \"you\"\n"], [:],
        ])
        #expect(chunks.map { $0["choices"]?[0]?["finish_reason"] } == [.null, .null, .null, "stop"])
    }

    @Test func streamedUsage() async throws {
        let harness = try Harness()
        let id = await harness.chat(
            #"{"messages":[{"role":"user","content":"Hi"}],"stream":true,"stream_options":{"include_usage":true}}"#)
        harness.engine.answer("Yes", reason: .length, cached: 2)
        let response = await harness.response(id)
        #expect(response.events().last == "[DONE]")
        let chunks = try response.chunks()
        #expect(chunks.count == 4)
        for chunk in chunks.dropLast() { #expect(chunk["usage"] == .null && chunk["choices"]?.array?.count == 1) }
        #expect(chunks[2]["choices"]?[0]?["finish_reason"] == "length")
        let last = try #require(chunks.last)
        #expect(last["choices"] == [])
        #expect(last["id"] == chunks[0]["id"] && last["object"] == "chat.completion.chunk" && last["model"] == "tiny")
        let prompt = Int64(harness.engine.requests[0].prompt.count)
        #expect(
            last["usage"] == [
                "prompt_tokens": .integer(prompt), "completion_tokens": 3, "total_tokens": .integer(prompt + 3),
                "prompt_tokens_details": ["cached_tokens": 2], "completion_tokens_details": ["reasoning_tokens": 0],
            ])
    }

    @Test func oneWritePerStep() async throws {
        let harness = try Harness()
        let id = await harness.chat(#"{"messages":[{"role":"user","content":"Hi"}],"stream":true,"n":2}"#)
        harness.engine.step([(0, .started(cachedTokens: 0)), (1, .started(cachedTokens: 0)), (0, .text("a", tokens: [])), (1, .text("b", tokens: []))])
        #expect(await harness.response(id).writes.count == 1)
        #expect(try await harness.response(id).chunks().map { $0["choices"]?[0]?["index"] } == [0, 1, 0, 1])
    }

    @Test func severalChoices() async throws {
        let harness = try Harness()
        let id = await harness.chat(#"{"messages":[{"role":"user","content":"Hi"}],"n":3,"seed":-1}"#)
        #expect(harness.engine.requests.map(\.sampling.seed) == [.max, 0, 1])
        #expect(Set(harness.engine.submissions.map(\.id)).count == 3)
        harness.engine.answer("b", to: 1, cached: 9)
        harness.engine.answer("ccc", to: 2, reason: .length, cached: 9)
        #expect(await harness.response(id).head == nil)
        harness.engine.answer("aa", to: 0, cached: 4)
        let json = try await harness.response(id).json()
        #expect(json["choices"]?.array?.map { $0["index"] } == [0, 1, 2])
        #expect(json["choices"]?.array?.map { $0["message"]?["content"] } == ["aa", "b", "ccc"])
        #expect(json["choices"]?.array?.map { $0["finish_reason"] } == ["stop", "stop", "length"])
        // The prompt counts once, as the first choice met it.
        #expect(json["usage"]?["prompt_tokens"]?.integer == Int64(harness.engine.requests[0].prompt.count))
        #expect(json["usage"]?["completion_tokens"] == 6)
        #expect(json["usage"]?["prompt_tokens_details"]?["cached_tokens"] == 4)
    }

    @Test func streamedChoicesEndOnce() async throws {
        let harness = try Harness()
        let id = await harness.chat(#"{"messages":[{"role":"user","content":"Hi"}],"stream":true,"n":2}"#)
        harness.engine.answer("a", to: 0)
        #expect(await !harness.response(id).isOver)
        harness.engine.text("late", to: 0)
        harness.engine.answer("b", to: 1)
        let response = await harness.response(id)
        #expect(response.isOver && response.ends == 1)
        #expect(response.events().count { $0 == "[DONE]" } == 1)
        #expect(!response.text.contains("late"))
        let ends = try response.chunks().filter { $0["choices"]?[0]?["finish_reason"] != .null }
        #expect(ends.map { $0["choices"]?[0]?["index"] } == [0, 1])
    }

    static let logprobs = TokenLogprobs(
        logprob: -0.1, top: [TokenProbability(token: 0x48, logprob: -0.1), TokenProbability(token: 0xC3, logprob: -.infinity)])

    @Test func logprobs() async throws {
        let harness = try Harness()
        let id = await harness.chat(#"{"messages":[{"role":"user","content":"Hi"}],"logprobs":true,"top_logprobs":2}"#)
        #expect(harness.engine.requests[0].logprobs == 2)
        #expect(!harness.engine.requests[0].wantsPromptLogprobs)
        harness.engine.emit(.text("H", tokens: [GeneratedToken(id: 0x48, logprobs: Self.logprobs)]))
        harness.engine.emit(.text("", tokens: [GeneratedToken(id: TestModel.endOfTurn, logprobs: TokenLogprobs(logprob: -2, top: []))]))
        harness.engine.finish(completion: 2)
        let json = try await harness.response(id).json()
        #expect(
            json["choices"]?[0]?["logprobs"] == [
                "content": [
                    [
                        "token": "H", "logprob": -0.1, "bytes": [0x48],
                        "top_logprobs": [
                            ["token": "H", "logprob": -0.1, "bytes": [0x48]],
                            ["token": #"\xc3"#, "logprob": -9999.0, "bytes": [0xC3]],
                        ],
                    ],
                    [
                        "token": "<|im_end|>", "logprob": -2.0, "bytes": .array("<|im_end|>".utf8.map { .integer(Int64($0)) }),
                        "top_logprobs": [],
                    ],
                ], "refusal": .null,
            ])
    }

    @Test func streamedLogprobs() async throws {
        let harness = try Harness()
        let id = await harness.chat(#"{"messages":[{"role":"user","content":"Hi"}],"logprobs":true,"stream":true}"#)
        #expect(harness.engine.requests[0].logprobs == 0)
        let token = GeneratedToken(id: 0x48, logprobs: TokenLogprobs(logprob: -0.5, top: []))
        // The first of two bytes of a character: a token without text yet.
        harness.engine.emit(.text("", tokens: [token]))
        harness.engine.emit(.text("é", tokens: [token, token]))
        harness.engine.finish(completion: 3)
        let chunks = try await harness.response(id).chunks()
        #expect(chunks.map { $0["choices"]?[0]?["delta"]?["content"] } == ["", "", "é", nil])
        #expect(chunks.map { $0["choices"]?[0]?["logprobs"]?["content"]?.array?.count } == [nil, 1, 2, nil])
        #expect(chunks[1]["choices"]?[0]?["logprobs"]?["content"]?[0]?["top_logprobs"] == [])
    }

    @Test func parametersReachTheEngine() async throws {
        let harness = try Harness()
        _ = await harness.chat(
            """
            {"messages":[{"role":"user","content":"Hi"}],"temperature":0.5,"top_p":0.9,"top_k":40,"min_p":0.05,"typical_p":0.95,
            "presence_penalty":-1,"frequency_penalty":1.5,"repeat_penalty":1.1,"repeat_last_n":32,"logit_bias":{"65":-100,"66":5.5},
            "stop":["END","\\n\\n"],"max_completion_tokens":7,"ignore_eos":true,"seed":42,"priority":-3}
            """)
        let request = harness.engine.requests[0]
        #expect(request.sampling.temperature == 0.5 && request.sampling.topP == 0.9 && request.sampling.topK == 40)
        #expect(request.sampling.minP == 0.05 && request.sampling.typicalP == 0.95)
        #expect(request.sampling.presencePenalty == -1 && request.sampling.frequencyPenalty == 1.5)
        #expect(request.sampling.repetitionPenalty == 1.1 && request.sampling.penaltyWindow == 32)
        #expect(request.sampling.logitBias == [65: -100, 66: 5.5])
        #expect(request.stop == ["END", "\n\n"] && request.maxTokens == 7 && request.ignoresEndOfGeneration)
        #expect(request.sampling.seed == 42 && request.modelName == "tiny" && request.logprobs == nil && request.priority == -3)
    }

    @Test func defaults() async throws {
        let harness = try Harness()
        _ = await harness.chat(Self.hello)
        let request = harness.engine.requests[0]
        #expect(request.sampling == SamplingParameters())
        #expect(request.maxTokens == nil && request.stop.isEmpty && !request.ignoresEndOfGeneration && request.priority == 0)
    }

    @Test func maxTokensStayInsideTheContext() async throws {
        let harness = try Harness(engine: ScriptedEngine(contextLength: 40))
        _ = await harness.chat(#"{"messages":[{"role":"user","content":"Hi"}],"max_tokens":1000000}"#)
        let request = harness.engine.requests[0]
        #expect(request.maxTokens == 40 - request.prompt.count)
    }

    @Test(arguments: ["tiny", "small", "default"]) func modelNames(_ name: String) async throws {
        let harness = try Harness()
        let id = await harness.chat(#"{"model":"\#(name)","messages":[{"role":"user","content":"Hi"}]}"#)
        harness.engine.answer("x")
        #expect(try await harness.response(id).json()["model"] == "tiny")
    }

    @Test func harmlessAndUnknownFields() async throws {
        let harness = try Harness()
        let id = await harness.chat(
            """
            {"messages":[{"role":"user","content":"Hi","mood":1}],"user":"u","metadata":{"a":"b"},"store":true,"service_tier":"auto",
            "parallel_tool_calls":true,"tools":[],"tool_choice":"none","response_format":{"type":"text"},"n":1.0,"min_tokens":0,
            "reasoning_effort":"none","frequency_penalty":null,"colour":"red","a\\r\\nb: c":1,"nothing":null}
            """)
        harness.engine.answer("x")
        let response = await harness.response(id)
        #expect(response.status == 200)
        #expect(response.head?.headerFields[text: "graft-ignored-parameters"] == "colour, a%0D%0Ab%3A%20c, messages.mood")
    }

    @Test func contentForms() async throws {
        let harness = try Harness()
        _ = await harness.chat(
            """
            {"messages":[{"role":"developer","content":"S"},{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]},
            {"role":"assistant","content":null},{"role":"user","content":"<|im_end|>"}]}
            """)
        let turn = [TestModel.startOfTurn], end = [TestModel.endOfTurn] + TestModel.ids("\n")
        var expected = turn + TestModel.ids("system\nS") + end
        expected += turn + TestModel.ids("user\nab") + end
        expected += turn + TestModel.ids("assistant\n") + end
        // What a user spells as a control token stays text.
        expected += turn + TestModel.ids("user\n<|im_end|>") + end + turn + TestModel.ids("assistant\n")
        #expect(harness.engine.requests[0].prompt == expected)
    }

    @Test func baseModelWithoutTemplate() async throws {
        let harness = try Harness(models: [TestModel.make(hasTemplate: false)])
        _ = await harness.chat(
            """
            {"messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"Hi"},{"role":"assistant","content":"Yes?"},
            {"role":"user","content":"Bye"}],"stop":"x"}
            """)
        let request = harness.engine.requests[0]
        #expect(request.prompt == TestModel.ids("Be brief.\n\nUser: Hi\n\nAssistant: Yes?\n\nUser: Bye\n\nAssistant:"))
        #expect(request.stop == ["x", "\n\nUser:"])
    }

    @Test func tokenIDs() async throws {
        let harness = try Harness()
        let id = await harness.chat(#"{"messages":[{"role":"user","content":"Hi"}],"return_token_ids":true}"#)
        harness.engine.answer("ok")
        let json = try await harness.response(id).json()
        #expect(json["choices"]?[0]?["token_ids"] == [0x6F, 0x6B])
        #expect(json["prompt_token_ids"]?.array?.count == harness.engine.requests[0].prompt.count)
    }
}
