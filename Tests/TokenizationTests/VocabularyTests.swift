import GGUF
import Testing
import Tokenization

@Suite struct VocabularyTests {
    private static func metadata(_ changes: [String: GGUFValue?] = [:]) -> GGUFMetadata {
        let pairs: [(String, GGUFValue)] = [
            ("tokenizer.ggml.model", .string("gpt2")), ("tokenizer.ggml.pre", .string("qwen2")),
            ("tokenizer.ggml.tokens", .array(.strings(["a", "b", "ab", "<|im_end|>"]))), ("tokenizer.ggml.token_type", .array(.int32s([1, 1, 1, 3]))),
            ("tokenizer.ggml.merges", .array(.strings(["a b"]))), ("tokenizer.ggml.eos_token_id", .uint32(3)),
        ]
        var kept = pairs.compactMap { pair -> (String, GGUFValue)? in
            guard let change = changes[pair.0] else { return pair }
            return change.map { (pair.0, $0) }
        }
        for (key, value) in changes.sorted(by: { $0.key < $1.key }) where !pairs.contains(where: { $0.0 == key }) {
            if let value { kept.append((key, value)) }
        }
        return GGUFMetadata(kept)
    }

    private static func refusal(_ changes: [String: GGUFValue?]) -> TokenizationError? {
        do throws(TokenizationError) {
            _ = try Tokenizer(metadata: metadata(changes))
            return nil
        } catch {
            return error
        }
    }

    @Test func readsAFilesKeys() throws {
        let tokenizer = try Tokenizer(metadata: Self.metadata())
        #expect(tokenizer.vocabularySize == 4)
        #expect(tokenizer.eos == 3)
        #expect(tokenizer.bos == nil)
        #expect(!tokenizer.addsBOS)
        #expect(tokenizer.encode("ab<|im_end|>", addSpecial: true, parseSpecial: true) == [2, 3])
    }

    @Test func aliasesOfPreTokenizersAreAccepted() throws {
        for (name, _) in PreTokenizer.names {
            _ = try Tokenizer(metadata: Self.metadata(["tokenizer.ggml.pre": .string(name)]))
        }
        _ = try Tokenizer(metadata: Self.metadata(["tokenizer.ggml.pre": nil]))
        #expect(PreTokenizer(name: "smollm") == .smollm)
        #expect(PreTokenizer(name: "llama-bpe") == .llama3)
        #expect(PreTokenizer(name: "tekken") == nil)
    }

    @Test func unknownKindsAreRefusedByName() {
        let preTokenizer = Self.refusal(["tokenizer.ggml.pre": .string("tekken")])
        #expect(preTokenizer?.code == .unsupportedPreTokenizer)
        for name in ["\"tekken\"", "smollm", "qwen2", "llama-bpe", "gpt-2", "default"] { #expect(preTokenizer?.message.contains(name) == true) }
        let model = Self.refusal(["tokenizer.ggml.model": .string("rwkv")])
        #expect(model?.code == .unsupportedModel)
        for name in ["\"rwkv\"", "gpt2", "llama"] { #expect(model?.message.contains(name) == true) }
    }

    @Test(arguments: ["tokenizer.ggml.model", "tokenizer.ggml.tokens", "tokenizer.ggml.merges"])
    func missingKeysAreNamed(_ key: String) {
        let error = Self.refusal([key: nil])
        #expect(error?.code == .missingMetadata)
        #expect(error?.message.contains(key) == true)
    }

    @Test func contradictionsAreRefused() {
        #expect(Self.refusal(["tokenizer.ggml.tokens": .string("a")])?.code == .invalidMetadata)
        #expect(Self.refusal(["tokenizer.ggml.eos_token_id": .string("3")])?.code == .invalidMetadata)
        let types = Self.refusal(["tokenizer.ggml.token_type": .array(.int32s([1, 1]))])
        #expect(types?.code == .invalidMetadata)
        #expect(types?.message.contains("2") == true && types?.message.contains("4") == true)
        for merge in ["a", "ab", "a ", " b", "", "a z", "a a", "a \u{4F60}", "b a"] {
            let error = Self.refusal(["tokenizer.ggml.merges": .array(.strings(["a b", merge]))])
            #expect(error?.code == .invalidVocabulary, "\(merge)")
            #expect(error?.message.contains("merge 1") == true)
        }
        let empty = GGUFValue.array(.strings([]))
        let nothing = Self.refusal(["tokenizer.ggml.tokens": empty, "tokenizer.ggml.token_type": nil, "tokenizer.ggml.merges": empty])
        #expect(nothing?.code == .invalidVocabulary)
        let unscored = Self.refusal(["tokenizer.ggml.model": .string("llama")])
        #expect(unscored?.code == .missingMetadata)
        let scores = Self.refusal(["tokenizer.ggml.model": .string("llama"), "tokenizer.ggml.scores": .array(.float32s([0, 1]))])
        #expect(scores?.code == .invalidVocabulary)
        let notANumber = Self.refusal(["tokenizer.ggml.model": .string("llama"), "tokenizer.ggml.scores": .array(.float32s([0, 1, .nan, 0]))])
        #expect(notANumber?.code == .invalidVocabulary)
    }

    /// An id beyond the vocabulary is no token: the file's other facts still hold.
    @Test func idsBeyondTheVocabularyAreIgnored() throws {
        let tokenizer = try Tokenizer(metadata: Self.metadata(["tokenizer.ggml.eos_token_id": .uint32(4), "tokenizer.ggml.bos_token_id": .uint32(.max)]))
        #expect(tokenizer.eos == nil)
        #expect(tokenizer.bos == nil)
        #expect(tokenizer.endOfGeneration == [3])
    }

    @Test func filesWithoutTypesAreReadBySpelling() throws {
        let tokenizer = try Tokenizer(metadata: Self.metadata(["tokenizer.ggml.token_type": nil]))
        #expect(tokenizer.isControl(3))
        #expect(tokenizer.endOfGeneration == [3])
        let sentencePiece = try Tokenizer(metadata: Self.metadata([
            "tokenizer.ggml.model": .string("llama"), "tokenizer.ggml.token_type": nil, "tokenizer.ggml.scores": .array(.float32s([0, 0, 0, -1, -2])),
            "tokenizer.ggml.tokens": .array(.strings(["<unk>", "<s>", "</s>", "<0x61>", "b"])), "tokenizer.ggml.eos_token_id": nil,
        ]))
        #expect(sentencePiece.encode("\u{61}", addSpecial: false, parseSpecial: false).last == 3)
        #expect((0...2).allSatisfy { sentencePiece.isControl($0) })
        #expect(sentencePiece.bos == 1 && sentencePiece.eos == 2)
    }

    @Test func plainTokensOfTheByteAlphabet() throws {
        // A token beyond the alphabet was added as text and stands for itself.
        let tokenizer = try Tokenizer(metadata: Self.metadata([
            "tokenizer.ggml.tokens": .array(.strings(["a", "b", "ab", "<|im_end|>", "Ġ", "Ċ", "你", "Ã©"])),
            "tokenizer.ggml.token_type": .array(.int32s([1, 1, 1, 3, 1, 1, 1, 1])),
        ]))
        #expect((4...7).map { tokenizer.tokenText(Int32($0)) } == [" ", "\n", "你", "é"])
    }
}
