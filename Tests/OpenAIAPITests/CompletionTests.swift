import Inference
import JSON
import OpenAIAPI
import Testing

@Suite struct CompletionTests {
    private func lp(_ logprob: Float, _ top: [(Int32, Float)]) -> TokenLogprobs {
        TokenLogprobs(logprob: logprob, top: top.map { TokenProbability(token: $0.0, logprob: $0.1) })
    }

    @Test func wholeAnswer() async throws {
        let harness = try Harness()
        let id = await harness.complete(#"{"prompt":"ab"}"#)
        #expect(harness.engine.requests[0].prompt == [97, 98])
        #expect(harness.engine.requests[0].maxTokens == 16, "OpenAI's default")
        harness.engine.answer("cd", reason: .length)
        let json = try await harness.response(id).json()
        #expect(json.sortedKeys == ["choices", "created", "id", "model", "object", "system_fingerprint", "usage"])
        #expect(json["object"] == "text_completion")
        #expect(try #require(json["id"]?.string).hasPrefix("cmpl-"))
        #expect(json["choices"] == [["index": 0, "text": "cd", "logprobs": .null, "finish_reason": "length"]])
        #expect(json["usage"]?["total_tokens"] == 4)
    }

    @Test func controlTokensInARawPrompt() async throws {
        let harness = try Harness()
        _ = await harness.complete(#"{"prompt":"<|im_start|>a"}"#)
        #expect(harness.engine.requests[0].prompt == [TestModel.startOfTurn, 97])
    }

    @Test func promptForms() async throws {
        let harness = try Harness()
        _ = await harness.complete(#"{"prompt":[1,258,3]}"#)
        _ = await harness.complete(#"{"prompt":[[1],[2,3]]}"#)
        _ = await harness.complete(#"{"prompt":["a","bc"]}"#)
        #expect(harness.engine.requests.map(\.prompt) == [[1, 258, 3], [1], [2, 3], [97], [98, 99]])
    }

    @Test func severalPromptsAndChoices() async throws {
        let harness = try Harness()
        let id = await harness.complete(#"{"prompt":["a","bc"],"n":2,"seed":10,"echo":true,"priority":2}"#)
        #expect(harness.engine.requests.map(\.prompt) == [[97], [97], [98, 99], [98, 99]])
        #expect(harness.engine.requests.map(\.sampling.seed) == [10, 11, 12, 13] && harness.engine.requests.allSatisfy { $0.priority == 2 })
        for index in 0..<4 { harness.engine.answer("\(index)", to: index, cached: 1) }
        let json = try await harness.response(id).json()
        #expect(json["choices"]?.array?.map { $0["text"] } == ["a0", "a1", "bc2", "bc3"])
        #expect(json["choices"]?.array?.map { $0["index"] } == [0, 1, 2, 3])
        #expect(json["usage"]?["prompt_tokens"] == 3)
        #expect(json["usage"]?["completion_tokens"] == 4)
        #expect(json["usage"]?["prompt_tokens_details"]?["cached_tokens"] == 2)
    }

    @Test func echoWithLogprobs() async throws {
        let harness = try Harness()
        let id = await harness.complete(#"{"prompt":"aé","echo":true,"logprobs":2,"max_tokens":1,"return_token_ids":true}"#)
        let request = harness.engine.requests[0]
        #expect(request.logprobs == 2 && request.wantsPromptLogprobs && request.maxTokens == 1)
        harness.engine.emit(.started(cachedTokens: 0))
        harness.engine.emit(
            .promptLogprobs([nil, lp(-1, [(0xC3, -1), (98, -2.5)]), lp(-3, [(0xA9, -0.25), (98, -0.5)])]))
        harness.engine.emit(.text("z", tokens: [GeneratedToken(id: 122, logprobs: lp(-4, [(120, -0.5), (121, -0.75)]))]))
        harness.engine.finish(reason: .length, completion: 1)
        let json = try await harness.response(id).json()
        let choice = try #require(json["choices"]?[0])
        #expect(choice["text"] == "aéz")
        #expect(choice["token_ids"] == [122])
        #expect(choice["prompt_token_ids"] == [97, 0xC3, 0xA9])
        let logprobs = try #require(choice["logprobs"])
        #expect(logprobs.sortedKeys == ["text_offset", "token_ids", "token_logprobs", "tokens", "top_logprobs", "top_token_ids"])
        #expect(logprobs["tokens"] == ["a", #"bytes:\xc3"#, #"bytes:\xa9"#, "z"])
        #expect(logprobs["token_logprobs"] == [.null, -1.0, -3.0, -4.0])
        #expect(logprobs["text_offset"] == [0, 1, 2, 2])
        #expect(logprobs["token_ids"] == [97, 0xC3, 0xA9, 122])
        #expect(logprobs["top_token_ids"] == [.null, [[0xC3, -1.0], [98, -2.5]], [[0xA9, -0.25], [98, -0.5]], [[120, -0.5], [121, -0.75]]])
        // The chosen token is always among the top ones.
        #expect(
            logprobs["top_logprobs"] == [
                .null, [#"bytes:\xc3"#: -1.0, "b": -2.5], [#"bytes:\xa9"#: -0.25, "b": -0.5], ["x": -0.5, "y": -0.75, "z": -4.0],
            ])
    }

    @Test func logprobsWithoutEcho() async throws {
        let harness = try Harness()
        let id = await harness.complete(#"{"prompt":"ab","logprobs":0}"#)
        #expect(harness.engine.requests[0].logprobs == 0 && !harness.engine.requests[0].wantsPromptLogprobs)
        harness.engine.emit(.text("cd", tokens: [99, 100].map { GeneratedToken(id: $0, logprobs: lp(-1, [])) }))
        harness.engine.finish(completion: 2)
        let choice = try #require(try await harness.response(id).json()["choices"]?[0])
        #expect(
            choice["logprobs"] == [
                "tokens": ["c", "d"], "token_logprobs": [-1.0, -1.0], "top_logprobs": [["c": -1.0], ["d": -1.0]], "text_offset": [0, 1],
            ])
        #expect(choice["token_ids"] == nil)
    }

    @Test func scoreOnly() async throws {
        let harness = try Harness()
        let id = await harness.complete(#"{"prompt":[97,98],"echo":true,"logprobs":1,"max_tokens":0}"#)
        #expect(harness.engine.requests[0].maxTokens == 0)
        harness.engine.emit(.started(cachedTokens: 0))
        harness.engine.emit(.promptLogprobs([nil, lp(-1, [(98, -1)])]))
        harness.engine.finish(reason: .length, completion: 0)
        let choice = try #require(try await harness.response(id).json()["choices"]?[0])
        #expect(choice["text"] == "ab" && choice["finish_reason"] == "length")
        #expect(choice["logprobs"]?["tokens"] == ["a", "b"])
        #expect(choice["logprobs"]?["token_logprobs"] == [.null, -1.0])
        #expect(choice["logprobs"]?["top_logprobs"] == [.null, ["b": -1.0]])
    }

    @Test func aFullContextCanBeScored() async throws {
        let harness = try Harness(engine: ScriptedEngine(contextLength: 4))
        _ = await harness.complete(#"{"prompt":"abcd","echo":true,"logprobs":1,"max_tokens":0}"#)
        #expect(harness.engine.requests.count == 1)
        let id = await harness.complete(#"{"prompt":"abcd","max_tokens":1}"#)
        let response = await harness.response(id)
        #expect(response.status == 400)
        #expect(try response.json()["error"]?["code"] == "context_length_exceeded")
    }

    @Test func streamedAnswer() async throws {
        let harness = try Harness()
        let id = await harness.complete(#"{"prompt":"ab","stream":true,"echo":true,"stream_options":{"include_usage":true}}"#)
        harness.engine.emit(.started(cachedTokens: 0))
        harness.engine.text("c")
        harness.engine.finish(reason: .length, completion: 1)
        let response = await harness.response(id)
        #expect(response.events().last == "[DONE]")
        let chunks = try response.chunks()
        #expect(chunks.map { $0["choices"]?[0]?["text"] } == ["ab", "c", "", nil])
        #expect(chunks.map { $0["choices"]?[0]?["finish_reason"] } == [.null, .null, "length", nil])
        for chunk in chunks { #expect(chunk["object"] == "text_completion" && chunk["id"] == chunks[0]["id"]) }
        #expect(chunks[3]["choices"] == [] && chunks[3]["usage"]?["total_tokens"] == 3)
        #expect(chunks[0]["usage"] == .null)
    }

    @Test func streamedLogprobsKeepTheirOffsets() async throws {
        let harness = try Harness()
        let id = await harness.complete(#"{"prompt":"ab","stream":true,"echo":true,"logprobs":0,"return_token_ids":true}"#)
        harness.engine.emit(.started(cachedTokens: 0))
        harness.engine.emit(.promptLogprobs([nil, lp(-1, [])]))
        harness.engine.emit(.text("c", tokens: [GeneratedToken(id: 99, logprobs: lp(-2, []))]))
        harness.engine.finish(reason: .length, completion: 1)
        let chunks = try await harness.response(id).chunks()
        #expect(chunks.map { $0["choices"]?[0]?["text"] } == ["ab", "c", ""])
        #expect(chunks.map { $0["choices"]?[0]?["logprobs"]?["text_offset"] } == [[0, 1], [2], nil])
        #expect(chunks.map { $0["choices"]?[0]?["token_ids"] } == [[], [99], []])
        #expect(chunks[1]["choices"]?[0]?["logprobs"]?["token_ids"] == [99])
    }

    /// Many log-probabilities are written on another thread; the events behind them must wait, and the result must be the same.
    @Test(arguments: [false, true]) func promptLogprobsWrittenElsewhere(isStreamed: Bool) async throws {
        var texts: [String] = []
        for threshold in [Int.max, 3] {
            let harness = try Harness(configure: { $0.inlineLogprobs = threshold })
            let id = await harness.complete(
                #"{"prompt":["ab","cde"],"echo":true,"logprobs":1,"max_tokens":1,"stream":\#(isStreamed),"return_token_ids":true}"#)
            for index in 0..<2 {
                let prompt = harness.engine.requests[index].prompt
                harness.engine.emit(.started(cachedTokens: 0), to: index)
                harness.engine.emit(.promptLogprobs([nil] + prompt.dropFirst().map { lp(-1, [($0, -1)]) }), to: index)
                harness.engine.emit(.text("z", tokens: [GeneratedToken(id: 122, logprobs: lp(-2, [(122, -2)]))]), to: index)
                harness.engine.finish(index, reason: .length, completion: 1)
            }
            await harness.transport.runPostedJobs()
            #expect((await harness.transport.responses[id]?.isOver ?? false) == (threshold == .max))
            let response = await harness.settled(id)
            #expect(response.heads == 1 && response.ends == 1)
            if isStreamed { #expect(response.events().last == "[DONE]") }
            for index in 0..<2 {
                let choices = try isStreamed ? response.chunks().compactMap { $0["choices"]?[0] }.filter { $0["index"]?.integer == Int64(index) }
                    : [try #require(response.json()["choices"]?[index])]
                texts.append(choices.map { String(decoding: $0.serialized(), as: UTF8.self) }.joined(separator: "\n"))
            }
        }
        #expect(texts[0] == texts[2] && texts[1] == texts[3])
        #expect(texts[0].contains(#""text_offset":[0,1"#))
    }

    @Test func theClientLeavesWhileLogprobsAreWritten() async throws {
        let harness = try Harness(configure: { $0.inlineLogprobs = 0 })
        let id = await harness.complete(#"{"prompt":"ab","echo":true,"logprobs":1,"max_tokens":1}"#)
        harness.engine.emit(.promptLogprobs([nil, lp(-1, [(98, -1)])]))
        await harness.transport.runPostedJobs()
        await harness.close(id)
        await harness.transport.waitForJob()
        #expect(await harness.response(id).heads == 0)
        #expect(harness.engine.cancelled == harness.engine.submissions.map(\.id))
    }

    @Test func anEchoWhoseTokensHoldMoreThanItsText() {
        // A beginning-of-text token and a leading space that the tokenizer added, and a character in two tokens.
        var logprobs = CompletionLogprobs(try! TestModel.make().tokenizer, withTokenIDs: false)
        let tokens: [Int32] = [TestModel.startOfText, 32, 97, 0xC3, 0xA9, TestModel.endOfTurn, 98]
        logprobs.append(prompt: tokens, tokens.map { _ in nil }, text: "aé<|im_end|>b")
        var out: [UInt8] = []
        logprobs.flush(to: &out)
        #expect(try! JSONValue(parsing: out)["text_offset"] == [0, 0, 0, 1, 2, 2, 12])
    }
}
