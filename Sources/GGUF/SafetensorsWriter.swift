import JSON
import Kernels

/// Writes safetensors files: equal tensors give equal bytes, whatever their order.
public enum SafetensorsWriter {
    public struct Tensor: Sendable {
        public var name: String
        /// F32, F16 or BF16.
        public var type: GGMLType
        /// Row-major.
        public var shape: [Int]
        public var values: [Float]

        public init(name: String, type: GGMLType, shape: [Int], values: [Float]) {
            self.name = name
            self.type = type
            self.shape = shape
            self.values = values
        }
    }

    /// A whole file: tensors with wide elements first and by name among equals, as safetensors' own writer orders them, so that each lies on a multiple
    /// of its element's size; the header padded to a multiple of 8.
    ///
    /// - Parameters:
    ///   - tensors: with distinct names, and as many values as their shapes say.
    ///   - metadata: `format: pt` is what PyTorch's reader looks for.
    public static func bytes(of tensors: [Tensor], metadata: [String: String] = ["format": "pt"]) -> [UInt8] {
        precondition(Set(tensors.map(\.name)).count == tensors.count, "two tensors of one name")
        let ordered = tensors.sorted {
            $0.type.blockBytes == $1.type.blockBytes ? $0.name.utf8.lexicographicallyPrecedes($1.name.utf8) : $0.type.blockBytes > $1.type.blockBytes
        }
        var members: [(String, JSONValue)] = []
        if !metadata.isEmpty {
            members.append(("__metadata__", .object(JSONObject(metadata.sorted { $0.key < $1.key }.map { ($0.key, .string($0.value)) }))))
        }
        var end = 0
        for tensor in ordered {
            precondition(
                tensor.type.blockSize == 1 && tensor.shape.reduce(1, *) == tensor.values.count, "tensor '\(tensor.name)' of another shape than its values")
            let begin = end
            end += tensor.values.count * tensor.type.blockBytes
            members.append(
                (
                    tensor.name,
                    .object([
                        "dtype": .string(tensor.type.name), "shape": .array(tensor.shape.map { .integer(Int64($0)) }),
                        "data_offsets": [.integer(Int64(begin)), .integer(Int64(end))],
                    ])
                ))
        }
        var header = JSONValue.object(JSONObject(members)).serialized()
        while header.count % 8 != 0 { header.append(UInt8(ascii: " ")) }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(8 + header.count + end)
        withUnsafeBytes(of: UInt64(header.count).littleEndian) { bytes.append(contentsOf: $0) }
        bytes += header
        for tensor in ordered { TensorValues.append(tensor.values, as: tensor.type, to: &bytes) }
        return bytes
    }
}
