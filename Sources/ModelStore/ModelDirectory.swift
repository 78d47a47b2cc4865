import FoundationEssentials
import Glibc

/// The directory that holds model files, and the catalogue of those that can be asked for by name.
///
/// Its methods block: call them from a command or a thread of their own. Any number of processes may use one directory.
public struct ModelDirectory: Sendable {
    /// Absolute.
    public let path: String
    public let catalog: ModelCatalog
    let tools: DownloadTools

    public init(path: String, catalog: ModelCatalog, tools: DownloadTools = DownloadTools()) {
        let current = FileManager.default.currentDirectoryPath
        var absolute = path.hasPrefix("/") ? path : "\(current)/\(path)"
        while absolute.count > 1, absolute.hasSuffix("/") { absolute.removeLast() }
        self.path = absolute
        self.catalog = catalog
        self.tools = tools
    }

    /// A model file that is there.
    public struct ResolvedModel: Sendable, Equatable {
        /// The model's public name: the catalogue's, or the file's without `.gguf`.
        public let name: String
        public let path: String
        /// Nil for a file that the catalogue does not know.
        public let model: CatalogModel?

        public init(name: String, path: String, model: CatalogModel?) {
            self.name = name
            self.path = path
            self.model = model
        }
    }

    /// Where a catalogue model's file is, or will be.
    public func path(of model: CatalogModel) -> String { "\(path)/\(model.file)" }

    /// Finds the file that a user means: a catalogue name, a path, or the name of a file in this directory, in that order.
    ///
    /// A catalogue model is compared with its digest unless the record beside it says that this was done before; `progress` gets bytes and total while it is.
    /// Throws `unknownModel`, `notDownloaded` or `wrongChecksum`, with the command that helps.
    public func resolve(_ nameOrPath: String, progress: (PullProgress) -> Void = { _ in }) throws(ModelStoreError) -> ResolvedModel {
        if let model = catalog[nameOrPath] {
            let file = path(of: model)
            guard FileState(path: file) != nil else {
                throw ModelStoreError(
                    code: .notDownloaded,
                    message: "model \(model.name) is not in \(path): fetch it with `graft pull \(model.name)` (\(ProgressBar.amount(model.size)))")
            }
            guard try isVerified(file, as: model, progress: progress) else {
                throw ModelStoreError(
                    code: .wrongChecksum,
                    message: "\(file) is not the file that the catalogue pins as \(model.name) (sha256 \(model.sha256)): fetch it again with `graft pull \(model.name)`")
            }
            return ResolvedModel(name: model.name, path: file, model: model)
        }
        let isBare = isPlainName(nameOrPath)
        let candidates = [nameOrPath] + (isBare ? ["\(path)/\(nameOrPath)", "\(path)/\(nameOrPath).gguf"] : [])
        if let file = candidates.first(where: { FileState(path: $0) != nil }) {
            return ResolvedModel(name: publicName(of: file), path: file, model: catalog.models.first { path(of: $0) == file })
        }
        throw unknown(nameOrPath)
    }

    /// Whether a file is a catalogue model's: by its record, or else by its digest.
    func isVerified(_ file: String, as model: CatalogModel, progress: (PullProgress) -> Void) throws(ModelStoreError) -> Bool {
        if let record = VerificationRecord(for: file) { return record.sha256 == model.sha256 }
        guard FileState(path: file)?.size == model.size else { return false }
        let sha256 = try FileDigest.compute(ofFileAt: file, source: nil) { bytes, total in
            progress(PullProgress(phase: .checking, bytes: bytes, total: total))
        }
        return sha256 == model.sha256
    }

    func unknown(_ nameOrPath: String) -> ModelStoreError {
        let names = catalog.models.map(\.name).joined(separator: ", ")
        return ModelStoreError(
            code: .unknownModel,
            message: "\(nameOrPath) is neither a file nor a model of the catalogue (\(names)): give the path of a .gguf file, or fetch a model with `graft pull NAME` or `graft pull https://…`")
    }

    private func publicName(of file: String) -> String {
        let name = file.split(separator: "/").last.map(String.init) ?? file
        return name.hasSuffix(".gguf") ? String(name.dropLast(5)) : name
    }
}
