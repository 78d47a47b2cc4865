import Modeling
import Synchronization

/// Names one sequence (one choice of one request) for its whole life. Ids are never reused in a process.
public struct SequenceID: Hashable, Sendable, CustomStringConvertible {
    public let rawValue: UInt64

    private static let next = Atomic<UInt64>(1)

    /// A fresh id; safe from any thread.
    public init() {
        rawValue = SequenceID.next.wrappingAdd(1, ordering: .relaxed).oldValue
    }

    public var description: String { "seq-\(rawValue)" }
}

/// What the engine is asked to continue, and how.
public struct GenerationRequest: Sendable {
    /// Token ids of the prompt, at least one.
    public var prompt: [Int32]
    public var sampling = SamplingParameters()
    /// The most tokens to generate; `nil` means what the context leaves.
    public var maxTokens: Int?
    /// The answer ends before the first of these strings; the string itself is not delivered.
    public var stop: [String] = []
    /// Generation goes on past end-of-generation tokens (load tests).
    public var ignoresEndOfGeneration = false
    /// `nil`: no log-probabilities. `n`: the chosen token's and those of the `n` most likely ones (0…100).
    public var logprobs: Int?
    /// Log-probabilities of the prompt's own tokens as well (`echo` with `logprobs`).
    public var wantsPromptLogprobs = false
    /// The adapters that the whole answer is computed with, whatever happens to their names meanwhile.
    public var adapters = AdapterSet.none
    /// Whose request this is, the tenant: cached keys and values are never shared between owners, and the engine's time and queue are shared fairly
    /// between them.
    public var owner = ""
    /// Which of the owner's requests comes first: the one with the lower number, and among equals the earlier one. It leaves the queue earlier, its prompt is read
    /// earlier, and it gives way to others later when the cache is full. Between owners it means nothing.
    public var priority = 0
    /// The model name that the metrics count this request under.
    public var modelName = ""

    public init(prompt: [Int32]) {
        self.prompt = prompt
    }
}

/// A token and what it cost: natural-log probabilities over the whole vocabulary, before temperature and penalties.
public struct TokenLogprobs: Sendable, Equatable {
    public var logprob: Float
    /// The most likely tokens, best first.
    public var top: [TokenProbability]

    public init(logprob: Float, top: [TokenProbability]) {
        self.logprob = logprob
        self.top = top
    }
}

public struct TokenProbability: Sendable, Equatable {
    public var token: Int32
    public var logprob: Float

    public init(token: Int32, logprob: Float) {
        self.token = token
        self.logprob = logprob
    }
}

public struct GeneratedToken: Sendable {
    public var id: Int32
    public var logprobs: TokenLogprobs?

    public init(id: Int32, logprobs: TokenLogprobs?) {
        self.id = id
        self.logprobs = logprobs
    }
}

/// Why a sequence ended; the raw values are OpenAI's.
public enum FinishReason: String, Sendable {
    case stop, length
}

public struct GenerationUsage: Sendable, Equatable {
    public var promptTokens: Int
    /// Of the prompt tokens, those whose keys and values were already in the cache.
    public var cachedTokens: Int
    public var completionTokens: Int

    public init(promptTokens: Int, cachedTokens: Int, completionTokens: Int) {
        self.promptTokens = promptTokens
        self.cachedTokens = cachedTokens
        self.completionTokens = completionTokens
    }
}

/// What happened to one sequence in one engine step. Every submitted sequence ends with exactly one `finished`, `failed` or,
/// if it was cancelled, nothing more.
public struct GenerationEvent: Sendable {
    public enum Kind: Sendable {
        /// The sequence left the queue and its prefill began; comes once.
        case started(cachedTokens: Int)
        /// One entry per prompt token, the first `nil`.
        case promptLogprobs([TokenLogprobs?])
        /// Text that may be shown (whole characters, no held-back stop string) and the tokens sampled since the last such event.
        /// The text may be empty while the tokens are not, and the other way round.
        case text(String, tokens: [GeneratedToken])
        /// `stopString`: the one of the request's that ended it.
        case finished(FinishReason, GenerationUsage, stopString: String?)
        case failed(InferenceError)
    }

    public let sequence: SequenceID
    public let kind: Kind

    public init(sequence: SequenceID, kind: Kind) {
        self.sequence = sequence
        self.kind = kind
    }
}

/// Where a request's events go. Called on the engine's thread, once a step with all events of the step for this sink; must not block.
public protocol GenerationSink: AnyObject, Sendable {
    func deliver(_ events: [GenerationEvent])
}

public struct InferenceError: Error, Sendable, CustomStringConvertible {
    public enum Code: Sendable, Equatable {
        /// The prompt and at least one token do not fit the context.
        case contextLengthExceeded
        /// The bounded queue is full, or the engine is shutting down.
        case queueFull, shuttingDown
        /// A parameter is out of its range.
        case invalidRequest
        case internalFailure
    }

    public let code: Code
    public let message: String

    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }

    public var description: String { message }
}

/// The engine as its callers see it. `Engine` (an actor on its own thread) is the one implementation; tests may bring another.
public protocol GenerationService: AnyObject, Sendable {
    var limits: GenerationLimits { get }
    /// Checks the request and puts it in the bounded queue; the events go to `sink` under `id`. Never blocks.
    func submit(_ request: GenerationRequest, as id: SequenceID, to sink: any GenerationSink) throws(InferenceError)
    /// Ends a sequence at the next step boundary; no event follows. Unknown ids are ignored.
    func cancel(_ id: SequenceID)
    /// A paused sequence keeps its place, and its cache as long as no other needs it, but decodes no further.
    func setPaused(_ id: SequenceID, _ paused: Bool)
    /// Has the engine prove that it can compute: if it has nothing to do it takes a step of one row for nobody, after which `lastStep` moves on, as after any
    /// step. Does not wait for that.
    func beat()
    var statistics: EngineStatistics { get }
}

public struct GenerationLimits: Sendable {
    public var contextLength: Int
    public var vocabularySize: Int
    public var maxSequences: Int
    public var maxQueued: Int

    public init(contextLength: Int, vocabularySize: Int, maxSequences: Int, maxQueued: Int) {
        self.contextLength = contextLength
        self.vocabularySize = vocabularySize
        self.maxSequences = maxSequences
        self.maxQueued = maxQueued
    }
}

/// A snapshot for `/metrics` and `/readyz`.
public struct EngineStatistics: Sendable {
    public var running = 0, waiting = 0
    public var blocksTotal = 0, blocksInUse = 0, blocksCached = 0
    /// Of a model with sliding windows, the blocks that its layers with windows have of their own.
    public var windowBlocksTotal = 0, windowBlocksInUse = 0
    public var steps: UInt64 = 0, prefillTokens: UInt64 = 0, decodeTokens: UInt64 = 0, cachedTokens: UInt64 = 0
    /// How often a sequence had to give its blocks to others, and tokens that were computed once more for that.
    public var preemptions: UInt64 = 0, recomputedTokens: UInt64 = 0
    /// Draft tokens that were computed, and those of them that were accepted.
    public var draftTokens: UInt64 = 0, acceptedDraftTokens: UInt64 = 0
    /// When the last step ended, one for the heartbeat included; `nil` before the first.
    public var lastStep: ContinuousClock.Instant?

    public init() {}
}
