import Kernels

import Glibc

/// Reads a GGUF header from a prefix of the file.
///
/// Layout, little endian (github.com/ggml-org/ggml, docs/gguf.md):
///
///     magic "GGUF" · version u32 · tensor count u64 · pair count u64
///     pair:   key (u64 length + UTF-8) · type u32 · value
///     array:  element type u32 · count u64 · elements
///     tensor: name (u64 length + UTF-8) · n_dims u32 · n_dims × u64 · type u32 · offset u64 (from the data's start)
///     padding to the alignment · tensor data
struct GGUFParser {
    enum Stop: Error {
        case refused(GGUFError)
        case needsMore(Int)
    }

    /// The specification's bounds on names.
    static let longestKey = 65_535
    static let longestTensorName = 64
    /// A name of one byte, one dimension.
    private static let smallestTensorEntry = 8 + 1 + 4 + 8 + 4 + 8
    /// A key of one byte, a value of one byte.
    private static let smallestPair = 8 + 1 + 4 + 1

    private let bytes: UnsafeRawBufferPointer
    private let fileSize: Int
    private var offset = 0
    /// Memory that the header under construction may still take.
    private var memoryLeft: Int
    /// What is being read, for messages: `metadata key 'general.name'`.
    private var subject = "the file header"

    init(bytes: UnsafeRawBufferPointer, fileSize: Int) {
        self.bytes = bytes
        self.fileSize = fileSize
        memoryLeft = min(fileSize, GGUFHeader.longest) - min(bytes.count, GGUFHeader.longest) + GGUFHeader.memoryAllowance
    }

    mutating func header() throws(Stop) -> GGUFHeader {
        try readMagic()
        let version = try readVersion()
        let tensorCount = try readCount("tensors", smallest: Self.smallestTensorEntry)
        let pairCount = try readCount("metadata pairs", smallest: Self.smallestPair)

        let metadata = try readMetadata(count: pairCount)
        let alignment = try alignment(in: metadata)
        let entries = try readTensorEntries(count: tensorCount)

        let dataOffset = (offset + alignment - 1) & ~(alignment - 1)
        let tensors = try place(entries, dataOffset: dataOffset, alignment: alignment)
        return GGUFHeader(version: version, alignment: alignment, metadata: metadata, tensors: tensors, dataOffset: dataOffset)
    }

    // MARK: - The fixed part

    private mutating func readMagic() throws(Stop) {
        let available = min(4, fileSize)
        guard bytes.count >= available else { throw .needsMore(available) }
        guard bytes.prefix(4).elementsEqual("GGUF".utf8) else {
            let found = bytes.prefix(4).map { byte in
                let digits = String(byte, radix: 16)
                return digits.count == 1 ? "0" + digits : digits
            }.joined(separator: " ")
            throw .refused(GGUFError(
                code: .notGGUF,
                message: "not a GGUF file: it begins with the bytes [\(found)], expected [47 47 55 46] (\"GGUF\")"))
        }
        offset = 4
    }

    private mutating func readVersion() throws(Stop) -> Int {
        let version = try read(UInt32.self)
        guard version == 2 || version == 3 else {
            let swapped = version.byteSwapped
            let explanation =
                if swapped == 2 || swapped == 3 {
                    "big-endian GGUF version \(swapped), expected little-endian version 2 or 3: convert it with gguf_convert_endian.py"
                } else {
                    "GGUF version \(version), expected 2 or 3: convert the model again with a current converter"
                }
            throw .refused(GGUFError(code: .unsupportedVersion, message: explanation))
        }
        return Int(version)
    }

    private mutating func readCount(_ what: String, smallest: Int) throws(Stop) -> Int {
        let count = try read(UInt64.self)
        let most = (fileSize - offset) / smallest
        guard count <= UInt64(most) else {
            throw malformed("the header announces \(count) \(what), but the file's \(fileSize) bytes hold at most \(most)")
        }
        return Int(count)
    }

    // MARK: - Metadata

    private mutating func readMetadata(count: Int) throws(Stop) -> GGUFMetadata {
        var metadata = GGUFMetadata()
        for index in 0..<count {
            subject = "the key of metadata pair \(index + 1) of \(count)"
            let key = try readString(longest: Self.longestKey)
            guard !key.isEmpty else { throw malformed("\(subject) is empty") }
            subject = "metadata key \(shown(key))"
            // Entry in the key list and in the table of values, at a load factor of one half in the worst case.
            try charge(200 + key.utf8.count)
            let value = try readValue()
            guard metadata.insert(value, forKey: key) else { throw malformed("\(subject) occurs twice") }
        }
        return metadata
    }

    private mutating func readValue() throws(Stop) -> GGUFValue {
        let type = try read(UInt32.self)
        switch type {
        case 0: return .uint8(try read(UInt8.self))
        case 1: return .int8(try read(Int8.self))
        case 2: return .uint16(try read(UInt16.self))
        case 3: return .int16(try read(Int16.self))
        case 4: return .uint32(try read(UInt32.self))
        case 5: return .int32(try read(Int32.self))
        case 6: return .float32(Float(bitPattern: try read(UInt32.self)))
        case 7: return .bool(try readBool())
        case 8: return .string(try readString(longest: Int.max))
        case 9: return .array(try readArray())
        case 10: return .uint64(try read(UInt64.self))
        case 11: return .int64(try read(Int64.self))
        case 12: return .float64(Double(bitPattern: try read(UInt64.self)))
        default: throw malformed("\(subject) has value type \(type), expected 0…12")
        }
    }

    private mutating func readBool() throws(Stop) -> Bool {
        let byte = try read(UInt8.self)
        guard byte <= 1 else { throw malformed("\(subject) is a bool with the value \(byte), expected 0 or 1") }
        return byte == 1
    }

    private mutating func readArray() throws(Stop) -> GGUFArray {
        let type = try read(UInt32.self)
        let count = try read(UInt64.self)
        switch type {
        case 0: return .uint8s(try readElements(count))
        case 1: return .int8s(try readElements(count))
        case 2: return .uint16s(try readElements(count))
        case 3: return .int16s(try readElements(count))
        case 4: return .uint32s(try readElements(count))
        case 5: return .int32s(try readElements(count))
        case 6: return .float32s(try readElements(count))
        case 7:
            let flags: [UInt8] = try readElements(count)
            if let wrong = flags.firstIndex(where: { $0 > 1 }) {
                throw malformed("\(subject): element \(wrong) is a bool with the value \(flags[wrong]), expected 0 or 1")
            }
            try charge(flags.count)
            return .bools(flags.map { $0 == 1 })
        case 8: return .strings(try readStrings(count))
        case 9: throw malformed("\(subject) is an array of arrays, which no supported model uses")
        case 10: return .uint64s(try readElements(count))
        case 11: return .int64s(try readElements(count))
        case 12: return .float64s(try readElements(count))
        default: throw malformed("\(subject) is an array of value type \(type), expected 0…12")
        }
    }

    /// An array of numbers, copied as it lies in the file (the host is little endian, as the file).
    private mutating func readElements<Element: BitwiseCopyable>(_ count: UInt64) throws(Stop) -> [Element] {
        let stride = MemoryLayout<Element>.stride
        let count = try checkedCount(count, smallest: stride)
        try need(count * stride)
        try charge(32 + count * stride)
        let source = UnsafeRawBufferPointer(rebasing: bytes[offset..<offset + count * stride])
        offset += count * stride
        return [Element](unsafeUninitializedCapacity: count) { buffer, initialized in
            UnsafeMutableRawBufferPointer(buffer).copyMemory(from: source)
            initialized = count
        }
    }

    /// An array of strings: vocabularies and merges are hundreds of thousands of them, so this loop keeps its state in locals.
    private mutating func readStrings(_ count: UInt64) throws(Stop) -> [String] {
        let count = try checkedCount(count, smallest: 8)
        // Until their bytes are in memory, so many strings are only a claim, and nothing is allocated for it.
        try need(count * 8)
        try charge(32 + count * MemoryLayout<String>.stride)
        var strings: [String] = []
        strings.reserveCapacity(count)
        var position = offset
        var memory = memoryLeft
        for index in 0..<count {
            guard bytes.count - position >= 8 else {
                offset = position
                throw short(by: 8, "element \(index) of \(subject)")
            }
            let length = UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: position, as: UInt64.self))
            position += 8
            guard length <= UInt64(bytes.count - position) else {
                offset = position
                throw short(by: length, "element \(index) of \(subject)")
            }
            let utf8 = UnsafeRawBufferPointer(rebasing: bytes[position..<position + Int(length)])
            position += Int(length)
            // Up to 15 bytes a Swift string needs nothing beyond its slot in the array.
            if utf8.count > 15 {
                memory -= 48 + utf8.count
                guard memory >= 0 else { throw tooLarge() }
            }
            guard let string = validString(utf8) else {
                throw malformed("element \(index) of \(subject) is not valid UTF-8 (\(length) bytes at offset \(position - Int(length)))")
            }
            strings.append(string)
        }
        offset = position
        memoryLeft = memory
        return strings
    }

    private func alignment(in metadata: GGUFMetadata) throws(Stop) -> Int {
        guard let value = metadata["general.alignment"] else { return 32 }
        guard case .uint32(let alignment) = value else {
            throw malformed("metadata key 'general.alignment' is \(value.typeName), expected u32")
        }
        guard alignment.nonzeroBitCount == 1 else {
            throw malformed("metadata key 'general.alignment' is \(alignment), expected a power of two")
        }
        return Int(alignment)
    }

    // MARK: - Tensors

    /// A tensor as its entry describes it, before its place in the file has been checked.
    private struct Entry {
        var name: String
        var type: GGMLType
        var dimensions: [Int]
        var relativeOffset: UInt64
        var byteCount: Int
    }

    private mutating func readTensorEntries(count: Int) throws(Stop) -> [Entry] {
        try need(count * Self.smallestTensorEntry)
        // Entry, tensor, name, dimensions, and the slots in the name table and the order table.
        try charge(count * (MemoryLayout<Entry>.stride + MemoryLayout<GGUFTensor>.stride + 240))
        var entries: [Entry] = []
        entries.reserveCapacity(count)
        var names = Set<String>(minimumCapacity: count)
        for index in 0..<count {
            subject = "the name of tensor \(index + 1) of \(count)"
            let name = try readString(longest: Self.longestTensorName)
            guard !name.isEmpty else { throw malformed("\(subject) is empty") }
            subject = "tensor \(shown(name))"
            guard names.insert(name).inserted else { throw malformed("\(subject) occurs twice") }
            entries.append(try readTensorEntry(named: name))
        }
        return entries
    }

    private mutating func readTensorEntry(named name: String) throws(Stop) -> Entry {
        let dimensionCount = try read(UInt32.self)
        guard (1...4).contains(dimensionCount) else { throw malformed("\(subject) has \(dimensionCount) dimensions, expected 1…4") }
        var dimensions: [Int] = []
        dimensions.reserveCapacity(Int(dimensionCount))
        var elements = 1
        for axis in 0..<dimensionCount {
            let extent = try read(UInt64.self)
            guard extent > 0, let extent = Int(exactly: extent) else {
                throw malformed("\(subject) has \(extent) elements along dimension \(axis), expected 1…2^63-1")
            }
            let (product, overflow) = elements.multipliedReportingOverflow(by: extent)
            guard !overflow else { throw malformed("\(subject) has more than 2^63 elements") }
            elements = product
            dimensions.append(extent)
        }
        let number = try read(UInt32.self)
        guard let type = GGMLType(rawValue: number) else {
            let known = GGMLType.unsupportedName(number).map { " (\($0))" } ?? ""
            let supported = GGMLType.allCases.map(\.name).joined(separator: ", ")
            throw .refused(GGUFError(
                code: .unsupportedTensorType,
                message: "\(subject) has type \(number)\(known), expected one of \(supported): quantise the model to one of these"))
        }
        guard dimensions[0] % type.blockSize == 0 else {
            throw malformed("\(subject) has rows of \(dimensions[0]) elements, expected a multiple of \(type.blockSize) for type \(type.name)")
        }
        let (byteCount, overflow) = (elements / type.blockSize).multipliedReportingOverflow(by: type.blockBytes)
        guard !overflow else { throw malformed("\(subject) has more than 2^63 bytes") }
        let relativeOffset = try read(UInt64.self)
        return Entry(name: name, type: type, dimensions: dimensions, relativeOffset: relativeOffset, byteCount: byteCount)
    }

    /// Turns relative offsets into places in the file: on the alignment, within the file, no two over one another.
    private mutating func place(_ entries: [Entry], dataOffset: Int, alignment: Int) throws(Stop) -> [GGUFTensor] {
        var tensors: [GGUFTensor] = []
        tensors.reserveCapacity(entries.count)
        for entry in entries {
            subject = "tensor \(shown(entry.name))"
            guard entry.relativeOffset & UInt64(alignment - 1) == 0 else {
                throw malformed("\(subject) lies at data offset \(entry.relativeOffset), expected a multiple of the alignment \(alignment)")
            }
            guard dataOffset <= fileSize, entry.byteCount <= fileSize - dataOffset,
                entry.relativeOffset <= UInt64(fileSize - dataOffset - entry.byteCount)
            else {
                throw .refused(GGUFError(
                    code: .truncated,
                    message: "\(subject) takes \(entry.byteCount) bytes from offset \(dataOffset) + \(entry.relativeOffset), but the file has \(fileSize) bytes: it is cut short or damaged, fetch it again"))
            }
            tensors.append(GGUFTensor(
                name: entry.name, type: entry.type, dimensions: entry.dimensions,
                offset: dataOffset + Int(entry.relativeOffset), byteCount: entry.byteCount))
        }
        let order = tensors.indices.sorted { tensors[$0].offset < tensors[$1].offset }
        for (first, second) in zip(order, order.dropFirst()) {
            let end = tensors[first].offset + tensors[first].byteCount
            guard end <= tensors[second].offset else {
                throw malformed(
                    "tensor \(shown(tensors[second].name)) begins at offset \(tensors[second].offset), inside tensor \(shown(tensors[first].name)), which ends at \(end)")
            }
        }
        return tensors
    }

    // MARK: - Primitives

    private mutating func read<Value: FixedWidthInteger & BitwiseCopyable>(_: Value.Type) throws(Stop) -> Value {
        let size = MemoryLayout<Value>.size
        guard bytes.count - offset >= size else { throw short(by: UInt64(size), subject) }
        let value = bytes.loadUnaligned(fromByteOffset: offset, as: Value.self)
        offset += size
        return Value(littleEndian: value)
    }

    private mutating func readString(longest: Int) throws(Stop) -> String {
        let length = try read(UInt64.self)
        guard length <= UInt64(fileSize - offset) else { throw short(by: length, subject) }
        guard length <= UInt64(longest) else { throw malformed("\(subject) has \(length) bytes, expected at most \(longest)") }
        try need(Int(length))
        try charge(48 + Int(length))
        let utf8 = UnsafeRawBufferPointer(rebasing: bytes[offset..<offset + Int(length)])
        guard let string = validString(utf8) else {
            throw malformed("\(subject) has a string that is not valid UTF-8 (\(length) bytes at offset \(offset))")
        }
        offset += Int(length)
        return string
    }

    /// An array's announced element count, checked against what the file can hold.
    private func checkedCount(_ count: UInt64, smallest: Int) throws(Stop) -> Int {
        let most = (fileSize - offset) / smallest
        guard count <= UInt64(most) else {
            throw .refused(GGUFError(
                code: .truncated,
                message: "\(subject) announces \(count) elements, but the \(fileSize - offset) bytes left in the file hold at most \(most)"))
        }
        return Int(count)
    }

    /// Makes sure that `count` more bytes are in memory.
    private func need(_ count: Int) throws(Stop) {
        guard bytes.count - offset >= count else { throw short(by: UInt64(count), subject) }
    }

    /// `count` bytes at `offset` are not in memory: they are further on in the file, or nowhere.
    private func short(by count: UInt64, _ what: String) -> Stop {
        guard count <= UInt64(fileSize - offset) else {
            return .refused(GGUFError(
                code: .truncated,
                message: "the file ends inside \(what): \(count) bytes expected at offset \(offset), \(fileSize - offset) are left"))
        }
        let needed = offset + Int(count)
        guard needed <= GGUFHeader.longest else { return tooLarge() }
        return .needsMore(needed)
    }

    private mutating func charge(_ count: Int) throws(Stop) {
        guard count <= memoryLeft else { throw tooLarge() }
        memoryLeft -= count
    }

    private func tooLarge() -> Stop {
        .refused(GGUFError(
            code: .tooLarge,
            message: "\(subject) makes the header too large: more than \(GGUFHeader.longest >> 20) MiB, or in memory \(GGUFHeader.memoryAllowance >> 20) MiB more than the file's \(fileSize) bytes"))
    }

    private func malformed(_ message: String) -> Stop {
        .refused(GGUFError(code: .malformed, message: message))
    }
}

/// The string that the bytes spell, or nil when they are not UTF-8.
///
/// Decoding repairs what is invalid, so bytes that come back the same were valid. That is about twice as fast as `String(validating:)` for the short strings of a
/// vocabulary.
private func validString(_ utf8: UnsafeRawBufferPointer) -> String? {
    guard let source = utf8.baseAddress, !utf8.isEmpty else { return "" }
    var string = String(decoding: utf8, as: UTF8.self)
    let isSame = string.withUTF8 { $0.count == utf8.count && memcmp($0.baseAddress!, source, utf8.count) == 0 }
    return isSame ? string : nil
}
