import JSON

/// The answers of the routes that generate, for the API's description.
enum GenerationAnswers {
    private static let count = Schema.integer(in: 0 ... .max)
    private static let finish = Schema.word(["stop", "length"], "`length`: the answer was cut off.")

    static let usage = Schema.answer(
        "How many tokens the request took. A prompt counts once, however many answers it got.",
        [
            ("prompt_tokens", count), ("completion_tokens", count), ("total_tokens", count),
            ("prompt_tokens_details", .answer("", [("cached_tokens", count.described("Prompt tokens whose keys and values were there already."))])),
            ("completion_tokens_details", .answer("", [("reasoning_tokens", .constant(0))])),
        ])

    private static let tokenIDs: Schema.Member = ("token_ids", .array(of: count, "The answer's tokens; with `return_token_ids`."))
    private static let promptTokenIDs: Schema.Member = ("prompt_token_ids", .array(of: count, "The prompt's tokens; with `return_token_ids`."))

    /// What all objects begin with.
    private static func head(_ object: String, choices: Schema) -> [Schema.Member] {
        [
            ("id", .string()), ("object", .constant(.string(object))), ("created", .integer("Seconds since 1970.")), ("model", .string("What was asked for.")),
            ("system_fingerprint", .string("Changes with the model's files.")), ("choices", .array(of: choices)),
        ]
    }

    static let chat = Schema.answer(
        "An answer to a conversation.",
        head(
            "chat.completion",
            choices: .answer(
                "",
                [
                    ("index", count),
                    ("message", .answer("", [("role", .constant("assistant")), ("content", .string()), ("refusal", .constant(.null))])),
                    ("logprobs", Schema.named("ChatLogprobs").orNull), ("finish_reason", finish),
                ], optional: [tokenIDs])) + [("usage", .named("Usage"))], optional: [promptTokenIDs])

    static let chatChunk = Schema.answer(
        "One event of a streamed answer to a conversation.",
        head(
            "chat.completion.chunk",
            choices: .answer(
                "",
                [
                    ("index", count), ("delta", .answer("", [], optional: [("role", .constant("assistant")), ("content", .string())])),
                    ("logprobs", Schema.named("ChatLogprobs").orNull), ("finish_reason", finish.orNull),
                ], optional: [tokenIDs])),
        optional: [("usage", Schema.named("Usage").orNull)])

    static let chatLogprobs: Schema = {
        let entry: [Schema.Member] = [
            ("token", .string("Bytes that are no whole characters are written \\xe2.")), ("logprob", .number("-9999: cannot be sampled.")),
            ("bytes", .array(of: .integer(in: 0...255))),
        ]
        return .answer(
            "",
            [
                ("content", .array(of: .answer("", entry + [("top_logprobs", .array(of: .answer("", entry)))]))), ("refusal", .constant(.null)),
            ])
    }()

    /// Also each event of a stream.
    static let completion = Schema.answer(
        "A continuation of prompts, or one event of a streamed one.",
        head(
            "text_completion",
            choices: .answer(
                "",
                [
                    ("index", count.described("The answers to the first prompt come first, then those to the second.")), ("text", .string()),
                    ("logprobs", Schema.named("CompletionLogprobs").orNull), ("finish_reason", finish.orNull),
                ], optional: [tokenIDs, promptTokenIDs])),
        optional: [("usage", Schema.named("Usage").orNull)])

    static let completionLogprobs = Schema.answer(
        "One element for each token. The prompt's first token, which nothing predicts, has null.",
        [
            ("tokens", .array(of: .string("Bytes that are no whole characters are written bytes:\\xe2."))),
            ("token_logprobs", .array(of: Schema.number().orNull)),
            ("top_logprobs", .array(of: Schema.map(of: .number(), "By token.").orNull)),
            ("text_offset", .array(of: count, "Where each begins in the text, in characters.")),
        ],
        optional: [
            ("token_ids", .array(of: count)),
            ("top_token_ids", .array(of: Schema.array(of: .array(of: .number(), "A token's id and its log-probability.", count: 2...2)).orNull)),
        ])

    /// One server-sent event of a stream, as OpenAPI 3.1 has `text/event-stream`: the schema is that of each event, by the names of its lines.
    static func events(_ name: String) -> Schema {
        .answer(
            "One event. The last is `data: [DONE]`; a stream that breaks ends with an Error instead. Lines that begin with a colon are signs of life.",
            [
                (
                    "data",
                    .anyOf([
                        .constant("[DONE]"), Schema.json(of: .named(name), "A \(name)."), Schema.json(of: .named("Error"), "What broke the stream."),
                    ])
                )
            ])
    }
}
