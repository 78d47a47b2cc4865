import Kernels

/// The working memory of sampling, allocated once for a vocabulary and used for one sequence after another: nothing is
/// allocated per token.
public struct SamplerScratch: ~Copyable {
    public let vocabularySize: Int
    package let kernels: LogitKernels

    /// Per-lane maxima of the groups.
    let maxima: UnsafeMutableBufferPointer<Float>
    /// One sum per group.
    let sums: UnsafeMutableBufferPointer<Double>
    /// The candidates that are still in, by rising token id; `weights` are exp(logit - the row's largest).
    let ids: UnsafeMutableBufferPointer<Int32>
    let values, weights, keys: UnsafeMutableBufferPointer<Float>
    /// Sort keys of the bin that a selection ends in.
    let packed: UnsafeMutableBufferPointer<UInt64>
    /// Mass or number of candidates by distance from the best.
    let bins: UnsafeMutableBufferPointer<Double>
    /// Logits that bias and penalties changed, with what they were.
    var edits: [(token: Int32, original: Float)] = []

    static let binCount = 512

    public init(vocabularySize: Int) {
        self.init(vocabularySize: vocabularySize, kernels: .best)
    }

    package init(vocabularySize: Int, kernels: LogitKernels) {
        precondition(vocabularySize > 0 && vocabularySize < Int32.max, "a vocabulary has 1…2^31 - 2 tokens, not \(vocabularySize)")
        self.vocabularySize = vocabularySize
        self.kernels = kernels
        let groups = LogitKernels.groupCount(vocabularySize)
        let capacity = vocabularySize + LogitKernels.collectSlack
        maxima = .allocate(capacity: groups * LogitKernels.lanes)
        sums = .allocate(capacity: groups)
        ids = .allocate(capacity: capacity)
        values = .allocate(capacity: capacity)
        weights = .allocate(capacity: capacity)
        keys = .allocate(capacity: capacity)
        packed = .allocate(capacity: capacity)
        bins = .allocate(capacity: Self.binCount)
        maxima.initialize(repeating: 0)
        sums.initialize(repeating: 0)
        bins.initialize(repeating: 0)
    }

    deinit {
        maxima.deallocate()
        sums.deallocate()
        ids.deallocate()
        values.deallocate()
        weights.deallocate()
        keys.deallocate()
        packed.deallocate()
        bins.deallocate()
    }
}
