import Glibc
import InstructionStore
import TLS

/// The file from which a job goes on: one line for people and programs, then the run's own bytes.
///
///     graft-snapshot 1 job=ftjob-… step=50 bytes=1234 sha256=…
///
/// It is written beside the old one, synced, and takes its place in one step: at any moment there is a whole one, or none.
package struct SnapshotFile: Sendable {
    package struct Content: Sendable, Equatable {
        package var step: Int
        package var bytes: [UInt8]

        package init(step: Int, bytes: [UInt8]) {
            self.step = step
            self.bytes = bytes
        }
    }

    /// What reading can come to, beside a snapshot or none.
    package enum ReadError: Error, Sendable, Equatable {
        /// There is something, and it is no whole snapshot of this job.
        case damaged(String)
        case storage(String)
    }

    package let folder: String
    private let job: String
    private static let longestHeader = 256

    /// - Parameters:
    ///   - directory: of all jobs; it must be there.
    ///   - job: the id, which is the name of the job's folder.
    package init(directory: String, job: String) {
        folder = "\(directory)/\(job)"
        self.job = job
    }

    package var path: String { "\(folder)/snapshot" }
    private var temporaryPath: String { "\(folder)/snapshot.tmp" }

    // MARK: Writing

    /// Durable on return.
    package func write(_ content: Content) throws(TuningError) {
        try Self.makeDirectory(folder)
        let digest = hexadecimal(SHA256Digest.of(content.bytes))
        let header = Array("graft-snapshot 1 job=\(job) step=\(content.step) bytes=\(content.bytes.count) sha256=\(digest)\n".utf8)
        do throws(TuningError) {
            try Self.write([header, content.bytes], to: temporaryPath)
            guard rename(temporaryPath, path) == 0 else { throw Self.failure(path, "cannot be named so", errno) }
        } catch {
            unlink(temporaryPath)
            throw error
        }
        try Self.synchronize(folder)
    }

    /// Makes a directory whose name is durable on return; one that is there is left as it is.
    package static func makeDirectory(_ path: String) throws(TuningError) {
        if mkdir(path, 0o700) == 0 {
            try synchronize(path.lastIndex(of: "/").map { String(path[..<$0]) } ?? ".")
        } else if errno != EEXIST {
            throw failure(path, "cannot be made", errno)
        }
    }

    private static func write(_ pieces: [[UInt8]], to path: String) throws(TuningError) {
        let descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0o600)
        guard descriptor >= 0 else { throw failure(path, "cannot be made", errno) }
        defer { close(descriptor) }
        for bytes in pieces {
            var done = 0
            while done < bytes.count {
                let count = bytes.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress.map { $0 + done }, $0.count - done) }
                if count > 0 {
                    done += count
                } else if errno != EINTR {
                    throw failure(path, "cannot be written", count == 0 ? ENOSPC : errno)
                }
            }
        }
        guard fsync(descriptor) == 0 else { throw failure(path, "cannot be written to disk", errno) }
    }

    private static func synchronize(_ directory: String) throws(TuningError) {
        let descriptor = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { throw failure(directory, "cannot be opened", errno) }
        defer { close(descriptor) }
        guard fsync(descriptor) == 0 else { throw failure(directory, "cannot be written to disk", errno) }
    }

    // MARK: Reading

    /// `nil` when there is none.
    package func read() throws(ReadError) -> Content? {
        guard let bytes = try readAll() else { return nil }
        guard let end = bytes.prefix(Self.longestHeader).firstIndex(of: UInt8(ascii: "\n")) else { throw .damaged("it has no first line") }
        var fields: [String: String] = [:]
        let words = String(decoding: bytes[..<end], as: UTF8.self).split(separator: " ")
        guard words.prefix(2) == ["graft-snapshot", "1"] else { throw .damaged("its first line is none of a snapshot") }
        for word in words.dropFirst(2) {
            let sides = word.split(separator: "=", maxSplits: 1).map(String.init)
            if sides.count == 2 { fields[sides[0]] = sides[1] }
        }
        guard fields["job"] == job else { throw .damaged("it belongs to another job") }
        guard let step = fields["step"].flatMap({ Int($0) }), step >= 0 else { throw .damaged("its first line names no step") }
        let content = Array(bytes[(end + 1)...])
        guard fields["bytes"] == String(content.count) else { throw .damaged("found \(content.count) bytes, expected \(fields["bytes"] ?? "another number")") }
        guard fields["sha256"] == hexadecimal(SHA256Digest.of(content)) else { throw .damaged("its bytes have another digest than its first line says") }
        return Content(step: step, bytes: content)
    }

    private func readAll() throws(ReadError) -> [UInt8]? {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)
        guard descriptor >= 0 else {
            if errno == ENOENT || errno == ENOTDIR { return nil }
            throw .storage("\(path): cannot be opened: \(systemReason(errno))")
        }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw .storage("\(path): cannot be examined: \(systemReason(errno))") }
        guard status.st_mode & S_IFMT == S_IFREG else { throw .damaged("it is no regular file") }
        let count = Int(status.st_size)
        var problem: ReadError?
        let bytes = [UInt8](unsafeUninitializedCapacity: count) { buffer, initialized in
            while initialized < count {
                let got = pread(descriptor, buffer.baseAddress.map { $0 + initialized }, count - initialized, off_t(initialized))
                if got > 0 {
                    initialized += got
                } else if got == 0 {
                    problem = .damaged("it ends at byte \(initialized), expected \(count)")
                    return
                } else if errno != EINTR {
                    problem = .storage("\(path): cannot be read: \(systemReason(errno))")
                    return
                }
            }
        }
        if let problem { throw problem }
        return bytes
    }

    // MARK: Removing

    /// Removes the job's folder with what this type keeps in it; what somebody else put there stays.
    package func remove() {
        unlink(temporaryPath)
        unlink(path)
        rmdir(folder)
    }

    /// The ids of all jobs that have a folder.
    package static func jobs(in directory: String) -> [String] {
        guard let stream = opendir(directory) else { return [] }
        defer { closedir(stream) }
        var names: [String] = []
        while let entry = readdir(stream) {
            let name = withUnsafeBytes(of: entry.pointee.d_name) { bytes in String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self) }
            if name.hasPrefix("ftjob-") { names.append(name) }
        }
        return names
    }

    static func failure(_ path: String, _ what: String, _ number: Int32) -> TuningError {
        let isFull = isStorageFull(number)
        let wayOut = isFull ? "free some room" : "check the disk and that this user may write there"
        return TuningError(isFull ? .storageFull : .storage, "\(path): \(what): \(systemReason(number)); \(wayOut)")
    }
}
