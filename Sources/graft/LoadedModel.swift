import GGUF
import Inference
import Kernels
import Modeling
import Tokenization

/// A model in memory, with its tokenizer and what computes with it.
struct LoadedModel {
    let name: String
    let path: String
    /// SHA-256 of the file as the catalogue pins it; for other files computed, or a fingerprint of path, size and time, which is enough to key caches of this process.
    let digest: String
    let file: GGUFFile
    let model: LanguageModel
    let variant: KernelVariant
    let pool: ComputePool

    /// - Parameter hashing: whether the digest is that of the file's bytes, because durable things will be tied to it.
    /// - Throws: errors that name the file, what is wrong with it and the way out.
    init(_ settings: EngineSettings, hashing: Bool = false) throws {
        let resolved = try findModel(settings.model, in: settings.modelsDirectory)
        name = resolved.name
        path = resolved.path
        variant = try KernelVariant(forced: Environment["GRAFT_ISA"])
        pool = try ComputePool(threads: settings.threads == 0 ? Environment.processorCount : settings.threads)
        file = try GGUFFile(path: path)
        digest = try hashing ? modelDigest(resolved) : resolved.model?.sha256 ?? Environment.fileFingerprint(path)
        do {
            model = try LanguageModel(file: file, pool: pool)
        } catch {
            throw SettingsError("\(path): \(error)")
        }
    }

    func tokenizer() throws -> Tokenizer {
        let tokenizer = try Tokenizer(metadata: file.metadata)
        guard tokenizer.vocabularySize == model.configuration.vocabularySize else {
            throw SettingsError(
                "\(path): the tokenizer has \(tokenizer.vocabularySize) tokens and the model \(model.configuration.vocabularySize); the file is damaged or badly converted")
        }
        return tokenizer
    }

    func chatTemplate() throws -> ChatTemplate? {
        guard let source = try file.metadata.string("tokenizer.chat_template"), !source.isEmpty else { return nil }
        do {
            return try ChatTemplate(source: source)
        } catch {
            throw SettingsError("\(path): tokenizer.chat_template: \(error)")
        }
    }

    /// How conversations become tokens.
    func encoder() throws -> ConversationEncoder { ConversationEncoder(tokenizer: try tokenizer(), chatTemplate: try chatTemplate()) }

    /// Bytes of keys and values that the engine may come to hold.
    func cacheBytes(_ settings: EngineSettings) -> Int {
        let c = model.configuration
        if settings.cacheMegabytes > 0 { return settings.cacheMegabytes << 20 }
        let context = settings.contextLength == 0 ? min(c.contextLength, 131_072) : settings.contextLength
        let precision = settings.exact ? KVCache.Precision.float32 : settings.cachePrecision
        let blockBytes = KVCache.blockBytes(layers: c.layerCount, kvHeads: c.kvHeadCount, headDim: c.headDim, precision: precision)
        return min(BlockPool.blocks(for: context) * blockBytes * (settings.maxSequences + settings.spareSequences), max(blockBytes, Environment.memoryBytes / 4))
    }

    func engine(_ settings: EngineSettings, tokenizer: Tokenizer, turnstile: ComputeTurnstile = ComputeTurnstile()) throws -> Engine {
        let c = model.configuration
        // What a file claims is not what a machine should set aside unasked.
        let context = settings.contextLength == 0 ? min(c.contextLength, 131_072) : settings.contextLength
        guard context <= c.contextLength else {
            throw SettingsError("context: found \(context), expected at most the \(c.contextLength) positions that \(name) was trained for")
        }
        var configuration = EngineConfiguration(contextLength: context, cacheBytes: cacheBytes(settings))
        configuration.maxSequences = settings.maxSequences
        configuration.maxQueued = settings.maxQueued
        configuration.spareSequences = settings.spareSequences
        configuration.maxRowsWithDrafts = settings.draftRows
        configuration.numerics = settings.exact ? .exact : .fast
        configuration.cachePrecision = settings.cachePrecision
        return try Engine(model: model, tokenizer: tokenizer, configuration: configuration, baseDigest: digest, variant: variant, pool: pool, turnstile: turnstile)
    }
}
