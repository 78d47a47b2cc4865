import Adapters
import ArgumentParser
import Modeling
import TLS

#if canImport(Glibc)
import Glibc
#endif

/// `--adapter` of the commands that answer in this process.
struct ChosenAdapter: ParsableArguments {
    @Option(help: ArgumentHelp("Answer with this adapter: NAME, NAME@3, NAME@latest, or a path: a PEFT directory with a / in it, a .gguf or a .tar file.", valueName: "name|path"))
    var adapter: String?
    @OptionGroup var access: AccessOptions

    /// Reads and packs it; none gives the bare model. A name is looked up in the data directory, or asked of the server that holds it.
    func set(for loaded: LoadedModel, _ options: ModelOptions, _ numerics: Numerics) throws -> AdapterSet {
        guard let adapter else { return .none }
        let files: [ExportedAdapter.File]
        // A name is a name, whatever lies in the present folder.
        if adapter.contains("/") || adapter.hasSuffix(".gguf") || adapter.hasSuffix(".tar") || AdapterReference(adapter) == nil {
            files = try readAdapterFiles(at: adapter)
        } else {
            guard let reference = AdapterReference(adapter) else { preconditionFailure("a path was taken for a name") }
            var adapters = try AdapterOptions.parse([])
            adapters.access = access
            adapters.model = options.model
            adapters.config = options.config
            adapters.json = false
            files = try openAdapters(adapters).export(reference, as: .peft)
        }
        let content = try AdapterContent.read(files, base: loaded.model.configuration).content
        let digest = hexadecimal(SHA256Digest.of(files.flatMap(\.bytes)))
        do {
            return AdapterSet([(
                try Adapter(name: adapter, version: 0, digest: digest, configuration: loaded.model.configuration, numerics: numerics, pairs: content.pairs), 1
            )])
        } catch {
            throw CommandError("\(TerminalText.oneLine(adapter)): \(error)")
        }
    }
}
