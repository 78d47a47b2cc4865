/// Everything in a GGUF file before the tensor data: a pure function of the file's first bytes and its size, without I/O.
///
/// Every count, length, offset and type is compared with the bytes that the file really has before it is used for an allocation or an
/// address, so a hostile file costs at most its own size plus `memoryAllowance`, and a sparse file of any size no more than `longest` plus that.
public struct GGUFHeader: Sendable, Equatable {
    /// 2 or 3; the two differ only in that version 3 also exists in big-endian form, which is refused.
    public let version: Int
    /// `general.alignment`, or 32: the start of the data and every tensor lie on a multiple of it.
    public let alignment: Int
    public let metadata: GGUFMetadata
    /// In file order.
    public let tensors: [GGUFTensor]
    /// Bytes from the start of the file to its tensor data.
    public let dataOffset: Int

    /// What the strings, arrays and tables of a header and the bytes it is parsed from may take together beyond the file's own size: 64 MiB.
    public static let memoryAllowance = 64 << 20

    /// The most bytes that a header may take in the file, 256 MiB: tens of times more than the largest vocabularies need.
    public static let longest = 256 << 20

    public enum Parsing: Sendable {
        case complete(GGUFHeader)
        /// The bytes end inside the header, which the file's size allows to go on. Parse again with at least so many bytes from the start of the file.
        case needsMore(atLeast: Int)
    }

    /// Parses the beginning of a file.
    ///
    /// - Parameters:
    ///   - bytes: a prefix of the file, or all of it.
    ///   - fileSize: the size of the whole file in bytes, at least `bytes.count`.
    public static func parse(_ bytes: UnsafeRawBufferPointer, fileSize: Int) throws(GGUFError) -> Parsing {
        precondition(bytes.count <= fileSize, "a prefix cannot be longer than its file")
        // Sums of sizes below this bound cannot overflow.
        guard fileSize <= 1 << 56 else { throw GGUFError(code: .tooLarge, message: "a file of \(fileSize) bytes, expected at most 2^56") }
        var parser = GGUFParser(bytes: bytes, fileSize: fileSize)
        do {
            return .complete(try parser.header())
        } catch {
            switch error {
            case .needsMore(let count): return .needsMore(atLeast: count)
            case .refused(let refusal): throw refusal
            }
        }
    }

    /// Parses a whole file that is in memory.
    public init(parsing file: [UInt8]) throws(GGUFError) {
        // `withUnsafeBytes` rethrows as `any Error`; the Result keeps the error's type.
        let outcome = file.withUnsafeBytes { bytes in
            Result { () throws(GGUFError) in try GGUFHeader.parse(bytes, fileSize: bytes.count) }
        }
        switch try outcome.get() {
        case .complete(let header): self = header
        case .needsMore: preconditionFailure("a parser that has the whole file asked for more of it")
        }
    }

    init(version: Int, alignment: Int, metadata: GGUFMetadata, tensors: [GGUFTensor], dataOffset: Int) {
        self.version = version
        self.alignment = alignment
        self.metadata = metadata
        self.tensors = tensors
        self.dataOffset = dataOffset
    }
}
