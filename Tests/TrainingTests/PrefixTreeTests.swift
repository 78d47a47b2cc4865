import Kernels
import Testing
import Training

struct PrefixTreeTests {
    private static func tokens(_ range: ClosedRange<Int32>, _ more: Int32...) -> [Int32] { Array(range) + more }

    private static func layout(_ examples: [[Int32]], isSharing: Bool = true) -> PrefixTree.Layout {
        var tree = PrefixTree(isSharing: isSharing)
        for example in examples { tree.insert(example) }
        return tree.layout()
    }

    /// An example's tokens and positions, read through its pieces.
    private static func read(_ layout: PrefixTree.Layout, _ number: Int) -> (tokens: [Int32], positions: [Int32]) {
        let rows = layout.pieces[number].flatMap { Array($0.first..<$0.first + $0.count) }
        return (rows.map { layout.tokens[$0] }, rows.map { layout.positions[$0] })
    }

    @Test func everyExampleIsReadBackAndSharedTokensAreHeldOnce() {
        let prompt = Self.tokens(1...40)
        let examples = [
            prompt + Self.tokens(100...119, 7), prompt + Self.tokens(100...119, 8, 9), prompt + [50, 51], Array(prompt[..<25]), prompt + Self.tokens(100...119, 7),
            Self.tokens(200...230), [3],
        ]
        let layout = Self.layout(examples)
        for (i, example) in examples.enumerated() {
            let found = Self.read(layout, i)
            #expect(found.tokens == example && found.positions == example.indices.map(Int32.init))
        }
        // 40 of the prompt, 20 that three share, what each has of its own, and two that share nothing.
        #expect(layout.tokens.count == 40 + 20 + (1 + 2 + 2) + 31 + 1)
        #expect(layout.pieces[0].count == 4 && layout.pieces[4] == layout.pieces[0] && layout.pieces[3].count == 1)
        // Rows of segments follow one another, behind those that they share.
        var next = 0
        for segment in layout.segments {
            let own = segment[segment.count - 1]
            #expect(own.first == next && segment.dropLast().allSatisfy { $0.first + $0.count <= next })
            next += own.count
        }
        #expect(next == layout.tokens.count)
    }

    @Test func shortSharesAreNotWorthIt() {
        let short = Int32(PrefixTree.shortestShare - 1), enough = Int32(PrefixTree.shortestShare)
        #expect(Self.layout([Self.tokens(1...short, 100, 101), Self.tokens(1...short, 200)]).tokens.count == Int(short) * 2 + 3)
        #expect(Self.layout([Self.tokens(1...enough, 100, 101), Self.tokens(1...enough, 200)]).tokens.count == Int(enough) + 3)
        // A whole run is shared however short it is: that costs no further piece.
        #expect(Self.layout([[1, 2, 3], [1, 2, 3, 4]]).tokens == [1, 2, 3, 4])
    }

    @Test func nothingIsSharedWhereChanceFallsDifferently() {
        let example = Self.tokens(1...30)
        let layout = Self.layout([example, example], isSharing: false)
        #expect(layout.tokens == example + example && layout.examples == Array(repeating: 0, count: 30) + Array(repeating: 1, count: 30))
        #expect(layout.segments == [[.init(first: 0, position: 0, count: 30)], [.init(first: 30, position: 0, count: 30)]])
    }

    @Test func aSharedRowIsTrainedForEachOfItsExamples() {
        func example(_ last: Int32) -> TokenizedExample {
            TokenizedExample(tokens: Self.tokens(1...20, last), isTrained: (0..<21).map { $0 >= 19 })
        }
        let batch = MicroBatch([(example(30), 1), (example(31), 2)], isSharing: true)
        #expect(batch.tokens == Self.tokens(1...20, 30, 31) && batch.tokenCount == 42 && batch.exampleCount == 2)
        #expect(batch.rows == [18, 19, 18, 19] && batch.targets == [20, 30, 20, 31] && batch.owners == [0, 0, 1, 1])
    }

    @Test func whatAllBeginWithEndsBeforeTheFirstTrainedToken() {
        func example(_ tokens: [Int32], from first: Int) -> TokenizedExample { TokenizedExample(tokens: tokens, isTrained: tokens.indices.map { $0 >= first }) }
        let a = example(Self.tokens(1...40), from: 35), b = example(Self.tokens(1...38, 99), from: 30)
        #expect(Packing.commonPrefix([a, b]) == 29)
        #expect(Packing.commonPrefix([a, example(Self.tokens(1...20, 99, 98), from: 21)]) == 20)
        #expect(Packing.commonPrefix([a, example(Self.tokens(1...10, 99, 98), from: 11)]) == 0)
        #expect(Packing.commonPrefix([]) == 0)
    }
}
