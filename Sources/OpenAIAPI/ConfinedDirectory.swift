import Glibc

/// Reads files of one directory and below for clients that name them by path: nothing outside can be reached, neither by `..` nor by links, also not
/// when somebody changes the directory meanwhile. Links that stay inside are followed. Messages never name the directory itself.
struct ConfinedDirectory: Sendable {
    struct Refusal: Error, Sendable {
        enum Code: Sendable {
            case outside, notFound, notReadable, tooLarge
        }

        let code: Code
        let message: String
    }

    enum Item: Sendable {
        case directory
        case file
    }

    /// As configured.
    private let directory: String
    /// Absolute, without links.
    private let root: String
    private let limit: Int

    /// Blocking.
    /// - Parameter limit: the most bytes of one file.
    init(_ directory: String, limit: Int) throws(Refusal) {
        guard let root = ConfinedDirectory.resolve(directory) else {
            throw Refusal(code: .notReadable, message: "the directory for adapters that the server's settings name does not exist")
        }
        self.directory = directory
        self.root = root
        self.limit = limit
    }

    /// Blocking. What a client's path names.
    func item(at path: String) throws(Refusal) -> Item {
        let descriptor = try open(path)
        defer { close(descriptor) }
        switch try status(of: descriptor, path).st_mode & S_IFMT {
        case S_IFDIR: return .directory
        case S_IFREG: return .file
        default: throw Refusal(code: .notReadable, message: "'\(quoted(path))' is neither a directory nor a regular file")
        }
    }

    /// Blocking. The bytes of a regular file.
    func read(_ path: String) throws(Refusal) -> [UInt8] {
        let descriptor = try open(path)
        defer { close(descriptor) }
        let status = try status(of: descriptor, path)
        guard status.st_mode & S_IFMT == S_IFREG else { throw Refusal(code: .notReadable, message: "'\(quoted(path))' is no regular file") }
        // The size may change while the file is read, so it is only where to begin.
        guard status.st_size <= limit else {
            throw Refusal(code: .tooLarge, message: "'\(quoted(path))' has \(status.st_size) bytes, expected at most \(limit)")
        }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(Int(status.st_size))
        var buffer = [UInt8](repeating: 0, count: 1 << 20)
        while true {
            let count = Glibc.read(descriptor, &buffer, buffer.count)
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { throw Refusal(code: .notReadable, message: "'\(quoted(path))' cannot be read: \(String(cString: strerror(errno)))") }
            if count == 0 { return bytes }
            guard bytes.count + count <= limit else {
                throw Refusal(code: .tooLarge, message: "'\(quoted(path))' has more than the \(limit) bytes that are accepted")
            }
            bytes += buffer[..<count]
        }
    }

    // MARK: - Paths

    /// Opens a client's path for reading: first finds where its links lead and that this is inside, then walks there through directories only.
    private func open(_ path: String) throws(Refusal) -> Int32 {
        let outside = Refusal(code: .outside, message: "'\(quoted(path))' is not below the directory that the server's settings allow adapters to be read from")
        guard let below = relative(path) else { throw outside }
        guard let resolved = ConfinedDirectory.resolve(root + "/" + below) else {
            throw Refusal(code: .notFound, message: "there is no '\(quoted(path))'")
        }
        guard let inside = ConfinedDirectory.rest(of: resolved, below: root) else { throw outside }
        var descriptor = Glibc.open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        let components = inside.split(separator: "/")
        for (index, component) in components.enumerated() where descriptor >= 0 {
            // Without links in it, so one that is met now was put there meanwhile. A pipe must not make the thread wait.
            let flags = index == components.count - 1 ? O_RDONLY | O_NONBLOCK : O_RDONLY | O_DIRECTORY
            let next = openat(descriptor, String(component), flags | O_NOFOLLOW | O_CLOEXEC)
            let number = errno
            close(descriptor)
            errno = number
            descriptor = next
        }
        guard descriptor >= 0 else {
            throw Refusal(code: .notReadable, message: "'\(quoted(path))' cannot be opened: \(String(cString: strerror(errno)))")
        }
        return descriptor
    }

    private func status(of descriptor: Int32, _ path: String) throws(Refusal) -> stat {
        var status = stat()
        guard fstat(descriptor, &status) == 0 else {
            throw Refusal(code: .notReadable, message: "'\(quoted(path))' cannot be examined: \(String(cString: strerror(errno)))")
        }
        return status
    }

    /// A client's path from the root on; `nil` for one that leads, or could lead, out of it.
    private func relative(_ path: String) -> String? {
        var rest = path[...]
        if path.hasPrefix("/") {
            guard let inside = ConfinedDirectory.rest(of: path, below: directory) ?? ConfinedDirectory.rest(of: path, below: root) else { return nil }
            rest = inside
        }
        let components = rest.split(separator: "/").filter { $0 != "." }
        guard !path.isEmpty, !path.utf8.contains(0), path.utf8.count < Int(PATH_MAX), !components.contains("..") else { return nil }
        return components.joined(separator: "/")
    }

    /// What follows a directory in a path; empty for the directory itself, `nil` for another path.
    private static func rest(of path: String, below directory: String) -> Substring? {
        var directory = directory[...]
        while directory.count > 1, directory.hasSuffix("/") { directory = directory.dropLast() }
        if directory == "/" { return path.dropFirst() }
        guard path.hasPrefix(directory) else { return nil }
        let rest = path.dropFirst(directory.count)
        return rest.isEmpty || rest.hasPrefix("/") ? rest.drop { $0 == "/" } : nil
    }

    /// An absolute path without links; `nil` when there is nothing at it.
    private static func resolve(_ path: String) -> String? {
        guard let resolved = realpath(path, nil) else { return nil }
        defer { free(resolved) }
        return String(cString: resolved)
    }
}
