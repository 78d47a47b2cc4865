import Kernels

/// Where one tensor lies in a GGUF file, and what it is. All of it has been checked against the file's size.
public struct GGUFTensor: Sendable, Equatable {
    public let name: String
    public let type: GGMLType
    /// One to four extents in ggml's order: `dimensions[0]` is the row length (the contiguous axis), `dimensions[1]` the number of rows. A weight of a
    /// linear layer is `[in, out]`.
    public let dimensions: [Int]
    /// Absolute, in bytes from the start of the file.
    public let offset: Int
    /// The exact size of the tensor's blocks, without the padding after them.
    public let byteCount: Int

    public init(name: String, type: GGMLType, dimensions: [Int], offset: Int, byteCount: Int) {
        self.name = name
        self.type = type
        self.dimensions = dimensions
        self.offset = offset
        self.byteCount = byteCount
    }

    /// The product of the dimensions.
    public var elementCount: Int { dimensions.reduce(1, *) }
}
