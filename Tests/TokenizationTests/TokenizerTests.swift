import Testing
import Tokenization

@Suite struct TokenizerTests {
    @Test func wholeWordsWithoutMerges() throws {
        func ids(_ ignoresMerges: Bool) throws -> [String] {
            // "abc" cannot be reached: nothing merges "ab" with "c".
            var vocabulary = Vocabulary(
                model: .bytePairs(.llama3, ignoresMerges: ignoresMerges), tokens: ["a", "b", "c", "ab", "abc"], types: Array(repeating: .normal, count: 5))
            vocabulary.merges = ["a b"]
            let tokenizer = try Tokenizer(vocabulary: vocabulary)
            // Twice: the second time the answer is remembered.
            let first = tokenizer.encode("abc", addSpecial: false, parseSpecial: false)
            #expect(tokenizer.encode("abc", addSpecial: false, parseSpecial: false) == first)
            return first.map(tokenizer.tokenText)
        }
        #expect(try ids(true) == ["abc"])
        #expect(try ids(false) == ["ab", "c"])
    }

    /// Ranks decide, not length; equal pairs merge from the left.
    @Test func ranksDecide() throws {
        var vocabulary = Vocabulary(
            model: .bytePairs(.gpt2, ignoresMerges: false), tokens: ["a", "b", "c", "bc", "ab", "aa", "aaa"], types: Array(repeating: .normal, count: 7))
        vocabulary.merges = ["b c", "a b", "a a", "aa a"]
        let tokenizer = try Tokenizer(vocabulary: vocabulary)
        func pieces(_ text: String) -> [String] { tokenizer.encode(text, addSpecial: false, parseSpecial: false).map(tokenizer.tokenText) }
        #expect(pieces("abc") == ["a", "bc"])
        #expect(pieces("aab") == ["a", "ab"])
        #expect(pieces("aaa") == ["aaa"])
        #expect(pieces("aaaa") == ["aa", "aa"])
        #expect(pieces("aaaaa") == ["aa", "aaa"])
    }

    /// A word of any length is merged as the scan of short words merges it: the heap and the scan give the same.
    @Test func longWordsMergeLikeShortOnes() throws {
        let tokenizer = try fixtureTokenizer("bpe-gpt-2.gguf")
        let short = tokenizer.encode(String(repeating: "ab", count: 24), addSpecial: false, parseSpecial: false)
        let long = tokenizer.encode(String(repeating: "ab", count: 48), addSpecial: false, parseSpecial: false)
        #expect(long == short + short)
    }

    /// Bytes that no token stands for are left out; they never become a control token, which the unknown token often is.
    @Test func bytesWithoutTokenAreLeftOut() throws {
        var vocabulary = Vocabulary(
            model: .bytePairs(.gpt2, ignoresMerges: false), tokens: ["<|end|>", "a", "b", "ab"], types: [.control, .normal, .normal, .normal])
        vocabulary.merges = ["a b"]
        vocabulary.unknown = 0
        let tokenizer = try Tokenizer(vocabulary: vocabulary)
        #expect(tokenizer.encode("azb", addSpecial: false, parseSpecial: false).map(tokenizer.tokenText) == ["ab"])
        #expect(tokenizer.encode("z", addSpecial: false, parseSpecial: false).isEmpty)
    }

    /// Padding and retired tokens can still be steps on the way of a merge.
    @Test func unusedTokensMerge() throws {
        var vocabulary = Vocabulary(
            model: .bytePairs(.gpt2, ignoresMerges: false), tokens: ["a", "b", "c", "ab", "abc", "[PAD5]"],
            types: [.normal, .normal, .normal, .unused, .normal, .unused])
        vocabulary.merges = ["a b", "ab c"]
        let tokenizer = try Tokenizer(vocabulary: vocabulary)
        #expect(tokenizer.encode("abc", addSpecial: false, parseSpecial: false) == [4])
    }

    @Test func sentencePieceWithoutBytesUsesTheUnknownToken() throws {
        var vocabulary = Vocabulary(
            model: .sentencePiece(addsSpacePrefix: false), tokens: ["<unk>", "a", "b", "ab"], types: [.unknown, .normal, .normal, .normal])
        vocabulary.scores = [0, -1, -2, -0.5]
        vocabulary.unknown = 0
        let tokenizer = try Tokenizer(vocabulary: vocabulary)
        #expect(tokenizer.encode("abzzéa", addSpecial: false, parseSpecial: false) == [3, 0, 1], "one unknown token for a run of unknown characters")
    }

    @Test func theSpacePrefixFollowsSpecialTokens() throws {
        let llama = try fixtureTokenizer("sp-llama.gguf")
        let whole = llama.encode("Hello", addSpecial: false, parseSpecial: true)
        #expect(llama.decode(whole, skipSpecial: true) == "Hello")
        let turn = llama.encode("<start_of_turn>Hello<end_of_turn>Hello", addSpecial: false, parseSpecial: true)
        #expect(turn == [3] + whole + [4] + whole)
        #expect(llama.encode(" Hello", addSpecial: false, parseSpecial: true) != whole)
        #expect(llama.addsBOS, "unless the file says otherwise")
        #expect(llama.encode("Hello", addSpecial: true, parseSpecial: true) == [1] + whole)
        #expect(llama.encode("", addSpecial: true, parseSpecial: true) == [1])

        let gemma = try fixtureTokenizer("sp-gemma.gguf")
        let plain = gemma.encode("Hello", addSpecial: false, parseSpecial: true)
        #expect(gemma.encode("<end_of_turn>Hello", addSpecial: false, parseSpecial: true) == [4] + plain)
        #expect(gemma.decode(gemma.encode(" Hello", addSpecial: false, parseSpecial: true), skipSpecial: true) == " Hello")
    }

    @Test func bytesOfTokensJoinIntoText() throws {
        let tokenizer = try fixtureTokenizer("sp-gemma.gguf")
        let text = "naïve 🦙 𝟘 \u{0}\n"
        let ids = tokenizer.encode(text, addSpecial: true, parseSpecial: false)
        var assembler = UTF8Assembler()
        var streamed = ""
        for id in ids {
            var bytes: [UInt8] = []
            tokenizer.appendBytes(of: id, to: &bytes, includeSpecial: false)
            assembler.append(bytes, to: &streamed)
        }
        #expect(streamed + assembler.finish() == text)
        #expect(ids.first == tokenizer.bos)
        #expect(tokenizer.tokenText(ids[0]) == "<s>")
        // A byte token alone is no character.
        let byte = ids.first { id in
            var bytes: [UInt8] = []
            tokenizer.appendBytes(of: id, to: &bytes, includeSpecial: true)
            return bytes.count == 1 && bytes[0] >= 0x80
        }
        #expect(tokenizer.tokenText(try #require(byte)) == "\u{FFFD}")
    }

    @Test func idsOutsideOfTheVocabularyStandForNothing() throws {
        let tokenizer = try fixtureTokenizer("bpe-gpt-2.gguf")
        let size = Int32(tokenizer.vocabularySize)
        #expect(tokenizer.decode([-1, size, .max, .min], skipSpecial: false) == "")
        #expect(tokenizer.tokenText(size) == "")
        #expect(!tokenizer.isControl(-1))
        #expect(!tokenizer.isControl(size))
    }

    /// A quarter of a megabyte without a border, of every kind; quadratic time would make this test last many minutes.
    @Test(arguments: ["bpe-gpt-2", "bpe-smollm", "bpe-qwen2", "bpe-llama-bpe", "bpe-default", "sp-llama", "sp-gemma"])
    func hostileTextsStayLinear(_ fixture: String) throws {
        let tokenizer = try fixtureTokenizer(fixture + ".gguf")
        let units = ["a", "ab", " ", "\n", "\n ", " \t", "!", "1", "é", "字", "🙂", "'", "<|im_", "e\u{301}", "\u{2581}"]
        for unit in units {
            let text = String(repeating: unit, count: 250_000 / unit.utf8.count)
            let ids = tokenizer.encode(text, addSpecial: false, parseSpecial: true)
            let decoded = tokenizer.decode(ids, skipSpecial: false)
            if unit != "\u{2581}" { #expect(decoded.utf8.count == text.utf8.count && decoded.utf8.elementsEqual(text.utf8), "\(unit.debugDescription)") }
        }
    }

    @Test func threadsShareATokenizer() async throws {
        let tokenizer = try fixtureTokenizer("bpe-smollm.gguf")
        let cases = try goldenCases("bpe-smollm.json")
        let wrong = await withTaskGroup(of: Int.self) { group in
            for offset in 0..<8 {
                group.addTask {
                    let rotated = cases[(offset * 30)...] + cases[..<(offset * 30)]
                    return rotated.count { tokenizer.encode($0.text, addSpecial: false, parseSpecial: true) != $0.ids }
                }
            }
            return await group.reduce(0, +)
        }
        #expect(wrong == 0)
    }
}
