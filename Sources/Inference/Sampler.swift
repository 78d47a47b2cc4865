#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif
import Kernels

/// Chooses the tokens of one sequence.
///
/// The order of the chain is the default of llama.cpp's server (which also has DRY, top-n-sigma and XTC in it): logit bias,
/// penalties, top-k, typical, top-p, min-p, temperature, draw. So top-p and min-p see the distribution before temperature, and
/// each step works on the renormalised survivors of the one before. Among equal logits the lower token id comes first.
///
/// A draw depends only on the logits, the seed and how many tokens were accepted before, never on other sequences of the
/// batch. The arithmetic is the same at every instruction set.
public struct Sampler: Sendable {
    public let parameters: SamplingParameters
    /// The seed in use: the request's, or one drawn at random.
    public let seed: UInt64
    /// How many tokens were accepted, which is the index of the next draw.
    public private(set) var generatedCount = 0

    /// Temperatures below this are greedy: 1 / temperature would leave float32's range of differences.
    static let lowestTemperature: Float = 1e-5

    private let bias: [TokenProbability]
    private let countsAnswer: Bool
    private var answerCounts: [Int32: Int32] = [:]
    private var recent: RecentTokens?

    /// - Parameters:
    ///   - parameters: within the ranges of `SamplingParameters.check(vocabularySize:)`.
    ///   - prompt: what the repetition penalty counts before the first generated token.
    public init(_ parameters: SamplingParameters, prompt: [Int32] = []) {
        self.parameters = parameters
        seed = parameters.seed ?? UInt64.random(in: .min ... .max)
        bias = parameters.logitBias
            .map { TokenProbability(token: $0.key, logprob: $0.value) }
            .sorted { $0.token < $1.token }
        countsAnswer = parameters.presencePenalty != 0 || parameters.frequencyPenalty != 0
        if parameters.repetitionPenalty != 1, parameters.penaltyWindow != 0 {
            recent = RecentTokens(window: parameters.penaltyWindow, prompt: prompt)
        }
    }

    /// Records a token of the answer; the next draw has the next index.
    public mutating func accept(_ token: Int32) {
        generatedCount += 1
        if countsAnswer { answerCounts[token, default: 0] += 1 }
        recent?.append(token)
    }

    /// The next token after `logits`, one per vocabulary entry. Bias and penalties are written into the logits and taken back
    /// before the return.
    /// - Throws: `internalFailure` if the logits hold a NaN or +inf, or leave no token possible.
    public func sample(
        logits: UnsafeMutableBufferPointer<Float>, scratch: inout SamplerScratch
    ) throws(InferenceError) -> Int32 {
        let top = try prepare(logits, &scratch)
        defer { takeBackEdits(of: logits, &scratch) }
        let row = UnsafeBufferPointer(logits)
        if isGreedy { return Int32(scratch.kernels.firstIndex(of: top, in: row)!) }
        let u = CounterRandom.uniform(seed: seed, index: generatedCount)
        let scale = 1 / parameters.temperature
        guard truncates(row.count) else { return scratch.draw(u, from: row, top: top, scale: scale) }
        let candidates = survivors(of: row, top: top, &scratch)
        return scratch.draw(u, from: candidates, scale: scale)
    }

    /// The tokens that `sample` may choose now and their probabilities, by rising id. Slow; for tests and inspection.
    package func distribution(
        logits: UnsafeMutableBufferPointer<Float>, scratch: inout SamplerScratch
    ) throws(InferenceError) -> [(token: Int32, probability: Double)] {
        let top = try prepare(logits, &scratch)
        defer { takeBackEdits(of: logits, &scratch) }
        let row = UnsafeBufferPointer(logits)
        if isGreedy { return [(Int32(scratch.kernels.firstIndex(of: top, in: row)!), 1)] }
        let candidates =
            truncates(row.count)
            ? survivors(of: row, top: top, &scratch) : scratch.collect(row, atLeast: -.greatestFiniteMagnitude, top: top)
        return scratch.probabilities(of: candidates, scale: 1 / parameters.temperature)
    }

    private var isGreedy: Bool { parameters.temperature < Self.lowestTemperature }

    /// Edits the logits and returns the largest; on an error nothing stays edited.
    private func prepare(
        _ logits: UnsafeMutableBufferPointer<Float>, _ scratch: inout SamplerScratch
    ) throws(InferenceError) -> Float {
        precondition(logits.count == scratch.vocabularySize, "the scratch is for \(scratch.vocabularySize) logits, not \(logits.count)")
        applyEdits(to: logits, &scratch)
        do throws(InferenceError) {
            return try scratch.largest(of: UnsafeBufferPointer(logits))
        } catch {
            takeBackEdits(of: logits, &scratch)
            throw error
        }
    }

    // MARK: Logit bias and penalties

    private func applyEdits(to logits: UnsafeMutableBufferPointer<Float>, _ scratch: inout SamplerScratch) {
        for entry in bias where entry.token >= 0 && Int(entry.token) < logits.count {
            let original = logits[Int(entry.token)]
            scratch.edits.append((entry.token, original))
            // The API's -100 is a ban, also for a model whose logits spread further than that.
            logits[Int(entry.token)] = entry.logprob <= -100 ? -.infinity : original + entry.logprob
        }
        if let recent {
            for token in recent.counts.keys where token >= 0 && Int(token) < logits.count {
                let original = logits[Int(token)]
                scratch.edits.append((token, original))
                logits[Int(token)] =
                    original > 0 ? original / parameters.repetitionPenalty : original * parameters.repetitionPenalty
            }
        }
        for (token, count) in answerCounts where token >= 0 && Int(token) < logits.count {
            let original = logits[Int(token)]
            scratch.edits.append((token, original))
            logits[Int(token)] = original - Float(count) * parameters.frequencyPenalty - parameters.presencePenalty
        }
    }

    private func takeBackEdits(of logits: UnsafeMutableBufferPointer<Float>, _ scratch: inout SamplerScratch) {
        // A token may have been changed twice: the first value recorded is the one to end with.
        for i in stride(from: scratch.edits.count - 1, through: 0, by: -1) {
            logits[Int(scratch.edits[i].token)] = scratch.edits[i].original
        }
        scratch.edits.removeAll(keepingCapacity: true)
    }

    // MARK: Truncation

    private var hasTopK: Bool { parameters.topK > 0 }
    private var hasTypical: Bool { parameters.typicalP < 1 }
    private var hasTopP: Bool { parameters.topP < 1 }
    private var hasMinP: Bool { parameters.minP > 0 }
    // Rounded from double precision, so that libraries whose logarithms differ in the last bit agree.
    private var logMinP: Float { Float(log(Double(parameters.minP))) }

    private func truncates(_ vocabularySize: Int) -> Bool {
        (hasTopK && parameters.topK < vocabularySize) || hasTypical || hasTopP || hasMinP
    }

    /// The tokens that the chain may keep, and the mass of the distribution that its first step sees. Whatever is left out here
    /// is proven to be dropped later, so a cut changes the work and not the outcome.
    private func gather(_ row: UnsafeBufferPointer<Float>, top: Float, _ scratch: inout SamplerScratch) -> Candidates {
        if hasTopK, parameters.topK < row.count {
            var candidates = scratch.collectLargest(parameters.topK, of: row, top: top)
            scratch.keepLargest(parameters.topK, of: &candidates)
            candidates.mass = scratch.mass(of: candidates)
            return candidates
        }
        if hasTypical {
            var candidates = scratch.collect(row, atLeast: -.greatestFiniteMagnitude, top: top)
            candidates.mass = scratch.mass(of: candidates)
            return candidates
        }
        let minCut = hasMinP ? top + logMinP : -.greatestFiniteMagnitude
        guard hasTopP else { return scratch.collect(row, atLeast: minCut, top: top) }
        let mass = scratch.mass(of: row, top: top)
        // Tokens of less than (1 - p) / V weigh at most 1 - p together, so the nucleus is complete without them (the margin is
        // for rounding). Mostly it is complete with far fewer: try that first.
        let safeCut = top + Float(log(Double(1 - parameters.topP) * mass / Double(row.count))) - 0.001
        let hopefulCut = safeCut + 2
        var candidates = scratch.collect(row, atLeast: max(minCut, hopefulCut), top: top)
        if hopefulCut > minCut, scratch.mass(of: candidates) < Double(parameters.topP) * mass {
            candidates = scratch.collect(row, atLeast: max(minCut, safeCut), top: top)
        }
        candidates.mass = mass
        return candidates
    }

    private func survivors(of row: UnsafeBufferPointer<Float>, top: Float, _ scratch: inout SamplerScratch) -> Candidates {
        var candidates = gather(row, top: top, &scratch)
        if hasTypical {
            scratch.keepTypical(parameters.typicalP, of: &candidates, top: top)
            candidates.mass = scratch.mass(of: candidates)
        }
        if hasTopP {
            scratch.keepNucleus(parameters.topP, of: &candidates)
        }
        if hasMinP {
            scratch.keepAbove(logMinP, of: &candidates)
        }
        return candidates
    }
}

/// The last tokens of prompt and answer, with how often each occurs among them.
struct RecentTokens: Sendable {
    private(set) var counts: [Int32: Int32] = [:]
    private let window: Int
    private var ring: [Int32] = []
    private var oldest = 0

    /// - Parameter window: how many tokens are remembered; negative: all.
    init(window: Int, prompt: [Int32]) {
        self.window = window
        if window > 0 { ring.reserveCapacity(window) }
        for token in window < 0 ? prompt[...] : prompt.suffix(window) { append(token) }
    }

    mutating func append(_ token: Int32) {
        counts[token, default: 0] += 1
        guard window > 0 else { return }
        if ring.count < window {
            ring.append(token)
            return
        }
        let dropped = ring[oldest]
        ring[oldest] = token
        oldest = oldest + 1 == window ? 0 : oldest + 1
        if counts[dropped]! == 1 { counts[dropped] = nil } else { counts[dropped]! -= 1 }
    }
}
