import Glibc
import Synchronization

/// The directory of everything that a server must remember, held by one process at a time.
///
/// It is held with `flock` on the file `lock` in it, which the kernel lets go of when the holder dies, however it dies. The file says who the holder is, so
/// that whoever comes second can talk to the running server instead; it is never removed, because then two processes could each hold a file of that name.
public final class DataDirectory: Sendable {
    public let path: String
    private let descriptor: Int32
    private let record: Mutex<LockRecord>

    /// Creates the directory (mode 0700) if there is none, and takes it.
    /// - Throws: `held`, with the holder, when another process or another object of this one has it.
    public init(path: String) throws(DataDirectoryError) {
        try Self.create(path)
        let lockPath = "\(path)/lock"
        let descriptor = open(lockPath, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o600)
        guard descriptor >= 0 else { throw Self.failure(lockPath, "cannot be opened", errno) }
        let record = LockRecord(processID: getpid())
        do {
            try Self.take(descriptor, of: path, lockPath: lockPath)
            try Self.write(record, to: descriptor, lockPath: lockPath)
        } catch {
            close(descriptor)
            throw error
        }
        self.path = path
        self.descriptor = descriptor
        self.record = Mutex(record)
    }

    deinit {
        close(descriptor)
    }

    /// Tells later comers where the server of this process listens.
    /// - Parameter certificate: with TLS, the SHA-256 of the server's certificate in 64 lower-case hexadecimal digits.
    public func announce(address: String, certificate: String? = nil) throws(DataDirectoryError) {
        guard LockRecord.isValidAddress(address) else {
            throw DataDirectoryError(
                .invalidAddress,
                "\(path): found an address of \(address.utf8.count) bytes, expected 1 to \(LockRecord.longestAddress) "
                    + "printable ASCII characters without spaces, like http://127.0.0.1:8080")
        }
        precondition(certificate.map(LockRecord.isFingerprint) != false, "the digest of a certificate has 64 digits")
        try record.withLock { record throws(DataDirectoryError) in
            var changed = record
            changed.address = address
            changed.certificate = certificate
            try Self.write(changed, to: descriptor, lockPath: "\(path)/lock")
            record = changed
        }
    }

    // MARK: The lock

    /// How often, and in steps of how many microseconds, a holder that cannot be told yet is asked again.
    private static let attempts = 50, pause: UInt32 = 10_000

    private static func take(_ descriptor: Int32, of path: String, lockPath: String) throws(DataDirectoryError) {
        for attempt in 1... {
            if flock(descriptor, LOCK_EX | LOCK_NB) == 0 { return }
            let number = errno
            if number == EINTR { continue }
            guard number == EWOULDBLOCK else { throw failure(lockPath, "cannot be locked", number) }
            let found = read(descriptor)
            // Between taking the lock and writing its record, a holder is known by the record of a dead one or by none.
            if let found, isAlive(found.processID) || attempt >= attempts {
                throw held(path, DataDirectoryError.Holder(processID: found.processID, address: found.address, certificate: found.certificate))
            }
            guard attempt < attempts else { throw held(path, nil) }
            usleep(pause)
        }
    }

    private static func held(_ path: String, _ holder: DataDirectoryError.Holder?) -> DataDirectoryError {
        let who =
            switch holder {
            case nil: "another process, which has not written its id to \(path)/lock"
            case let holder? where holder.address == nil: "process \(holder.processID), which has not announced a server's address"
            case let holder?: "process \(holder.processID), whose server is at \(holder.address ?? "")"
            }
        return DataDirectoryError(
            .held, "\(path): the data directory is held by \(who); use that server, stop it, or name another data directory", holder: holder)
    }

    /// A process of another user counts as alive, one of another container as dead.
    private static func isAlive(_ processID: Int32) -> Bool {
        kill(processID, 0) == 0 || errno == EPERM
    }

    private static func read(_ descriptor: Int32) -> LockRecord? {
        var bytes = [UInt8](repeating: 0, count: LockRecord.byteCount)
        let got = pread(descriptor, &bytes, bytes.count, 0)
        return got == bytes.count ? LockRecord(bytes) : nil
    }

    private static func write(_ record: LockRecord, to descriptor: Int32, lockPath: String) throws(DataDirectoryError) {
        let bytes = record.bytes
        var written = pwrite(descriptor, bytes, bytes.count, 0)
        while written < 0 && errno == EINTR { written = pwrite(descriptor, bytes, bytes.count, 0) }
        // A disk that fills up in the middle of 512 bytes gives a short count and no error number.
        guard written == bytes.count else { throw failure(lockPath, "cannot be written", written < 0 ? errno : ENOSPC) }
        guard ftruncate(descriptor, off_t(bytes.count)) == 0 else { throw failure(lockPath, "cannot be cut to \(bytes.count) bytes", errno) }
    }

    // MARK: The directory

    /// Makes the directory and what is missing above it; each new entry is durable on return.
    private static func create(_ path: String) throws(DataDirectoryError) {
        guard !path.isEmpty, !path.utf8.contains(0) else {
            throw DataDirectoryError(.storage, "found an empty path or one with a NUL, expected that of a data directory")
        }
        var missing: [String] = []
        var current = path
        while true {
            var status = stat()
            if stat(current, &status) == 0 {
                guard status.st_mode & S_IFMT == S_IFDIR else {
                    throw DataDirectoryError(.storage, "\(current): found something that is no directory, expected a data directory or a place for one")
                }
                break
            }
            guard errno == ENOENT else { throw failure(current, "cannot be examined", errno) }
            missing.append(current)
            current = parent(of: current)
        }
        for directory in missing.reversed() {
            // Another process may be making the same directory.
            guard mkdir(directory, 0o700) == 0 || errno == EEXIST else { throw failure(directory, "cannot be made", errno) }
            let above = parent(of: directory)
            let descriptor = open(above, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
            guard descriptor >= 0 else { throw failure(above, "cannot be opened", errno) }
            defer { close(descriptor) }
            guard fsync(descriptor) == 0 else { throw failure(above, "cannot be written to disk", errno) }
        }
    }

    private static func parent(of path: String) -> String {
        var end = path.endIndex
        while end > path.startIndex, path[path.index(before: end)] == "/" { end = path.index(before: end) }
        guard let slash = path[..<end].lastIndex(of: "/") else { return end == path.startIndex ? "/" : "." }
        return slash == path.startIndex ? "/" : String(path[..<slash])
    }

    private static func failure(_ path: String, _ what: String, _ number: Int32) -> DataDirectoryError {
        let wayOut = isStorageFull(number) ? "free some room" : "check that this user may write there, or name another data directory"
        return DataDirectoryError(isStorageFull(number) ? .storageFull : .storage, "\(path): \(what): \(systemReason(number)); \(wayOut)")
    }
}
