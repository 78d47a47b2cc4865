/// Continuous batching as a state machine: no clock, no thread, no model. `schedule()` says what the next step computes,
/// the engine computes it, `complete(_:_:)` takes the result in; nothing else moves a sequence forward.
///
/// A step has one row for every running sequence that decodes (and, if they are few and there are no prompts, draft rows), then prefill chunks in order of
/// admission within the row budget (with `fairByOwner` in order of the owners' shares). A sequence is admitted when a slot is free and the pool can promise the
/// blocks for its prompt and all tokens it may generate, so a running sequence is never preempted. Nobody overtakes the next sequence in line while it waits for blocks.
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
    /// Draft tokens that were computed, and those of them that were accepted.
    public private(set) var draftTokens: UInt64 = 0, acceptedDraftTokens: UInt64 = 0

    var waiting: [ScheduledSequence] = []
    var slots: [ScheduledSequence?]
    /// Occupied slots in order of admission.
    var order: [Int] = []
    var places: [SequenceID: Place] = [:]
    private var isStepInFlight = false
    var shares = OwnerShares()

    public init(_ configuration: SchedulerConfiguration) {
        precondition(configuration.contextLength > 0, "a context has at least 1 position, not \(configuration.contextLength)")
        precondition(configuration.maxSequences > 0, "at least 1 sequence runs, not \(configuration.maxSequences)")
        precondition(
            configuration.maxRowsPerStep > configuration.maxSequences + configuration.spareSequences,
            "a step of \(configuration.maxRowsPerStep) rows leaves no prefill row beside \(configuration.maxSequences + configuration.spareSequences) decoding sequences")
        precondition(configuration.maxPrefillRowsWhileDecoding > 0 && configuration.maxPromptLogprobRows > 0, "a prefill chunk has at least 1 row")
        self.configuration = configuration
        pool = BlockPool(capacity: configuration.blockCount)
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
        statistics.steps = steps
        statistics.prefillTokens = prefillTokens
        statistics.decodeTokens = decodeTokens
        statistics.cachedTokens = cachedTokens
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
        waiting.append(ScheduledSequence(request, as: id, maxTokens: maxTokens))
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

    /// A paused sequence keeps its place in the queue, or its slot and its blocks, and is given no rows. Unknown ids are ignored.
    public mutating func setPaused(_ id: SequenceID, _ isPaused: Bool) {
        switch places[id] {
        case nil: return
        case .waiting:
            if let index = waiting.firstIndex(where: { $0.id == id }) { waiting[index].isPaused = isPaused }
        case .running(let slot): slots[slot]!.isPaused = isPaused
        }
    }

    /// Changes the row budgets from the next step on, for an engine that fits them to the speed it measures. What a row's
    /// numbers are does not depend on them.
    public mutating func setRowBudget(perStep: Int, prefillWhileDecoding: Int) {
        configuration.maxRowsPerStep = max(perStep, configuration.maxSequences + configuration.spareSequences + 1)
        configuration.maxPrefillRowsWhileDecoding = max(prefillWhileDecoding, 1)
    }

    // MARK: Steps

    /// Decides the next step. An empty plan means that there is nothing to do until the next `submit`, `cancel` or `setPaused`;
    /// any other has to be completed before the next call.
    public mutating func schedule() -> StepPlan {
        precondition(!isStepInFlight, "a step scheduled before the one before it was completed")
        var plan = StepPlan()
        admit(&plan)
        let decoding = order.filter { !slots[$0]!.isPaused && !slots[$0]!.isPrefilling }
        var prefilling = order.filter { !slots[$0]!.isPaused && slots[$0]!.isPrefilling }
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
        if segment.isPrefill {
            prefillTokens += UInt64(rows)
        } else {
            decodeTokens += UInt64(rows)
        }
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
            if !slots[slot]!.isPrefilling { reason = .length }
        case .failed:
            break
        }
        guard let reason else { return .running }
        let usage = slots[slot]!.usage
        remove(slot)
        return .finished(reason, usage)
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
        return own.count < order.count && own.allSatisfy { slots[$0]!.isPrefilling }
    }

    var runningByOwner: [String: Int] {
        var running: [String: Int] = [:]
        for slot in order { running[slots[slot]!.seed.owner, default: 0] += 1 }
        return running
    }

    // MARK: Rows

    /// Prompt rows that a sequence gets out of `budget`: what is left of the prompt, or up to the last block border within the
    /// budget, so that most chunks start and end on one.
    private func chunk(of sequence: ScheduledSequence, budget: Int) -> Int {
        let left = sequence.promptCount - sequence.computed
        let most = sequence.wantsPromptLogprobs ? min(budget, configuration.maxPromptLogprobRows) : budget
        guard most < left else { return left }
        let border = (sequence.computed + most) / BlockPool.blockSize * BlockPool.blockSize
        return border > sequence.computed ? border - sequence.computed : most
    }

    /// Before a chunk: blocks of the prompt that another sequence has finished since the last look.
    private mutating func takeCachedBlocks(_ slot: Int) {
        guard !slots[slot]!.wantsPromptLogprobs else { return }
        while let block = nextCachedBlock(slots[slot]!) {
            let end = slots[slot]!.computed + BlockPool.blockSize
            pool.drawReserved(sharing: block)
            slots[slot]!.blockTable.append(block)
            slots[slot]!.reservedBlocks -= 1
            slots[slot]!.registeredBlocks += 1
            slots[slot]!.computed = end
            slots[slot]!.cachedTokens += BlockPool.blockSize
            cachedTokens += UInt64(BlockPool.blockSize)
        }
    }

    private func nextCachedBlock(_ sequence: ScheduledSequence) -> Int32? {
        let start = sequence.computed
        let end = start + BlockPool.blockSize
        let index = sequence.blockTable.count
        guard start == index * BlockPool.blockSize, end < sequence.promptCount else { return nil }
        return pool.find(sequence.tokens[start..<end], after: parent(of: sequence, block: index))
    }

    private func parent(of sequence: ScheduledSequence, block: Int) -> BlockPool.Parent {
        block == 0 ? .root(sequence.seed) : .block(sequence.blockTable[block - 1])
    }

    /// Drafts of what follows in a sequence that decodes.
    private mutating func drafts(for slot: Int, most: Int) -> [Int32] {
        let sequence = slots[slot]!
        // The last token of an answer is sampled from the row before it.
        let room = sequence.maxTokens - sequence.generatedCount - 1
        return most > 0 ? slots[slot]!.lookup.drafts(after: sequence.tokens, most: min(most, room)) : []
    }

    private mutating func addRows(_ count: Int, of slot: Int, drafts: [Int32] = [], to plan: inout StepPlan) {
        let start = slots[slot]!.computed
        let end = start + count + drafts.count
        while slots[slot]!.blockTable.count < BlockPool.blocks(for: end) {
            slots[slot]!.blockTable.append(pool.drawReserved())
            slots[slot]!.reservedBlocks -= 1
        }
        let sequence = slots[slot]!
        shares.charge(sequence.seed.owner, rows: count + drafts.count)
        assert(start + count <= sequence.tokens.count && sequence.reservedBlocks >= 0)
        let samples = start + count == sequence.tokens.count && sequence.maxTokens > 0
        let isPrefill = sequence.isPrefilling
        let logits: StepPlan.Logits =
            if isPrefill && sequence.wantsPromptLogprobs || !drafts.isEmpty { .all } else if samples { .last } else { .none }
        let first = plan.tokens.count
        plan.tokens += sequence.tokens[start..<start + count]
        plan.tokens += drafts
        plan.segments.append(
            StepSegment(
                sequence: sequence.id, slot: slot, rows: first..<plan.tokens.count, startPosition: start, blockTable: sequence.blockTable, logits: logits,
                samples: samples, isPrefill: isPrefill, drafts: first + count..<plan.tokens.count))
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
        let sequence = slots[slot]!
        pool.release(sequence.blockTable)
        pool.cancelReservation(sequence.reservedBlocks)
        shares.leave(sequence.seed.owner)
        places[sequence.id] = nil
        slots[slot] = nil
        order.removeAll { $0 == slot }
    }
}
