import Inference
import Testing

private let seed = PrefixSeed(owner: "", baseDigest: "base")

private func configuration(_ edit: (inout SchedulerConfiguration) -> Void = { _ in }) -> SchedulerConfiguration {
    var configuration = SchedulerConfiguration(contextLength: 1024, blockCount: 64)
    configuration.maxSequences = 4
    configuration.maxQueued = 8
    configuration.endOfGeneration = [FakeModel.end]
    edit(&configuration)
    return configuration
}

private func request(_ count: Int, max: Int?, first: Int32 = 1, seed: PrefixSeed = seed) -> ScheduledRequest {
    ScheduledRequest(prompt: (0..<Int32(count)).map { first + $0 }, maxTokens: max, seed: seed)
}

/// Completes a plan with the same token everywhere.
private func complete(_ scheduler: inout Scheduler, _ plan: StepPlan, token: Int32 = 5) -> [SegmentOutcome] {
    scheduler.complete(plan, plan.segments.map { $0.samples ? .sampled(token) : .computed })
}

struct SchedulerTests {
    @Test func decodesFirstThenPrefillWithinTheBudget() throws {
        var scheduler = Scheduler(
            configuration {
                $0.maxRowsPerStep = 128
                $0.maxPrefillRowsWhileDecoding = 48
            })
        let a = SequenceID(), b = SequenceID(), c = SequenceID()
        try scheduler.submit(request(10, max: 50), as: a)
        var plan = scheduler.schedule()
        #expect(plan.admissions.map(\.sequence) == [a])
        #expect(plan.segments.map(\.rows.count) == [10] && plan.segments[0].logits == .last)
        #expect(complete(&scheduler, plan) == [.running])

        try scheduler.submit(request(100, max: 5, first: 100), as: b)
        try scheduler.submit(request(20, max: 5, first: 300), as: c)
        plan = scheduler.schedule()
        #expect(plan.segments.map(\.sequence) == [a, b, c])
        // 48 rows: b gets a whole block of them, c what is left.
        #expect(plan.segments.map(\.rows.count) == [1, 32, 16])
        #expect(plan.segments.map(\.logits) == [.last, .none, .none])
        #expect(plan.segments.map(\.isPrefill) == [false, true, true])
        #expect(plan.segments[0].positions == 10..<11 && plan.tokens[0] == 5)
        #expect(plan.segments[1].rows == 1..<33 && Array(plan.tokens[1..<33]) == (100..<132).map(Int32.init))
        _ = complete(&scheduler, plan)
        plan = scheduler.schedule()
        #expect(plan.segments.map(\.sequence) == [a, b, c])
        #expect(plan.segments.map(\.startPosition) == [11, 32, 16])
        #expect(plan.segments.map(\.rows.count) == [1, 32, 4])
        #expect(plan.segments.map(\.logits) == [.last, .none, .last])
        #expect(plan.segments.map { $0.blockTable.count } == [1, 2, 1])
    }

    @Test func endsForEachReason() throws {
        var scheduler = Scheduler(configuration { $0.contextLength = 20 })
        let ids = (0..<4).map { _ in SequenceID() }
        try scheduler.submit(request(10, max: 2), as: ids[0])
        try scheduler.submit(request(10, max: nil, first: 50), as: ids[1])
        try scheduler.submit(request(10, max: 5, first: 90), as: ids[2])
        var ignoring = request(10, max: 3, first: 130)
        ignoring.ignoresEndOfGeneration = true
        try scheduler.submit(ignoring, as: ids[3])
        var ends: [SequenceID: (FinishReason, Int)] = [:]
        var tokens: [SequenceID: Int] = [:]
        while case let plan = scheduler.schedule(), !plan.isEmpty {
            let results = plan.segments.map { segment -> SegmentResult in
                tokens[segment.sequence, default: 0] += 1
                switch segment.sequence {
                case ids[2]: return .sampled(7, ends: tokens[segment.sequence] == 2)
                case ids[3]: return .sampled(FakeModel.end)
                default: return .sampled(7)
                }
            }
            for (segment, outcome) in zip(plan.segments, scheduler.complete(plan, results)) {
                if case .finished(let reason, let usage) = outcome { ends[segment.sequence] = (reason, usage.completionTokens) }
            }
        }
        #expect(ends[ids[0]]! == (.length, 2))
        #expect(ends[ids[1]]! == (.length, 10))
        #expect(ends[ids[2]]! == (.stop, 2))
        #expect(ends[ids[3]]! == (.length, 3))
        #expect(scheduler.runningCount == 0 && scheduler.pool.inUseCount == 0 && scheduler.pool.reserved == 0)

        let last = SequenceID()
        try scheduler.submit(request(10, max: 1, first: 200), as: last)
        let plan = scheduler.schedule()
        #expect(
            scheduler.complete(plan, [.sampled(FakeModel.end)])
                == [.finished(.stop, GenerationUsage(promptTokens: 10, cachedTokens: 0, completionTokens: 1))])
    }

    @Test func refusesWhatCanNeverRun() throws {
        var scheduler = Scheduler(configuration { $0.blockCount = 10 })
        #expect(scheduler.lengthLimit == 320)
        func code(_ request: ScheduledRequest) -> InferenceError.Code? {
            #expect(throws: InferenceError.self) { try scheduler.submit(request, as: SequenceID()) }?.code
        }
        #expect(code(request(320, max: nil)) == .contextLengthExceeded)
        #expect(code(request(400, max: 0)) == .contextLengthExceeded)
        #expect(code(request(0, max: 5)) == .invalidRequest)
        #expect(code(request(5, max: -1)) == .invalidRequest)
        #expect(scheduler.waitingCount == 0)
        try scheduler.submit(request(319, max: 1000), as: SequenceID())
        try scheduler.submit(request(320, max: 0), as: SequenceID())
        let id = SequenceID()
        try scheduler.submit(request(5, max: 1), as: id)
        #expect(#expect(throws: InferenceError.self) { try scheduler.submit(request(5, max: 1), as: id) }?.code == .invalidRequest)
        for _ in 0..<5 { try scheduler.submit(request(5, max: 1), as: SequenceID()) }
        #expect(code(request(5, max: 1)) == .queueFull)
    }

    @Test func aPromptAloneIsComputedWithoutAToken() throws {
        var scheduler = Scheduler(configuration { $0.maxPromptLogprobRows = 40 })
        let id = SequenceID()
        var echo = request(70, max: 0)
        echo.wantsPromptLogprobs = true
        for round in 0..<2 {
            try scheduler.submit(echo, as: round == 0 ? id : SequenceID())
            var rows: [Int] = []
            var last: SegmentOutcome?
            while case let plan = scheduler.schedule(), !plan.isEmpty {
                #expect(plan.segments[0].logits == .all && !plan.segments[0].samples)
                rows.append(plan.rowCount)
                last = complete(&scheduler, plan).first
            }
            // The second time as well: log-probabilities need every row.
            #expect(rows == [32, 38])
            #expect(last == .finished(.length, GenerationUsage(promptTokens: 70, cachedTokens: 0, completionTokens: 0)))
        }
    }

    @Test func aPrefixIsSharedAcrossTimeAndWithinIt() throws {
        var scheduler = Scheduler(configuration { $0.maxRowsPerStep = 64 })
        let ids = (0..<3).map { _ in SequenceID() }
        // Two with the same prompt at once: while the first is computed in two steps, the second waits for rows, then shares.
        try scheduler.submit(request(100, max: 1), as: ids[0])
        try scheduler.submit(request(100, max: 1), as: ids[1])
        var usages: [SequenceID: GenerationUsage] = [:]
        func run() {
            while case let plan = scheduler.schedule(), !plan.isEmpty {
                for (segment, outcome) in zip(plan.segments, complete(&scheduler, plan)) {
                    if case .finished(_, let usage) = outcome { usages[segment.sequence] = usage }
                }
            }
        }
        run()
        #expect(usages[ids[0]]?.cachedTokens == 0)
        #expect(usages[ids[1]]?.cachedTokens == 64)
        try scheduler.submit(request(100, max: 1), as: ids[2])
        #expect(scheduler.schedule().admissions.map(\.cachedTokens) == [96])
        #expect(scheduler.prefillTokens == 136 && scheduler.cachedTokens == 160)
    }

    @Test func cancelWhereverItIs() throws {
        var scheduler = Scheduler(configuration { $0.maxSequences = 2 })
        let ids = (0..<4).map { _ in SequenceID() }
        for (i, id) in ids.enumerated() { try scheduler.submit(request(40, max: 50, first: Int32(100 * i + 1)), as: id) }
        let plan = scheduler.schedule()
        #expect(plan.segments.map(\.sequence) == [ids[0], ids[1]])
        scheduler.cancel(ids[0])
        scheduler.cancel(ids[2])
        scheduler.cancel(SequenceID())
        #expect(scheduler.runningCount == 2 && scheduler.waitingCount == 1)
        #expect(complete(&scheduler, plan) == [.cancelled, .running])
        #expect(scheduler.runningCount == 1)
        let next = scheduler.schedule()
        #expect(next.segments.map(\.sequence) == [ids[1], ids[3]])
        #expect(next.admissions.map(\.slot) == [0])
        _ = scheduler.complete(next, [.failed, .sampled(5)])
        #expect(scheduler.runningCount == 1)
        #expect(scheduler.cancelAll() == [ids[3]])
        #expect(scheduler.pool.inUseCount == 0 && scheduler.pool.reserved == 0)
        #expect(scheduler.schedule().isEmpty)
    }

    @Test func pausedSequencesGetNoRowsAndKeepTheirPlace() throws {
        var scheduler = Scheduler(configuration { $0.maxSequences = 2 })
        let ids = (0..<3).map { _ in SequenceID() }
        for (i, id) in ids.enumerated() { try scheduler.submit(request(8, max: 50, first: Int32(100 * i + 1)), as: id) }
        scheduler.setPaused(ids[1], true)
        var plan = scheduler.schedule()
        #expect(plan.admissions.map(\.sequence) == [ids[0], ids[2]])
        _ = complete(&scheduler, plan)
        scheduler.setPaused(ids[0], true)
        plan = scheduler.schedule()
        #expect(plan.segments.map(\.sequence) == [ids[2]])
        _ = complete(&scheduler, plan)
        scheduler.setPaused(ids[2], true)
        #expect(scheduler.schedule().isEmpty)
        #expect(scheduler.runningCount == 2)
        scheduler.setPaused(ids[0], false)
        plan = scheduler.schedule()
        #expect(plan.segments.map(\.startPosition) == [8])
        _ = complete(&scheduler, plan)
        scheduler.cancel(ids[2])
        scheduler.setPaused(ids[1], false)
        #expect(scheduler.schedule().segments.map(\.sequence) == [ids[0], ids[1]])
    }

    @Test func budgetsChangeBetweenSteps() throws {
        var scheduler = Scheduler(configuration())
        try scheduler.submit(request(600, max: 5), as: SequenceID())
        scheduler.setRowBudget(perStep: 100, prefillWhileDecoding: 40)
        #expect(complete(&scheduler, scheduler.schedule()) == [.running])
        #expect(scheduler.prefillTokens == 96)
        scheduler.setRowBudget(perStep: 300, prefillWhileDecoding: 40)
        #expect(scheduler.schedule().rowCount == 288)
        // Never so low that a decode row of everybody and one of prefill do not fit.
        scheduler.setRowBudget(perStep: 0, prefillWhileDecoding: 0)
        #expect(scheduler.configuration.maxRowsPerStep == 5 && scheduler.configuration.maxPrefillRowsWhileDecoding == 1)
    }

    @Test func statisticsCountRowsAndBlocks() throws {
        var scheduler = Scheduler(configuration { $0.maxSequences = 1 })
        try scheduler.submit(request(40, max: 3), as: SequenceID())
        try scheduler.submit(request(40, max: 1), as: SequenceID())
        #expect(scheduler.statistics.waiting == 2 && scheduler.statistics.blocksTotal == 64)
        _ = complete(&scheduler, scheduler.schedule())
        let plan = scheduler.schedule()
        #expect(plan.number == 2)
        #expect(scheduler.statistics.running == 1 && scheduler.statistics.waiting == 1 && scheduler.statistics.blocksInUse == 2)
        _ = complete(&scheduler, plan)
        _ = complete(&scheduler, scheduler.schedule())
        _ = complete(&scheduler, scheduler.schedule())
        let statistics = scheduler.statistics
        #expect(statistics.steps == 4 && statistics.running == 0 && statistics.waiting == 0)
        #expect(statistics.prefillTokens == 48 && statistics.decodeTokens == 2 && statistics.cachedTokens == 32)
        #expect(statistics.blocksInUse == 0 && statistics.blocksCached == 1)
        #expect(scheduler.pool.statistics.lookedUp == 2 && scheduler.pool.statistics.hits == 1)
    }

    @Test func nobodyOvertakesTheNextInLine() throws {
        var scheduler = Scheduler(configuration { $0.blockCount = 10 })
        let big = SequenceID(), small = SequenceID(), first = SequenceID()
        try scheduler.submit(request(10, max: 100), as: first)
        try scheduler.submit(request(230, max: 90, first: 50), as: big)
        try scheduler.submit(request(5, max: 5, first: 400), as: small)
        let plan = scheduler.schedule()
        #expect(plan.admissions.map(\.sequence) == [first])
        scheduler.cancel(first)
        _ = complete(&scheduler, plan)
        #expect(scheduler.schedule().admissions.map(\.sequence) == [big, small])
    }

    @Test func fairOrderServesEachOwner() throws {
        var scheduler = Scheduler(
            configuration {
                $0.maxSequences = 3
                $0.admissionOrder = .fairByOwner
            })
        let alice = PrefixSeed(owner: "alice", baseDigest: "base")
        let bob = PrefixSeed(owner: "bob", baseDigest: "base")
        let flood = (0..<5).map { _ in SequenceID() }
        for id in flood { try scheduler.submit(request(5, max: 5, seed: alice), as: id) }
        let one = SequenceID(), two = SequenceID()
        try scheduler.submit(request(5, max: 5, seed: bob), as: one)
        try scheduler.submit(request(5, max: 5, seed: bob), as: two)
        #expect(scheduler.schedule().admissions.map(\.sequence) == [flood[0], one, flood[1]])
    }

    @Test func aNewcomersPromptIsReadInLargerPieces() throws {
        var scheduler = Scheduler(
            configuration {
                $0.admissionOrder = .fairByOwner
                $0.maxRowsPerStep = 100
                $0.maxPrefillRowsWhileDecoding = 32
            })
        let alice = PrefixSeed(owner: "alice", baseDigest: "base"), bob = PrefixSeed(owner: "bob", baseDigest: "base")
        let first = SequenceID(), second = SequenceID(), newcomer = SequenceID()
        try scheduler.submit(request(10, max: 50, seed: alice), as: first)
        _ = complete(&scheduler, scheduler.schedule())
        try scheduler.submit(request(90, max: 50, first: 100, seed: alice), as: second)
        try scheduler.submit(request(90, max: 50, first: 300, seed: bob), as: newcomer)
        // Bob gets nothing yet and his whole prompt at once; nothing is left of what Alice's own prompts may take.
        let plan = scheduler.schedule()
        #expect(plan.segments.map(\.sequence) == [first, newcomer] && plan.segments.map(\.rows.count) == [1, 90])
        _ = complete(&scheduler, plan)
        let next = scheduler.schedule()
        #expect(next.segments.map(\.sequence) == [first, newcomer, second] && next.segments.map(\.rows.count) == [1, 1, 32])
    }

    /// Random traffic with shared prefixes, cancellations (also while a step runs), pauses, failures and stop strings, and in the last rounds with so few blocks
    /// that sequences are preempted over and over. The fake model checks that each row finds its own history in the cache; the test checks that each prompt row
    /// that was not cached is computed exactly once, but for those that a preemption cost, that everybody gets the tokens that it would get alone, and that
    /// nothing is left over.
    ///
    /// With windows there is nothing else to see, but for prefixes that are found less often; the fake model looks for what each row sees in the window blocks.
    @Test(arguments: [1, 2, 3, 4, 5, 6], [nil, 20, 75]) func randomTraffic(round: Int, window: Int?) throws {
        var generator = SeededGenerator(UInt64(round))
        let limits = configuration {
            $0.contextLength = 400
            $0.blockCount = [30, 60, 120, 400, 13, 20][round - 1]
            $0.maxSequences = 8
            $0.maxQueued = 40
            $0.maxRowsPerStep = 96
            $0.maxPrefillRowsWhileDecoding = [24, 50, 64, 80, 30, 48][round - 1]
            $0.maxPromptLogprobRows = 20
            $0.admissionOrder = round % 2 == 0 ? .fairByOwner : .arrival
            $0.spareSequences = round % 2 == 0 ? 2 : 0
            $0.maxRowsWithDrafts = [0, 4, 12, 12, 12, 4][round - 1]
            $0.slidingWindow = window
            $0.windowBlockCount = min($0.blockCount, ($0.maxSequences + $0.spareSequences) * ($0.windowBlocksPerSequence ?? 0))
        }
        var scheduler = Scheduler(limits)
        var model = FakeModel(limits)
        let seeds = ["", "alice", "bob", FakeModel.parrot].map { PrefixSeed(owner: $0, baseDigest: "base") }
        let prefixes = (0..<6).map { _ in (0..<160).map { _ in Int32.random(in: 1..<1000, using: &generator) } }

        struct Client {
            var request: ScheduledRequest
            var expected: [Int32]
            var stopsAt: Int?
            var tokens: [Int32] = []
            var nextPosition: Int?
            /// What it had before it was preempted.
            var reached = 0
            var wasPreempted = false
            var logitRows = 0
            var isWaiting = true
            var isPaused = false
            var end: FinishReason?
            var usage: GenerationUsage?
        }
        var clients: [SequenceID: Client] = [:]
        var live: [SequenceID] = []
        var submitted = 0, refused = 0, cancelled = 0, failed = 0, finished = 0, steps = 0
        var rows = (prefill: 0, decode: 0, again: 0), preemptions = 0
        while submitted < 500 || !live.isEmpty {
            steps += 1
            try #require(steps < 100_000)
            // Requests come in bursts.
            while submitted < 500, Int.random(in: 0..<4, using: &generator) == 0 {
                let prefix = prefixes.randomElement(using: &generator)!.prefix(Int.random(in: 0...160, using: &generator))
                let tail = (0..<Int.random(in: 1...60, using: &generator)).map { _ in Int32.random(in: 1..<1000, using: &generator) }
                let prompt = Array(prefix) + tail
                let most: Int? = [nil, 0, 1, 20, 60, 300].randomElement(using: &generator)!
                var request = ScheduledRequest(prompt: prompt, maxTokens: most, seed: seeds.randomElement(using: &generator)!)
                request.ignoresEndOfGeneration = Int.random(in: 0..<5, using: &generator) == 0
                request.wantsPromptLogprobs = Int.random(in: 0..<8, using: &generator) == 0
                request.priority = [0, 0, 0, -3, 7].randomElement(using: &generator)!
                let id = SequenceID()
                do {
                    try scheduler.submit(request, as: id)
                } catch {
                    // Those that were preempted come on top.
                    #expect(error.code == .queueFull && scheduler.waitingCount >= limits.maxQueued)
                    refused += 1
                    break
                }
                submitted += 1
                let room = min(scheduler.lengthLimit - prompt.count, most ?? .max)
                var client = Client(
                    request: request,
                    expected: FakeModel.answer(prompt, seed: request.seed, most: room, ignoresEnd: request.ignoresEndOfGeneration))
                if Int.random(in: 0..<6, using: &generator) == 0, !client.expected.isEmpty {
                    client.stopsAt = Int.random(in: 1...client.expected.count, using: &generator)
                    client.expected.removeSubrange(client.stopsAt!...)
                }
                clients[id] = client
                live.append(id)
            }
            func disturb() {
                guard let id = live.randomElement(using: &generator) else { return }
                switch Int.random(in: 0..<240, using: &generator) {
                case 0:
                    scheduler.cancel(id)
                    clients[id] = nil
                    live.removeAll { $0 == id }
                    cancelled += 1
                case 1..<30:
                    clients[id]!.isPaused.toggle()
                    scheduler.setPaused(id, clients[id]!.isPaused)
                default: break
                }
            }
            disturb()
            let plan = scheduler.schedule()
            #expect(plan.rowCount <= limits.maxRowsPerStep)
            for admission in plan.admissions {
                #expect(clients[admission.sequence]!.nextPosition == nil)
                clients[admission.sequence]!.nextPosition = admission.cachedTokens
                clients[admission.sequence]!.isWaiting = false
            }
            preemptions += plan.preemptions.count
            #expect(plan.preemptions.isEmpty || !plan.isEmpty)
            // For those that wait only paused ones step back.
            #expect(plan.admissions.isEmpty || plan.preemptions.allSatisfy { clients[$0]!.isPaused })
            for id in plan.preemptions {
                #expect(clients[id]!.nextPosition != nil && !plan.segments.contains { $0.sequence == id })
                clients[id]!.isWaiting = true
                clients[id]!.wasPreempted = true
                clients[id]!.reached = max(clients[id]!.reached, clients[id]!.nextPosition!)
                clients[id]!.nextPosition = 0
            }
            if plan.isEmpty {
                // Only pauses can hold everything up.
                let isHeldUp = live.allSatisfy { clients[$0]!.isPaused || clients[$0]!.isWaiting }
                #expect(isHeldUp && (live.isEmpty || live.contains { clients[$0]!.isPaused }))
                for id in live {
                    clients[id]!.isPaused = false
                    scheduler.setPaused(id, false)
                }
                continue
            }
            #expect(Set(plan.segments.map(\.sequence)).count == plan.segments.count)
            let firstPrefill = plan.segments.firstIndex(where: \.isPrefill) ?? plan.segments.count
            #expect(!plan.segments[firstPrefill...].contains { !$0.isPrefill })
            let prefillRows = plan.segments[firstPrefill...].map(\.rows.count).reduce(0, +)
            func owner(_ segment: StepSegment) -> String { clients[segment.sequence]!.request.seed.owner }
            // The first prompt may take more if its owner gets no tokens yet.
            let decodingOwners = Set(plan.segments[..<firstPrefill].map(owner))
            let hasNewcomer = limits.admissionOrder == .fairByOwner && firstPrefill < plan.segments.count && !decodingOwners.contains(owner(plan.segments[firstPrefill]))
            #expect(firstPrefill == 0 || hasNewcomer || prefillRows <= limits.maxPrefillRowsWhileDecoding)

            var results: [SegmentResult] = []
            for segment in plan.segments {
                var client = clients[segment.sequence]!
                let all = client.request.prompt + client.tokens
                // Only whole cached blocks may be skipped, and only in the prompt.
                let skipped = segment.startPosition - client.nextPosition!
                #expect(skipped >= 0 && skipped % BlockPool.blockSize == 0)
                #expect(skipped == 0 || (segment.startPosition % BlockPool.blockSize == 0 && (segment.isPrefill || client.wasPreempted)))
                #expect(!client.isPaused)
                client.isWaiting = false
                let positions = segment.startPosition..<segment.positions.upperBound - segment.drafts.count
                #expect(Array(plan.tokens[segment.rows.dropLast(segment.drafts.count)]) == Array(all[positions]))
                #expect(segment.drafts.isEmpty || (firstPrefill == plan.segments.count && plan.rowCount <= limits.maxRowsWithDrafts && !segment.isPrefill))
                client.nextPosition = positions.upperBound
                // Each prompt row once, whatever is computed again.
                let isScored = client.request.wantsPromptLogprobs && client.reached < client.request.prompt.count && segment.isPrefill && positions.upperBound > client.reached
                if isScored {
                    #expect(segment.logits == .all && segment.rows.count <= limits.maxPromptLogprobRows && positions.lowerBound >= client.reached)
                    client.logitRows += segment.rows.count
                }
                var accepted = 0
                let next = model.compute(segment, plan, seed: client.request.seed)
                let following = try #require(next)
                if segment.samples {
                    #expect(segment.logits == (segment.drafts.isEmpty && !isScored ? .last : .all) && positions.upperBound == all.count)
                    if Int.random(in: 0..<2000, using: &generator) == 0 {
                        results.append(.failed)
                    } else {
                        // Drafts are accepted up to the first wrong one, and up to the answer's end.
                        client.tokens.append(following[0])
                        func isOver() -> Bool { client.tokens.count == client.stopsAt || (client.tokens.last == FakeModel.end && !client.request.ignoresEndOfGeneration) }
                        while accepted < segment.drafts.count, following[accepted] == plan.tokens[segment.drafts.lowerBound + accepted], !isOver() {
                            accepted += 1
                            client.tokens.append(following[accepted])
                        }
                        #expect(client.tokens.count <= client.expected.count)
                        client.nextPosition! += accepted
                        results.append(.sampled(client.tokens.last!, ends: client.tokens.count == client.stopsAt, accepted: accepted))
                    }
                } else {
                    #expect(segment.logits == (isScored ? .all : .none))
                    results.append(.computed)
                }
                let again = positions.clamped(to: 0..<client.reached).count
                let prompt = positions.filter { $0 >= client.reached && $0 < client.request.prompt.count }.count
                rows = (rows.prefill + prompt, rows.decode + positions.count - again - prompt + accepted, rows.again + again)
                clients[segment.sequence] = client
            }
            // While the step runs.
            disturb()
            let outcomes = scheduler.complete(plan, results)
            for (segment, outcome) in zip(plan.segments, outcomes) {
                switch outcome {
                case .running:
                    #expect(clients[segment.sequence] != nil)
                case .cancelled:
                    #expect(clients[segment.sequence] == nil)
                case .failed:
                    failed += 1
                    clients[segment.sequence] = nil
                    live.removeAll { $0 == segment.sequence }
                case .finished(let reason, let usage):
                    let client = clients[segment.sequence]!
                    #expect(client.tokens == client.expected)
                    #expect(usage.completionTokens == client.tokens.count && usage.promptTokens == client.request.prompt.count)
                    #expect(usage.cachedTokens < usage.promptTokens && (usage.cachedTokens % BlockPool.blockSize == 0 || client.wasPreempted))
                    let isStop =
                        client.stopsAt != nil || (client.tokens.last == FakeModel.end && !client.request.ignoresEndOfGeneration)
                    #expect(reason == (isStop ? .stop : .length))
                    if client.request.wantsPromptLogprobs {
                        #expect(client.logitRows == client.request.prompt.count && usage.cachedTokens == 0)
                    }
                    finished += 1
                    clients[segment.sequence] = nil
                    live.removeAll { $0 == segment.sequence }
                }
            }
            scheduler.checkInvariants()
        }
        #expect(finished + cancelled + failed == 500)
        #expect(finished > 250 && cancelled > 5 && refused > 0)
        #expect(scheduler.runningCount == 0 && scheduler.waitingCount == 0 && scheduler.schedule().isEmpty)
        let pool = scheduler.pool
        #expect(pool.inUseCount == 0 && pool.reserved == 0 && pool.available == limits.blockCount && pool.windowInUseCount == 0)
        #expect(scheduler.cachedTokens > 0 && pool.statistics.registrations > 0)
        let drafts = scheduler.statistics.draftTokens, accepted = scheduler.statistics.acceptedDraftTokens
        #expect(round == 1 ? drafts == 0 : accepted > 0 && accepted < drafts)
        let statistics = scheduler.statistics
        #expect(statistics.prefillTokens == UInt64(rows.prefill) && statistics.decodeTokens == UInt64(rows.decode) && statistics.recomputedTokens == UInt64(rows.again))
        #expect(statistics.preemptions == UInt64(preemptions) && (round == 4 ? preemptions == 0 : round < 5 || preemptions > 50 && rows.again > 1000))
        scheduler.checkInvariants()
    }
}
