import Kernels

/// Builds GGUF files, version 3, little endian, with the default alignment of 32; `GGUFParser` shows the layout.
public struct GGUFWriter: Sendable {
    public static let alignment = 32

    private var keys: Set<String> = []
    private var names: Set<String> = []
    private var pairs: [UInt8] = []
    private var entries: [UInt8] = []
    private var data: [UInt8] = []

    public init() {}

    /// Adds a pair.
    ///
    /// - Parameter key: not empty, given once, and not `general.alignment`, which is the writer's own.
    public mutating func set(_ key: String, to value: GGUFValue) {
        precondition(!key.isEmpty && key.utf8.count <= GGUFParser.longestKey && key != "general.alignment", "metadata key '\(key)'")
        precondition(keys.insert(key).inserted, "metadata key '\(key)' twice")
        append(key, to: &pairs)
        append(value.typeNumber, to: &pairs)
        append(value, to: &pairs)
    }

    /// Adds a tensor.
    ///
    /// - Parameters:
    ///   - name: 1…64 bytes, given once.
    ///   - dimensions: one to four positive extents in ggml's order, the contiguous one first.
    ///   - bytes: the tensor's blocks.
    public mutating func add(_ name: String, type: GGMLType, dimensions: [Int], bytes: [UInt8]) {
        precondition((1...GGUFParser.longestTensorName).contains(name.utf8.count) && names.insert(name).inserted, "tensor name '\(name)'")
        precondition(
            (1...4).contains(dimensions.count) && dimensions.allSatisfy { $0 > 0 } && dimensions[0] % type.blockSize == 0, "tensor '\(name)': \(dimensions)")
        precondition(bytes.count == dimensions.reduce(1, *) / type.blockSize * type.blockBytes, "tensor '\(name)': \(bytes.count) bytes for \(dimensions)")
        append(name, to: &entries)
        append(UInt32(dimensions.count), to: &entries)
        for extent in dimensions { append(UInt64(extent), to: &entries) }
        append(type.rawValue, to: &entries)
        append(UInt64(data.count), to: &entries)
        data += bytes
        pad(&data)
    }

    /// The whole file.
    public func bytes() -> [UInt8] {
        var file: [UInt8] = []
        file.reserveCapacity(64 + pairs.count + entries.count + data.count)
        file += "GGUF".utf8
        append(UInt32(3), to: &file)
        append(UInt64(names.count), to: &file)
        append(UInt64(keys.count), to: &file)
        file += pairs
        file += entries
        if !data.isEmpty {
            pad(&file)
            file += data
        }
        return file
    }
}

private func pad(_ bytes: inout [UInt8]) {
    let rest = bytes.count % GGUFWriter.alignment
    if rest != 0 { bytes.append(contentsOf: repeatElement(0, count: GGUFWriter.alignment - rest)) }
}

private func append(_ value: some FixedWidthInteger & BitwiseCopyable, to bytes: inout [UInt8]) {
    withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
}

private func append(_ text: String, to bytes: inout [UInt8]) {
    append(UInt64(text.utf8.count), to: &bytes)
    bytes += text.utf8
}

private func append(_ value: GGUFValue, to bytes: inout [UInt8]) {
    switch value {
    case .uint8(let number): append(number, to: &bytes)
    case .int8(let number): append(number, to: &bytes)
    case .uint16(let number): append(number, to: &bytes)
    case .int16(let number): append(number, to: &bytes)
    case .uint32(let number): append(number, to: &bytes)
    case .int32(let number): append(number, to: &bytes)
    case .float32(let number): append(number.bitPattern, to: &bytes)
    case .bool(let flag): append(UInt8(flag ? 1 : 0), to: &bytes)
    case .string(let text): append(text, to: &bytes)
    case .uint64(let number): append(number, to: &bytes)
    case .int64(let number): append(number, to: &bytes)
    case .float64(let number): append(number.bitPattern, to: &bytes)
    case .array(let array):
        append(array.elementTypeNumber, to: &bytes)
        append(UInt64(array.count), to: &bytes)
        append(array, to: &bytes)
    }
}

private func append(_ array: GGUFArray, to bytes: inout [UInt8]) {
    switch array {
    case .uint8s(let numbers): bytes += numbers
    case .int8s(let numbers): for number in numbers { append(number, to: &bytes) }
    case .uint16s(let numbers): for number in numbers { append(number, to: &bytes) }
    case .int16s(let numbers): for number in numbers { append(number, to: &bytes) }
    case .uint32s(let numbers): for number in numbers { append(number, to: &bytes) }
    case .int32s(let numbers): for number in numbers { append(number, to: &bytes) }
    case .float32s(let numbers): for number in numbers { append(number.bitPattern, to: &bytes) }
    case .bools(let flags): for flag in flags { append(UInt8(flag ? 1 : 0), to: &bytes) }
    case .strings(let texts): for text in texts { append(text, to: &bytes) }
    case .uint64s(let numbers): for number in numbers { append(number, to: &bytes) }
    case .int64s(let numbers): for number in numbers { append(number, to: &bytes) }
    case .float64s(let numbers): for number in numbers { append(number.bitPattern, to: &bytes) }
    }
}

extension GGUFValue {
    /// The number that stands for the value's type in a file.
    fileprivate var typeNumber: UInt32 {
        switch self {
        case .uint8: 0
        case .int8: 1
        case .uint16: 2
        case .int16: 3
        case .uint32: 4
        case .int32: 5
        case .float32: 6
        case .bool: 7
        case .string: 8
        case .array: 9
        case .uint64: 10
        case .int64: 11
        case .float64: 12
        }
    }
}

extension GGUFArray {
    fileprivate var elementTypeNumber: UInt32 {
        switch self {
        case .uint8s: 0
        case .int8s: 1
        case .uint16s: 2
        case .int16s: 3
        case .uint32s: 4
        case .int32s: 5
        case .float32s: 6
        case .bools: 7
        case .strings: 8
        case .uint64s: 10
        case .int64s: 11
        case .float64s: 12
        }
    }
}
