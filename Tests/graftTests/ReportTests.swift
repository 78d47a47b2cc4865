import FoundationEssentials
import GGUF
import JSON
import ModelStore
import Testing
import graft

struct ModelReportTests {
    /// A GGUF file without tensors: version 3, little endian, strings and 32-bit integers.
    private func header(_ pairs: [(String, GGUFValue)]) throws -> GGUFHeader {
        var bytes: [UInt8] = Array("GGUF".utf8)
        func append(_ value: some FixedWidthInteger) { withUnsafeBytes(of: value.littleEndian) { bytes += $0 } }
        func append(_ text: String) {
            append(UInt64(text.utf8.count))
            bytes += text.utf8
        }
        append(UInt32(3))
        append(UInt64(0))
        append(UInt64(pairs.count))
        for (key, value) in pairs {
            append(key)
            switch value {
            case .uint32(let number):
                append(UInt32(4))
                append(number)
            case .string(let text):
                append(UInt32(8))
                append(text)
            default: fatalError("this test writes strings and u32 only")
            }
        }
        return try GGUFHeader(parsing: bytes)
    }

    private func tiny(_ name: String) throws -> GGUFFile {
        let tests = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        return try GGUFFile(path: tests.appending(path: "Golden/tiny/\(name).gguf").path)
    }

    @Test func aModelThatRuns() throws {
        let file = try tiny("llama-q4_1")
        let report = ModelReport(file)
        #expect(report.architecture == "llama")
        #expect(report.obstacle == nil)
        #expect(report.types.map(\.type.name).contains("Q4_1"))
        #expect(report.types.reduce(0) { $0 + $1.tensors } == file.tensors.count)
        #expect(report.types.reduce(0) { $0 + $1.bytes } == file.tensors.reduce(0) { $0 + $1.byteCount })
        #expect(report.parameters == file.tensors.reduce(0) { $0 + $1.elementCount })
        #expect(report.shape.first?.key == "context_length")
        let text = report.text(tensors: false)
        #expect(text.contains("Q4_1") && text.contains("can be run") && !text.contains("token_embd.weight"))
        #expect(report.text(tensors: true).contains("token_embd.weight"))
    }

    @Test func asJSON() throws {
        let report = ModelReport(try tiny("qwen2"))
        let object = report.object(tensors: false, template: false)
        #expect(object["architecture"]?.string == "qwen2")
        #expect(object["supported"] == .bool(true))
        #expect(object["parameters"]?.integer == Int64(report.parameters))
        #expect(object["tensors"] == nil && object["template"] == nil)
        let full = report.object(tensors: true, template: true)
        #expect(full["tensors"]?.array?.count == report.tensors.count)
        #expect(full["template"] != nil)
    }

    @Test func anUnknownArchitecture() throws {
        let header = try header([
            ("general.architecture", .string("mamba")), ("general.name", .string("Snake\u{1B}[31m")), ("mamba.context_length", .uint32(1024)),
        ])
        let report = ModelReport(path: "m.gguf", fileSize: 100, header: header)
        #expect(report.obstacle?.contains("mamba") == true)
        #expect(report.shape.map(\.value) == [1024])
        let text = report.text(tensors: true)
        #expect(text.contains("1024 tokens"))
        #expect(text.contains("Snake\u{FFFD}[31m"))
        #expect(text.contains("can be run    no: "))
    }

    @Test func anEmptyFileAndKeysOfWrongTypes() throws {
        let empty = ModelReport(path: "m.gguf", fileSize: 24, header: try header([]))
        #expect(empty.architecture == nil && empty.parameters == 0 && empty.types.isEmpty)
        #expect(empty.text(tensors: true).contains("not said"))
        let odd = ModelReport(
            path: "m.gguf", fileSize: 100,
            header: try header([("general.name", .uint32(1)), ("general.architecture", .string("llama")), ("llama.context_length", .string("long"))]))
        #expect(odd.name == nil && odd.shape.isEmpty)
    }

    @Test func theTemplateIsCountedAndNotShown() throws {
        let report = ModelReport(path: "m.gguf", fileSize: 100, header: try header([("tokenizer.chat_template", .string("{{ a }}\n{{ b }}"))]))
        #expect(report.template == "{{ a }}\n{{ b }}")
        #expect(report.text(tensors: false).contains("15 characters, 2 lines"))
    }
}

struct NameSuggestionTests {
    private let models = ["smollm2-135m-instruct", "qwen2.5-coder-0.5b-instruct", "qwen2.5-coder-1.5b-instruct", "gemma-3-270m"]

    @Test(arguments: [
        ("smollm2-135m-instrct", "smollm2-135m-instruct"), ("SmolLM2-135M-Instruct", "smollm2-135m-instruct"), ("smollm2", "smollm2-135m-instruct"),
        ("smolm2", "smollm2-135m-instruct"), ("gemma3-270m", "gemma-3-270m"), ("gemma", "gemma-3-270m"), ("qwen2.5-coder-1.5b", "qwen2.5-coder-1.5b-instruct"),
        ("coder-1.5b", "qwen2.5-coder-1.5b-instruct"),
    ])
    func near(wrong: String, right: String) {
        #expect(nearestName(to: wrong, among: models) == right)
    }

    @Test func far() {
        for word in ["llama-3", "", "x", "mixtral-8x7b", "./models/some.gguf"] { #expect(nearestName(to: word, among: models) == nil) }
    }

    @Test func neighboursInTheWrongOrderAreOneMistake() {
        #expect(nearestName(to: "plul", among: ["pull", "chat"]) == "pull")
    }
}

struct TextTableTests {
    @Test func columns() {
        var table = TextTable(["name", "bytes", "note"], rightAligned: [1])
        table.add(["日本", "5", ""])
        table.add(["abcdef", "12345", "x"])
        #expect(table.description == "name    bytes  note\n日本        5\nabcdef  12345  x")
    }
}

struct SparseProgressTests {
    @Test func aLineForEachPhaseAndTenth() {
        var sparse = SparseProgress()
        var shown: [String] = []
        for bytes in 0...100 {
            let progress = PullProgress(phase: .downloading, bytes: bytes, total: 100)
            if sparse.isDue(progress) { shown.append("d\(bytes)") }
        }
        for bytes in [50, 51, 61, 100] {
            if sparse.isDue(PullProgress(phase: .verifying, bytes: bytes, total: 100)) { shown.append("v\(bytes)") }
        }
        #expect(shown == ["d0", "d10", "d20", "d30", "d40", "d50", "d60", "d70", "d80", "d90", "d100", "v50", "v61", "v100"])
    }

    @Test func withoutATotalALineForEachHundredMegabytes() {
        var sparse = SparseProgress()
        let due = [0, 99_999_999, 100_000_000, 150_000_000, 200_000_000].map { sparse.isDue(PullProgress(phase: .downloading, bytes: $0, total: nil)) }
        #expect(due == [true, false, true, false, true])
    }
}
