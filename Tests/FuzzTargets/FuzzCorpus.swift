import FoundationEssentials
import Glibc
import TestSupport

/// The inputs that every target is held to: `Tests/FuzzTests/Corpus/<target>`, and the other tests' files that its `references.txt` names.
public enum FuzzCorpus {
    /// One input.
    public struct Input: Sendable {
        /// From the repository's root.
        public var path: String
        public var bytes: [UInt8]
    }

    private static let folder = "Tests/FuzzTests/Corpus"

    /// - Throws: when a file cannot be read.
    public static func inputs(of target: FuzzTarget) throws -> [Input] {
        let own = "\(folder)/\(target.rawValue)"
        var paths = try FileManager.default.contentsOfDirectory(atPath: absolute(own)).sorted().map { "\(own)/\($0)" }
        for line in String(decoding: try bytes("\(folder)/references.txt"), as: UTF8.self).split(separator: "\n") {
            let words = line.split(separator: " ")
            if words.count == 2, words[0] == target.rawValue { paths += matches(String(words[1])) }
        }
        return try paths.map { Input(path: $0, bytes: try bytes($0)) }
    }

    private static func absolute(_ path: String) -> String { repositoryRoot.appending(path: path).path }

    private static func bytes(_ path: String) throws -> [UInt8] { Array(try Data(contentsOf: URL(filePath: absolute(path)))) }

    /// The files that a shell pattern names, in order.
    private static func matches(_ pattern: String) -> [String] {
        var found = glob_t()
        defer { globfree(&found) }
        guard glob(absolute(pattern), 0, nil, &found) == 0 else { return [] }
        return (0..<Int(found.gl_pathc)).compactMap { index in
            found.gl_pathv[index].map { String(cString: $0).replacing(repositoryRoot.path + "/", with: "") }
        }
    }
}
