import Glibc
import InstructionStore

/// The published versions on disk: `<directory>/<owner>/<name>/<number>/`, each a PEFT directory of two files, plus `.tmp-…` for what is being made.
///
/// Nothing is ever removed but files of the two known names and folders that are empty then: whatever else somebody keeps here stays. A directory belongs to
/// one process at a time, from making this value until the last copy of it is gone.
///
/// What is said of versions, as their damage, names files relative to the directory, because clients read it; errors of the system are for the operator and
/// have whole paths.
struct AdapterFolders: Sendable {
    static let temporaryPrefix = ".tmp-"
    /// Says whose the directory is, and is locked by who uses it.
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
    private let marker: AdapterDirectoryMarker

    static func folder(owner: String, name: String, number: Int) -> String { "\(owner)/\(name)/\(number)" }

    func path(_ folder: String) -> String { "\(directory)/\(folder)" }

    // MARK: Making

    /// Makes a temporary folder with both files, whose bytes are on the disk then; their names are not durable yet.
    /// - Returns: its name in the directory.
    func stage(config: [UInt8], weights: [UInt8]) throws(AdapterError) -> String {
        let folder = Self.temporaryPrefix + String(UInt64.random(in: .min ... .max), radix: 16)
        guard mkdir(path(folder), 0o700) == 0 else { throw AdapterError(path(folder), "cannot be made", errno) }
        do {
            try write(config, to: "\(folder)/\(PEFTAdapter.configName)")
            try write(weights, to: "\(folder)/\(PEFTAdapter.weightsName)")
        } catch {
            remove(folder)
            throw error
        }
        return folder
    }

    /// Makes the names of a staged folder's files durable.
    func synchronize(_ folder: String) throws(AdapterError) {
        try Self.synchronizeDirectory(path(folder))
    }

    /// Makes the folders above a version's.
    func makeParents(of folder: String) throws(AdapterError) {
        for parent in parents(of: folder).dropFirst() {
            guard mkdir(parent, 0o700) == 0 || errno == EEXIST else { throw AdapterError(parent, "cannot be made", errno) }
        }
    }

    /// Gives a staged folder its final name. The new entry is not durable yet.
    /// - Throws: `conflict` when anything has the name: it may be somebody's published version, and what interrupted publications left goes at the next start.
    func rename(_ temporary: String, to folder: String) throws(AdapterError) {
        var status = stat()
        // Should something come to be there after this look, the system itself refuses to replace it, unless it is an empty folder.
        if lstat(path(folder), &status) == 0 { throw occupied(folder) }
        guard Glibc.rename(path(temporary), path(folder)) == 0 else {
            guard errno == ENOTEMPTY || errno == EEXIST || errno == ENOTDIR else { throw AdapterError(path(folder), "cannot be named so", errno) }
            throw occupied(folder)
        }
    }

    private func occupied(_ folder: String) -> AdapterError {
        AdapterError(
            .conflict,
            "\(folder) in the directory of the adapters: found something there, expected nothing where the new version belongs; move it away, or restart the "
                + "server if an interrupted publication left it, then try again")
    }

    /// Makes the new name of a folder durable, those of the folders above it, and that the temporary one is gone. Folders that were there already are synced
    /// too: a process that died may have made them.
    func synchronizeParents(of folder: String) throws(AdapterError) {
        for parent in parents(of: folder).reversed() { try Self.synchronizeDirectory(parent) }
    }

    /// From the directory down to the one that holds a version's folder.
    private func parents(of folder: String) -> [String] {
        folder.split(separator: "/").dropLast().reduce(into: [directory]) { $0.append("\($0.last ?? directory)/\($1)") }
    }

    private func write(_ bytes: [UInt8], to file: String) throws(AdapterError) {
        let path = path(file)
        let descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0o600)
        guard descriptor >= 0 else { throw AdapterError(path, "cannot be made", errno) }
        defer { close(descriptor) }
        var done = 0
        while done < bytes.count {
            let count = bytes.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress.map { $0 + done }, $0.count - done) }
            if count > 0 {
                done += count
            } else if errno != EINTR {
                throw AdapterError(path, "cannot be written", count == 0 ? ENOSPC : errno)
            }
        }
        // By the descriptor that wrote: it is told of every error since.
        guard fsync(descriptor) == 0 else { throw AdapterError(path, "cannot be written to disk", errno) }
    }

    private static func synchronizeDirectory(_ path: String) throws(AdapterError) {
        let descriptor = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { throw AdapterError(path, "cannot be opened", errno) }
        defer { close(descriptor) }
        guard fsync(descriptor) == 0 else { throw AdapterError(path, "cannot be written to disk", errno) }
    }

    private static func parent(of path: String) -> String {
        path.lastIndex(of: "/").map { String(path[..<$0]) } ?? "."
    }

    // MARK: Reading

    /// What is wrong with a version's files as far as a look without reading shows; `nil` when nothing is.
    func fault(in folder: String, sizes: Sizes) -> String? {
        for (name, expected) in [(PEFTAdapter.configName, sizes.config), (PEFTAdapter.weightsName, sizes.weights)] {
            let file = "\(folder)/\(name)"
            var status = stat()
            guard lstat(path(file), &status) == 0 else { return "\(file): \(errno == ENOENT ? "is missing" : systemReason(errno))" }
            guard status.st_mode & S_IFMT == S_IFREG else { return "\(file): is no regular file" }
            guard Int(status.st_size) == expected else { return "\(file): found \(status.st_size) bytes, expected \(expected)" }
        }
        return nil
    }

    func read(_ folder: String, sizes: Sizes) throws(ReadFailure) -> (config: [UInt8], weights: [UInt8]) {
        (try readFile("\(folder)/\(PEFTAdapter.configName)", count: sizes.config), try readFile("\(folder)/\(PEFTAdapter.weightsName)", count: sizes.weights))
    }

    private func readFile(_ file: String, count: Int) throws(ReadFailure) -> [UInt8] {
        let path = path(file)
        // Without O_NONBLOCK, opening a FIFO would wait for a writer.
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)
        guard descriptor >= 0 else {
            switch errno {
            case ENOENT, ENOTDIR: throw .damaged("\(file): is missing")
            case ELOOP: throw .damaged("\(file): is a symbolic link, expected a regular file")
            default: throw .refused(AdapterError(path, "cannot be opened", errno))
            }
        }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw .refused(AdapterError(path, "cannot be examined", errno)) }
        guard status.st_mode & S_IFMT == S_IFREG else { throw .damaged("\(file): is no regular file") }
        guard Int(status.st_size) == count else { throw .damaged("\(file): found \(status.st_size) bytes, expected \(count)") }
        var problem: ReadFailure?
        let bytes = [UInt8](unsafeUninitializedCapacity: count) { buffer, initialized in
            while initialized < count {
                let got = pread(descriptor, buffer.baseAddress.map { $0 + initialized }, count - initialized, off_t(initialized))
                if got > 0 {
                    initialized += got
                } else if got == 0 {
                    problem = .damaged("\(file): ends at byte \(initialized), expected \(count)")
                    return
                } else if errno != EINTR {
                    problem = .refused(AdapterError(path, "cannot be read", errno))
                    return
                }
            }
        }
        if let problem { throw problem }
        return bytes
    }

    // MARK: Removing

    /// Removes a version's or a temporary folder, and the folders above it that are empty then. What cannot be removed stays for the next start.
    func remove(_ folder: String) {
        for name in [PEFTAdapter.configName, PEFTAdapter.weightsName] { unlink("\(path(folder))/\(name)") }
        guard rmdir(path(folder)) == 0 || errno == ENOENT else { return }
        removeEmptyParents(of: folder)
    }

    /// Removes the folders above a version's that are empty.
    func removeEmptyParents(of folder: String) {
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

    /// Takes the directory, which is made if need be, and marks it as the store's with this id, so that no other store takes the versions in it for leftovers.
    /// - Throws: `conflict` when somebody uses the directory, or when versions are in it that belong to another store, or to nobody.
    init(claiming directory: String, for storeID: String) throws(AdapterError) {
        try Self.makeDirectory(directory)
        self.directory = directory
        marker = try AdapterDirectoryMarker(directory: directory)
        let found = try marker.storeID()
        if found == storeID { return }
        // A marker that is empty or torn names nobody: it is on the disk before any version can be.
        if let folder = try versionFolders().first {
            throw AdapterError(
                .conflict,
                "\(directory): found \(folder), which \(found == nil ? "no data directory has published" : "another data directory has published"); "
                    + "use the data directory that belongs to these adapters, or name another directory for adapters with GRAFT_ADAPTERS_DIRECTORY")
        }
        try marker.write(storeID)
        try Self.synchronizeDirectory(directory)
    }

    private static func makeDirectory(_ directory: String) throws(AdapterError) {
        if mkdir(directory, 0o700) == 0 {
            try synchronizeDirectory(parent(of: directory))
            return
        }
        var status = stat()
        guard errno == EEXIST else { throw AdapterError(directory, "cannot be made", errno) }
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
        guard let stream = opendir(path) else { throw AdapterError(path, "cannot be listed", errno) }
        defer { closedir(stream) }
        var names: [String] = []
        while true {
            errno = 0
            guard let entry = readdir(stream) else { break }
            let name = withUnsafeBytes(of: entry.pointee.d_name) { bytes in String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self) }
            if name != ".", name != ".." { names.append(name) }
        }
        guard errno == 0 else { throw AdapterError(path, "cannot be listed", errno) }
        return names
    }
}

extension AdapterError {
    /// What the system said to an operation on a file, for the operator.
    init(_ path: String, _ what: String, _ number: Int32) {
        let isFull = isStorageFull(number)
        let wayOut = isFull ? "free some room, then try again" : "check the disk and that this user may write there"
        self.init(isFull ? .storageFull : .storage, "\(path): \(what): \(systemReason(number)); \(wayOut)")
    }
}
