import HTTPServing
import HTTPTypes
import OpenAIAPI
import Testing
import Tokenization

/// Templates come with a model file, and some take long: the server's own thread never waits for one.
@Suite struct SlowTemplateTests {
    private func model(_ loop: String) throws -> ServedModel {
        var model = try TestModel.make()
        model.encoder = ConversationEncoder(tokenizer: model.tokenizer, chatTemplate: try ChatTemplate(source: loop + TestModel.template))
        return model
    }

    /// Handles a small request without running what other threads post: what is answered now was answered by the server's thread.
    private func handle(_ path: String, _ harness: Harness) async -> (id: ExchangeID, isAnswered: Bool) {
        let id = ExchangeID.numbered(1000)
        var head = HTTPRequest(method: .post, scheme: "http", authority: "localhost", path: path)
        head.headerFields[.contentType] = "application/json"
        let request = IncomingRequest(
            exchange: id, head: head, path: path, query: [], body: Array(#"{"messages":[{"role":"user","content":"Hi"}]}"#.utf8), requestID: "req-1",
            receivedAt: harness.clock.now)
        await harness.transport.perform { [handlers = harness.handlers] transport in handlers.handle(request, on: transport) }
        return (id, await harness.transport.responses[id] != nil || !harness.engine.submissions.isEmpty)
    }

    @Test(arguments: ["/v1/chat/completions", "/tokenize"]) func aTemplateWithoutEndEndsOnAnotherThread(path: String) async throws {
        let endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
        let harness = try Harness(models: [try model(endless)])
        let (id, isAnswered) = await handle(path, harness)
        #expect(!isAnswered)
        let response = await harness.settled(id)
        #expect(response.status == 400)
        let error = try response.json()["error"]
        #expect(error?["code"]?.string == "template_limit" && error?["param"]?.string == "messages")
        #expect(error?["message"]?.string?.contains("limit of 20000000 steps") == true)
        #expect(harness.engine.submissions.isEmpty)
        // The next request of any other kind is answered as ever.
        #expect(await harness.response(await harness.send(.get, "/livez", contentType: nil)).status == 200)
    }

    @Test func aTemplateThatTakesLongIsRenderedOnAnotherThread() async throws {
        let harness = try Harness(models: [try model("{%- for a in range(90000) %}{% set x = a + 1 %}{% endfor -%}")])
        let (id, isAnswered) = await handle("/v1/chat/completions", harness)
        #expect(!isAnswered)
        await harness.transport.waitForJob()
        #expect(await harness.response(id).status == nil)
        #expect(harness.engine.submissions.map(\.request.prompt) == [try tokens(of: "Hi")])
        await harness.close(id)
    }

    @Test func aTemplateThatTakesNoTimeIsRenderedAtOnce() async throws {
        let harness = try Harness(models: [try model("{%- for a in range(9000) %}{% set x = a + 1 %}{% endfor -%}")])
        let (id, isAnswered) = await handle("/v1/chat/completions", harness)
        #expect(isAnswered)
        #expect(harness.engine.submissions.map(\.request.prompt) == [try tokens(of: "Hi")])
        await harness.close(id)
    }

    private func tokens(of question: String) throws -> [Int32] {
        [TestModel.startOfTurn] + TestModel.ids("user\n\(question)") + [TestModel.endOfTurn] + TestModel.ids("\n") + [TestModel.startOfTurn]
            + TestModel.ids("assistant\n")
    }
}
