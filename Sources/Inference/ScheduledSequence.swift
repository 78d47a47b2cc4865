/// A sequence as the scheduler keeps it, waiting and running.
struct ScheduledSequence: Sendable {
    let id: SequenceID
    let seed: PrefixSeed
    let promptCount: Int
    let maxTokens: Int
    let ignoresEndOfGeneration: Bool
    let wantsPromptLogprobs: Bool
    var isPaused = false
    var isCancelled = false
    /// Prompt and answer so far.
    var tokens: [Int32]
    /// Positions whose keys and values are in the cache.
    var computed = 0
    var cachedTokens = 0
    /// The first blocks that are registered, and all blocks; further ones are reserved.
    var registeredBlocks = 0
    var blockTable: [Int32] = []
    var reservedBlocks = 0
    var lookup = PromptLookup()

    init(_ request: ScheduledRequest, as id: SequenceID, maxTokens: Int) {
        self.id = id
        self.maxTokens = maxTokens
        seed = request.seed
        promptCount = request.prompt.count
        ignoresEndOfGeneration = request.ignoresEndOfGeneration
        wantsPromptLogprobs = request.wantsPromptLogprobs
        tokens = request.prompt
    }

    var generatedCount: Int { tokens.count - promptCount }
    var isPrefilling: Bool { computed < promptCount }
    /// Positions that are computed at most: the last token of an answer never is.
    var finalCount: Int { promptCount + max(maxTokens - 1, 0) }
    var usage: GenerationUsage {
        GenerationUsage(promptTokens: promptCount, cachedTokens: cachedTokens, completionTokens: generatedCount)
    }
}
