/// Continuous batching as a state machine: no clock, no thread, no model. `schedule()` says what the next step computes,
/// the engine computes it, `complete(_:_:)` takes the result in; nothing else moves a sequence forward.
///
/// A step has one row for every running sequence that decodes (and, if they are few and there are no prompts, draft rows), then prefill chunks in order of
/// admission within the row budget (with `fairByOwner` in order of the owners' shares). A sequence is admitted when a slot is free and the pool has room for its
/// prompt (`admit`). Nobody overtakes the next sequence in line while it waits for blocks. Blocks of the answer are taken when they are needed; if there is none,
/// a sequence is preempted (`makeRoom`), to go on later. In what it answers and counts nothing of that shows.
///
/// Prefixes: blocks are registered as soon as they are full, and a prompt is looked up at admission and again before each of
/// its chunks that starts on a block, so of two requests with the same prefix that come together the later one shares what the
/// earlier one has finished. Blocks that both compute in the same step are computed twice and merged when registered.
public struct Scheduler: Sendable {
    enum Place: Sendable {
        case waiting
        case running(slot: Int)
    }

    public private(set) var configuration: SchedulerConfiguration
    public internal(set) var pool: BlockPool
    /// Steps that had rows.
    public private(set) var steps: UInt64 = 0
    /// Rows computed for prompts and for answers (rejected drafts are none), and prompt tokens that the cache spared.
    public internal(set) var prefillTokens: UInt64 = 0, decodeTokens: UInt64 = 0, cachedTokens: UInt64 = 0
    /// How often a sequence was preempted, and rows that were computed once more for that.
    public internal(set) var preemptions: UInt64 = 0, recomputedTokens: UInt64 = 0
    /// Draft tokens that were computed, and those of them that were accepted.
    public private(set) var draftTokens: UInt64 = 0, acceptedDraftTokens: UInt64 = 0

    /// In order of arrival.
    var waiting: [ScheduledSequence] = []
    var slots: [ScheduledSequence?]
    /// Occupied slots in order of first admission, those of one owner among themselves by priority.
    var order: [Int] = []
    var places: [SequenceID: Place] = [:]
    private var isStepInFlight = false
    /// Sequences that came, and those that were admitted.
    private var arrivals: UInt64 = 0
    var admissions: UInt64 = 0
    var shares = OwnerShares()
    /// Rows of a step at most, where they are limited for the sake of the window blocks.
    private let mostRows: Int

    public init(_ configuration: SchedulerConfiguration) {
        precondition(configuration.contextLength > 0, "a context has at least 1 position, not \(configuration.contextLength)")
        precondition(configuration.maxSequences > 0, "at least 1 sequence runs, not \(configuration.maxSequences)")
        precondition(
            configuration.maxRowsPerStep > configuration.maxSequences + configuration.spareSequences,
            "a step of \(configuration.maxRowsPerStep) rows leaves no prefill row beside \(configuration.maxSequences + configuration.spareSequences) decoding sequences")
        precondition(configuration.maxPrefillRowsWhileDecoding > 0 && configuration.maxPromptLogprobRows > 0, "a prefill chunk has at least 1 row")
        self.configuration = configuration
        let sequences = configuration.maxSequences + configuration.spareSequences
        if let needed = configuration.windowBlocksPerSequence {
            precondition(
                configuration.windowBlockCount >= min(configuration.blockCount, sequences * needed),
                "\(configuration.windowBlockCount) window blocks for \(sequences) sequences, of which each needs up to \(needed)")
        }
        mostRows = configuration.slidingWindow == nil ? .max : configuration.maxRowsPerStep
        pool = BlockPool(capacity: configuration.blockCount, window: configuration.slidingWindow, windowCapacity: configuration.windowBlockCount)
        slots = Array(repeating: nil, count: configuration.maxSequences + configuration.spareSequences)
    }

    // MARK: What it holds

    public var waitingCount: Int { waiting.count }
    public var runningCount: Int { order.count }
    /// The sequences of each owner that wait or run; no entry is 0.
    public var sequencesByOwner: [String: Int] { shares.sequences }

    /// The longest prompt and answer together: the context, or the cache if that is smaller.
    public var lengthLimit: Int {
        min(configuration.contextLength, configuration.blockCount * BlockPool.blockSize)
    }

    /// Prompt and answer so far of a running sequence.
    public func tokens(of id: SequenceID) -> [Int32]? {
        guard case .running(let slot)? = places[id] else { return nil }
        return slots[slot]!.tokens
    }

    /// A snapshot; `lastStep` is the caller's to fill in.
    public var statistics: EngineStatistics {
        var statistics = EngineStatistics()
        statistics.running = runningCount
        statistics.waiting = waitingCount
        statistics.blocksTotal = pool.capacity
        statistics.blocksInUse = pool.inUseCount
        statistics.blocksCached = pool.cachedCount
        statistics.windowBlocksTotal = pool.windowCapacity
        statistics.windowBlocksInUse = pool.windowInUseCount
        statistics.steps = steps
        statistics.prefillTokens = prefillTokens
        statistics.decodeTokens = decodeTokens
        statistics.cachedTokens = cachedTokens
        statistics.preemptions = preemptions
        statistics.recomputedTokens = recomputedTokens
        statistics.draftTokens = draftTokens
        statistics.acceptedDraftTokens = acceptedDraftTokens
        return statistics
    }

    // MARK: Requests

    /// Whether and how long `request` could run; touches no state, so it may be asked on any thread.
    /// - Returns: the most tokens that it will generate.
    /// - Throws: `contextLengthExceeded` if it could never run, `invalidRequest` for an empty prompt or a negative `maxTokens`.
    public static func check(
        promptCount: Int, maxTokens: Int?, configuration: SchedulerConfiguration
    ) throws(InferenceError) -> Int {
        guard promptCount > 0 else { throw InferenceError(.invalidRequest, "The prompt is empty; it needs at least one token.") }
        if let maxTokens, maxTokens < 0 {
            throw InferenceError(.invalidRequest, "max_tokens is \(maxTokens); it must be 0 or more.")
        }
        let cacheLength = configuration.blockCount * BlockPool.blockSize
        let limit = min(configuration.contextLength, cacheLength)
        // A prompt that is only to be computed needs no room for a token.
        let room = limit - promptCount
        guard room >= min(maxTokens ?? 1, 1) else {
            let what = limit == configuration.contextLength ? "the context of \(limit) tokens" : "the key-value cache of \(limit) tokens"
            throw InferenceError(
                .contextLengthExceeded,
                "The prompt has \(promptCount) tokens, and with at least one token of answer it does not fit \(what); shorten the prompt.")
        }
        return min(maxTokens ?? room, room)
    }

    /// Puts a request at the end of the queue.
    /// - Throws: what `check` throws, `queueFull`, or `invalidRequest` for an id that is already in use.
    public mutating func submit(_ request: ScheduledRequest, as id: SequenceID) throws(InferenceError) {
        let maxTokens = try Self.check(
            promptCount: request.prompt.count, maxTokens: request.maxTokens, configuration: configuration)
        guard places[id] == nil else { throw InferenceError(.invalidRequest, "\(id) is already in the engine.") }
        guard waiting.count < configuration.maxQueued else {
            throw InferenceError(.queueFull, "\(waiting.count) sequences are waiting, which is the limit; try again later.")
        }
        arrivals += 1
        waiting.append(ScheduledSequence(request, as: id, maxTokens: maxTokens, arrival: arrivals))
        places[id] = .waiting
        shares.join(request.seed.owner)
    }

    /// Ends a sequence. If a step with it is being computed, its blocks are given back when that completes. Unknown ids are
    /// ignored.
    public mutating func cancel(_ id: SequenceID) {
        switch places[id] {
        case nil: return
        case .waiting:
            guard let index = waiting.firstIndex(where: { $0.id == id }) else { return }
            shares.leave(waiting.remove(at: index).seed.owner)
            places[id] = nil
        case .running(let slot):
            if isStepInFlight { slots[slot]!.isCancelled = true } else { remove(slot) }
        }
    }

    /// Ends every sequence, as `cancel` does.
    /// - Returns: their ids, those running first.
    public mutating func cancelAll() -> [SequenceID] {
        let ids = order.map { slots[$0]!.id } + waiting.map(\.id)
        for id in ids { cancel(id) }
        return ids
    }

    /// A paused sequence keeps its place in the queue, or its slot and its blocks as long as nobody else needs them, and is given no rows. Unknown ids are
    /// ignored.
    public mutating func setPaused(_ id: SequenceID, _ isPaused: Bool) {
        switch places[id] {
        case nil: return
        case .waiting:
            if let index = waiting.firstIndex(where: { $0.id == id }) { waiting[index].isPaused = isPaused }
        case .running(let slot): slots[slot]!.isPaused = isPaused
        }
    }

    /// Changes the row budgets from the next step on, for an engine that fits them to the speed it measures. What a row's
    /// numbers are does not depend on them. With a sliding window a step never has more rows than the configuration said at first.
    public mutating func setRowBudget(perStep: Int, prefillWhileDecoding: Int) {
        configuration.maxRowsPerStep = max(min(perStep, mostRows), configuration.maxSequences + configuration.spareSequences + 1)
        configuration.maxPrefillRowsWhileDecoding = max(prefillWhileDecoding, 1)
    }

    // MARK: Steps

    /// Decides the next step. An empty plan means that there is nothing to do until the next `submit`, `cancel` or `setPaused`;
    /// any other has to be completed before the next call.
    public mutating func schedule() -> StepPlan {
        precondition(!isStepInFlight, "a step scheduled before the one before it was completed")
        var plan = StepPlan()
        makeRoom(&plan)
        // What somebody had to give up is not for those that wait.
        if plan.preemptions.isEmpty { admit(&plan) }
        let decoding = order.filter { !slots[$0]!.isPaused && !slots[$0]!.isPrefilling }
        var prefilling = order.filter { !slots[$0]!.isPaused && slots[$0]!.isPrefilling }
        for slot in decoding { cover(slots[slot]!.computed + 1, of: slot) }
        var spare = prefilling.isEmpty ? configuration.maxRowsWithDrafts - decoding.count : 0
        for slot in decoding {
            let drafts = drafts(for: slot, most: spare)
            spare -= drafts.count
            addRows(1, of: slot, drafts: drafts, to: &plan)
        }
        var room = configuration.maxRowsPerStep - plan.rowCount
        var budget = plan.isEmpty ? room : min(room, configuration.maxPrefillRowsWhileDecoding)
        var isFirst = true
        while let next = nextPrefill(prefilling) {
            // One such prompt in a step, and before the others.
            let most = isFirst && isNewcomer(prefilling[next]) ? room : budget
            guard most > 0 else { break }
            let slot = prefilling.remove(at: next)
            takeCachedBlocks(slot)
            let rows = chunk(of: slots[slot]!, budget: most)
            addRows(rows, of: slot, to: &plan)
            room -= rows
            budget -= rows
            isFirst = false
        }
        if !plan.isEmpty {
            steps += 1
            plan.number = steps
            isStepInFlight = true
        }
        return plan
    }

    /// Takes in what the engine computed for `plan`.
    /// - Parameter results: one per segment, in order.
    /// - Returns: what follows, one per segment.
    public mutating func complete(_ plan: StepPlan, _ results: [SegmentResult]) -> [SegmentOutcome] {
        precondition(isStepInFlight && plan.number == steps, "step \(plan.number) completed while \(steps) is the latest")
        precondition(results.count == plan.segments.count, "\(results.count) results for \(plan.segments.count) segments")
        isStepInFlight = false
        var outcomes: [SegmentOutcome] = []
        outcomes.reserveCapacity(results.count)
        for (segment, result) in zip(plan.segments, results) {
            outcomes.append(complete(segment, of: plan, result))
        }
        // Cancelled while the step ran, without rows in it.
        for slot in order where slots[slot]!.isCancelled { remove(slot) }
        return outcomes
    }

    private mutating func complete(_ segment: StepSegment, of plan: StepPlan, _ result: SegmentResult) -> SegmentOutcome {
        let slot = segment.slot
        precondition(slots[slot]?.id == segment.sequence, "\(segment.sequence) is not in slot \(slot)")
        let accepted = if case .sampled(_, _, let accepted) = result { accepted } else { 0 }
        precondition(accepted <= segment.drafts.count, "\(accepted) of \(segment.drafts.count) drafts accepted")
        // The keys and values of rejected drafts lie behind the sequence's end, where the next ones are written.
        let rows = segment.rows.count - segment.drafts.count + accepted
        count(segment.startPosition..<segment.startPosition + rows, of: slots[slot]!)
        draftTokens += UInt64(segment.drafts.count)
        acceptedDraftTokens += UInt64(accepted)
        if slots[slot]!.isCancelled {
            remove(slot)
            return .cancelled
        }
        if result == .failed {
            remove(slot)
            return .failed
        }
        precondition(slots[slot]!.computed == segment.startPosition, "\(segment.sequence) has moved since the step was planned")
        slots[slot]!.computed += rows
        slots[slot]!.tokens += plan.tokens[segment.drafts.prefix(accepted)]
        slots[slot]!.lookup.learn(drafted: segment.drafts.count, accepted: accepted)
        registerFullBlocks(slot)
        // What only rejected drafts needed. So they never are the reason why somebody finds no block in a later step.
        while slots[slot]!.blockTable.count > BlockPool.blocks(for: slots[slot]!.computed) { pool.release(slots[slot]!.blockTable.removeLast()) }
        moveWindow(of: slot, to: slots[slot]!.computed)

        var reason: FinishReason?
        switch result {
        case .sampled(let token, let ends, _):
            precondition(segment.samples, "a token for a segment of \(segment.sequence) that samples none")
            slots[slot]!.tokens.append(token)
            let sequence = slots[slot]!
            if ends || (!sequence.ignoresEndOfGeneration && configuration.endOfGeneration.contains(token)) {
                reason = .stop
            } else if sequence.generatedCount >= sequence.maxTokens {
                reason = .length
            }
        case .computed:
            precondition(!segment.samples, "no token for a segment of \(segment.sequence) that samples one")
            if slots[slot]!.computed == slots[slot]!.tokens.count { reason = .length }
        case .failed:
            break
        }
        guard let reason else { return .running }
        let usage = slots[slot]!.usage
        remove(slot)
        return .finished(reason, usage)
    }

    /// Counts computed rows, as what they were the first time.
    private mutating func count(_ positions: Range<Int>, of sequence: ScheduledSequence) {
        let again = positions.clamped(to: 0..<sequence.reached).count
        let prompt = (positions.lowerBound + again..<positions.upperBound).clamped(to: 0..<sequence.promptCount).count
        recomputedTokens += UInt64(again)
        prefillTokens += UInt64(prompt)
        decodeTokens += UInt64(positions.count - again - prompt)
    }

    // MARK: Turns

    /// Which of these slots, given in order of admission, gets prefill rows next.
    private func nextPrefill(_ slots: [Int]) -> Int? {
        guard configuration.admissionOrder == .fairByOwner, slots.count > 1, shares.ownerCount > 1 else { return slots.isEmpty ? nil : 0 }
        let running = runningByOwner
        func rank(_ index: Int) -> (rows: UInt64, running: Int, index: Int) {
            let owner = self.slots[slots[index]]!.seed.owner
            return (shares.rows(of: owner), running[owner] ?? 0, index)
        }
        return slots.indices.min { rank($0) < rank($1) }
    }

    /// Whether a prompt is of an owner who gets no tokens yet, while others run: they wait for it a little longer than for each other's prompts.
    private func isNewcomer(_ slot: Int) -> Bool {
        guard configuration.admissionOrder == .fairByOwner, shares.ownerCount > 1 else { return false }
        let owner = slots[slot]!.seed.owner
        let own = order.filter { slots[$0]!.seed.owner == owner }
        return own.count < order.count && own.allSatisfy { slots[$0]!.isPrefilling && slots[$0]!.generatedCount == 0 }
    }

    var runningByOwner: [String: Int] {
        var running: [String: Int] = [:]
        for slot in order { running[slots[slot]!.seed.owner, default: 0] += 1 }
        return running
    }

    /// Whose a sequence is where owners count.
    func account(of sequence: ScheduledSequence) -> String {
        configuration.admissionOrder == .fairByOwner ? sequence.seed.owner : ""
    }

    // MARK: Rows

    /// Rows that a sequence gets out of `budget`: what is left, or up to the last block border within the budget, so that most chunks
    /// start and end on one.
    private func chunk(of sequence: ScheduledSequence, budget: Int) -> Int {
        let left = sequence.tokens.count - sequence.computed
        var most = budget
        if sequence.scoresPrompt {
            // What was scored before a preemption is computed without logits, in chunks of its own.
            most = min(budget, sequence.computed < sequence.reached ? sequence.reached - sequence.computed : configuration.maxPromptLogprobRows)
        }
        guard most < left else { return left }
        let border = (sequence.computed + most) / BlockPool.blockSize * BlockPool.blockSize
        return border > sequence.computed ? border - sequence.computed : most
    }

    /// Before a chunk: blocks of it that another sequence has finished since the last look.
    private mutating func takeCachedBlocks(_ slot: Int) {
        guard slots[slot]!.computed == slots[slot]!.blockTable.count * BlockPool.blockSize else { return }
        let blocks = nextCachedBlocks(slots[slot]!)
        guard !blocks.isEmpty else { return }
        let end = slots[slot]!.computed + blocks.count * BlockPool.blockSize
        moveWindow(of: slot, to: end)
        for block in blocks {
            pool.drawReserved(sharing: block, inWindow: slots[slot]!.blockTable.count >= slots[slot]!.firstInWindow)
            slots[slot]!.blockTable.append(block)
            slots[slot]!.reservedBlocks -= 1
            slots[slot]!.registeredBlocks += 1
        }
        cachedTokens += UInt64(slots[slot]!.skip(to: end))
    }

    private func nextCachedBlocks(_ sequence: ScheduledSequence) -> [Int32] {
        pool.continuation(of: sequence.blockTable, sequence.tokens, seed: sequence.seed, findable: sequence.findable)
    }

    /// Lets go of the window blocks that a sequence's row at `position`, and so all later ones, do not see.
    private mutating func moveWindow(of slot: Int, to position: Int) {
        let old = slots[slot]!.firstInWindow, new = pool.firstInWindow(at: position)
        guard new > old else { return }
        for i in old..<max(old, min(new, slots[slot]!.blockTable.count)) { pool.leaveWindow(slots[slot]!.blockTable[i]) }
        slots[slot]!.firstInWindow = new
    }

    private func parent(of sequence: ScheduledSequence, block: Int) -> BlockPool.Parent {
        block == 0 ? .root(sequence.seed) : .block(sequence.blockTable[block - 1])
    }

    /// Drafts of what follows in a sequence that decodes, as far as there are blocks for them.
    private mutating func drafts(for slot: Int, most: Int) -> [Int32] {
        let sequence = slots[slot]!
        // The last token of an answer is sampled from the row before it.
        let room = min(
            sequence.maxTokens - sequence.generatedCount - 1, (sequence.blockTable.count + pool.unreserved) * BlockPool.blockSize - sequence.computed - 1)
        return most > 0 ? slots[slot]!.lookup.drafts(after: sequence.tokens, most: min(most, room)) : []
    }

    /// Gives a sequence the blocks of its first `count` positions: those that it was promised, then others, of which the caller knows that they are there.
    private mutating func cover(_ count: Int, of slot: Int) {
        while slots[slot]!.blockTable.count < BlockPool.blocks(for: count) {
            if slots[slot]!.reservedBlocks > 0 {
                slots[slot]!.reservedBlocks -= 1
                slots[slot]!.blockTable.append(pool.drawReserved())
            } else {
                guard let block = pool.allocate() else { preconditionFailure("no block for \(slots[slot]!.id)") }
                slots[slot]!.blockTable.append(block)
            }
        }
    }

    private mutating func addRows(_ count: Int, of slot: Int, drafts: [Int32] = [], to plan: inout StepPlan) {
        let start = slots[slot]!.computed
        let end = start + count + drafts.count
        cover(end, of: slot)
        let sequence = slots[slot]!
        shares.charge(sequence.seed.owner, rows: max(end - max(start, sequence.reached), 0))
        assert(start + count <= sequence.tokens.count && sequence.reservedBlocks >= 0)
        let samples = start + count == sequence.tokens.count && sequence.maxTokens > 0
        let isPrefill = sequence.isPrefilling
        let logits: StepPlan.Logits =
            if sequence.scoresPrompt && start >= sequence.reached || !drafts.isEmpty { .all } else if samples { .last } else { .none }
        let first = plan.tokens.count
        plan.tokens += sequence.tokens[start..<start + count]
        plan.tokens += drafts
        plan.segments.append(
            StepSegment(
                sequence: sequence.id, slot: slot, rows: first..<plan.tokens.count, startPosition: start, blockTable: sequence.blockTable, logits: logits,
                samples: samples, isPrefill: isPrefill, drafts: first + count..<plan.tokens.count,
                windowBlocks: pool.windowBlocks(of: sequence.blockTable[sequence.firstInWindow...])))
    }

    private mutating func registerFullBlocks(_ slot: Int) {
        while (slots[slot]!.registeredBlocks + 1) * BlockPool.blockSize <= slots[slot]!.computed {
            let sequence = slots[slot]!
            let block = sequence.registeredBlocks
            let start = block * BlockPool.blockSize
            let held = sequence.blockTable[block]
            let kept = pool.register(
                held, after: parent(of: sequence, block: block), tokens: sequence.tokens[start..<start + BlockPool.blockSize])
            if kept != held { slots[slot]!.blockTable[block] = kept }
            slots[slot]!.registeredBlocks += 1
        }
    }

    private mutating func remove(_ slot: Int) {
        let sequence = vacate(slot)
        shares.leave(sequence.seed.owner)
        places[sequence.id] = nil
    }

    /// Takes a sequence out of its slot, and its blocks back.
    mutating func vacate(_ slot: Int) -> ScheduledSequence {
        let sequence = slots[slot]!
        slots[slot] = nil
        order.removeAll { $0 == slot }
        pool.release(sequence.blockTable, firstInWindow: sequence.firstInWindow)
        pool.cancelReservation(sequence.reservedBlocks)
        return sequence
    }

    // MARK: Invariants

    /// Holds the pool against the sequences and stops the process at the first contradiction; for tests and debugging, between two steps.
    package func checkInvariants() {
        pool.checkInvariants()
        guard let window = configuration.slidingWindow else { return }
        var users: [Int32: Int] = [:]
        for slot in order {
            let sequence = slots[slot]!
            precondition(sequence.firstInWindow == max(sequence.computed - window + 1, 0) / BlockPool.blockSize, "\(sequence.id) has another window")
            for block in sequence.blockTable[sequence.firstInWindow...] { users[block, default: 0] += 1 }
        }
        for block in 0..<Int32(pool.capacity) {
            precondition(pool.windowUserCount(block) ?? 0 == users[block] ?? 0, "the window block of block \(block) has \(users[block] ?? 0) users")
        }
    }
}
