import Dispatch
import Executors
import FoundationEssentials
import GGUF
import Inference
import Kernels
import Modeling
import Synchronization
import TestSupport
import Testing
import Tokenization

/// The real engine over SmolLM2: equal answers in any company, prefixes shared, nothing leaked.
@Suite(.serialized)
struct EngineTests {
    /// Collects events by sequence and wakes whoever waits for the end of some.
    final class Collector: GenerationSink {
        struct Answer {
            var text = ""
            var tokens: [Int32] = []
            var logprobs: [TokenLogprobs] = []
            var promptLogprobs: [TokenLogprobs?] = []
            var reason: FinishReason?
            var usage: GenerationUsage?
            var stopString: String?
            var error: InferenceError?
            var events = 0, starts = 0, scorings = 0

            var isOver: Bool { reason != nil || error != nil }
        }

        private let answers = Mutex<[SequenceID: Answer]>([:])

        func deliver(_ events: [GenerationEvent]) {
            answers.withLock { answers in
                for event in events {
                    var answer = answers[event.sequence] ?? Answer()
                    answer.events += 1
                    switch event.kind {
                    case .started: answer.starts += 1
                    case .promptLogprobs(let values):
                        answer.promptLogprobs = values
                        answer.scorings += 1
                    case .text(let text, let tokens):
                        answer.text += text
                        answer.tokens += tokens.map(\.id)
                        answer.logprobs += tokens.compactMap(\.logprobs)
                    case .finished(let reason, let usage, let stop):
                        answer.reason = reason
                        answer.usage = usage
                        answer.stopString = stop
                    case .failed(let error): answer.error = error
                    }
                    answers[event.sequence] = answer
                }
            }
        }

        subscript(id: SequenceID) -> Answer { answers.withLock { $0[id] ?? Answer() } }

        /// Waits until all of `ids` have ended.
        func settle(_ ids: [SequenceID]) async throws {
            while !answers.withLock({ answers in ids.allSatisfy { answers[$0]?.isOver == true } }) { try await Task.sleep(for: .milliseconds(2)) }
        }
    }

    struct Fixture {
        let model: LanguageModel
        let tokenizer: Tokenizer
        let pool: ComputePool

        init?(_ path: String?) throws {
            guard let path else { return nil }
            pool = try ComputePool(threads: 2)
            let file = try GGUFFile(path: path)
            model = try LanguageModel(file: file, pool: pool)
            tokenizer = try Tokenizer(metadata: file.metadata)
        }

        func engine(
            sequences: Int = 16, context: Int = 1024, blocks: Int = 400, queued: Int = 1000, rows: Int = 512, draftRows: Int = 8, turnstile: ComputeTurnstile = ComputeTurnstile()
        ) throws -> Engine {
            let c = model.configuration
            let blockBytes = KVCache.blockBytes(layers: c.layerCount, kvHeads: c.kvHeadCount, headDim: c.headDim, precision: .float16)
            var configuration = EngineConfiguration(contextLength: context, cacheBytes: blocks * blockBytes)
            configuration.maxSequences = sequences
            configuration.maxQueued = queued
            configuration.maxRowsPerStep = rows
            configuration.maxRowsWithDrafts = draftRows
            return try Engine(
                model: model, tokenizer: tokenizer, configuration: configuration, baseDigest: "base", variant: KernelVariant(), pool: pool, turnstile: turnstile)
        }
    }

    static func requests(_ fixture: Fixture, count: Int) -> [GenerationRequest] {
        let words = "river stone market engine garden silver window letter signal harbour winter copper planet bridge forest candle".split(separator: " ")
        return (0..<count).map { i in
            let text = "List \(i + 2) facts about: " + (0..<(i * 7) % 45 + 1).map { words[($0 * 5 + i) % words.count] }.joined(separator: " ")
            var request = GenerationRequest(prompt: fixture.tokenizer.encode(text, addSpecial: false, parseSpecial: false))
            request.maxTokens = 12 + i % 9
            request.ignoresEndOfGeneration = true
            request.logprobs = 3
            request.sampling.temperature = i % 2 == 0 ? 0 : 0.9
            request.sampling.seed = UInt64(i)
            request.sampling.topP = i % 3 == 0 ? 0.9 : 1
            return request
        }
    }

    /// Runs all requests in one batch, then each alone on an engine that takes one sequence at a time, and holds the two to be equal.
    /// - Returns: the answers of the batch.
    static func answersAloneAndTogether(_ fixture: Fixture, _ requests: [GenerationRequest]) async throws -> [Collector.Answer] {
        let together = try fixture.engine(), collector = Collector()
        let ids = requests.map { _ in SequenceID() }
        for (id, request) in zip(ids, requests) { try together.submit(request, as: id, to: collector) }
        try await collector.settle(ids)
        let alone = try fixture.engine(sequences: 1), single = Collector()
        for (i, request) in requests.enumerated() {
            let id = SequenceID()
            try alone.submit(request, as: id, to: single)
            try await single.settle([id])
            let expected = single[id], found = collector[ids[i]]
            #expect(found.tokens == expected.tokens && found.text == expected.text, "request \(i)")
            // Log-probabilities are a function of all logits: equal ones mean equal logits, far beyond the chosen token.
            #expect(found.logprobs == expected.logprobs, "request \(i)")
            #expect(found.usage?.completionTokens == request.maxTokens && found.reason == .length)
        }
        await together.shutdown()
        await alone.shutdown()
        return ids.map { collector[$0] }
    }

    @Test func concurrentAnswersAreThoseOfEachAlone() async throws {
        guard let fixture = try Fixture(testModelPath(smolLM2FileName)) else { return }
        _ = try await EngineTests.answersAloneAndTogether(fixture, EngineTests.requests(fixture, count: 16))
    }

    /// Answers that repeat their prompts or themselves, with all that decides a token: the same with drafts, several of which are accepted, and without.
    @Test func draftsChangeNoAnswer() async throws {
        guard let fixture = try Fixture(testModelPath(smolLM2FileName)) else { return }
        let list = (1...12).map { "\($0). The red house by the river is number \($0).\n" }.joined()
        var requests = (0..<10).map { i in
            var request = GenerationRequest(prompt: fixture.tokenizer.encode(i % 3 == 0 ? list + "Again:\n" + list.prefix(60) : list, addSpecial: false, parseSpecial: false))
            request.maxTokens = 40 + i
            request.ignoresEndOfGeneration = i % 2 == 0
            request.logprobs = 3
            request.sampling.temperature = i < 5 ? 0 : 0.7
            request.sampling.seed = UInt64(i)
            return request
        }
        requests[1].sampling.presencePenalty = 0.5
        requests[2].sampling.frequencyPenalty = 0.3
        requests[3].sampling.repetitionPenalty = 1.05
        requests[4].stop = ["number 15"]
        requests[6].sampling.topP = 0.8
        requests[7].sampling.topK = 5
        requests[8].wantsPromptLogprobs = true
        let plain = try fixture.engine(draftRows: 0), drafting = try fixture.engine(draftRows: 8), collector = Collector()
        // One at a time, then three at once.
        for group in requests.indices.map({ [$0] }) + [[0, 1, 5], [4, 7, 9]] {
            let ids = [plain, drafting].map { _ in group.map { _ in SequenceID() } }
            for (engine, ids) in zip([plain, drafting], ids) {
                for (id, number) in zip(ids, group) { try engine.submit(requests[number], as: id, to: collector) }
                try await collector.settle(ids)
            }
            for (number, (a, b)) in zip(group, zip(ids[0], ids[1])) {
                let expected = collector[a], found = collector[b]
                #expect(found.tokens == expected.tokens && found.text == expected.text && found.logprobs == expected.logprobs, "request \(number)")
                #expect(found.reason == expected.reason && found.stopString == expected.stopString && found.usage?.completionTokens == expected.usage?.completionTokens)
                #expect(found.promptLogprobs == expected.promptLogprobs && found.error == nil && !found.tokens.isEmpty)
            }
        }
        let statistics = drafting.statistics
        #expect(plain.statistics.draftTokens == 0 && statistics.acceptedDraftTokens > 100 && statistics.acceptedDraftTokens <= statistics.draftTokens)
        #expect(statistics.decodeTokens == plain.statistics.decodeTokens && statistics.steps < plain.statistics.steps)
        await plain.shutdown()
        await drafting.shutdown()
    }

    @Test func sharedPrefixIsColdAnswer() async throws {
        guard let fixture = try Fixture(testModelPath(smolLM2FileName)) else { return }
        let system = String(repeating: "You answer briefly and name a source for each fact. ", count: 12)
        func request(_ question: String, owner: String) -> GenerationRequest {
            var request = GenerationRequest(prompt: fixture.tokenizer.encode(system + question, addSpecial: false, parseSpecial: false))
            request.maxTokens = 10
            request.owner = owner
            request.logprobs = 5
            request.sampling.temperature = 0
            return request
        }
        let engine = try fixture.engine(), collector = Collector()
        func answer(_ question: String, owner: String) async throws -> Collector.Answer {
            let id = SequenceID()
            try engine.submit(request(question, owner: owner), as: id, to: collector)
            try await collector.settle([id])
            return collector[id]
        }
        let cold = try await answer("How far is the moon?", owner: "a")
        #expect(cold.usage?.cachedTokens == 0)
        let warm = try await answer("How far is the moon?", owner: "a")
        let promptBlocks = (cold.usage!.promptTokens - 1) / BlockPool.blockSize
        #expect(warm.usage?.cachedTokens == promptBlocks * BlockPool.blockSize)
        #expect(warm.tokens == cold.tokens && warm.logprobs == cold.logprobs)
        let other = try await answer("Who wrote Faust?", owner: "a")
        #expect(other.usage!.cachedTokens > 0)
        // Nothing is shared between owners.
        let stranger = try await answer("How far is the moon?", owner: "b")
        #expect(stranger.usage?.cachedTokens == 0)
        #expect(stranger.tokens == cold.tokens && stranger.logprobs == cold.logprobs)
        await engine.shutdown()
    }

    /// Sixteen requests over eight adapters, the base and blends, greedy, in one batch: each gets the answer, and all the log-probabilities, that it gets alone.
    @Test func requestsOverManyAdaptersAnswerAsEachAlone() async throws {
        guard let fixture = try Fixture(testModelPath(smolLM2FileName)) else { return }
        let adapters = try (0..<8).map { try randomAdapter(fixture.model.configuration, "adapter-\($0)", seed: UInt64($0 + 1), rank: [16, 4, 8, 1, 16, 32, 7, 64][$0], strength: 0.03) }
        var requests = EngineTests.requests(fixture, count: 16)
        for i in requests.indices {
            requests[i].sampling.temperature = 0
            switch i {
            case 0, 9: break
            case 15: requests[i].adapters = AdapterSet([(adapters[0], 0.5), (adapters[3], 1.25)])
            case 14: requests[i].adapters = AdapterSet([(adapters[3], 1.25), (adapters[0], 0.5)])
            default: requests[i].adapters = AdapterSet([(adapters[i % 8], 1)])
            }
        }
        // The same question under two adapters and under the base, so that a mix-up would show.
        for i in [9, 10] { (requests[i].prompt, requests[i].maxTokens) = (requests[1].prompt, requests[1].maxTokens) }
        let answers = try await EngineTests.answersAloneAndTogether(fixture, requests)
        #expect(answers[1].logprobs != answers[9].logprobs && answers[1].logprobs != answers[10].logprobs && answers[9].logprobs != answers[10].logprobs)
    }

    /// Keys and values belong to the adapter that made them: a warm prefix is found again under the same content and weight only, whatever its name.
    @Test func prefixesAreNotSharedBetweenAdapters() async throws {
        guard let fixture = try Fixture(testModelPath(smolLM2FileName)) else { return }
        let red = try randomAdapter(fixture.model.configuration, "colour", seed: 1, rank: 8, strength: 0.05), blue = try randomAdapter(fixture.model.configuration, "colour", seed: 2, rank: 8, strength: 0.05)
        let system = String(repeating: "You answer briefly and name a source for each fact. ", count: 12)
        func request(_ adapters: AdapterSet) -> GenerationRequest {
            var request = GenerationRequest(prompt: fixture.tokenizer.encode(system + "What is red?", addSpecial: false, parseSpecial: false))
            request.maxTokens = 8
            request.logprobs = 5
            request.sampling.temperature = 0
            request.adapters = adapters
            return request
        }
        let engine = try fixture.engine(), collector = Collector()
        func answer(_ adapters: AdapterSet) async throws -> Collector.Answer {
            let id = SequenceID()
            try engine.submit(request(adapters), as: id, to: collector)
            try await collector.settle([id])
            return collector[id]
        }
        let sets: [AdapterSet] = [.none, AdapterSet([(red, 1)]), AdapterSet([(blue, 1)]), AdapterSet([(red, 0.5)]), AdapterSet([(red, 1), (blue, 1)])]
        var cold: [Collector.Answer] = []
        for set in sets {
            let answer = try await answer(set)
            #expect(answer.usage?.cachedTokens == 0)
            #expect(!cold.contains { $0.logprobs == answer.logprobs })
            cold.append(answer)
        }
        // Alternating on the warm cache: each finds its own prefix and gives its own answer.
        for _ in 0..<2 {
            for (set, cold) in zip(sets, cold) {
                let warm = try await answer(set)
                #expect(warm.usage!.cachedTokens > 0)
                #expect(warm.tokens == cold.tokens && warm.logprobs == cold.logprobs)
            }
        }
        await engine.shutdown()
    }

    @Test func tenThousandTokensOfRandomTrafficLeakNothing() async throws {
        guard let fixture = try Fixture(testModelPath(smolLM2FileName)) else { return }
        // Few blocks: admissions wait, cached blocks are evicted.
        let engine = try fixture.engine(sequences: 12, context: 256, blocks: 60), collector = Collector()
        var random = SeededGenerator(5)
        var live: [SequenceID] = [], settled: [SequenceID] = []
        var submitted = 0
        while engine.statistics.prefillTokens + engine.statistics.decodeTokens < 10_000 {
            while live.count < 40 {
                let id = SequenceID()
                var request = GenerationRequest(prompt: (0..<Int.random(in: 1...150, using: &random)).map { _ in Int32.random(in: 100..<400, using: &random) })
                request.maxTokens = Int.random(in: 1...40, using: &random)
                request.sampling.seed = UInt64(submitted)
                request.ignoresEndOfGeneration = Bool.random(using: &random)
                request.stop = submitted % 5 == 0 ? ["e", "the "] : []
                try engine.submit(request, as: id, to: collector)
                submitted += 1
                if submitted % 7 == 0 {
                    engine.cancel(id)
                } else if submitted % 11 == 0 {
                    engine.setPaused(id, true)
                    engine.setPaused(id, false)
                    live.append(id)
                } else {
                    live.append(id)
                }
            }
            try await Task.sleep(for: .milliseconds(5))
            if let victim = live.randomElement(using: &random), submitted % 3 == 0 {
                engine.cancel(victim)
                live.removeAll { $0 == victim }
            }
            settled += live.filter { collector[$0].isOver }
            live.removeAll { collector[$0].isOver }
        }
        try await collector.settle(live)
        settled += live
        for id in settled { #expect(collector[id].error == nil && collector[id].usage != nil) }
        // The end of the last step is published after its events.
        while engine.statistics.running + engine.statistics.waiting > 0 { try await Task.sleep(for: .milliseconds(1)) }
        let statistics = engine.statistics
        #expect(statistics.blocksInUse == 0 && statistics.blocksTotal == 60)
        #expect(settled.count > 50)
        await engine.shutdown()
    }

    @Test func stopStringsEndAnAnswerAndAreNotShown() async throws {
        guard let fixture = try Fixture(testModelPath(smolLM2FileName)) else { return }
        let engine = try fixture.engine(), collector = Collector()
        var request = GenerationRequest(prompt: fixture.tokenizer.encode("Count: one, two, three, four,", addSpecial: false, parseSpecial: false))
        request.sampling.temperature = 0
        request.maxTokens = 40
        request.ignoresEndOfGeneration = true
        let free = SequenceID()
        try engine.submit(request, as: free, to: collector)
        try await collector.settle([free])
        let text = collector[free].text
        let stop = String(text.dropFirst(text.count / 2).prefix(3))
        request.stop = ["never in there", stop]
        let stopped = SequenceID()
        try engine.submit(request, as: stopped, to: collector)
        try await collector.settle([stopped])
        let answer = collector[stopped]
        #expect(answer.reason == .stop && answer.stopString == stop)
        #expect(text.hasPrefix(answer.text) && !answer.text.contains(stop))
        #expect(answer.tokens.count == answer.usage?.completionTokens)
        await engine.shutdown()
    }

    @Test func promptLogprobsScoreThePrompt() async throws {
        guard let fixture = try Fixture(testModelPath(smolLM2FileName)) else { return }
        let engine = try fixture.engine(), collector = Collector()
        let prompt = fixture.tokenizer.encode("The capital of France is Paris." + String(repeating: " The capital of France is Paris.", count: 12), addSpecial: false, parseSpecial: false)
        var request = GenerationRequest(prompt: prompt)
        request.maxTokens = 0
        request.logprobs = 2
        request.wantsPromptLogprobs = true
        let id = SequenceID()
        try engine.submit(request, as: id, to: collector)
        try await collector.settle([id])
        let scores = collector[id].promptLogprobs
        #expect(scores.count == prompt.count && scores[0] == nil && scores.dropFirst().allSatisfy { $0 != nil && $0!.top.count == 2 })
        #expect(collector[id].usage?.completionTokens == 0 && collector[id].reason == .length)
        // What was read ten times is expected the eleventh time.
        #expect(scores.suffix(5).allSatisfy { $0!.logprob > -0.5 })
        await engine.shutdown()
    }

    @Test func refusalsNameTheReason() async throws {
        guard let fixture = try Fixture(testModelPath(smolLM2FileName)) else { return }
        let engine = try fixture.engine(sequences: 1, context: 64, queued: 0), collector = Collector()
        func code(_ request: GenerationRequest) -> InferenceError.Code? {
            do {
                try engine.submit(request, as: SequenceID(), to: collector)
                return nil
            } catch {
                return error.code
            }
        }
        #expect(code(GenerationRequest(prompt: [])) == .invalidRequest)
        #expect(code(GenerationRequest(prompt: [-1])) == .invalidRequest)
        #expect(code(GenerationRequest(prompt: [1 << 20])) == .invalidRequest)
        #expect(code(GenerationRequest(prompt: Array(repeating: 7, count: 64))) == .contextLengthExceeded)
        var long = GenerationRequest(prompt: [7, 8, 9])
        long.ignoresEndOfGeneration = true
        let id = SequenceID()
        try engine.submit(long, as: id, to: collector)
        #expect(code(GenerationRequest(prompt: [7])) == .queueFull)
        await engine.shutdown()
        #expect(code(GenerationRequest(prompt: [7])) == .shuttingDown)
        #expect(collector[id].isOver)
    }

    /// Holds the engine's compute until it is let go: what a stalled engine looks like from outside.
    private final class Stall: Sendable {
        private final class Flag: Sendable {
            let isSet = Atomic<Bool>(false)
        }

        private let gate = DispatchSemaphore(value: 0)
        private let thread: NamedThread

        init(_ turnstile: ComputeTurnstile) async {
            let begun = Flag(), gate = gate
            thread = NamedThread(name: "stall") {
                turnstile.serve {
                    begun.isSet.store(true, ordering: .releasing)
                    gate.wait()
                }
            }
            while !begun.isSet.load(ordering: .acquiring) { await Task.yield() }
        }

        func end() {
            gate.signal()
            thread.join()
        }
    }

    /// Waits for something that must come; false when it does not within a minute.
    private static func eventually(_ condition: () -> Bool) async throws -> Bool {
        for _ in 0..<6000 {
            if condition() { return true }
            try await Task.sleep(for: .milliseconds(10))
        }
        return false
    }

    /// Asks the engine for its figures with each event that it gets.
    final class Observer: GenerationSink {
        struct Seen: Equatable {
            var running: Int, computed: UInt64
        }

        private let engine: Engine
        private let seen = Mutex<(started: [Seen], text: [Seen], finished: [Seen])>(([], [], []))

        init(_ engine: Engine) { self.engine = engine }

        var all: (started: [Seen], text: [Seen], finished: [Seen]) { seen.withLock { $0 } }

        func deliver(_ events: [GenerationEvent]) {
            let statistics = engine.statistics
            let now = Seen(running: statistics.running, computed: statistics.prefillTokens + statistics.decodeTokens)
            seen.withLock { seen in
                for event in events {
                    switch event.kind {
                    case .started: seen.started.append(now)
                    case .text: seen.text.append(now)
                    case .finished: seen.finished.append(now)
                    default: Issue.record("\(event.kind)")
                    }
                }
            }
        }
    }

    @Test("the figures hold whatever an event has told")
    func figuresBeforeEvents() async throws {
        guard let fixture = try Fixture(testModelPath(smolLM2FileName)) else { return }
        let engine = try fixture.engine(draftRows: 0)
        let observer = Observer(engine)
        var request = GenerationRequest(prompt: fixture.tokenizer.encode("The capital of France is", addSpecial: false, parseSpecial: false))
        request.maxTokens = 4
        request.ignoresEndOfGeneration = true
        try engine.submit(request, as: SequenceID(), to: observer)
        #expect(try await Self.eventually { observer.all.finished.count == 1 })
        let all = observer.all, length = UInt64(request.prompt.count)
        #expect(all.started == [.init(running: 1, computed: 0)])
        #expect(all.text == (0..<4).map { .init(running: $0 < 3 ? 1 : 0, computed: length + $0) })
        #expect(all.finished == [.init(running: 0, computed: length + 3)])
        await engine.shutdown()
    }

    @Test("R23 an idle engine proves that it can compute, and a stalled one does not")
    func heartbeat() async throws {
        guard let fixture = try Fixture(testModelPath(smolLM2FileName)) else { return }
        let turnstile = ComputeTurnstile()
        let engine = try fixture.engine(turnstile: turnstile)
        #expect(engine.statistics.lastStep == nil)
        try await engine.warmUp()
        let warm = try #require(engine.statistics.lastStep)
        engine.beat()
        #expect(try await Self.eventually { engine.statistics.lastStep! > warm })
        let before = engine.statistics
        #expect(before.steps == 0 && before.blocksInUse == 0 && before.blocksCached == 0, "a beat belongs to nobody")

        let stall = await Stall(turnstile)
        for _ in 0..<3 { engine.beat() }
        try await Task.sleep(for: .milliseconds(50))
        #expect(engine.statistics.lastStep == before.lastStep)
        stall.end()
        #expect(try await Self.eventually { engine.statistics.lastStep! > before.lastStep! })
        await engine.shutdown()
        let last = engine.statistics.lastStep
        engine.beat()
        try await Task.sleep(for: .milliseconds(50))
        #expect(engine.statistics.lastStep == last, "an engine that is shut down has no beat")
    }

    @Test("beats change nothing of what is computed around them")
    func beatsAmongAnswers() async throws {
        guard let fixture = try Fixture(testModelPath(smolLM2FileName)) else { return }
        let requests = Self.requests(fixture, count: 3)
        let engine = try fixture.engine(sequences: 1), disturbed = Collector(), alone = Collector()
        for request in requests {
            let (a, b) = (SequenceID(), SequenceID())
            try engine.submit(request, as: a, to: alone)
            try await alone.settle([a])
            engine.beat()
            try engine.submit(request, as: b, to: disturbed)
            while !disturbed[b].isOver {
                engine.beat()
                try await Task.sleep(for: .milliseconds(1))
            }
            #expect(disturbed[b].tokens == alone[a].tokens && disturbed[b].logprobs == alone[a].logprobs)
        }
        await engine.shutdown()
    }

    @Test("R13 the full queue refuses the owner who filled it, and takes another in")
    func aFullQueueLeavesRoomForOthers() async throws {
        guard let fixture = try Fixture(testModelPath(smolLM2FileName)) else { return }
        let turnstile = ComputeTurnstile()
        let engine = try fixture.engine(sequences: 2, queued: 4, turnstile: turnstile), collector = Collector()
        let stall = await Stall(turnstile)
        func submit(_ owner: String) throws -> [SequenceID] {
            var ids: [SequenceID] = []
            while true {
                var request = GenerationRequest(prompt: [7, 8, 9])
                request.owner = owner
                request.maxTokens = 3
                request.ignoresEndOfGeneration = true
                let id = SequenceID()
                do {
                    try engine.submit(request, as: id, to: collector)
                } catch {
                    #expect(error.code == .queueFull)
                    return ids
                }
                ids.append(id)
                try #require(ids.count < 100)
            }
        }
        let flood = try submit("alice")
        #expect(flood.count == 6)
        let own = try submit("bob")
        #expect(own.count == 3, "his share of the six places, out of four spare ones")
        stall.end()
        // What was admitted is never dropped.
        try await collector.settle(flood + own)
        #expect((flood + own).allSatisfy { collector[$0].tokens.count == 3 })
        #expect(try await Self.eventually { engine.statistics.blocksInUse == 0 && engine.statistics.running + engine.statistics.waiting == 0 })
        await engine.shutdown()
    }
}
