import Inference
import Testing

private let owners = ["alice", "bob", "carol"].map { PrefixSeed(owner: $0, baseDigest: "base") }
private let (alice, bob) = (owners[0], owners[1])

private func scheduler(blocks: Int = 400, sequences: Int = 4, _ edit: (inout SchedulerConfiguration) -> Void = { _ in }) -> Scheduler {
    var configuration = SchedulerConfiguration(contextLength: 2048, blockCount: blocks)
    configuration.admissionOrder = .fairByOwner
    configuration.maxSequences = sequences
    configuration.maxQueued = 1000
    edit(&configuration)
    return Scheduler(configuration)
}

extension Scheduler {
    /// Submits a prompt that shares no prefix with any other.
    fileprivate mutating func submit(_ count: Int, max: Int, priority: Int, _ owner: PrefixSeed = alice) throws -> SequenceID {
        let id = SequenceID()
        var request = ScheduledRequest(prompt: id.unsharedPrompt(count), maxTokens: max, seed: owner)
        request.priority = priority
        try submit(request, as: id)
        return id
    }

    @discardableResult
    fileprivate mutating func step() -> StepPlan {
        let plan = schedule()
        if !plan.isEmpty { _ = complete(plan, plan.segments.map { $0.samples ? .sampled(5) : .computed }) }
        return plan
    }
}

/// The request's priority: an order within one owner's requests, and none between owners.
@Suite struct PriorityTests {
    @Test("the lower number leaves the queue first, and of equals the first to come", arguments: [SchedulerConfiguration.AdmissionOrder.fairByOwner, .arrival])
    func admission(_ order: SchedulerConfiguration.AdmissionOrder) throws {
        var scheduler = scheduler(sequences: 1) { $0.admissionOrder = order }
        let priorities = [0, 5, -1, 0, Int(Int32.max), 5, Int(Int32.min)]
        let ids = try priorities.map { try scheduler.submit(5, max: 2, priority: $0) }
        scheduler.setPaused(ids[3], true)
        var admitted: [SequenceID] = []
        while scheduler.waitingCount > 1 || scheduler.runningCount > 0 { admitted += scheduler.step().admissions.map(\.sequence) }
        #expect(admitted == [6, 2, 0, 1, 5, 4].map { ids[$0] })
        scheduler.setPaused(ids[3], false)
        #expect(scheduler.step().admissions.map(\.sequence) == [ids[3]])
    }

    /// The same requests of three owners, with priorities and without: owner by owner the same admissions and rows, step by step.
    @Test("whatever numbers an owner writes, strangers notice nothing")
    func strangersNoticeNothing() throws {
        func trace(_ priority: (Int) -> Int) throws -> (steps: [[String]], admitted: [Int]) {
            var scheduler = scheduler(sequences: 6) { $0.spareSequences = 2 }
            var submitted: [SequenceID: (owner: String, priority: Int)] = [:], steps: [[String]] = [], admitted: [Int] = []
            for i in 0..<60 {
                let owner = owners[i % 7 < 4 ? 0 : i % 7 < 6 ? 1 : 2]
                // Only Alice writes any.
                let number = owner == alice ? priority(i) : 0
                submitted[try scheduler.submit(40, max: 100, priority: number, owner)] = (owner.owner, number)
            }
            while scheduler.runningCount + scheduler.waitingCount > 0 {
                let plan = scheduler.step()
                steps.append(plan.admissions.map { submitted[$0.sequence]!.owner } + plan.segments.map { "\(submitted[$0.sequence]!.owner) \($0.positions)" })
                admitted += plan.admissions.compactMap { submitted[$0.sequence]! }.filter { $0.owner == "alice" }.map(\.priority)
            }
            return (steps, admitted)
        }
        let plain = try trace { _ in 0 }, urgent = try trace { _ in -1_000_000 }, falling = try trace { -$0 }
        #expect(urgent.steps == plain.steps && falling.steps == plain.steps)
        #expect(falling.admitted.count > 30 && falling.admitted == falling.admitted.sorted())
    }

    @Test("no number keeps an owner who holds more from stepping back")
    func ownersStepBackByWhatTheyHold() throws {
        var scheduler = scheduler(blocks: 12)
        let own = try (0..<2).map { _ in try scheduler.submit(60, max: 300, priority: -1_000_000) }
        scheduler.step()
        let stranger = try scheduler.submit(60, max: 300, priority: 1_000_000, bob)
        var preempted: [SequenceID] = []
        while preempted.isEmpty { preempted = scheduler.step().preemptions }
        #expect(preempted == [own[1]] && scheduler.tokens(of: stranger) != nil)
    }

    @Test("the prompt with the higher number is read later, although it was there before")
    func prompts() throws {
        var scheduler = scheduler { $0.maxRowsPerStep = 64 }
        let later = try scheduler.submit(200, max: 5, priority: 1)
        #expect(scheduler.step().segments.map(\.sequence) == [later])
        let first = try scheduler.submit(100, max: 5, priority: 0), stranger = try scheduler.submit(100, max: 5, priority: 9, bob)
        #expect(scheduler.step().segments.map(\.sequence) == [stranger], "by the shares: Bob runs less than Alice")
        #expect(scheduler.step().segments.map(\.sequence).first == first)
    }

    @Test("the higher number steps back, although it was there before")
    func preemption() throws {
        var scheduler = scheduler(blocks: 12)
        let before = try scheduler.submit(60, max: 300, priority: 3)
        scheduler.step()
        let ids = try [0, 7, 0].map { try scheduler.submit(60, max: 300, priority: $0) }
        #expect(scheduler.step().admissions.map(\.sequence) == [ids[0], ids[2], ids[1]])
        var preempted: [SequenceID] = []
        while preempted.count < 3 { preempted += scheduler.step().preemptions }
        #expect(preempted == [ids[1], before, ids[2]])
        // In the queue the number counts again: the later zero before the earlier three.
        scheduler.cancel(ids[0])
        let plan = scheduler.step()
        #expect(plan.segments.map(\.sequence).first == ids[2] && plan.admissions.isEmpty)
    }

    @Test func theRequestsNumberIsTheSequences() {
        var request = GenerationRequest(prompt: [1])
        #expect(ScheduledRequest(request, seed: alice).priority == 0)
        request.priority = -7
        #expect(ScheduledRequest(request, seed: alice).priority == -7)
    }
}
