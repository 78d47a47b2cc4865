/// Draft tokens for speculative decoding: what came after the last tokens when they occurred before, in the prompt or in the answer.
///
/// An answer that quotes, edits or continues what it was given repeats long stretches of it (prompt lookup decoding, Saxena 2023; "lookup" in llama.cpp).
/// A draft costs a row of a step that reads all weights anyway. How many are made follows how many of the last ones were accepted; what is generated does not
/// depend on them.
package struct PromptLookup: Sendable {
    /// Tokens that must have occurred before: the more, the better is the draft, therefore the longest match is looked for first.
    static let longestMatch = 4, shortestMatch = 2
    private static let firstCount = 3

    package init() {}

    private var count = firstCount
    /// Steps without a draft from now on, and how many there will be after another one of which nothing is accepted.
    private var pause = 0, nextPause = 1

    /// At most `most` drafts of what follows `tokens`, none while drafting does not pay.
    package mutating func drafts(after tokens: [Int32], most: Int) -> [Int32] {
        guard most > 0 else { return [] }
        if pause > 0 {
            pause -= 1
            return []
        }
        guard let start = PromptLookup.match(tokens) else { return [] }
        var drafts: [Int32] = []
        // What is repeated may overlap what it repeats.
        for i in start..<start + min(count, most) { drafts.append(i < tokens.count ? tokens[i] : drafts[i - tokens.count]) }
        return drafts
    }

    /// Takes in how many of the last drafts were accepted.
    package mutating func learn(drafted: Int, accepted: Int) {
        guard drafted > 0 else { return }
        if accepted > 0 { nextPause = 1 }
        if accepted == drafted {
            count = min(2 * count, 64)
        } else if accepted > 0 {
            count = accepted + 1
        } else {
            count = PromptLookup.firstCount
            pause = nextPause
            nextPause = min(2 * nextPause, 32)
        }
    }

    /// The place after the latest earlier occurrence of the last tokens, the longest match first.
    private static func match(_ tokens: [Int32]) -> Int? {
        tokens.withUnsafeBufferPointer { tokens in
            let end = tokens.count
            var found: Int?, longest = shortestMatch - 1
            guard end > shortestMatch else { return nil }
            let last = tokens[end - 1]
            var i = end - 2
            while i >= longest {
                if tokens[i] == last {
                    var length = 1
                    while length < longestMatch, length <= i, tokens[i - length] == tokens[end - 1 - length] { length += 1 }
                    if length > longest {
                        (found, longest) = (i + 1, length)
                        if length == longestMatch { break }
                    }
                }
                i -= 1
            }
            return found
        }
    }
}
