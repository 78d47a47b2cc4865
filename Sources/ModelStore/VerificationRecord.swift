import FoundationEssentials
import Glibc
import TLS

/// What a file's digest was found to be, with the size and modification time it had then, kept beside it as `.NAME.verified.json`: while both are
/// unchanged the file is not hashed again. Whoever can change a file behind its modification time can change this record too, so it guards against
/// damage and mix-ups, not against the machine's owner.
struct VerificationRecord: Codable, Equatable {
    var size: Int
    /// Nanoseconds since 1970.
    var modified: Int
    var sha256: String
    /// The address it was pulled from, for files that the catalogue does not know.
    var source: String?

    static func path(for file: String) -> String {
        let slash = file.lastIndex(of: "/").map { file.index(after: $0) } ?? file.startIndex
        return "\(file[..<slash]).\(file[slash...]).verified.json"
    }

    /// The record of a file, when there is one that still describes it.
    init?(for file: String) {
        guard let data = try? Data(contentsOf: URL(filePath: Self.path(for: file))),
            let record = try? JSONDecoder().decode(Self.self, from: data),
            let present = FileState(path: file), present.size == record.size, present.modified == record.modified
        else { return nil }
        self = record
    }

    init(state: FileState, sha256: String, source: String?) {
        size = state.size
        modified = state.modified
        self.sha256 = sha256
        self.source = source
    }

    /// Written beside the file and renamed. A read-only model directory is no failure: the file is then hashed at each start.
    func write(for file: String) {
        let path = Self.path(for: file)
        let temporary = "\(path).\(getpid())"
        let encoder = JSONEncoder()
        encoder.outputFormatting = .sortedKeys
        guard let data = try? encoder.encode(self), (try? data.write(to: URL(filePath: temporary))) != nil else { return }
        if rename(temporary, path) != 0 { unlink(temporary) }
    }
}

/// Size and modification time of a regular file.
struct FileState: Equatable {
    var size: Int
    /// Nanoseconds since 1970.
    var modified: Int

    init?(path: String) {
        var status = stat()
        guard stat(path, &status) == 0, status.st_mode & S_IFMT == S_IFREG else { return nil }
        size = Int(status.st_size)
        modified = Int(status.st_mtim.tv_sec) * 1_000_000_000 + Int(status.st_mtim.tv_nsec)
    }
}

/// Files and their SHA-256 digests.
public enum FileDigest {
    /// The digest of a file as 64 hexadecimal digits: from the record beside it while its size and modification time are those of the record, otherwise
    /// computed (about a second for each gigabyte) and recorded. `progress` gets the bytes done and the file's size.
    public static func sha256(ofFileAt path: String, progress: (Int, Int) -> Void = { _, _ in }) throws(ModelStoreError) -> String {
        if let record = VerificationRecord(for: path) { return record.sha256 }
        return try compute(ofFileAt: path, source: nil, progress: progress)
    }

    /// Hashes a file and records the result.
    static func compute(ofFileAt path: String, source: String?, progress: (Int, Int) -> Void) throws(ModelStoreError) -> String {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else { throw ModelStoreError(code: .storage, message: "\(path): cannot be opened: \(systemReason(errno))") }
        defer { close(descriptor) }
        guard let state = FileState(path: path) else { throw ModelStoreError(code: .storage, message: "\(path): is not a regular file") }
        var digest = SHA256Digest()
        try readPieces(of: descriptor, path: path, offset: 0, count: state.size) { piece, done in
            digest.update(piece)
            progress(done, state.size)
        }
        let sha256 = digest.finishHexadecimal()
        // A file that changed meanwhile gets no record.
        if FileState(path: path) == state { VerificationRecord(state: state, sha256: sha256, source: source).write(for: path) }
        return sha256
    }
}
