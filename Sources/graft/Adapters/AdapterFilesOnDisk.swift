import Adapters
import FoundationEssentials

#if canImport(Glibc)
import Glibc
#endif

/// The files of an adapter that a user names: a directory's two, or a single file.
func readAdapterFiles(at path: String) throws -> [ExportedAdapter.File] {
    var status = stat()
    guard stat(path, &status) == 0 else { throw CommandError("\(path) is not there; expected a PEFT directory, a .gguf or a .tar file") }
    func file(_ path: String, _ name: String) throws -> ExportedAdapter.File {
        ExportedAdapter.File(name: name, bytes: try readUserFile(path, expected: "an adapter's file"))
    }
    guard status.st_mode & S_IFMT == S_IFDIR else { return [try file(path, path.split(separator: "/").last.map(String.init) ?? path)] }
    let names = [PEFTAdapter.configName, PEFTAdapter.weightsName]
    for name in names where access("\(path)/\(name)", R_OK) != 0 {
        throw CommandError("\(path)/\(name) cannot be read; a PEFT directory has \(names.joined(separator: " and "))")
    }
    return try names.map { try file("\(path)/\($0)", $0) }
}

/// Writes an exported adapter: a directory for PEFT, one file for GGUF.
func writeAdapterFiles(_ files: [ExportedAdapter.File], to path: String, format: AdapterFormat, replacing: Bool) throws {
    if access(path, F_OK) == 0, !replacing { throw CommandError("\(path) is there already; choose another path, or replace it with --force") }
    if format == .peft, mkdir(path, 0o755) != 0, errno != EEXIST { throw CommandError("\(path) cannot be made: \(String(cString: strerror(errno)))") }
    for file in files {
        let target = format == .peft ? "\(path)/\(file.name)" : path
        do {
            try Data(file.bytes).write(to: URL(filePath: target), options: .atomic)
        } catch {
            throw CommandError("\(target) cannot be written: \(String(cString: strerror(errno)))")
        }
    }
}
