import Inference

#if canImport(Glibc)
import Glibc
#endif

/// The sampling chain written the plain way, in double precision with full sorts.
struct SamplerReference {
    var parameters: SamplingParameters
    var prompt: [Int32]
    var answer: [Int32] = []

    struct Result {
        var distribution: [(token: Int32, probability: Double)]
        /// How near the closest decision to drop or keep was, as a share of probability: below 1e-5 float32 may decide otherwise.
        var margin: Double
    }

    func distribution(_ raw: [Float]) -> Result {
        var logits = raw.map(Double.init)
        for (token, bias) in parameters.logitBias {
            logits[Int(token)] = bias <= -100 ? -.infinity : Double(raw[Int(token)] + bias)
        }
        let all = prompt + answer
        let recent = parameters.penaltyWindow < 0 ? all[...] : all.suffix(parameters.penaltyWindow)
        for token in Set(recent) where parameters.repetitionPenalty != 1 {
            let penalty = Double(parameters.repetitionPenalty)
            logits[Int(token)] = logits[Int(token)] > 0 ? logits[Int(token)] / penalty : logits[Int(token)] * penalty
        }
        for token in Set(answer) {
            let count = Double(answer.count { $0 == token })
            logits[Int(token)] -= count * Double(parameters.frequencyPenalty) + Double(parameters.presencePenalty)
        }

        var kept = logits.indices.filter { logits[$0] > -.infinity }
        kept.sort { (logits[$0], -$0) > (logits[$1], -$1) }
        var margin = Double.infinity
        if parameters.temperature < 1e-5 {
            if kept.count > 1 { margin = logits[kept[0]] - logits[kept[1]] }
            return Result(distribution: [(Int32(kept[0]), 1)], margin: margin)
        }
        func softmax(_ scale: Double) -> [Double] {
            let top = kept.map { logits[$0] }.max()!
            let weights = kept.map { exp((logits[$0] - top) * scale) }
            let sum = weights.reduce(0, +)
            return weights.map { $0 / sum }
        }
        func keepFirst(until target: Double, _ p: [Double]) {
            var sum = 0.0
            for i in kept.indices {
                sum += p[i]
                margin = min(margin, abs(sum - target))
                if sum >= target {
                    kept.removeSubrange((i + 1)...)
                    return
                }
            }
        }
        if parameters.topK > 0, parameters.topK < kept.count {
            margin = min(margin, logits[kept[parameters.topK - 1]] - logits[kept[parameters.topK]])
            kept.removeSubrange(parameters.topK...)
        }
        if parameters.typicalP < 1 {
            let p = softmax(1)
            let entropy = -p.map { $0 > 0 ? $0 * log($0) : 0 }.reduce(0, +)
            let scored = kept.indices.map { (score: abs(-log(p[$0]) - entropy), index: $0) }.sorted { $0.score < $1.score }
            let order = scored.map(\.index)
            for (a, b) in zip(scored, scored.dropFirst()) { margin = min(margin, max(1e-9, b.score - a.score)) }
            kept = order.map { kept[$0] }
            keepFirst(until: Double(parameters.typicalP), order.map { p[$0] })
            kept.sort { (logits[$0], -$0) > (logits[$1], -$1) }
        }
        if parameters.topP < 1 { keepFirst(until: Double(parameters.topP), softmax(1)) }
        if parameters.minP > 0 {
            let cut = logits[kept[0]] + log(Double(parameters.minP))
            for token in kept { margin = min(margin, abs(logits[token] - cut)) }
            kept.removeAll { logits[$0] < cut }
        }
        let p = softmax(1 / Double(parameters.temperature))
        let pairs = zip(kept, p).map { (token: Int32($0), probability: $1) }
        return Result(distribution: pairs.sorted { $0.token < $1.token }, margin: margin)
    }
}
