import Modeling

/// Everything that decides what a run computes. Equal configurations, data, weights, builds, threads and kernels give equal adapters, bit for bit.
public struct TrainingConfiguration: Sendable, Equatable {
    public enum Method: Sendable, Equatable {
        /// -log p of the trained tokens.
        case supervised
        /// Direct preference optimisation (arXiv 2305.18290). The reference is the policy at step 0.
        case preference(beta: Double)
    }

    public enum Schedule: String, Sendable, CaseIterable {
        case constant, linear, cosine
    }

    /// How the frozen products are computed. Adapters, their moments, norms and losses are float32 in both.
    public enum Precision: String, Sendable, CaseIterable {
        /// On tiles of weights that are expanded as they are used: by our own kernels where AVX-512 is there, by OpenBLAS elsewhere.
        case float32
        /// Products of bfloat16 with float32 sums; needs AVX512-BF16 to be fast.
        case bfloat16
    }

    public var method = Method.supervised
    public var epochs = 3
    /// Examples (or pairs) of one optimiser step; the last step of an epoch takes what is left.
    public var batchSize = 8
    /// The peak of the schedule.
    public var learningRate = 1e-3
    /// The share of all steps over which the rate rises from nothing to its peak.
    public var warmupRatio = 0.05
    public var schedule = Schedule.cosine
    public var weightDecay = 0.0
    /// Gradients are scaled down to this norm, all adapters together.
    public var maximumGradientNorm = 1.0

    public var rank = 16
    public var alpha = 32.0
    /// Scale by alpha / √rank instead of alpha / rank (arXiv 2312.03732).
    public var usesRankStabilisedScale = false
    /// The share of a projection's inputs that its adapter does not see, drawn anew each time (0 ..< 1).
    public var dropout = 0.0
    public var projections = Set(Projection.allCases)
    /// Uniform noise of this strength on the embeddings, training only (arXiv 2310.05914); 0 is none.
    public var neftuneAlpha = 0.0

    /// Tokens computed at once: whole examples are put side by side up to this many, and never see each other. An example that is longer stands alone.
    /// Changes memory and speed; results only as far as sums are rounded in another order.
    public var microBatchTokens = 1024
    /// Whether several examples are computed at once at all.
    public var packs = true
    public var precision = Precision.bfloat16
    public var seed: UInt64 = 0

    public init() {}
}
