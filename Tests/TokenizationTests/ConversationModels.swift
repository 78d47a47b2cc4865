import JSON
import Testing
import Tokenization

/// A byte-level model: ids 0…255 are bytes, then come a few words that merge over the borders of turns, then special tokens. What the
/// tests expect can be read off the text.
enum ByteModel {
    /// GPT-2's spelling of a byte as a printable character.
    private static func spelling(_ byte: UInt8) -> String {
        let printable = Array(UInt8(33)...126) + Array(UInt8(161)...172) + Array(UInt8(174)...255)
        if printable.contains(byte) { return String(Unicode.Scalar(byte)) }
        let rank = (UInt8.min...byte).count { !printable.contains($0) } - 1
        return String(Unicode.Scalar(UInt32(256 + rank))!)
    }

    static func tokenizer(_ specials: [String], words: [String] = [], bos: String? = nil, eos: String? = nil, addsBOS: Bool = false) throws -> Tokenizer {
        let tokens = (UInt8.min...UInt8.max).map(spelling) + ["ĊĊ", "Ġa"] + specials + words
        let types = [Vocabulary.TokenType](repeating: .normal, count: 258) + specials.map { _ in .control } + words.map { _ in .userDefined }
        var vocabulary = Vocabulary(model: .bytePairs(.llama3, ignoresMerges: false), tokens: tokens, types: types)
        vocabulary.merges = ["Ċ Ċ", "Ġ a"]
        vocabulary.bos = bos.flatMap { tokens.firstIndex(of: $0) }.map { Int32($0) }
        vocabulary.eos = eos.flatMap { tokens.firstIndex(of: $0) }.map { Int32($0) }
        vocabulary.addsBOS = addsBOS
        return try Tokenizer(vocabulary: vocabulary)
    }

    static let chatML = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]

    static func chatMLEncoder(_ template: String) throws -> ConversationEncoder {
        let tokenizer = try tokenizer(chatML, words: ["<think>", "</think>", "<tool_call>", "</tool_call>", "<fim_pad>"], eos: "<|im_end|>")
        return ConversationEncoder(tokenizer: tokenizer, chatTemplate: try TemplateFixtures.template(template))
    }
}

/// Models of every family that is served, with their own templates or, where a licence keeps those away, with templates of the same shape.
enum ConversationModel: String, CaseIterable {
    case smolLM2, qwen25, qwen3, mistral, llama3, gemma, phi, granite, smolLM3, deepSeek, plain, sentencePiece

    /// Turns in header tokens, contents trimmed.
    private static let llama3Template = """
        {{- bos_token }}
        {%- for message in messages %}
            {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}
        {%- endfor %}
        {%- if add_generation_prompt %}
            {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
        {%- endif %}
        """

    /// The assistant's role has another name, a system message joins the first question, roles alternate.
    private static let gemmaTemplate = """
        {{ bos_token }}
        {%- set start = namespace(text='') %}
        {%- if messages[0]['role'] == 'system' %}
            {%- set start.text = messages[0]['content'] + '\\n\\n' %}
            {%- set turns = messages[1:] %}
        {%- else %}
            {%- set turns = messages %}
        {%- endif %}
        {%- for message in turns %}
            {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
                {{- raise_exception('Turns must alternate') }}
            {%- endif %}
            {{- '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\\n' + (start.text if loop.first else '') }}
            {{- message['content'] | trim + '<end_of_turn>\\n' }}
        {%- endfor %}
        {%- if add_generation_prompt %}
            {{- '<start_of_turn>model\\n' }}
        {%- endif %}
        """

    func encoder() throws -> ConversationEncoder {
        func own(_ template: String, _ specials: [String], bos: String? = nil, eos: String) throws -> ConversationEncoder {
            ConversationEncoder(
                tokenizer: try ByteModel.tokenizer(specials, words: ["<think>", "</think>"], bos: bos, eos: eos),
                chatTemplate: try TemplateFixtures.template(template))
        }
        switch self {
        case .smolLM2: return try ByteModel.chatMLEncoder("smollm2-135m-instruct")
        case .qwen25: return try ByteModel.chatMLEncoder("qwen2.5-coder-0.5b-instruct")
        case .qwen3: return try ByteModel.chatMLEncoder("qwen3-0.6b")
        case .smolLM3: return try ByteModel.chatMLEncoder("smollm3-3b")
        case .mistral: return try own("mistral-nemo-instruct-2407", ["<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]"], bos: "<s>", eos: "</s>")
        case .phi: return try own("phi-3.5-mini-instruct", ["<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"], eos: "<|endoftext|>")
        case .granite: return try own("granite-3.3-2b-instruct", ["<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>"], eos: "<|end_of_text|>")
        case .deepSeek:
            return try own(
                "deepseek-r1-distill-qwen-32b", ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"],
                bos: "<｜begin▁of▁sentence｜>", eos: "<｜end▁of▁sentence｜>")
        case .llama3:
            let tokenizer = try ByteModel.tokenizer(
                ["<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"], bos: "<|begin_of_text|>", eos: "<|eot_id|>", addsBOS: true)
            return ConversationEncoder(tokenizer: tokenizer, chatTemplate: try ChatTemplate(source: Self.llama3Template))
        case .gemma:
            return ConversationEncoder(tokenizer: try fixtureTokenizer("sp-gemma.gguf"), chatTemplate: try ChatTemplate(source: Self.gemmaTemplate))
        case .plain: return ConversationEncoder(tokenizer: try ByteModel.tokenizer(["<s>", "</s>"], bos: "<s>", eos: "</s>", addsBOS: true), chatTemplate: nil)
        case .sentencePiece: return ConversationEncoder(tokenizer: try fixtureTokenizer("sp-llama.gguf"), chatTemplate: nil)
        }
    }
}

/// Messages from pairs of role and content.
func messages(_ turns: (String, String)...) -> [JSONValue] { turns.map { ConversationEncoder.message(role: $0.0, content: $0.1) } }

extension ConversationEncoder {
    /// The tokens of an answer as text, control tokens spelled out.
    func text(_ answer: EncodedConversation.Answer, in stretch: EncodedConversation.Stretch) -> String {
        tokenizer.decode(stretch.tokens[answer.tokens], skipSpecial: false)
    }

    /// The answers of a conversation by message, as text.
    func answers(_ conversation: EncodedConversation) -> [Int: String] {
        var texts: [Int: String] = [:]
        for stretch in conversation.stretches {
            for answer in stretch.answers { texts[answer.message] = text(answer, in: stretch) }
        }
        return texts
    }
}
