import InstructionStore
import JSON

/// The description of the routes about chat completions that were kept.
enum ExchangeOperations {
    private static let id = Operation.Parameter.id("The completion's id.", example: "chatcmpl-0123456789abcdef")
    private static let ignored = ["graft-ignored-parameters"]

    static let list = Operation(
        id: "listChatCompletions", tag: .kept, summary: "List kept completions",
        parameters: [
            Operation.Parameter(name: "model", text: "Only those of this model.", schema: .string()),
            Operation.Parameter(
                name: "metadata", text: "Only those that have these pairs, sent as `metadata[key]=value`.", schema: .map(of: .string()), isDeep: true),
            .limit(1...100, otherwise: 20), .order(otherwise: "asc"), .after(prefix: KeptExchange.prefix),
        ],
        answer: .json("A page of completions.", .list(of: .named("KeptCompletion"), cursors: .string())), refusals: [404])

    static let retrieve = Operation(
        id: "retrieveChatCompletion", tag: .kept, summary: "Look at a kept completion", parameters: [id],
        answer: .json("The completion.", .named("KeptCompletion")), refusals: [404])

    static let change = Operation(
        id: "updateChatCompletion", tag: .kept, summary: "Change the metadata of a kept completion", parameters: [id],
        body: Operation.Body(
            schema: .request("", required: [("metadata", GenerationRequests.metadata("Takes the place of what was there."))]),
            examples: [("reviewed", ["metadata": ["reviewed": "yes"]])]),
        answer: .json("The completion as it is now.", .named("KeptCompletion"), headers: ignored), refusals: [404, 409, 507])

    static let delete = Operation(
        id: "deleteChatCompletion", tag: .kept, summary: "Delete a kept completion", parameters: [id], answer: .json("It is gone.", .named("Deleted")),
        refusals: [404, 409, 507])

    static let deleteOfUser = Operation(
        id: "deleteChatCompletionsOfUser", tag: .kept, summary: "Delete all kept completions of an end user",
        parameters: [Operation.Parameter(name: "user", text: "The `user` that the requests had.", schema: .string(length: 1...1024), isRequired: true)],
        answer: .json(
            "They are gone.",
            .answer("", [("object", .constant("chat.completions.deleted")), ("deleted", .constant(true)), ("count", .integer(in: 0 ... .max))])),
        refusals: [404, 409, 507])

    static let messages = Operation(
        id: "listChatCompletionMessages", tag: .kept, summary: "List the messages of a kept completion",
        parameters: [id, .limit(1...100, otherwise: 20), .order(otherwise: "asc"), .after()],
        answer: .json("A page of the request's messages.", .list(of: .named("KeptMessage"), cursors: .string())), refusals: [404])

    static let feedback = Operation(
        id: "createFeedback", tag: .kept, summary: "Say something about a kept completion",
        body: Operation.Body(
            schema: .request(
                "",
                required: [
                    ("inference_id", .string("The completion's id.")),
                    (
                        "metric_name",
                        .string(
                            "A name of at most 64 bytes for a value that is true, false or a number; `\(StoredFeedback.comment)` for a text; "
                                + "`\(StoredFeedback.demonstration)` for a better answer.", length: 1...64)
                    ),
                    (
                        "value",
                        .anyOf([
                            .bool(), .number(), .string("A comment, or a better answer.", length: 1 ... .max),
                            .request(
                                "A better answer.",
                                optional: [("role", .constant("assistant")), ("content", .string(length: 1 ... .max)), ("tool_calls", .array(of: .any()))]),
                        ])
                    ),
                ]),
            examples: [
                ("rating", ["inference_id": "chatcmpl-0123456789abcdef", "metric_name": "helpful", "value": true]),
                ("better", ["inference_id": "chatcmpl-0123456789abcdef", "metric_name": "demonstration", "value": "Paris."]),
            ]),
        answer: .json("It is kept.", .named("Feedback"), headers: ignored), refusals: [404, 409, 507])

    static let dataset = Operation(
        id: "createDatasetFromLogs", tag: .kept, summary: "Make a file for fine-tuning out of kept completions", text: "The oldest first.",
        body: Operation.Body(
            schema: .request(
                "",
                optional: [
                    (
                        "filter",
                        .request(
                            "Only completions that pass all of it.",
                            optional: [
                                ("model", .string()), ("user", .string()), ("metadata", GenerationRequests.metadata("Pairs that they must have.")),
                                ("after", .integer("Seconds since 1970; the first that counts.", in: 0...Int(Int32.max) << 8)),
                                ("before", .integer("Seconds since 1970; the last that counts.", in: 0...Int(Int32.max) << 8)),
                                (
                                    "metric",
                                    .request(
                                        "What must have been said about them: this metric, between bounds or of one value.",
                                        required: [("name", .string("At most 64 bytes."))],
                                        optional: [
                                            ("at_least", .number(in: -1e15...1e15)), ("at_most", .number(in: -1e15...1e15)),
                                            ("equals", .anyOf([.bool(), .number(), .string()])),
                                        ], isClosed: true)
                                ),
                            ], isClosed: true)
                    ),
                    (
                        "format",
                        .word(TrainingLine.Format.allCases.map(\.rawValue), "`chat` teaches answers, `preference` better answers over given ones.")
                            .defaulting(to: "chat")
                    ),
                    ("name", .string("The file's name, in at most 255 bytes.")), ("limit", .integer("The most examples.", in: 1...Int(Int32.max))),
                ]), examples: [("all", ["format": "chat", "name": "answers.jsonl"])]),
        answer: .json("The file.", .named("File"), headers: ignored), refusals: [404, 409, 507])

    // MARK: Schemas

    static let schemas: [Schema.Member] = [
        (
            "KeptCompletion",
            .answer(
                "A chat completion that was kept.",
                [
                    ("object", .constant("chat.completion")), ("id", .string()), ("model", .string()), ("created", .integer("Seconds since 1970.")),
                    ("request_id", .string()), ("system_fingerprint", .string()), ("usage", .named("Usage")),
                    ("input_user", Schema.string("The request's `user`.").orNull),
                    ("tools", Schema.array(of: .any()).orNull), ("metadata", .map(of: .string())),
                    (
                        "choices",
                        .array(
                            of: .answer(
                                "",
                                [
                                    ("index", .integer(in: 0 ... .max)),
                                    (
                                        "message",
                                        .answer(
                                            "",
                                            [
                                                ("role", .constant("assistant")), ("content", .string()), ("refusal", .any()), ("tool_calls", .any()),
                                                ("function_call", .any()),
                                            ])
                                    ), ("finish_reason", .word(["stop", "length"])), ("logprobs", .any()),
                                ]))
                    ),
                    (
                        "graft",
                        .answer(
                            "",
                            [
                                ("base", .string()), ("base_digest", .string()),
                                (
                                    "adapters",
                                    .array(of: .answer("", [("name", .string()), ("version", .integer()), ("digest", .string()), ("scale", .number())]))
                                ),
                                ("feedback", .array(of: .named("Feedback"))),
                            ])
                    ),
                ]
                    + ["seed", "temperature", "top_p", "presence_penalty", "frequency_penalty", "service_tier", "tool_choice", "response_format"].map {
                        ($0, .any("As the request had it; null when it had none."))
                    })
        ),
        (
            "KeptMessage",
            .answer(
                "",
                [
                    ("id", .string()), ("role", .string()), ("content", Schema.string().orNull), ("name", Schema.string().orNull),
                    ("content_parts", Schema.array(of: .any(), "A content that came in parts.").orNull),
                ])
        ),
        (
            "Feedback",
            .answer(
                "",
                [
                    ("id", .string()), ("object", .constant("feedback")), ("feedback_id", .string("The same as `id`.")), ("inference_id", .string()),
                    ("metric_name", .string()), ("value", .any()), ("created_at", .integer("Seconds since 1970.")),
                ])
        ),
    ]
}
