import Adapters
import InstructionStore
import Kernels
import Tokenization
import Training
import Tuning

/// How adapters are tuned here: the settings under `tuning`.
struct TuningSettings {
    var isEnabled: Bool
    /// Of the time that serving and training both want, how much training gets at least.
    var share: Double
    /// What a run may need beside the model; `nil`: what the machine has left.
    var memoryLimitBytes: Int?
    var precision: TrainingConfiguration.Precision?
    /// The longest example of jobs that do not say, in tokens.
    var maximumLength: Int
    private var configure: (inout TuningConfiguration) -> Void

    init(_ settings: Settings) throws {
        isEnabled = try settings.bool("tuning.enabled", true)
        share = Double(try settings.integer("tuning.share_percent", 30, in: 0...95)) / 100
        let megabytes = try settings.integer("tuning.memory_megabytes", 0, in: 0...1 << 24)
        memoryLimitBytes = megabytes == 0 ? nil : megabytes << 20
        precision = settings.string("tuning.precision", "auto") == "auto" ? nil : try settings.choice("tuning.precision", TrainingConfiguration.Precision.bfloat16)
        maximumLength = try settings.integer("tuning.max_length", 1024, in: 2...1 << 20)
        let rank = try settings.integer("tuning.rank", 16, in: 1...256)
        let rows = try settings.integer("tuning.micro_batch_tokens", 1024, in: 16...1 << 20)
        let seconds = try settings.integer("tuning.snapshot_seconds", 30, in: 1...86_400)
        let steps = try settings.integer("tuning.snapshot_steps", 50, in: 1...1_000_000)
        configure = { [maximumLength] configuration in
            configuration.defaults.maximumLength = maximumLength
            configuration.defaults.rank = rank
            configuration.defaults.microBatchTokens = rows
            configuration.snapshotInterval = .seconds(seconds)
            configuration.snapshotSteps = steps
        }
    }

    func turnstile() -> ComputeTurnstile { ComputeTurnstile(trainingShare: share) }

    /// - Parameters:
    ///   - reserved: bytes that serving may still come to need.
    ///   - notice, ended: see `JobQueue`.
    func queue(
        home: AdapterHome, loaded: LoadedModel, encoder: ConversationEncoder, adapters: AdapterRegistry, files: FileStore, turnstile: ComputeTurnstile, reserved: Int,
        notice: @escaping @Sendable (_ job: String, _ message: String) -> Void, ended: @escaping @Sendable (JobEnd) -> Void = { _ in }
    ) throws -> JobQueue {
        var configuration = TuningConfiguration(directory: home.jobsDirectory)
        configure(&configuration)
        configuration.defaults.precision = precision ?? Trainer.fastestPrecision(loaded.variant)
        // A tenth is left to the system.
        configuration.memoryLimitBytes = memoryLimitBytes ?? max(Environment.memoryBytes / 10 * 9 - Environment.peakResidentBytes - reserved, 0)
        let context = loaded.model.configuration.contextLength
        return try JobQueue(
            store: home.store, adapters: adapters, files: files,
            trainer: Trainer(model: loaded.model, variant: loaded.variant, pool: loaded.pool, turnstile: turnstile),
            read: { bytes, length, interruption throws(DatasetError) in
                try DatasetReader(encoder: encoder, maximumLength: min(length, context)).read(bytes, interruption: interruption)
            },
            configuration: configuration, notice: notice, ended: ended)
    }
}
