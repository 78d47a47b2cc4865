import HTTPServing
import HTTPTypes
import Inference
import JSON
import OpenAIAPI
import Testing

/// What becomes of a request when the client, the engine or the server does not do as hoped.
@Suite struct LifecycleTests {
    private static let stream = #"{"messages":[{"role":"user","content":"Hi"}],"stream":true,"n":2}"#
    private static let whole = #"{"messages":[{"role":"user","content":"Hi"}],"n":2}"#

    @Test(arguments: [stream, whole], [false, true]) func theClientLeaves(_ body: String, afterStart: Bool) async throws {
        let harness = try Harness()
        let id = await harness.chat(body)
        if afterStart { harness.engine.text("a") }
        let before = await harness.response(id)
        await harness.close(id)
        #expect(harness.engine.cancelled == harness.engine.submissions.map(\.id))
        // What the engine had under way finds nobody.
        harness.engine.answer("late")
        let after = await harness.response(id)
        #expect(after.text == before.text && after.heads == before.heads && after.ends == 0)
        await harness.close(id)
        #expect(harness.engine.cancelled.count == 2)
        let status = afterStart && body == Self.stream ? "200" : "499"
        #expect(harness.metric("graft_requests_total") == [#"graft_requests_total{route="/v1/chat/completions",status="\#(status)",model="tiny"} 1"#])
    }

    @Test func onlyUnfinishedSequencesAreCancelled() async throws {
        let harness = try Harness()
        let id = await harness.chat(Self.stream)
        harness.engine.answer("a", to: 0)
        _ = await harness.response(id)
        await harness.close(id)
        #expect(harness.engine.cancelled == [harness.engine.submissions[1].id])
    }

    @Test func aFinishedExchangeLeavesNothing() async throws {
        let harness = try Harness()
        let id = await harness.chat(Self.whole)
        harness.engine.answer("a", to: 0)
        harness.engine.answer("b", to: 1)
        #expect(await harness.response(id).status == 200)
        await harness.close(id)
        await harness.setCongested(id, true)
        #expect(harness.engine.cancelled.isEmpty && harness.engine.paused.isEmpty)
    }

    @Test func aSlowReaderPausesItsOwnSequences() async throws {
        let harness = try Harness()
        let id = await harness.chat(Self.stream)
        _ = await harness.chat(Self.stream)
        let ids = harness.engine.submissions.map(\.id)
        harness.engine.answer("a", to: 0)
        _ = await harness.response(id)
        await harness.setCongested(id, true)
        #expect(harness.engine.paused == [ids[1]: true])
        await harness.setCongested(id, false)
        #expect(harness.engine.paused == [ids[1]: false])
    }

    @Test func aConnectionThatBreaksWhileWriting() async throws {
        let harness = try Harness()
        let id = await harness.chat(Self.stream)
        await harness.transport.setOnWrite { [handlers = harness.handlers] in handlers.exchangeClosed(id, on: $0) }
        harness.engine.step([(0, .started(cachedTokens: 0)), (0, .text("a", tokens: [])), (1, .text("b", tokens: []))])
        _ = await harness.response(id)
        #expect(harness.engine.cancelled == harness.engine.submissions.map(\.id))
    }

    @Test func aFullQueue() async throws {
        let harness = try Harness()
        harness.engine.refuse(after: 1, with: InferenceError(.queueFull, "12 sequences wait"))
        let response = await harness.response(await harness.chat(Self.whole))
        #expect(response.status == 503 && response.heads == 1)
        #expect(response.head?.headerFields[.retryAfter] == "1")
        #expect(try response.json()["error"]?["code"] == "server_busy")
        #expect(try response.json()["error"]?["type"] == "unavailable_error")
        // The choice that was accepted is given back.
        #expect(harness.engine.cancelled == harness.engine.submissions.map(\.id))
        harness.engine.answer("late")
        #expect(await harness.response(.numbered(1)).heads == 1)
    }

    @Test(arguments: [(InferenceError.Code.contextLengthExceeded, 400, "context_length_exceeded"), (.shuttingDown, 503, "shutting_down"), (.invalidRequest, 400, "invalid_value"), (.internalFailure, 500, "internal_error")])
    func refusals(_ code: InferenceError.Code, _ status: Int, _ word: String) async throws {
        let harness = try Harness()
        harness.engine.refuse(after: 0, with: InferenceError(code, "at 0x1234"))
        let response = await harness.response(await harness.chat(Self.stream))
        #expect(response.status == status && !response.isStream)
        #expect(try response.json()["error"]?["code"]?.string == word)
        // The client libraries repeat a 500, and this one would come back each time.
        #expect(response.head?.headerFields[text: "x-should-retry"] == (code == .internalFailure ? "false" : nil))
        if code == .internalFailure {
            #expect(!response.text.contains("0x1234"))
            #expect(harness.logs.text.contains("0x1234"))
        }
    }

    @Test(arguments: [stream, whole]) func aFailureBeforeTheFirstEvent(_ body: String) async throws {
        let harness = try Harness()
        let id = await harness.chat(body)
        harness.engine.emit(.failed(InferenceError(.internalFailure, "out of blocks")), to: 1)
        let response = await harness.response(id)
        #expect(response.status == 500 && !response.isStream && response.ends == 1)
        #expect(response.head?.headerFields[text: "x-should-retry"] == "false")
        #expect(try response.json()["error"]?["type"] == "server_error")
        #expect(harness.engine.cancelled == [harness.engine.submissions[0].id])
    }

    @Test func aFailureInsideAStream() async throws {
        let harness = try Harness()
        let id = await harness.chat(Self.stream)
        harness.engine.text("a", to: 0)
        harness.engine.emit(.failed(InferenceError(.internalFailure, "out of blocks")), to: 1)
        let response = await harness.response(id)
        #expect(response.status == 200 && response.isOver && response.ends == 1)
        let events = response.events()
        #expect(!events.contains("[DONE]"))
        let last = try JSONValue(parsing: Array(try #require(events.last).utf8))
        #expect(last.sortedKeys == ["error"])
        #expect(last["error"]?.sortedKeys == ["code", "message", "param", "type"])
        #expect(last["error"]?["code"] == "internal_error")
        #expect(harness.engine.cancelled == [harness.engine.submissions[0].id])
        #expect(harness.metric("graft_broken_streams_total") == [#"graft_broken_streams_total{model="tiny"} 1"#])
    }

    @Test func aFailureInsideAWholeAnswer() async throws {
        let harness = try Harness()
        let id = await harness.chat(Self.whole)
        harness.engine.answer("a", to: 0)
        harness.engine.emit(.failed(InferenceError(.internalFailure, "out of blocks")), to: 1)
        let response = await harness.response(id)
        #expect(response.status == 500 && response.heads == 1 && response.ends == 1)
    }

    @Test func draining() async throws {
        let harness = try Harness()
        let running = await harness.chat(Self.whole)
        harness.handlers.beginDraining()
        let refused = await harness.response(await harness.chat(Self.whole))
        #expect(refused.status == 503)
        #expect(refused.head?.headerFields[.retryAfter] == "5")
        #expect(await harness.get("/readyz").status == 503)
        #expect(await harness.get("/livez").status == 200)
        harness.engine.answer("a", to: 0)
        harness.engine.answer("b", to: 1)
        #expect(await harness.response(running).status == 200)
    }

    @Test func aLargeBodyIsPreparedElsewhere() async throws {
        let harness = try Harness(configure: { $0.inlineBodyBytes = 10 })
        let id = await harness.chat(Self.whole)
        while harness.engine.submissions.isEmpty {
            await harness.transport.waitForJob()
            await harness.transport.runJobs()
        }
        #expect(harness.engine.submissions.count == 2)
        harness.engine.answer("a", to: 0)
        harness.engine.answer("b", to: 1)
        #expect(await harness.response(id).status == 200)
    }

    @Test func aLargeBodyWithAnError() async throws {
        let harness = try Harness(configure: { $0.inlineBodyBytes = 10 })
        let id = await harness.chat(#"{"messages":[],"pad":1}"#)
        #expect(await harness.settled(id).status == 400)
    }

    @Test func theClientLeavesDuringPreparation() async throws {
        let harness = try Harness(configure: { $0.inlineBodyBytes = 10 })
        let id = ExchangeID.numbered(7)
        let request = IncomingRequest(
            exchange: id, head: HTTPRequest(method: .post, scheme: "http", authority: "x", path: "/v1/completions"), path: "/v1/completions",
            query: [], body: Array(#"{"prompt":"abcdefgh"}"#.utf8), requestID: "r", receivedAt: .now)
        await harness.transport.perform { [handlers = harness.handlers] transport in
            handlers.handle(request, on: transport)
            handlers.exchangeClosed(id, on: transport)
        }
        await harness.transport.waitForJob()
        #expect(await harness.response(id).head == nil)
        #expect(harness.engine.submissions.isEmpty)
    }

    @Test("R23 ready means that a step has ended in the last five seconds; alive means nothing of the engine")
    func readiness() async throws {
        let harness = try Harness()
        #expect(await harness.get("/readyz").status == 503, "nothing shows that the engine works")
        let first = harness.clock.now
        harness.engine.setStatistics { $0.lastStep = first }
        harness.clock.advance(by: .milliseconds(4999))
        #expect(await harness.get("/readyz").status == 200)
        harness.clock.advance(by: .milliseconds(1))
        let stalled = await harness.get("/readyz")
        #expect(stalled.status == 503)
        #expect(try stalled.json()["error"]?["code"] == "engine_stalled")
        #expect(await harness.get("/health").status == 503)
        #expect(stalled.head?.headerFields[.retryAfter] == "5")
        #expect(await harness.get("/livez").status == 200)
        let step = harness.clock.now
        harness.engine.setStatistics { $0.lastStep = step }
        #expect(await harness.get("/readyz").status == 200)
    }

    @Test(arguments: [stream, whole]) func aStalledEngineIsNotReadyWhateverClientsDo(_ body: String) async throws {
        let harness = try Harness()
        let step = harness.clock.now
        harness.engine.setStatistics { $0.lastStep = step }
        for _ in 0..<3 {
            let id = await harness.chat(body)
            harness.engine.setStatistics { $0.waiting += 2 }
            harness.clock.advance(by: .seconds(2))
            await harness.close(id)
        }
        #expect(await harness.get("/readyz").status == 503)
    }

    @Test("a drain that takes too long ends streams with an error event, and other answers with an error")
    func theEndOfADrain() async throws {
        let harness = try Harness()
        let streamed = await harness.chat(Self.stream)
        harness.engine.text("a", to: 0)
        _ = await harness.response(streamed)
        let unstarted = await harness.chat(Self.stream)
        let whole = await harness.chat(Self.whole)
        harness.handlers.beginDraining()
        await harness.transport.perform { [handlers = harness.handlers] in handlers.endExchanges(on: $0) }
        let cut = await harness.response(streamed)
        #expect(cut.status == 200 && cut.isOver && cut.ends == 1)
        let last = try JSONValue(parsing: Array(try #require(cut.events().last).utf8))
        #expect(last["error"]?["code"] == "shutting_down")
        for id in [unstarted, whole] {
            let refused = await harness.response(id)
            #expect(refused.status == 503 && !refused.isStream && refused.ends == 1)
            #expect(refused.head?.headerFields[.retryAfter] == "5")
        }
        #expect(Set(harness.engine.cancelled) == Set(harness.engine.submissions.map(\.id)))
        await harness.transport.perform { [handlers = harness.handlers] in handlers.endExchanges(on: $0) }
        #expect(await harness.response(streamed).ends == 1, "nothing is ended twice")
    }
}
