import FoundationEssentials
import GGUF
import TestSupport
import Tokenization

/// The tokenizers and the conversation encoder that targets run on: those of the tests' own fixtures.
enum TestVocabulary {
    private static let folder = repositoryRoot.appending(path: "Tests/TokenizationTests/Fixtures")

    /// Every pre-tokenizer and both kinds of SentencePiece.
    static let all: [Tokenizer] = [
        "bpe-smollm", "bpe-default", "bpe-gpt-2", "bpe-llama-bpe", "bpe-qwen2", "bpe-qwen35", "sp-llama", "sp-gemma",
    ].map { tokenizer($0) }

    /// ChatML with tools, and with a refusal, over byte pairs.
    static let chat = ConversationEncoder(
        tokenizer: all[0],
        chatTemplate: required("the chat template") {
            try ChatTemplate(
                source: """
                    {%- for tool in tools or [] %}{{ '[' + tool.function.name + ']' }}{% endfor %}
                    {%- for message in messages %}
                        {%- if message.role == 'tool' and not message.tool_call_id %}{{ raise_exception('a tool that nobody called') }}{% endif %}
                        {{- '<|im_start|>' + message.role + '\\n' + message.content }}
                        {%- for call in message.tool_calls or [] %}{{ '{' + call.function.name + ':' + call.function.arguments | tojson + '}' }}{% endfor %}
                        {{- '<|im_end|>\\n' }}
                    {%- endfor %}
                    {%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
                    """)
        })

    private static func tokenizer(_ name: String) -> Tokenizer {
        required(name) { try Tokenizer(metadata: GGUFFile(path: folder.appending(path: "\(name).gguf").path).metadata) }
    }
}
