import JSON

/// A decoded `POST /v1/completions`.
struct CompletionRequest: Sendable {
    enum Prompt: Sendable {
        case text(String)
        case tokens([Int32])
    }

    var options: GenerationOptions
    var target: ModelTarget
    var prompts: [Prompt]
    /// The answer starts with the prompt.
    var echoes: Bool
    /// `nil`: none. Otherwise how many of the most likely tokens to list beside the chosen one.
    var logprobs: Int?
    /// Names of unknown fields.
    var ignored: [String]

    /// OpenAI's default for this route.
    static let defaultMaxTokens = 16

    init(_ object: JSONObject, limits: RequestLimits, resolve: (GenerationOptions) throws(APIError) -> ModelTarget) throws(APIError) {
        var fields = RequestFields(object)
        for parameter in UnsupportedParameter.completions { try fields.refuse(parameter) }
        let echoes = try fields.bool("echo") ?? false
        self.echoes = echoes
        options = try GenerationOptions(&fields, limits: limits, minimumTokens: echoes ? 0 : 1)
        if options.maxTokens == nil { options.maxTokens = Self.defaultMaxTokens }
        // Asking for the best of as many as are returned is asking for nothing.
        try fields.refuse(UnsupportedParameter("best_of", neutral: [.integer(Int64(options.choices))], "send the value of 'n' or leave it out"))
        logprobs = try fields.integer("logprobs", in: 0...limits.completionLogprobs)
        let unknownOptions = try options.readStreamOptions(&fields)
        guard let value = fields.value("prompt") else { throw .missing("prompt", expected: Self.expectedPrompt) }
        target = try resolve(options)
        let size = target.base.tokenizer.vocabularySize
        prompts = try Self.prompts(value, vocabularySize: size)
        guard prompts.count * options.choices <= limits.sequences else {
            throw .invalidValue(
                "prompt", "'prompt' has \(prompts.count) prompts and 'n' is \(options.choices), expected at most \(limits.sequences) answers in all")
        }
        try options.readLogitBias(&fields, limits: limits, vocabularySize: size)
        ignored = fields.unread + unknownOptions + options.unknownMembers
    }

    private static let expectedPrompt = "a string, an array of strings, an array of token ids or an array of such arrays"

    private static func prompts(_ value: JSONValue, vocabularySize: Int) throws(APIError) -> [Prompt] {
        switch value {
        case .string(let text): return [.text(text)]
        case .array(let elements):
            guard let first = elements.first else {
                throw .invalidValue("prompt", "'prompt' is an empty array, expected at least one string or token id")
            }
            if first.number != nil { return [.tokens(try tokens(elements, path: "prompt", vocabularySize: vocabularySize))] }
            var prompts: [Prompt] = []
            for (index, element) in elements.enumerated() {
                switch element {
                case .string(let text): prompts.append(.text(text))
                case .array(let ids): prompts.append(.tokens(try tokens(ids, path: "prompt[\(index)]", vocabularySize: vocabularySize)))
                default: throw .invalidType("prompt[\(index)]", found: element, expected: "a string or an array of token ids")
                }
            }
            return prompts
        default: throw .invalidType("prompt", found: value, expected: expectedPrompt)
        }
    }

    /// An array of token ids, each checked against the vocabulary.
    static func tokens(_ elements: [JSONValue], path: String, vocabularySize: Int) throws(APIError) -> [Int32] {
        var ids: [Int32] = []
        ids.reserveCapacity(elements.count)
        for (index, element) in elements.enumerated() {
            if case .integer(let id) = element, id >= 0, id < vocabularySize {
                ids.append(Int32(id))
            } else {
                ids.append(Int32(try RequestFields.integer(element, name: "\(path)[\(index)]", in: 0...(vocabularySize - 1))))
            }
        }
        return ids
    }
}
