import GGUF

/// Writes GGUF files byte by byte, so that a test can make any single thing in them wrong.
struct GGUFBuilder {
    /// What comes before the metadata. Nil counts are the true ones.
    var magic = Array("GGUF".utf8)
    var version: UInt32 = 3
    var tensorCount: UInt64?
    var pairCount: UInt64?
    var alignment = 32

    private(set) var pairs: [[UInt8]] = []
    private(set) var tensors: [[UInt8]] = []
    /// What follows the padding after the header.
    var data: [UInt8] = []

    mutating func pair(_ key: String, type: UInt32, _ value: [UInt8]) {
        pairs.append(bytes(of: key) + bytes(of: type) + value)
    }

    /// A pair whose key need not be a string.
    mutating func rawPair(_ bytes: [UInt8]) { pairs.append(bytes) }

    mutating func pair(_ key: String, _ value: String) { pair(key, type: 8, bytes(of: value)) }
    mutating func pair(_ key: String, _ value: UInt32) { pair(key, type: 4, bytes(of: value)) }

    mutating func array(_ key: String, elementType: UInt32, count: UInt64, _ elements: [UInt8]) {
        pair(key, type: 9, bytes(of: elementType) + bytes(of: count) + elements)
    }

    mutating func strings(_ key: String, _ strings: [String]) {
        array(key, elementType: 8, count: UInt64(strings.count), strings.flatMap { bytes(of: $0) })
    }

    /// A tensor's entry; `dimensionCount` when it is to differ from that of `dimensions`.
    mutating func tensor(_ name: String, type: UInt32 = 0, dimensions: [UInt64], dimensionCount: UInt32? = nil, offset: UInt64) {
        var entry = bytes(of: name) + bytes(of: dimensionCount ?? UInt32(dimensions.count))
        for extent in dimensions { entry += bytes(of: extent) }
        tensors.append(entry + bytes(of: type) + bytes(of: offset))
    }

    func file() -> [UInt8] {
        var file = magic + bytes(of: version) + bytes(of: tensorCount ?? UInt64(tensors.count)) + bytes(of: pairCount ?? UInt64(pairs.count))
        for pair in pairs { file += pair }
        for tensor in tensors { file += tensor }
        if !data.isEmpty {
            while file.count % alignment != 0 { file.append(0) }
            file += data
        }
        return file
    }

    /// A small valid file: every value type, three tensors of different types, data.
    static func small(version: UInt32 = 3) -> GGUFBuilder {
        var builder = GGUFBuilder()
        builder.version = version
        builder.pair("general.architecture", "llama")
        builder.pair("a.u8", type: 0, [200])
        builder.pair("a.i8", type: 1, [0xFF])
        builder.pair("a.u16", type: 2, [0x34, 0x12])
        builder.pair("a.i16", type: 3, [0xFE, 0xFF])
        builder.pair("a.u32", 70_000)
        builder.pair("a.i32", type: 5, bytes(of: UInt32(bitPattern: -3)))
        builder.pair("a.f32", type: 6, bytes(of: Float(1.5).bitPattern))
        builder.pair("a.bool", type: 7, [1])
        builder.pair("a.u64", type: 10, bytes(of: UInt64.max))
        builder.pair("a.i64", type: 11, bytes(of: UInt64(bitPattern: -4)))
        builder.pair("a.f64", type: 12, bytes(of: 2.25.bitPattern))
        builder.strings("a.strings", ["", "a", "Ġthe", "a string of more than fifteen bytes"])
        builder.array("a.u8s", elementType: 0, count: 3, [1, 2, 3])
        builder.array("a.i8s", elementType: 1, count: 2, [0xFF, 1])
        builder.array("a.u16s", elementType: 2, count: 1, [1, 2])
        builder.array("a.i16s", elementType: 3, count: 1, [0xFF, 0xFF])
        builder.array("a.u32s", elementType: 4, count: 2, bytes(of: UInt32(7)) + bytes(of: UInt32.max))
        builder.array("a.i32s", elementType: 5, count: 2, bytes(of: UInt32(7)) + bytes(of: UInt32.max))
        builder.array("a.f32s", elementType: 6, count: 2, bytes(of: Float(0.5).bitPattern) + bytes(of: Float(-2).bitPattern))
        builder.array("a.bools", elementType: 7, count: 3, [1, 0, 1])
        builder.array("a.u64s", elementType: 10, count: 1, bytes(of: UInt64.max))
        builder.array("a.i64s", elementType: 11, count: 1, bytes(of: UInt64(bitPattern: -9)))
        builder.array("a.f64s", elementType: 12, count: 1, bytes(of: 0.125.bitPattern))
        builder.array("a.none", elementType: 8, count: 0, [])
        builder.tensor("token_embd.weight", type: 3, dimensions: [64, 2], offset: 0)
        builder.tensor("output_norm.weight", type: 0, dimensions: [4], offset: 96)
        builder.tensor("cube", type: 1, dimensions: [2, 3, 2, 1], offset: 128)
        builder.data = (0..<152).map { UInt8($0) }
        return builder
    }
}

func bytes<Value: FixedWidthInteger>(of value: Value) -> [UInt8] {
    withUnsafeBytes(of: value.littleEndian) { Array($0) }
}

/// A length and the text.
func bytes(of text: String) -> [UInt8] {
    bytes(of: UInt64(text.utf8.count)) + Array(text.utf8)
}

/// A small deterministic generator (SplitMix64), so that a failing seed can be run again.
struct SplitMix: RandomNumberGenerator {
    var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}
