import HTTPServing
import HTTPTypes
import Inference
import InstructionStore
import JSON
import OpenAIAPI
import TestSupport
import Testing

/// Exchanges that are kept, what is said about them, and what is made of them.
@Suite struct ExchangeRouteTests {
    private let storage: Storage

    init() throws {
        storage = try Storage()
    }

    private func harness(keepsAll: Bool = false, retention: ExchangeRetention = ExchangeRetention()) throws -> Harness {
        try Harness(storage: storage, keepsAll: keepsAll, retention: retention)
    }

    /// Asks and answers; the answer's id.
    @discardableResult
    private func exchange(
        _ harness: Harness, _ options: String = #","store":true"#, content: String = "Hi", answer: String = "Hello!", reason: FinishReason = .stop
    ) async throws -> String {
        let index = harness.engine.submissions.count
        let id = await harness.chat(#"{"messages":[{"role":"user","content":"\#(content)"}]\#(options)}"#)
        harness.engine.answer(answer, to: index, reason: reason)
        return try #require(try await harness.settled(id).json()["id"]?.string)
    }

    private func get(_ harness: Harness, _ path: String) async -> RecordingTransport.Response {
        await harness.settled(await harness.send(.get, path, contentType: nil))
    }

    private func delete(_ harness: Harness, _ path: String) async -> RecordingTransport.Response {
        await harness.settled(await harness.send(.delete, path, contentType: nil))
    }

    private func post(_ harness: Harness, _ path: String, _ body: String) async -> RecordingTransport.Response {
        await harness.settled(await harness.send(.post, path, body))
    }

    private func ids(_ harness: Harness, _ query: String = "") async throws -> [String] {
        try await get(harness, "/v1/chat/completions" + query).json()["data"]?.array?.compactMap { $0["id"]?.string } ?? []
    }

    private func say(_ harness: Harness, _ id: String, _ metric: String, _ value: String) async -> RecordingTransport.Response {
        await post(harness, "/v1/feedback", #"{"inference_id":"\#(id)","metric_name":"\#(metric)","value":\#(value)}"#)
    }

    // MARK: - Keeping

    @Test func onlyWhatIsAskedForIsKept() async throws {
        let harness = try harness()
        for options in ["", #","store":false"#, #","store":null,"metadata":{"a":"b"}"#] { try await exchange(harness, options) }
        #expect(try await ids(harness).isEmpty)
        let id = try await exchange(harness)
        #expect(try await ids(harness) == [id])
        #expect(harness.metric("graft_exchanges_total").contains(#"graft_exchanges_total{outcome="kept"} 1"#))
    }

    @Test func keptByDefault() async throws {
        let harness = try harness(keepsAll: true)
        let id = try await exchange(harness, "")
        try await exchange(harness, #","store":false"#)
        #expect(try await ids(harness) == [id])
    }

    @Test func theObject() async throws {
        let harness = try harness()
        let options = #","store":true,"user":"ada","temperature":0.5,"seed":7,"metadata":{"z":"1","a":"2"}"#
        let id = try await exchange(harness, options, content: "Hi \\\"you\\\"")
        let object = try await get(harness, "/v1/chat/completions/\(id)").json()
        #expect(
            object.sortedKeys == [
                "choices", "created", "frequency_penalty", "graft", "id", "input_user", "metadata", "model", "object", "presence_penalty", "request_id",
                "response_format", "seed", "service_tier", "system_fingerprint", "temperature", "tool_choice", "tools", "top_p", "usage",
            ])
        #expect(
            object["object"] == "chat.completion" && object["model"] == "tiny" && object["seed"] == 7 && object["temperature"] == 0.5
                && object["top_p"] == .null)
        #expect(object["input_user"] == "ada" && object["metadata"]?.object?.keys == ["z", "a"] && object["tools"] == .null)
        #expect(object["choices"]?[0]?["message"]?["content"] == "Hello!" && object["choices"]?[0]?["finish_reason"] == "stop")
        #expect(object["usage"]?["completion_tokens"] == 6)
        #expect(object["graft"]?["base"] == "tiny" && object["graft"]?["adapters"] == [] && object["graft"]?["feedback"] == [])
        let messages = try await get(harness, "/v1/chat/completions/\(id)/messages").json()
        #expect(
            messages == [
                "object": "list",
                "data": [["role": "user", "content": "Hi \"you\"", "id": .string("\(id)-0"), "name": .null, "content_parts": .null]],
                "has_more": false, "first_id": .string("\(id)-0"), "last_id": .string("\(id)-0"),
            ])
    }

    @Test func allAnswersOfAStreamAreKept() async throws {
        let harness = try harness()
        let exchange = await harness.chat(#"{"messages":[{"role":"user","content":"Hi"}],"store":true,"stream":true,"n":2}"#)
        harness.engine.emit(.started(cachedTokens: 0))
        harness.engine.text("a")
        harness.engine.text("b", to: 1)
        harness.engine.text("c")
        harness.engine.finish(completion: 2)
        harness.engine.finish(1, reason: .length, completion: 1)
        let response = await harness.settled(exchange)
        let id = try #require(try response.chunks().first?["id"]?.string)
        #expect(response.events().last == "[DONE]")
        let object = try await get(harness, "/v1/chat/completions/\(id)").json()
        #expect(object["choices"]?.array?.map { $0["message"]?["content"] } == ["ac", "b"])
        #expect(object["choices"]?[1]?["finish_reason"] == "length" && object["choices"]?[1]?["index"] == 1)
    }

    @Test func theEndIsToldWhenTheExchangeIsOnDisk() async throws {
        let harness = try harness()
        for isStreamed in [false, true] {
            let index = harness.engine.submissions.count
            let exchange = await harness.chat(#"{"messages":[{"role":"user","content":"Hi"}],"store":true,"stream":\#(isStreamed)}"#)
            harness.engine.answer("Hello!", to: index)
            // The engine's three steps, and nothing that comes of them.
            await harness.transport.runPostedJobs()
            let response = await harness.transport.responses[exchange]
            #expect(response?.text.contains("[DONE]") != true && response?.isOver != true)
            #expect(response?.text.contains("Hello!") == (isStreamed ? true : nil))
            let whole = await harness.settled(exchange)
            #expect(whole.status == 200 && whole.heads == 1 && whole.ends == 1 && whole.text.hasSuffix("data: [DONE]\n\n") == isStreamed)
        }
    }

    @Test func whatCannotBeKeptFails() async throws {
        let harness = try harness()
        storage.store.injectFault(resultCode: 13)
        let whole = await harness.chat(#"{"messages":[{"role":"user","content":"Hi"}],"store":true}"#)
        harness.engine.answer("Hello!")
        let response = await harness.settled(whole)
        #expect(response.status == 507 && response.head?.headerFields[text: "x-should-retry"] == "false")
        let streamed = await harness.chat(#"{"messages":[{"role":"user","content":"Hi"}],"store":true,"stream":true}"#)
        harness.engine.answer("Hello!", to: 1)
        let events = await harness.settled(streamed).events()
        #expect(try JSONValue(parsing: Array(#require(events.last).utf8))["error"]?["code"] == "storage_full")
        storage.store.injectFault(resultCode: nil)
        #expect(try await ids(harness).isEmpty)
        #expect(harness.metric("graft_exchanges_total").contains(#"graft_exchanges_total{outcome="lost"} 2"#))
    }

    @Test func whatNobodyAskedForFailsSilently() async throws {
        let harness = try harness(keepsAll: true)
        storage.store.injectFault(resultCode: 13)
        try await exchange(harness, "")
        // Looking waits for what is on its way.
        _ = try await ids(harness)
        storage.store.injectFault(resultCode: nil)
        #expect(try await ids(harness).isEmpty)
        #expect(harness.logs.text.contains("exchanges could not be kept"))
    }

    @Test func whatHasNoAnswerIsNotKept() async throws {
        let harness = try harness(keepsAll: true)
        let left = await harness.chat(#"{"messages":[{"role":"user","content":"Hi"}],"stream":true}"#)
        harness.engine.emit(.started(cachedTokens: 0))
        _ = await harness.response(left)
        await harness.close(left)
        let failed = await harness.chat(ChatTests.hello)
        harness.engine.emit(.failed(InferenceError(.internalFailure, "no")), to: 1)
        #expect(await harness.settled(failed).status == 500)
        #expect(try await ids(harness).isEmpty)
    }

    @Test func aClientThatLeavesBeforeTheEndIsToldLosesNothing() async throws {
        let harness = try harness()
        let exchange = await harness.chat(#"{"messages":[{"role":"user","content":"Hi"}],"store":true}"#)
        harness.engine.answer("Hello!")
        await harness.transport.runPostedJobs()
        await harness.close(exchange)
        #expect(try await ids(harness).count == 1)
        #expect(await harness.response(exchange).head == nil)
    }

    @Test(arguments: [
        (#","store":"yes""#, "store"), (#","metadata":["a"]"#, "metadata"), (#","metadata":{"a":1}"#, "metadata[a]"), (#","metadata":{"":"x"}"#, "metadata"),
        (#","metadata":{"\#(String(repeating: "k", count: 65))":"x"}"#, "metadata"),
        (#","metadata":{"k":"\#(String(repeating: "x", count: 513))"}"#, "metadata"),
        (#","metadata":{\#((0..<17).map { #""k\#($0)":"""# }.joined(separator: ","))}"#, "metadata"),
    ])
    func badNotes(options: String, param: String) async throws {
        let harness = try harness()
        let response = await harness.response(await harness.chat(#"{"messages":[{"role":"user","content":"Hi"}]\#(options)}"#))
        #expect(response.status == 400)
        #expect(try response.json()["error"]?["param"] == .string(param))
    }

    @Test func retention() async throws {
        let harness = try harness(keepsAll: true, retention: ExchangeRetention(days: 30, maximum: 3))
        var kept: [String] = []
        for number in 0..<6 { kept.append(try await exchange(harness, "", content: "\(number)")) }
        #expect(try await ids(harness) == Array(kept.suffix(3)))
        #expect(harness.metric("graft_exchanges_total").contains(#"graft_exchanges_total{outcome="pruned"} 3"#))
    }

    // MARK: - Looking and changing

    @Test func lists() async throws {
        let harness = try harness()
        var made: [String] = []
        for number in 0..<5 { made.append(try await exchange(harness, #","store":true,"metadata":{"n":"\#(number % 2)"}"#)) }
        #expect(try await ids(harness) == made)
        #expect(try await ids(harness, "?order=desc&limit=2") == [made[4], made[3]])
        let page = try await get(harness, "/v1/chat/completions?limit=2").json()
        #expect(page["has_more"] == true && page["first_id"]?.string == made[0] && page["last_id"]?.string == made[1])
        #expect(await delete(harness, "/v1/chat/completions/\(made[1])").status == 200)
        #expect(try await ids(harness, "?after=\(made[1])&limit=2") == [made[2], made[3]])
        #expect(try await ids(harness, "?metadata[n]=1") == [made[3]])
        #expect(try await ids(harness, "?metadata=null&model=tiny").count == 4)
        #expect(try await ids(harness, "?model=other").isEmpty)
        for query in ["?limit=101", "?limit=0", "?after=chatcmpl-1", "?order=x"] {
            #expect(await get(harness, "/v1/chat/completions" + query).status == 400)
        }
    }

    @Test func messagePages() async throws {
        let harness = try harness()
        let exchange = await harness.chat(
            #"{"messages":[{"role":"system","content":"s"},{"role":"user","content":[{"type":"text","text":"a"}]},{"role":"user","content":"b"}],"store":true}"#
        )
        harness.engine.answer("Hello!")
        let id = try #require(try await harness.settled(exchange).json()["id"]?.string)
        let path = "/v1/chat/completions/\(id)/messages"
        let first = try await get(harness, path + "?limit=2").json()
        #expect(first["has_more"] == true && first["data"]?[1]?["content"] == .null)
        #expect(first["data"]?[1]?["content_parts"] == [["type": "text", "text": "a"]])
        let rest = try await get(harness, path + "?after=\(id)-1").json()
        #expect(rest["data"]?[0]?["content"] == "b" && rest["has_more"] == false)
        #expect(try await get(harness, path + "?order=desc").json()["first_id"] == .string("\(id)-2"))
        #expect(await get(harness, path + "?after=x").status == 400)
    }

    @Test func changesAndDeletion() async throws {
        let harness = try harness()
        let id = try await exchange(harness, #","store":true,"metadata":{"a":"b"}"#)
        let changed = await post(harness, "/v1/chat/completions/\(id)", #"{"metadata":{"c":"d"},"colour":1}"#)
        #expect(try changed.json()["metadata"] == ["c": "d"])
        #expect(changed.head?.headerFields[text: "graft-ignored-parameters"] == "colour")
        #expect(try await get(harness, "/v1/chat/completions/\(id)").json()["metadata"] == ["c": "d"])
        #expect(await post(harness, "/v1/chat/completions/\(id)", "{}").status == 400)
        #expect(await delete(harness, "/v1/chat/completions/\(id)").text == #"{"object":"chat.completion.deleted","id":"\#(id)","deleted":true}"#)
        for response in [
            await get(harness, "/v1/chat/completions/\(id)"), await get(harness, "/v1/chat/completions/\(id)/messages"),
            await delete(harness, "/v1/chat/completions/\(id)"), await post(harness, "/v1/chat/completions/\(id)", #"{"metadata":{}}"#),
        ] {
            #expect(response.status == 404)
            #expect(try response.json()["error"]?["code"] == "completion_not_found")
        }
    }

    @Test func deletionByUser() async throws {
        let harness = try harness(keepsAll: true)
        for user in ["xenia", "xenia", "yuri"] { try await exchange(harness, #","user":"\#(user)""#) }
        #expect(await delete(harness, "/v1/chat/completions").status == 400)
        #expect(await delete(harness, "/v1/chat/completions?user=").status == 400)
        #expect(await delete(harness, "/v1/chat/completions?user=xenia").text == #"{"object":"chat.completions.deleted","deleted":true,"count":2}"#)
        #expect(try await ids(harness).count == 1)
        #expect(harness.logs.text.contains("action=exchange.delete_of_user") && !harness.logs.text.contains("xenia"))
    }

    @Test func serversThatKeepNothing() async throws {
        let harness = try Harness()
        let id = await harness.chat(#"{"messages":[{"role":"user","content":"Hi"}],"store":true}"#)
        harness.engine.answer("Hello!")
        #expect(await harness.response(id).status == 200)
        #expect(await harness.get("/v1/chat/completions").status == 404)
    }

    // MARK: - Feedback

    @Test func feedback() async throws {
        let harness = try harness(keepsAll: true)
        let id = try await exchange(harness, "")
        let thumb = try await say(harness, id, "helpful", "true").json()
        #expect(thumb["object"] == "feedback" && thumb["inference_id"]?.string == id && thumb["metric_name"] == "helpful" && thumb["value"] == true)
        #expect(thumb["feedback_id"] == thumb["id"])
        #expect(await say(harness, id, "score", "0.25").status == 200)
        #expect(await say(harness, id, "comment", #""too short""#).status == 200)
        #expect(try await say(harness, id, "demonstration", #""Good day.""#).json()["value"] == ["role": "assistant", "content": "Good day."])
        #expect(await say(harness, id, "demonstration", #"{"content":"Better"}"#).status == 200)
        let said = try await get(harness, "/v1/chat/completions/\(id)").json()["graft"]?["feedback"]?.array
        #expect(said?.map { $0["metric_name"] } == ["helpful", "score", "comment", "demonstration"])
        #expect(said?.last?["value"] == ["content": "Better", "role": "assistant"])
        for (metric, value) in [
            ("helpful", #""yes""#), ("helpful", "[1]"), ("comment", "1"), ("comment", #""""#), ("demonstration", "true"), ("demonstration", #""""#),
            ("demonstration", #"{"role":"user","content":"x"}"#), ("demonstration", #"{"content":""}"#), ("", "1"), (String(repeating: "m", count: 65), "1"),
            ("helpful", "null"),
        ] {
            #expect(await say(harness, id, metric, value).status == 400, "\(metric) \(value)")
        }
        let unknown = await say(harness, "chatcmpl-nothing", "helpful", "true")
        #expect(unknown.status == 404)
        #expect(try unknown.json()["error"]?["param"] == "inference_id")
        #expect(!harness.logs.text.contains("too short") && !harness.logs.text.contains("Good day"))
    }

    // MARK: - Training files

    private func lines(_ harness: Harness, _ response: RecordingTransport.Response) async throws -> [JSONValue] {
        let id = try #require(try response.json()["id"]?.string)
        return try await get(harness, "/v1/files/\(id)/content").text.split(separator: "\n").map { try JSONValue(parsing: Array($0.utf8)) }
    }

    @Test func trainingFiles() async throws {
        let harness = try harness(keepsAll: true)
        let good = try await exchange(harness, #","metadata":{"app":"x"}"#, content: "one", answer: "First")
        let bad = try await exchange(harness, "", content: "two", answer: "Second")
        try await exchange(harness, "", content: "three", answer: "Thi", reason: .length)
        try await exchange(harness, "", content: "four", answer: "bad for training")
        for (id, value) in [(good, "true"), (bad, "false")] { #expect(await say(harness, id, "thumb", value).status == 200) }
        #expect(await say(harness, bad, "demonstration", #""Better""#).status == 200)

        let all = await post(harness, "/v1/datasets/from_logs", #"{"name":"../logs.jsonl","colour":1}"#)
        let object = try all.json()
        #expect(object["object"] == "file" && object["purpose"] == "fine-tune" && object["status"] == "processed" && object["filename"] == "logs.jsonl")
        #expect(
            object["graft_dataset"] == [
                "format": "chat", "examples": 2, "skipped": ["no_demonstration": 0, "unchanged": 0, "empty_answer": 0, "truncated_answer": 1, "untrainable": 1],
            ])
        #expect(all.head?.headerFields[text: "graft-ignored-parameters"] == "colour")
        let answers = try await lines(harness, all).map { $0["messages"]?.array?.last?["content"]?.string }
        #expect(answers == ["First", "Better"], "the oldest first, and the correction in place of the answer")

        let pairs = try await lines(harness, post(harness, "/v1/datasets/from_logs", #"{"format":"preference"}"#))
        #expect(pairs.count == 1)
        #expect(pairs[0]["preferred_output"]?[0]?["content"] == "Better" && pairs[0]["non_preferred_output"]?[0]?["content"] == "Second")

        func contents(_ filter: String) async throws -> [String?] {
            try await lines(harness, post(harness, "/v1/datasets/from_logs", #"{"filter":\#(filter)}"#)).map { $0["messages"]?[0]?["content"]?.string }
        }
        #expect(try await contents(#"{"metric":{"name":"thumb","equals":true}}"#) == ["one"])
        #expect(try await contents(#"{"metric":{"name":"thumb","at_most":0}}"#) == ["two"])
        #expect(try await contents(#"{"metadata":{"app":"x"}}"#) == ["one"])
        #expect(try await contents(#"{"model":"tiny","after":1000}"#) == ["one", "two"])
        #expect(try await lines(harness, post(harness, "/v1/datasets/from_logs", #"{"limit":1}"#)).count == 1)
    }

    @Test func manyPagesInOrder() async throws {
        let harness = try harness()
        try storage.store.insertExchanges(
            (0..<250).map { number in
                StoredExchange(
                    id: "chatcmpl-" + String(repeating: "0", count: 29) + String(1000 + number).suffix(3), owner: "local", createdAt: 2_000_000_000,
                    model: "tiny",
                    label: "tiny", user: nil, messages: #"[{"role":"user","content":"\#(number)"}]"#, tools: nil,
                    choices: #"[{"message":{"role":"assistant","content":"a"},"finish_reason":"stop"}]"#, details: "{}", metadata: [])
            })
        let made = try await lines(harness, post(harness, "/v1/datasets/from_logs", "{}"))
        #expect(made.compactMap { $0["messages"]?[0]?["content"]?.string } == (0..<250).map(String.init))
    }

    @Test(arguments: [
        (#"{"filter":{"modell":"x"}}"#, "filter.modell", "unknown_parameter"),
        (#"{"filter":{"metric":{"name":"a","above":1}}}"#, "filter.metric.above", "unknown_parameter"),
        (#"{"filter":{"metric":{"equals":1}}}"#, "filter.metric.name", "missing_required_parameter"),
        (#"{"filter":{"metric":{"name":"a","equals":1,"at_least":1}}}"#, "filter.metric.equals", "invalid_value"),
        (#"{"filter":{"metric":{"name":"a","equals":[]}}}"#, "filter.metric.equals", "invalid_type"),
        (#"{"filter":{"after":-1}}"#, "filter.after", "invalid_value"),
        (#"{"format":"dpo"}"#, "format", "invalid_value"), (#"{"limit":0}"#, "limit", "invalid_value"),
        (#"{"filter":{"model":"none"}}"#, "filter", "no_examples"),
        (#"{"format":"preference"}"#, "filter", "no_examples"),
    ])
    func badRequests(body: String, param: String, code: String) async throws {
        let harness = try harness()
        try await exchange(harness)
        let response = await post(harness, "/v1/datasets/from_logs", body)
        #expect(response.status == 400)
        let error = try response.json()["error"]
        #expect(error?["param"] == .string(param) && error?["code"] == .string(code), "\(response.text)")
        #expect(try storage.folder.contents(of: "data/files") == ["incoming/"])
    }
}
