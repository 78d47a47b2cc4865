import ModelStore

#if canImport(Glibc)
import Glibc
#endif

/// Finds the model file that a user means by a name of the catalogue or a path.
///
/// A path works without a catalogue, so that `graft` can be used anywhere on files of one's own. A name that is nearly right is answered
/// with the right one.
func findModel(_ nameOrPath: String, in modelsDirectory: String, progress: (PullProgress) -> Void = { _ in }) throws -> ModelDirectory.ResolvedModel {
    let directory: ModelDirectory
    do {
        directory = try modelDirectory(modelsDirectory)
    } catch {
        guard case .file = kind(of: nameOrPath) else { throw error }
        return ModelDirectory.ResolvedModel(name: fileStem(nameOrPath), path: nameOrPath, model: nil)
    }
    do {
        return try directory.resolve(nameOrPath, progress: progress)
    } catch {
        throw explained(error, asked: nameOrPath, in: directory)
    }
}

/// SHA-256 of a model's file, of its bytes and not of what the catalogue says of its name: durable things are tied to it. Computed once, about a second
/// for each gigabyte.
func modelDigest(_ resolved: ModelDirectory.ResolvedModel) throws -> String {
    try FileDigest.sha256(ofFileAt: resolved.path)
}

/// The names of the catalogue; none without one.
func catalogNames(in modelsDirectory: String) -> Set<String> {
    Set((try? modelDirectory(modelsDirectory))?.catalog.models.map(\.name) ?? [])
}

/// The model directory with its catalogue.
func modelDirectory(_ path: String) throws -> ModelDirectory {
    let catalog = path + "/catalog.json"
    if case .nothing = kind(of: catalog) {
        throw CommandError(
            "the model catalogue \(catalog) is not there: run graft in its own folder, or set GRAFT_MODELS_DIRECTORY "
                + "(or models_directory in the settings) to the folder that holds catalog.json")
    }
    return ModelDirectory(path: path, catalog: try ModelCatalog(path: catalog))
}

/// Adds what only the whole picture shows: a name that is almost one of the catalogue's, or a path to something that is no file.
///
/// - Parameter orElse: what may be given instead of a name.
func explained(
    _ error: ModelStoreError, asked nameOrPath: String, in directory: ModelDirectory, orElse: String = "the path of a .gguf file works too"
) -> any Error {
    guard error.code == .unknownModel else { return error }
    switch kind(of: nameOrPath) {
    case .directory:
        return CommandError("\(nameOrPath) is a directory, expected a .gguf file or a name of the catalogue (`graft pull --list` shows them)")
    case .special:
        return CommandError("\(nameOrPath) is a device, pipe or socket, expected a .gguf file or a name of the catalogue (`graft pull --list` shows them)")
    case .file, .nothing: break
    }
    guard let near = nearestName(to: nameOrPath, among: directory.catalog.models.map(\.name)) else { return error }
    return CommandError(
        "there is no model '\(TerminalText.oneLine(nameOrPath))': did you mean \(near)? (`graft pull --list` shows the catalogue; \(orElse))")
}

private enum PathKind {
    case file, directory, special, nothing
}

private func kind(of path: String) -> PathKind {
    var status = stat()
    guard stat(path, &status) == 0 else { return .nothing }
    switch status.st_mode & S_IFMT {
    case S_IFREG: return .file
    case S_IFDIR: return .directory
    default: return .special
    }
}

/// The file's name without directory and `.gguf`.
private func fileStem(_ path: String) -> String {
    let name = path.split(separator: "/").last.map(String.init) ?? path
    return name.hasSuffix(".gguf") ? String(name.dropLast(5)) : name
}
