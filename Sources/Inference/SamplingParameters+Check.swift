extension SamplingParameters {
    /// Refuses what the sampler cannot follow. The API may be stricter.
    /// - Throws: `invalidRequest` naming the parameter by its wire name, the value found and the range.
    public func check(vocabularySize: Int) throws(InferenceError) {
        func require(_ isInRange: Bool, _ name: String, _ found: some CustomStringConvertible, _ range: String) throws(InferenceError) {
            guard isInRange else { throw InferenceError(.invalidRequest, "\(name) is \(found); it must be \(range).") }
        }
        try require(temperature >= 0 && temperature.isFinite, "temperature", temperature, "a number of at least 0")
        try require(topK >= 0, "top_k", topK, "0 (off) or more")
        try require((0...1).contains(topP), "top_p", topP, "between 0 and 1")
        try require((0...1).contains(minP), "min_p", minP, "between 0 and 1")
        try require(typicalP > 0 && typicalP <= 1, "typical_p", typicalP, "above 0 and at most 1")
        try require(
            repetitionPenalty >= 0.01 && repetitionPenalty.isFinite, "repetition_penalty", repetitionPenalty, "a number of at least 0.01")
        try require((-2...2).contains(presencePenalty), "presence_penalty", presencePenalty, "between -2 and 2")
        try require((-2...2).contains(frequencyPenalty), "frequency_penalty", frequencyPenalty, "between -2 and 2")
        try require(penaltyWindow >= -1, "repeat_last_n", penaltyWindow, "-1 (all) or more")
        for (token, value) in logitBias.sorted(by: { $0.key < $1.key }) {
            try require(
                token >= 0 && Int(token) < vocabularySize, "logit_bias", "for token \(token)",
                "for tokens of the vocabulary, 0…\(vocabularySize - 1)")
            try require((-100...100).contains(value), "logit_bias", "\(value) for token \(token)", "between -100 and 100")
        }
    }
}
