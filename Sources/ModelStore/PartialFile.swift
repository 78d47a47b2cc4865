import Glibc
import TLS

/// A model on its way: parts are appended to it, compared with their digests, and kept or cut off again. Its length and the digests in the catalogue are all
/// the state that a later pull needs to go on.
struct PartialFile: ~Copyable {
    let path: String
    /// Open for reading and appending.
    let descriptor: Int32

    /// Opens what an earlier pull left, or begins.
    init(path: String) throws(ModelStoreError) {
        descriptor = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0o644)
        guard descriptor >= 0 else { throw ModelStoreError(code: .storage, message: "\(path): cannot be opened: \(systemReason(errno))") }
        self.path = path
    }

    deinit {
        close(descriptor)
    }

    var length: Int {
        var status = stat()
        return fstat(descriptor, &status) == 0 ? Int(status.st_size) : 0
    }

    func truncate(to length: Int) throws(ModelStoreError) {
        guard ftruncate(descriptor, off_t(length)) == 0 else { throw failure("cut to \(length) bytes") }
    }

    func synchronize() throws(ModelStoreError) {
        guard fsync(descriptor) == 0 else { throw failure("written to disk") }
    }

    /// Feeds `count` bytes from `offset` to both digests; `progress` gets the bytes done.
    func digest(
        offset: Int, count: Int, into first: inout SHA256Digest, and second: inout SHA256Digest, progress: (Int) -> Void
    ) throws(ModelStoreError) {
        try readPieces(of: descriptor, path: path, offset: offset, count: count) { (piece, done) in
            first.update(piece)
            second.update(piece)
            progress(done)
        }
    }

    /// Gives the file its final name so that after a power cut either the old or the whole new file is there.
    consuming func publish(as finalPath: String) throws(ModelStoreError) {
        try synchronize()
        guard rename(path, finalPath) == 0 else { throw failure("renamed to \(finalPath)") }
        try synchronizeDirectory(of: finalPath)
    }

    private func failure(_ what: String) -> ModelStoreError {
        ModelStoreError(code: .storage, message: "\(path): cannot be \(what): \(systemReason(errno))")
    }
}

/// Makes a rename in the directory of `path` durable.
func synchronizeDirectory(of path: String) throws(ModelStoreError) {
    let directory = path.lastIndex(of: "/").map { String(path[..<$0]) } ?? "."
    let descriptor = open(directory.isEmpty ? "/" : directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    guard descriptor >= 0 else { throw ModelStoreError(code: .storage, message: "\(directory): cannot be opened: \(systemReason(errno))") }
    defer { close(descriptor) }
    guard fsync(descriptor) == 0 else { throw ModelStoreError(code: .storage, message: "\(directory): cannot be written to disk: \(systemReason(errno))") }
}

/// Reads a range in pieces of 1 MiB; `body` gets each piece and the bytes done with it.
func readPieces(
    of descriptor: Int32, path: String, offset: Int, count: Int, body: (UnsafeRawBufferPointer, Int) -> Void
) throws(ModelStoreError) {
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 4096)
    defer { buffer.deallocate() }
    var done = 0
    while done < count {
        let got = pread(descriptor, buffer.baseAddress, min(buffer.count, count - done), off_t(offset + done))
        if got < 0 && errno == EINTR { continue }
        guard got > 0 else {
            let reason = got == 0 ? "the file ends at byte \(offset + done)" : systemReason(errno)
            throw ModelStoreError(code: .storage, message: "\(path): cannot be read: \(reason)")
        }
        done += got
        body(UnsafeRawBufferPointer(rebasing: buffer[..<got]), done)
    }
}
