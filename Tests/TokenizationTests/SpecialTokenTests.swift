import Testing
import Tokenization

@Suite struct SpecialTokenTests {
    /// One token per letter, a few merges, and special tokens of every kind.
    static func vocabulary(_ specials: [(String, Vocabulary.TokenType)]) -> Vocabulary {
        let characters = (0x21...0x7E).map { String(Unicode.Scalar(UInt8($0))) } + ["Ġ", "Ċ", "ab", "abc"]
        let tokens = characters + specials.map { $0.0 }
        let types = characters.map { _ in Vocabulary.TokenType.normal } + specials.map { $0.1 }
        var vocabulary = Vocabulary(model: .bytePairs(.gpt2, ignoresMerges: false), tokens: tokens, types: types)
        vocabulary.merges = ["a b", "ab c"]
        return vocabulary
    }

    static func tokenizer(_ specials: [(String, Vocabulary.TokenType)], _ change: (inout Vocabulary) -> Void = { _ in }) throws -> Tokenizer {
        var vocabulary = vocabulary(specials)
        change(&vocabulary)
        return try Tokenizer(vocabulary: vocabulary)
    }

    private let chat: [(String, Vocabulary.TokenType)] = [("<|im_start|>", .control), ("<|im_end|>", .control), ("<tool>", .userDefined)]

    private func texts(_ tokenizer: Tokenizer, _ ids: [Int32]) -> [String] { ids.map(tokenizer.tokenText) }

    @Test func controlTokensOfUntrustedTextStayText() throws {
        let tokenizer = try Self.tokenizer(chat)
        let text = "ab<|im_end|>c"
        let trusted = tokenizer.encode(text, addSpecial: false, parseSpecial: true)
        #expect(texts(tokenizer, trusted) == ["ab", "<|im_end|>", "c"])
        let untrusted = tokenizer.encode(text, addSpecial: false, parseSpecial: false)
        #expect(texts(tokenizer, untrusted) == ["ab", "<", "|", "i", "m", "_", "e", "n", "d", "|", ">", "c"])
        #expect(!untrusted.contains(where: tokenizer.isControl))
        #expect(tokenizer.decode(untrusted, skipSpecial: true) == text)
        #expect(tokenizer.decode(trusted, skipSpecial: true) == "abc")
        #expect(tokenizer.decode(trusted, skipSpecial: false) == text)
    }

    @Test func userDefinedTokensMatchEverywhere() throws {
        let tokenizer = try Self.tokenizer(chat)
        for parseSpecial in [false, true] {
            #expect(texts(tokenizer, tokenizer.encode("a<tool>b", addSpecial: false, parseSpecial: parseSpecial)) == ["a", "<tool>", "b"])
        }
        let id = tokenizer.encode("<tool>", addSpecial: false, parseSpecial: false)[0]
        #expect(!tokenizer.isControl(id))
        #expect(tokenizer.decode([id], skipSpecial: true) == "<tool>")
    }

    /// A turn border that a file calls user-defined is no more a request's to write than any other.
    @Test func userDefinedMarkersNeedTrust() throws {
        let tokenizer = try Self.tokenizer([("<|turn|>", .userDefined), ("<start_of_turn>", .userDefined), ("<s>", .userDefined)])
        for marker in ["<|turn|>", "<start_of_turn>"] {
            #expect(tokenizer.encode(marker, addSpecial: false, parseSpecial: true).count == 1)
            #expect(tokenizer.encode(marker, addSpecial: false, parseSpecial: false).count == marker.utf8.count)
        }
        #expect(tokenizer.encode("<s>", addSpecial: false, parseSpecial: false).count == 1, "HTML's strike-through is a word")
    }

    @Test func trustIsDecidedByEveryCharacter() throws {
        let tokenizer = try Self.tokenizer(chat)
        func encoded(_ pieces: (String, Bool)...) -> [String] {
            texts(tokenizer, tokenizer.encode(pieces.map { TextPiece(text: $0.0, isTrusted: $0.1) }, addSpecial: false))
        }
        let spelled = "<|im_end|>".map(String.init)
        #expect(encoded(("<|im_end|>", true)) == ["<|im_end|>"])
        #expect(encoded(("<|im_end|>", false)) == spelled)
        #expect(encoded(("<|im_", true), ("end|>", true)) == ["<|im_end|>"], "trusted pieces that touch are one trusted text")
        #expect(encoded(("<|im_", true), ("", false), ("end|>", true)) == ["<|im_end|>"])
        #expect(encoded(("<|im_", true), ("end|>", false)) == spelled)
        #expect(encoded(("<|im_", false), ("end|>", true)) == spelled)
        #expect(encoded(("<|im_end|", false), (">", true)) == spelled)
        #expect(encoded(("<|im_", true), ("e", false), ("nd|>", true)) == spelled)
        #expect(encoded(("<|im_start|>", true), ("<|im_end|>", false), ("<|im_end|>", true)) == ["<|im_start|>"] + spelled + ["<|im_end|>"])
        #expect(encoded(("<|im_start|>", false), ("<|im_end|>", true), ("<|im_start|>", true)).suffix(2) == ["<|im_end|>", "<|im_start|>"])
    }

    @Test func wordsFormOverPieceBorders() throws {
        let tokenizer = try Self.tokenizer(chat)
        let mixed = [TextPiece(text: "a", isTrusted: true), TextPiece(text: "b", isTrusted: false), TextPiece(text: "c", isTrusted: true)]
        let ids = tokenizer.encode(mixed, addSpecial: false)
        #expect(texts(tokenizer, ids) == ["abc"])
        let acrossUserDefined = tokenizer.encode([TextPiece(text: "<to", isTrusted: true), TextPiece(text: "ol>", isTrusted: false)], addSpecial: false)
        #expect(texts(tokenizer, acrossUserDefined) == ["<tool>"])
    }

    /// Any cut of a text into pieces of one trust gives the ids of the text.
    @Test(arguments: [true, false])
    func cutsDoNotMatter(_ isTrusted: Bool) throws {
        let tokenizer = try fixtureTokenizer("bpe-qwen2.gguf")
        var generator = SeededGenerator(state: 3)
        for golden in try goldenCases("bpe-qwen2.json") {
            let characters = Array(golden.text.unicodeScalars)
            var pieces: [TextPiece] = []
            var start = 0
            while start < characters.count {
                let end = min(characters.count, start + Int.random(in: 0...7, using: &generator))
                pieces.append(TextPiece(text: String(String.UnicodeScalarView(characters[start..<end])), isTrusted: isTrusted))
                start = end
            }
            #expect(tokenizer.encode(pieces, addSpecial: false) == tokenizer.encode(golden.text, addSpecial: false, parseSpecial: isTrusted))
        }
    }

    @Test func theLongestTokenWinsThenTheLeftmost() throws {
        let tokenizer = try Self.tokenizer([
            ("<|im|>", .control), ("<|im", .userDefined), ("im|>x", .userDefined), ("  ", .userDefined), ("    ", .userDefined),
        ])
        #expect(texts(tokenizer, tokenizer.encode("<|im|>x", addSpecial: false, parseSpecial: true)) == ["<|im|>", "x"])
        #expect(
            texts(tokenizer, tokenizer.encode("<|im|>x", addSpecial: false, parseSpecial: false)) == ["<|im", "|", ">", "x"],
            "the longer token needs trust, the shorter one does not")
        #expect(texts(tokenizer, tokenizer.encode("       a", addSpecial: false, parseSpecial: false)) == ["    ", "  ", " ", "a"])
    }

    /// Merging must not end in a control token that happens to be spelled like a word.
    @Test func noTextMergesIntoAControlToken() throws {
        var vocabulary = Self.vocabulary([("de", .control)])
        vocabulary.merges.append("d e")
        let merging = try Tokenizer(vocabulary: vocabulary)
        #expect(merging.encode("de", addSpecial: false, parseSpecial: false).map(merging.tokenText) == ["d", "e"])
        let whole = try Self.tokenizer([("de", .control)]) { $0.model = .bytePairs(.llama3, ignoresMerges: true) }
        #expect(whole.encode("de", addSpecial: false, parseSpecial: false).map(whole.tokenText) == ["d", "e"])

        let llama = try fixtureTokenizer("sp-llama.gguf")
        for marker in ["<s>", "</s>", "<unk>", "<start_of_turn>", "<0x41>"] {
            let ids = llama.encode(marker, addSpecial: false, parseSpecial: false)
            #expect(!ids.contains(where: llama.isControl))
            #expect(ids.count > 1)
            #expect(llama.decode(ids, skipSpecial: true) == marker)
        }
        #expect(llama.encode("</s>", addSpecial: false, parseSpecial: true) == [2])
    }

    // MARK: Beginning and end of text

    @Test func beginningAndEndAreAddedOnce() throws {
        func tokenizer(_ addsBOS: Bool, _ addsEOS: Bool) throws -> Tokenizer {
            try Self.tokenizer(chat) {
                let count = Int32($0.tokens.count)
                ($0.bos, $0.eos) = (count - 3, count - 2)
                ($0.addsBOS, $0.addsEOS) = (addsBOS, addsEOS)
            }
        }
        let both = try tokenizer(true, true)
        #expect(texts(both, both.encode("ab", addSpecial: true, parseSpecial: true)) == ["<|im_start|>", "ab", "<|im_end|>"])
        #expect(texts(both, both.encode("ab", addSpecial: false, parseSpecial: true)) == ["ab"])
        #expect(texts(both, both.encode("", addSpecial: true, parseSpecial: true)) == ["<|im_start|>", "<|im_end|>"])
        #expect(texts(both, both.encode("<|im_start|>ab<|im_end|>", addSpecial: true, parseSpecial: true)) == ["<|im_start|>", "ab", "<|im_end|>"])
        #expect(texts(both, both.encode([TextPiece(text: "ab", isTrusted: true)], addSpecial: true)) == ["<|im_start|>", "ab", "<|im_end|>"])
        let none = try tokenizer(false, false)
        #expect(texts(none, none.encode("ab", addSpecial: true, parseSpecial: true)) == ["ab"])
        let unnamed = try Self.tokenizer(chat) { $0.addsBOS = true }
        #expect(!unnamed.addsBOS)
        #expect(texts(unnamed, unnamed.encode("ab", addSpecial: true, parseSpecial: true)) == ["ab"])
    }

    // MARK: End of generation

    @Test func endOfGenerationComesFromIdsAndSpellings() throws {
        let tokenizer = try Self.tokenizer([
            ("<|im_end|>", .control), ("<|endoftext|>", .userDefined), ("<|eot_id|>", .normal), ("</s>", .userDefined), ("<stop>", .control),
            ("<|im_start|>", .control), ("<|fim_pad|>", .control),
        ]) { $0.eos = Int32($0.tokens.firstIndex(of: "<stop>")!) }
        #expect(Set(tokenizer.endOfGeneration.map(tokenizer.tokenText)) == ["<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<stop>", "<|fim_pad|>"])
        for id in tokenizer.endOfGeneration { #expect(tokenizer.isControl(id)) }
    }

    @Test func aChannelEndIsNotTheEnd() throws {
        let plain = try Self.tokenizer([("<|end|>", .control)])
        #expect(plain.endOfGeneration.map(plain.tokenText) == ["<|end|>"])
        let channels = try Self.tokenizer([("<|end|>", .control), ("<|return|>", .control), ("<|call|>", .control)])
        #expect(Set(channels.endOfGeneration.map(channels.tokenText)) == ["<|return|>", "<|call|>"])
    }

    /// An end-of-text id that names an ordinary word ends generation without making the word special.
    @Test func aWordCanEndGeneration() throws {
        let tokenizer = try Self.tokenizer([]) { $0.eos = Int32($0.tokens.firstIndex(of: "Ċ")!) }
        let newline = tokenizer.encode("\n", addSpecial: false, parseSpecial: false)
        #expect(newline.count == 1)
        #expect(tokenizer.endOfGeneration == Set(newline))
        #expect(!tokenizer.isControl(newline[0]))
    }
}
