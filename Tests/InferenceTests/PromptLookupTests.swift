import Testing

import Inference

struct PromptLookupTests {
    @Test func draftsAreWhatFollowedTheLastTokensBefore() {
        var lookup = PromptLookup()
        #expect(lookup.drafts(after: [7, 1, 2, 3, 4, 5, 6, 9, 1, 2], most: 8) == [3, 4, 5])
        #expect(lookup.drafts(after: [7, 1, 2, 3, 4, 5, 6, 9, 1, 2], most: 2) == [3, 4])
        #expect(lookup.drafts(after: [7, 1, 2, 3, 4, 5, 6, 9, 1, 2], most: 0) == [])
        // The longest match counts, of equal ones the latest; one token alone is no match.
        #expect(lookup.drafts(after: [5, 1, 2, 30, 6, 1, 2, 40, 8, 5, 1, 2], most: 1) == [30])
        #expect(lookup.drafts(after: [5, 1, 2, 30, 6, 1, 2, 40, 8, 1, 2], most: 1) == [40])
        #expect(lookup.drafts(after: [1, 2, 3, 4, 9, 2], most: 8) == [])
        for tokens: [Int32] in [[], [1], [1, 1]] { #expect(lookup.drafts(after: tokens, most: 8) == []) }
        // What is repeated may go on into what is drafted.
        #expect(lookup.drafts(after: [1, 2, 1, 2], most: 8) == [1, 2, 1])
        #expect(lookup.drafts(after: [4, 4, 4], most: 8) == [4, 4, 4])
    }

    @Test func moreAreMadeWhileTheyAreAcceptedAndNoneForAWhileAfterFailures() {
        var lookup = PromptLookup()
        let tokens: [Int32] = [4, 4, 4]
        lookup.learn(drafted: 3, accepted: 3)
        #expect(lookup.drafts(after: tokens, most: 8).count == 6)
        lookup.learn(drafted: 6, accepted: 1)
        #expect(lookup.drafts(after: tokens, most: 8).count == 2)
        var pauses: [Int] = []
        for _ in 0..<7 {
            lookup.learn(drafted: 2, accepted: 0)
            var pause = 0
            while lookup.drafts(after: tokens, most: 8).isEmpty { pause += 1 }
            pauses.append(pause)
        }
        #expect(pauses == [1, 2, 4, 8, 16, 32, 32])
        lookup.learn(drafted: 2, accepted: 1)
        lookup.learn(drafted: 2, accepted: 0)
        #expect(lookup.drafts(after: tokens, most: 8).isEmpty && !lookup.drafts(after: tokens, most: 8).isEmpty)
    }
}
