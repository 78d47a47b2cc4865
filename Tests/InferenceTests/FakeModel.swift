import Inference

/// A model of which every token depends on all tokens before it, with a KV cache that holds (seed, position, token): what it
/// answers shows whether every row was computed, at the right place, from the right blocks. With a window it has a second cache of window blocks, in which a row
/// looks for no more than it sees.
struct FakeModel {
    struct Cell: Equatable {
        var seed: PrefixSeed
        var position: Int
        var token: Int32
    }

    var cache: [Cell?], windowCache: [Cell?]
    let window: Int?

    init(_ configuration: SchedulerConfiguration) {
        cache = Array(repeating: nil, count: configuration.blockCount * BlockPool.blockSize)
        windowCache = Array(repeating: nil, count: configuration.windowBlockCount * BlockPool.blockSize)
        window = configuration.slidingWindow
    }

    static let vocabulary: Int32 = 1000
    /// Ends an answer.
    static let end: Int32 = 0

    /// The owner whose answers mostly repeat what came nine tokens before.
    static let parrot = "parrot"

    static func next(_ tokens: some RandomAccessCollection<Int32>, _ seed: PrefixSeed) -> Int32 {
        if seed.owner == parrot, tokens.count >= 9, tokens.count % 17 != 0 { return tokens[tokens.index(tokens.endIndex, offsetBy: -9)] }
        var state: UInt64 = 0xCBF2_9CE4_8422_2325
        for byte in seed.owner.utf8 { state = (state ^ UInt64(byte)) &* 0x100_0000_01B3 }
        for token in tokens { state = (state ^ UInt64(UInt32(bitPattern: token))) &* 0x100_0000_01B3 }
        state ^= state >> 29
        state = state &* 0xBF58_476D_1CE4_E5B9
        return Int32(truncatingIfNeeded: (state >> 33) % UInt64(vocabulary))
    }

    /// The answer that a prompt has, alone.
    static func answer(_ prompt: [Int32], seed: PrefixSeed, most: Int, ignoresEnd: Bool) -> [Int32] {
        var tokens = prompt
        for _ in 0..<most {
            tokens.append(next(tokens, seed))
            if tokens.last == end, !ignoresEnd { break }
        }
        return Array(tokens[prompt.count...])
    }

    /// Writes the rows of a segment and returns the next tokens after its last row that is no draft, and after each draft; `nil` if the cache does not hold
    /// the sequence's own history.
    mutating func compute(_ segment: StepSegment, _ plan: StepPlan, seed: PrefixSeed) -> [Int32]? {
        func place(_ position: Int) -> Int {
            Int(segment.blockTable[position / BlockPool.blockSize]) * BlockPool.blockSize + position % BlockPool.blockSize
        }
        let unseen = segment.blockTable.count - segment.windowBlocks.count
        func windowPlace(_ position: Int) -> Int? {
            let i = position / BlockPool.blockSize - unseen
            return segment.windowBlocks.indices.contains(i) ? Int(segment.windowBlocks[i]) * BlockPool.blockSize + position % BlockPool.blockSize : nil
        }
        for (row, position) in zip(segment.rows, segment.positions) {
            let cell = Cell(seed: seed, position: position, token: plan.tokens[row])
            cache[place(position)] = cell
            if window != nil {
                guard let place = windowPlace(position) else { return nil }
                windowCache[place] = cell
            }
        }
        var history: [Int32] = []
        for position in 0..<segment.positions.upperBound {
            guard let cell = cache[place(position)], cell.position == position, cell.seed == seed else { return nil }
            history.append(cell.token)
        }
        if let window {
            for position in max(segment.startPosition - window + 1, 0)..<segment.positions.upperBound {
                guard let found = windowPlace(position), windowCache[found] == cache[place(position)] else { return nil }
            }
        }
        return (history.count - segment.drafts.count...history.count).map { Self.next(history[..<$0], seed) }
    }
}

extension SequenceID {
    /// A prompt that shares no prefix with another sequence's.
    func unsharedPrompt(_ count: Int) -> [Int32] {
        let first = Int32(rawValue % 100_000) * 10_000
        return (0..<Int32(count)).map { first + $0 }
    }
}
