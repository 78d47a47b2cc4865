/// A sequence as the scheduler keeps it, from its arrival to its end: waiting, running, and waiting again if it was preempted.
struct ScheduledSequence: Sendable {
    let id: SequenceID
    let seed: PrefixSeed
    let promptCount: Int
    let maxTokens: Int
    let ignoresEndOfGeneration: Bool
    let wantsPromptLogprobs: Bool
    let priority: Int
    /// Who came first; the place in the queue.
    let arrival: UInt64
    /// The place among those that run, from the first admission on: the lower, the longer ago. Preemption leaves it; only with its owner's others it is traded.
    var seniority: UInt64?
    var isPaused = false
    var isCancelled = false
    /// Prompt and answer so far.
    var tokens: [Int32]
    /// Positions whose keys and values are in the cache.
    var computed = 0
    /// Positions that were computed, or found, before the last preemption: they are not counted and not charged again.
    var reached = 0
    var cachedTokens = 0
    /// The first blocks that are registered, and all blocks; further ones are reserved.
    var registeredBlocks = 0
    var blockTable: [Int32] = []
    var reservedBlocks = 0
    /// The first block that its next row sees in layers with a sliding window: of this one and those after it, it uses the window blocks.
    var firstInWindow = 0
    var lookup = PromptLookup()

    init(_ request: ScheduledRequest, as id: SequenceID, maxTokens: Int, arrival: UInt64) {
        self.id = id
        self.maxTokens = maxTokens
        self.arrival = arrival
        seed = request.seed
        promptCount = request.prompt.count
        ignoresEndOfGeneration = request.ignoresEndOfGeneration
        wantsPromptLogprobs = request.wantsPromptLogprobs
        priority = request.priority
        tokens = request.prompt
    }

    var generatedCount: Int { tokens.count - promptCount }
    /// Whether more is to be computed than its last token: the prompt, or again what it had before it was preempted.
    var isPrefilling: Bool { computed < promptCount || computed + 1 < tokens.count }
    /// Whether prompt rows have yet to be scored.
    var scoresPrompt: Bool { wantsPromptLogprobs && max(computed, reached) < promptCount }
    /// Positions that may be taken from the cache: never the last one, whose logits are wanted, nor what has yet to be scored.
    var findable: Int { scoresPrompt ? reached : tokens.count - 1 }
    /// Positions that are computed at most: the last token of an answer never is.
    var finalCount: Int { promptCount + max(maxTokens - 1, 0) }
    /// Whether it may come to need more blocks than it has.
    var mayGrow: Bool { BlockPool.blocks(for: finalCount) > blockTable.count + reservedBlocks }
    /// Whether its next token needs one.
    var needsBlock: Bool { !isPaused && !isPrefilling && BlockPool.blocks(for: computed + 1) > blockTable.count + reservedBlocks }
    var usage: GenerationUsage {
        GenerationUsage(promptTokens: promptCount, cachedTokens: cachedTokens, completionTokens: generatedCount)
    }

    /// Takes in that the cache has what comes up to `end`.
    /// - Returns: the positions of it that the sequence never had before.
    mutating func skip(to end: Int) -> Int {
        let spared = max(end - max(computed, reached), 0)
        computed = end
        cachedTokens += spared
        return spared
    }

    /// Without its blocks, which are the caller's to give back. Prompt and answer so far, what was counted and what drafting has learnt stay.
    mutating func leaveCache() {
        reached = max(reached, computed)
        computed = 0
        registeredBlocks = 0
        blockTable = []
        reservedBlocks = 0
        firstInWindow = 0
    }
}
