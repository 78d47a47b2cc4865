import FoundationEssentials
import GGUF
import Glibc
import Testing

@Suite struct GGUFFileTests {
    /// A file that is there for the length of `body`.
    private func withFile(_ bytes: [UInt8], _ body: (String) throws -> Void) throws {
        let path = FileManager.default.temporaryDirectory.appending(path: "gguf-\(UUID().uuidString).gguf").path
        try Data(bytes).write(to: URL(filePath: path))
        defer { try? FileManager.default.removeItem(atPath: path) }
        try body(path)
    }

    private func refusal(_ path: String) -> GGUFError? {
        do {
            _ = try GGUFFile(path: path)
            return nil
        } catch {
            return error
        }
    }

    @Test func readsTensorData() throws {
        let bytes = GGUFBuilder.small().file()
        try withFile(bytes) { path in
            let file = try GGUFFile(path: path)
            #expect(file.path == path)
            #expect(file.fileSize == bytes.count)
            #expect(file.version == 3)
            #expect(file.header == (try GGUFHeader(parsing: bytes)))
            let tensor = try #require(file.tensor(named: "output_norm.weight"))
            #expect(try file.bytes(of: tensor) == (96..<112).map { UInt8($0) })
            #expect(file.tensor(named: "absent") == nil)

            var two: [UInt8] = [0, 0]
            try file.read(offset: bytes.count - 2, count: 2, into: &two)
            #expect(two == [150, 151])
            try file.read(offset: bytes.count, count: 0, into: &two)
        }
    }

    @Test func readingOutsideTheFileIsRefused() throws {
        let bytes = GGUFBuilder.small().file()
        try withFile(bytes) { path in
            let file = try GGUFFile(path: path)
            var buffer = [UInt8](repeating: 0, count: 16)
            for (offset, count) in [(bytes.count - 1, 2), (-1, 1), (0, -1), (Int.max, 1), (1, Int.max), (bytes.count + 1, 0)] {
                #expect { try file.read(offset: offset, count: count, into: &buffer) } throws: { ($0 as? GGUFError)?.code == .cannotRead }
            }
        }
    }

    @Test func aFileThatShrinksIsAnError() throws {
        let bytes = GGUFBuilder.small().file()
        try withFile(bytes) { path in
            let file = try GGUFFile(path: path)
            #expect(truncate(path, 16) == 0)
            let tensor = try #require(file.tensors.first)
            #expect { try file.bytes(of: tensor) } throws: { error in
                (error as? GGUFError)?.code == .cannotRead && "\(error)".contains("became shorter")
            }
        }
    }

    /// Longer than the first chunk that is read, so that the header comes in two.
    @Test func aLongHeaderIsReadInChunks() throws {
        var builder = GGUFBuilder()
        builder.array("padding", elementType: 0, count: 9 << 20, [UInt8](repeating: 7, count: 9 << 20))
        builder.strings("tokens", (0..<1000).map { "token number \($0)" })
        builder.tensor("t", dimensions: [4], offset: 0)
        builder.data = [UInt8](repeating: 1, count: 16)
        try withFile(builder.file()) { path in
            let file = try GGUFFile(path: path)
            #expect(try file.metadata.strings("tokens")?.count == 1000)
            #expect(try file.bytes(of: file.tensors[0]) == [UInt8](repeating: 1, count: 16))
        }
    }

    @Test func anErrorBeginsWithThePath() throws {
        #expect(refusal("/nonexistent/model.gguf") == GGUFError(code: .cannotOpen, message: "/nonexistent/model.gguf: cannot be opened: No such file or directory"))
        #expect(refusal("/tmp") == GGUFError(code: .cannotOpen, message: "/tmp: is a directory, expected a GGUF file"))
        #expect(refusal("/dev/null") == GGUFError(code: .cannotOpen, message: "/dev/null: is a device, pipe or socket, expected a GGUF file"))
        try withFile([]) { path in
            #expect(refusal(path)?.code == .notGGUF)
            #expect(refusal(path)?.message.hasPrefix("\(path): not a GGUF file") == true)
        }
    }
}
