import FoundationEssentials
import GGUF
import TestSupport
import Testing
import Tokenization

/// Ids against the reference encoders; see Fixtures/README.md.
@Suite struct GoldenTests {
    @Test(arguments: ["gpt-2", "smollm", "qwen2", "qwen35", "llama-bpe", "default"])
    func bytePairs(_ name: String) throws {
        let tokenizer = try fixtureTokenizer("bpe-\(name).gguf")
        let cases = try goldenCases("bpe-\(name).json")
        #expect(cases.count == 285)
        for golden in cases {
            let ids = tokenizer.encode(golden.text, addSpecial: false, parseSpecial: true)
            #expect(ids == golden.ids, "\(name) \(golden.text.debugDescription)")
            #expect(tokenizer.decode(ids, skipSpecial: false) == golden.text)
        }
    }

    @Test(arguments: [("llama", 278), ("gemma", 278)])
    func sentencePiece(_ name: String, count: Int) throws {
        let tokenizer = try fixtureTokenizer("sp-\(name).gguf")
        let cases = try goldenCases("sp-\(name).json")
        #expect(cases.count == count)
        for golden in cases {
            let ids = tokenizer.encode(golden.text, addSpecial: false, parseSpecial: false)
            #expect(ids == golden.ids, "\(name) \(golden.text.debugDescription)")
            // U+2581 spells a space, so it comes back as one.
            let spaced = String(String.UnicodeScalarView(golden.text.unicodeScalars.map { $0 == "\u{2581}" ? " " : $0 }))
            #expect(Array(tokenizer.decode(ids, skipSpecial: false).utf8) == Array(spaced.utf8))
        }
    }

    @Test(arguments: [
        (smolLM2FileName, "full-smollm2-135m-instruct.q4_1.json"),
        (smolLM2FileName, "prompts-smollm2.json"),
        ("qwen2.5-coder-0.5b-instruct-q4_k_m.gguf", "full-qwen2.5-coder-0.5b-instruct-q4_k_m.json"),
        ("qwen2.5-coder-0.5b-instruct-q4_k_m.gguf", "prompts-qwen2.5-coder.json"),
        ("qwen2.5-coder-1.5b-instruct-q4_k_m.gguf", "prompts-qwen2.5-coder.json"),
        ("gemma-3-270m-q4_k_m.gguf", "full-gemma-3-270m-q4_k_m.json"),
    ])
    func fullSize(_ model: String, _ fixture: String) throws {
        guard let path = testModelPath(model) else { return }
        let tokenizer = try Tokenizer(metadata: GGUFFile(path: path).metadata)
        for golden in try goldenCases(fixture) {
            let ids = tokenizer.encode(golden.text, addSpecial: false, parseSpecial: true)
            #expect(ids == golden.ids, "\(model) \(golden.text.debugDescription)")
        }
    }

    /// llama.cpp's own test strings.
    @Test func smollm2Vectors() throws {
        guard let path = testModelPath(smolLM2FileName) else { return }
        let tokenizer = try Tokenizer(metadata: GGUFFile(path: path).metadata)
        let input = String(decoding: try Data(contentsOf: URL(filePath: fixtureFolder + "smollm2.gguf.inp")), as: UTF8.self)
        let output = String(decoding: try Data(contentsOf: URL(filePath: fixtureFolder + "smollm2.gguf.out")), as: UTF8.self)
        let texts = pieces(of: Array(input.utf8), separatedBy: Array("\n__ggml_vocab_test__\n".utf8))
        let lines = output.split(separator: "\n", omittingEmptySubsequences: false)
        #expect(texts.count == 47)
        for (text, line) in zip(texts, lines) {
            let expected = line.split(separator: " ").map { Int32($0)! }
            let ids = tokenizer.encode(text, addSpecial: true, parseSpecial: true)
            #expect(ids == expected, "\(text.debugDescription)")
            #expect(tokenizer.decode(ids, skipSpecial: false) == text)
        }
        #expect(tokenizer.vocabularySize == 49_152)
        #expect(tokenizer.bos == 1)
        #expect(tokenizer.eos == 2)
        #expect(!tokenizer.addsBOS)
        #expect(tokenizer.endOfGeneration == [0, 2, 4])
    }

    /// Splits bytes, because a separator that begins with a line end can hide in a grapheme of the text before it.
    private func pieces(of bytes: [UInt8], separatedBy separator: [UInt8]) -> [String] {
        var pieces: [String] = []
        var start = 0
        var offset = 0
        while offset + separator.count <= bytes.count {
            if bytes[offset..<offset + separator.count].elementsEqual(separator) {
                pieces.append(String(decoding: bytes[start..<offset], as: UTF8.self))
                offset += separator.count
                start = offset
            } else {
                offset += 1
            }
        }
        return pieces + [String(decoding: bytes[start...], as: UTF8.self)]
    }
}
