import Testing
import Training

@Test func trainedTokensAreCounted() {
    #expect(TokenizedExample(tokens: [1, 2, 3], isTrained: [false, true, true]).trainedCount == 2)
}
