import Inference
import Testing

private let alice = PrefixSeed(owner: "alice", baseDigest: "base")
private let bob = PrefixSeed(owner: "bob", baseDigest: "base")

private func scheduler(blocks: Int, _ edit: (inout SchedulerConfiguration) -> Void = { _ in }) -> Scheduler {
    var configuration = SchedulerConfiguration(contextLength: 2048, blockCount: blocks)
    configuration.admissionOrder = .fairByOwner
    configuration.endOfGeneration = [FakeModel.end]
    edit(&configuration)
    return Scheduler(configuration)
}

extension Scheduler {
    /// Submits a prompt that shares no prefix with any other.
    fileprivate mutating func submit(_ count: Int, max: Int?, _ owner: PrefixSeed = alice, edit: (inout ScheduledRequest) -> Void = { _ in }) throws -> SequenceID {
        let id = SequenceID()
        var request = ScheduledRequest(prompt: id.unsharedPrompt(count), maxTokens: max, seed: owner)
        request.ignoresEndOfGeneration = true
        edit(&request)
        try submit(request, as: id)
        return id
    }

    /// One step, with a token that differs from step to step, so that nothing is drafted.
    @discardableResult
    fileprivate mutating func step(_ ends: inout [SequenceID: GenerationUsage]) -> StepPlan {
        let plan = schedule()
        guard !plan.isEmpty else { return plan }
        let outcomes = complete(plan, plan.segments.map { $0.samples ? .sampled(Int32(plan.number)) : .computed })
        for (segment, outcome) in zip(plan.segments, outcomes) {
            if case .finished(_, let usage) = outcome { ends[segment.sequence] = usage }
        }
        pool.checkInvariants()
        return plan
    }

    @discardableResult
    fileprivate mutating func step() -> StepPlan {
        var ends: [SequenceID: GenerationUsage] = [:]
        return step(&ends)
    }

    /// Steps until somebody is preempted.
    fileprivate mutating func stepToPreemption() throws -> StepPlan {
        for _ in 0..<2000 {
            let plan = step()
            if !plan.preemptions.isEmpty { return plan }
        }
        throw InferenceError(.internalFailure, "nobody was preempted")
    }
}

/// Admission by what a sequence needs now, and what happens when the blocks are too few after all.
@Suite struct PreemptionTests {
    @Test("sequences are admitted by their prompts, and a block is left for each that grows")
    func admissionByNeed() throws {
        var growing = scheduler(blocks: 10)
        for _ in 0..<16 { _ = try growing.submit(10, max: nil) }
        #expect(growing.schedule().admissions.count == 5, "five with a block each, and five blocks to grow")
        // An answer that ends within the block of its prompt needs no more room than that.
        var short = scheduler(blocks: 10)
        for _ in 0..<16 { _ = try short.submit(10, max: 20) }
        #expect(short.schedule().admissions.count == 10)
        // Whoever fits an idle cache gets it.
        var whole = scheduler(blocks: 10)
        let id = try whole.submit(319, max: nil)
        #expect(whole.schedule().admissions.map(\.sequence) == [id])
    }

    @Test("an answer that was interrupted counts as if it had not been")
    func usageIsThatOfEachAlone() throws {
        var small = scheduler(blocks: 10), ends: [SequenceID: GenerationUsage] = [:]
        let lengths = [(10, 200), (40, 100), (33, 250), (70, 64), (1, 319)]
        let ids = try lengths.map { try small.submit($0.0, max: $0.1) }
        var admitted: [SequenceID] = [], preempted: [SequenceID] = [], steps = 0
        while small.runningCount + small.waitingCount > 0 {
            let plan = small.step(&ends)
            #expect(!plan.isEmpty)
            admitted += plan.admissions.map(\.sequence)
            preempted += plan.preemptions
            steps += 1
            try #require(steps < 2000)
        }
        #expect(Set(admitted) == Set(ids) && admitted.count == ids.count, "each is announced once")
        #expect(!preempted.contains(ids[0]) && preempted.count >= 2, "the first in order never steps back")
        for (id, (prompt, most)) in zip(ids, lengths) {
            #expect(ends[id] == GenerationUsage(promptTokens: prompt, cachedTokens: 0, completionTokens: most))
        }
        let statistics = small.statistics
        #expect(statistics.prefillTokens == 154 && statistics.decodeTokens == 933 - 5 && statistics.cachedTokens == 0)
        #expect(statistics.preemptions == UInt64(preempted.count) && statistics.recomputedTokens > 0)
        #expect(small.pool.inUseCount == 0 && small.pool.reserved == 0)
    }

    @Test("the last one in order steps back, and comes before later requests again")
    func theLastStepsBack() throws {
        var scheduler = scheduler(blocks: 5) { $0.maxSequences = 2 }
        let ids = try (0..<4).map { _ in try scheduler.submit(30, max: 90) }
        #expect(scheduler.step().admissions.map(\.sequence) == Array(ids[..<2]))
        #expect(try scheduler.stepToPreemption().preemptions == [ids[1]])
        #expect(scheduler.runningCount == 1 && scheduler.waitingCount == 3)
        // Its blocks were needed: nobody takes its place before the first has ended.
        while scheduler.runningCount == 1 {
            let plan = scheduler.step()
            #expect(plan.admissions.isEmpty && plan.preemptions.isEmpty)
        }
        let plan = scheduler.schedule()
        let back = try #require(plan.segments.first)
        #expect(plan.segments.count == 1 && back.sequence == ids[1] && back.isPrefill && back.samples)
        #expect(plan.admissions.isEmpty, "it was admitted before")
    }

    @Test("blocks that are still in the cache are not computed again")
    func comingBackIsCheap() throws {
        var scheduler = scheduler(blocks: 8)
        let first = try scheduler.submit(30, max: 200), second = try scheduler.submit(90, max: 120)
        #expect(try scheduler.stepToPreemption().preemptions == [second])
        // Of its five blocks the last one, which was not full, went to the first.
        scheduler.cancel(first)
        let segment = try #require(scheduler.schedule().segments.first)
        #expect(segment.sequence == second && segment.isPrefill && segment.startPosition == 4 * BlockPool.blockSize)
    }

    @Test("the owner that holds the most steps back, not the one that came last")
    func theLargestOwnerStepsBack() throws {
        var scheduler = scheduler(blocks: 20)
        let flood = try (0..<3).map { _ in try scheduler.submit(100, max: nil) }
        #expect(scheduler.step().admissions.map(\.sequence) == flood)
        let own = try scheduler.submit(20, max: 200, bob)
        #expect(scheduler.step().admissions.map(\.sequence) == [own])
        var preempted: [SequenceID] = []
        while scheduler.tokens(of: own) != nil { preempted += scheduler.step().preemptions }
        #expect(preempted == [flood[2], flood[1]])
    }

    @Test("the first in order never steps back, though it hold the most")
    func theFirstNeverStepsBack() throws {
        var scheduler = scheduler(blocks: 20)
        let first = try scheduler.submit(300, max: nil), other = try scheduler.submit(20, max: nil, bob)
        #expect(scheduler.step().admissions.map(\.sequence) == [first, other])
        #expect(try scheduler.stepToPreemption().preemptions == [other])
        while scheduler.tokens(of: first) != nil { #expect(scheduler.step().preemptions.isEmpty) }
    }

    @Test("whoever is paused steps back first, the first in order as well")
    func pausedOnesStepBackFirst() throws {
        var scheduler = scheduler(blocks: 12)
        let ids = try (0..<3).map { _ in try scheduler.submit(60, max: 300) }
        #expect(scheduler.step().admissions.count == 3)
        scheduler.setPaused(ids[0], true)
        #expect(try scheduler.stepToPreemption().preemptions == [ids[0]])
        for _ in 0..<3 { #expect(!scheduler.step().segments.contains { $0.sequence == ids[0] }) }
        // It waits for its client, and does not keep others waiting.
        let next = try scheduler.submit(5, max: 5)
        scheduler.cancel(ids[2])
        #expect(scheduler.step().admissions.map(\.sequence) == [next])
        scheduler.setPaused(ids[0], false)
        #expect(scheduler.step().segments.contains { $0.sequence == ids[0] })
        // It is the first in order as before.
        #expect(try scheduler.stepToPreemption().preemptions == [ids[1]])
    }

    @Test("whoever is paused makes room for those that wait, and goes on later with what it had")
    func pausedMakeRoomForThoseThatWait() throws {
        var small = scheduler(blocks: 8), ends: [SequenceID: GenerationUsage] = [:]
        let slow = try small.submit(10, max: 60)
        small.step(&ends)
        let had = small.tokens(of: slow)!
        small.setPaused(slow, true)
        // Seven of the eight blocks are free, and it needs room to grow beside them.
        let next = try small.submit(7 * 32 - 8, max: 20, bob)
        let plan = small.step(&ends)
        #expect(plan.preemptions == [slow])
        #expect(plan.admissions.map(\.sequence) == [next])
        for _ in 0..<100 where ends[next] == nil { small.step(&ends) }
        #expect(ends[next]?.completionTokens == 20 && ends[slow] == nil)
        small.setPaused(slow, false)
        small.step(&ends)
        #expect(small.tokens(of: slow)?.starts(with: had) == true)
        for _ in 0..<200 where ends[slow] == nil { small.step(&ends) }
        #expect(ends[slow]?.completionTokens == 60)
        #expect(small.pool.inUseCount == 0 && small.pool.reserved == 0)
    }

    @Test func cancelledWhileItWaitsToGoOn() throws {
        var scheduler = scheduler(blocks: 6)
        let first = try scheduler.submit(30, max: 150), second = try scheduler.submit(30, max: 150)
        #expect(try scheduler.stepToPreemption().preemptions == [second])
        let plan = scheduler.schedule()
        scheduler.cancel(second)
        #expect(scheduler.waitingCount == 0 && scheduler.sequencesByOwner == ["alice": 1])
        scheduler.cancel(first)
        #expect(scheduler.complete(plan, plan.segments.map { _ in .sampled(5) }) == [.cancelled])
        #expect(scheduler.sequencesByOwner.isEmpty && scheduler.pool.inUseCount == 0 && scheduler.pool.reserved == 0 && scheduler.schedule().isEmpty)
    }

    @Test("a prompt that is being read steps back, and is scored and counted once")
    func promptsStepBack() throws {
        var scheduler = scheduler(blocks: 10) {
            $0.maxRowsPerStep = 24
            $0.maxPrefillRowsWhileDecoding = 2
            $0.maxPromptLogprobRows = 5
        }
        let first = try scheduler.submit(20, max: 200)
        scheduler.step()
        let second = try scheduler.submit(200, max: 0) { $0.wantsPromptLogprobs = true }
        var scored: [Int] = [], ends: [SequenceID: GenerationUsage] = [:], preemptions = 0, computed: [Int] = []
        while scheduler.runningCount + scheduler.waitingCount > 0 {
            let plan = scheduler.step(&ends)
            preemptions += plan.preemptions.count
            for segment in plan.segments where segment.sequence == second {
                computed += segment.positions
                if segment.logits == .all { scored += segment.positions }
                #expect(!segment.samples)
            }
        }
        #expect(preemptions > 0 && computed.count > 200 && scored == Array(0..<200))
        #expect(ends[second] == GenerationUsage(promptTokens: 200, cachedTokens: 0, completionTokens: 0))
        #expect(ends[first]?.completionTokens == 200 && scheduler.prefillTokens == 220)
    }

    @Test("what is computed again is not charged to its owner")
    func recomputedRowsAreFree() throws {
        var scheduler = scheduler(blocks: 10) { $0.maxSequences = 2 }
        let first = try scheduler.submit(30, max: 200), second = try scheduler.submit(30, max: 200, bob)
        #expect(try scheduler.stepToPreemption().preemptions == [second])
        // Alice goes on alone, then Bob reads again what he had. With that he would have had more rows than she.
        while scheduler.tokens(of: first) != nil { scheduler.step() }
        scheduler.step()
        #expect(scheduler.recomputedTokens >= 96 && scheduler.runningCount == 1)
        _ = try scheduler.submit(5, max: 1)
        let own = try scheduler.submit(5, max: 1, bob)
        #expect(scheduler.step().admissions.map(\.sequence) == [own])
    }

    @Test("drafts make nobody step back")
    func draftsTakeWhatIsLeft() throws {
        var scheduler = scheduler(blocks: 5) { $0.maxRowsWithDrafts = 8 }
        let repeating = try scheduler.submit(20, max: 100) { $0.prompt = (0..<20).map { $0 % 4 } }
        let other = try scheduler.submit(62, max: 90)
        /// The repeating one goes on as it began, and so many of its drafts are accepted.
        func step(accepted: Int = 0) -> StepPlan {
            let plan = scheduler.schedule()
            _ = scheduler.complete(
                plan,
                plan.segments.map { segment in
                    guard segment.sequence == repeating else { return .sampled(1000 + Int32(plan.number)) }
                    return .sampled(Int32(segment.positions.upperBound - segment.drafts.count + accepted) % 4, accepted: accepted)
                })
            scheduler.pool.checkInvariants()
            return plan
        }
        #expect(step().rowCount == 82)
        #expect(step(accepted: 3).segments[0].positions == 20..<24)
        #expect(step(accepted: 4).segments[0].positions == 24..<31)
        #expect(step(accepted: 1).segments.map(\.blockTable.count) == [2, 3], "the drafts need a block of their own")
        #expect(scheduler.pool.available == 1, "which they leave when they are rejected")
        scheduler.setPaused(repeating, true)
        while scheduler.pool.available > 0 { #expect(step().preemptions.isEmpty) }
        scheduler.setPaused(repeating, false)
        let plan = step()
        #expect(plan.preemptions.isEmpty && plan.segments.map(\.sequence) == [repeating, other])
        #expect(plan.segments[0].positions == 31..<32, "there is no block for a draft")
    }
}
