import Foundation
import ModelStore
import TLS
import Testing

/// Pulls from addresses, with the real curl: from files, and from a local server that breaks off.
@Suite struct AddressPullTests {
    private let warehouse: Warehouse
    private let directory: ModelDirectory
    private let source: String
    private let bytes: [UInt8]

    init() throws {
        warehouse = try Warehouse()
        directory = ModelDirectory(path: warehouse.models, catalog: try SampleModel().catalog, tools: warehouse.tools)
        bytes = Array("GGUF".utf8) + (0..<300_000).map { UInt8(truncatingIfNeeded: $0 &* 17 &+ ($0 >> 9)) }
        source = warehouse.root.appending(path: "tiny.gguf").path
        try Data(bytes).write(to: URL(filePath: source))
    }

    private var file: String { warehouse.models + "/tiny.gguf" }
    private var sha256: String { hexadecimal(SHA256Digest.of(bytes)) }

    private func refusal(_ body: () throws -> Void) -> ModelStoreError? {
        do {
            try body()
            return nil
        } catch {
            return error as? ModelStoreError
        }
    }

    private func contents(of path: String) throws -> [UInt8] {
        [UInt8](try Data(contentsOf: URL(filePath: path)))
    }

    @Test func aFileIsFetchedOnce() throws {
        let pulled = try directory.pull("file://\(source)")
        #expect(pulled == .init(path: file, size: bytes.count, sha256: sha256, wasPresent: false))
        #expect(try contents(of: file) == bytes)
        #expect(warehouse.files == [".tiny.gguf.verified.json", "tiny.gguf"])
        #expect(try directory.pull("file://\(source)").wasPresent)
        #expect(try directory.resolve("tiny").path == file)
    }

    @Test func aDigestInTheAddressIsHeldTo() throws {
        let error = refusal { _ = try directory.pull("file://\(source)#sha256=\(String(repeating: "0", count: 64))") }
        #expect(error?.code == .wrongChecksum)
        #expect(warehouse.files.isEmpty)
        #expect(try directory.pull("file://\(source)#sha256=\(sha256)").sha256 == sha256)
    }

    @Test func anotherFileOfTheNameIsNotOverwritten() throws {
        try FileManager.default.createDirectory(atPath: warehouse.models, withIntermediateDirectories: true)
        try Data("mine".utf8).write(to: URL(filePath: file))
        let error = refusal { _ = try directory.pull("file://\(source)") }
        #expect(error?.code == .alreadyExists)
        #expect(try contents(of: file) == Array("mine".utf8))
        #expect(warehouse.files == ["tiny.gguf"])
    }

    @Test func aPageInsteadOfAFileIsRefused() throws {
        try Data("<html>Sign in</html>".utf8).write(to: URL(filePath: source))
        let error = refusal { _ = try directory.pull("file://\(source)") }
        #expect(error?.message.contains("is not a GGUF file") == true)
        #expect(warehouse.files.isEmpty)
    }

    @Test func anAbsentFileSaysWhatCurlSays() {
        let error = refusal { _ = try directory.pull("file:///nonexistent/x.gguf") }
        #expect(error?.code == .downloadFailed)
        #expect(error?.message.contains("curl file:///nonexistent/x.gguf failed with status 37") == true)
    }

    @Test(arguments: [
        "http://example.com/x.gguf", "ftp://example.com/x.gguf", "https://example.com/", "https://example.com/x.bin", "https://example.com/.gguf",
        "https://example.com/x.gguf#sha256=12", "https://example.com/x.gguf#part", "https://example.com/a%2Fb.gguf", "https://example.com/x y.gguf",
        "https://example.com/x.gguf\n--output", "https:// /x.gguf", "://x.gguf",
    ])
    func aBadAddressIsRefused(address: String) {
        let strict = ModelDirectory(path: warehouse.models, catalog: directory.catalog)
        #expect(refusal { _ = try strict.pull(address) }?.code == .invalidAddress)
        #expect(warehouse.files.isEmpty)
    }

    // MARK: - Over HTTP

    /// The range server, running for the length of `body`, which gets its address and can read its log.
    private func withServer(breaks: Int, _ body: (String, () -> [String]) throws -> Void) throws {
        let script = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "Fixtures/range_server.py").path
        let log = warehouse.root.appending(path: "requests.log").path
        let server = Process()
        server.executableURL = URL(filePath: "/usr/bin/env")
        server.arguments = ["python3", script, source, log, "\(breaks)"]
        let output = Pipe()
        server.standardOutput = output
        try server.run()
        defer {
            // Not SIGTERM: a child of Foundation inherits the signals that this thread blocks.
            kill(server.processIdentifier, SIGKILL)
            server.waitUntilExit()
        }
        let line = String(decoding: output.fileHandleForReading.availableData, as: UTF8.self)
        let port = try #require(Int(line.trimmingCharacters(in: .whitespacesAndNewlines)))
        try body("http://127.0.0.1:\(port)") {
            ((try? String(contentsOf: URL(filePath: log), encoding: .utf8)) ?? "").split(separator: "\n").map(String.init)
        }
    }

    @Test func aBrokenTransferGoesOnWhereItBroke() throws {
        try withServer(breaks: 1) { address, requests in
            let pulled = try directory.pull("\(address)/moved/path/tiny.gguf?download=true")
            #expect(pulled.sha256 == sha256)
            #expect(requests() == ["- 200", "bytes=150002- 206"])
            #expect(warehouse.files == [".tiny.gguf.verified.json", "tiny.gguf"])
        }
    }

    @Test func aPullThatGaveUpGoesOnNextTime() throws {
        try withServer(breaks: 3) { address, requests in
            let error = refusal { _ = try directory.pull("\(address)/tiny.gguf") }
            #expect(error?.code == .downloadFailed)
            #expect(!FileManager.default.fileExists(atPath: file))
            #expect(requests().count == 3)
            var first: PullProgress?
            let pulled = try directory.pull("\(address)/tiny.gguf") { first = first ?? $0 }
            #expect(pulled.sha256 == sha256)
            #expect(requests().count == 4)
            #expect(requests().last?.hasSuffix("206") == true)
            #expect((first?.bytes ?? 0) > bytes.count / 2)
        }
    }

    /// The file on the server changes between two attempts: nothing of the old one gets into the new.
    @Test func aChangedFileIsFetchedFromTheStart() throws {
        try withServer(breaks: 3) { address, requests in
            #expect(refusal { _ = try directory.pull("\(address)/tiny.gguf") }?.code == .downloadFailed)
            let other = Array("GGUF".utf8) + [UInt8](repeating: 9, count: 310_000)
            try Data(other).write(to: URL(filePath: source))
            _ = try directory.pull("\(address)/tiny.gguf")
            #expect(try contents(of: file) == other)
            #expect(requests().last == "- 200")
        }
    }

    /// All of it had arrived when the last pull ended.
    @Test func aWholeRemainderIsTaken() throws {
        try withServer(breaks: 3) { address, requests in
            #expect(refusal { _ = try directory.pull("\(address)/tiny.gguf") }?.code == .downloadFailed)
            try Data(bytes).write(to: URL(filePath: warehouse.models + "/.tiny.gguf.partial"))
            #expect(try directory.pull("\(address)/tiny.gguf").sha256 == sha256)
            #expect(requests().last == "bytes=\(bytes.count)- 416")
        }
    }

    /// What is here is longer than the file: it cannot be a part of it.
    @Test func aRemainderThatIsTooLongIsFetchedAgain() throws {
        try withServer(breaks: 3) { address, requests in
            #expect(refusal { _ = try directory.pull("\(address)/tiny.gguf") }?.code == .downloadFailed)
            try Data(bytes + [0]).write(to: URL(filePath: warehouse.models + "/.tiny.gguf.partial"))
            #expect(try directory.pull("\(address)/tiny.gguf").sha256 == sha256)
            #expect(requests().suffix(2) == ["bytes=\(bytes.count + 1)- 416", "- 200"])
        }
    }

    @Test func aCatalogueAddressIsHeldToItsDigest() throws {
        try withServer(breaks: 0) { address, _ in
            let secure = address.replacingOccurrences(of: "http://", with: "https://")
            func catalog(_ sha256: String) throws -> ModelCatalog {
                try ModelCatalog(json: Data(
                    """
                    {"default": "tiny", "models": [{"name": "tiny", "architecture": "llama", "license": "MIT", "summary": "s", "file": "tiny.gguf",
                    "size": \(bytes.count), "sha256": "\(sha256)", "url": "\(secure)/tiny.gguf"}]}
                    """.utf8))
            }
            // The catalogue insists on https, and this server has none: curl's refusal arrives as an error, and nothing stays.
            let error = refusal { _ = try ModelDirectory(path: warehouse.models, catalog: catalog(sha256), tools: warehouse.tools).pull("tiny") }
            #expect(error?.code == .downloadFailed)
            #expect(!FileManager.default.fileExists(atPath: file))
        }
    }
}

@Suite struct ResponseHeadersTests {
    @Test func theLastResponseCounts() {
        let headers = ResponseHeaders(text: "HTTP/1.1 302 Found\r\nContent-Length: 3\r\nETag: \"a\"\r\n\r\nHTTP/2 200\r\ncontent-length: 98362432\r\netag: \"b\"\r\n\r\n")
        #expect(headers.total == 98_362_432)
        #expect(headers.validator == "\"b\"")
    }

    @Test func aRangeTellsTheWhole() {
        let headers = ResponseHeaders(text: "HTTP/1.1 206 Partial Content\r\nContent-Length: 50\r\nContent-Range: bytes 50-99/100\r\n\r\n")
        #expect(headers.total == 100)
        #expect(headers.status == 206)
        let refused = ResponseHeaders(text: "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */100\r\nContent-Length: 0\r\n\r\n")
        #expect(refused.total == 100)
        #expect(refused.status == 416)
        let reversed = ResponseHeaders(text: "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 50-99/100\r\nContent-Length: 50\r\n\r\n")
        #expect(reversed.total == 100)
    }

    @Test func aWeakTagGivesWayToTheDate() {
        let headers = ResponseHeaders(text: "HTTP/1.1 200 OK\r\nETag: W/\"a\"\r\nLast-Modified: Sat, 01 Feb 2025 10:00:00 GMT\r\n\r\n")
        #expect(headers.validator == "Sat, 01 Feb 2025 10:00:00 GMT")
        #expect(ResponseHeaders(text: "HTTP/1.1 200 OK\r\nETag: W/\"a\"\r\n\r\n").validator == nil)
        #expect(ResponseHeaders(text: "").total == nil)
    }
}
