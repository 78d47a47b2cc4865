import CKernels

/// Vectorised passes over one row of logits. All levels give the same bits, so the level is a matter of speed only.
public struct LogitKernels: Sendable {
    /// The instruction set that carries the passes out.
    public enum Level: Int32, Sendable, CaseIterable, Comparable {
        case generic = 0, avx2 = 1, avx512 = 2

        public static func < (a: Level, b: Level) -> Bool { a.rawValue < b.rawValue }
    }

    /// The best level of this processor, lowered by `GRAFT_ISA` if that is set.
    public static let best = LogitKernels(level: Level(rawValue: graft_logits_best_level()) ?? .generic)

    /// Elements per group of `maxima` and `exponentialSums`.
    public static let groupSize = Int(GRAFT_LOGITS_GROUP)
    /// Maxima per group.
    public static let lanes = Int(GRAFT_LOGITS_LANES)
    /// How many entries more than the vocabulary `collect` wants in its outputs.
    public static let collectSlack = 16

    public let level: Level

    /// - Precondition: the processor runs `level` (anything up to `best.level` with `GRAFT_ISA` unset).
    public init(level: Level) {
        self.level = level
    }

    /// Groups in a row of `count` logits.
    public static func groupCount(_ count: Int) -> Int {
        (count + groupSize - 1) / groupSize
    }

    /// Per-lane maxima of each group, `[groups][lanes]`, -inf where a lane is empty.
    /// - Returns: whether the row holds a NaN (which no maximum counts).
    public func maxima(_ row: UnsafeBufferPointer<Float>, into maxima: UnsafeMutableBufferPointer<Float>) -> Bool {
        precondition(maxima.count >= Self.groupCount(row.count) * Self.lanes, "maxima: the output is too short")
        guard let rowBase = row.baseAddress, let out = maxima.baseAddress else { return false }
        return graft_logits_maxima(level.rawValue, rowBase, row.count, out) != 0
    }

    /// The first index that holds `value`.
    public func firstIndex(of value: Float, in row: UnsafeBufferPointer<Float>) -> Int? {
        guard let base = row.baseAddress else { return nil }
        let index = graft_logits_index_of(level.rawValue, base, row.count, value)
        return index < row.count ? index : nil
    }

    /// `output[i] = exp((row[i] - top) * scale)`; `top` is finite and not below any element, `scale` finite and positive.
    public func exponentials(
        _ row: UnsafeBufferPointer<Float>, top: Float, scale: Float, into output: UnsafeMutableBufferPointer<Float>
    ) {
        precondition(output.count >= row.count, "exponentials: the output is too short")
        guard let base = row.baseAddress, let out = output.baseAddress else { return }
        graft_logits_exp(level.rawValue, base, row.count, top, scale, out)
    }

    /// The sum of those exponentials for each group.
    public func exponentialSums(
        _ row: UnsafeBufferPointer<Float>, top: Float, scale: Float, into sums: UnsafeMutableBufferPointer<Double>
    ) {
        precondition(sums.count >= Self.groupCount(row.count), "exponentialSums: the output is too short")
        guard let base = row.baseAddress, let out = sums.baseAddress else { return }
        graft_logits_exp_sums(level.rawValue, base, row.count, top, scale, out)
    }

    /// Index and value of every element that is at least `cut`, by rising index.
    /// `ids` and `values` have `collectSlack` entries more than the row.
    public func collect(
        _ row: UnsafeBufferPointer<Float>, atLeast cut: Float, ids: UnsafeMutablePointer<Int32>, values: UnsafeMutablePointer<Float>
    ) -> Int {
        guard let base = row.baseAddress else { return 0 }
        return graft_logits_collect(level.rawValue, base, row.count, cut, ids, values)
    }
}
