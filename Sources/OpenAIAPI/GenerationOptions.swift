import Inference
import JSON

/// The bounds that requests are held to, beyond those of the model and the engine.
public struct RequestLimits: Sendable {
    /// The largest `n`.
    public var choices = 16
    /// The most answers of one request: prompts times `n`.
    public var sequences = 128
    public var stopStrings = 16
    /// UTF-8 bytes of one stop string.
    public var stopStringBytes = 512
    public var logitBiasEntries = 1024
    public var topLogprobs = 20
    /// For `/v1/completions`, which distillation uses.
    public var completionLogprobs = 100

    public init() {}
}

/// What chat and plain completions have in common.
struct GenerationOptions: Sendable {
    /// `nil` asks for the configured default.
    var model: String?
    /// The adapters of `lora`; `nil` when the request has none.
    var blend: [BlendEntry]?
    /// The end user, so far as the request tells: keeps the choice between an adapter's canary and its promoted version.
    var stickyKey: String?
    /// Names of unknown members of `lora`'s entries.
    var unknownMembers: [String] = []
    var sampling = SamplingParameters()
    /// Answers per prompt.
    var choices = 1
    /// `nil`: what the context leaves.
    var maxTokens: Int?
    var stop: [String] = []
    var ignoresEndOfGeneration = false
    /// Among the owner's own requests; vLLM's, where the lower number comes first.
    var priority = 0
    var isStreamed = false
    var includesUsage = false
    var returnsTokenIDs = false

    /// - Parameter minimumTokens: the least `max_tokens` that makes sense.
    init(_ fields: inout RequestFields, limits: RequestLimits, minimumTokens: Int) throws(APIError) {
        fields.accept(UnsupportedParameter.harmless)
        for parameter in UnsupportedParameter.common { try fields.refuse(parameter) }
        model = try fields.string("model", maximumBytes: 1024)
        if let lora = fields.value("lora") { blend = try BlendEntry.list(lora, path: "lora", unknown: &unknownMembers) }
        for key in ["user", "safety_identifier"] where stickyKey == nil {
            if let text = fields.value(key)?.string, !text.isEmpty { stickyKey = text }
        }
        try readSampling(&fields, limits: limits)
        choices = try fields.integer("n", in: 1...limits.choices) ?? 1
        maxTokens = try fields.integer("max_tokens", in: minimumTokens...Int(Int32.max))
        stop = try Self.stopStrings(&fields, limits: limits)
        ignoresEndOfGeneration = try fields.bool("ignore_eos") ?? false
        priority = try fields.integer("priority", in: Int(Int32.min)...Int(Int32.max)) ?? 0
        returnsTokenIDs = try fields.bool("return_token_ids") ?? false
        isStreamed = try fields.bool("stream") ?? false
    }

    private mutating func readSampling(_ fields: inout RequestFields, limits: RequestLimits) throws(APIError) {
        func set(_ path: WritableKeyPath<SamplingParameters, Float>, _ value: Double?) {
            if let value { sampling[keyPath: path] = Float(value) }
        }
        set(\.temperature, try fields.number("temperature", in: 0...2))
        set(\.topP, try fields.number("top_p", in: 0...1, excludingLower: true))
        set(\.minP, try fields.number("min_p", in: 0...1))
        set(\.typicalP, try fields.number("typical_p", in: 0...1, excludingLower: true))
        set(\.presencePenalty, try fields.number("presence_penalty", in: -2...2))
        set(\.frequencyPenalty, try fields.number("frequency_penalty", in: -2...2))
        // vLLM's and llama.cpp's name of the same thing.
        let repetition = try fields.number("repetition_penalty", in: 0.01...10)
        let repeating = try fields.number("repeat_penalty", in: 0.01...10)
        if let repetition, let repeating, repetition != repeating {
            throw .invalidValue(
                "repeat_penalty", "'repeat_penalty' is \(repeating) and 'repetition_penalty' is \(repetition); they mean the same, send one")
        }
        set(\.repetitionPenalty, repetition ?? repeating)
        if let window = try fields.integer("repeat_last_n", in: -1...Int(Int32.max)) {
            sampling.penaltyWindow = window
            if window == 0 { sampling.repetitionPenalty = 1 }
        }
        if let topK = try fields.integer("top_k", in: -1...Int(Int32.max)) { sampling.topK = max(0, topK) }
        if let seed = try fields.integer("seed", in: .min ... .max) { sampling.seed = UInt64(bitPattern: Int64(seed)) }
    }

    /// Token ids are checked against the vocabulary later, when the model is known.
    mutating func readLogitBias(_ fields: inout RequestFields, limits: RequestLimits, vocabularySize: Int) throws(APIError) {
        guard let entries = try fields.object("logit_bias") else { return }
        guard entries.count <= limits.logitBiasEntries else {
            throw .invalidValue("logit_bias", "'logit_bias' has \(entries.count) entries, expected at most \(limits.logitBiasEntries)")
        }
        for (key, value) in entries {
            guard let token = Int32(key), token >= 0, token < vocabularySize else {
                throw .invalidValue(
                    "logit_bias", "'logit_bias' names '\(quoted(key))', expected token ids from 0 to \(vocabularySize - 1) as keys")
            }
            guard let bias = value.number, (-100...100).contains(bias) else {
                throw .invalidValue("logit_bias", "'logit_bias' of token \(token) is \(describe(value)), expected a number from -100 to 100")
            }
            sampling.logitBias[token] = Float(bias)
        }
    }

    private static func stopStrings(_ fields: inout RequestFields, limits: RequestLimits) throws(APIError) -> [String] {
        guard let value = fields.value("stop") else { return [] }
        var strings: [String] = []
        switch value {
        case .string(let string): strings = [string]
        case .array(let elements):
            guard elements.count <= limits.stopStrings else {
                throw .invalidValue("stop", "'stop' has \(elements.count) strings, expected at most \(limits.stopStrings)")
            }
            for (index, element) in elements.enumerated() {
                guard let string = element.string else { throw .invalidType("stop[\(index)]", found: element, expected: "a string") }
                strings.append(string)
            }
        default: throw .invalidType("stop", found: value, expected: "a string or an array of strings")
        }
        for string in strings where string.isEmpty || string.utf8.count > limits.stopStringBytes {
            throw .invalidValue("stop", "A stop string has \(string.utf8.count) bytes, expected 1 to \(limits.stopStringBytes)")
        }
        return strings
    }

    /// `stream_options`; returns the names of its members that are unknown.
    mutating func readStreamOptions(_ fields: inout RequestFields) throws(APIError) -> [String] {
        guard let object = try fields.object("stream_options") else { return [] }
        guard isStreamed else {
            throw .invalidValue("stream_options", "'stream_options' is set but 'stream' is not true; leave it out or set 'stream'")
        }
        var options = RequestFields(object, prefix: "stream_options.")
        includesUsage = try options.bool("include_usage") ?? false
        // Padding against traffic analysis: there is none to switch off.
        _ = try options.bool("include_obfuscation")
        try options.refuse(UnsupportedParameter("continuous_usage_stats", neutral: [false], "use include_usage"))
        return options.unread
    }
}
