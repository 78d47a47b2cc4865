"""Writes the tokenizer fixtures of Tests/TokenizationTests/Fixtures: small vocabularies and what reference encoders make of texts.

For each pre-tokenizer a byte-level BPE vocabulary is trained with Hugging Face `tokenizers`, whose encoder also gives the golden ids;
for the SentencePiece kind `sentencepiece` trains and encodes. Vocabularies are GGUF files without tensors, cases JSON lists of
{"text", "ids"}. With models at hand (MODEL.gguf …), goldens of full-size vocabularies are written too.

Usage: python make_tokenizer_fixtures.py FOLDER [MODEL.gguf …]
Made with tokenizers 0.23.3, sentencepiece 0.2.3, gguf, transformers 5.23.0; same versions, same files.
"""
import io
import json
import os
import random
import sys

import gguf
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

CORPUS = """The quick brown fox jumps over the lazy dog, and the dog doesn't mind; it's used to that by now.
They've said we'll see, I'd rather not, you're late, he's early and I'm on time. DON'T SHOUT, IT'S RUDE.
In 1934 about 3,200 devices were sold in one city; by 1941 the number had grown to 48,750 and the price fell from $14.50 to $3.95.
def reverse(text: str) -> str:
    result = ""
    for character in text:
        result = character + result
    return result  # the characters in reverse order
if (index >= 0 && index < count) { values[index] += 1; } else { return -1; }
    let answer = try await client.send(request, timeout: .seconds(30))
	tab	separated	values	and	so	on
<html><body class="main"><p>Hello, world!</p></body></html> https://example.org/path?query=value&other=1#part
Der Fluss fließt über die Brücke, und die Züge fahren täglich nach Zürich und Köln.
L'été dernier, nous étions à la plage ; c'était très agréable, n'est-ce pas ?
El niño comió una manzana y después salió a jugar. ¿Qué hora es? ¡Vámonos!
Съешь ещё этих мягких французских булок, да выпей же чаю. Привет, мир! Как дела?
Η γρήγορη καφέ αλεπού πηδάει πάνω από τον τεμπέλη σκύλο. مرحبا بالعالم ، كيف حالك اليوم؟ שלום עולם
今天天气很好，我们去公园散步吧。你好世界！ 吾輩は猫である。名前はまだ無い。こんにちは、世界。 안녕하세요 세계, 반갑습니다.
नमस्ते दुनिया, आप कैसे हैं? สวัสดีชาวโลก កាន់តែពិសេស
🙂 🚀 ✅ 😁 🦙🦙 👨‍👩‍👧‍👦 ------ ====== ...... !!!!!! ??? ((())) [[]] {{}} \\n \\t ``` ''' \"\"\" ~~ ^^ || <= >= != ==
"""

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
LINES = r"[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def byte_level(pattern=False):
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern)


def split(*patterns):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(p), "isolated") for p in patterns] + [byte_level()])


PRE_TOKENIZERS = {
    "gpt-2": byte_level(True),
    "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level(True)]),
    "qwen2": split(CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+" + LINES),
    "qwen35": split(CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+" + LINES),
    "llama-bpe": split(CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+" + LINES),
    "default": split(r"[\p{P}\$\+<=>\^~\|]+", GPT2[:-len(r"|\s+")], r"\p{N}+", "[0-9][0-9][0-9]"),
}

CONTROL = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]
USER_DEFINED = ["<tool_call>", "</tool_call>", "\n\n\n\n", "        "]
SP_CONTROL = ["<start_of_turn>", "<end_of_turn>"]
SP_USER_DEFINED = ["\n\n", "\n\n\n", "▁▁", "▁▁▁", "▁▁▁▁", "<b>", "</b>", "\t\t"]

FRAGMENTS = [
    "Hello", " Hello", "world", " the", "naïve", "Zürich", " привет", "мир", "你好", "世界", "こんにちは", "안녕", "مرحبا", "नमस्ते", "ก็", "e\u0301", "\u0301a",
    "'s", "'S", "'T", "'re", "'Re", "'VE", "'m", "'LL", "'lL", "'d", "'", "''", "’s", "'\u017f", "'l", "'r", "it's", "WE'LL", "0", "12", "123", "1234", "12345",
    "3.14", "1,000", "٣", "٣4", "12٣456789", "½", "²", "Ⅷ", "①", "𝟘𝟙", " ", "  ", "   ", "    ", "        ", "\t", "\n", "\r\n", "\n\n", "\n\n\n", " \n", "\n ",
    "\u000b", "\u0085", "\u00a0", "\u2009", "\u2028", "\u202f", "\u3000", "!", "...", "?!", "(", ")", "[]", "{}", "->", "==", "!=", "&&", "||", "$x", "+=", "`", "^", "~~",
    "<a>", "//", "#", "@", "€", "£5", "©", "“q”", "«»", "—", "。", "，", "_", "__init__", "🙂", "👨‍👩‍👧‍👦", "🇩🇪", "👍🏽", "😶‍🌫️", "\ufe0f", "\u200d", "ß", "İ", "ǅ", "ʰ", "ª",
    "\ue000", "\U000e0041", "\U00020000", "<|im_", "<tool_", "<b", "▁",
]


def texts(specials):
    """Fixed texts first, then seeded mixtures of fragments."""
    generator = random.Random(20)
    fixed = ["", "a", " ", "\n", "Hello world", " Hello", "Hello  world   !", "I'm sure they'll say it's 'fine'.", "x  \n  y\n\n\nz ", "1234567 12 123 1234",
             "a" * 300, " " * 100 + "x", "!" * 70, "\n" * 20, "é" * 60, "ab" * 80, "1" * 40, "<" * 60 + "|"] + CORPUS.split("\n")[:-1]
    pool = FRAGMENTS + specials
    mixed = ["".join(generator.choices(pool, k=generator.choice([2, 3, 5, 9, 16]))) for _ in range(240)]
    return fixed + specials + mixed


def save_cases(path, cases):
    with open(path, "w") as file:
        file.write("[\n" + ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases) + "\n]\n")
    print(path, len(cases), "cases")


def save_vocabulary(path, architecture, fill):
    writer = gguf.GGUFWriter(path, architecture)
    fill(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    print(path, os.path.getsize(path), "bytes")


def byte_pairs(folder, name):
    tokenizer = Tokenizer(models.BPE(ignore_merges=name == "llama-bpe"))
    tokenizer.pre_tokenizer = PRE_TOKENIZERS[name]
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=900, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator([CORPUS], trainer)
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in CONTROL])
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in USER_DEFINED])
    model = json.loads(tokenizer.to_str())["model"]
    ids = tokenizer.get_vocab(with_added_tokens=True)
    tokens = sorted(ids, key=ids.get)

    def fill(writer):
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(name)
        writer.add_token_list(tokens)
        writer.add_token_types([3 if t in CONTROL else 4 if t in USER_DEFINED else 1 for t in tokens])
        writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in model["merges"]])
        writer.add_bos_token_id(ids["<|im_start|>"])
        writer.add_eos_token_id(ids["<|im_end|>"])
        if name != "llama-bpe":
            writer.add_add_bos_token(False)

    save_vocabulary(f"{folder}/bpe-{name}.gguf", "llama", fill)
    cases = [{"text": t, "ids": tokenizer.encode(t, add_special_tokens=False).ids} for t in texts(CONTROL + USER_DEFINED)]
    save_cases(f"{folder}/bpe-{name}.json", cases)


def sentence_pieces(folder, name):
    import sentencepiece

    is_llama = name == "llama"
    user_defined = [] if is_llama else SP_USER_DEFINED
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS.split("\n") * 8), model_writer=written, model_type="bpe", vocab_size=1000, byte_fallback=True,
        character_coverage=0.99, normalization_rule_name="identity", remove_extra_whitespaces=False, add_dummy_prefix=is_llama,
        split_digits=True, allow_whitespace_only_pieces=True, split_by_whitespace=is_llama, user_defined_symbols=user_defined,
        control_symbols=SP_CONTROL, minloglevel=2)
    model = sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())
    tokens, types, scores = [], [], []
    for i in range(model.get_piece_size()):
        token, kind, score = model.id_to_piece(i), 1, model.get_score(i)
        if model.is_unknown(i):
            kind = 2
        elif model.is_control(i):
            kind = 3
        elif model.is_byte(i):
            kind = 6
        elif token in user_defined:  # as llama.cpp's converter writes them
            token, kind, score = token.replace("▁", " "), 4, -1000.0
        tokens.append(token)
        types.append(kind)
        scores.append(score)

    def fill(writer):
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_list(tokens)
        writer.add_token_types(types)
        writer.add_token_scores(scores)
        writer.add_bos_token_id(model.bos_id())
        writer.add_eos_token_id(model.eos_id())
        writer.add_unk_token_id(model.unk_id())
        writer.add_add_space_prefix(is_llama)

    save_vocabulary(f"{folder}/sp-{name}.gguf", "llama" if is_llama else "gemma3", fill)
    # A U+2581 of the text itself next to spaces: sentencepiece escapes before it looks for user-defined tokens, the others after.
    chosen = [t for t in texts([t.replace("▁", " ") for t in user_defined]) if is_llama or "▁" not in t]
    cases = [{"text": t, "ids": model.encode(t)} for t in chosen]
    save_cases(f"{folder}/sp-{name}.json", cases)


def full_size(folder, path):
    """Golden ids of a real model's vocabulary: the encoder that the file's own metadata describe."""
    name = os.path.basename(path)
    fields = gguf.GGUFReader(path).fields
    value = lambda key: fields[key].contents()
    tokens, types = value("tokenizer.ggml.tokens"), value("tokenizer.ggml.token_type")
    if value("tokenizer.ggml.model") == "gpt2":
        merges = [tuple(m.split(" ")) for m in value("tokenizer.ggml.merges")]
        tokenizer = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, merges))
        tokenizer.pre_tokenizer = PRE_TOKENIZERS[value("tokenizer.ggml.pre")]
        tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t, k in zip(tokens, types) if k == 3])
        tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t, k in zip(tokens, types) if k == 4])
        encode = lambda text: tokenizer.encode(text, add_special_tokens=False).ids
    else:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(os.path.dirname(path), gguf_file=name)
        encode = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]
    is_sentence_piece = value("tokenizer.ggml.model") == "llama"
    specials = [t for t, k in zip(tokens, types) if k == 3 and "unused" not in t][:8]
    # transformers merges long runs of spaces from pairs; sentencepiece, which trained these vocabularies, takes the longest run that is
    # a user-defined token, and so do llama.cpp and this tokenizer.
    chosen = [t for t in texts(specials) if not (is_sentence_piece and " " * 16 in t)]
    save_cases(f"{folder}/full-{name.lower().removesuffix('.gguf')}.json", [{"text": t, "ids": encode(t)} for t in chosen[:140]])


def main(folder, *model_files):
    os.makedirs(folder, exist_ok=True)
    for name in PRE_TOKENIZERS:
        byte_pairs(folder, name)
    for name in ["llama", "gemma"]:
        sentence_pieces(folder, name)
    for path in model_files:
        full_size(folder, path)


main(*sys.argv[1:])
