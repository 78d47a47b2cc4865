import GGUF
import OpenAIAPI
import Tokenization

/// A byte-level model without merges: the ids 0…255 are bytes, and behind them stand the control tokens. What the tests expect of token
/// counts and offsets can be read off the text.
enum TestModel {
    static let startOfText: Int32 = 256
    static let startOfTurn: Int32 = 257
    static let endOfTurn: Int32 = 258
    static let vocabularySize = 259

    /// ChatML, with the alternation check of many published templates.
    static let template = """
        {%- for message in messages -%}
        {%- if message['role'] == 'tool' -%}{{ raise_exception('Only system, user and assistant turns are known') }}{%- endif -%}
        {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' -}}
        {%- endfor -%}
        {%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
        """

    /// GPT-2's spelling of a byte as a printable character.
    private static func spelling(_ byte: UInt8) -> String {
        let printable = Array(UInt8(33)...126) + Array(UInt8(161)...172) + Array(UInt8(174)...255)
        if printable.contains(byte) { return String(Unicode.Scalar(byte)) }
        let rank = (UInt8.min...byte).count { !printable.contains($0) } - 1
        return String(Unicode.Scalar(UInt32(256 + rank))!)
    }

    static func metadata() -> GGUFMetadata {
        let tokens = (UInt8.min...UInt8.max).map(spelling) + ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
        let types = [Int32](repeating: 1, count: 256) + [3, 3, 3]
        return GGUFMetadata([
            ("tokenizer.ggml.model", .string("gpt2")), ("tokenizer.ggml.pre", .string("gpt-2")),
            ("tokenizer.ggml.tokens", .array(.strings(tokens))), ("tokenizer.ggml.token_type", .array(.int32s(types))),
            ("tokenizer.ggml.merges", .array(.strings([]))), ("tokenizer.ggml.bos_token_id", .uint32(257)),
            ("tokenizer.ggml.eos_token_id", .uint32(258)), ("tokenizer.ggml.add_bos_token", .bool(false)),
        ])
    }

    static func make(name: String = "tiny", aliases: [String] = ["small"], hasTemplate: Bool = true, contextLength: Int = 512) throws -> ServedModel {
        ServedModel(
            name: name, aliases: aliases, tokenizer: try Tokenizer(metadata: metadata()),
            chatTemplate: hasTemplate ? try ChatTemplate(source: template) : nil, contextLength: contextLength, created: 1_700_000_000,
            digest: "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef")
    }

    /// The ids of a text without control tokens.
    static func ids(_ text: String) -> [Int32] { text.utf8.map { Int32($0) } }
}
