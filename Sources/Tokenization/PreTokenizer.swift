/// How text is cut into the words within which byte pairs are merged.
///
/// Each case is one family of regular expressions of published tokenizers, written out by hand in `WordSplitter`. The names are the
/// values of `tokenizer.ggml.pre`.
public enum PreTokenizer: Sendable, Equatable, CaseIterable {
    /// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
    case gpt2
    /// Every `\p{N}` alone, the rest as `gpt2`.
    case smollm
    /// `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
    case qwen2
    /// As `qwen2` with marks counted among the letters: `[\p{L}\p{M}]+`, `[^\s\p{L}\p{M}\p{N}]+`.
    case qwen35
    /// As `qwen2` with `\p{N}{1,3}`.
    case llama3
    /// llama.cpp's splitter of models that name none: `[\p{P}$+<=>^~|]+` first, then `gpt2`, then `\p{N}+`, then `[0-9][0-9][0-9]`.
    case `default`

    /// Every accepted value of `tokenizer.ggml.pre`; those that share a regular expression share a case.
    public static let names: [(name: String, preTokenizer: PreTokenizer)] = [
        ("default", .default),
        ("gpt-2", .gpt2), ("phi-2", .gpt2), ("mpt", .gpt2), ("olmo", .gpt2),
        ("smollm", .smollm), ("starcoder", .smollm), ("refact", .smollm), ("codeshell", .smollm),
        ("qwen2", .qwen2), ("deepseek-r1-qwen", .qwen2), ("stablelm2", .qwen2),
        ("qwen35", .qwen35),
        ("llama-bpe", .llama3), ("llama3", .llama3), ("llama-v3", .llama3), ("dbrx", .llama3), ("smaug-bpe", .llama3),
    ]

    public init?(name: String) {
        guard let match = Self.names.first(where: { $0.name == name }) else { return nil }
        self = match.preTokenizer
    }
}
