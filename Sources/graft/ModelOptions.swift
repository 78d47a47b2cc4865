import ArgumentParser
import Inference
import Kernels
import Modeling

/// The options of every command that runs a model.
struct ModelOptions: ParsableArguments {
    @Option(name: .shortAndLong, help: ArgumentHelp("A model of the catalogue, or the path of a GGUF file. Default: the setting `model`.", valueName: "name|file"))
    var model: String?
    @Option(help: ArgumentHelp("Settings. Default: Config/graft.yaml, if there is one.", valueName: "file"))
    var config: String?
    @Option(help: "Compute threads. Default: one per core.")
    var threads: Int?
    @Option(help: ArgumentHelp("Positions of one sequence, prompt and answer. Default: what the model was trained for, 131072 at most.", valueName: "tokens"))
    var context: Int?
    @Flag(help: "Float32 activations, keys and values: slow, and as exact as the weights allow.")
    var exact = false

    func validate() throws {
        if let threads, !(1...256).contains(threads) { throw ValidationError("--threads takes 1 to 256, not \(threads).") }
        if let context, context < 1 { throw ValidationError("--context takes a number from 1 up, not \(context).") }
    }

    /// The settings, and what they and the options say of the engine.
    func engineSettings() throws -> (settings: Settings, engine: EngineSettings) {
        let settings = try Settings(path: config)
        let most = Int(Int32.max)
        let engine = EngineSettings(
            model: model ?? settings.string("model", "smollm2-135m-instruct"),
            modelsDirectory: settings.string("models_directory", "Models"),
            threads: try threads ?? settings.integer("engine.threads", 0, in: 0...256),
            contextLength: try context ?? settings.integer("engine.context_length", 0, in: 0...most),
            maxSequences: try settings.integer("engine.max_sequences", 16, in: 1...256),
            maxQueued: try settings.integer("engine.max_queued", 256, in: 0...1_000_000),
            spareSequences: try settings.integer("engine.spare_sequences", 4, in: 0...256),
            draftRows: try settings.integer("engine.draft_rows", 8, in: 0...64),
            cacheMegabytes: try settings.integer("engine.cache_megabytes", 0, in: 0...1 << 24),
            cachePrecision: try settings.choice("engine.cache_type", KVCache.Precision.float16),
            exact: try exact || settings.bool("engine.exact", false))
        return (settings, engine)
    }
}

struct EngineSettings {
    var model: String
    var modelsDirectory: String
    /// 0: one per core.
    var threads: Int
    /// 0: the model's.
    var contextLength: Int
    var maxSequences: Int
    var maxQueued: Int
    /// Beyond `maxSequences`, for owners that run nothing.
    var spareSequences: Int
    /// Rows of a step up to which drafts are added; 0: none.
    var draftRows: Int
    /// 0: sized to the sequences and the machine.
    var cacheMegabytes: Int
    var cachePrecision: KVCache.Precision
    var exact: Bool
}
