import Glibc
import HTTP1
import HTTPServing
import HTTPTypes
import InstructionStore
import JSON
import OpenAIAPI
import TestSupport
import Testing

/// The routes below `/v1/files`.
@Suite struct FileRouteTests {
    private let storage: Storage
    private let harness: Harness

    init() throws {
        storage = try Storage()
        harness = try Harness(storage: storage)
    }

    private static let good = #"{"messages":[]}"# + "\n"

    private func upload(_ form: String, pieceSize: Int = 1000) async -> RecordingTransport.Response {
        await harness.settled(await harness.sendFile(form, pieceSize: pieceSize))
    }

    private func get(_ path: String) async -> RecordingTransport.Response {
        await harness.settled(await harness.send(.get, path, contentType: nil))
    }

    private func delete(_ path: String) async -> RecordingTransport.Response {
        await harness.settled(await harness.send(.delete, path, contentType: nil))
    }

    private var kept: [String] { get throws { try storage.folder.contents(of: "data/files").filter { $0.utf8.count == 64 } } }

    // MARK: - Uploads

    @Test(arguments: [1, 7, 1000, 1 << 20])
    func upload(pieceSize: Int) async throws {
        let response = await upload(Harness.form(Self.good), pieceSize: pieceSize)
        #expect(response.status == 200)
        let object = try response.json()
        #expect(
            object.sortedKeys == ["bytes", "created_at", "expires_at", "filename", "graft_report", "id", "object", "purpose", "status", "status_details"])
        let id = try #require(object["id"]?.string)
        #expect(TimedIdentifiers.isValid(id, prefix: "file-"))
        #expect(object["object"] == "file" && object["bytes"] == .integer(Int64(Self.good.utf8.count)) && object["filename"] == "train.jsonl")
        #expect(object["purpose"] == "fine-tune" && object["status"] == "processed" && object["status_details"] == .null && object["expires_at"] == .null)
        #expect(object["graft_report"]?["examples"] == 1)
        #expect(try await get("/v1/files/\(id)").json() == object)
        let content = await get("/v1/files/\(id)/content")
        #expect(content.status == 200 && content.text == Self.good)
        #expect(content.head?.headerFields[.contentType] == "application/octet-stream")
        #expect(content.head?.headerFields[.contentDisposition] == #"attachment; filename="train.jsonl""#)
        #expect(harness.logs.text.contains("action=file.upload") && harness.logs.text.contains(id) && !harness.logs.text.contains("train.jsonl"))
        #expect(harness.metric("graft_files_created_total") == [#"graft_files_created_total{purpose="fine-tune",status="processed"} 1"#])
    }

    @Test func contentThatLooksLikeABoundaryStays() async throws {
        let content = "{\r\n--edg\r\n-edge--\r\n\r\n--\r--edge--\n--edge\r"
        for size in 1...5 {
            let response = await harness.settled(await harness.sendFile(Harness.form(content, boundary: "edge"), boundary: "edge", pieceSize: size))
            let id = try #require(try response.json()["id"]?.string)
            #expect(await get("/v1/files/\(id)/content").text == content)
        }
    }

    @Test func aFileWithBadLinesIsKeptAndSaysSo() async throws {
        let object = try await upload(Harness.form("{\n{bad\n{bad\n")).json()
        #expect(object["status"] == "error")
        #expect(
            object["status_details"] == "2 rows of the file cannot be used, 1 can; graft_report lists the first of them. Correct the file and upload it again.")
        #expect(object["graft_report"]?["problems"]?[0]?["line"] == 1)
        let one = try await upload(Harness.form("{bad\n")).json()
        #expect(one["status"] == "error" && one["status_details"]?.string?.hasPrefix("One row of the file cannot be used, 0 can;") == true)
        // Lists leave out what can be long.
        let list = try await get("/v1/files").json()
        #expect(list["data"]?[1]?["graft_report"]?["bad_lines"] == 2 && list["data"]?[1]?["graft_report"]?["problems"] == nil)
        #expect(list["data"]?[1]?["status_details"] == object["status_details"])
    }

    @Test func contentOfNoKnownFormatIsRefused() async throws {
        let response = await upload(Harness.form("hello"))
        #expect(response.status == 400)
        let error = try response.json()["error"]
        #expect(error?["param"] == "file" && error?["code"] == "invalid_file_format" && error?["message"] == "found no rows, expected one JSON object a line")
        #expect(try kept.isEmpty)
        // Nobody looks into what is not trained on.
        let other = try await upload(Harness.form("hello", fields: [("purpose", "user_data")])).json()
        #expect(other["status"] == "uploaded" && other["graft_report"] == nil && other["status_details"] == .null)
    }

    @Test(
        arguments: [
            ([], "{}", "purpose", "missing_required_parameter"), ([("purpose", "fine-tune-results")], "{}", "purpose", "invalid_value"),
            ([("purpose", "Fine-Tune")], "{}", "purpose", "invalid_value"), ([("purpose", "batch")], "", "file", "invalid_value"),
            ([("purpose", "batch"), ("purpose", "batch")], "{}", "purpose", "invalid_value"),
            ([("purpose", String(repeating: "x", count: 257))], "{}", "purpose", "invalid_value"),
            ([("purpose", "batch"), ("expires_after[seconds]", "3600")], "{}", "expires_after[anchor]", "missing_required_parameter"),
            ([("purpose", "batch"), ("expires_after[anchor]", "created_at")], "{}", "expires_after[seconds]", "missing_required_parameter"),
            ([("purpose", "batch"), ("expires_after[anchor]", "now"), ("expires_after[seconds]", "3600")], "{}", "expires_after[anchor]", "invalid_value"),
            (
                [("purpose", "batch"), ("expires_after[anchor]", "created_at"), ("expires_after[seconds]", "3599")], "{}", "expires_after[seconds]",
                "invalid_value"
            ),
            (
                [("purpose", "batch"), ("expires_after[anchor]", "created_at"), ("expires_after[seconds]", "99999999999999999999")], "{}",
                "expires_after[seconds]", "invalid_value"
            ),
        ] as [([(String, String)], String, String, String)])
    func badForms(fields: [(String, String)], content: String, param: String, code: String) async throws {
        let response = await upload(Harness.form(content, fields: fields))
        #expect(response.status == 400)
        let error = try response.json()["error"]
        #expect(error?["param"] == .string(param) && error?["code"] == .string(code), "\(response.text)")
        #expect(try storage.folder.contents(of: "data/files") == ["incoming/"])
    }

    @Test func formsWithoutAnEndOrAFile() async throws {
        let whole = Harness.form("{}")
        for (form, param, code) in [
            (String(whole.dropLast(6)), nil, "invalid_multipart"), ("", nil, "invalid_multipart"), ("--cut--", "file", "missing_required_parameter"),
            (whole.replacing("name=\"file\"", with: "name=\"data\""), "file", "missing_required_parameter"),
            (whole.replacing("--cut--", with: Harness.form("{}", fields: [])), "file", "invalid_value"),
        ] as [(String, String?, String)] {
            let response = await upload(form)
            let error = try response.json()["error"]
            #expect(response.status == 400 && error?["code"] == .string(code) && error?["param"]?.string == param, "\(response.text)")
        }
        #expect(try storage.folder.contents(of: "data/files") == ["incoming/"])
    }

    @Test func expiry() async throws {
        let object = try await upload(
            Harness.form(
                Self.good, fields: [("purpose", "batch"), ("expires_after[anchor]", "created_at"), ("expires_after[seconds]", "3600"), ("colour", "red")])
        ).json()
        let created = try #require(object["created_at"]?.integer)
        #expect(object["expires_at"] == .integer(created + 3600))
    }

    @Test func unknownPartsAreListed() async throws {
        let response = await upload(Harness.form(Self.good, fields: [("purpose", "batch"), ("colour", "red")]))
        #expect(response.head?.headerFields[text: "graft-ignored-parameters"] == "colour")
    }

    @Test(arguments: [
        ("../../etc/passwd", "passwd"), ("C:\\\\dir\\\\données.jsonl", "données.jsonl"), ("", "file"), ("a/..", "file"), ("x/", "file"),
        ("e\u{202E}vil.jsonl", "e\u{FFFD}vil.jsonl"), (String(repeating: "é", count: 300), String(repeating: "é", count: 127)),
    ])
    func namesAreForPeople(sent: String, shown: String) async throws {
        let object = try await upload(Harness.form(Self.good, filename: sent)).json()
        #expect(object["filename"]?.string == shown)
        #expect(try storage.folder.contents(of: "data").filter { !$0.hasPrefix("files/") } == ["graft.sqlite", "graft.sqlite-wal", "lock"])
        let id = try #require(object["id"]?.string)
        let field = try #require(await get("/v1/files/\(id)/content").head?.headerFields[.contentDisposition])
        #expect(field.utf8.allSatisfy { (0x20..<0x7F).contains($0) } && field.hasPrefix("attachment; filename=\""))
    }

    @Test func placesAreLimitedAndFreedAgain() async throws {
        let harness = try Harness(storage: storage) { $0.fileUploads = 2 }
        func admit() async -> (ExchangeID, HTTPAdmission) {
            await harness.admit(.post, "/v1/files", contentType: "multipart/form-data; boundary=cut")
        }
        let (first, _) = await admit(), (second, _) = await admit()
        guard case .refuse(let head, _) = await admit().1 else { throw Mistake.admitted }
        #expect(head.status.code == 503 && head.headerFields[.retryAfter] == "1")
        await harness.close(first)
        guard case .stream(let limit, _) = await admit().1 else { throw Mistake.refused }
        #expect(limit == 512 << 20)
        // A form that is refused frees its place too.
        _ = await harness.settled(await harness.send(.post, "/v1/files", contentType: "multipart/form-data; boundary=cut", as: second))
        guard case .stream = await admit().1 else { throw Mistake.refused }
    }

    private enum Mistake: Error {
        case admitted, refused
    }

    @Test func aClientThatLeavesLeavesNothing() async throws {
        let (exchange, admission) = await harness.admit(.post, "/v1/files", contentType: "multipart/form-data; boundary=cut")
        guard case .stream(_, let receiver) = admission else { throw Mistake.refused }
        _ = receiver.receive(RequestBody(Array(Harness.form(Self.good).utf8.dropLast(10))))
        await harness.close(exchange)
        // What it has sent is being written, or removed already.
        while try storage.folder.contents(of: "data/files") != ["incoming/"] { usleep(1000) }
        #expect(receiver.receive(RequestBody([1])), "what still comes is taken as read")
    }

    @Test func aSlowDiskHoldsTheClientUp() async throws {
        let (exchange, admission) = await harness.admit(.post, "/v1/files", contentType: "multipart/form-data; boundary=cut")
        guard case .stream(_, let receiver) = admission else { throw Mistake.refused }
        let content = Self.good + String(repeating: " ", count: 3 << 20)
        let form = Array(Harness.form(content).utf8)
        // More than may wait, in one piece.
        #expect(!receiver.receive(RequestBody(form)))
        // The word to go on comes when it is written.
        while await harness.transport.resumedBodies.isEmpty {
            await harness.transport.waitForJob()
            await harness.transport.runJobs()
        }
        #expect(await harness.transport.resumedBodies == [exchange])
        let response = await harness.settled(await harness.send(.post, "/v1/files", contentType: "multipart/form-data; boundary=cut", as: exchange))
        #expect(try response.json()["bytes"] == .integer(Int64(content.utf8.count)))
    }

    @Test func aFullDisk() async throws {
        storage.files.injectWriteFault(ENOSPC)
        var response = await upload(Harness.form(Self.good))
        #expect(response.status == 507 && response.head?.headerFields[text: "x-should-retry"] == "false")
        #expect(try response.json()["error"]?["code"] == "storage_full")
        storage.files.injectWriteFault(nil)
        storage.store.injectFault(resultCode: 13)
        response = await upload(Harness.form(Self.good))
        #expect(response.status == 507)
        storage.store.injectFault(resultCode: nil)
        #expect(try storage.folder.contents(of: "data/files") == ["incoming/"])
        storage.files.injectWriteFault(EIO)
        response = await upload(Harness.form(Self.good))
        #expect(response.status == 500 && !response.text.contains("incoming"), "a client need not know the server's paths")
        #expect(harness.logs.text.contains("incoming"))
    }

    @Test func serversWithoutFiles() async throws {
        let harness = try Harness()
        guard case .refuse(let head, _) = await harness.admit(.post, "/v1/files", contentType: "multipart/form-data; boundary=cut").admission else {
            throw Mistake.admitted
        }
        #expect(head.status.code == 404)
        #expect(try await harness.get("/v1/files").json()["error"]?["code"] == "files_disabled")
    }

    @Test func whatIsNoForm() async throws {
        for type in ["application/json", nil] {
            guard case .refuse(let head, _) = await harness.admit(.post, "/v1/files", contentType: type).admission else { throw Mistake.admitted }
            #expect(head.status.code == 415)
        }
        guard case .refuse(let head, _) = await harness.admit(.post, "/v1/files", contentType: "multipart/form-data").admission else { throw Mistake.admitted }
        #expect(head.status.code == 400)
        await MainActor.run { harness.handlers.beginDraining() }
        guard case .refuse(let drained, _) = await harness.admit(.post, "/v1/files", contentType: "multipart/form-data; boundary=cut").admission else {
            throw Mistake.admitted
        }
        #expect(drained.status.code == 503)
    }

    // MARK: - The others

    @Test func lists() async throws {
        var ids: [String] = []
        for purpose in ["fine-tune", "batch", "fine-tune"] {
            ids.append(try #require(try await upload(Harness.form(Self.good, fields: [("purpose", purpose)])).json()["id"]?.string))
        }
        func list(_ query: String) async throws -> (ids: [String], json: JSONValue) {
            let json = try await get("/v1/files" + query).json()
            return (json["data"]?.array?.compactMap { $0["id"]?.string } ?? [], json)
        }
        let all = try await list("")
        #expect(all.ids == ids.reversed())
        #expect(
            all.json["object"] == "list" && all.json["has_more"] == false && all.json["first_id"]?.string == ids[2] && all.json["last_id"]?.string == ids[0])
        let page = try await list("?limit=2&order=asc")
        #expect(page.ids == Array(ids[..<2]) && page.json["has_more"] == true)
        #expect(try await list("?order=asc&after=\(ids[1])").ids == [ids[2]])
        #expect(try await list("?purpose=batch").ids == [ids[1]])
        let empty = try await list("?purpose=vision")
        #expect(empty.ids.isEmpty && empty.json["first_id"] == .null)
        for (query, param) in [
            ("?limit=0", "limit"), ("?limit=10001", "limit"), ("?limit=x", "limit"), ("?order=up", "order"), ("?after=nonsense", "after"),
            ("?purpose=fun", "purpose"),
            ("?limit=1&limit=2", "limit"),
        ] {
            let response = await get("/v1/files" + query)
            #expect(response.status == 400)
            #expect(try response.json()["error"]?["param"] == .string(param))
        }
    }

    @Test func deletion() async throws {
        let id = try #require(try await upload(Harness.form(Self.good)).json()["id"]?.string)
        #expect(try kept.count == 1)
        #expect(await delete("/v1/files/\(id)").text == #"{"id":"\#(id)","object":"file","deleted":true}"#)
        #expect(try kept.isEmpty)
        for path in ["/v1/files/\(id)", "/v1/files/\(id)/content", "/v1/files/file-nothing", "/v1/files/..%2Fgraft.sqlite/content"] {
            let response = await get(path)
            #expect(response.status == 404)
            #expect(try response.json()["error"]?["code"] == "file_not_found")
        }
        #expect(await delete("/v1/files/\(id)").status == 404)
        #expect(harness.logs.text.contains("action=file.delete"))
    }

    @Test func anothersFileIsAsIfItWereNotThere() async throws {
        try storage.store.addOwner("ada", at: 1)
        let file = try storage.files.add([1], name: "a", purpose: "batch", owner: "ada", status: .uploaded, report: nil)
        let there = await get("/v1/files/\(file.id)"), absent = await get("/v1/files/\(file.id.dropLast(1))0")
        #expect(there.status == 404 && absent.status == 404)
        #expect(await delete("/v1/files/\(file.id)").status == 404)
        #expect(try await get("/v1/files").json()["data"] == [])
    }

    /// A file that takes many pieces.
    private func largeFile(_ harness: Harness) async throws -> (id: String, content: String) {
        let content = (0..<100_000).map { "line \($0)\n" }.joined()
        let response = await harness.settled(await harness.sendFile(Harness.form(content, fields: [("purpose", "batch")]), pieceSize: 1 << 20))
        return (try #require(try response.json()["id"]?.string), content)
    }

    @Test func contentComesInPiecesOfKnownLength() async throws {
        let (id, content) = try await largeFile(harness)
        let response = await get("/v1/files/\(id)/content")
        #expect(response.text == content && response.length == content.utf8.count && !response.isStream && !response.isAborted)
        #expect(response.writes.count == (content.utf8.count + 131_071) / 131_072 && response.writes.allSatisfy { $0.utf8.count <= 131_072 })
        #expect(response.heads == 1 && response.ends == 1)
        let head = await harness.settled(await harness.send(.head, "/v1/files/\(id)/content", contentType: nil))
        #expect(head.status == 200 && head.length == content.utf8.count && head.writes.isEmpty && head.ends == 1)
    }

    @Test func aSlowClientIsNotReadFor() async throws {
        let (id, content) = try await largeFile(harness)
        let exchange = ExchangeID.numbered(1000)
        // Congested from the first byte on, as a client that takes nothing.
        await harness.transport.setOnWrite { [handlers = harness.handlers] in handlers.exchange(exchange, isCongested: true, on: $0) }
        _ = await harness.send(.get, "/v1/files/\(id)/content", contentType: nil, as: exchange)
        while await harness.response(exchange).writes.isEmpty { await harness.transport.waitForJob() }
        for _ in 0..<3 {
            // Another request goes through the same threads, so what was to be read by now has been.
            _ = await get("/v1/files/\(id)")
            #expect(await harness.response(exchange).writes.count == 1)
        }
        // It takes what it has: one more piece comes.
        await harness.setCongested(exchange, false)
        while await harness.response(exchange).writes.count < 2 { await harness.transport.waitForJob() }
        #expect(await harness.response(exchange).writes.count == 2)
        // The file goes, and the client gets the rest of it all the same.
        #expect(await delete("/v1/files/\(id)").status == 200)
        await harness.transport.setOnWrite(nil)
        await harness.setCongested(exchange, false)
        #expect(await harness.settled(exchange).text == content)
    }

    @Test func aClientThatLeavesInTheMiddleFreesItsPlace() async throws {
        let harness = try Harness(storage: storage) { $0.contentStreams = 1 }
        let (id, _) = try await largeFile(harness)
        let exchange = ExchangeID.numbered(1000)
        await harness.transport.setOnWrite { [handlers = harness.handlers] in handlers.exchange(exchange, isCongested: true, on: $0) }
        _ = await harness.send(.get, "/v1/files/\(id)/content", contentType: nil, as: exchange)
        while await harness.response(exchange).writes.isEmpty { await harness.transport.waitForJob() }
        let refused = await harness.response(await harness.send(.get, "/v1/files/\(id)/content", contentType: nil))
        #expect(refused.status == 503 && refused.head?.headerFields[.retryAfter] == "1")
        await harness.close(exchange)
        await harness.transport.setOnWrite(nil)
        #expect(await harness.settled(await harness.send(.get, "/v1/files/\(id)/content", contentType: nil)).status == 200)
        #expect(await harness.response(exchange).ends == 0)
        #expect(harness.metric("graft_requests_total").contains(#"graft_requests_total{route="/v1/files/{id}/content",status="200",model=""} 2"#))
    }

    /// The status is sent by then, so the connection must break.
    @Test func aDiskThatFailsInTheMiddleEndsTheConnection() async throws {
        let (id, content) = try await largeFile(harness)
        let name = try #require(try kept.first)
        let exchange = ExchangeID.numbered(1000)
        await harness.transport.setOnWrite { [handlers = harness.handlers] in handlers.exchange(exchange, isCongested: true, on: $0) }
        _ = await harness.send(.get, "/v1/files/\(id)/content", contentType: nil, as: exchange)
        while await harness.response(exchange).writes.isEmpty { await harness.transport.waitForJob() }
        #expect(truncate("\(storage.folder.path)/data/files/\(name)", 200_000) == 0)
        await harness.transport.setOnWrite(nil)
        await harness.setCongested(exchange, false)
        let response = await harness.settled(exchange)
        #expect(response.status == 200 && response.isAborted && response.ends == 1)
        #expect(content.hasPrefix(response.text) && response.text.utf8.count < content.utf8.count)
        #expect(harness.logs.text.contains("the store failed"))
    }

    @Test func damagedContentIsNotSent() async throws {
        let id = try #require(try await upload(Harness.form(Self.good)).json()["id"]?.string)
        let name = try #require(try kept.first)
        let descriptor = open("\(storage.folder.path)/data/files/\(name)", O_WRONLY)
        #expect(pwrite(descriptor, "!", 1, 3) == 1)
        close(descriptor)
        let response = await get("/v1/files/\(id)/content")
        #expect(response.status == 500)
        #expect(try response.json()["error"]?["code"] == "storage_error")
    }
}
