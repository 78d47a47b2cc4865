import Inference
import Modeling
import OpenAIAPI

/// A model with its engine, for the commands that answer in this process.
struct PreparedModel {
    let served: ServedModel
    let engine: Engine
    /// What answers are computed with.
    let adapters: AdapterSet

    init(_ settings: EngineSettings, _ options: ModelOptions, adapter: ChosenAdapter) throws {
        let loaded = try LoadedModel(settings)
        let tokenizer = try loaded.tokenizer()
        let template = try loaded.chatTemplate()
        adapters = try adapter.set(for: loaded, options, settings.exact ? .exact : .fast)
        engine = try loaded.engine(settings, tokenizer: tokenizer)
        served = ServedModel(
            name: loaded.name, tokenizer: tokenizer, chatTemplate: template, contextLength: engine.limits.contextLength, created: 0, digest: loaded.digest)
    }
}
