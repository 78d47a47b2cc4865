import Inference
import Modeling
import TestSupport
import Testing

/// The real engine with fewer blocks than its answers need: who has to wait in the middle of an answer gets the same answer.
@Suite(.serialized)
struct EnginePreemptionTests {
    /// Prompts that share no beginning, with all that decides a token, beside each other and on drafts, against each alone on an engine with room.
    @Test func interruptedAnswersAreThoseOfEachAlone() async throws {
        guard let fixture = try EngineTests.Fixture(testModelPath(smolLM2FileName)) else { return }
        let list = (1...5).map { "\($0). The red house by the river is number \($0).\n" }.joined()
        var requests = (0..<10).map { i in
            let text = "\(i * 37) " + (i % 3 == 0 ? list : "facts about the river, the harbour and the winter market, one by one:")
            var request = GenerationRequest(prompt: fixture.tokenizer.encode(text, addSpecial: false, parseSpecial: false))
            request.maxTokens = 110 + 6 * i
            request.ignoresEndOfGeneration = i % 4 != 1
            request.logprobs = 3
            request.sampling.temperature = i % 2 == 0 ? 0 : 0.8
            request.sampling.seed = UInt64(i)
            request.owner = i < 6 ? "alice" : "bob"
            request.priority = i % 3
            return request
        }
        requests[1].sampling.presencePenalty = 0.5
        requests[2].sampling.repetitionPenalty = 1.05
        requests[3].wantsPromptLogprobs = true
        requests[5].wantsPromptLogprobs = true
        requests[6].stop = ["number 15"]
        requests[7].adapters = AdapterSet([(try randomAdapter(fixture.model.configuration, "adapter", seed: 1, rank: 8, strength: 0.03), 1)])
        let small = try fixture.engine(sequences: 10, context: 320, blocks: 16, draftRows: 8), collector = EngineTests.Collector()
        let ids = requests.map { _ in SequenceID() }
        for (id, request) in zip(ids, requests) { try small.submit(request, as: id, to: collector) }
        // Slow clients.
        while small.statistics.preemptions == 0, ids.contains(where: { !collector[$0].isOver }) { try await Task.sleep(for: .milliseconds(1)) }
        for id in [ids[0], ids[7]] { small.setPaused(id, true) }
        try await collector.settle([ids[2]])
        for id in [ids[0], ids[7]] { small.setPaused(id, false) }
        try await collector.settle(ids)
        let alone = try fixture.engine(sequences: 1, context: 320, draftRows: 0), single = EngineTests.Collector()
        for (i, request) in requests.enumerated() {
            let id = SequenceID()
            try alone.submit(request, as: id, to: single)
            try await single.settle([id])
            let expected = single[id], found = collector[ids[i]]
            #expect(found.tokens == expected.tokens && found.text == expected.text && found.logprobs == expected.logprobs, "request \(i)")
            #expect(found.promptLogprobs == expected.promptLogprobs && found.promptLogprobs.isEmpty == !request.wantsPromptLogprobs, "request \(i)")
            #expect(found.reason == expected.reason && found.stopString == expected.stopString && found.usage == expected.usage && found.error == nil, "request \(i)")
            #expect(found.starts == 1 && found.scorings == (request.wantsPromptLogprobs ? 1 : 0))
        }
        let statistics = small.statistics, plain = alone.statistics
        #expect(statistics.preemptions >= 2 && statistics.recomputedTokens > 0 && plain.preemptions == 0 && plain.recomputedTokens == 0)
        #expect(statistics.prefillTokens == plain.prefillTokens && statistics.decodeTokens == plain.decodeTokens && statistics.cachedTokens == plain.cachedTokens)
        #expect(statistics.draftTokens > 0 && statistics.blocksTotal == 16)
        await small.shutdown()
        await alone.shutdown()
        #expect(small.statistics.blocksInUse == 0)
    }
}
