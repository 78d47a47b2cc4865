import Executors
import Kernels
import Modeling
import Synchronization
import Tokenization

public struct EngineConfiguration: Sendable {
    /// Positions of one sequence; the model's trained context at most.
    public var contextLength: Int
    /// Sequences that run at once, and those that may wait.
    public var maxSequences = 16
    public var maxQueued = 256
    /// Sequences that run beyond `maxSequences`, of owners that run none: nobody waits for the end of somebody else's long answer.
    public var spareSequences = 4
    /// Bytes of keys and values, all sequences together.
    public var cacheBytes: Int
    public var numerics = Numerics.fast
    public var cachePrecision = KVCache.Precision.float16
    /// The most rows of a step.
    public var maxRowsPerStep = 512
    /// Rows of a step without prompts up to which drafts are added; 0: none.
    public var maxRowsWithDrafts = 8
    /// How long a step may take, in seconds: the row budget follows the speed that is measured, so that a cancellation is never far away.
    public var stepTarget = 0.18
    /// How long a step that also decodes may take: the gap that streaming clients see while somebody's prompt is read.
    public var decodeStepTarget = 0.09

    public init(contextLength: Int, cacheBytes: Int) {
        self.contextLength = contextLength
        self.cacheBytes = cacheBytes
    }
}

extension Duration {
    /// Seconds as a number.
    package var inSeconds: Double { Double(components.seconds) + Double(components.attoseconds) * 1e-18 }
}

/// The inference engine: an actor on a thread of its own whose loop is schedule → forward → sample → deliver → `Task.yield()`. That one
/// suspension point means that everything from outside lands between two steps. Without work the loop ends; the next request starts it.
///
/// `submit`, `cancel` and `setPaused` may be called from any thread: they leave a command in a mailbox, in order, and never wait for a step.
public actor Engine: GenerationService {
    private enum Command {
        case submit(GenerationRequest, SequenceID, any GenerationSink)
        case cancel(SequenceID)
        case pause(SequenceID, Bool)
    }

    private struct Mailbox {
        var commands: [Command] = []
        var isLoopRunning = false
        var isStopping = false
        /// A step is to be taken although there may be nothing to do.
        var isBeatDue = false
        /// Sequences that the scheduler holds, as of the last step, and submissions on their way.
        var held = QueueOccupancy(), submitted = QueueOccupancy()
        var statistics = EngineStatistics()
    }

    /// What a running or waiting sequence needs beside the scheduler's state.
    private struct Active {
        let request: GenerationRequest
        let sink: any GenerationSink
        var sampler: Sampler
        var characters = UTF8Assembler()
        var stops: StopMatcher
        var promptLogprobs: [TokenLogprobs?] = []
    }

    /// Working memory of one sampling thread.
    private final class SamplingLane {
        var scratch: SamplerScratch
        init(vocabularySize: Int) { scratch = SamplerScratch(vocabularySize: vocabularySize) }
    }

    /// What sampling made of one row.
    private enum Sampled {
        case token(Int32, TokenLogprobs?)
        case failed(InferenceError)
    }

    /// What a token adds to an answer.
    private struct Piece {
        var text: String
        var token: GeneratedToken?
    }

    public nonisolated let limits: GenerationLimits
    public nonisolated let schedulerConfiguration: SchedulerConfiguration
    private nonisolated let executor: ThreadExecutor
    private nonisolated let mailbox = Mutex(Mailbox())
    private nonisolated let queueBound: QueueBound

    private let configuration: EngineConfiguration
    private let tokenizer: Tokenizer
    private let baseDigest: String
    private let pool: ComputePool
    private let turnstile: ComputeTurnstile
    private let forward: ForwardPass
    private let lanes: [SamplingLane]
    private var scheduler: Scheduler
    private var active: [SequenceID: Active] = [:]
    /// A cache block, and a window block if there are any, that no sequence is given.
    private let scratchBlock: Int32
    private let scratchWindowBlocks: [Int32]
    /// Seconds per prefill row, a moving average.
    private var secondsPerRow = 0.0

    public nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    /// - Parameters:
    ///   - pool: from now on used in turns at the turnstile only.
    ///   - baseDigest: names the base model in the keys of cached blocks.
    /// - Throws: `KernelError` if the memory cannot be had.
    public init(
        model: LanguageModel, tokenizer: Tokenizer, configuration: EngineConfiguration, baseDigest: String, variant: KernelVariant, pool: ComputePool,
        turnstile: ComputeTurnstile = ComputeTurnstile()
    ) throws(KernelError) {
        let c = model.configuration
        let slots = configuration.maxSequences + configuration.spareSequences, maximumLogitsRows = max(slots, 16)
        var scheduling = SchedulerConfiguration(contextLength: configuration.contextLength, blockCount: 1)
        scheduling.maxSequences = configuration.maxSequences
        scheduling.spareSequences = configuration.spareSequences
        scheduling.maxRowsPerStep = max(configuration.maxRowsPerStep, slots + 1)
        scheduling.admissionOrder = .fairByOwner
        // Each of them has logits at once.
        scheduling.maxRowsWithDrafts = min(configuration.maxRowsWithDrafts, maximumLogitsRows)
        let windowed = c.windowedLayers
        scheduling.slidingWindow = windowed.isEmpty ? nil : c.slidingWindow
        let precision = configuration.numerics == .exact ? KVCache.Precision.float32 : configuration.cachePrecision
        func blockBytes(_ layers: Int) -> Int { KVCache.blockBytes(layers: layers, kvHeads: c.kvHeadCount, headDim: c.headDim, precision: precision) }
        // More than every sequence can hold would never be used.
        let capacity = CacheCapacity(
            byteCount: configuration.cacheBytes, blockBytes: blockBytes(c.layerCount - windowed.count), windowBlockBytes: blockBytes(windowed.count),
            blocks: BlockPool.blocks(for: configuration.contextLength) * slots, windowBlocks: slots * (scheduling.windowBlocksPerSequence ?? 0))
        scheduling.blockCount = capacity.blockCount
        scheduling.windowBlockCount = capacity.windowBlockCount
        // One more of each for steps that belong to nobody.
        let cache = try KVCache(
            layers: c.layerCount, windowedLayers: windowed, kvHeads: c.kvHeadCount, headDim: c.headDim, blockCount: capacity.blockCount + 1,
            windowBlockCount: capacity.windowBlockCount + 1, precision: precision)
        scratchBlock = Int32(capacity.blockCount)
        scratchWindowBlocks = windowed.isEmpty ? [] : [Int32(capacity.windowBlockCount)]
        forward = try ForwardPass(
            model: model, cache: cache, variant: variant, pool: pool, numerics: configuration.numerics,
            maximumRows: scheduling.maxRowsPerStep, maximumLogitsRows: maximumLogitsRows)
        // The mailbox bounds the queue; the scheduler only sees what that let through.
        queueBound = QueueBound(
            places: configuration.maxSequences + configuration.maxQueued, spare: max(configuration.spareSequences, configuration.maxQueued / 4))
        scheduling.maxQueued = queueBound.places + queueBound.spare
        scheduling.endOfGeneration = tokenizer.endOfGeneration
        schedulerConfiguration = scheduling
        let scheduler = Scheduler(scheduling)
        self.scheduler = scheduler
        limits = GenerationLimits(
            contextLength: scheduler.lengthLimit, vocabularySize: c.vocabularySize, maxSequences: configuration.maxSequences, maxQueued: configuration.maxQueued)
        lanes = (0..<pool.threadCount).map { _ in SamplingLane(vocabularySize: c.vocabularySize) }
        executor = ThreadExecutor(name: "graft-engine")
        self.configuration = configuration
        self.tokenizer = tokenizer
        self.baseDigest = baseDigest
        self.pool = pool
        self.turnstile = turnstile
        let statistics = scheduler.statistics
        mailbox.withLock { $0.statistics = statistics }
    }

    deinit { executor.shutdown() }

    /// One step that belongs to nobody, before the first request: it brings the weights into memory, measures the speed that the first
    /// row budget follows, and shows that the model computes numbers at all.
    /// - Throws: `internalFailure` if a logit is not finite.
    public func warmUp() throws(InferenceError) {
        let rows = min(BlockPool.blockSize, limits.contextLength)
        let tokens = (0..<Int32(rows)).map { $0 % Int32(limits.vocabularySize) }
        let clock = ContinuousClock(), start = clock.now
        guard computesFiniteNumbers(tokens) else {
            throw InferenceError(.internalFailure, "the model computes values that are not finite; the file is damaged or badly converted")
        }
        pace(secondsPerRow: (clock.now - start).inSeconds / Double(rows))
        publishStatistics(clock.now)
    }

    /// A step on the scratch block.
    private func computesFiniteNumbers(_ tokens: [Int32]) -> Bool {
        turnstile.serve {
            let count = forward.run([ForwardSegment(tokens: tokens, position: 0, blocks: [scratchBlock], windowBlocks: scratchWindowBlocks, logits: .last)])
            return forward.logits(of: 0..<count)[0].allSatisfy(\.isFinite)
        }
    }

    /// The heartbeat of an engine that has nothing to do: one row, which shows that the next token could be computed.
    private func takeBeat() -> Bool {
        let isDue = mailbox.withLock { box in
            defer { box.isBeatDue = false }
            return box.isBeatDue && !box.isStopping
        }
        if isDue { publishStatistics(computesFiniteNumbers([0]) ? .now : nil) }
        return isDue
    }

    // MARK: From any thread

    public nonisolated func submit(_ request: GenerationRequest, as id: SequenceID, to sink: any GenerationSink) throws(InferenceError) {
        _ = try Scheduler.check(promptCount: request.prompt.count, maxTokens: request.maxTokens, configuration: schedulerConfiguration)
        try request.sampling.check(vocabularySize: limits.vocabularySize)
        guard request.prompt.allSatisfy({ $0 >= 0 && Int($0) < limits.vocabularySize }) else {
            throw InferenceError(.invalidRequest, "The prompt holds a token id outside the vocabulary of \(limits.vocabularySize).")
        }
        let refusal = mailbox.withLock { box -> InferenceError? in
            if box.isStopping { return InferenceError(.shuttingDown, "The server is shutting down.") }
            var held = box.held
            held.add(box.submitted)
            guard queueBound.admits(request.owner, held: held) else {
                return InferenceError(.queueFull, "\(limits.maxSequences) sequences run and \(limits.maxQueued) wait, which is the limit; try again later.")
            }
            box.submitted.add(request.owner)
            box.commands.append(.submit(request, id, sink))
            return nil
        }
        if let refusal { throw refusal }
        wake()
    }

    public nonisolated func cancel(_ id: SequenceID) {
        mailbox.withLock { $0.commands.append(.cancel(id)) }
        wake()
    }

    public nonisolated func setPaused(_ id: SequenceID, _ paused: Bool) {
        mailbox.withLock { $0.commands.append(.pause(id, paused)) }
        wake()
    }

    public nonisolated func beat() {
        mailbox.withLock { $0.isBeatDue = true }
        wake()
    }

    public nonisolated var statistics: EngineStatistics {
        mailbox.withLock { box in
            var statistics = box.statistics
            statistics.waiting += box.submitted.total
            return statistics
        }
    }

    /// Refuses what comes from now on, ends what is left with a `shuttingDown` error, and returns when the last step is over.
    public func shutdown() {
        mailbox.withLock { $0.isStopping = true }
        takeCommands()
        let error = InferenceError(.shuttingDown, "The server shut down before the answer was complete.")
        var events: [GenerationEvent] = []
        for id in scheduler.cancelAll() { events.append(GenerationEvent(sequence: id, kind: .failed(error))) }
        deliver(events)
        active.removeAll()
        publishStatistics()
    }

    private nonisolated func wake() {
        let mustStart = mailbox.withLock { box in
            defer { box.isLoopRunning = true }
            return !box.isLoopRunning
        }
        if mustStart { Task { await self.run() } }
    }

    // MARK: The loop

    private func run() async {
        while true {
            takeCommands()
            let plan = scheduler.schedule()
            announce(plan.admissions)
            if plan.isEmpty {
                publishStatistics()
                if takeBeat() {
                    await Task.yield()
                    continue
                }
                let isIdle = mailbox.withLock { box in
                    let isIdle = box.commands.isEmpty && (!box.isBeatDue || box.isStopping)
                    if isIdle { box.isLoopRunning = false }
                    return isIdle
                }
                if isIdle { return }
                continue
            }
            step(plan)
            await Task.yield()
        }
    }

    private func takeCommands() {
        let commands = mailbox.withLock { box in
            defer {
                box.commands.removeAll(keepingCapacity: true)
                box.held.add(box.submitted)
                box.submitted = QueueOccupancy()
            }
            return box.commands
        }
        for command in commands {
            switch command {
            case .cancel(let id):
                scheduler.cancel(id)
                active[id] = nil
            case .pause(let id, let paused): scheduler.setPaused(id, paused)
            case .submit(let request, let id, let sink):
                do {
                    let seed = PrefixSeed(
                        owner: request.owner, baseDigest: baseDigest,
                        adapters: request.adapters.parts.map { PrefixSeed.Adapter(digest: $0.adapter.digest, scale: $0.weight) })
                    try scheduler.submit(ScheduledRequest(request, seed: seed), as: id)
                    active[id] = Active(
                        request: request, sink: sink, sampler: Sampler(request.sampling, prompt: request.prompt), stops: StopMatcher(request.stop))
                } catch {
                    sink.deliver([GenerationEvent(sequence: id, kind: .failed(error))])
                }
            }
        }
    }

    private func announce(_ admissions: [StepPlan.Admission]) {
        guard !admissions.isEmpty else { return }
        publishStatistics()
        deliver(admissions.map { GenerationEvent(sequence: $0.sequence, kind: .started(cachedTokens: $0.cachedTokens)) })
    }

    private func step(_ plan: StepPlan) {
        let clock = ContinuousClock()
        var start = clock.now
        let rows = turnstile.serve {
            start = clock.now
            let wanted = forward.run(
                plan.segments.map { segment in
                    ForwardSegment(
                        tokens: Array(plan.tokens[segment.rows]), position: segment.startPosition, blocks: segment.blockTable, windowBlocks: segment.windowBlocks,
                        adapters: active[segment.sequence]?.request.adapters ?? .none,
                        logits: segment.logits == .all ? .all : segment.logits == .last ? .last : .none)
                })
            return sample(plan, wanted: wanted)
        }
        var events: [GenerationEvent] = []
        events.reserveCapacity(plan.segments.count)
        var results: [SegmentResult] = []
        results.reserveCapacity(plan.segments.count)
        var pieces: [[Piece]] = []
        pieces.reserveCapacity(plan.segments.count)
        var next = 0
        for segment in plan.segments {
            let count = segment.logits == .all ? segment.rows.count : segment.logits == .last ? 1 : 0
            let result = accept(segment, rows[next..<next + count], &events, &pieces)
            results.append(result)
            next += count
        }
        let outcomes = scheduler.complete(plan, results)
        for (i, segment) in plan.segments.enumerated() {
            conclude(segment, outcomes[i], pieces[i], &events)
        }
        adapt(plan, seconds: (clock.now - start).inSeconds)
        publishStatistics(clock.now)
        deliver(events)
    }

    // MARK: Sampling

    /// The next token, or the log-probabilities of the prompt's own tokens, for every row that has logits; nothing for rows behind a rejected draft.
    private func sample(_ plan: StepPlan, wanted: Int) -> [Sampled?] {
        struct Work {
            var segment: Int
            /// Of those with logits; several if each follows from the one before it.
            var rows: Range<Int>
            /// The prompt token that the row predicts; nil: sample.
            var scored: Int32?
            var samples: Bool
        }
        var work: [Work] = []
        work.reserveCapacity(wanted)
        var row = 0
        func add(_ segment: Int, _ count: Int = 1, scored: Int32? = nil, samples: Bool = true) {
            work.append(Work(segment: segment, rows: row..<row + count, scored: scored, samples: samples))
            row += count
        }
        for (i, segment) in plan.segments.enumerated() {
            switch segment.logits {
            case .none: break
            case .last: add(i)
            case .all where !segment.drafts.isEmpty: add(i, segment.rows.count)
            case .all:
                let prompt = active[segment.sequence]?.request.prompt ?? []
                for position in segment.positions {
                    let following = position + 1 < prompt.count ? prompt[position + 1] : nil
                    add(i, scored: following, samples: following == nil && segment.samples)
                }
            }
        }
        precondition(row == wanted)
        var results = [Sampled?](repeating: nil, count: wanted)
        let sequences = plan.segments.map { active[$0.sequence] }
        var next = 0
        while next < work.count {
            // As many as have logits at once; drafts are never so many that they would have to be parted.
            let first = work[next].rows.lowerBound
            var last = next
            while last < work.count, work[last].rows.upperBound <= first + forward.maximumLogitsRows { last += 1 }
            let logits = forward.logits(of: first..<work[last - 1].rows.upperBound), range = next..<last
            results.withUnsafeMutableBufferPointer { results in
                nonisolated(unsafe) let results = results
                let lanes = lanes
                pool.parallel(lanes.count) { laneRange in
                    for lane in laneRange {
                        for i in stride(from: range.lowerBound + lane, to: range.upperBound, by: lanes.count) {
                            let item = work[i]
                            guard let sequence = sequences[item.segment] else { continue }
                            var sampler = sequence.sampler
                            for row in item.rows {
                                let sampled = Engine.sample(
                                    logits[row - first], scored: item.scored, samples: item.samples, sampler, sequence.request.logprobs, lanes[lane])
                                results[row] = sampled
                                guard row + 1 < item.rows.upperBound, case .token(let token, _)? = sampled else { break }
                                let segment = plan.segments[item.segment]
                                guard token == plan.tokens[segment.drafts.lowerBound + row - item.rows.lowerBound] else { break }
                                sampler.accept(token)
                            }
                        }
                    }
                }
            }
            next = last
        }
        return results
    }

    private static func sample(
        _ logits: UnsafeMutableBufferPointer<Float>, scored: Int32?, samples: Bool, _ sampler: Sampler, _ top: Int?, _ lane: SamplingLane
    ) -> Sampled? {
        do {
            let token: Int32
            if let scored {
                token = scored
            } else if samples {
                token = try sampler.sample(logits: logits, scratch: &lane.scratch)
            } else {
                return nil
            }
            guard scored != nil || top != nil else { return .token(token, nil) }
            return .token(token, try Sampler.logprobs(of: token, top: top ?? 0, logits: UnsafeBufferPointer(logits), scratch: &lane.scratch))
        } catch {
            return .failed(error)
        }
    }

    /// Takes in what was sampled for one segment.
    private func accept(
        _ segment: StepSegment, _ rows: ArraySlice<Sampled?>, _ events: inout [GenerationEvent], _ pieces: inout [[Piece]]
    ) -> SegmentResult {
        var own: [Piece] = []
        defer { pieces.append(own) }
        // Taken out and put back, so that its collections are changed in place and not copied.
        guard var sequence = active.removeValue(forKey: segment.sequence) else { return segment.samples ? .failed : .computed }
        defer { active[segment.sequence] = sequence }
        var result = SegmentResult.computed
        // The rows with logits are the segment's last ones.
        let firstPosition = segment.positions.upperBound - rows.count
        loop: for (i, row) in rows.enumerated() {
            switch row {
            case nil: break
            case .failed(let error):
                events.append(GenerationEvent(sequence: segment.sequence, kind: .failed(error)))
                return .failed
            case .token(let token, let logprobs):
                let isPromptToken = firstPosition + i + 1 < sequence.request.prompt.count
                if isPromptToken {
                    if sequence.promptLogprobs.isEmpty { sequence.promptLogprobs.append(nil) }
                    sequence.promptLogprobs.append(logprobs)
                } else {
                    let accepted = own.count
                    own.append(Piece(text: "", token: GeneratedToken(id: token, logprobs: logprobs)))
                    let end = take(token, &sequence, &own[accepted].text)
                    result = .sampled(token, ends: end == .stopString, accepted: accepted)
                    // What was drafted beyond the end is not part of the answer.
                    if end != .none { break loop }
                }
            }
        }
        // Rows that are computed once more, after a preemption, have no such logits.
        if sequence.request.wantsPromptLogprobs, segment.isPrefill, segment.logits == .all, segment.positions.upperBound == sequence.request.prompt.count {
            if sequence.promptLogprobs.isEmpty { sequence.promptLogprobs.append(nil) }
            events.append(GenerationEvent(sequence: segment.sequence, kind: .promptLogprobs(sequence.promptLogprobs)))
        }
        return result
    }

    private enum AnswerEnd {
        case none, endOfGeneration, stopString
    }

    /// A sampled token: into the sampler's counts, and as text through the stop strings.
    private func take(_ token: Int32, _ sequence: inout Active, _ text: inout String) -> AnswerEnd {
        sequence.sampler.accept(token)
        let ends = !sequence.request.ignoresEndOfGeneration && tokenizer.endOfGeneration.contains(token)
        guard !ends else { return .endOfGeneration }
        var bytes: [UInt8] = []
        tokenizer.appendBytes(of: token, to: &bytes, includeSpecial: false)
        var characters = ""
        sequence.characters.append(bytes, to: &characters)
        return sequence.stops.append(characters, to: &text) ? .stopString : .none
    }

    /// The events of one segment after the scheduler has decided.
    private func conclude(_ segment: StepSegment, _ outcome: SegmentOutcome, _ produced: [Piece], _ events: inout [GenerationEvent]) {
        let id = segment.sequence
        var pieces = produced
        switch outcome {
        case .running: break
        case .failed:
            // Its event is already there.
            return
        case .cancelled:
            events.removeAll { $0.sequence == id }
            active[id] = nil
            return
        case .finished:
            if active[id]!.stops.matched == nil {
                var rest = ""
                let held = active[id]!.characters.finish()
                if !active[id]!.stops.append(held, to: &rest) { active[id]!.stops.finish(to: &rest) }
                if pieces.isEmpty, !rest.isEmpty {
                    pieces = [Piece(text: rest)]
                } else if !pieces.isEmpty {
                    pieces[pieces.count - 1].text += rest
                }
            }
        }
        for piece in pieces { events.append(GenerationEvent(sequence: id, kind: .text(piece.text, tokens: piece.token.map { [$0] } ?? []))) }
        if case .finished(let reason, let usage) = outcome {
            // A stop string may be completed by what the last character held back.
            let stop = active[id]!.stops.matched
            events.append(GenerationEvent(sequence: id, kind: .finished(stop == nil ? reason : .stop, usage, stopString: stop)))
        }
    }

    // MARK: Delivery

    /// One call per sink with all of its events, in order. Statistics are published before: who has seen an event finds it in the figures.
    private func deliver(_ events: [GenerationEvent]) {
        guard !events.isEmpty else { return }
        var batches: [(sink: any GenerationSink, events: [GenerationEvent])] = []
        for event in events {
            guard let sink = active[event.sequence]?.sink else { continue }
            if let index = batches.firstIndex(where: { $0.sink === sink }) {
                batches[index].events.append(event)
            } else {
                batches.append((sink, [event]))
            }
            switch event.kind {
            case .finished, .failed: active[event.sequence] = nil
            default: break
            }
        }
        for batch in batches { batch.sink.deliver(batch.events) }
    }

    // MARK: Pace

    /// Fits the row budgets to the measured speed. What a row computes does not depend on them.
    private func adapt(_ plan: StepPlan, seconds: Double) {
        let prefillRows = plan.segments.reduce(0) { $0 + ($1.isPrefill ? $1.rows.count : 0) }
        guard prefillRows >= 16 else { return }
        let sample = seconds / Double(plan.rowCount)
        pace(secondsPerRow: secondsPerRow == 0 ? sample : 0.7 * secondsPerRow + 0.3 * sample)
    }

    private func pace(secondsPerRow measured: Double) {
        secondsPerRow = measured
        func budget(_ target: Double, _ most: Int) -> Int {
            min(max(Int(target / secondsPerRow) / BlockPool.blockSize * BlockPool.blockSize, BlockPool.blockSize), most)
        }
        scheduler.setRowBudget(
            perStep: budget(configuration.stepTarget, configuration.maxRowsPerStep),
            prefillWhileDecoding: budget(configuration.decodeStepTarget, configuration.maxRowsPerStep))
    }

    private func publishStatistics(_ lastStep: ContinuousClock.Instant? = nil) {
        var statistics = scheduler.statistics
        let held = QueueOccupancy(byOwner: scheduler.sequencesByOwner)
        mailbox.withLock { box in
            statistics.lastStep = lastStep ?? box.statistics.lastStep
            // Any step is as good as one for its own sake.
            if lastStep != nil { box.isBeatDue = false }
            box.held = held
            box.statistics = statistics
        }
    }
}
