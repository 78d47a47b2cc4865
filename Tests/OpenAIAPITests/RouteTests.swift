import HTTPTypes
import Inference
import JSON
import OpenAIAPI
import Testing

@Suite struct RouteTests {
    @Test func models() async throws {
        let harness = try Harness(models: [TestModel.make(), TestModel.make(name: "org/other", aliases: ["tiny", "o"])])
        let list = try await harness.get("/v1/models").json()
        #expect(list["object"] == "list")
        #expect(list["data"]?.array?.map { $0["id"] } == ["tiny", "org/other"])
        let card = try #require(list["data"]?[0])
        #expect(
            card == [
                "id": "tiny", "object": "model", "created": 1_700_000_000, "owned_by": "graft", "root": "tiny", "parent": .null,
                "permission": [], "max_model_len": 512,
                "digest": "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            ])
        #expect(try await harness.get("/v1/models/tiny").json() == card)
        #expect(try await harness.get("/v1/models/default").json() == card)
        #expect(try await harness.get("/v1/models/org%2Fother").json()["id"] == "org/other")
        #expect(try await harness.get("/v1/models/o").json()["id"] == "org/other")
        let missing = await harness.get("/v1/models/nobody")
        #expect(missing.status == 404)
        #expect(try missing.json()["error"]?["code"] == "model_not_found")
    }

    @Test func versionAndLife() async throws {
        let harness = try Harness()
        #expect(try await harness.get("/version").json() == ["name": "graft", "version": "1.2.3"])
        #expect(try await harness.get("/livez").json() == ["status": "ok"])
        let step = harness.clock.now
        harness.engine.setStatistics { $0.lastStep = step }
        #expect(try await harness.get("/readyz").json() == ["status": "ok"])
    }

    @Test(arguments: ["/", "/v1", "/v1/chat/completions/", "/v2/models", "/metrics/x", "/v1/embeddings"]) func unknownPath(_ path: String) async throws {
        let response = await (try Harness()).get(path)
        #expect(response.status == 404)
        #expect(try response.json()["error"]?["code"] == "unknown_url")
    }

    @Test func wrongMethods() async throws {
        let harness = try Harness()
        let chat = await harness.get("/v1/completions")
        #expect(chat.status == 405 && chat.head?.headerFields[.allow] == "POST")
        let models = await harness.response(await harness.send(.delete, "/v1/models"))
        #expect(models.status == 405 && models.head?.headerFields[.allow] == "GET, HEAD")
        #expect(try models.json()["error"]?["code"] == "method_not_allowed")
        #expect(await harness.response(await harness.send(.head, "/livez")).status == 200)
    }

    @Test func tokenizeAsLlamaCpp() async throws {
        let harness = try Harness()
        func tokenize(_ body: String) async throws -> JSONValue {
            try await harness.response(await harness.send(.post, "/tokenize", body)).json()
        }
        #expect(try await tokenize(#"{"content":"ab"}"#) == ["tokens": [97, 98], "count": 2, "max_model_len": 512])
        #expect(try await tokenize(#"{"content":"<|im_end|>"}"#)["tokens"] == [258])
        #expect(try await tokenize(#"{"content":"<|im_end|>","parse_special":false}"#)["count"] == 10)
        #expect(
            try await tokenize(#"{"content":"aé","with_pieces":true}"#)["tokens"] == [
                ["id": 97, "piece": "a"], ["id": 0xC3, "piece": [0xC3]], ["id": 0xA9, "piece": [0xA9]],
            ])
        #expect(try await tokenize(#"{"content":""}"#)["tokens"] == [])
    }

    @Test func tokenizeAsVLLM() async throws {
        let harness = try Harness()
        let prompt = await harness.response(await harness.send(.post, "/tokenize", #"{"model":"tiny","prompt":"ab","zzz":1}"#))
        #expect(try prompt.json() == ["tokens": [97, 98], "count": 2, "max_model_len": 512])
        #expect(prompt.head?.headerFields[text: "graft-ignored-parameters"] == "zzz")
        let chat = await harness.response(await harness.send(.post, "/tokenize", #"{"messages":[{"role":"user","content":"Hi"}]}"#))
        _ = await harness.chat(#"{"messages":[{"role":"user","content":"Hi"}]}"#)
        #expect(try chat.json()["tokens"]?.array?.compactMap(\.integer) == harness.engine.requests[0].prompt.map(Int64.init))
    }

    @Test func detokenize() async throws {
        let harness = try Harness()
        let response = await harness.response(await harness.send(.post, "/detokenize", #"{"tokens":[97,258]}"#))
        #expect(try response.json() == ["content": "a<|im_end|>", "prompt": "a<|im_end|>"])
    }

    @Test(arguments: [
        ("/tokenize", "{}", "content"), ("/tokenize", #"{"content":"a","prompt":"b"}"#, "content"), ("/tokenize", #"{"content":1}"#, "content"),
        ("/detokenize", "{}", "tokens"), ("/detokenize", #"{"tokens":[259]}"#, "tokens[0]"), ("/detokenize", #"{"tokens":"a"}"#, "tokens"),
        ("/tokenize", #"{"content":"a","model":"nobody"}"#, "model"),
    ]) func conversionErrors(_ path: String, _ body: String, _ param: String) async throws {
        let harness = try Harness()
        let response = await harness.response(await harness.send(.post, path, body))
        #expect(response.status == (param == "model" ? 404 : 400))
        #expect(try response.json()["error"]?["param"]?.string == param)
    }

    @Test func metrics() async throws {
        let harness = try Harness()
        let id = await harness.chat(#"{"model":"small","messages":[{"role":"user","content":"Hi"}]}"#)
        harness.clock.advance(by: .milliseconds(300))
        harness.engine.emit(.started(cachedTokens: 5))
        harness.engine.text("a")
        _ = await harness.response(id)
        harness.clock.advance(by: .milliseconds(30))
        harness.engine.text("bc")
        harness.engine.finish(cached: 5, completion: 3)
        _ = await harness.response(id)
        _ = await harness.chat("{")
        _ = await harness.chat(#"{"model":"attack-1","messages":[]}"#)
        _ = await harness.get("/nowhere/at/all")
        harness.engine.setStatistics {
            $0.running = 1
            $0.waiting = 2
            $0.blocksTotal = 100
            $0.blocksInUse = 7
            $0.windowBlocksTotal = 50
            $0.windowBlocksInUse = 5
            $0.steps = 42
            $0.preemptions = 3
            $0.recomputedTokens = 70
        }
        let response = await harness.get("/metrics")
        #expect(response.head?.headerFields[.contentType] == "text/plain; version=0.0.4; charset=utf-8")
        for line in [
            #"graft_requests_total{route="/v1/chat/completions",status="200",model="tiny"} 1"#,
            #"graft_requests_total{route="/v1/chat/completions",status="400",model=""} 2"#,
            #"graft_requests_total{route="unmatched",status="404",model=""} 1"#,
            #"graft_cached_tokens_total{model="tiny"} 5"#, #"graft_completion_tokens_total{model="tiny"} 3"#,
            #"graft_time_to_first_token_seconds_bucket{model="tiny",le="0.25"} 0"#,
            #"graft_time_to_first_token_seconds_bucket{model="tiny",le="0.5"} 1"#, #"graft_time_to_first_token_seconds_count{model="tiny"} 1"#,
            #"graft_inter_token_seconds_bucket{model="tiny",le="0.01"} 0"#, #"graft_inter_token_seconds_bucket{model="tiny",le="0.02"} 2"#,
            #"graft_request_duration_seconds_count{model="tiny"} 1"#, "graft_sequences_running 1", "graft_queue_depth 2",
            #"graft_kv_blocks{state="total"} 100"#, #"graft_kv_blocks{state="in_use"} 7"#,
            #"graft_kv_window_blocks{state="total"} 50"#, #"graft_kv_window_blocks{state="in_use"} 5"#, "graft_engine_steps_total 42",
            "graft_preemptions_total 3", #"graft_engine_tokens_total{kind="recomputed"} 70"#,
            #"graft_build_info{version="1.2.3"} 1"#, "# TYPE graft_inter_token_seconds histogram",
        ] {
            #expect(response.text.split(separator: "\n").contains { $0 == line }, "\(line)")
        }
        #expect(!response.text.contains("attack") && !response.text.contains("nowhere") && !response.text.contains("small"))
    }

    /// A canary in every place where a client can put words: it must come out nowhere but in answers.
    @Test func privacy() async throws {
        let harness = try Harness()
        let canary = "kanarienvogel"
        let ids = [
            await harness.chat(#"{"messages":[{"role":"user","content":"\#(canary)"}],"user":"\#(canary)","metadata":{"a":"\#(canary)"}}"#),
            await harness.chat(#"{"messages":[{"role":"user","content":{"a":"\#(canary)"}}]}"#),
            await harness.chat(#"{"messages":[{"role":"user","content":"\#(canary)"#),
            await harness.chat(#"{"messages":[{"role":"tool","content":"\#(canary)"}]}"#),
            await harness.chat(#"{"messages":[{"role":"user","content":"\#(canary)"}],"stop":["\#(canary)",1]}"#),
            await harness.complete(#"{"prompt":["\#(canary)",5]}"#),
            await harness.send(.post, "/tokenize", #"{"content":"\#(canary)","prompt":"\#(canary)"}"#),
            await harness.send(.get, "/\(canary)"),
        ]
        harness.engine.emit(.failed(InferenceError(.internalFailure, "out of blocks")))
        for id in ids {
            let response = await harness.response(id)
            #expect(response.status.map { $0 >= 400 } == true)
            #expect(!response.text.contains(canary))
        }
        #expect(!harness.logs.text.isEmpty)
        #expect(!harness.logs.text.contains(canary))
        #expect(!(await harness.get("/metrics")).text.contains(canary))
    }
}
