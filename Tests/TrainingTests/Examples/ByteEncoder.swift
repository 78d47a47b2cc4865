import Testing
import Tokenization
import Training

/// Byte-level models: ids 0…255 are bytes, behind them stand the control tokens, so that counts can be read off the text.
enum ByteEncoder {
    static let end: Int32 = 258

    private static func spelling(_ byte: UInt8) -> String {
        let printable = Array(UInt8(33)...126) + Array(UInt8(161)...172) + Array(UInt8(174)...255)
        if printable.contains(byte) { return String(Unicode.Scalar(byte)) }
        let rank = (UInt8.min...byte).count { !printable.contains($0) } - 1
        return String(Unicode.Scalar(UInt32(256 + rank))!)
    }

    static func tokenizer() throws -> Tokenizer {
        let tokens = (UInt8.min...UInt8.max).map(spelling) + ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
        var vocabulary = Vocabulary(
            model: .bytePairs(.gpt2, ignoresMerges: false), tokens: tokens, types: Array(repeating: .normal, count: 256) + [.control, .control, .control])
        vocabulary.eos = end
        return try Tokenizer(vocabulary: vocabulary)
    }

    /// ChatML with tool calls and the tools' names.
    static func chat() throws -> ConversationEncoder {
        let template = """
            {%- for tool in tools or [] %}{{ '[' + tool.function.name + ']' }}{% endfor %}
            {%- for message in messages %}
                {%- if message.role == 'user' and message.content == 'refuse me' %}{{ raise_exception('Not that') }}{% endif %}
                {{- '<|im_start|>' + message.role + '\\n' + message.content }}
                {%- for call in message.tool_calls or [] %}{{ '{' + call.function.name + ':' + call.function.arguments | tojson + '}' }}{% endfor %}
                {{- '<|im_end|>\\n' }}
            {%- endfor %}
            {%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
            """
        return ConversationEncoder(tokenizer: try tokenizer(), chatTemplate: try ChatTemplate(source: template))
    }
}

/// A data set read with the byte-level chat model.
struct ReadDataset {
    let dataset: Dataset
    private let tokenizer: Tokenizer

    init(_ text: String, maximumLength: Int = 4096) throws {
        try self.init(Array(text.utf8), maximumLength: maximumLength)
    }

    init(_ bytes: [UInt8], maximumLength: Int = 4096) throws {
        let encoder = try ByteEncoder.chat()
        tokenizer = encoder.tokenizer
        dataset = try DatasetReader(encoder: encoder, maximumLength: maximumLength).read(bytes)
    }

    var report: DatasetReport { dataset.report }
    var problems: [String] { report.problems.map { "\($0.line): \($0.message)" } }

    /// The examples as text.
    var texts: [String] { supervised.map { text($0.tokens) } }
    /// What each example trains, spans divided by a bar.
    var trained: [String] { supervised.map(trained) }
    /// Prompt, better and worse answer of each pair.
    var pairs: [[String]] {
        guard case .preference(let pairs) = dataset.examples else { return [] }
        return pairs.map { pair in
            let prompts = [pair.chosen, pair.rejected].map { example in text(zip(example.tokens, example.isTrained).filter { !$0.1 }.map(\.0)) }
            return (prompts[0] == prompts[1] ? [prompts[0]] : prompts) + [trained(pair.chosen), trained(pair.rejected)]
        }
    }

    var supervised: [TokenizedExample] {
        guard case .supervised(let examples) = dataset.examples else { return [] }
        return examples
    }

    private func text(_ tokens: [Int32]) -> String { tokenizer.decode(tokens, skipSpecial: false) }

    private func trained(_ example: TokenizedExample) -> String {
        var spans: [[Int32]] = []
        var isOpen = false
        for (token, isTrained) in zip(example.tokens, example.isTrained) {
            if isTrained { if isOpen { spans[spans.count - 1].append(token) } else { spans.append([token]) } }
            isOpen = isTrained
        }
        return spans.map(text).joined(separator: "|")
    }
}
