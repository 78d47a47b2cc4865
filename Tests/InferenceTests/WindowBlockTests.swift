import Inference
import Testing

private let size = BlockPool.blockSize

private func text(_ blocks: [Int32], extra: Int = 1) -> [Int32] {
    blocks.flatMap { Array(repeating: $0, count: size) } + Array(repeating: -7, count: extra)
}

/// A sequence as far as a pool sees it, and a cache in which each window block holds all tokens up to its end.
private struct Sequence {
    let seed: PrefixSeed
    let prompt: [Int32]
    var table: [Int32]
    var first: Int
    var reserved: Int

    init?(_ pool: inout BlockPool, _ prompt: [Int32], seed: PrefixSeed) {
        let total = BlockPool.blocks(for: prompt.count)
        guard let table = pool.admit(prompt, seed: seed, totalBlocks: total) else { return nil }
        self.seed = seed
        self.prompt = prompt
        self.table = table
        first = pool.firstInWindow(at: table.count * size)
        reserved = total - table.count
    }

    var isFull: Bool { (table.count + 1) * size > prompt.count }

    /// Computes the next whole block, registers it and moves the window to the row after it.
    mutating func compute(_ pool: inout BlockPool, _ cache: inout [Int32: [Int32]]) {
        let start = table.count * size
        let block = pool.drawReserved()
        reserved -= 1
        cache[pool.windowBlocks(of: [block])[0]] = Array(prompt[..<(start + size)])
        table.append(pool.register(block, after: table.last.map { .block($0) } ?? .root(seed), tokens: prompt[start..<start + size]))
        move(&pool)
    }

    /// Takes what others have computed meanwhile.
    mutating func lookUp(_ pool: inout BlockPool) -> Int {
        let found = pool.continuation(of: table, prompt, seed: seed, findable: prompt.count - 1)
        let new = pool.firstInWindow(at: (table.count + found.count) * size)
        for i in first..<max(first, min(new, table.count)) { pool.leaveWindow(table[i]) }
        first = max(first, new)
        for block in found {
            pool.drawReserved(sharing: block, inWindow: table.count >= first)
            table.append(block)
        }
        reserved -= found.count
        return found.count
    }

    mutating func move(_ pool: inout BlockPool) {
        let new = pool.firstInWindow(at: table.count * size)
        for i in first..<max(first, new) { pool.leaveWindow(table[i]) }
        first = max(first, new)
    }

    func end(_ pool: inout BlockPool) {
        pool.release(table, firstInWindow: first)
        pool.cancelReservation(reserved)
    }

    /// Whether the next row finds all that it sees.
    func isWhole(_ pool: BlockPool, _ cache: [Int32: [Int32]]) -> Bool {
        zip(first..., pool.windowBlocks(of: table[first...])).allSatisfy { cache[$1] == Array(prompt[..<(($0 + 1) * size)]) }
    }
}

struct WindowBlockTests {
    let seed = PrefixSeed(owner: "alice", baseDigest: "base")

    /// A window of 40 reaches from a block's first row into the two blocks before it.
    private func pool(_ capacity: Int, _ windowCapacity: Int) -> BlockPool { BlockPool(capacity: capacity, window: 40, windowCapacity: windowCapacity) }

    private func computed(_ pool: inout BlockPool, _ cache: inout [Int32: [Int32]], _ blocks: [Int32]) throws -> Sequence {
        let admitted = Sequence(&pool, text(blocks), seed: seed)
        var sequence = try #require(admitted)
        while !sequence.isFull { sequence.compute(&pool, &cache) }
        return sequence
    }

    @Test func aWindowReachesBackFromItsRow() {
        let pool = pool(4, 4)
        // Row 72 sees 33 … 72, row 71 sees 32 … 71, row 70 sees 31 … 70.
        #expect([0, 39, 70, 71, 102, 103].map(pool.firstInWindow) == [0, 0, 0, 1, 1, 2])
        #expect(BlockPool(capacity: 4).firstInWindow(at: 1000) == 0)
    }

    @Test func aLongSequenceUsesTheBlocksOfItsWindow() throws {
        var pool = pool(60, 3), cache: [Int32: [Int32]] = [:]
        let admitted = Sequence(&pool, text(Array(1...50)), seed: seed)
        var sequence = try #require(admitted)
        while !sequence.isFull {
            sequence.compute(&pool, &cache)
            #expect(pool.windowInUseCount <= 2 && sequence.isWhole(pool, cache))
            pool.checkInvariants()
        }
        #expect(pool.inUseCount == 50 && pool.windowInUseCount == 2 && pool.windowUserCount(sequence.table[49]) == 1 && pool.windowUserCount(sequence.table[0]) == nil)
        sequence.end(&pool)
        // As cached ones they wait for a prompt that goes on from here.
        #expect(pool.windowInUseCount == 0 && pool.cachedCount == 50 && pool.windowUserCount(sequence.table[49]) == 0)
        pool.checkInvariants()
    }

    @Test func aPrefixIsFoundAsFarAsItsLastWindowIsThere() throws {
        var pool = pool(40, 6), cache: [Int32: [Int32]] = [:]
        try computed(&pool, &cache, [1, 2, 3, 4, 5, 6, 7, 8]).end(&pool)
        // The last window is there, although the first blocks have lost theirs.
        let warm = Sequence(&pool, text([1, 2, 3, 4, 5, 6, 7, 8, 9]), seed: seed)
        #expect(warm?.table.count == 8 && warm!.isWhole(pool, cache))
        // A prompt that leaves earlier finds nothing before it: the row after its second block would see the first one.
        #expect(Sequence(&pool, text([1, 2, 9, 9]), seed: seed)?.table.isEmpty == true)
        // After the fifth block it sees the fourth and the fifth.
        #expect(Sequence(&pool, text([1, 2, 3, 4, 5, 9]), seed: seed)?.table.count == 5)
        pool.checkInvariants()
    }

    @Test func whatIsComputedAgainRepairsTheBlocksThatOthersUse() throws {
        var pool = pool(40, 5), cache: [Int32: [Int32]] = [:]
        let old = try computed(&pool, &cache, [1, 2, 3, 4, 5, 6, 7, 8])
        let new = try computed(&pool, &cache, [1, 2, 3, 9])
        // The same blocks, the first three computed twice.
        #expect(new.table.prefix(3) == old.table.prefix(3) && pool.statistics.duplicates == 3 && pool.inUseCount == 9)
        #expect(new.isWhole(pool, cache) && old.isWhole(pool, cache))
        #expect(pool.windowUserCount(old.table[2]) == 1 && pool.referenceCount(old.table[2]) == 2)
        pool.checkInvariants()
        old.end(&pool)
        #expect(new.isWhole(pool, cache))
        new.end(&pool)
        pool.checkInvariants()
        #expect(pool.windowInUseCount == 0)
    }

    @Test func ofTwoEqualBlocksInTwoWindowsOneWindowBlockIsLeft() throws {
        var pool = pool(20, 6), cache: [Int32: [Int32]] = [:]
        let admitted = (0..<2).map { _ in Sequence(&pool, text([1, 2, 3]), seed: seed) }
        var sequences = try admitted.map { try #require($0) }
        for _ in 0..<3 {
            for i in 0..<2 { sequences[i].compute(&pool, &cache) }
        }
        #expect(sequences[0].table == sequences[1].table && pool.windowInUseCount == 2)
        #expect(sequences[0].table.map { pool.windowUserCount($0) } == [0, 2, 2])
        for sequence in sequences { sequence.end(&pool) }
        pool.checkInvariants()
    }

    @Test func anEvictedBlockGivesItsWindowBlock() throws {
        var pool = pool(5, 5), cache: [Int32: [Int32]] = [:]
        try computed(&pool, &cache, [1, 2, 3, 4]).end(&pool)
        let taken = (0..<5).map { _ in pool.allocate() }
        #expect(!taken.contains(nil) && pool.windowInUseCount == 5)
        pool.checkInvariants()
        for block in taken { pool.release(block!) }
        #expect(pool.freeCount == 5 && pool.windowInUseCount == 0)
        pool.checkInvariants()
    }

    @Test func aLaterLookReachesOverBlocksWithoutWindowBlocks() throws {
        var pool = pool(40, 8), cache: [Int32: [Int32]] = [:]
        let prompt: [Int32] = [1, 2, 3, 4, 5, 6, 7, 8]
        let admitted = Sequence(&pool, text(prompt + [9]), seed: seed)
        var late = try #require(admitted)
        let early = try computed(&pool, &cache, prompt)
        // Three other blocks need window blocks: those of the first three are gone.
        try computed(&pool, &cache, [31, 32, 33]).end(&pool)
        #expect(pool.windowUserCount(early.table[0]) == nil && pool.windowUserCount(early.table[7]) == 1)
        #expect(late.lookUp(&pool) == 8 && late.table == early.table && late.isWhole(pool, cache))
        pool.checkInvariants()
        early.end(&pool)
        late.end(&pool)
        pool.checkInvariants()
    }

    /// Thousands of random operations; whatever is found, merged, evicted and let go of, each sequence has what its next row sees.
    @Test(arguments: [1, 40, 70, 129]) func randomSequencesHaveTheirWindows(window: Int) throws {
        var generator = SeededGenerator(UInt64(window))
        let count = 4, each = BlockPool.blocks(for: window - 1) + 1
        var pool = BlockPool(capacity: 48, window: window, windowCapacity: count * each), cache: [Int32: [Int32]] = [:]
        var sequences: [Sequence] = [], found = 0, lookedUp = 0, computed = 0
        for step in 0..<12_000 {
            switch Int.random(in: 0..<12, using: &generator) {
            case 0..<2:
                let blocks = (0..<Int.random(in: 1...10, using: &generator)).map { Int32($0) * 10 + (Int.random(in: 0..<5, using: &generator) == 0 ? 1 : 0) }
                // Two that come together compute the same, or find each other's.
                for _ in 0..<2 where sequences.count < count {
                    guard let sequence = Sequence(&pool, text(blocks), seed: seed) else { break }
                    found += sequence.table.count
                    sequences.append(sequence)
                }
            case 2:
                guard let i = sequences.indices.randomElement(using: &generator) else { break }
                sequences.remove(at: i).end(&pool)
            case 3..<6:
                guard let i = sequences.indices.randomElement(using: &generator) else { break }
                lookedUp += sequences[i].lookUp(&pool)
            default:
                guard let i = sequences.indices.randomElement(using: &generator), !sequences[i].isFull else { break }
                sequences[i].compute(&pool, &cache)
                computed += 1
            }
            for sequence in sequences { #expect(sequence.isWhole(pool, cache)) }
            #expect(pool.windowInUseCount <= count * each)
            if step % 8 == 0 { pool.checkInvariants() }
        }
        for sequence in sequences { sequence.end(&pool) }
        pool.checkInvariants()
        #expect(pool.inUseCount == 0 && pool.reserved == 0 && pool.windowInUseCount == 0)
        let statistics = pool.statistics
        #expect(found > 500 && lookedUp > 50 && computed > 1000 && statistics.evictions > 100 && statistics.duplicates > 50, "\(found) \(lookedUp) \(computed) \(statistics)")
    }

    // MARK: The scheduler

    @Test func anAnswerUsesNoMoreWindowBlocksThanItsWindow() throws {
        var configuration = SchedulerConfiguration(contextLength: 4096, blockCount: 128)
        configuration.maxSequences = 1
        configuration.maxRowsPerStep = 64
        configuration.slidingWindow = 40
        configuration.windowBlockCount = try #require(configuration.windowBlocksPerSequence)
        #expect(configuration.windowBlockCount == 5)
        var scheduler = Scheduler(configuration), model = FakeModel(configuration)
        var request = ScheduledRequest(prompt: (1...100).map { $0 }, maxTokens: 3000, seed: seed)
        request.ignoresEndOfGeneration = true
        try scheduler.submit(request, as: SequenceID())
        // The window blocks were counted for steps of 64 rows.
        scheduler.setRowBudget(perStep: 500, prefillWhileDecoding: 500)
        var tokens: [Int32] = [], mostInUse = 0
        while tokens.count < 3000 {
            let plan = scheduler.schedule()
            #expect(plan.rowCount == [64, 36, 1][min(Int(plan.number) - 1, 2)])
            let next = model.compute(plan.segments[0], plan, seed: seed)
            let token = try #require(next)[0]
            if plan.segments[0].samples { tokens.append(token) }
            _ = scheduler.complete(plan, [plan.segments[0].samples ? .sampled(token) : .computed])
            if tokens.count < 3000 { scheduler.checkInvariants() }
            if !tokens.isEmpty { mostInUse = max(mostInUse, scheduler.statistics.windowBlocksInUse) }
        }
        #expect(mostInUse == 3 && tokens == FakeModel.answer(request.prompt, seed: seed, most: 3000, ignoresEnd: true))
        #expect(scheduler.statistics.windowBlocksTotal == 5 && scheduler.statistics.windowBlocksInUse == 0 && scheduler.statistics.blocksCached == 96)
    }

    /// Any memory is filled with no more than it holds, and windows have what they can need, or each block has its window block.
    @Test func capacitiesFitTheirMemory() {
        #expect(CacheCapacity(byteCount: 1000, blockBytes: 10, windowBlockBytes: 0, blocks: 70, windowBlocks: 0) == .init(byteCount: 700, blockBytes: 10, windowBlockBytes: 0, blocks: 100, windowBlocks: 9))
        var generator = SeededGenerator(11)
        for _ in 0..<5000 {
            let full = Int.random(in: 0...9, using: &generator), windowed = Int.random(in: full == 0 ? 1...9 : 0...9, using: &generator)
            let blocks = Int.random(in: 1...400, using: &generator), windowBlocks = Int.random(in: 1...400, using: &generator)
            let bytes = Int.random(in: full + windowed...6000, using: &generator)
            let found = CacheCapacity(byteCount: bytes, blockBytes: full, windowBlockBytes: windowed, blocks: blocks, windowBlocks: windowBlocks)
            #expect(found.blockCount >= 1 && found.blockCount <= blocks && found.blockCount * full + found.windowBlockCount * windowed <= bytes)
            if windowed == 0 {
                #expect(found.windowBlockCount == 0 && found.blockCount == min(bytes / full, blocks))
            } else {
                #expect(found.windowBlockCount == found.blockCount || found.windowBlockCount >= windowBlocks && found.windowBlockCount < found.blockCount)
                // Never fewer than with one kind of blocks, and nothing is left that would make a block.
                #expect(found.blockCount >= min(bytes / (full + windowed), blocks))
                let left = bytes - found.blockCount * full - found.windowBlockCount * windowed
                #expect(found.blockCount == blocks || left < full + windowed)
            }
        }
    }
}
