/// Bytes on their way out: appended at one end, written from the other, in blocks whose addresses do not move, so that a system
/// call can gather them without copying.
public struct ByteQueue: ~Copyable {
    struct Block {
        let base: UnsafeMutablePointer<UInt8>
        let capacity: Int
        var start = 0
        var end = 0

        var free: Int { capacity - end }
        var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: base + start, count: end - start) }
    }

    /// What one block holds unless a single append is larger. The first is small: most answers are.
    static let firstBlockSize = 4096
    static let blockSize = 16384

    private(set) var blocks: [Block] = []
    /// Index of the oldest block in `blocks`.
    private(set) var head = 0
    /// How many bytes wait.
    public private(set) var count = 0

    public init() {}

    deinit {
        for block in blocks[head...] {
            block.base.deallocate()
        }
    }

    public var isEmpty: Bool { count == 0 }

    public mutating func append(_ bytes: [UInt8]) {
        bytes.withUnsafeBytes { append($0) }
    }

    public mutating func append(_ bytes: UnsafeRawBufferPointer) {
        guard var source = bytes.baseAddress, bytes.count > 0 else { return }
        var left = bytes.count
        count += left
        if head < blocks.count {
            let last = blocks.count - 1
            let part = min(left, blocks[last].free)
            if part > 0 {
                UnsafeMutableRawPointer(blocks[last].base + blocks[last].end).copyMemory(from: source, byteCount: part)
                blocks[last].end += part
                source += part
                left -= part
            }
        }
        guard left > 0 else { return }
        let capacity = max(left, head < blocks.count ? ByteQueue.blockSize : ByteQueue.firstBlockSize)
        var block = Block(base: .allocate(capacity: capacity), capacity: capacity)
        UnsafeMutableRawPointer(block.base).copyMemory(from: source, byteCount: left)
        block.end = left
        blocks.append(block)
    }

    /// Forgets the first `n` bytes, which were written.
    public mutating func removeFirst(_ n: Int) {
        precondition(n >= 0 && n <= count, "cannot remove \(n) of \(count) bytes")
        count -= n
        var left = n
        while left > 0 {
            let available = blocks[head].end - blocks[head].start
            if left < available {
                blocks[head].start += left
                return
            }
            left -= available
            blocks[head].base.deallocate()
            head += 1
        }
        if head == blocks.count {
            blocks.removeAll(keepingCapacity: true)
            head = 0
        } else if head >= 64 {
            blocks.removeFirst(head)
            head = 0
        }
    }

    public mutating func removeAll() {
        removeFirst(count)
    }

    /// Moves whole blocks from the front to the end of another queue until that holds at least `n` bytes or nothing is left.
    mutating func moveFirst(_ n: Int, to other: inout ByteQueue) {
        while head < blocks.count, other.count < n {
            let block = blocks[head]
            head += 1
            count -= block.bytes.count
            other.blocks.append(block)
            other.count += block.bytes.count
        }
        if head == blocks.count {
            blocks.removeAll(keepingCapacity: true)
            head = 0
        }
    }

    /// Calls `body` with the oldest bytes that lie together; none when nothing waits.
    public borrowing func withFirst<Result>(_ body: (UnsafeRawBufferPointer) -> Result) -> Result {
        body(head < blocks.count ? blocks[head].bytes : UnsafeRawBufferPointer(start: nil, count: 0))
    }

    /// A copy of what waits, for tests and small things.
    public func contents() -> [UInt8] {
        var all: [UInt8] = []
        all.reserveCapacity(count)
        for block in blocks[head...] {
            all.append(contentsOf: block.bytes)
        }
        return all
    }
}
