import Inference
import Kernels
import Modeling
import Testing

/// The real engine over a small random model with sliding windows: whatever is done with the blocks of its local layers, the answers are the same.
@Suite(.serialized)
struct WindowEngineTests {
    /// Window 24, six of seven layers local.
    static func fixture() throws -> EngineTests.Fixture {
        let folder = "\(#filePath)".split(separator: "/").dropLast(2).reduce("") { $0 + "/" + $1 } + "/Golden/tiny"
        let fixture = try #require(try EngineTests.Fixture("\(folder)/gemma3.gguf"))
        #expect(fixture.model.configuration.slidingWindow == 24 && fixture.model.configuration.windowedLayers == [0, 1, 2, 3, 4, 6])
        return fixture
    }

    /// `count` tokens that begin as all with the same seed do.
    static func prompt(_ fixture: EngineTests.Fixture, _ count: Int, seed: UInt64, then other: UInt64? = nil, at start: Int = .max) -> [Int32] {
        var one = SeededGenerator(seed), two = SeededGenerator(other ?? seed)
        let last = Int32(fixture.model.configuration.vocabularySize)
        return (0..<count).map { $0 < start ? Int32.random(in: 0..<last, using: &one) : Int32.random(in: 0..<last, using: &two) }
    }

    static func request(_ prompt: [Int32], tokens: Int, temperature: Float = 0) -> GenerationRequest {
        var request = GenerationRequest(prompt: prompt)
        request.maxTokens = tokens
        request.ignoresEndOfGeneration = true
        request.logprobs = 3
        request.sampling.temperature = temperature
        request.sampling.seed = 7
        return request
    }

    private static func answer(_ engine: Engine, _ request: GenerationRequest) async throws -> EngineTests.Collector.Answer {
        let id = SequenceID(), collector = EngineTests.Collector()
        try engine.submit(request, as: id, to: collector)
        try await collector.settle([id])
        #expect(collector[id].error == nil && collector[id].tokens.count == request.maxTokens)
        return collector[id]
    }

    private static func expectSame(_ found: EngineTests.Collector.Answer, _ expected: EngineTests.Collector.Answer, _ comment: Comment) {
        // Log-probabilities are a function of all logits.
        #expect(found.tokens == expected.tokens && found.logprobs == expected.logprobs && found.promptLogprobs == expected.promptLogprobs, comment)
    }

    /// Greedy tokens from a cache in which each block holds every layer, row by row, and nothing is given back.
    static func plainAnswer(_ fixture: EngineTests.Fixture, _ prompt: [Int32], tokens: Int) throws -> [Int32] {
        let c = fixture.model.configuration, blocks = BlockPool.blocks(for: prompt.count + tokens)
        let cache = try KVCache(layers: c.layerCount, kvHeads: c.kvHeadCount, headDim: c.headDim, blockCount: blocks, precision: .float16)
        let pass = try ForwardPass(
            model: fixture.model, cache: cache, variant: KernelVariant(), pool: fixture.pool, numerics: .fast, maximumRows: prompt.count, maximumLogitsRows: 1)
        var all = prompt
        while all.count < prompt.count + tokens {
            let start = all.count == prompt.count ? 0 : all.count - 1
            _ = pass.run([ForwardSegment(tokens: Array(all[start...]), position: start, blocks: (0..<Int32(blocks)).map { $0 }, logits: .last)])
            let row = pass.logits(of: 0..<1)[0]
            all.append(Int32(row.indices.max { row[$0] < row[$1] }!))
        }
        return Array(all[prompt.count...])
    }

    @Test func aLongAnswerUsesItsWindowOnlyAndIsTheSame() async throws {
        let fixture = try Self.fixture()
        let prompt = Self.prompt(fixture, 100, seed: 1)
        // 5 slots, each with a window of 23 positions and 64 rows: 4 window blocks.
        for (drafts, blocks) in [(0, 40), (8, 40), (8, 15)] {
            let engine = try fixture.engine(sequences: 1, blocks: blocks, rows: 64, draftRows: drafts)
            let total = engine.statistics
            // The memory of 40 blocks with all layers holds a whole context for each slot, and 20 window blocks beside; that of 15 as many of both.
            #expect(blocks == 40 ? total.blocksTotal == 160 && total.windowBlocksTotal == 20 : total.blocksTotal == 15 && total.windowBlocksTotal == 15)
            let tokens = blocks == 40 ? 900 : 300
            let id = SequenceID(), collector = EngineTests.Collector()
            try engine.submit(Self.request(prompt, tokens: tokens), as: id, to: collector)
            var inUse: [Int] = []
            while !collector[id].isOver {
                let statistics = engine.statistics
                if statistics.decodeTokens > 0, statistics.running > 0 { inUse.append(statistics.windowBlocksInUse) }
                try await Task.sleep(for: .microseconds(200))
            }
            #expect(!inUse.isEmpty && inUse.allSatisfy { (1...3).contains($0) }, "\(Set(inUse))")
            #expect(try collector[id].tokens == Self.plainAnswer(fixture, prompt, tokens: tokens), "\(drafts) draft rows, \(blocks) blocks")
            #expect(drafts == 0 || engine.statistics.acceptedDraftTokens > 0)
            #expect(engine.statistics.windowBlocksInUse == 0)
            await engine.shutdown()
        }
    }

    @Test func aPrefixWithoutItsWindowIsComputedAgain() async throws {
        let fixture = try Self.fixture()
        let engine = try fixture.engine(sequences: 1, blocks: 40, rows: 64), roomy = try fixture.engine(sequences: 1, blocks: 400, rows: 64)
        #expect(engine.statistics.windowBlocksTotal == 20 && roomy.statistics.windowBlocksTotal == roomy.statistics.blocksTotal)
        let prompt = Self.prompt(fixture, 900, seed: 2), request = Self.request(prompt, tokens: 20)
        let longer = Self.request(prompt + Self.prompt(fixture, 50, seed: 3), tokens: 20)
        // It leaves the first prompt in a block whose window has long passed.
        let branch = Self.request(Self.prompt(fixture, 500, seed: 2, then: 4, at: 150), tokens: 20)
        let cold = try await Self.answer(engine, request)
        #expect(cold.usage?.cachedTokens == 0)
        Self.expectSame(cold, try await Self.answer(roomy, request), "cold")
        let warm = try await Self.answer(engine, request)
        #expect(warm.usage?.cachedTokens == 896)
        Self.expectSame(warm, cold, "warm")

        let branched = try await Self.answer(engine, branch)
        #expect(branched.usage?.cachedTokens == 0)
        let expected = try await Self.answer(roomy, branch)
        #expect(expected.usage?.cachedTokens == 128)
        Self.expectSame(branched, expected, "branch")
        // It has needed the window blocks of others for a moment only.
        _ = try await Self.answer(engine, Self.request(Self.prompt(fixture, 900, seed: 5), tokens: 20))
        let blocks = engine.statistics.blocksCached, again = try await Self.answer(engine, longer)
        #expect(again.usage?.cachedTokens == 0 && blocks == 28 + 12 + 28)
        let whole = try await Self.answer(roomy, longer)
        #expect(whole.usage?.cachedTokens == 896)
        Self.expectSame(again, whole, "again")
        // What was computed again is found again, in the same blocks.
        let repaired = try await Self.answer(engine, longer)
        #expect(repaired.usage?.cachedTokens == 928 && engine.statistics.blocksCached == blocks + 2)
        Self.expectSame(repaired, whole, "repaired")
        await engine.shutdown()
        await roomy.shutdown()
    }

    /// Prompts that share beginnings of many lengths, in an order in which they find each other's blocks, beside each other, with more answers than the blocks
    /// can hold: each is as it is alone.
    @Test func sharedPrefixesAndPreemptionsChangeNoAnswer() async throws {
        let fixture = try Self.fixture()
        var requests = (0..<24).map { i in
            let start = [40, 96, 97, 150, 256, 300][i % 6]
            return Self.request(
                Self.prompt(fixture, 330 + i, seed: i % 4 == 3 ? 9 : 8, then: UInt64(20 + i), at: start), tokens: 60 + 13 * (i % 7), temperature: i % 2 == 0 ? 0 : 0.9)
        }
        for i in [5, 11] { requests[i].wantsPromptLogprobs = true }
        for i in requests.indices { requests[i].owner = i % 3 == 0 ? "bob" : "alice" }
        let small = try fixture.engine(sequences: 8, blocks: 50, rows: 64), collector = EngineTests.Collector()
        let total = small.statistics
        #expect(total.windowBlocksTotal == 48 && total.blocksTotal == 62)
        let ids = requests.map { _ in SequenceID() }
        for (id, request) in zip(ids, requests) { try small.submit(request, as: id, to: collector) }
        try await collector.settle(ids)
        for (i, request) in requests.enumerated() {
            let alone = try fixture.engine(sequences: 1, rows: 48, draftRows: 0)
            Self.expectSame(collector[ids[i]], try await Self.answer(alone, request), "request \(i)")
            await alone.shutdown()
        }
        let statistics = small.statistics
        #expect(statistics.preemptions > 0 && statistics.cachedTokens > 0)
        #expect(statistics.blocksInUse == 0 && statistics.windowBlocksInUse == 0)
        await small.shutdown()
    }
}
