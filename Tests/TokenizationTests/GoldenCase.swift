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
