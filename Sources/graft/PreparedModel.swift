import Inference
import OpenAIAPI

/// A model with its engine, for the commands that answer in this process.
struct PreparedModel {
    let served: ServedModel
    let engine: Engine

    init(_ settings: EngineSettings) throws {
        let loaded = try LoadedModel(settings)
        let tokenizer = try loaded.tokenizer()
        let template = try loaded.chatTemplate()
        engine = try loaded.engine(settings, tokenizer: tokenizer)
        served = ServedModel(
            name: loaded.name, tokenizer: tokenizer, chatTemplate: template, contextLength: engine.limits.contextLength, created: 0, digest: loaded.digest)
    }
}
