import FoundationEssentials
import GGUF
import Tokenization

/// A text and the ids that a reference encoder made of it.
struct GoldenCase: Codable {
    var text: String
    var ids: [Int32]
}

let fixtureFolder: String = {
    let file = #filePath
    return String(file[..<file.lastIndex(of: "/")!]) + "/Fixtures/"
}()

func goldenCases(_ name: String) throws -> [GoldenCase] {
    try JSONDecoder().decode([GoldenCase].self, from: Data(contentsOf: URL(filePath: fixtureFolder + name)))
}

func fixtureTokenizer(_ name: String) throws -> Tokenizer {
    try Tokenizer(metadata: GGUFFile(path: fixtureFolder + name).metadata)
}

/// The file of a catalogue model (`smollm2-135m-instruct`), nil when it has not been downloaded.
///
/// `GRAFT_TEST_MODEL` may name the file itself or a folder of models; otherwise the `Models` folder of the package is searched. A model
/// is `NAME/*.gguf` in such a folder, or a file in it whose name begins with NAME.
func testModelPath(_ name: String) -> String? {
    var folders: [String] = []
    if let given = ProcessInfo.processInfo.environment["GRAFT_TEST_MODEL"] {
        if given.hasSuffix(".gguf") {
            if isModelFile(given, of: name) { return given }
        } else {
            folders.append(given)
        }
    }
    var folder = fixtureFolder
    while let slash = folder.dropLast().lastIndex(of: "/") {
        folder = String(folder[...slash])
        if FileManager.default.fileExists(atPath: folder + "Package.swift") {
            folders.append(folder + "Models")
            break
        }
    }
    for folder in folders {
        for candidate in modelFiles(in: folder + "/" + name) + modelFiles(in: folder).filter({ isModelFile($0, of: name) }) {
            return candidate
        }
    }
    return nil
}

private func modelFiles(in folder: String) -> [String] {
    let entries = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
    return entries.filter { $0.hasSuffix(".gguf") && !$0.hasPrefix(".") }.sorted().map { folder + "/" + $0 }
}

private func isModelFile(_ path: String, of name: String) -> Bool {
    let file = path[(path.lastIndex(of: "/").map(path.index(after:)) ?? path.startIndex)...].lowercased()
    return file.hasPrefix(name.lowercased()) && FileManager.default.fileExists(atPath: path)
}

/// A seeded generator, so that a failure comes again.
struct SeededGenerator: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var value = state
        value = (value ^ value >> 30) &* 0xBF58_476D_1CE4_E5B9
        value = (value ^ value >> 27) &* 0x94D0_49BB_1331_11EB
        return value ^ value >> 31
    }
}
