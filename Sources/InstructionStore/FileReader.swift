import Glibc

/// The content of a kept file, open for reading in pieces. It stays readable when the file is deleted meanwhile. Any thread may call it; calls block.
public final class FileReader: Sendable {
    public let byteCount: Int
    private let descriptor: Int32
    private let path: String

    /// Takes the descriptor over, and closes it in the end.
    init(_ descriptor: Int32, byteCount: Int, path: String) {
        self.descriptor = descriptor
        self.byteCount = byteCount
        self.path = path
    }

    deinit {
        close(descriptor)
    }

    /// The bytes from `offset` on: `count` of them, or fewer at the end.
    /// - Throws: `damaged` when the file has become shorter, `storage` for what the disk did not do.
    public func read(at offset: Int, count: Int) throws(InstructionStoreError) -> [UInt8] {
        let wanted = min(count, byteCount - offset)
        guard wanted > 0 else { return [] }
        return try readRange(descriptor, offset: offset, count: wanted, path: path)
    }
}
