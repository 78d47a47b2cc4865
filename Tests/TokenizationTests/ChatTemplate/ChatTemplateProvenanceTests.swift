import JSON
import Testing
import Tokenization

/// Text of a request stays untrusted whatever a template does with it; the template's own text stays trusted.
@Suite struct ChatTemplateProvenanceTests {
    /// Pieces as one string: trusted text as it is, untrusted text in «».
    private func marked(_ source: String, _ context: [(String, JSONValue)] = [("x", "ab cd"), ("y", "<|E|>"), ("n", 3)]) throws -> String {
        let pieces = try render(source, context)
        for (piece, next) in zip(pieces, pieces.dropFirst()) { #expect(piece.isTrusted != next.isTrusted) }
        #expect(!pieces.contains { $0.text.isEmpty })
        return pieces.map { $0.isTrusted ? $0.text : "«\($0.text)»" }.joined()
    }

    @Test(arguments: [
        ("<s>{{ x }}</s>", "<s>«ab cd»</s>"),
        ("{{ '<s>' + x + '</s>' }}", "<s>«ab cd»</s>"),
        ("{{ '<s>' ~ x ~ n ~ true }}", "<s>«ab cd»3True"),
        ("{{ x + y }}", "«ab cd<|E|>»"),
        ("{{ x[1:4] }}{{ ('<' + x + '>')[0:3] }}{{ ('<' + x + '>')[::-1] }}", "«b c»<«ab»>«dc ba»<"),
        ("{{ x[0] }}{{ ('-' + x)[0] }}{{ ('-' + x)[1] }}", "«a»-«a»"),
        ("{{ x|trim }}{{ (' ' + x + ' ')|trim }}{{ (' ' + x + '!').strip() }}", "«ab cdab cdab cd»!"),
        ("{{ x.replace('b', '<|E|>') }}", "«a»<|E|>« cd»"),
        ("{{ 'a-b'.replace('-', y) }}{{ 'a-b'|replace('-', y) }}", "a«<|E|>»ba«<|E|>»b"),
        ("{{ x.split(' ')[1] }}{{ x.split()|join('<sep>') }}{{ '<sep>'.join(x.split()) }}", "«cdab»<sep>«cdab»<sep>«cd»"),
        ("{{ ('<' + x).split(' ')[0] }}", "<«ab»"),
        ("{{ x|upper }}{{ ('q' + x)|upper }}{{ x|title }}{{ x|capitalize }}{{ x.swapcase() }}", "«AB CD»Q«AB CDAb CdAb cdAB CD»"),
        ("{{ '%s|%s' % (x, 'k') }}{{ '%s'|format(y) }}{{ '{}|{}'.format('k', x) }}", "«ab cd»|k«<|E|>»k|«ab cd»"),
        ("{{ '%5s|' % 'k' }}{{ '%7s' % x }}{{ x.center(9, '*') }}", "    k|  «ab cd»**«ab cd»**"),
        ("{{ [x, 'k']|join(',') }}{{ [x, 'k']|first }}{{ {'a': x}.a }}", "«ab cd»,k«ab cdab cd»"),
        ("{{ (x ~ '\\n<|E|>')|indent(2) }}", "«ab cd»\n  <|E|>"),
        ("{{ x|e }}{{ y|e }}", "«ab cd&lt;|E|&gt;»"),
        ("{{ x|list|join }}{{ x|reverse }}{{ x|first }}{{ x|last }}", "«ab cddc baad»"),
        ("{% for c in x %}{{ c }}.{% endfor %}", "«a».«b».« ».«c».«d»."),
        ("{% set z = x %}{% set ns = namespace(z=z) %}{{ ns.z }}", "«ab cd»"),
        ("{% set z %}<{{ x }}>{% endset %}{{ z }}{{ z|upper }}", "<«ab cd»><«AB CD»>"),
        ("{% macro m(a) %}<{{ a }}>{% endmacro %}{{ m(x) }}{{ m(x)[1:3] }}", "<«ab cd»>«ab»"),
        ("{% macro m() %}<{{ caller() }}>{% endmacro %}{% call m() %}k{{ x }}{% endcall %}", "<k«ab cd»>"),
        ("{% filter upper %}k{{ x }}{% endfilter %}", "K«AB CD»"),
        ("{{ x|default('k') }}{{ nothing|default('k') }}{{ nothing|default(x) }}", "«ab cd»k«ab cd»"),
        ("{{ x * 2 }}{{ 'k' * 2 }}", "«ab cdab cd»kk"),
        ("{{ x if n == 3 else 'k' }}{{ x or 'k' }}{{ '' or y }}", "«ab cdab cd<|E|>»"),
        ("{{ x.partition(' ')[2] }}{{ x.removeprefix('ab') }}{{ 'kab'.removesuffix('ab') }}", "«cd cd»k"),
        ("{{ x|truncate(4, true, '<e>', 0) }}", "«a»<e>"),
        ("{{ x.expandtabs() }}{{ x.zfill(7) }}", "«ab cd»00«ab cd»"),
    ])
    func operations(_ source: String, _ expected: String) throws {
        #expect(try marked(source) == expected)
    }

    /// What a dump or a list's text adds is never trusted: a request decides how many brackets and commas there are.
    @Test(arguments: [
        ("{{ x|tojson }}", "«\"ab cd\"»"),
        ("<{{ {'k': x}|tojson }}>", "<«{\"»k«\": \"ab cd\"}»>"),
        ("{{ d|tojson }}{{ d|tojson(indent=1) }}", "«{\"<|E|>\": [1, \"a\\nb\", []]}{\n \"<|E|>\": [\n  1,\n  \"a\\nb\",\n  []\n ]\n}»"),
        ("{{ d }}{{ [x] }}{{ [n] }}", "«{'<|E|>': [1, 'a\\nb', []]}['ab cd'][3]»"),
        ("{% for k, v in d.items() %}{{ k }}{{ v[1] }}{% endfor %}{% for k in d %}{{ k }}{% endfor %}", "«<|E|>a\nb<|E|>»"),
        ("{{ '%r' % y }}{{ '{!r}'.format(y) }}", "«'<|E|>''<|E|>'»"),
        ("{{ '%c%c' % (60, 'k') }}{{ '{:c}'.format(60) }}", "«<»k«<»"),
    ])
    func dumps(_ source: String, _ expected: String) throws {
        let context: [(String, JSONValue)] = [("x", "ab cd"), ("y", "<|E|>"), ("n", 3), ("d", ["<|E|>": [1, "a\nb", []]])]
        #expect(try marked(source, context) == expected)
    }

    @Test func comparisonsAreOnPlainText() throws {
        let source = """
            {{ x == 'ab cd' }}{{ 'b c' in x }}{{ x in {'ab cd': 1} }}{{ {'ab cd': 7}[x] }}{{ x in ['ab cd'] }}{{ x is eq('ab cd') }}\
            {{ x.startswith('ab') }}{{ x|length }}{{ x < 'b' }}{{ x.find('c') }}{{ ('<' + x) == '<ab cd' }}{{ [x, 'ab cd']|unique|list|length }}
            """
        #expect(try marked(source) == "TrueTrueTrue7TrueTrueTrue5True3True1")
    }

    /// Conversations whose every text is made of private-use letters: no such letter may come out trusted, and no
    /// tag of the template untrusted.
    @Test func realTemplatesKeepRequestTextApart() throws {
        let golden = try TemplateFixtures.json("golden.json")
        var renders = 0
        let conversations = try #require(golden["conversations"]?.object)
        for name in [
            "smollm2-135m-instruct", "qwen2.5-coder-0.5b-instruct", "qwen2.5-coder-1.5b-instruct", "qwen3-0.6b", "smollm3-3b",
            "mistral-nemo-instruct-2407", "phi-3.5-mini-instruct", "deepseek-r1-distill-qwen-32b", "granite-3.3-2b-instruct", "gpt-oss-120b",
        ] {
            let template = try TemplateFixtures.template(name)
            for (_, conversation) in conversations {
                let messages = try #require(conversation.array).map { disguise($0, isInside: false) }
                let tools = try #require(golden["tools"]?.array).map { disguise($0, isInside: false) }
                let pieces: [TextPiece]
                do {
                    pieces = try template.render(
                        messages: messages, tools: tools, addGenerationPrompt: true, variables: [("bos_token", .string("<s>", isTrusted: true))])
                } catch {
                    continue
                }
                renders += 1
                for piece in pieces where piece.isTrusted {
                    #expect(!piece.text.unicodeScalars.contains { isDisguised($0) }, "\(name): \(piece.text)")
                }
                // The disguised conversations hold no angle bracket of their own.
                for piece in pieces where !piece.isTrusted { #expect(!piece.text.contains("<"), "\(name): \(piece.text)") }
            }
        }
        #expect(renders > 60)
    }

    private func isDisguised(_ scalar: Unicode.Scalar) -> Bool { (0xE000...0xF8FF).contains(scalar.value) }

    /// Moves every letter of a request's texts to the private use area; keys and the words of the protocol stay.
    private func disguise(_ value: JSONValue, isInside: Bool) -> JSONValue {
        switch value {
        case .string(let text):
            return .string(String(String.UnicodeScalarView(text.unicodeScalars.map { Unicode.Scalar(0xE000 + $0.value % 0x1000)! })))
        case .array(let elements): return .array(elements.map { disguise($0, isInside: true) })
        case .object(let object):
            var result = JSONObject()
            for (key, value) in object {
                result[key] = ["role", "type", "id", "tool_call_id"].contains(key) ? value : disguise(value, isInside: true)
            }
            return .object(result)
        default: return value
        }
    }
}
