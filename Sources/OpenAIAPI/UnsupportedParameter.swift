import JSON

/// A parameter of OpenAI, llama.cpp or vLLM that Graft knows and does not do: a request that sets it is refused by name, because an answer
/// that silently leaves it out is worse than none. Values that ask for nothing pass, since clients send their defaults along.
struct UnsupportedParameter: Sendable {
    let name: String
    let neutral: [JSONValue]
    let remedy: String

    init(_ name: String, neutral: [JSONValue] = [], _ remedy: String = "leave it out") {
        self.name = name
        self.neutral = neutral
        self.remedy = remedy
    }

    /// OpenAI's fields that change nothing about the answer here, for every route that generates.
    static let harmless = [
        "user", "metadata", "service_tier", "store", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
        "parallel_tool_calls",
    ]

    /// For both chat and plain completions.
    static let common: [UnsupportedParameter] = [
        // vLLM
        UnsupportedParameter("min_tokens", neutral: [0], "leave it out; ignore_eos goes on past the end of an answer"),
        UnsupportedParameter("use_beam_search", neutral: [false]),
        UnsupportedParameter("length_penalty", neutral: [1]),
        UnsupportedParameter("early_stopping", neutral: [false]),
        UnsupportedParameter("stop_token_ids", neutral: [[]], "use stop"),
        UnsupportedParameter("bad_words", neutral: [[]], "use logit_bias"),
        UnsupportedParameter("allowed_token_ids", neutral: [[]], "use logit_bias"),
        UnsupportedParameter("include_stop_str_in_output", neutral: [false]),
        UnsupportedParameter("skip_special_tokens", neutral: [true]),
        UnsupportedParameter("spaces_between_special_tokens", neutral: [true, false]),
        UnsupportedParameter("truncate_prompt_tokens", neutral: [-1], "shorten the prompt"),
        UnsupportedParameter("prompt_logprobs", "use /v1/completions with echo and logprobs"),
        UnsupportedParameter("logits_processors", neutral: [[]]),
        UnsupportedParameter("structured_outputs"),
        UnsupportedParameter("guided_json"), UnsupportedParameter("guided_regex"), UnsupportedParameter("guided_choice"),
        UnsupportedParameter("guided_grammar"), UnsupportedParameter("guided_decoding_backend"),
        UnsupportedParameter("guided_whitespace_pattern"),
        // llama.cpp
        UnsupportedParameter("grammar", neutral: [""]),
        UnsupportedParameter("grammar_lazy", neutral: [false]),
        UnsupportedParameter("json_schema", neutral: [[:]]),
        UnsupportedParameter("n_predict", "use max_tokens"),
        UnsupportedParameter("n_probs", neutral: [0], "use logprobs"),
        UnsupportedParameter("min_keep", neutral: [0, 1]),
        UnsupportedParameter("t_max_predict_ms", neutral: [0, -1]),
        UnsupportedParameter("samplers"),
        UnsupportedParameter("mirostat", neutral: [0]),
        UnsupportedParameter("dynatemp_range", neutral: [0]),
        UnsupportedParameter("xtc_probability", neutral: [0]),
        UnsupportedParameter("dry_multiplier", neutral: [0]),
        UnsupportedParameter("top_n_sigma", neutral: [-1, 0]),
        UnsupportedParameter("cache_prompt", neutral: [true]),
        UnsupportedParameter("id_slot", neutral: [-1]),
        UnsupportedParameter("timings_per_token", neutral: [false]),
        UnsupportedParameter("return_progress", neutral: [false]),
        UnsupportedParameter("return_tokens", neutral: [false], "use return_token_ids"),
        UnsupportedParameter("post_sampling_probs", neutral: [false]),
        // mistral.rs
        UnsupportedParameter("adapter", "choose by model or lora"),
        UnsupportedParameter("adapters", neutral: [[]], "choose by model or lora"),
    ]

    static let chat: [UnsupportedParameter] = [
        UnsupportedParameter("tools", neutral: [[]], "leave it out: this server calls no tools"),
        UnsupportedParameter("tool_choice", neutral: ["none"], "leave it out: this server calls no tools"),
        UnsupportedParameter("functions", neutral: [[]], "leave it out: this server calls no tools"),
        UnsupportedParameter("function_call", neutral: ["none", "auto"], "leave it out: this server calls no tools"),
        UnsupportedParameter("response_format", neutral: [["type": "text"]], "leave it out: only {\"type\":\"text\"} is served"),
        UnsupportedParameter("modalities", neutral: [["text"], []], "leave it out: only text is served"),
        UnsupportedParameter("audio", "leave it out: only text is served"),
        UnsupportedParameter("prediction"),
        UnsupportedParameter("web_search_options"),
        // A model without a switch for its reasoning satisfies only the wish for none.
        UnsupportedParameter("reasoning_effort", neutral: ["none"], "leave it out: the served models have no such switch"),
        UnsupportedParameter("verbosity", neutral: ["medium"], "leave it out: the served models have no such switch"),
        UnsupportedParameter("chat_template", "leave it out: the model's own template is used"),
        UnsupportedParameter("chat_template_kwargs", neutral: [[:]], "leave it out: the model's own template is used as it is"),
        UnsupportedParameter("documents", neutral: [[]]),
        UnsupportedParameter("echo", neutral: [false], "use /v1/completions"),
        UnsupportedParameter("add_generation_prompt", neutral: [true], "use /v1/completions"),
        UnsupportedParameter("continue_final_message", neutral: [false], "use /v1/completions"),
        UnsupportedParameter("add_special_tokens", neutral: [false], "use /v1/completions"),
    ]

    static let completions: [UnsupportedParameter] = [
        UnsupportedParameter("suffix", neutral: [""], "leave it out: the served models do not fill gaps"),
        UnsupportedParameter("response_format", neutral: [["type": "text"]], "leave it out: only {\"type\":\"text\"} is served"),
        UnsupportedParameter("add_special_tokens", neutral: [true], "send the prompt as token ids"),
        UnsupportedParameter("prompt_embeds"),
    ]
}
