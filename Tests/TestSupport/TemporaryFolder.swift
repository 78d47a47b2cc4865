import FoundationEssentials

/// A new empty folder that is removed, with everything in it, when the last user lets go.
public final class TemporaryFolder: Sendable {
    public let path: String

    public init() throws {
        let url = FileManager.default.temporaryDirectory.appending(path: "graft-test-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
        path = url.path
    }

    deinit {
        try? FileManager.default.removeItem(atPath: path)
    }

    /// Everything in a folder of it, relative to that, in order; folders end in a slash.
    public func contents(of folder: String) throws -> [String] {
        try FileManager.default.contentsOfDirectory(atPath: "\(path)/\(folder)").sorted().flatMap { name -> [String] in
            var isDirectory = false
            guard FileManager.default.fileExists(atPath: "\(path)/\(folder)/\(name)", isDirectory: &isDirectory), isDirectory else { return [name] }
            return ["\(name)/"] + (try contents(of: "\(folder)/\(name)")).map { "\(name)/\($0)" }
        }
    }
}
