/// Rank and result of merging two neighbouring tokens.
struct MergeTable: Sendable {
    struct Entry: BitwiseCopyable, Sendable {
        var pair: UInt64
        var rank: UInt32
        var result: Int32
    }

    private let slots: ConstantBuffer<Entry>
    private let shift: UInt64
    private let mask: Int

    private static let empty = UInt64.max

    /// - Parameter merges: in order of rank; a pair that comes again keeps its first rank.
    init(_ merges: [(left: Int32, right: Int32, result: Int32)]) {
        var bits: UInt64 = 4
        while 1 << bits < merges.count * 2 { bits += 1 }
        shift = 64 - bits
        mask = 1 << bits - 1
        var table = [Entry](repeating: Entry(pair: Self.empty, rank: .max, result: -1), count: 1 << bits)
        for (rank, merge) in merges.enumerated() {
            let pair = Self.key(merge.left, merge.right)
            var slot = Self.slot(pair, shift)
            while table[slot].pair != Self.empty, table[slot].pair != pair { slot = (slot + 1) & mask }
            if table[slot].pair == Self.empty {
                table[slot] = Entry(pair: pair, rank: UInt32(rank), result: merge.result)
            }
        }
        slots = ConstantBuffer(table)
    }

    /// The entry of a pair; its rank is `UInt32.max` when the two do not merge. Ids below zero never merge.
    @inline(__always)
    func entry(_ left: Int32, _ right: Int32) -> Entry {
        let pair = Self.key(left, right)
        var slot = Self.slot(pair, shift)
        while true {
            let entry = slots[slot]
            if entry.pair == pair || entry.pair == Self.empty { return entry }
            slot = (slot + 1) & mask
        }
    }

    @inline(__always)
    private static func key(_ left: Int32, _ right: Int32) -> UInt64 {
        UInt64(UInt32(bitPattern: left)) << 32 | UInt64(UInt32(bitPattern: right))
    }

    @inline(__always)
    private static func slot(_ pair: UInt64, _ shift: UInt64) -> Int {
        Int(truncatingIfNeeded: ((pair ^ pair >> 31) &* 0x9E37_79B9_7F4A_7C15) >> shift)
    }
}
