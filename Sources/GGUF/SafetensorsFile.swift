import JSON

/// What a safetensors file holds: a pure function of its bytes, without I/O.
///
/// Layout, little endian (github.com/huggingface/safetensors):
///
///     header length u64 · header, a JSON object, may end in spaces · data
///     header: {"__metadata__": {name: text, …}, tensor: {"dtype": …, "shape": […], "data_offsets": [begin, end]}, …}
///
/// Offsets count from the start of the data. The tensors must cover the data without overlap, gap or remainder, so that nothing can hide in a file.
public struct SafetensorsFile: Sendable, Equatable {
    /// The format's own bound on headers.
    public static let longestHeader = 100_000_000
    /// The longest name of a tensor, in UTF-8. Real names have about a hundred bytes.
    public static let longestName = 512
    /// The most extents of a shape.
    public static let mostExtents = 8
    /// What a parsed header may take in memory beyond the file's own size.
    public static let memoryAllowance = 64 << 20

    /// The element types of the format.
    public enum ElementType: String, Sendable, CaseIterable {
        case bool = "BOOL", u8 = "U8", i8 = "I8", u16 = "U16", i16 = "I16", u32 = "U32", i32 = "I32", u64 = "U64", i64 = "I64"
        case f16 = "F16", bf16 = "BF16", f32 = "F32", f64 = "F64", c64 = "C64"
        case f8e4m3 = "F8_E4M3", f8e5m2 = "F8_E5M2", f8e8m0 = "F8_E8M0"
        case f4 = "F4", f6e2m3 = "F6_E2M3", f6e3m2 = "F6_E3M2"

        public var bits: Int {
            switch self {
            case .f4: 4
            case .f6e2m3, .f6e3m2: 6
            case .bool, .u8, .i8, .f8e4m3, .f8e5m2, .f8e8m0: 8
            case .u16, .i16, .f16, .bf16: 16
            case .u32, .i32, .f32: 32
            case .u64, .i64, .f64, .c64: 64
            }
        }
    }

    public struct Tensor: Sendable, Equatable {
        public let name: String
        public let type: ElementType
        /// Row-major: the last extent is the contiguous one. At most `mostExtents`.
        public let shape: [Int]
        /// Where its numbers lie, in bytes from the start of the file.
        public let range: Range<Int>
    }

    /// `__metadata__`.
    public let metadata: [String: String]
    /// In the order of their data.
    public let tensors: [Tensor]

    /// Parses a whole file.
    public init(parsing file: [UInt8]) throws(SafetensorsError) {
        guard file.count >= 8 else {
            throw SafetensorsError(code: .truncated, message: "the file has \(file.count) bytes, expected a header's length in the first 8")
        }
        let length = file.withUnsafeBytes { UInt64(littleEndian: $0.loadUnaligned(as: UInt64.self)) }
        guard length <= UInt64(Self.longestHeader) else {
            throw SafetensorsError(
                code: .tooLarge,
                message: "the file announces a header of \(length) bytes, expected at most \(Self.longestHeader); it is damaged or no safetensors file")
        }
        guard length <= UInt64(file.count - 8) else {
            throw SafetensorsError(
                code: .truncated,
                message: "the file announces a header of \(length) bytes, but only \(file.count - 8) follow; it is cut short or no safetensors file")
        }
        let dataStart = 8 + Int(length)
        let header = file[8..<dataStart]
        guard header.first == UInt8(ascii: "{") else {
            throw malformed("the header does not begin with '{'; this is no safetensors file")
        }
        try Self.checkMemory(of: header, fileSize: file.count)
        let members = try Self.members(of: header)
        var metadata: [String: String] = [:]
        var tensors: [Tensor] = []
        tensors.reserveCapacity(members.count)
        for (name, value) in members {
            if name == "__metadata__" {
                metadata = try Self.metadata(value)
            } else {
                tensors.append(try Self.tensor(named: name, value, dataStart: dataStart, fileSize: file.count))
            }
        }
        tensors.sort { ($0.range.lowerBound, $0.range.upperBound) < ($1.range.lowerBound, $1.range.upperBound) }
        try Self.checkCover(tensors, dataStart..<file.count)
        self.metadata = metadata
        self.tensors = tensors
    }

    /// A hostile header can be 100 MB of `[[],[],…`. Each value but the outermost follows one of four characters, and takes at most about 96 bytes
    /// beyond its own text.
    private static func checkMemory(of header: ArraySlice<UInt8>, fileSize: Int) throws(SafetensorsError) {
        var values = 0
        for byte in header where byte == UInt8(ascii: ",") || byte == UInt8(ascii: ":") || byte == UInt8(ascii: "[") || byte == UInt8(ascii: "{") {
            values &+= 1
        }
        guard values * 96 <= fileSize + memoryAllowance else {
            throw SafetensorsError(
                code: .tooLarge,
                message: "the header has \(values) values and would take more memory than the file's \(fileSize) bytes and \(memoryAllowance >> 20) MiB")
        }
    }

    private static func members(of header: ArraySlice<UInt8>) throws(SafetensorsError) -> JSONObject {
        let value: JSONValue
        do {
            value = try JSONValue(parsing: header, maximumDepth: 3, refusingDuplicateKeys: true)
        } catch  where error.code == .duplicateKey {
            throw malformed("the header has the key \(shown(quotedText(in: header, at: error.offset))) twice")
        } catch {
            throw malformed("the header is no strict JSON: byte \(error.offset): \(error.message)")
        }
        guard case .object(let members) = value else { throw malformed("the header is \(value.kindName), expected an object") }
        return members
    }

    /// What stands between the quotes of a key that the parser has accepted, for a message.
    private static func quotedText(in header: ArraySlice<UInt8>, at offset: Int) -> String {
        let text = header.dropFirst(offset + 1).prefix(400)
        return String(decoding: text.prefix { $0 != UInt8(ascii: "\"") }, as: UTF8.self)
    }

    private static func metadata(_ value: JSONValue) throws(SafetensorsError) -> [String: String] {
        guard case .object(let members) = value else { throw malformed("__metadata__ is \(value.kindName), expected an object of strings") }
        var metadata: [String: String] = [:]
        for (key, value) in members {
            guard case .string(let text) = value else { throw malformed("__metadata__ has \(value.kindName) under \(shown(key)), expected a string") }
            metadata[key] = text
        }
        return metadata
    }

    private static func tensor(named name: String, _ value: JSONValue, dataStart: Int, fileSize: Int) throws(SafetensorsError) -> Tensor {
        let subject = "tensor \(shown(name))"
        guard !name.isEmpty else { throw malformed("the header has a tensor without a name") }
        guard name.utf8.count <= longestName else { throw malformed("\(subject) has a name of \(name.utf8.count) bytes, expected at most \(longestName)") }
        guard case .object(let entry) = value else { throw malformed("\(subject) is described by \(value.kindName), expected an object") }
        if let unknown = entry.keys.first(where: { !["dtype", "shape", "data_offsets"].contains($0) }) {
            throw malformed("\(subject) has the key \(shown(unknown)), expected dtype, shape and data_offsets alone")
        }
        guard case .string(let typeName)? = entry["dtype"] else { throw malformed("\(subject) has no dtype, expected a string such as F32") }
        guard let type = ElementType(rawValue: typeName) else {
            throw malformed("\(subject) has the dtype \(shown(typeName)), expected one of \(ElementType.allCases.map(\.rawValue).joined(separator: ", "))")
        }
        let shape = try counts(entry["shape"], "shape", subject)
        let offsets = try counts(entry["data_offsets"], "data_offsets", subject)
        guard offsets.count == 2, offsets[0] <= offsets[1] else {
            throw malformed("\(subject) has the data_offsets \(offsets), expected a beginning and an end")
        }
        guard offsets[1] <= fileSize - dataStart else {
            throw SafetensorsError(
                code: .truncated,
                message:
                    "\(subject) ends at data offset \(offsets[1]), but the file has \(fileSize - dataStart) bytes of data: it is cut short or damaged, fetch it again"
            )
        }
        guard let byteCount = byteCount(of: shape, type) else {
            throw malformed("\(subject) has the shape \(shape), expected a whole number of bytes below 2^63")
        }
        guard byteCount == offsets[1] - offsets[0] else {
            throw malformed(
                "\(subject) has the shape \(shape) of \(typeName), which takes \(byteCount) bytes, but its data_offsets span \(offsets[1] - offsets[0])")
        }
        return Tensor(name: name, type: type, shape: shape, range: dataStart + offsets[0]..<dataStart + offsets[1])
    }

    private static func byteCount(of shape: [Int], _ type: ElementType) -> Int? {
        var bits = type.bits
        for extent in shape {
            let (product, overflow) = bits.multipliedReportingOverflow(by: extent)
            guard !overflow else { return nil }
            bits = product
        }
        return bits % 8 == 0 ? bits / 8 : nil
    }

    /// So few that messages may show all of them.
    private static func counts(_ value: JSONValue?, _ key: String, _ subject: String) throws(SafetensorsError) -> [Int] {
        guard case .array(let elements)? = value else { throw malformed("\(subject) has no \(key), expected an array of integers") }
        guard elements.count <= mostExtents else {
            throw malformed("\(subject) has a \(key) of \(elements.count) integers, expected \(key == "shape" ? "at most \(mostExtents)" : "2")")
        }
        var counts: [Int] = []
        counts.reserveCapacity(elements.count)
        for element in elements {
            guard case .integer(let number) = element, number >= 0 else { throw malformed("\(subject) has a \(key) with something else than integers from 0") }
            counts.append(Int(number))
        }
        return counts
    }

    /// Every byte of the data belongs to exactly one tensor.
    private static func checkCover(_ tensors: [Tensor], _ data: Range<Int>) throws(SafetensorsError) {
        var end = data.lowerBound
        var last: Tensor?
        for tensor in tensors {
            let begin = tensor.range.lowerBound
            if begin < end, let last {
                throw malformed(
                    "tensor \(shown(tensor.name)) begins at data offset \(begin - data.lowerBound), inside tensor \(shown(last.name)), which ends at \(end - data.lowerBound)"
                )
            }
            guard begin == end else {
                throw malformed("the \(begin - end) bytes before tensor \(shown(tensor.name)) at data offset \(begin - data.lowerBound) belong to no tensor")
            }
            end = tensor.range.upperBound
            last = tensor
        }
        guard end == data.upperBound else {
            let place = last.map { "after tensor \(shown($0.name))" } ?? "after the header"
            throw malformed("\(data.upperBound - end) bytes \(place) belong to no tensor, expected the end of the file")
        }
    }
}

private func malformed(_ message: String) -> SafetensorsError {
    SafetensorsError(code: .malformed, message: message)
}
