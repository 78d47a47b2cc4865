import HTTPServing
import HTTPTypes
import Inference
import JSON
import OpenAIAPI
import Testing

/// Every refusal: status, code, field, and that the engine saw nothing.
@Suite struct ErrorTests {
    struct Case: Sendable, CustomTestStringConvertible {
        let body: String
        let param: String?
        let code: String
        let status: Int
        /// A part of the message.
        let message: String

        init(_ body: String, _ param: String?, _ code: String, _ message: String = "", status: Int = 400) {
            self.body = body
            self.param = param
            self.code = code
            self.status = status
            self.message = message
        }

        var testDescription: String { body.count > 100 ? String(body.prefix(100)) + "…" : body }
    }

    /// A field beside an acceptable conversation.
    private static func field(_ text: String, _ param: String, _ code: String = "invalid_value", _ message: String = "") -> Case {
        Case(#"{"messages":[{"role":"user","content":"Hi"}],\#(text)}"#, param, code, message)
    }

    private static func prompt(_ text: String, _ param: String, _ code: String = "invalid_value", _ message: String = "") -> Case {
        Case(#"{"prompt":"Hi",\#(text)}"#, param, code, message)
    }

    static let ranges: [Case] = [
        field(#""temperature":3"#, "temperature", "invalid_value", "'temperature' is 3, expected a number from 0 to 2"),
        field(#""temperature":-0.1"#, "temperature"), field(#""temperature":"hot""#, "temperature", "invalid_type", "is a string, expected a number"),
        field(#""temperature":1e400"#, "temperature", "invalid_json"), field(#""temperature":NaN"#, "temperature", "invalid_json"),
        field(#""temperature":true"#, "temperature", "invalid_type"),
        field(#""top_p":0"#, "top_p", "invalid_value", "expected a number above 0 and at most 1"), field(#""top_p":1.1"#, "top_p"),
        field(#""n":0"#, "n"), field(#""n":17"#, "n", "invalid_value", "'n' is 17, expected an integer from 1 to 16"),
        field(#""n":1000000000"#, "n"), field(#""n":1.5"#, "n", "invalid_type"), field(#""n":"1""#, "n", "invalid_type"),
        field(#""max_tokens":0"#, "max_tokens"), field(#""max_tokens":-1"#, "max_tokens"),
        field(#""max_tokens":9223372036854775808"#, "max_tokens"), field(#""max_tokens":2147483648"#, "max_tokens"),
        field(#""max_completion_tokens":0"#, "max_completion_tokens"),
        field(#""max_tokens":3,"max_completion_tokens":4"#, "max_completion_tokens"),
        field(#""logprobs":5"#, "logprobs", "invalid_type"), field(#""logprobs":true,"top_logprobs":21"#, "top_logprobs"),
        field(#""top_logprobs":2"#, "top_logprobs"), field(#""presence_penalty":2.5"#, "presence_penalty"),
        field(#""frequency_penalty":-3"#, "frequency_penalty"), field(#""top_k":-2"#, "top_k"), field(#""min_p":1.5"#, "min_p"),
        field(#""typical_p":0"#, "typical_p"), field(#""repetition_penalty":0"#, "repetition_penalty"),
        field(#""repetition_penalty":1.1,"repeat_penalty":1.2"#, "repeat_penalty"), field(#""repeat_last_n":-2"#, "repeat_last_n"),
        field(#""seed":1.5"#, "seed", "invalid_type"), field(#""seed":9223372036854775808"#, "seed"), field(#""seed":-9223372036854775809"#, "seed"),
        field(#""priority":"high""#, "priority", "invalid_type", "is a string, expected an integer"), field(#""priority":0.5"#, "priority", "invalid_type"),
        field(#""priority":2147483648"#, "priority"),
        field(#""priority":-2147483649"#, "priority", "invalid_value", "expected an integer of at least -2147483648 and at most 2147483647"),
        field(#""stop":"""#, "stop"), field(#""stop":["a",""]"#, "stop"), field(#""stop":["a",1]"#, "stop[1]", "invalid_type"),
        field(#""stop":7"#, "stop", "invalid_type"),
        field("\"stop\":[\(Array(repeating: "\"a\"", count: 10_000).joined(separator: ","))]", "stop", "invalid_value", "10000 strings"),
        field("\"stop\":\"\(String(repeating: "a", count: 513))\"", "stop"),
        field(#""logit_bias":[1]"#, "logit_bias", "invalid_type"), field(#""logit_bias":{"65":101}"#, "logit_bias"),
        field(#""logit_bias":{"259":1}"#, "logit_bias", "invalid_value", "0 to 258"), field(#""logit_bias":{"-1":1}"#, "logit_bias"),
        field(#""logit_bias":{"a":1}"#, "logit_bias"), field(#""logit_bias":{"1":"x"}"#, "logit_bias"),
        field("\"logit_bias\":{\((0..<1025).map { "\"\($0)\":1" }.joined(separator: ","))}", "logit_bias", "invalid_value", "1025 entries"),
        field(#""stream":"yes""#, "stream", "invalid_type"), field(#""ignore_eos":1"#, "ignore_eos", "invalid_type"),
        field(#""stream_options":{"include_usage":true}"#, "stream_options"),
        field(#""stream":true,"stream_options":{"include_usage":1}"#, "stream_options.include_usage", "invalid_type"),
        field(#""stream":true,"stream_options":true"#, "stream_options", "invalid_type"), field(#""model":5"#, "model", "invalid_type"),
    ]

    static let unsupported: [Case] = [
        #""tools":[{"type":"function","function":{"name":"f"}}]"#, #""tool_choice":"required""#,
        #""tool_choice":{"type":"function","function":{"name":"f"}}"#, #""functions":[{"name":"f"}]"#, #""function_call":{"name":"f"}"#,
        #""response_format":{"type":"json_object"}"#, #""response_format":{"type":"json_schema","json_schema":{}}"#,
        #""modalities":["text","audio"]"#, #""audio":{"voice":"alloy"}"#, #""prediction":{"type":"content","content":"x"}"#,
        #""reasoning_effort":"high""#, #""chat_template":"{{ x }}""#, #""chat_template_kwargs":{"a":1}"#, #""web_search_options":{}"#,
        #""min_tokens":5"#, #""guided_json":{}"#, #""guided_regex":"a""#, #""grammar":"root ::= x""#, #""json_schema":{"type":"object"}"#,
        #""use_beam_search":true"#, #""stop_token_ids":[1]"#, #""mirostat":2"#, #""lora":[{"id":0,"scale":1}]"#, #""adapter":"x""#,
        #""cache_prompt":false"#, #""n_predict":4"#, #""continue_final_message":true"#,
    ].map { text in
        let name = text.dropFirst().prefix { $0 != "\"" }
        return field(text, String(name), "unsupported_parameter", "'\(name)' is not supported")
    }

    static let conversations: [Case] = [
        Case("", nil, "invalid_json"), Case("{", nil, "invalid_json"), Case("[]", nil, "invalid_type", "expected a JSON object"),
        Case("\"x\"", nil, "invalid_type"), Case("{} x", nil, "invalid_json"),
        Case(String(repeating: "[", count: 65), nil, "invalid_json", "limit of 64"),
        Case(String(repeating: "[", count: 100_000), nil, "invalid_json", "limit of 64"),
        Case(#"{"messages":[{"role":"user","content":"\ud800"}]}"#, nil, "invalid_json"),
        Case("{}", "messages", "missing_required_parameter"), Case(#"{"messages":null}"#, "messages", "missing_required_parameter"),
        Case(#"{"messages":"Hi"}"#, "messages", "invalid_type"), Case(#"{"messages":[]}"#, "messages", "invalid_value"),
        Case(#"{"messages":["Hi"]}"#, "messages[0]", "invalid_type"),
        Case(#"{"messages":[{"content":"Hi"}]}"#, "messages[0].role", "missing_required_parameter"),
        Case(#"{"messages":[{"role":"king","content":"Hi"}]}"#, "messages[0].role", "invalid_value", #"is "king", expected one of "system""#),
        Case(#"{"messages":[{"role":"user"}]}"#, "messages[0].content", "missing_required_parameter"),
        Case(#"{"messages":[{"role":"user","content":5}]}"#, "messages[0].content", "invalid_type"),
        Case(#"{"messages":[{"role":"user","content":["Hi"]}]}"#, "messages[0].content[0]", "invalid_type"),
        Case(#"{"messages":[{"role":"user","content":[{"text":"Hi"}]}]}"#, "messages[0].content[0].type", "missing_required_parameter"),
        Case(#"{"messages":[{"role":"user","content":[{"type":"text"}]}]}"#, "messages[0].content[0].text", "missing_required_parameter"),
        Case(
            #"{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:"}}]}]}"#, "messages[0].content[0].type",
            "unsupported_value", "no images"),
        Case(#"{"messages":[{"role":"user","content":"x","tool_calls":[]}]}"#, "messages[0].tool_calls", "invalid_value"),
        Case(#"{"messages":[{"role":"assistant","tool_calls":[{}]}]}"#, "messages[0].tool_calls[0]", "invalid_type"),
        Case(#"{"messages":[{"role":"tool","content":"x"}]}"#, "messages", "template_error"),
        Case(#"{"model":"nobody","messages":[{"role":"user","content":"Hi"}]}"#, "model", "model_not_found", "'nobody'", status: 404),
        Case(#"{"model":"","messages":[{"role":"user","content":"Hi"}]}"#, "model", "model_not_found", status: 404),
        Case(
            #"{"messages":[{"role":"user","content":"\#(String(repeating: "x", count: 600))"}]}"#, "messages", "context_length_exceeded", "holds 512"),
    ]

    static let completions: [Case] = [
        Case("{}", "prompt", "missing_required_parameter"), Case(#"{"prompt":7}"#, "prompt", "invalid_type"),
        Case(#"{"prompt":[]}"#, "prompt", "invalid_value"), Case(#"{"prompt":""}"#, "prompt", "invalid_value", "no tokens"),
        Case(#"{"prompt":["a",""]}"#, "prompt[1]", "invalid_value"), Case(#"{"prompt":[[]]}"#, "prompt", "invalid_value"),
        Case(#"{"prompt":[1,259]}"#, "prompt[1]", "invalid_value", "0 to 258"), Case(#"{"prompt":[-1]}"#, "prompt[0]", "invalid_value"),
        Case(#"{"prompt":[1,"a"]}"#, "prompt[1]", "invalid_type"), Case(#"{"prompt":[[1],5]}"#, "prompt[1]", "invalid_type"),
        Case(#"{"prompt":[1.5]}"#, "prompt[0]", "invalid_type"), Case(#"{"prompt":[true]}"#, "prompt[0]", "invalid_type"),
        Case("{\"prompt\":[\(Array(repeating: "\"a\"", count: 129).joined(separator: ","))]}", "prompt", "invalid_value", "at most 128"),
        prompt(#""max_tokens":0"#, "max_tokens"), prompt(#""logprobs":101"#, "logprobs"), prompt(#""logprobs":true"#, "logprobs", "invalid_type"),
        prompt(#""best_of":3"#, "best_of", "unsupported_parameter"), prompt(#""suffix":"x""#, "suffix", "unsupported_parameter"),
        prompt(#""echo":"yes""#, "echo", "invalid_type"), prompt(#""model":"nobody""#, "model", "model_not_found"),
    ]

    private func check(_ test: Case, path: String) async throws {
        let harness = try Harness(configure: { $0.inlineBodyBytes = .max })
        let response = await harness.response(await harness.send(.post, path, test.body))
        let status = test.code == "model_not_found" ? 404 : test.status
        #expect(response.status == status)
        #expect(response.heads == 1 && response.ends == 1)
        #expect(response.head?.headerFields[.contentType] == "application/json")
        let json = try response.json()
        #expect(json.sortedKeys == ["error"])
        let error = try #require(json["error"])
        #expect(error.sortedKeys == ["code", "message", "param", "type"])
        #expect(error["code"]?.string == test.code)
        #expect(error["param"]?.string == test.param)
        #expect(error["type"]?.string == (status == 404 ? "not_found_error" : "invalid_request_error"))
        let message = try #require(error["message"]?.string)
        #expect(test.message.isEmpty || message.contains(test.message))
        #expect(message.utf8.count < 400)
        #expect(harness.engine.submissions.isEmpty)
    }

    @Test(arguments: ranges) func range(_ test: Case) async throws { try await check(test, path: "/v1/chat/completions") }
    @Test(arguments: unsupported) func unsupportedParameter(_ test: Case) async throws { try await check(test, path: "/v1/chat/completions") }
    @Test(arguments: conversations) func conversation(_ test: Case) async throws { try await check(test, path: "/v1/chat/completions") }
    @Test(arguments: completions) func completion(_ test: Case) async throws { try await check(test, path: "/v1/completions") }

    @Test func malformedUTF8() async throws {
        let harness = try Harness()
        let request = IncomingRequest(
            exchange: .numbered(99), head: HTTPRequest(method: .post, scheme: "http", authority: "x", path: "/v1/completions"),
            path: "/v1/completions", query: [], body: Array(#"{"prompt":""#.utf8) + [0xFF] + Array(#""}"#.utf8), requestID: "r", receivedAt: .now)
        await harness.transport.perform { [handlers = harness.handlers] in handlers.handle(request, on: $0) }
        let response = await harness.response(request.exchange)
        #expect(response.status == 400)
        #expect(try response.json()["error"]?["code"] == "invalid_json")
    }

    @Test(arguments: ["text/plain", "multipart/form-data; boundary=x", "application/jsonx", ""]) func mediaType(_ type: String) async throws {
        let harness = try Harness()
        let response = await harness.response(await harness.send(.post, "/v1/completions", #"{"prompt":"a"}"#, contentType: type))
        #expect(response.status == 415)
        #expect(try response.json()["error"]?["code"] == "unsupported_media_type")
    }

    @Test(arguments: ["application/json", "Application/JSON; charset=utf-8", nil]) func acceptedMediaType(_ type: String?) async throws {
        let harness = try Harness()
        await harness.send(.post, "/v1/completions", #"{"prompt":"a"}"#, contentType: type)
        #expect(harness.engine.submissions.count == 1)
    }

    @Test func aRequestThatCannotBeQueuedEvenWhenIdle() async throws {
        let harness = try Harness(engine: ScriptedEngine(maxQueued: 4))
        let response = await harness.response(await harness.complete(#"{"prompt":["a","b","c"],"n":2}"#))
        #expect(response.status == 400)
        #expect(try response.json()["error"]?["param"] == "prompt")
    }

    @Test(arguments: HTTPRejection.Reason.allCases) func rejections(_ reason: HTTPRejection.Reason) throws {
        let harness = try Harness()
        let (head, body) = harness.handlers.response(to: HTTPRejection(reason, "found 1, expected 0"))
        let statuses: [HTTPRejection.Reason: Int] = [
            .malformed: 400, .needsTLS: 400, .targetTooLong: 414, .headersTooLarge: 431, .bodyTooLarge: 413, .misdirected: 421, .headerTimeout: 408,
            .bodyTimeout: 408, .tooManyConnections: 503, .expectationFailed: 417, .unsupportedVersion: 505, .unsupportedTransferCoding: 501,
        ]
        #expect(head.status.code == statuses[reason])
        #expect(head.headerFields[.contentType] == "application/json")
        #expect((head.headerFields[.retryAfter] != nil) == (head.status.code == 503))
        #expect(head.headerFields[text: "x-should-retry"] == ([501, 505].contains(head.status.code) ? "false" : nil))
        let error = try #require(try JSONValue(parsing: body)["error"])
        #expect(error.sortedKeys == ["code", "message", "param", "type"])
        #expect(error["message"] == "found 1, expected 0" && error["param"] == .null && error["code"]?.string != nil)
    }
}
