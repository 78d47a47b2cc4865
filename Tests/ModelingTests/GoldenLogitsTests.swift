import FoundationEssentials
import GGUF
import Kernels
import Modeling
import TestSupport
import Testing

#if canImport(Glibc)
import Glibc
#endif

/// Real models against transformers in float32 on the dequantised weights (`Scripts/make_golden.py`).
@Suite(.serialized)
struct GoldenLogitsTests {
    struct Golden: Decodable {
        struct Chat: Decodable {
            let prompt_ids: [Int32]
            let last_top20: [[Double]]
            let greedy_ids: [Int32]
        }
        struct Text: Decodable {
            let ids: [Int32]
            let perplexity: Double
        }
        let chats: [Chat]
        let text: Text
    }

    /// One sequence at a time over a model.
    struct Session {
        let pass: ForwardPass
        let model: LanguageModel

        init(_ model: LanguageModel, numerics: Numerics, pool: ComputePool) throws {
            let c = model.configuration
            let cache = try KVCache(
                layers: c.layerCount, kvHeads: c.kvHeadCount, headDim: c.headDim, blockCount: 16, precision: numerics == .exact ? .float32 : .float16)
            pass = try ForwardPass(
                model: model, cache: cache, variant: KernelVariant(), pool: pool, numerics: numerics, maximumRows: 256, maximumLogitsRows: 256)
            self.model = model
        }

        func run(_ tokens: [Int32], at position: Int, _ wanted: LogitsWanted) -> ForwardPass.Logits {
            let count = pass.run([ForwardSegment(tokens: tokens, position: position, blocks: Array(0..<16), logits: wanted)])
            return pass.logits(of: 0..<count)
        }
    }

    static func logProbabilities(_ logits: UnsafeMutableBufferPointer<Float>) -> [Double] {
        let largest = Double(logits.max()!)
        let sum = logits.reduce(0.0) { $0 + exp(Double($1) - largest) }
        return logits.map { Double($0) - largest - log(sum) }
    }

    /// D = Σ over the golden's 20 best of p · |ln p − ln p̂|
    static func distance(_ chat: Golden.Chat, _ found: [Double]) -> Double {
        chat.last_top20.reduce(0) { $0 + exp($1[1]) * abs($1[1] - found[Int($1[0])]) }
    }

    static func perplexity(_ session: Session, _ ids: [Int32]) -> Double {
        let logits = session.run(ids, at: 0, .all)
        let sum = (0..<ids.count - 1).reduce(0.0) { $0 + logProbabilities(logits[$1])[Int(ids[$1 + 1])] }
        return exp(-sum / Double(ids.count - 1))
    }

    struct Model: Sendable, CustomTestStringConvertible {
        let file: String, golden: String
        var testDescription: String { golden }
    }

    static let models = [
        Model(file: smolLM2FileName, golden: "SmolLM2-135M-Instruct.Q4_1"),
        Model(file: "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf", golden: "Qwen2.5-Coder-0.5B-Instruct.Q4_K_M"),
        Model(file: "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf", golden: "Qwen2.5-Coder-1.5B-Instruct.Q4_K_M"),
        Model(file: "gemma-3-270m-q4_k_m.gguf", golden: "gemma-3-270m.Q4_K_M"),
    ]

    @Test(arguments: models)
    func exactModeAnswersAsTransformersDoes(_ entry: Model) throws {
        let name = entry.golden
        guard let path = testModelPath(entry.file) else { return }
        let golden = try JSONDecoder().decode(Golden.self, from: Data(contentsOf: goldenFolder.appending(path: "logits/\(name).json")))
        let pool = try ComputePool(threads: 2)
        let model = try LanguageModel(file: GGUFFile(path: path), pool: pool)
        let exact = try Session(model, numerics: .exact, pool: pool), fast = try Session(model, numerics: .fast, pool: pool)
        var fastDistance = 0.0
        for (number, chat) in golden.chats.enumerated() {
            var logits = exact.run(chat.prompt_ids, at: 0, .last)
            let d = GoldenLogitsTests.distance(chat, GoldenLogitsTests.logProbabilities(logits[0]))
            #expect(d < 0.002, "\(name), chat \(number): D = \(d)")
            fastDistance += GoldenLogitsTests.distance(chat, GoldenLogitsTests.logProbabilities(fast.run(chat.prompt_ids, at: 0, .last)[0]))
            for (i, expected) in chat.greedy_ids.enumerated() {
                let row = logits[0]
                let best = row.indices.max { row[$0] < row[$1] }!
                // Two candidates within 1e-3 of each other may swap.
                #expect(best == Int(expected) || abs(row[best] - row[Int(expected)]) < 1e-3, "\(name), chat \(number): token \(i) is \(best), expected \(expected)")
                if i + 1 < chat.greedy_ids.count { logits = exact.run([expected], at: chat.prompt_ids.count + i, .last) }
            }
        }
        let perplexity = GoldenLogitsTests.perplexity(exact, golden.text.ids), fastPerplexity = GoldenLogitsTests.perplexity(fast, golden.text.ids)
        #expect(abs(perplexity / golden.text.perplexity - 1) < 0.001, "\(name): perplexity \(perplexity), expected \(golden.text.perplexity)")
        print("\(name): fast mode: mean D \(fastDistance / Double(golden.chats.count)), perplexity \(fastPerplexity) against \(perplexity) exact")
    }
}

struct DefaultModelTests {
    /// All 49,152 logits of 16 prompts of mixed lengths, prefilled together and decoded together, against each alone on one thread: equal bits.
    @Test(arguments: [Numerics.fast, .exact])
    func sixteenTogetherAreEachAlone(numerics: Numerics) throws {
        guard let path = testModelPath(smolLM2FileName) else { return }
        let two = try ComputePool(threads: 2), one = try ComputePool(threads: 1)
        let model = try LanguageModel(file: GGUFFile(path: path), pool: two), c = model.configuration
        func pass(_ pool: ComputePool) throws -> ForwardPass {
            let cache = try KVCache(
                layers: c.layerCount, kvHeads: c.kvHeadCount, headDim: c.headDim, blockCount: 64, precision: numerics == .exact ? .float32 : .float16)
            return try ForwardPass(model: model, cache: cache, variant: KernelVariant(), pool: pool, numerics: numerics, maximumRows: 1024, maximumLogitsRows: 16)
        }
        func logits(_ pass: ForwardPass, _ segments: [ForwardSegment]) -> [[UInt32]] {
            let count = pass.run(segments), rows = pass.logits(of: 0..<count)
            return (0..<count).map { rows[$0].map(\.bitPattern) }
        }
        let lengths = (0..<16).map { $0 * $0 % 61 + 1 }
        let prompts = lengths.enumerated().map { ForwardPassTests.prompt(UInt64($0.offset + 1), $0.element, c.vocabularySize) }
        let tables = (0..<16).map { i in (0..<4).map { Int32(i * 4 + $0) } }
        let together = try pass(two), alone = try pass(one)
        for step in 0..<2 {
            let segments = prompts.indices.map { i in
                ForwardSegment(tokens: step == 0 ? prompts[i] : [prompts[i][0]], position: step == 0 ? 0 : lengths[i], blocks: tables[i], logits: .last)
            }
            let found = logits(together, segments)
            for i in prompts.indices { #expect(logits(alone, [segments[i]]) == [found[i]], "prompt of \(lengths[i]), step \(step)") }
        }
    }

    /// Tests without the model say that they were skipped; the default model must not be among those.
    @Test(.enabled(if: ProcessInfo.processInfo.environment["GRAFT_MODELS"] == nil))
    func defaultModelIsThere() {
        #expect(testModelPath(smolLM2FileName) != nil, "make test fetches it: graft pull smollm2-135m-instruct")
    }
}
