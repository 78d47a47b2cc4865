import Adapters
import FoundationEssentials
import GGUF
import InstructionStore
import Modeling
import Synchronization
import TestSupport

/// A registry over the tiny llama model, in folders of its own; it can be closed and opened again like a server that restarts.
final class RegistryFixture {
    static let configuration: ModelConfiguration = {
        do {
            return try ModelConfiguration(metadata: GGUFFile(path: goldenFolder.appending(path: "tiny/llama.gguf").path).metadata)
        } catch {
            fatalError("\(error)")
        }
    }()

    /// What happens at the stages of changes; tests set it when they need it.
    final class Stages: Sendable {
        let action = Mutex<AdapterRegistry.StageHook?>(nil)
        /// Readings of files for use, so far.
        let filesRead = Atomic<Int>(0)

        var hook: AdapterRegistry.StageHook {
            { stage throws(AdapterError) in
                if stage == .filesRead { self.filesRead.add(1, ordering: .relaxed) }
                let action = self.action.withLock { $0 }
                try action?(stage)
            }
        }
    }

    let folder: TemporaryFolder
    let stages = Stages()
    var budgetBytes = 1 << 30
    var base: AdapterBase
    private(set) var store: InstructionStore
    private(set) var registry: AdapterRegistry

    init(folder: TemporaryFolder? = nil, budgetBytes: Int = 1 << 30) throws {
        self.folder = try folder ?? TemporaryFolder()
        self.budgetBytes = budgetBytes
        base = AdapterBase(name: "tiny", digest: String(repeating: "1", count: 64), configuration: Self.configuration, numerics: .exact)
        (store, registry) = try Self.open(self.folder, base, budgetBytes, stages)
    }

    var directory: String { "\(folder.path)/adapters" }

    private static func open(_ folder: TemporaryFolder, _ base: AdapterBase, _ budgetBytes: Int, _ stages: Stages) throws -> (InstructionStore, AdapterRegistry)
    {
        let store = try InstructionStore(directory: DataDirectory(path: "\(folder.path)/data"))
        let registry = try AdapterRegistry(
            directory: "\(folder.path)/adapters", store: store, base: base, budgetBytes: budgetBytes, reservedNames: ["other-model"], now: { 1_700_000_000 },
            onStage: stages.hook)
        return (store, registry)
    }

    /// Closes everything, lets `body` change the folders, and opens again.
    func restart(after body: () throws -> Void = {}) throws {
        // The old store must be gone before the directory can be taken again, so another takes its place meanwhile.
        let placeholder = try TemporaryFolder()
        (store, registry) = try Self.open(placeholder, base, budgetBytes, stages)
        try body()
        (store, registry) = try Self.open(folder, base, budgetBytes, stages)
    }

    /// Everything in the directory of adapters but the mark of its owner, and nothing that is on its way.
    func files() throws -> [String] {
        try folder.contents(of: "adapters").filter { $0 != ".graft-adapters" }
    }

    func expectedFiles(_ folders: [String]) -> [String] {
        var all: Set<String> = []
        for folder in folders {
            let parts = folder.split(separator: "/")
            for count in 1...parts.count { all.insert(parts.prefix(count).joined(separator: "/") + "/") }
            all.formUnion(["\(folder)/adapter_config.json", "\(folder)/adapter_model.safetensors"])
        }
        return all.sorted()
    }

    @discardableResult
    func publish(_ name: String, seed: Int = 1, owner: String = "local", promote: Bool = true, source: AdapterSource = .peft) throws -> AdapterVersion {
        try registry.publish(Self.content(seed: seed), as: name, owner: owner, source: source, promote: promote)
    }

    func resolve(_ text: String, owner: String = "local", stickyKey: String? = nil) -> AdapterVersion? {
        AdapterReference(text).flatMap { registry.resolve($0, owner: owner, stickyKey: stickyKey) }
    }

    /// Names and numbers of what is in memory.
    var resident: [String] { registry.statistics.resident.map { "\($0.name)@\($0.number)" } }

    /// Two pairs of rank 2 with values that depend on the seed; all seeds have equal shapes. Values are multiples of an eighth, so that any storage type holds
    /// them exactly.
    static func content(seed: Int, layers: [Int] = [0, 1], rank: Int = 2) -> AdapterContent {
        let pairs = layers.map { layer in
            let shape = configuration.shape(of: .v)
            func values(_ count: Int, _ salt: Int) -> [Float] { (0..<count).map { Float(($0 * 7 + salt + seed * 13) % 31 - 15) / 8 } }
            return LowRankPair(
                layer: layer, projection: .v, scale: 0.5, rank: rank, a: values(rank * shape.columns, layer), b: values(shape.rows * rank, layer + 3))
        }
        return AdapterContent(pairs: pairs, storage: .float32, baseModelName: nil)
    }

    /// The code and message of an `AdapterError` that `body` throws; `nil` if it throws none.
    static func refusal(_ body: () throws -> Void) -> AdapterError? {
        do {
            try body()
            return nil
        } catch {
            return error as? AdapterError
        }
    }

    // MARK: Damage

    func path(_ folder: String, _ file: String) -> String { "\(directory)/\(folder)/\(file)" }

    /// Changes one bit in the last quarter of a file, among the numbers.
    static func flipBit(_ path: String) throws {
        var data = try Data(contentsOf: URL(filePath: path))
        data[data.count - data.count / 8] ^= 0x10
        try data.write(to: URL(filePath: path))
    }

    static func truncate(_ path: String) throws {
        let data = try Data(contentsOf: URL(filePath: path))
        try data.prefix(data.count - 1).write(to: URL(filePath: path))
    }
}
