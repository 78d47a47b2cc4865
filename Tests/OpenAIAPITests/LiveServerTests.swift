import EventLoops
import Executors
import HTTPServing
import InstructionStore
import JSON
import Logging
import Observability
import OpenAIAPI
import Testing

/// The API on the real server, over sockets.
@Suite(.serialized) struct LiveServerTests {
    /// A server with a parrot for an engine; the body runs on a thread that may block.
    private func withServer(
        contextLength: Int = 4096, adapters: FakeAdapters? = nil, storage: Storage? = nil, configure: (inout APIConfiguration) -> Void = { _ in },
        _ body: @escaping @Sendable (Int, ParrotEngine) throws -> Void
    ) async throws {
        let engine = ParrotEngine(contextLength: contextLength)
        let model = try TestModel.make(contextLength: contextLength)
        var configuration = APIConfiguration(version: "1.2.3")
        configure(&configuration)
        let models: any ModelResolver = if let adapters { AdapterModels(base: model, adapters: adapters) } else { FixedModels([model]) }
        let api = APIServer(
            service: engine, models: models, adapters: adapters, files: storage?.files, inspect: Storage.inspect,
            exchanges: try storage.map { try ExchangeLog($0.store, keepsAll: true, logger: LogLines().logger()) }, keys: KeyRing(),
            audit: AuditTrail(logger: LogLines().logger()), configuration: configuration,
            registry: MetricsRegistry(), logger: LogLines().logger())
        let loop = try EventLoop(name: "test-http")
        let server = HTTPServer(loop: loop, configuration: HTTPServerConfiguration(), application: api)
        let port = try await server.listen(host: "127.0.0.1", port: 0)
        let threads = BlockingExecutor(name: "client", width: 1, capacity: 1)
        var failure: (any Error)?
        do {
            try await threads.run { try body(port, engine) }
        } catch {
            failure = error
        }
        await server.close()
        loop.shutdown()
        api.shutdown()
        engine.shutdown()
        threads.shutdown()
        if let failure { throw failure }
    }

    /// Splits a response into head and body; a chunked body is joined.
    private static func split(_ response: String) -> (head: String, body: String) {
        let bytes = Array(response.utf8)
        guard let end = bytes.indices.first(where: { bytes[$0...].starts(with: Array("\r\n\r\n".utf8)) }) else { return (response, "") }
        let head = String(decoding: bytes[..<end], as: UTF8.self)
        var rest = bytes[(end + 4)...]
        guard head.lowercased().contains("transfer-encoding: chunked") else { return (head, String(decoding: rest, as: UTF8.self)) }
        var body: [UInt8] = []
        while let line = rest.firstIndex(of: 13), let size = Int(String(decoding: rest[..<line], as: UTF8.self), radix: 16), size > 0 {
            body += rest[(line + 2)..<(line + 2 + size)]
            rest = rest[(line + 2 + size + 2)...]
        }
        return (head, String(decoding: body, as: UTF8.self))
    }

    @Test func wholeAndStreamedAnswersAgree() async throws {
        try await withServer { port, _ in
            let whole = try RawClient(port: port)
            try whole.post("/v1/chat/completions", #"{"messages":[{"role":"user","content":"Hi"}],"max_tokens":30}"#)
            let (head, body) = Self.split(try whole.read())
            #expect(head.hasPrefix("HTTP/1.1 200 OK\r\n"))
            #expect(head.lowercased().contains("x-request-id: ") && head.lowercased().contains("openai-processing-ms: "))
            let json = try JSONValue(parsing: Array(body.utf8))
            #expect(json["choices"]?[0]?["message"]?["content"] == "Polly wants a crâcker, and sa")
            #expect(json["usage"]?["completion_tokens"] == 30)

            let streamed = try RawClient(port: port)
            try streamed.post("/v1/chat/completions", #"{"messages":[{"role":"user","content":"Hi"}],"max_tokens":30,"stream":true}"#)
            let events = Self.split(try streamed.read()).body.split(separator: "\n\n").map { $0.dropFirst("data: ".count) }
            #expect(events.last == "[DONE]")
            let chunks = try events.dropLast().map { try JSONValue(parsing: Array($0.utf8)) }
            #expect(chunks.compactMap { $0["choices"]?[0]?["delta"]?["content"]?.string }.joined() == json["choices"]?[0]?["message"]?["content"]?.string)
            #expect(chunks.last?["choices"]?[0]?["finish_reason"] == "length")
        }
    }

    @Test func aLargePromptGoesThroughTheOtherThread() async throws {
        try await withServer { port, _ in
            let client = try RawClient(port: port)
            try client.post("/tokenize", #"{"content":"\#(String(repeating: "word ", count: 40_000))"}"#)
            let (head, body) = Self.split(try client.read())
            #expect(head.hasPrefix("HTTP/1.1 200 OK\r\n"))
            #expect(try JSONValue(parsing: Array(body.utf8))["count"] == 200_000)
        }
    }

    private static func upload(_ port: Int, bytes: Int) throws -> (head: String, body: String) {
        let form = "--cut\r\nContent-Disposition: form-data; name=\"name\"\r\n\r\nbot\r\n--cut\r\nContent-Disposition: form-data; name=\"gguf\"\r\n\r\n"
            + String(repeating: "\r", count: bytes) + "\r\n--cut--"
        let client = try RawClient(port: port)
        try client.send(
            "POST /v1/adapters HTTP/1.1\r\nhost: x\r\ncontent-type: multipart/form-data; boundary=cut\r\nconnection: close\r\ncontent-length: \(form.utf8.count)\r\n\r\n")
        // A server that refuses may close before it has read everything.
        try? client.send(form)
        return split(try client.read())
    }

    @Test func uploadsMayBeLargerThanOtherBodies() async throws {
        try await withServer(adapters: FakeAdapters()) { port, _ in
            let (head, body) = try Self.upload(port, bytes: 6 << 20)
            // Such a file is no GGUF, which only somebody who has read all of it can tell.
            #expect(head.hasPrefix("HTTP/1.1 422 "))
            #expect(try JSONValue(parsing: Array(body.utf8))["error"]?["param"] == "gguf")
        }
    }

    @Test func aClientThatLeavesMidUploadMakesPlace() async throws {
        try await withServer(adapters: FakeAdapters(), configure: { $0.adapterUploads = 1 }) { port, _ in
            let start = "POST /v1/adapters HTTP/1.1\r\nhost: x\r\ncontent-type: multipart/form-data; boundary=cut\r\n"
            var first: RawClient? = try RawClient(port: port)
            try first?.send(start + "expect: 100-continue\r\ncontent-length: 1000\r\n\r\n")
            #expect(try first?.read(enough: 1).hasPrefix("HTTP/1.1 100 ") == true)
            try first?.send("--cut\r\n")
            let refused = try Self.upload(port, bytes: 10)
            #expect(refused.head.hasPrefix("HTTP/1.1 503 ") && refused.head.lowercased().contains("retry-after: 1\r\n"))
            first = nil
            // Ends when the server has heard of it; a place that is lost would hang here until the tests' own limit.
            while try Self.upload(port, bytes: 10).head.hasPrefix("HTTP/1.1 503 ") { nap() }
            for _ in 0..<3 { #expect(try Self.upload(port, bytes: 10).head.hasPrefix("HTTP/1.1 422 ")) }
        }
    }

    @Test func commandsAreCapped() async throws {
        try await withServer(adapters: FakeAdapters()) { port, _ in
            for (bytes, status) in [(65_536, "404"), (65_537, "413")] {
                let client = try RawClient(port: port)
                try? client.post("/v1/adapters/bot/promote", "{}" + String(repeating: " ", count: bytes - 2))
                #expect(Self.split(try client.read()).head.hasPrefix("HTTP/1.1 \(status) "))
            }
        }
    }

    @Test func uploadsAreCapped() async throws {
        try await withServer(adapters: FakeAdapters(), configure: { $0.adapterUploadBytes = 1000 }) { port, _ in
            let large = try Self.upload(port, bytes: 2000)
            #expect(large.head.hasPrefix("HTTP/1.1 413 "))
            let small = try Self.upload(port, bytes: 200)
            #expect(small.head.hasPrefix("HTTP/1.1 422 "))
        }
        // Without adapters nobody is made to send megabytes.
        try await withServer { port, _ in
            let client = try RawClient(port: port)
            try client.send(
                "POST /v1/adapters HTTP/1.1\r\nhost: x\r\ncontent-type: multipart/form-data; boundary=cut\r\nexpect: 100-continue\r\ncontent-length: 99999999\r\n\r\n")
            let (head, body) = Self.split(try client.read())
            #expect(head.hasPrefix("HTTP/1.1 404 "))
            #expect(try JSONValue(parsing: Array(body.utf8))["error"]?["code"] == "adapters_disabled")
        }
    }

    @Test func anAdapterOverTheWire() async throws {
        let adapters = try FakeAdapters()
        try adapters.add("bot", versions: 2)
        adapters.evict("bot", 2)
        try await withServer(adapters: adapters) { port, _ in
            for isStreamed in [false, true] {
                let client = try RawClient(port: port)
                try client.post("/v1/chat/completions", #"{"model":"bot","messages":[{"role":"user","content":"Hi"}],"max_tokens":5,"stream":\#(isStreamed)}"#)
                let (head, body) = Self.split(try client.read())
                #expect(head.hasPrefix("HTTP/1.1 200 OK\r\n") && head.contains("graft-adapter: bot\r\n") && head.contains("graft-adapter-version: 2\r\n"))
                #expect(body.contains(#""model":"bot""#) && body.contains("Polly") == !isStreamed)
            }
            let client = try RawClient(port: port)
            try client.send("DELETE /v1/models/bot%402 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            #expect(Self.split(try client.read()).body == #"{"id":"bot@2","object":"model","deleted":true}"#)
        }
    }

    private static func uploadFile(_ port: Int, _ content: String) throws -> (head: String, body: String) {
        let form = Harness.form(content)
        let client = try RawClient(port: port)
        try client.send(
            "POST /v1/files HTTP/1.1\r\nhost: x\r\ncontent-type: multipart/form-data; boundary=cut\r\nconnection: close\r\n"
                + "content-length: \(form.utf8.count)\r\n\r\n")
        try? client.send(form)
        return split(try client.read())
    }

    @Test func filesGoToTheDiskAsTheyCome() async throws {
        let storage = try Storage()
        try await withServer(storage: storage) { port, _ in
            // Several times what may wait for the disk.
            let content = "{" + String(repeating: "\r\n--cu", count: 1 << 20)
            let (head, body) = try Self.uploadFile(port, content)
            #expect(head.hasPrefix("HTTP/1.1 200 "))
            let object = try JSONValue(parsing: Array(body.utf8))
            #expect(object["bytes"] == .integer(Int64(content.utf8.count)) && object["status"] == "processed")
            let client = try RawClient(port: port)
            try client.send("GET /v1/files/\(object["id"]?.string ?? "")/content HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            #expect(Self.split(try client.read()).body == content)
        }
        try await withServer(storage: storage, configure: { $0.fileBytes = 1000 }) { port, _ in
            let large = try Self.uploadFile(port, String(repeating: "{", count: 2000))
            #expect(large.head.hasPrefix("HTTP/1.1 413 "))
            let small = try Self.uploadFile(port, "{}")
            #expect(small.head.hasPrefix("HTTP/1.1 200 "))
        }
        #expect(try storage.folder.contents(of: "data/files/incoming").isEmpty)
    }

    @Test func whatIsKeptIsThereWhenTheServerIsGone() async throws {
        let storage = try Storage()
        try await withServer(storage: storage) { port, _ in
            let client = try RawClient(port: port)
            try client.post("/v1/chat/completions", #"{"messages":[{"role":"user","content":"Hi"}],"max_tokens":5}"#)
            #expect(Self.split(try client.read()).head.hasPrefix("HTTP/1.1 200 "))
        }
        let kept = try storage.store.exchanges(ExchangeFilter(), owner: "local", after: nil, limit: 9, ascending: true).exchanges
        #expect(kept.map(\.messages) == [#"[{"role":"user","content":"Hi"}]"#] && kept[0].choices.contains("Polly"))
    }

    @Test func errorsHaveJSONBodies() async throws {
        try await withServer { port, _ in
            for (request, status) in [
                ("GET /nothing HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", "404"),
                ("DELETE /v1/models HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", "405"),
                ("GET / HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n", "400"),
                ("POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999\r\n\r\n", "413"),
            ] {
                let client = try RawClient(port: port)
                try client.send(request)
                let (head, body) = Self.split(try client.read())
                #expect(head.hasPrefix("HTTP/1.1 \(status) "))
                #expect(try JSONValue(parsing: Array(body.utf8))["error"]?.sortedKeys == ["code", "message", "param", "type"])
            }
            let probe = try RawClient(port: port)
            try probe.send("HEAD /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            let (head, body) = Self.split(try probe.read())
            #expect(head.hasPrefix("HTTP/1.1 200 ") && body.isEmpty)
        }
    }

    @Test func aClientThatLeavesFreesItsSequences() async throws {
        try await withServer { port, engine in
            var client: RawClient? = try RawClient(port: port)
            try client?.post("/v1/chat/completions", #"{"messages":[{"role":"user","content":"Hi"}],"n":2,"stream":true,"ignore_eos":true,"max_tokens":4000}"#)
            _ = try client?.read(enough: 100)
            client = nil
            // Ends when the sequences do; a leak would hang here until the tests' own limit.
            while engine.liveCount > 0 { nap() }
            #expect(engine.liveCount == 0)
        }
    }

    @Test func aClientThatDoesNotReadPausesAndResumes() async throws {
        // Longer answers than the kernel and the server hold for a client that does not read.
        try await withServer(contextLength: 10_000_000) { port, engine in
            var client: RawClient? = try RawClient(port: port)
            try client?.post(
                "/v1/completions", #"{"prompt":"a","stream":true,"ignore_eos":true,"max_tokens":9000000,"n":2,"logprobs":20}"#)
            while engine.pausedCount < 2 { nap() }
            #expect(engine.liveCount == 2 && engine.cancelledCount == 0)
            while engine.pausedCount > 0 { _ = try client?.read(enough: 1) }
            #expect(engine.liveCount == 2 && engine.cancelledCount == 0)
            client = nil
            while engine.liveCount > 0 { nap() }
            #expect(engine.cancelledCount == 2)
        }
    }
}
