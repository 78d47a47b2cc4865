/// The limits and budgets of a `Scheduler`.
public struct SchedulerConfiguration: Sendable {
    /// Which waiting sequence is admitted next.
    public enum AdmissionOrder: Sendable {
        /// First come, first served, but for priorities, as if all were one owner's.
        case arrival
        /// First the owner for whom the fewest rows were computed, among equals the one with the fewest running sequences, then by
        /// arrival: a flood of one owner's requests delays another owner by one sequence, not by the flood. Prompts get their rows in
        /// the same order of owners. The requests of one owner are served by priority, then by arrival.
        case fairByOwner
    }

    /// Positions of one sequence, prompt and answer.
    public var contextLength: Int
    /// Blocks of the KV cache.
    public var blockCount: Int
    /// Positions that a row sees in the layers with a sliding window; `nil`: there are none.
    public var slidingWindow: Int?
    /// Window blocks of the KV cache: enough for all sequences (`windowBlocksPerSequence`), or as many as blocks.
    public var windowBlockCount = 0
    /// Sequences that run at once.
    public var maxSequences = 16
    /// Sequences that run beyond those, at most; with `fairByOwner` only, and only of owners that run none. So a newcomer does not wait for the end
    /// of somebody's long answer.
    public var spareSequences = 0
    /// Sequences that wait.
    public var maxQueued = 256
    /// Rows of one step. With the next it bounds the time of a step, and so how long a cancellation or a token waits.
    public var maxRowsPerStep = 512
    /// Prefill rows of a step that also decodes; with `fairByOwner` more, up to `maxRowsPerStep`, for one prompt of an owner who has no sequence that decodes.
    public var maxPrefillRowsWhileDecoding = 128
    /// Rows of one segment that want logits for every row: each is a whole vocabulary of floats.
    public var maxPromptLogprobRows = 64
    /// Rows of a step without prompts up to which drafts are added (`PromptLookup`); 1 and less: none. More rows hardly take longer only while the
    /// weights that are read take longer than the arithmetic.
    public var maxRowsWithDrafts = 0
    public var admissionOrder = AdmissionOrder.arrival
    /// Tokens that end an answer.
    public var endOfGeneration: Set<Int32> = []

    public init(contextLength: Int, blockCount: Int) {
        self.contextLength = contextLength
        self.blockCount = blockCount
    }

    /// The most window blocks that a sequence uses at once: those of the positions that a step's rows see and that they are written to. `nil` without windows.
    public var windowBlocksPerSequence: Int? {
        guard let slidingWindow else { return nil }
        // So many consecutive positions, that begin anywhere in a block.
        let positions = slidingWindow - 1 + max(maxRowsPerStep, maxRowsWithDrafts)
        return min(BlockPool.blocks(for: positions - 1) + 1, BlockPool.blocks(for: contextLength))
    }
}

/// What the scheduler needs to know of a request.
public struct ScheduledRequest: Sendable {
    public var prompt: [Int32]
    /// `nil`: what the context leaves. 0 computes the prompt only.
    public var maxTokens: Int?
    public var seed: PrefixSeed
    public var ignoresEndOfGeneration = false
    public var wantsPromptLogprobs = false
    /// As in `GenerationRequest`.
    public var priority = 0

    public init(prompt: [Int32], maxTokens: Int?, seed: PrefixSeed) {
        self.prompt = prompt
        self.maxTokens = maxTokens
        self.seed = seed
    }

    /// - Parameter seed: with the request's owner.
    public init(_ request: GenerationRequest, seed: PrefixSeed) {
        self.init(prompt: request.prompt, maxTokens: request.maxTokens, seed: seed)
        ignoresEndOfGeneration = request.ignoresEndOfGeneration
        wantsPromptLogprobs = request.wantsPromptLogprobs
        priority = request.priority
    }
}
