import JSON

/// The description of the routes that generate, and of models and tokens.
enum GenerationOperations {
    private static let adapterHeaders = [
        "graft-ignored-parameters", "openai-processing-ms", "graft-adapter", "graft-adapter-version", "graft-adapter-digest", "graft-adapter-scale",
    ]

    static let chat = Operation(
        id: "createChatCompletion", tag: .generation, summary: "Answer a conversation",
        text: "What an early mistake is refused for comes with a status of its own; once a stream has begun, errors come inside of it.",
        body: Operation.Body(
            schema: .named("ChatCompletionRequest"),
            examples: [
                ("question", ["messages": [["role": "user", "content": "What is the capital of France?"]], "max_tokens": 16, "temperature": 0]),
                (
                    "stream",
                    [
                        "messages": [
                            ["role": "system", "content": "Answer in one word."], ["role": "user", "content": [["type": "text", "text": "Is ice cold?"]]],
                        ],
                        "max_tokens": 4, "seed": 7, "stream": true, "stream_options": ["include_usage": true],
                    ]
                ),
                (
                    "kept",
                    ["messages": [["role": "user", "content": "Hello"]], "max_tokens": 4, "store": true, "metadata": ["topic": "greeting"], "user": "ada"]
                ),
            ]),
        answer: Operation.Answer(
            text: "The answer, whole or as a stream.",
            contents: [
                ("application/json", .named("ChatCompletion")),
                ("text/event-stream", GenerationAnswers.events("ChatCompletionChunk")),
            ], headers: adapterHeaders),
        refusals: [404, 507])

    static let completion = Operation(
        id: "createCompletion", tag: .generation, summary: "Continue prompts",
        body: Operation.Body(
            schema: .named("CompletionRequest"),
            examples: [
                ("text", ["prompt": "Once upon a time", "max_tokens": 8]),
                ("scores", ["prompt": ["The sky is blue.", "The sky is green."], "max_tokens": 0, "echo": true, "logprobs": 1]),
            ]),
        answer: Operation.Answer(
            text: "The continuations, whole or as a stream.",
            contents: [
                ("application/json", .named("Completion")), ("text/event-stream", GenerationAnswers.events("Completion")),
            ], headers: adapterHeaders),
        refusals: [404])

    // MARK: Models

    private static let modelID = Operation.Parameter.id("A base model, an adapter or a tuned model, percent-encoded.", example: "default")

    static let models = Operation(
        id: "listModels", tag: .models, summary: "List what `model` can name",
        answer: .json(
            "The base models, then the adapters that are promoted.", .answer("", [("object", .constant("list")), ("data", .array(of: .named("Model")))])))

    static let model = Operation(
        id: "retrieveModel", tag: .models, summary: "Look at a model", parameters: [modelID], answer: .json("The model.", .named("Model")),
        refusals: [404, 503])

    static let deleteModel = Operation(
        id: "deleteModel", tag: .models, summary: "Delete an adapter, or the version that a tuned model is",
        parameters: [.id("An adapter or a tuned model, percent-encoded.", example: "support-bot")],
        answer: .json("It is gone; requests that use it finish with it.", .named("Deleted")), refusals: [404, 409, 507])

    static let modelCard = Schema.answer(
        "A base model, or an adapter over one.",
        [
            ("id", .string()), ("object", .constant("model")), ("created", .integer("Seconds since 1970.")), ("owned_by", .string()), ("root", .string()),
            ("parent", Schema.string("The base model of an adapter.").orNull), ("permission", .array(of: .any(), count: 0...0)),
            ("max_model_len", .integer("Tokens of prompt and answer together.")), ("digest", .string("Of the model's or the adapter's content.")),
        ], optional: [("version", .integer("An adapter's."))])

    static let deleted = Schema.answer("", [("id", .string()), ("object", .string()), ("deleted", .constant(true))])

    // MARK: Tokens

    static let tokenize = Operation(
        id: "tokenize", tag: .tokens, summary: "Turn a text or a conversation into tokens",
        text: "With llama.cpp's field `content` or vLLM's `prompt`, or with `messages`: exactly one of them.",
        body: Operation.Body(
            schema: .named("TokenizeRequest"),
            examples: [
                ("text", ["content": "Hello world", "with_pieces": true]), ("conversation", ["messages": [["role": "user", "content": "Hello"]]]),
            ]),
        answer: .json(
            "The tokens.",
            .answer(
                "",
                [
                    (
                        "tokens",
                        .array(
                            of: .anyOf([
                                .integer("An id."),
                                .answer(
                                    "With `with_pieces`.",
                                    [
                                        ("id", .integer()),
                                        ("piece", .anyOf([.string(), .array(of: .integer(in: 0...255), "Bytes that are no whole characters.")])),
                                    ]),
                            ]))
                    ), ("count", .integer()), ("max_model_len", .integer()),
                ]), headers: ["graft-ignored-parameters"]),
        refusals: [404])

    static let tokenizeRequest = Schema.request(
        "",
        optional: [
            ("content", .string("A text, as llama.cpp has it.")), ("prompt", .string("A text, as vLLM has it.")),
            ("messages", .array(of: .named("ChatMessage"), "A conversation, as chat would render it.", count: 1 ... .max)), ("model", .string()),
            ("add_special", .bool("Whether the tokens around a text are added; false for `content`, true for `prompt` unless said.")),
            ("add_special_tokens", .bool("vLLM's name of the same.")),
            ("parse_special", .bool("Whether a control token's spelling is that token.").defaulting(to: true)),
            ("with_pieces", .bool("Whether the text of each token is listed.")),
        ] + UnsupportedParameter.chat.filter { $0.name != "add_special_tokens" }.map { ($0.name, .any("Not supported: \($0.remedy).", of: $0.neutral)) })

    static let detokenize = Operation(
        id: "detokenize", tag: .tokens, summary: "Turn tokens into their text",
        body: Operation.Body(
            schema: .request(
                "", required: [("tokens", .array(of: .integer("A token's id.", in: 0...Int(Int32.max))))], optional: [("model", .string())]),
            examples: [("tokens", ["tokens": [1, 2, 3]])]),
        answer: .json(
            "The text, under llama.cpp's and vLLM's name.", .answer("", [("content", .string()), ("prompt", .string())]), headers: ["graft-ignored-parameters"]),
        refusals: [404])

    // MARK: Schemas

    static func schemas(_ limits: RequestLimits) -> [Schema.Member] {
        [
            ("ChatCompletionRequest", GenerationRequests.chat(limits)), ("CompletionRequest", GenerationRequests.completion(limits)),
            ("ChatMessage", GenerationRequests.message), ("BlendEntry", GenerationRequests.blendEntry), ("ChatCompletion", GenerationAnswers.chat),
            ("ChatCompletionChunk", GenerationAnswers.chatChunk), ("ChatLogprobs", GenerationAnswers.chatLogprobs),
            ("Completion", GenerationAnswers.completion),
            ("CompletionLogprobs", GenerationAnswers.completionLogprobs), ("Usage", GenerationAnswers.usage), ("Model", modelCard), ("Deleted", deleted),
            ("TokenizeRequest", tokenizeRequest),
        ]
    }
}
