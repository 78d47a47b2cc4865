import Glibc
import InstructionStore

/// The published versions on disk: `<directory>/<owner>/<name>/<number>/`, each a PEFT directory of two files, plus `.tmp-…` for what is being made.
///
/// Nothing is ever removed but files of the two known names and folders that are empty then: whatever else somebody keeps here stays.
struct AdapterFolders: Sendable {
    static let configName = "adapter_config.json"
    static let weightsName = "adapter_model.safetensors"
    static let temporaryPrefix = ".tmp-"
    /// Says whose the directory is.
    static let markerName = ".graft-adapters"

    /// The sizes that a version's files must have.
    struct Sizes: Sendable, Equatable {
        var config: Int
        var weights: Int
    }

    /// What reading a version can come to.
    enum ReadFailure: Error {
        /// The files are not what was published.
        case damaged(String)
        /// The system cannot give them now.
        case refused(AdapterError)
    }

    let directory: String

    static func folder(owner: String, name: String, number: Int) -> String { "\(owner)/\(name)/\(number)" }

    func path(_ folder: String) -> String { "\(directory)/\(folder)" }

    // MARK: Making

    /// Makes a temporary folder with both files, whose bytes are on the disk then; their names are not durable yet.
    /// - Returns: its name in the directory.
    func stage(config: [UInt8], weights: [UInt8]) throws(AdapterError) -> String {
        let folder = Self.temporaryPrefix + String(UInt64.random(in: .min ... .max), radix: 16)
        guard mkdir(path(folder), 0o700) == 0 else { throw failure(path(folder), "cannot be made", errno) }
        do {
            try write(config, to: "\(folder)/\(Self.configName)")
            try write(weights, to: "\(folder)/\(Self.weightsName)")
        } catch {
            remove(folder)
            throw error
        }
        return folder
    }

    /// Makes the names of a staged folder's files durable.
    func synchronize(_ folder: String) throws(AdapterError) {
        try synchronizeDirectory(path(folder))
    }

    /// Makes the folders above a version's.
    func makeParents(of folder: String) throws(AdapterError) {
        for parent in parents(of: folder).dropFirst() {
            guard mkdir(parent, 0o700) == 0 || errno == EEXIST else { throw failure(parent, "cannot be made", errno) }
        }
    }

    /// Gives a staged folder its final name. The new entry is not durable yet.
    func rename(_ temporary: String, to folder: String) throws(AdapterError) {
        // What an interrupted publication left under this number was never visible.
        remove(folder, withParents: false)
        guard Glibc.rename(path(temporary), path(folder)) == 0 else {
            guard errno == ENOTEMPTY || errno == EEXIST || errno == ENOTDIR else { throw failure(path(folder), "cannot be named so", errno) }
            throw AdapterError(.conflict, "\(path(folder)): found other files, expected nothing where the new version belongs; move them away, then try again")
        }
    }

    /// Makes the new name of a folder durable, those of the folders above it, and that the temporary one is gone. Folders that were there already are synced
    /// too: a process that died may have made them.
    func synchronizeParents(of folder: String) throws(AdapterError) {
        for parent in parents(of: folder).reversed() { try synchronizeDirectory(parent) }
    }

    /// From the directory down to the one that holds a version's folder.
    private func parents(of folder: String) -> [String] {
        folder.split(separator: "/").dropLast().reduce(into: [directory]) { $0.append("\($0.last ?? directory)/\($1)") }
    }

    private func write(_ bytes: [UInt8], to file: String) throws(AdapterError) {
        let path = path(file)
        let descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0o600)
        guard descriptor >= 0 else { throw failure(path, "cannot be made", errno) }
        defer { close(descriptor) }
        var done = 0
        while done < bytes.count {
            let count = bytes.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress.map { $0 + done }, $0.count - done) }
            if count > 0 {
                done += count
            } else if errno != EINTR {
                throw failure(path, "cannot be written", count == 0 ? ENOSPC : errno)
            }
        }
        // By the descriptor that wrote: it is told of every error since.
        guard fsync(descriptor) == 0 else { throw failure(path, "cannot be written to disk", errno) }
    }

    private func synchronizeDirectory(_ path: String) throws(AdapterError) {
        let descriptor = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { throw failure(path, "cannot be opened", errno) }
        defer { close(descriptor) }
        guard fsync(descriptor) == 0 else { throw failure(path, "cannot be written to disk", errno) }
    }

    private func parent(of path: String) -> String {
        path.lastIndex(of: "/").map { String(path[..<$0]) } ?? "."
    }

    // MARK: Reading

    /// What is wrong with a version's files as far as a look without reading shows; `nil` when nothing is.
    func fault(in folder: String, sizes: Sizes) -> String? {
        for (name, expected) in [(Self.configName, sizes.config), (Self.weightsName, sizes.weights)] {
            let path = "\(path(folder))/\(name)"
            var status = stat()
            guard lstat(path, &status) == 0 else { return "\(path): \(errno == ENOENT ? "is missing" : systemReason(errno))" }
            guard status.st_mode & S_IFMT == S_IFREG else { return "\(path): is no regular file" }
            guard Int(status.st_size) == expected else { return "\(path): found \(status.st_size) bytes, expected \(expected)" }
        }
        return nil
    }

    func read(_ folder: String, sizes: Sizes) throws(ReadFailure) -> (config: [UInt8], weights: [UInt8]) {
        (try readFile("\(path(folder))/\(Self.configName)", count: sizes.config), try readFile("\(path(folder))/\(Self.weightsName)", count: sizes.weights))
    }

    private func readFile(_ path: String, count: Int) throws(ReadFailure) -> [UInt8] {
        // Without O_NONBLOCK, opening a FIFO would wait for a writer.
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)
        guard descriptor >= 0 else {
            switch errno {
            case ENOENT, ENOTDIR: throw .damaged("\(path): is missing")
            case ELOOP: throw .damaged("\(path): is a symbolic link, expected a regular file")
            default: throw .refused(failure(path, "cannot be opened", errno))
            }
        }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw .refused(failure(path, "cannot be examined", errno)) }
        guard status.st_mode & S_IFMT == S_IFREG else { throw .damaged("\(path): is no regular file") }
        guard Int(status.st_size) == count else { throw .damaged("\(path): found \(status.st_size) bytes, expected \(count)") }
        var problem: ReadFailure?
        let bytes = [UInt8](unsafeUninitializedCapacity: count) { buffer, initialized in
            while initialized < count {
                let got = pread(descriptor, buffer.baseAddress.map { $0 + initialized }, count - initialized, off_t(initialized))
                if got > 0 {
                    initialized += got
                } else if got == 0 {
                    problem = .damaged("\(path): ends at byte \(initialized), expected \(count)")
                    return
                } else if errno != EINTR {
                    problem = .refused(failure(path, "cannot be read", errno))
                    return
                }
            }
        }
        if let problem { throw problem }
        return bytes
    }

    // MARK: Removing

    /// Removes a version's or a temporary folder, and the folders above it that are empty then. What cannot be removed stays for the next start.
    func remove(_ folder: String, withParents: Bool = true) {
        for name in [Self.configName, Self.weightsName] { unlink("\(path(folder))/\(name)") }
        guard rmdir(path(folder)) == 0 || errno == ENOENT, withParents else { return }
        for parent in parents(of: folder).dropFirst().reversed() {
            guard rmdir(parent) == 0 || errno == ENOENT else { return }
        }
    }

    /// Removes temporary folders, and versions that are not among `known`: what interrupted publications and deletions left.
    func removeLeftovers(known: Set<String>) throws(AdapterError) {
        for name in try entries(of: directory) where name.hasPrefix(Self.temporaryPrefix) {
            if unlink(path(name)) != 0 { remove(name) }
        }
        for folder in try versionFolders() where !known.contains(folder) { remove(folder) }
        for owner in try ownerFolders() {
            for name in try nameFolders(of: owner) { rmdir(path(name)) }
            rmdir(path(owner))
        }
    }

    // MARK: Whose directory it is

    /// Makes the directory if need be and marks it as the store's with this id, so that no other store takes the versions in it for leftovers.
    /// - Throws: `conflict` when versions are in it that belong to another store, or to nobody.
    func claim(storeID: String) throws(AdapterError) {
        try makeDirectory()
        let marker = path(Self.markerName)
        var found: String?
        do {
            found = String(decoding: try readFile(marker, count: storeID.utf8.count), as: UTF8.self)
        } catch {
            // A marker that is missing or no marker names nobody.
            if case .refused(let error) = error { throw error }
        }
        if found == storeID { return }
        if let folder = try versionFolders().first {
            throw AdapterError(
                .conflict,
                "\(directory): found \(folder), which \(found == nil ? "no data directory has published" : "another data directory has published"); "
                    + "use the data directory that belongs to these adapters, or name another directory for adapters")
        }
        let temporary = Self.temporaryPrefix + String(UInt64.random(in: .min ... .max), radix: 16)
        do throws(AdapterError) {
            try write(Array(storeID.utf8), to: temporary)
            guard Glibc.rename(path(temporary), marker) == 0 else { throw failure(marker, "cannot be named so", errno) }
            try synchronizeDirectory(directory)
        } catch {
            unlink(path(temporary))
            throw error
        }
    }

    private func makeDirectory() throws(AdapterError) {
        if mkdir(directory, 0o700) == 0 {
            try synchronizeDirectory(parent(of: directory))
            return
        }
        var status = stat()
        guard errno == EEXIST else { throw failure(directory, "cannot be made", errno) }
        guard stat(directory, &status) == 0, status.st_mode & S_IFMT == S_IFDIR else {
            throw AdapterError(.storage, "\(directory): found something that is no directory, expected the directory of the adapters")
        }
    }

    /// Everything that is named like a version, relative to the directory.
    private func versionFolders() throws(AdapterError) -> [String] {
        var found: [String] = []
        for owner in try ownerFolders() {
            for name in try nameFolders(of: owner) {
                for number in try entries(of: path(name)) where number.utf8.allSatisfy({ (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }) {
                    if isDirectory("\(name)/\(number)") { found.append("\(name)/\(number)") }
                }
            }
        }
        return found.sorted()
    }

    private func ownerFolders() throws(AdapterError) -> [String] {
        try entries(of: directory).filter { InstructionStore.isValidOwner($0) && isDirectory($0) }
    }

    private func nameFolders(of owner: String) throws(AdapterError) -> [String] {
        try entries(of: path(owner)).filter { AdapterReference.isValidName($0) }.map { "\(owner)/\($0)" }.filter { isDirectory($0) }
    }

    private func isDirectory(_ folder: String) -> Bool {
        var status = stat()
        return lstat(path(folder), &status) == 0 && status.st_mode & S_IFMT == S_IFDIR
    }

    private func entries(of path: String) throws(AdapterError) -> [String] {
        guard let stream = opendir(path) else { throw failure(path, "cannot be listed", errno) }
        defer { closedir(stream) }
        var names: [String] = []
        while true {
            errno = 0
            guard let entry = readdir(stream) else { break }
            let name = withUnsafeBytes(of: entry.pointee.d_name) { bytes in String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self) }
            if name != ".", name != ".." { names.append(name) }
        }
        guard errno == 0 else { throw failure(path, "cannot be listed", errno) }
        return names
    }

    // MARK: Errors

    private func failure(_ path: String, _ what: String, _ number: Int32) -> AdapterError {
        isStorageFull(number)
            ? AdapterError(.storageFull, "\(path): \(what): \(systemReason(number)); free some room, then try again")
            : AdapterError(.storage, "\(path): \(what): \(systemReason(number)); check the disk and that this user may write there")
    }
}
