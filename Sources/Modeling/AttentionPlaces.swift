import Kernels

/// Where a step's rows find and leave keys and values, in blocks of one kind.
struct AttentionPlaces {
    private(set) var runs: [Compute.AttentionRun] = []
    /// Of each row.
    let slots: UnsafeBufferPointer<Int64>

    /// - Parameters:
    ///   - slots, table: must stay alive; the table is the segments' tables one after the other.
    ///   - offsets: where each of them begins.
    init(_ segments: [ForwardSegment], slots: UnsafeBufferPointer<Int64>, table: UnsafeBufferPointer<Int32>, offsets: [Int]) {
        self.slots = slots
        runs.reserveCapacity(segments.count)
        var row = 0
        for (segment, offset) in zip(segments, offsets) {
            runs.append(.init(row: row, count: segment.tokens.count, position: segment.position, blocks: table.baseAddress! + offset))
            row += segment.tokens.count
        }
    }
}

extension ForwardPass {
    /// Calls `body` with the places in window blocks, which are valid until it returns; `nil` if the cache has none.
    func withWindowPlaces(_ segments: [ForwardSegment], _ body: (AttentionPlaces?) -> Void) {
        guard cache.hasWindowBlocks, let window = model.configuration.slidingWindow else { return body(nil) }
        let size = KVCache.blockTokens
        var slots: [Int64] = [], table: [Int32] = [], offsets: [Int] = []
        for segment in segments {
            let begin = table.count, unseen = segment.blocks.count - segment.windowBlocks.count
            precondition(unseen >= 0 && unseen <= max(segment.position - window + 1, 0) / size, "a segment without window blocks")
            offsets.append(begin)
            // No row looks up what is behind its window.
            table += repeatElement(0, count: unseen)
            table += segment.windowBlocks
            for position in segment.position..<segment.position + segment.tokens.count {
                slots.append(Int64(table[begin + position / size]) * Int64(size) + Int64(position % size))
            }
        }
        slots.withUnsafeBufferPointer { slots in
            table.withUnsafeBufferPointer { table in body(AttentionPlaces(segments, slots: slots, table: table, offsets: offsets)) }
        }
    }
}
