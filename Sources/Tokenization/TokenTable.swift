/// Looks a token up by its bytes: open addressing over 64-bit slots that hold 32 bits of hash beside the id, so that a miss rarely
/// touches the bytes.
struct TokenTable: Sendable {
    private let slots: ConstantBuffer<UInt64>
    private let mask: Int
    private let bytes: ConstantBuffer<UInt8>
    /// `offsets[id]..<offsets[id + 1]` are the bytes of a token.
    private let offsets: ConstantBuffer<UInt32>
    /// Longest key, in bytes.
    let maximumLength: Int

    private static let empty = UInt64.max

    /// - Parameters:
    ///   - bytes: keys of all ids, one after another.
    ///   - offsets: one more than there are ids.
    ///   - ids: those that can be found, in order of preference where two have the same bytes; a key of no bytes is never found.
    init(bytes: [UInt8], offsets: [UInt32], ids: [Int32]) {
        var capacity = 16
        while capacity < ids.count * 2 { capacity <<= 1 }
        var table = [UInt64](repeating: Self.empty, count: capacity)
        var longest = 0
        bytes.withUnsafeBufferPointer { buffer in
            guard let base = buffer.baseAddress else { return }
            for id in ids {
                let start = Int(offsets[Int(id)])
                let count = Int(offsets[Int(id) + 1]) - start
                if count == 0 { continue }
                longest = max(longest, count)
                let hash = Self.hash(base + start, count: count)
                var slot = Int(truncatingIfNeeded: hash) & (capacity - 1)
                var isNew = true
                while table[slot] != Self.empty {
                    let other = Int(UInt32(truncatingIfNeeded: table[slot]))
                    if table[slot] >> 32 == hash >> 32,
                        buffer[Int(offsets[other])..<Int(offsets[other + 1])].elementsEqual(buffer[start..<start + count]) {
                        isNew = false
                        break
                    }
                    slot = (slot + 1) & (capacity - 1)
                }
                if isNew { table[slot] = (hash & 0xFFFF_FFFF_0000_0000) | UInt64(UInt32(bitPattern: id)) }
            }
        }
        slots = ConstantBuffer(table)
        mask = capacity - 1
        self.bytes = ConstantBuffer(bytes)
        self.offsets = ConstantBuffer(offsets)
        maximumLength = longest
    }

    /// The id of the token with these bytes, -1 when there is none.
    @inline(__always)
    func id(of key: UnsafePointer<UInt8>, count: Int) -> Int32 {
        if count > maximumLength || count == 0 { return -1 }
        let hash = Self.hash(key, count: count)
        var slot = Int(truncatingIfNeeded: hash) & mask
        while true {
            let entry = slots[slot]
            if entry == Self.empty { return -1 }
            if entry >> 32 == hash >> 32 {
                let id = Int(UInt32(truncatingIfNeeded: entry))
                if equals(id, key, count) { return Int32(truncatingIfNeeded: id) }
            }
            slot = (slot + 1) & mask
        }
    }

    @inline(__always)
    private func equals(_ id: Int, _ key: UnsafePointer<UInt8>, _ count: Int) -> Bool {
        let start = Int(offsets[id])
        guard Int(offsets[id + 1]) - start == count else { return false }
        for index in 0..<count where bytes[start + index] != key[index] { return false }
        return true
    }

    /// A multiply-and-fold hash over eight bytes at a time. The keys are a model's own; an input text can only look up.
    @inline(__always)
    private static func hash(_ key: UnsafePointer<UInt8>, count: Int) -> UInt64 {
        var state = UInt64(truncatingIfNeeded: count) &* 0x9E37_79B9_7F4A_7C15
        var offset = 0
        let raw = UnsafeRawPointer(key)
        while offset + 8 <= count {
            state = fold(state ^ raw.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
            offset += 8
        }
        var rest: UInt64 = 0
        while offset < count {
            rest = rest << 8 | UInt64(key[offset])
            offset += 1
        }
        return fold(fold(state ^ rest))
    }

    @inline(__always)
    private static func fold(_ value: UInt64) -> UInt64 {
        let product = value.multipliedFullWidth(by: 0xA076_1D64_78BD_642F)
        return product.high ^ product.low ^ (value >> 29)
    }
}
