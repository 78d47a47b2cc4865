/// What one answer cost.
package struct AnswerRecord: Equatable, Sendable {
    package var promptTokens: Int
    /// Of the prompt, what was still in the cache from earlier turns.
    package var cachedTokens = 0
    package var answerTokens = 0
    package var asked: ContinuousClock.Instant
    package var firstToken: ContinuousClock.Instant?
    package var lastToken: ContinuousClock.Instant?

    package init(promptTokens: Int, asked: ContinuousClock.Instant) {
        self.promptTokens = promptTokens
        self.asked = asked
    }

    package mutating func record(tokens: Int, at time: ContinuousClock.Instant) {
        guard tokens > 0 else { return }
        answerTokens += tokens
        if firstToken == nil { firstToken = time }
        lastToken = time
    }

    package var secondsToFirstToken: Double? { firstToken.map { ($0 - asked).inSeconds } }

    /// The pace of the answer from its first token on; nil for one token.
    package var tokensPerSecond: Double? {
        guard let firstToken, let lastToken, answerTokens > 1, lastToken > firstToken else { return nil }
        return Double(answerTokens - 1) / (lastToken - firstToken).inSeconds
    }
}
