/// How the next token is chosen; names and ranges follow OpenAI's API and llama.cpp's server.
public struct SamplingParameters: Sendable, Equatable {
    /// 0 is greedy. 0…2 over the API.
    public var temperature: Float = 1
    /// Keep the k most likely tokens; 0 keeps all.
    public var topK = 0
    /// Nucleus: the smallest set whose probability reaches this; 1 keeps all.
    public var topP: Float = 1
    /// Drop tokens less likely than this share of the best one; 0 keeps all.
    public var minP: Float = 0
    /// Locally typical sampling; 1 keeps all.
    public var typicalP: Float = 1
    /// Multiplicative penalty over the last `penaltyWindow` tokens of prompt and answer (CTRL, arXiv 1909.05858); 1 is none.
    public var repetitionPenalty: Float = 1
    /// Subtracted once from a token that the answer already holds; -2…2.
    public var presencePenalty: Float = 0
    /// Subtracted per occurrence in the answer; -2…2.
    public var frequencyPenalty: Float = 0
    /// How many recent tokens the repetition penalty looks at; -1: all.
    public var penaltyWindow = 64
    /// Added to the logits before anything else; -100 bans, 100 forces.
    public var logitBias: [Int32: Float] = [:]
    /// Equal seeds give equal answers whatever else is in the batch; `nil` draws one.
    public var seed: UInt64?

    public init() {}
}
