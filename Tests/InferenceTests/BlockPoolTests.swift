import Inference
import Testing

private let size = BlockPool.blockSize

private func text(_ blocks: [Int32], extra: Int = 1) -> [Int32] {
    blocks.flatMap { Array(repeating: $0, count: size) } + Array(repeating: -7, count: extra)
}

/// Computes and registers the blocks of `prompt` that are not in `table` yet.
private func fill(_ pool: inout BlockPool, _ table: inout [Int32], _ prompt: [Int32], _ seed: PrefixSeed) {
    while (table.count + 1) * size <= prompt.count {
        let start = table.count * size
        let block = pool.drawReserved()
        let parent: BlockPool.Parent = table.last.map { .block($0) } ?? .root(seed)
        table.append(pool.register(block, after: parent, tokens: prompt[start..<start + size]))
    }
}

extension BlockPool {
    /// An admission that the test expects to succeed.
    fileprivate mutating func admitted(_ prompt: [Int32], seed: PrefixSeed, totalBlocks: Int) throws -> [Int32] {
        let table = admit(prompt, seed: seed, totalBlocks: totalBlocks)
        return try #require(table)
    }
}

struct BlockPoolTests {
    let seed = PrefixSeed(owner: "alice", baseDigest: "base")

    @Test func longestPrefixIsShared() throws {
        var pool = BlockPool(capacity: 20)
        let prompt = text([1, 2, 3])
        var a = try pool.admitted(prompt, seed: seed, totalBlocks: 4)
        #expect(a.isEmpty && pool.reserved == 4)
        fill(&pool, &a, prompt, seed)
        #expect(a.count == 3 && pool.reserved == 1)

        let b = try pool.admitted(text([1, 2, 9]), seed: seed, totalBlocks: 4)
        #expect(b == Array(a[..<2]))
        #expect(pool.referenceCount(a[0]) == 2 && pool.referenceCount(a[2]) == 1)
        // The same tokens in another order are another text.
        #expect(try pool.admitted(text([2, 1]), seed: seed, totalBlocks: 3).isEmpty)
        pool.checkInvariants()
    }

    @Test func theLastTokenIsAlwaysComputed() throws {
        var pool = BlockPool(capacity: 20)
        let whole = text([1, 2], extra: 0)
        var a = try pool.admitted(whole, seed: seed, totalBlocks: 2)
        fill(&pool, &a, whole, seed)
        #expect(try pool.admitted(whole, seed: seed, totalBlocks: 2).count == 1)
        #expect(try pool.admitted(whole + [5], seed: seed, totalBlocks: 3).count == 2)
        #expect(try pool.admitted([1], seed: seed, totalBlocks: 1).isEmpty)
    }

    @Test func nothingIsSharedAcrossSeeds() throws {
        var pool = BlockPool(capacity: 64)
        let prompt = text([1, 2])
        var a = try pool.admitted(prompt, seed: seed, totalBlocks: 3)
        fill(&pool, &a, prompt, seed)
        let adapter = PrefixSeed.Adapter(digest: "x", scale: 1)
        let others = [
            PrefixSeed(owner: "bob", baseDigest: "base"),
            PrefixSeed(owner: "alice", baseDigest: "other"),
            PrefixSeed(owner: "alice", baseDigest: "base", adapters: [adapter]),
            PrefixSeed(owner: "alice", baseDigest: "base", adapters: [.init(digest: "x", scale: 0.5)]),
            PrefixSeed(owner: "alice", baseDigest: "base", adapters: [adapter, .init(digest: "y", scale: 1)]),
            PrefixSeed(owner: "alice", baseDigest: "base", adapters: [.init(digest: "y", scale: 1), adapter]),
        ]
        for other in others {
            var table = try pool.admitted(prompt, seed: other, totalBlocks: 3)
            #expect(table.isEmpty)
            fill(&pool, &table, prompt, other)
            #expect(Set(table).isDisjoint(with: a))
        }
        #expect(try pool.admitted(prompt, seed: seed, totalBlocks: 3) == a)
        pool.checkInvariants()
    }

    @Test func equalBlocksMerge() throws {
        var pool = BlockPool(capacity: 10)
        let prompt = text([1, 2])
        var a = try pool.admitted(prompt, seed: seed, totalBlocks: 3)
        var b = try pool.admitted(prompt, seed: seed, totalBlocks: 3)
        fill(&pool, &a, prompt, seed)
        fill(&pool, &b, prompt, seed)
        #expect(a == b)
        #expect(pool.inUseCount == 2 && pool.statistics.duplicates == 2 && pool.statistics.registrations == 2)
        pool.checkInvariants()
    }

    @Test func cachedBlocksAreEvictedLeastRecentlyUsedAndChildrenFirst() throws {
        var pool = BlockPool(capacity: 6)
        func put(_ blocks: [Int32]) throws -> [Int32] {
            let prompt = text(blocks, extra: 0)
            var table = try pool.admitted(prompt, seed: seed, totalBlocks: blocks.count)
            fill(&pool, &table, prompt, seed)
            pool.release(table)
            return table
        }
        let old = try put([1, 2, 3])
        let young = try put([4, 5, 6])
        #expect(pool.freeCount == 0 && pool.cachedCount == 6)
        // Using the old one makes it young.
        let again = try pool.admitted(text([1, 2, 3]), seed: seed, totalBlocks: 3)
        #expect(again == old)
        pool.release(again)
        var taken: [Int32] = []
        while let block = pool.allocate() {
            taken.append(block)
            pool.checkInvariants()
        }
        #expect(taken == young.reversed() + old.reversed())
        #expect(pool.statistics.evictions == 6)
        pool.release(taken)
        #expect(pool.freeCount == 6)
        pool.checkInvariants()
    }

    @Test func anEvictedParentDoesNotReviveItsChildren() throws {
        var pool = BlockPool(capacity: 3)
        let prompt = text([1, 2], extra: 0)
        var a = try pool.admitted(prompt, seed: seed, totalBlocks: 2)
        fill(&pool, &a, prompt, seed)
        pool.release(a)
        let all = (0..<3).map { _ in pool.allocate()! }
        pool.release(all)
        // The first block comes back under a new number; the second is a different continuation.
        let other = text([1], extra: 0)
        var b = try pool.admitted(other, seed: seed, totalBlocks: 1)
        fill(&pool, &b, other, seed)
        #expect(try pool.admitted(text([1, 2]), seed: seed, totalBlocks: 2).count == 1)
        pool.checkInvariants()
    }

    @Test func reservationsAreKept() throws {
        var pool = BlockPool(capacity: 10)
        let a = try pool.admitted(text([1]), seed: seed, totalBlocks: 6)
        #expect(pool.admit(text([2]), seed: seed, totalBlocks: 5) == nil)
        #expect(pool.reserved == 6)
        let b = try pool.admitted(text([2]), seed: seed, totalBlocks: 4)
        #expect(pool.allocate() == nil)
        var drawn: [Int32] = a + b
        for _ in 0..<10 { drawn.append(pool.drawReserved()) }
        #expect(Set(drawn).count == 10 && pool.available == 0)
        pool.release(drawn)
        pool.checkInvariants()
    }

    @Test func sharedBlocksDoNotEatIntoReservations() throws {
        // All blocks but four are cached and wanted by a prompt; the four are promised.
        var pool = BlockPool(capacity: 8)
        let prompt = text([1, 2, 3, 4], extra: 0)
        var a = try pool.admitted(prompt, seed: seed, totalBlocks: 4)
        fill(&pool, &a, prompt, seed)
        pool.release(a)
        _ = try pool.admitted(text([9]), seed: seed, totalBlocks: 5)
        // Retaining the four would leave four for five.
        #expect(pool.admit(text([1, 2, 3, 4]), seed: seed, totalBlocks: 5) == nil)
        pool.checkInvariants()
        #expect(try pool.admitted(text([1, 2]), seed: seed, totalBlocks: 3).count == 2)
        pool.checkInvariants()
    }

    /// Thousands of random operations against a model that knows only texts; with a hash of few bits so that nearly every
    /// bucket and hash collides.
    @Test(arguments: [UInt64.max, 3, 0]) func randomOperationsEqualTheModel(hashMask: UInt64) {
        var generator = SeededGenerator(hashMask & 0xFF + 5)
        let capacity = 40
        var pool = BlockPool(capacity: capacity, hashMask: hashMask)
        struct Holder {
            var seed: PrefixSeed
            var prompt: [Int32]
            var table: [Int32]
            var reserved: Int
        }
        var holders: [Holder] = []
        var singles: [Int32] = []
        /// What a block was last registered as: its seed and all tokens up to its end.
        var contents: [Int32: (PrefixSeed, [Int32])] = [:]
        let seeds = [seed, PrefixSeed(owner: "bob", baseDigest: "base")]
        for step in 0..<8000 {
            switch Int.random(in: 0..<10, using: &generator) {
            case 0..<4:
                let seed = seeds.randomElement(using: &generator)!
                let blocks = (0..<Int.random(in: 0...4, using: &generator)).map { _ in Int32.random(in: 0...2, using: &generator) }
                let prompt = text(blocks, extra: Int.random(in: blocks.isEmpty ? 1...3 : 0...3, using: &generator))
                let total = BlockPool.blocks(for: prompt.count) + Int.random(in: 0...3, using: &generator)
                let before = (pool.available, pool.reserved, pool.inUseCount)
                guard let table = pool.admit(prompt, seed: seed, totalBlocks: total) else {
                    #expect(before == (pool.available, pool.reserved, pool.inUseCount))
                    #expect(before.0 - before.1 < total)
                    break
                }
                for (i, block) in table.enumerated() {
                    #expect(contents[block]?.0 == seed)
                    #expect(contents[block]?.1 == Array(prompt[..<((i + 1) * size)]))
                }
                #expect(table.count * size < prompt.count)
                holders.append(Holder(seed: seed, prompt: prompt, table: table, reserved: total - table.count))
            case 4..<7:
                guard !holders.isEmpty else { break }
                let i = holders.indices.randomElement(using: &generator)!
                guard holders[i].reserved > 0 else { break }
                let start = holders[i].table.count * size
                guard start + size <= holders[i].prompt.count else { break }
                let parent: BlockPool.Parent = holders[i].table.last.map { .block($0) } ?? .root(holders[i].seed)
                let tokens = holders[i].prompt[start..<start + size]
                let known = pool.find(tokens, after: parent)
                if let known, Bool.random(using: &generator) {
                    pool.drawReserved(sharing: known)
                    holders[i].table.append(known)
                } else {
                    let block = pool.drawReserved()
                    contents[block] = nil
                    let kept = pool.register(block, after: parent, tokens: tokens)
                    // Drawing may have evicted the known one; if not, it is the one to use.
                    if kept != block {
                        #expect(kept == known)
                    } else {
                        contents[kept] = (holders[i].seed, Array(holders[i].prompt[..<(start + size)]))
                    }
                    holders[i].table.append(kept)
                }
                holders[i].reserved -= 1
            case 7:
                guard !holders.isEmpty else { break }
                let holder = holders.remove(at: holders.indices.randomElement(using: &generator)!)
                pool.release(holder.table)
                pool.cancelReservation(holder.reserved)
            case 8:
                if let block = pool.allocate() {
                    contents[block] = nil
                    singles.append(block)
                } else {
                    #expect(pool.available == pool.reserved)
                }
            default:
                guard !singles.isEmpty else { break }
                pool.release(singles.remove(at: singles.indices.randomElement(using: &generator)!))
            }
            var users: [Int32: Int] = [:]
            for block in holders.flatMap(\.table) + singles { users[block, default: 0] += 1 }
            #expect(pool.inUseCount == users.count)
            #expect(users.allSatisfy { pool.referenceCount($0.key) == $0.value })
            #expect(pool.reserved == holders.map(\.reserved).reduce(0, +))
            #expect(pool.freeCount + pool.cachedCount + pool.inUseCount == capacity)
            if step % 16 == 0 { pool.checkInvariants() }
        }
        for holder in holders {
            pool.release(holder.table)
            pool.cancelReservation(holder.reserved)
        }
        for block in singles { pool.release(block) }
        #expect(pool.inUseCount == 0 && pool.reserved == 0 && pool.available == capacity)
        #expect(pool.statistics.hits > 100 && pool.statistics.evictions > 100 && pool.statistics.duplicates > 10)
        pool.checkInvariants()
    }
}
