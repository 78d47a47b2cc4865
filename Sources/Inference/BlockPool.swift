import Kernels

/// Bookkeeping of the KV cache: which of its blocks are in use, by how many sequences, and which hold keys and values that a
/// new prompt can start from. It holds no keys or values itself; a block is an index.
///
/// A block that is full can be registered under (what its prefix depends on, the blocks before it, its tokens). When the last
/// user lets go of it, it stays as a *cached* block, that is evicted, least recently used first, when a fresh one is needed.
///
/// Keys are chained: a registration has a serial number that is never reused, and its child's key is (that number, the child's
/// tokens). The hash only finds the bucket; a hit is taken when parent number and all tokens are equal, so no collision can
/// hand one text's keys and values to another.
///
/// Order of eviction: `release` lets go of a table from its end, and whoever holds a registered block also holds the blocks
/// before it, so a parent is always used more recently than its children and is evicted after them.
///
/// Reservations: a sequence reserves at admission the blocks of the tokens that it comes with and draws them one by one, so nobody is
/// left in the middle of a prompt for want of a block. `available` never falls below `reserved` between two calls. Those of further
/// tokens are allocated when they are needed, out of what is not reserved.
///
/// Sliding windows: a block holds the keys and values of the layers that see everything; those of layers with a window are in the window block that is attached
/// to it (`WindowBlocks`). A sequence uses the window blocks of what its next row sees, that is of `firstInWindow` and all blocks after it. It goes on from cached
/// blocks only if those that it would see still have theirs.
public struct BlockPool: Sendable {
    /// Tokens per block.
    public static let blockSize = KVCache.blockTokens

    /// What a registered block continues.
    public enum Parent: Sendable {
        case root(PrefixSeed)
        case block(Int32)
    }

    /// Running totals since the start.
    public struct Statistics: Sendable, Equatable {
        /// Whole blocks of the admitted prompts, and those that the cache had, at admission or later.
        public var lookedUp: UInt64 = 0, hits: UInt64 = 0
        public var registrations: UInt64 = 0
        /// Registrations of what another block already held.
        public var duplicates: UInt64 = 0
        public var evictions: UInt64 = 0

        public init() {}
    }

    private struct Root: Sendable {
        let serial: UInt64
        /// Registered first blocks under this seed; the entry goes with the last of them.
        var blocks: Int
    }

    public let capacity: Int
    public private(set) var statistics = Statistics()
    /// Blocks promised to running sequences and not drawn yet.
    public private(set) var reserved = 0

    private var free: [Int32]
    private var references: [Int32]
    /// Of a registered block: its number (0: not registered), its parent's, its hash and its tokens.
    private var serials: [UInt64]
    private var parents: [UInt64]
    private var hashes: [UInt64]
    private var tokens: [Int32]
    private var nextSerial: UInt64 = 1
    private var roots: [PrefixSeed: Root] = [:]
    private var seeds: [UInt64: PrefixSeed] = [:]
    /// First block of each hash bucket and the next one in the same bucket; -1 ends the chain.
    private var buckets: [Int32]
    private var nextInBucket: [Int32]
    /// The cached blocks.
    private var cached: BlockRing
    /// `nil`: no layer has a window.
    private var windows: WindowBlocks?
    private let hashKey: UInt64
    private let hashMask: UInt64

    /// - Parameters:
    ///   - window: positions that rows see in layers with a sliding window; `nil`: there are none.
    ///   - windowCapacity: window blocks: as many as its users can need at once, or as many as blocks.
    public init(capacity: Int, window: Int? = nil, windowCapacity: Int = 0) {
        self.init(capacity: capacity, window: window, windowCapacity: windowCapacity, hashMask: .max)
    }

    /// - Parameter hashMask: the bits of the hash in use; tests make it collide.
    package init(capacity: Int, window: Int? = nil, windowCapacity: Int = 0, hashMask: UInt64) {
        precondition(capacity > 0 && capacity < Int32.max, "a pool has 1…2^31 - 2 blocks, not \(capacity)")
        self.capacity = capacity
        self.hashMask = hashMask
        // Prompts come from clients: with a known hash they could be made to share one bucket.
        hashKey = UInt64.random(in: .min ... .max)
        free = (0..<Int32(capacity)).reversed()
        references = Array(repeating: 0, count: capacity)
        serials = Array(repeating: 0, count: capacity)
        parents = Array(repeating: 0, count: capacity)
        hashes = Array(repeating: 0, count: capacity)
        tokens = Array(repeating: 0, count: capacity * Self.blockSize)
        var bucketCount = 16
        while bucketCount < 2 * capacity { bucketCount *= 2 }
        buckets = Array(repeating: -1, count: bucketCount)
        nextInBucket = Array(repeating: -1, count: capacity)
        cached = BlockRing(capacity: capacity)
        windows = window.map { WindowBlocks(window: $0, capacity: windowCapacity, blockCount: capacity) }
    }

    // MARK: Counts

    /// Blocks that hold nothing.
    public var freeCount: Int { free.count }
    /// Blocks that nobody uses and that hold something worth finding.
    public var cachedCount: Int { cached.count }
    /// Blocks that a sequence uses.
    public var inUseCount: Int { capacity - free.count - cachedCount }
    /// Blocks that can be handed out, evicting cached ones if need be.
    public var available: Int { free.count + cachedCount }
    /// Those of them that nobody was promised.
    public var unreserved: Int { available - reserved }
    /// How many users a block has.
    public func referenceCount(_ block: Int32) -> Int { Int(references[Int(block)]) }
    public func isRegistered(_ block: Int32) -> Bool { serials[Int(block)] != 0 }
    /// Whether letting go of `table` makes any of its blocks available.
    func hasOwnBlock(_ table: [Int32]) -> Bool { table.reversed().contains { references[Int($0)] == 1 } }
    /// Window blocks: all, and those that a sequence uses; 0 without windows.
    public var windowCapacity: Int { windows?.capacity ?? 0 }
    public var windowInUseCount: Int { windows?.inUseCount ?? 0 }
    /// How many users a block's window block has, `nil` if the block has none.
    package func windowUserCount(_ block: Int32) -> Int? { windows.flatMap { $0.isAttached(to: block) ? $0.userCount(of: block) : nil } }
    /// What `table` takes of the pool: of a block with n users an nth.
    func share(of table: [Int32]) -> Double { table.reduce(0) { $0 + 1 / Double(references[Int($1)]) } }

    /// Blocks that `count` tokens take.
    public static func blocks(for count: Int) -> Int { (count + blockSize - 1) / blockSize }

    // MARK: Admission

    /// Takes a sequence in: retains the cached blocks that its prompt starts with (whole blocks, never the whole prompt, since
    /// its last token has to be computed for its logits), those of their window blocks that its next row sees, and reserves the others.
    /// - Parameters:
    ///   - prompt: what the sequence comes with; one that was preempted comes with its answer so far.
    ///   - totalBlocks: what is to be its own, those of the prompt included.
    ///   - findable: positions that may be taken from the cache; `nil`: all but the last one.
    ///   - headRoom: blocks that have to stay unreserved.
    /// - Returns: the cached blocks in order, or `nil`, with nothing changed, if there is no room now.
    public mutating func admit(
        _ prompt: [Int32], seed: PrefixSeed, totalBlocks: Int, findable: Int? = nil, headRoom: Int = 0
    ) -> [Int32]? {
        let limit = min(min(findable ?? .max, prompt.count - 1) / Self.blockSize, totalBlocks)
        let table = continuation(of: [], prompt, seed: seed, findable: limit * Self.blockSize)
        for block in table { retain(block) }
        guard unreserved >= totalBlocks - table.count + headRoom else {
            release(table, firstInWindow: table.count)
            return nil
        }
        if windows != nil {
            for block in table[firstInWindow(at: table.count * Self.blockSize)...] { windows!.retain(block) }
        }
        statistics.lookedUp += UInt64(limit)
        statistics.hits += UInt64(table.count)
        reserved += totalBlocks - table.count
        return table
    }

    /// The registered blocks with which a sequence can go on after those of `table`: as many of them, in order, as hold what follows in `tokens` and leave a next
    /// row that finds the window blocks of all that it sees. None is retained.
    /// - Parameters:
    ///   - table: the sequence's blocks so far, all full and registered.
    ///   - findable: positions that may be taken from the cache.
    public func continuation(of table: [Int32], _ tokens: [Int32], seed: PrefixSeed, findable: Int) -> [Int32] {
        var found: [Int32] = [], usable = 0
        // The last block that has lost its window block. Those of the table that the sequence sees have theirs.
        var lost = -1
        while (table.count + found.count + 1) * Self.blockSize <= findable {
            let start = (table.count + found.count) * Self.blockSize
            let parent: Parent = (found.last ?? table.last).map { .block($0) } ?? .root(seed)
            guard let block = find(tokens[start..<start + Self.blockSize], after: parent) else { break }
            if let windows, !windows.isAttached(to: block) { lost = table.count + found.count }
            found.append(block)
            if lost < firstInWindow(at: start + Self.blockSize) { usable = found.count }
        }
        found.removeLast(found.count - usable)
        return found
    }

    /// Gives back reservations that will not be drawn.
    public mutating func cancelReservation(_ count: Int) {
        precondition(count >= 0 && count <= reserved, "\(count) of \(reserved) reserved blocks given back")
        reserved -= count
    }

    /// A fresh block, used once, out of a reservation.
    public mutating func drawReserved() -> Int32 {
        precondition(reserved > 0, "a block drawn without a reservation")
        reserved -= 1
        return take()
    }

    /// A cached or used block in the place of a fresh one of a reservation.
    /// - Parameter inWindow: whether its window block is wanted.
    public mutating func drawReserved(sharing block: Int32, inWindow: Bool = true) {
        precondition(reserved > 0, "a block shared without a reservation")
        reserved -= 1
        statistics.hits += 1
        retain(block)
        if inWindow { windows?.retain(block) }
    }

    /// A fresh block, used once, without a reservation; `nil` if all others are in use or promised.
    public mutating func allocate() -> Int32? {
        unreserved > 0 ? take() : nil
    }

    private mutating func take() -> Int32 {
        let block: Int32
        if let last = free.popLast() {
            block = last
        } else {
            guard let oldest = cached.oldest else { preconditionFailure("a block taken from an exhausted pool") }
            block = oldest
            cached.remove(block)
            unregister(block)
            windows?.detach(from: block)
            statistics.evictions += 1
        }
        references[Int(block)] = 1
        windows?.attach(to: block)
        return block
    }

    // MARK: Users

    /// Adds a user to a block that is in use or cached.
    private mutating func retain(_ block: Int32) {
        let i = Int(block)
        precondition(references[i] > 0 || serials[i] != 0, "block \(block) retained while free")
        if references[i] == 0 { cached.remove(block) }
        references[i] += 1
    }

    /// Takes a user from a block; without users it becomes cached, if it is registered, or free.
    /// - Parameter inWindow: whether it used the window block too.
    public mutating func release(_ block: Int32, inWindow: Bool = true) {
        let i = Int(block)
        precondition(references[i] > 0, "block \(block) released more often than retained")
        if inWindow { windows?.release(block) }
        references[i] -= 1
        guard references[i] == 0 else { return }
        if serials[i] != 0 {
            cached.append(block)
        } else {
            windows?.detach(from: block)
            free.append(block)
        }
    }

    /// Releases the blocks of a sequence, the last first (see "order of eviction" above).
    /// - Parameter firstInWindow: the first one whose window block it used.
    public mutating func release(_ table: [Int32], firstInWindow: Int = 0) {
        for i in table.indices.reversed() { release(table[i], inWindow: i >= firstInWindow) }
    }

    // MARK: Windows

    /// The first block that a row at `position` sees in layers with a sliding window; 0 if there are none.
    public func firstInWindow(at position: Int) -> Int { windows?.first(at: position) ?? 0 }

    /// Takes a user from the window block of a block that it goes on using: the block has left the sequence's window.
    public mutating func leaveWindow(_ block: Int32) {
        windows?.release(block)
    }

    /// The window blocks of blocks of which a sequence uses them; none without windows.
    public func windowBlocks(of blocks: ArraySlice<Int32>) -> [Int32] {
        guard let windows else { return [] }
        return blocks.map { windows[$0] }
    }

    // MARK: Registration

    /// Makes a full block findable. If another block already holds the same, the caller's is released and the other one is
    /// retained in its place: equal prefixes have equal keys and values to the bit, however they were computed. If the other one has lost its window block, it
    /// gets the caller's.
    /// - Parameters:
    ///   - block: the caller uses its window block as well, and so it does with what is returned.
    ///   - parent: the block before it, registered itself.
    ///   - tokens: the block's own, `blockSize` of them.
    /// - Returns: the block to use from now on.
    public mutating func register(_ block: Int32, after parent: Parent, tokens blockTokens: ArraySlice<Int32>) -> Int32 {
        let i = Int(block)
        precondition(references[i] > 0, "block \(block) registered while nobody uses it")
        precondition(serials[i] == 0, "block \(block) registered twice")
        precondition(blockTokens.count == Self.blockSize, "\(blockTokens.count) tokens registered as a block of \(Self.blockSize)")
        if let twin = find(blockTokens, after: parent) {
            statistics.duplicates += 1
            retain(twin)
            if windows != nil {
                if windows!.isAttached(to: twin) {
                    windows!.retain(twin)
                    windows!.release(block)
                } else {
                    windows!.move(from: block, to: twin)
                }
            }
            release(block, inWindow: false)
            return twin
        }
        let parentSerial: UInt64
        switch parent {
        case .block(let p):
            parentSerial = serials[Int(p)]
            precondition(parentSerial != 0, "block \(block) registered after block \(p), which is not registered")
        case .root(let seed):
            if roots[seed] == nil {
                let root = Root(serial: makeSerial(), blocks: 0)
                roots[seed] = root
                seeds[root.serial] = seed
            }
            roots[seed]!.blocks += 1
            parentSerial = roots[seed]!.serial
        }
        serials[i] = makeSerial()
        parents[i] = parentSerial
        hashes[i] = hash(parentSerial, blockTokens)
        var slot = i * Self.blockSize
        for token in blockTokens {
            tokens[slot] = token
            slot += 1
        }
        let bucket = bucket(of: hashes[i])
        nextInBucket[i] = buckets[bucket]
        buckets[bucket] = block
        statistics.registrations += 1
        return block
    }

    /// The registered block that continues `parent` with these `blockSize` tokens. It is not retained.
    public func find(_ blockTokens: ArraySlice<Int32>, after parent: Parent) -> Int32? {
        let parentSerial: UInt64
        switch parent {
        case .block(let p): parentSerial = serials[Int(p)]
        case .root(let seed): parentSerial = roots[seed]?.serial ?? 0
        }
        guard parentSerial != 0 else { return nil }
        let hash = hash(parentSerial, blockTokens)
        var block = buckets[bucket(of: hash)]
        while block >= 0 {
            let i = Int(block)
            if hashes[i] == hash, parents[i] == parentSerial,
                tokens[i * Self.blockSize..<(i + 1) * Self.blockSize].elementsEqual(blockTokens)
            {
                return block
            }
            block = nextInBucket[i]
        }
        return nil
    }

    private mutating func makeSerial() -> UInt64 {
        defer { nextSerial += 1 }
        return nextSerial
    }

    private func bucket(of hash: UInt64) -> Int {
        Int(truncatingIfNeeded: hash) & (buckets.count - 1)
    }

    private func hash(_ parent: UInt64, _ blockTokens: ArraySlice<Int32>) -> UInt64 {
        var state = hashKey ^ parent &* 0x9E37_79B9_7F4A_7C15
        for token in blockTokens {
            state = (state ^ UInt64(UInt32(bitPattern: token))) &* 0xD6E8_FEB8_6659_FD93
            state ^= state >> 32
        }
        return state & hashMask
    }

    private mutating func unregister(_ block: Int32) {
        let i = Int(block)
        let bucket = bucket(of: hashes[i])
        if buckets[bucket] == block {
            buckets[bucket] = nextInBucket[i]
        } else {
            var before = buckets[bucket]
            while nextInBucket[Int(before)] != block { before = nextInBucket[Int(before)] }
            nextInBucket[Int(before)] = nextInBucket[i]
        }
        nextInBucket[i] = -1
        serials[i] = 0
        if let seed = seeds[parents[i]] {
            roots[seed]!.blocks -= 1
            if roots[seed]!.blocks == 0 {
                roots[seed] = nil
                seeds[parents[i]] = nil
            }
        }
    }

    // MARK: Invariants

    /// Walks everything and stops the process at the first contradiction; for tests and debugging.
    package func checkInvariants() {
        precondition(reserved >= 0 && reserved <= available, "reserved \(reserved), available \(available)")
        precondition(Set(free).count == free.count, "a block is free twice")
        let ring = cached.blocks
        precondition(ring.count == cachedCount && Set(ring).count == cachedCount, "the ring holds \(ring.count) blocks, not \(cachedCount)")
        precondition(Set(ring).isDisjoint(with: free), "a block is free and cached")
        for b in ring { precondition(references[Int(b)] == 0 && serials[Int(b)] != 0, "cached block \(b) is used or unregistered") }
        for b in free { precondition(references[Int(b)] == 0 && serials[Int(b)] == 0, "free block \(b) is used or registered") }
        let inUse = references.count { $0 > 0 }
        precondition(inUse == inUseCount, "\(inUse) blocks have users, \(inUseCount) are counted")

        var bySerial: [UInt64: Int] = [:]
        for i in 0..<capacity where serials[i] != 0 { bySerial[serials[i]] = i }
        var firstBlocks: [UInt64: Int] = [:]
        for i in 0..<capacity where serials[i] != 0 {
            if let parent = bySerial[parents[i]] {
                precondition(references[i] == 0 || references[parent] > 0, "block \(i) is used and its parent \(parent) is not")
            } else {
                precondition(seeds[parents[i]] != nil, "the parent of block \(i) is gone")
                firstBlocks[parents[i], default: 0] += 1
            }
        }
        precondition(firstBlocks.count == roots.count && roots.count == seeds.count, "\(roots.count) roots, \(firstBlocks.count) in use")
        for root in roots.values { precondition(firstBlocks[root.serial] == root.blocks, "a root miscounts its blocks") }
        var chained = 0
        for head in buckets {
            var block = head
            while block >= 0 {
                chained += 1
                block = nextInBucket[Int(block)]
            }
        }
        precondition(chained == bySerial.count, "\(chained) blocks in buckets, \(bySerial.count) registered")
        windows?.checkInvariants(references: references, free: free)
    }
}
