import Adapters
import GGUF
import InstructionStore
import Modeling

#if canImport(Glibc)
import Glibc
#endif

/// Where a server keeps its adapters, and how many of them it holds in memory.
struct AdapterSettings {
    var dataDirectory: String
    var directory: String
    /// Names of base models, which no adapter may take.
    var reservedNames: Set<String>
    var budgetBytes: Int
    /// What requests without a model get; `nil`: the base.
    var defaultAdapter: AdapterReference?
    /// Where `POST /v1/load_lora_adapter` may read; `nil`: nowhere.
    var loraPathsDirectory: String?
    var allowsGlobalLoRA: Bool

    init(_ settings: Settings) throws {
        dataDirectory = settings.string("data_directory", "Data")
        directory = settings.string("adapters.directory", "Adapters")
        reservedNames = catalogNames(in: settings.string("models_directory", "Models"))
        budgetBytes = try settings.integer("adapters.memory_megabytes", 1024, in: 1...1 << 24) << 20
        let named = settings.string("adapters.default", "")
        defaultAdapter = AdapterReference(named)
        guard named.isEmpty || defaultAdapter != nil else {
            throw SettingsError("adapters.default: found '\(TerminalText.oneLine(named))', expected an adapter as NAME, NAME@3 or NAME@latest")
        }
        let directory = settings.string("adapters.lora_paths_directory", "")
        loraPathsDirectory = directory.isEmpty ? nil : directory
        allowsGlobalLoRA = try settings.bool("adapters.allow_global_lora", false)
    }
}

/// The data directory, held by this process, with the database and the adapters that are tied to it.
struct AdapterHome {
    let data: DataDirectory
    private let settings: AdapterSettings
    let store: InstructionStore

    /// - Throws: `DataDirectoryError`, which says who holds the directory.
    init(_ settings: AdapterSettings) throws {
        self.settings = settings
        data = try DataDirectory(path: settings.dataDirectory)
        store = try InstructionStore(directory: data)
    }

    /// Where unfinished jobs keep their snapshots.
    var jobsDirectory: String { "\(data.path)/jobs" }

    func registry(base: AdapterBase) throws -> AdapterRegistry {
        try AdapterRegistry(
            directory: settings.directory, store: store, base: base, budgetBytes: settings.budgetBytes,
            reservedNames: settings.reservedNames)
    }
}

/// The adapters of the data directory: opened here, or asked of the server that has it open.
func openAdapters(_ options: AdapterOptions) throws -> any AdapterOperations {
    let (settings, engine) = try options.engineSettings()
    do {
        let home = try AdapterHome(try AdapterSettings(settings))
        return LocalAdapters(try home.registry(base: try adapterBase(engine)), holding: home.data)
    } catch let error as DataDirectoryError {
        guard let holder = error.holder, let address = holder.address else { throw error }
        return RemoteAdapters(server: try RunningServer(address: address, key: try options.access.key(), certificate: holder.certificate))
    }
}

/// What adapters belong to, from the model file's header alone.
func adapterBase(_ settings: EngineSettings) throws -> AdapterBase {
    let resolved = try findModel(settings.model, in: settings.modelsDirectory)
    let file = try GGUFFile(path: resolved.path)
    let configuration: ModelConfiguration
    do {
        configuration = try ModelConfiguration(metadata: file.metadata)
    } catch {
        throw CommandError("\(resolved.path): \(error)")
    }
    return AdapterBase(name: resolved.name, digest: try modelDigest(resolved), configuration: configuration, numerics: settings.exact ? .exact : .fast)
}
