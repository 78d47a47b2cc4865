import FoundationEssentials

#if canImport(Glibc)
import Glibc
#endif

/// The bytes of a file that the user names.
/// - Parameter expected: what should be there, with its article.
/// - Throws: `CommandError` that names the path and what is wrong with it.
func readUserFile(_ path: String, expected: String) throws -> [UInt8] {
    var status = stat()
    let shown = TerminalText.oneLine(path)
    guard stat(path, &status) == 0 else {
        let reason = errno
        throw CommandError(reason == ENOENT ? "\(shown) is not there; expected \(expected)" : "\(shown) cannot be read: \(String(cString: strerror(reason)))")
    }
    guard status.st_mode & S_IFMT != S_IFDIR else { throw CommandError("\(shown) is a directory, expected \(expected)") }
    do {
        return [UInt8](try Data(contentsOf: URL(filePath: path)))
    } catch {
        throw CommandError("\(shown) cannot be read: \(String(cString: strerror(errno)))")
    }
}
