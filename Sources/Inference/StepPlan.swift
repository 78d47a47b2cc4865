/// One forward pass: which rows of which sequences are computed together.
public struct StepPlan: Sendable {
    /// For which rows of a segment the head is computed.
    public enum Logits: Sendable, Equatable {
        /// The segment ends inside the prompt.
        case none
        /// The next token is sampled from the last row.
        case last
        /// All rows: log-probabilities of the prompt, for each of its rows once. Row i predicts the token at its position + 1. If `StepSegment.samples`,
        /// the next token is sampled from the last row as well.
        case all
    }

    /// A sequence that left the queue with this step, for the first time.
    public struct Admission: Sendable {
        public let sequence: SequenceID
        /// The sequence's place among the running ones, its own until it ends or is preempted.
        public let slot: Int
        /// Prompt tokens whose keys and values were in the cache. While its prefill waits for rows the sequence may come to share
        /// more; the usage at the end has the final number.
        public let cachedTokens: Int
    }

    /// Counts the steps that had rows, from 1.
    public internal(set) var number: UInt64 = 0
    public internal(set) var admissions: [Admission] = []
    /// Sequences that lost their slots and blocks before this step and wait to go on.
    public internal(set) var preemptions: [SequenceID] = []
    /// Decode rows first, then prefill chunks. A sequence has at most one segment.
    public internal(set) var segments: [StepSegment] = []
    /// The token of every row, segment after segment.
    public internal(set) var tokens: [Int32] = []

    public init() {}

    public var isEmpty: Bool { segments.isEmpty }
    public var rowCount: Int { tokens.count }
}

/// Consecutive rows of one sequence.
public struct StepSegment: Sendable {
    public let sequence: SequenceID
    public let slot: Int
    /// Its rows in the step: indices of `StepPlan.tokens`.
    public let rows: Range<Int>
    /// The position in the sequence of the first row.
    public let startPosition: Int
    /// The sequence's cache blocks in order, enough for all rows: position p is at place p % 32 of block blockTable[p / 32].
    public let blockTable: [Int32]
    public let logits: StepPlan.Logits
    /// Whether `complete` expects a token for this segment.
    public let samples: Bool
    /// Whether the rows belong to the prompt, or were computed before the sequence was preempted; the last one may decode.
    public let isPrefill: Bool
    /// Rows after the first one of a decoding sequence: drafts of the tokens that follow. Then every row has logits, and a draft is accepted if it is what is
    /// sampled from the row before it.
    public let drafts: Range<Int>
    /// Of a model with sliding windows: the window blocks of the last so many of its blocks, which are those that the rows see in the layers with windows.
    public let windowBlocks: [Int32]

    /// The positions of its rows.
    public var positions: Range<Int> { startPosition..<startPosition + rows.count }
}

/// What the engine made of a segment.
public enum SegmentResult: Sendable, Equatable {
    /// The rows are computed; nothing was to be sampled.
    case computed
    /// The rows are computed and this is the next token, after so many accepted drafts. `ends`: it completes a stop string.
    case sampled(Int32, ends: Bool = false, accepted: Int = 0)
    /// The sequence cannot go on.
    case failed
}

/// What follows for the segment's sequence.
public enum SegmentOutcome: Sendable, Equatable {
    case running
    /// The sequence has left its slot. The last token counts as completion token even if it is an end-of-generation token.
    case finished(FinishReason, GenerationUsage)
    /// It failed and has left its slot.
    case failed
    /// It was cancelled while the step ran, and has left its slot; its result was dropped.
    case cancelled
}
