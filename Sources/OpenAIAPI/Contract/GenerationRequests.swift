import Inference
import JSON

/// The requests of the routes that generate, for the API's description.
///
/// Bounds are the decoders' own where those have a name; the others are compared with the decoders by a test, which sends the values at and beyond each.
enum GenerationRequests {
    static func chat(_ limits: RequestLimits) -> Schema {
        .request(
            "A conversation to be answered. Unknown members are ignored and listed in the header `graft-ignored-parameters`.",
            required: [("messages", .array(of: .named("ChatMessage"), "The conversation so far.", count: 1 ... .max))],
            optional: common(limits, minimumTokens: 1) + [
                ("max_completion_tokens", .integer("The same as `max_tokens`.", in: 1...Int(Int32.max))),
                ("logprobs", .bool("Whether to list the tokens with their log-probabilities.")),
                ("top_logprobs", .integer("How many of the most likely tokens to list beside each; needs `logprobs`.", in: 0...limits.topLogprobs)),
                (
                    "store",
                    .bool("Whether to keep the exchange; what is not said is up to the server's settings. With true, the answer ends only when it is kept.")
                ),
                ("metadata", metadata("The client's own notes, which are kept with the exchange.")),
            ] + unsupported(UnsupportedParameter.common + UnsupportedParameter.chat))
    }

    static func completion(_ limits: RequestLimits) -> Schema {
        let tokens = Schema.array(of: .integer("A token's id.", in: 0...Int(Int32.max)), count: 1 ... .max)
        return .request(
            "Prompts to be continued. Unknown members are ignored and listed in the header `graft-ignored-parameters`.",
            required: [
                (
                    "prompt",
                    .anyOf(
                        [.string(), .array(of: .string(), count: 1...limits.sequences), tokens, .array(of: tokens, count: 1...limits.sequences)],
                        "A text, several texts, the ids of tokens, or several lists of them. What a text spells as a control token is one.")
                )
            ],
            optional: common(limits, minimumTokens: 0, otherwise: CompletionRequest.defaultMaxTokens) + [
                ("echo", .bool("Whether the answer begins with the prompt.")),
                ("logprobs", .integer("How many of the most likely tokens to list beside each.", in: 0...limits.completionLogprobs)),
                ("best_of", .integer("Not supported; may repeat `n`.", in: 1...limits.choices)),
            ] + ["store", "metadata"].map { ($0, Schema.any("Accepted; changes nothing here.")) }
                + unsupported(UnsupportedParameter.common + UnsupportedParameter.completions))
    }

    /// What chat and completions have in common.
    private static func common(_ limits: RequestLimits, minimumTokens: Int, otherwise: Int? = nil) -> [Schema.Member] {
        let penalty = Schema.number("Above 1 makes tokens that were there before less likely; `repeat_penalty` is the same.", in: 0.01...10)
        var maxTokens = Schema.integer(
            "The most tokens of each answer; what the context does not leave is cut off. "
                + (minimumTokens == 0 ? "0 only with `echo`." : "Without it: all that the context leaves."), in: minimumTokens...Int(Int32.max))
        if let otherwise { maxTokens = maxTokens.defaulting(to: .integer(Int64(otherwise))) }
        return [
            (
                "model",
                .string(
                    "A base model, an adapter (`name`, `name@3`, `name@latest`) or a tuned model (`ft:…`), in at most 1024 bytes; `default`, or nothing, is the server's default."
                )
            ),
            (
                "lora",
                .array(
                    of: .named("BlendEntry"), "Adapters over the base model; not together with a `model` that is an adapter.",
                    count: 0...BlendEntry.maximumCount)
            ),
            ("max_tokens", maxTokens),
            ("temperature", .number("0 takes the most likely token each time.", in: 0...2)),
            ("top_p", .number("Only the most likely tokens that have this probability together.", in: 0...1, excludingLower: true)),
            ("min_p", .number("Only tokens of at least this share of the likeliest one's probability.", in: 0...1)),
            ("typical_p", .number("Locally typical sampling.", in: 0...1, excludingLower: true)),
            ("top_k", .integer("Only so many of the most likely tokens; 0 and -1 are all.", in: -1...Int(Int32.max))),
            ("presence_penalty", .number("For tokens that were generated before.", in: -2...2)),
            ("frequency_penalty", .number("For tokens, by how often they were generated before.", in: -2...2)),
            ("repetition_penalty", penalty), ("repeat_penalty", penalty),
            (
                "repeat_last_n",
                .integer("How many of the last tokens the repetition penalty looks at; -1 is all, 0 is none.", in: -1...Int(Int32.max))
            ),
            ("seed", .integer("Repeats the answer, on this build and processor, with the same request.")),
            (
                "logit_bias",
                .map(
                    of: .number(in: -100...100), "By a token's id: what is added to its logit.", maximumCount: limits.logitBiasEntries,
                    keys: .string(pattern: "^[0-9]+$"))
            ),
            ("n", .integer("How many answers, for each prompt.", in: 1...limits.choices).defaulting(to: 1)),
            (
                "stop",
                .anyOf(
                    [.string(length: 1...limits.stopStringBytes), .array(of: .string(length: 1...limits.stopStringBytes), count: 0...limits.stopStrings)],
                    "Texts that end the answer; none of at most \(limits.stopStringBytes) bytes is part of it.")
            ),
            ("ignore_eos", .bool("Whether to go on when the model ends its answer.")),
            (
                "priority",
                .integer(
                    "Which of your own requests comes first when they have to wait for each other: the one with the lower number, and of equal ones the earlier. "
                        + "It changes nothing for other owners; on a server without keys all requests are one owner's.",
                    in: Int(Int32.min)...Int(Int32.max)
                ).defaulting(to: 0)
            ),
            ("return_token_ids", .bool("Whether to list the ids of the tokens of prompt and answer.")),
            ("stream", .bool("Whether the answer comes as server-sent events.").defaulting(to: false)),
            (
                "stream_options",
                .request(
                    "Only with `stream`.",
                    optional: [
                        ("include_usage", .bool("Whether a last chunk without choices tells the usage.")),
                        ("include_obfuscation", .bool("Accepted; there is none.")),
                        ("continuous_usage_stats", .any("Not supported; use include_usage.", of: [false])),
                    ])
            ),
            ("user", .any("The end user, as a text: keeps the choice between an adapter's canary and its promoted version, and is kept with an exchange.")),
            ("safety_identifier", .any("Stands in for `user`.")),
        ] + ["service_tier", "prompt_cache_key", "prompt_cache_retention", "parallel_tool_calls"].map { ($0, .any("Accepted; changes nothing here.")) }
    }

    /// Known and refused, unless they ask for nothing.
    private static func unsupported(_ parameters: [UnsupportedParameter]) -> [Schema.Member] {
        parameters.map { ($0.name, .any("Not supported: \($0.remedy).", of: $0.neutral)) }
    }

    static func metadata(_ text: String) -> Schema {
        .map(
            of: .string(length: 0...MetadataFields.maximumValueLength), text, maximumCount: MetadataFields.maximumPairs,
            keys: .string(length: 1...MetadataFields.maximumKeyLength))
    }

    static let message = Schema.request(
        "One message of a conversation. The assistant's may leave `content` out.",
        required: [("role", .word(ChatMessage.Role.allCases.map(\.rawValue)))],
        optional: [
            (
                "content",
                .anyOf(
                    [
                        .string(),
                        .array(
                            of: .request(
                                "", required: [("type", .word(["text", "refusal"], "`refusal` only in the assistant's."))],
                                optional: [("text", .string()), ("refusal", .string())])),
                    ], "A text, or parts of one. The served models read no images, sounds or files.")
            ),
            ("name", .string("At most 256 bytes.")), ("tool_call_id", .string("At most 256 bytes.")),
            (
                "tool_calls",
                .array(
                    of: .request(
                        "",
                        required: [
                            ("function", .request("", required: [("name", .string())], optional: [("arguments", .any("JSON as a text, or an object."))]))
                        ],
                        optional: [("id", .any()), ("type", .any())]),
                    "Of other servers' tools, for the templates that show them; only in the assistant's.")
            ),
            ("refusal", .string("Stands in for the content of the assistant's.")), ("audio", .any("Not supported: only text is served.", of: [])),
            ("function_call", .any("Not supported: use tool_calls.", of: [])),
        ])

    static let blendEntry = Schema.request(
        "An adapter, and how strongly it is applied.",
        required: [("id", .anyOf([.string("`name`, `name@3` or `name@latest`."), .integer("llama.cpp's number of an adapter, from GET /lora-adapters.")]))],
        optional: [("scale", .number("0 leaves it out.", in: -BlendEntry.maximumScale...BlendEntry.maximumScale).defaulting(to: 1))])
}
