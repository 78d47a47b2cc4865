import Glibc

/// A validated GGUF file, open for reading. Tensor data is read with `pread` (rather than mapped, because a mapped file that somebody truncates
/// ends the process), so any number of threads may read at once.
public final class GGUFFile: Sendable {
    public let path: String
    /// Bytes, when the file was opened.
    public let fileSize: Int
    public let header: GGUFHeader
    private let descriptor: Int32
    private let indexByName: [String: Int]

    public var version: Int { header.version }
    public var metadata: GGUFMetadata { header.metadata }
    /// In file order.
    public var tensors: [GGUFTensor] { header.tensors }

    /// What is read of a file at first: the header of most models fits, and reading this much takes a few milliseconds.
    private static let firstChunk = 8 << 20

    /// Opens a file, and reads and checks its header. The message of an error begins with the path.
    public init(path: String) throws(GGUFError) {
        // Without O_NONBLOCK, opening a FIFO would wait for a writer.
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else {
            throw GGUFError(code: .cannotOpen, message: "\(path): cannot be opened: \(reason(errno))")
        }
        do {
            let size = try Self.size(of: descriptor)
            header = try Self.readHeader(of: descriptor, fileSize: size)
            fileSize = size
        } catch {
            close(descriptor)
            throw GGUFError(code: error.code, message: "\(path): \(error.message)")
        }
        self.path = path
        self.descriptor = descriptor
        indexByName = Dictionary(uniqueKeysWithValues: header.tensors.enumerated().map { ($1.name, $0) })
    }

    deinit {
        close(descriptor)
    }

    public func tensor(named name: String) -> GGUFTensor? {
        indexByName[name].map { header.tensors[$0] }
    }

    /// Reads `count` bytes at `offset` (absolute) to `destination`. Throws `cannotRead` when the range is not wholly inside the file.
    public func read(offset: Int, count: Int, into destination: UnsafeMutableRawPointer) throws(GGUFError) {
        guard offset >= 0, count >= 0, offset <= fileSize, count <= fileSize - offset else {
            throw GGUFError(code: .cannotRead, message: "\(path): \(count) bytes at offset \(offset) asked for, the file has \(fileSize)")
        }
        do {
            try Self.readFully(descriptor, offset: offset, count: count, into: destination)
        } catch {
            throw GGUFError(code: error.code, message: "\(path): \(error.message)")
        }
    }

    /// All bytes of a tensor, as they lie in the file.
    public func bytes(of tensor: GGUFTensor) throws(GGUFError) -> [UInt8] {
        var failure: GGUFError?
        let result = [UInt8](unsafeUninitializedCapacity: tensor.byteCount) { buffer, initialized in
            guard let base = buffer.baseAddress else { return }
            do throws(GGUFError) {
                try read(offset: tensor.offset, count: tensor.byteCount, into: base)
                initialized = tensor.byteCount
            } catch {
                failure = error
            }
        }
        if let failure { throw failure }
        return result
    }

    private static func size(of descriptor: Int32) throws(GGUFError) -> Int {
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw GGUFError(code: .cannotOpen, message: "fstat failed: \(reason(errno))") }
        guard status.st_mode & S_IFMT == S_IFREG else {
            let kind = status.st_mode & S_IFMT == S_IFDIR ? "a directory" : "a device, pipe or socket"
            throw GGUFError(code: .cannotOpen, message: "is \(kind), expected a GGUF file")
        }
        return Int(status.st_size)
    }

    /// Reads ever longer prefixes until the header is whole.
    private static func readHeader(of descriptor: Int32, fileSize: Int) throws(GGUFError) -> GGUFHeader {
        var length = min(fileSize, firstChunk)
        while true {
            let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: max(length, 1), alignment: 16)
            defer { buffer.deallocate() }
            try readFully(descriptor, offset: 0, count: length, into: buffer.baseAddress!)
            switch try GGUFHeader.parse(UnsafeRawBufferPointer(rebasing: buffer[..<length]), fileSize: fileSize) {
            case .complete(let header):
                return header
            case .needsMore(let needed):
                // Twice as much each time, so that the repeated parsing costs no more than one parsing of the whole.
                length = max(needed, min(fileSize, length * 2, GGUFHeader.longest))
            }
        }
    }

    private static func readFully(
        _ descriptor: Int32, offset: Int, count: Int, into destination: UnsafeMutableRawPointer
    ) throws(GGUFError) {
        var done = 0
        while done < count {
            let got = pread(descriptor, destination + done, count - done, off_t(offset + done))
            if got > 0 {
                done += got
            } else if got == 0 {
                throw GGUFError(
                    code: .cannotRead,
                    message: "ends at byte \(offset + done), \(count - done) more expected: it became shorter while it was open")
            } else if errno != EINTR {
                throw GGUFError(code: .cannotRead, message: "reading at offset \(offset + done) failed: \(reason(errno))")
            }
        }
    }
}

/// The operating system's text for an error number.
private func reason(_ number: Int32) -> String {
    var buffer = [CChar](repeating: 0, count: 256)
    // The XSI strerror_r, which Glibc's Swift overlay imports, fills the buffer.
    _ = strerror_r(number, &buffer, buffer.count)
    return buffer.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
}
