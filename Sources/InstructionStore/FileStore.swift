import Glibc
import Synchronization
import TLS

/// Uploaded and generated files: bytes under `files/` of the data directory, each named after its SHA-256, and rows in the database that say whose they are.
///
/// Rule: bytes are on disk under their final name before a row speaks of them, and a row is gone before its bytes are. So a crash at any moment leaves at
/// most bytes that no row needs, which the next start removes. Equal content is kept once.
///
/// All methods block; any thread may call them.
public final class FileStore: FileService {
    public let store: InstructionStore
    private let folder: String
    private let spoolFolder: String
    private let identifiers: TimedIdentifiers
    private let now: @Sendable () -> Int
    /// Held while names of content and rows that speak of it change together.
    private let change = Mutex<Void>(())
    private let fault = Mutex<Int32?>(nil)

    /// Makes the folder if there is none, and removes what a crash or the passing of time has left.
    /// - Parameter now: seconds since 1970 UTC.
    public init(_ store: InstructionStore, now: @escaping @Sendable () -> Int = { time(nil) }) throws(InstructionStoreError) {
        self.store = store
        self.now = now
        folder = "\(store.directory.path)/files"
        spoolFolder = "\(folder)/incoming"
        identifiers = TimedIdentifiers()
        for path in [folder, spoolFolder] {
            guard mkdir(path, 0o700) == 0 || errno == EEXIST else { throw fileFailure(path, "cannot be made", errno) }
        }
        try Self.synchronise(store.directory.path)
        try Self.synchronise(folder)
        _ = try store.deleteExpiredFiles(at: now())
        let known = try store.fileDigests()
        for name in try Self.names(in: spoolFolder) { unlink("\(spoolFolder)/\(name)") }
        for name in try Self.names(in: folder) where name != "incoming" && !known.contains(name) { unlink("\(folder)/\(name)") }
    }

    // MARK: Reading

    public func file(id: String, owner: String) throws(InstructionStoreError) -> StoredFile? {
        try store.file(id: id, owner: owner, at: now())
    }

    /// A page of an owner's files, by the time of their making. Reports come without their list of problems.
    /// - Parameter after: the id of the last file of the page before; it need not exist any more.
    public func files(
        owner: String, purpose: String? = nil, after: String? = nil, limit: Int, ascending: Bool
    ) throws(InstructionStoreError) -> (files: [StoredFile], hasMore: Bool) {
        try removeExpired()
        let found = try store.files(owner: owner, purpose: purpose, after: after, limit: limit, ascending: ascending, at: now())
        return (Array(found.prefix(limit)), found.count > limit)
    }

    public func contents(of file: StoredFile) throws(InstructionStoreError) -> [UInt8] {
        let path = path(file.digest)
        let descriptor = try openContent(of: file, path: path)
        defer { close(descriptor) }
        let bytes = try readWhole(descriptor, byteCount: file.byteCount, path: path)
        try check(hexadecimal(SHA256Digest.of(bytes)), of: file, path: path)
        return bytes
    }

    /// A file's content, to be read in pieces. All of it is read once before this returns, a piece at a time: content that is damaged is not given out.
    public func reader(of file: StoredFile) throws(InstructionStoreError) -> FileReader {
        let path = path(file.digest)
        let reader = FileReader(try openContent(of: file, path: path), byteCount: file.byteCount, path: path)
        var digest = SHA256Digest()
        var offset = 0
        while offset < reader.byteCount {
            let piece = try reader.read(at: offset, count: Self.checkedPiece)
            digest.update(piece)
            offset += piece.count
        }
        try check(digest.finishHexadecimal(), of: file, path: path)
        return reader
    }

    /// Bytes that are in memory at a time while content is checked.
    private static let checkedPiece = 1 << 20

    private func openContent(of file: StoredFile, path: String) throws(InstructionStoreError) -> Int32 {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW)
        guard descriptor < 0 else { return descriptor }
        let number = errno
        guard number == ENOENT else { throw fileFailure(path, "cannot be opened", number) }
        guard try self.file(id: file.id, owner: file.owner) != nil else {
            throw InstructionStoreError(.notFound, "the file \(file.id) was deleted meanwhile")
        }
        throw InstructionStoreError(.damaged, "\(path): is missing, but \(file.id) is its content; restore it from a backup, or upload it again")
    }

    private func check(_ found: String, of file: StoredFile, path: String) throws(InstructionStoreError) {
        guard found == file.digest else {
            throw InstructionStoreError(
                .damaged, "\(path): the content has the SHA-256 \(found), expected that of its name; restore it from a backup, or upload it again")
        }
    }

    // MARK: Changing

    /// Begins a file that comes in pieces.
    public func makeSpool() throws(InstructionStoreError) -> FileSpool {
        try FileSpool(path: "\(spoolFolder)/\(identifiers.next(prefix: ""))", fault: { [weak self] in self?.fault.withLock { $0 } })
    }

    public func add(
        _ contents: [UInt8], name: String, purpose: String, owner: String, status: StoredFile.Status, report: String?
    ) throws(InstructionStoreError) -> StoredFile {
        let spool = try makeSpool()
        try spool.write(contents)
        return try add(spool, name: name, purpose: purpose, owner: owner, lifetime: nil, status: status, report: report)
    }

    /// Keeps what came in pieces as a new file; durable on return.
    /// - Parameter lifetime: seconds from now; `nil`: for good.
    public func add(
        _ spool: FileSpool, name: String, purpose: String, owner: String, lifetime: Int?, status: StoredFile.Status, report: String?
    ) throws(InstructionStoreError) -> StoredFile {
        precondition(!spool.isPlaced, "a spool becomes one file")
        try removeExpired()
        let digest = try spool.seal()
        let time = now()
        let file = StoredFile(
            id: identifiers.next(prefix: "file-"), owner: owner, name: name, purpose: purpose, byteCount: spool.byteCount, digest: digest, createdAt: time,
            expiresAt: lifetime.map { time.addingReportingOverflow($0).partialValue }, status: status, report: report)
        try change.withLock { _ throws(InstructionStoreError) in
            let final = path(digest)
            // Over content that is there already: equal, and whole again if the old copy was damaged.
            guard rename(spool.path, final) == 0 else { throw fileFailure(final, "cannot be put in place", errno) }
            spool.isPlaced = true
            do throws(InstructionStoreError) {
                try Self.synchronise(folder)
                try store.insertFile(file)
            } catch {
                // When the disk did not confirm the row, it may be there after a restart, and then needs its bytes.
                if error.code != .failed { removeUnused([digest]) }
                throw error
            }
        }
        return file
    }

    /// - Returns: whether there was such a file.
    public func delete(id: String, owner: String) throws(InstructionStoreError) -> Bool {
        try change.withLock { _ throws(InstructionStoreError) in
            guard let digest = try store.deleteFile(id: id, owner: owner, at: now()) else { return false }
            removeUnused([digest])
            return true
        }
    }

    private func removeExpired() throws(InstructionStoreError) {
        try change.withLock { _ throws(InstructionStoreError) in removeUnused(try store.deleteExpiredFiles(at: now())) }
    }

    /// Removes bytes that no row needs. What cannot be removed now is removed by the next start.
    private func removeUnused(_ digests: [String]) {
        for digest in digests {
            guard let isNeeded = try? store.hasFile(digest: digest), !isNeeded else { continue }
            unlink(path(digest))
        }
    }

    /// For tests: lets every following write to a spool fail with an error number; `nil` ends that.
    package func injectWriteFault(_ number: Int32?) {
        fault.withLock { $0 = number }
    }

    // MARK: Folders

    private func path(_ digest: String) -> String { "\(folder)/\(digest)" }

    /// Brings the names in a folder to the disk.
    private static func synchronise(_ folder: String) throws(InstructionStoreError) {
        let descriptor = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { throw fileFailure(folder, "cannot be opened", errno) }
        defer { close(descriptor) }
        guard fsync(descriptor) == 0 else { throw fileFailure(folder, "cannot be written to disk", errno) }
    }

    private static func names(in folder: String) throws(InstructionStoreError) -> [String] {
        guard let stream = opendir(folder) else { throw fileFailure(folder, "cannot be opened", errno) }
        defer { closedir(stream) }
        var names: [String] = []
        while let entry = readdir(stream) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) { pointer in
                pointer.withMemoryRebound(to: CChar.self, capacity: MemoryLayout.size(ofValue: pointer.pointee)) { String(cString: $0) }
            }
            if name != ".", name != ".." { names.append(name) }
        }
        return names
    }
}
