import Glibc
import InstructionStore

/// The file in a directory of adapters that says whose it is, locked as long as this object lives.
///
/// Two stores over one directory would each take the other's versions for leftovers. The lock is the kernel's (`flock`), which lets go of it when the holder
/// dies, however it dies. It belongs to the file, so the file is written in place and never replaced.
final class AdapterDirectoryMarker: Sendable {
    private let path: String
    private let descriptor: Int32

    /// - Throws: `conflict` when another process or another object of this one holds it.
    init(directory: String) throws(AdapterError) {
        let path = "\(directory)/\(AdapterFolders.markerName)"
        // Without O_NONBLOCK, opening a FIFO could wait for somebody at its other end.
        let descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0o600)
        guard descriptor >= 0 else { throw AdapterError(path, "cannot be opened", errno) }
        do throws(AdapterError) {
            try Self.take(descriptor, path, of: directory)
        } catch {
            close(descriptor)
            throw error
        }
        self.path = path
        self.descriptor = descriptor
    }

    deinit {
        close(descriptor)
    }

    private static func take(_ descriptor: Int32, _ path: String, of directory: String) throws(AdapterError) {
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw AdapterError(path, "cannot be examined", errno) }
        guard status.st_mode & S_IFMT == S_IFREG else {
            throw AdapterError(.storage, "\(path): found something that is no regular file, expected the one that says whose the directory is; move it away")
        }
        while flock(descriptor, LOCK_EX | LOCK_NB) != 0 {
            let number = errno
            if number == EINTR { continue }
            guard number == EWOULDBLOCK else { throw AdapterError(path, "cannot be locked", number) }
            throw AdapterError(
                .conflict,
                "\(directory): found the directory of the adapters in use by another server or command, expected one that nobody uses; stop that one, "
                    + "or name another directory with GRAFT_ADAPTERS_DIRECTORY")
        }
    }

    /// Whose the directory is; `nil` when the file says nothing.
    func storeID() throws(AdapterError) -> String? {
        var bytes = [UInt8](repeating: 0, count: Self.longestID + 1)
        var count = pread(descriptor, &bytes, bytes.count, 0)
        while count < 0 && errno == EINTR { count = pread(descriptor, &bytes, bytes.count, 0) }
        guard count >= 0 else { throw AdapterError(path, "cannot be read", errno) }
        return (1...Self.longestID).contains(count) ? String(decoding: bytes[..<count], as: UTF8.self) : nil
    }

    /// Durable on return, but for the name of a new file.
    func write(_ storeID: String) throws(AdapterError) {
        let bytes = Array(storeID.utf8)
        var written = pwrite(descriptor, bytes, bytes.count, 0)
        while written < 0 && errno == EINTR { written = pwrite(descriptor, bytes, bytes.count, 0) }
        // A disk that fills up in the middle gives a short count and no error number.
        guard written == bytes.count else { throw AdapterError(path, "cannot be written", written < 0 ? errno : ENOSPC) }
        guard ftruncate(descriptor, off_t(bytes.count)) == 0 else { throw AdapterError(path, "cannot be cut to \(bytes.count) bytes", errno) }
        guard fsync(descriptor) == 0 else { throw AdapterError(path, "cannot be written to disk", errno) }
    }

    private static let longestID = 128
}
