import Glibc
import TLS

/// A file on its way in: written piece by piece, and gone again unless a `FileStore` takes it.
public final class FileSpool: @unchecked Sendable {
    // Sendable by promise: whoever holds it hands it from thread to thread, and it is used by one at a time.
    public private(set) var byteCount = 0
    let path: String
    private let descriptor: Int32
    private var digest = SHA256Digest()
    private let fault: @Sendable () -> Int32?
    /// It has another name now, under which it stays.
    var isPlaced = false

    init(path: String, fault: @escaping @Sendable () -> Int32?) throws(InstructionStoreError) {
        descriptor = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0o600)
        guard descriptor >= 0 else { throw fileFailure(path, "cannot be made", errno) }
        self.path = path
        self.fault = fault
    }

    deinit {
        close(descriptor)
        if !isPlaced { unlink(path) }
    }

    /// Appends; what was written is durable only in the store.
    public func write(_ bytes: UnsafeRawBufferPointer) throws(InstructionStoreError) {
        if let number = fault() { throw fileFailure(path, "cannot be written", number) }
        var rest = bytes
        while let base = rest.baseAddress, !rest.isEmpty {
            let count = Glibc.write(descriptor, base, rest.count)
            if count < 0 {
                if errno == EINTR { continue }
                throw fileFailure(path, "cannot be written", errno)
            }
            rest = UnsafeRawBufferPointer(rebasing: rest[count...])
        }
        digest.update(bytes)
        byteCount += bytes.count
    }

    /// Appends; what was written is durable only in the store.
    public func write(_ bytes: [UInt8]) throws(InstructionStoreError) {
        try bytes.withUnsafeBufferPointer { buffer throws(InstructionStoreError) in try write(UnsafeRawBufferPointer(buffer)) }
    }

    /// Everything that was written.
    public func contents() throws(InstructionStoreError) -> [UInt8] {
        try readWhole(descriptor, byteCount: byteCount, path: path)
    }

    /// Brings what was written to the disk. An error of this is final: the kernel tells it once.
    /// - Returns: the SHA-256 of all of it, in hexadecimal.
    func seal() throws(InstructionStoreError) -> String {
        guard fsync(descriptor) == 0 else { throw fileFailure(path, "cannot be written to disk", errno) }
        return digest.copy().finishHexadecimal()
    }
}

/// The first `byteCount` bytes of an open file.
func readWhole(_ descriptor: Int32, byteCount: Int, path: String) throws(InstructionStoreError) -> [UInt8] {
    try readRange(descriptor, offset: 0, count: byteCount, path: path)
}

/// `count` bytes of an open file from `offset` on.
func readRange(_ descriptor: Int32, offset: Int, count: Int, path: String) throws(InstructionStoreError) -> [UInt8] {
    var number: Int32?
    let bytes = [UInt8](unsafeUninitializedCapacity: count) { buffer, initialized in
        while let base = buffer.baseAddress, initialized < count {
            let got = pread(descriptor, base + initialized, count - initialized, off_t(offset + initialized))
            if got < 0, errno == EINTR { continue }
            guard got > 0 else {
                number = got < 0 ? errno : 0
                return
            }
            initialized += got
        }
    }
    switch number {
    case nil: return bytes
    case 0:
        throw InstructionStoreError(
            .damaged, "\(path): found \(offset + bytes.count) bytes, expected \(offset + count) or more; restore it from a backup, or upload it again")
    case let number?: throw fileFailure(path, "cannot be read", number)
    }
}

/// What the system said about a file of the store.
func fileFailure(_ path: String, _ what: String, _ number: Int32) -> InstructionStoreError {
    let wayOut = isStorageFull(number) ? "free some room" : "check the disk, and that this user may write there"
    return InstructionStoreError(isStorageFull(number) ? .storageFull : .storage, "\(path): \(what): \(systemReason(number)); \(wayOut)")
}
