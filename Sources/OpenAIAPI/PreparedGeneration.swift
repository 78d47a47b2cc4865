import Inference
import JSON
import Synchronization
import Tokenization

/// The adapters of requests that say neither `model` nor `lora`, as `POST /lora-adapters` last set them for an owner, whose adapters they are. Kept in
/// memory only, as in llama.cpp.
final class DefaultBlend: Sendable {
    private let state = Mutex<[String: [BlendEntry]]>([:])

    /// `nil` as long as the owner has set nothing: then such requests get the configured default.
    subscript(owner: String) -> [BlendEntry]? {
        get { state.withLock { $0[owner] } }
        set { state.withLock { $0[owner] = newValue } }
    }
}

/// A request that is fully checked and tokenised: nothing but the engine's answers is missing.
package struct PreparedGeneration: Sendable {
    enum Style: Sendable {
        case chat
        /// `prompts`: the text that each prompt's echo shows; empty without echo.
        case completion(echo: Bool, prompts: [String])
    }

    var style: Style
    var target: ModelTarget
    /// One per answer, by choice index: the answers to the first prompt, then those to the second.
    package var requests: [GenerationRequest]
    /// Answers per prompt.
    var choicesPerPrompt: Int
    var isStreamed: Bool
    var includesUsage: Bool
    var returnsTokenIDs: Bool
    var logprobs: Int?
    /// What is to be kept of the request beside its answer; `nil`: nothing.
    var draft: ExchangeDraft?
    /// Names of unknown fields of the request.
    var ignored: [String]

    /// Tokens of all prompts, each counted once.
    var promptTokenCount: Int {
        stride(from: 0, to: requests.count, by: choicesPerPrompt).reduce(0) { $0 + requests[$1].prompt.count }
    }

    /// What a key is charged before the engine begins: the prompts, and the most that the answers may have if the request says.
    var reservedTokenCount: Int { promptTokenCount + requests.reduce(0) { $0 + ($1.maxTokens ?? 0) } }
}

/// Turns request bodies into work for the engine. Holds no state, so that it runs on any thread.
package struct RequestPreparation: Sendable {
    let models: any ModelResolver
    let engineLimits: GenerationLimits
    let limits: RequestLimits
    var keeping = ExchangeKeeping.never
    let defaultBlend = DefaultBlend()
    /// What rendering a conversation may take.
    var templateBudget = TemplateBudget.default

    /// The same for the server's own thread, which must not wait for a template.
    var inline: RequestPreparation {
        var inline = self
        inline.templateBudget = .inline
        return inline
    }

    func target(_ name: String?, owner: String) throws(APIError) -> ModelTarget {
        try models.resolve(ModelQuery(name: name, owner: owner))
    }

    private func target(_ options: GenerationOptions, owner: String) throws(APIError) -> ModelTarget {
        var query = ModelQuery(name: options.model, owner: owner, blend: options.blend, stickyKey: options.stickyKey)
        if query.name == nil, query.blend == nil { query.blend = defaultBlend[owner] }
        return try models.resolve(query)
    }

    func value(_ body: [UInt8]) throws(APIError) -> JSONValue {
        do throws(JSONError) {
            return try JSONValue(parsing: body)
        } catch {
            throw APIError(error, in: body)
        }
    }

    /// Parses a body that must be one JSON object.
    func object(_ body: [UInt8]) throws(APIError) -> JSONObject {
        let value = try value(body)
        guard let object = value.object else {
            throw APIError(
                .badRequest, .invalidRequest, code: "invalid_type", "The body is \(describe(value)), expected a JSON object")
        }
        return object
    }

    /// A `POST /v1/chat/completions`.
    package func chat(_ body: [UInt8], owner: String) throws(APIError) -> PreparedGeneration {
        let request = try ChatRequest(try object(body), limits: limits, keeping: keeping) { options throws(APIError) in try self.target(options, owner: owner) }
        let target = request.target
        let tokens = try target.base.tokens(of: request.messages, budget: templateBudget)
        var options = request.options
        if target.base.chatTemplate == nil { options.stop.append(PlainTranscript.stop) }
        return PreparedGeneration(
            style: .chat, target: target,
            requests: try requests([tokens], options: options, logprobs: request.topLogprobs, echo: false, target: target, owner: owner, param: "messages"),
            choicesPerPrompt: options.choices, isStreamed: options.isStreamed, includesUsage: options.includesUsage,
            returnsTokenIDs: options.returnsTokenIDs, logprobs: request.topLogprobs, draft: request.draft, ignored: request.ignored)
    }

    func completion(_ body: [UInt8], owner: String) throws(APIError) -> PreparedGeneration {
        let request = try CompletionRequest(try object(body), limits: limits) { options throws(APIError) in try self.target(options, owner: owner) }
        let target = request.target
        let tokenizer = target.base.tokenizer
        var texts: [String] = []
        var prompts: [[Int32]] = []
        for prompt in request.prompts {
            switch prompt {
            case .text(let text):
                // A raw prompt is the client's own: what it spells as a control token is one, as in llama.cpp and vLLM.
                prompts.append(tokenizer.encode(text, addSpecial: true, parseSpecial: true))
                if request.echoes { texts.append(text) }
            case .tokens(let ids):
                prompts.append(ids)
                if request.echoes { texts.append(tokenizer.decode(ids, skipSpecial: false)) }
            }
        }
        return PreparedGeneration(
            style: .completion(echo: request.echoes, prompts: texts), target: target,
            requests: try requests(
                prompts, options: request.options, logprobs: request.logprobs, echo: request.echoes, target: target, owner: owner, param: "prompt"),
            choicesPerPrompt: request.options.choices, isStreamed: request.options.isStreamed,
            includesUsage: request.options.includesUsage, returnsTokenIDs: request.options.returnsTokenIDs, logprobs: request.logprobs,
            ignored: request.ignored)
    }

    private func requests(
        _ prompts: [[Int32]], options: GenerationOptions, logprobs: Int?, echo: Bool, target: ModelTarget, owner: String, param: String
    ) throws(APIError) -> [GenerationRequest] {
        let contextLength = min(target.base.contextLength, engineLimits.contextLength)
        let count = prompts.count * options.choices
        guard count <= engineLimits.maxQueued else {
            // Trying again would not help: so many never fit the queue together.
            throw .invalidValue(param, "The request asks for \(count) answers, expected at most \(engineLimits.maxQueued) at a time; send less or lower 'n'")
        }
        var requests: [GenerationRequest] = []
        requests.reserveCapacity(count)
        for (index, prompt) in prompts.enumerated() {
            let name = prompts.count == 1 ? param : "\(param)[\(index)]"
            guard !prompt.isEmpty else {
                throw .invalidValue(name, "'\(name)' has no tokens, expected at least one")
            }
            let least = options.maxTokens == 0 ? 0 : 1
            guard prompt.count + least <= contextLength else {
                throw .contextLengthExceeded(param: param, promptTokens: prompt.count, contextLength: contextLength)
            }
            for _ in 0..<options.choices {
                var request = GenerationRequest(prompt: prompt)
                request.sampling = options.sampling
                // Each answer draws its own numbers, and a seeded request repeats all of them.
                if let seed = options.sampling.seed { request.sampling.seed = seed &+ UInt64(requests.count) }
                request.maxTokens = options.maxTokens.map { min($0, contextLength - prompt.count) }
                request.stop = options.stop
                request.ignoresEndOfGeneration = options.ignoresEndOfGeneration
                request.logprobs = logprobs
                request.wantsPromptLogprobs = echo && logprobs != nil
                request.owner = owner
                request.priority = options.priority
                request.modelName = target.label
                requests.append(request)
            }
        }
        return requests
    }
}

extension RequestPreparation {
    /// For requests of which nothing is kept.
    package init(models: any ModelResolver, engineLimits: GenerationLimits, limits: RequestLimits) {
        self.init(models: models, engineLimits: engineLimits, limits: limits, keeping: .never)
    }
}
