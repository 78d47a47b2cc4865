/// Blocks of the cache, each at most once, in the order in which they were appended; any can leave at any time. The oldest one is the least recently used.
struct BlockRing: Sendable {
    private(set) var count = 0
    /// The neighbours of each block; the entry behind the last block is the ring's head.
    private var newer: [Int32], older: [Int32]

    /// - Parameter capacity: blocks are 0 ..< capacity.
    init(capacity: Int) {
        newer = Array(repeating: Int32(capacity), count: capacity + 1)
        older = newer
    }

    private var head: Int { newer.count - 1 }

    var oldest: Int32? { count == 0 ? nil : newer[head] }

    mutating func append(_ block: Int32) {
        let newest = older[head]
        newer[Int(newest)] = block
        older[Int(block)] = newest
        newer[Int(block)] = Int32(head)
        older[head] = block
        count += 1
    }

    mutating func remove(_ block: Int32) {
        let before = older[Int(block)], after = newer[Int(block)]
        newer[Int(before)] = after
        older[Int(after)] = before
        count -= 1
    }

    /// All of them, the oldest first.
    var blocks: [Int32] {
        var blocks: [Int32] = []
        var block = newer[head]
        while block != Int32(head), blocks.count <= count {
            blocks.append(block)
            block = newer[Int(block)]
        }
        return blocks
    }
}
