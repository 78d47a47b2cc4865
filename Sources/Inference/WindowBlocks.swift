/// Bookkeeping of window blocks: what the layers with a sliding window have of a block's keys and values. They are fewer than the blocks, because a sequence
/// needs those of its last few blocks only, however long it is.
///
/// A block that is taken gets a window block at once. Each sequence that can still see the block through its window is a user of the window block. Without users
/// it stays attached, so that a prompt that ends near it can be continued, until another block needs it: the least recently used goes first, whether or not its
/// block is in use. With its block it goes at once.
///
/// There are enough of them for all windows at once (`SchedulerConfiguration.windowBlocksPerSequence`), or as many as blocks. So one can always be had, and only
/// the blocks themselves are reserved, waited for and fought over.
struct WindowBlocks: Sendable {
    /// Positions that a row sees, its own included.
    let window: Int
    let capacity: Int
    private var free: [Int32]
    /// Of each block its window block, -1: none, and the users of that.
    private var attached: [Int32]
    private var users: [Int32]
    /// Blocks whose window blocks have no users.
    private var unused: BlockRing

    init(window: Int, capacity: Int, blockCount: Int) {
        precondition(window > 0 && capacity > 0 && capacity <= blockCount, "\(capacity) window blocks for \(blockCount) blocks and windows of \(window)")
        self.window = window
        self.capacity = capacity
        free = (0..<Int32(capacity)).reversed()
        attached = Array(repeating: -1, count: blockCount)
        users = Array(repeating: 0, count: blockCount)
        unused = BlockRing(capacity: blockCount)
    }

    /// Window blocks that some sequence can see.
    var inUseCount: Int { capacity - free.count - unused.count }

    func isAttached(to block: Int32) -> Bool { attached[Int(block)] >= 0 }
    func userCount(of block: Int32) -> Int { Int(users[Int(block)]) }
    /// The window block of a block that has one.
    subscript(block: Int32) -> Int32 { attached[Int(block)] }

    /// The first block that a row at `position` sees.
    func first(at position: Int) -> Int { max(position - window + 1, 0) / BlockPool.blockSize }

    /// Gives a block that has none a window block, with one user.
    mutating func attach(to block: Int32) {
        precondition(attached[Int(block)] < 0, "block \(block) has a window block already")
        if free.isEmpty {
            guard let oldest = unused.oldest else { preconditionFailure("all \(capacity) window blocks are in use") }
            detach(from: oldest)
        }
        attached[Int(block)] = free.removeLast()
        users[Int(block)] = 1
    }

    /// Adds a user to the window block of a block.
    mutating func retain(_ block: Int32) {
        precondition(attached[Int(block)] >= 0, "the window block of block \(block) retained after it has gone")
        if users[Int(block)] == 0 { unused.remove(block) }
        users[Int(block)] += 1
    }

    /// Takes a user from it.
    mutating func release(_ block: Int32) {
        precondition(users[Int(block)] > 0, "the window block of block \(block) released more often than retained")
        users[Int(block)] -= 1
        if users[Int(block)] == 0 { unused.append(block) }
    }

    /// Takes the window block, if there is one, from a block that nobody sees any more.
    mutating func detach(from block: Int32) {
        guard attached[Int(block)] >= 0 else { return }
        precondition(users[Int(block)] == 0, "the window block of block \(block) taken from its users")
        unused.remove(block)
        free.append(attached[Int(block)])
        attached[Int(block)] = -1
    }

    /// Hands the window block and its users on to a block that has none and holds the same tokens.
    mutating func move(from block: Int32, to other: Int32) {
        precondition(users[Int(block)] > 0 && attached[Int(other)] < 0, "the window block of block \(block) cannot go to block \(other)")
        attached.swapAt(Int(block), Int(other))
        users.swapAt(Int(block), Int(other))
    }

    /// Walks everything and stops the process at the first contradiction. Who uses a window block must use its block, and a block that holds nothing has none.
    func checkInvariants(references: [Int32], free freeBlocks: [Int32]) {
        let ring = unused.blocks
        precondition(ring.count == unused.count && Set(ring).count == ring.count, "the ring holds \(ring.count) window blocks, not \(unused.count)")
        for block in ring { precondition(isAttached(to: block) && userCount(of: block) == 0, "the window block of block \(block) is in the ring") }
        let held = attached.filter { $0 >= 0 }
        precondition(Set(held + free) == Set(0..<Int32(capacity)) && held.count + free.count == capacity, "a window block is lost or held twice")
        precondition(users.count { $0 > 0 } == inUseCount, "\(inUseCount) window blocks in use are counted")
        for (block, count) in users.enumerated() {
            precondition(count <= references[block], "block \(block) has \(references[block]) users, its window block \(count)")
            precondition(count == 0 || attached[block] >= 0, "block \(block) has users in a window, and no window block")
        }
        for block in freeBlocks { precondition(attached[Int(block)] < 0, "free block \(block) has a window block") }
    }
}
