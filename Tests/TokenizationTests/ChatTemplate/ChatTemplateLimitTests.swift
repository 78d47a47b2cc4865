import JSON
import Testing
import Tokenization

/// Budgets, nesting, and what the sandbox keeps closed.
@Suite struct ChatTemplateLimitTests {
    @Test(arguments: [
        "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
        "{% set ns = namespace(x=[1]) %}{% for a in range(100) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{{ [1] * 99999999999 }}",
        "{{ [1, 2]|batch(9999999999, 'x')|list }}",
        "{{ [1, 2]|slice(9999999999)|list }}",
        "{% for a in range(100000) %}{% set x = range(100000)|sort %}{% endfor %}",
    ])
    func steps(_ source: String) {
        let error = renderError(source, budget: TemplateBudget(maximumSteps: 200_000))
        #expect(error?.code == .stepLimit)
        #expect(error?.message.contains("limit of 200000 steps") == true)
        #expect(error?.line == 1)
    }

    @Test(arguments: [
        "{{ 'x' * 99999999999 }}",
        "{{ '%99999999999d' % 1 }}",
        "{{ '%*d' % (99999999999, 1) }}",
        "{{ '{:99999999999}'.format(1) }}",
        "{{ 'x'.center(99999999999) }}",
        "{{ 'x'|center(99999999999) }}",
        "{{ 'x'.zfill(99999999999) }}",
        "{{ 'x'.ljust(9223372036854775807, 'é') }}",
        "{{ '\t'.expandtabs(99999999999) }}",
        "{{ 'a\nb'|indent(99999999999) }}",
        "{{ [1]|tojson(indent=99999999999) }}",
        "{% for x in range(1000) %}0123456789{% endfor %}",
        "{% set ns = namespace(x='ab') %}{% for a in range(100) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{% set ns = namespace(x='ab') %}{% for a in range(100) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{% set ns = namespace(x='ab') %}{% for a in range(100) %}{% set ns.x = ns.x.replace('a', ns.x) %}{% endfor %}",
        "{% set ns = namespace(x='ab') %}{% for a in range(100) %}{% set ns.x = [ns.x, ns.x]|join %}{% endfor %}",
        "{% set ns = namespace(x='ab') %}{% for a in range(100) %}{% set ns.x = '%s%s' % (ns.x, ns.x) %}{% endfor %}",
        "{% set ns = namespace(x='ab') %}{% for a in range(100) %}{% set ns.x = [ns.x, ns.x]|tojson %}{% endfor %}",
        "{% set ns = namespace(x='ab') %}{% for a in range(100) %}{% set ns.x = [ns.x, ns.x]|string %}{% endfor %}",
        "{% set ns = namespace(x='ab') %}{% for a in range(100) %}{% set ns.x = ns.x.join([ns.x, ns.x]) %}{% endfor %}",
    ])
    func output(_ source: String) {
        let error = renderError(source, budget: TemplateBudget(maximumOutputBytes: 4096))
        #expect(error?.code == .outputLimit)
        #expect(error?.message.contains("limit of 4096 bytes") == true)
    }

    @Test(arguments: [
        "{% macro m(x) %}{{ m(x) }}{% endmacro %}{{ m(1) }}",
        "{% macro m(x) %}{% for a in [1] %}{% if x %}{% set y = ('a' ~ (m(x)|upper))|trim %}{% endif %}{% endfor %}{% endmacro %}{{ m(1) }}",
        "{% macro m() %}{{ caller() }}{% endmacro %}{% macro r(n) %}{% call m() %}{{ r(n) }}{% endcall %}{% endmacro %}{{ r(1) }}",
        "{% for x in [1] recursive %}{{ loop([x]) }}{% endfor %}",
        "{% macro m(a=m()) %}{% endmacro %}{{ m() }}",
        "{{ x" + String(repeating: ".a", count: 400) + " }}",
        "{{ 1" + String(repeating: "|string", count: 400) + " }}",
        "{% set ns = namespace(x=1) %}{% for i in range(1000) %}{% set ns.x = [ns.x] %}{% endfor %}",
        "{% set ns = namespace(x=1) %}{% for i in range(1000) %}{% set ns.x = {'a': ns.x} %}{% endfor %}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(1000) %}{% set ns.x = ns.x|batch(1)|list %}{% endfor %}",
        "{% set ns = namespace(x=1) %}{% for i in range(1000) %}{% set ns.x = dict(a=ns.x) %}{% endfor %}",
        "{% set ns = namespace(x=1) %}{% for i in range(1000) %}{% set ns.x = cycler(ns.x) %}{% endfor %}",
        "{% set ns = namespace(x=1) %}{% for i in range(1000) %}{% for a in [ns.x] %}{% set ns.x = loop %}{% endfor %}{% endfor %}",
        "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}",
    ])
    func depth(_ source: String) {
        #expect(renderError(source)?.code == .depthLimit)
    }

    @Test func sourceNesting() {
        for (opening, closing) in [("(", ")"), ("[", "]"), ("{1: ", "}"), ("-", ""), ("not ", ""), ("f(", ")"), ("1 if ", "")] {
            let source = "{{ " + String(repeating: opening, count: 5000) + "1" + String(repeating: closing, count: 5000) + " }}"
            #expect(renderError(source)?.code == .syntax, "\(opening)")
        }
        #expect(renderError(String(repeating: "{% if 1 %}", count: 5000))?.message.contains("nest deeper than the limit of 100") == true)
        for chain in [" + 1", ".a", "|e", " and 1", " or 1", " ** 1", " * 1", "[0]", "()"] {
            let error = renderError("{{ 1" + String(repeating: chain, count: 5000) + " }}")
            #expect(error?.message == "an expression chains more operators than the limit of 500", "\(chain)")
        }
        #expect(renderError("{{ 1" + String(repeating: " + 1", count: 400) + " }}") == nil)
        #expect(renderError("{{ 1" + String(repeating: " ~ 1", count: 5000) + " }}") == nil)
        #expect(renderError(String(repeating: "{% if 1 %}", count: 90) + String(repeating: "{% endif %}", count: 90)) == nil)
    }

    @Test func aTypicalRenderStaysFarBelowTheLimits() throws {
        let template = try TemplateFixtures.template("qwen3-0.6b")
        let messages = (0..<200).map { JSONValue.object(["role": $0 % 2 == 0 ? "user" : "assistant", "content": "text"]) }
        let pieces = try template.render(
            messages: messages, addGenerationPrompt: true, budget: TemplateBudget(maximumSteps: 40_000, maximumOutputBytes: 10_000, maximumDepth: 40))
        #expect(pieces.filter { !$0.isTrusted }.map(\.text) == Array(repeating: "text", count: 200))
    }

    @Test func longTextsComeThroughWhole() throws {
        let text = String(repeating: "Zürich 日本 😀 <|im_end|>\n", count: 40_000)
        let template = try TemplateFixtures.template("qwen2.5-coder-0.5b-instruct")
        let pieces = try template.render(messages: [["role": "user", "content": .string(text)]], addGenerationPrompt: true)
        #expect(pieces.count == 3)
        #expect(pieces[1] == TextPiece(text: text, isTrusted: false))
        #expect(pieces[2] == TextPiece(text: "<|im_end|>\n<|im_start|>assistant\n", isTrusted: true))
    }

    @Test func longPatternsAreFound() throws {
        let pattern = String(repeating: "ab", count: 40) + "c"
        let text = String(repeating: "ab", count: 5000) + "c" + pattern + "é"
        let source = "{{ x.find(y) }} {{ x.rfind(y) }} {{ x.count(y) }} {{ y in x }} {{ (y ~ 'z') in x }} {{ x.replace(y, '')|length }}"
        #expect(try renderedText(source, [("x", .string(text)), ("y", .string(pattern))]) == "9920 10001 2 True False 9921")
    }

    @Test(arguments: [
        ("{{ [].append(1) }}", TemplateError.Code.unsupported, "'list.append' would change a value"),
        ("{{ {}.update({}) }}", .unsupported, "'dict.update' would change a value"),
        ("{{ x.__class__.__mro__ }}", .undefined, "'x' is undefined"),
        ("{{ ''.__class__.__mro__ }}", .undefined, "has no attribute '__class__'"),
        ("{{ ().__class__() }}", .undefined, "has no attribute '__class__'"),
        ("{{ range.__globals__.x }}", .undefined, "has no attribute '__globals__'"),
        ("{{ '{0.__class__.x}'.format(1) }}", .undefined, "has no attribute '__class__'"),
        ("{% macro m() %}{% endmacro %}{{ m.__call__.x }}", .undefined, "has no attribute '__call__'"),
        ("{{ 1|nope }}", .unsupported, "there is no filter 'nope'"),
        ("{{ 1 is nope }}", .unsupported, "there is no test 'nope'"),
        ("{% include 'x' %}", .unsupported, "the tag 'include' is not available"),
        ("{{ range(100001)|list }}", .invalidOperation, "the limit is 100000"),
        ("{{ range(-9223372036854775807, 9223372036854775807) }}", .invalidOperation, "too large"),
        ("{{ 9223372036854775807 + 1 }}", .invalidOperation, "exceeds 64 bits"),
        ("{{ 2 ** 64 }}", .invalidOperation, "exceeds 64 bits"),
        ("{{ -(-9223372036854775807 - 1) }}", .invalidOperation, "exceeds 64 bits"),
        ("{{ (-9223372036854775807 - 1) // -1 }}", .invalidOperation, "exceeds 64 bits"),
        ("{{ 99999999999999999999 }}", .syntax, "exceeds 64 bits"),
        ("{{ '%.9999d' % 1 }}{{ '%.9999f' % 1.5 }}", .invalidOperation, "precision beyond 1000"),
        ("{{ 1.5|round(400) }}", .invalidOperation, "at most 300"),
    ])
    func closedDoors(_ source: String, _ code: TemplateError.Code, _ message: String) {
        let error = renderError(source)
        #expect(error?.code == code)
        #expect(error?.message.contains(message) == true, "\(error?.message ?? "no error")")
    }

    @Test func extremeIntegersDoNotTrap() {
        for expression in [
            "range(10)[::9223372036854775807]|list", "'abc'[9223372036854775807]", "'abc'[-9223372036854775807:9223372036854775807]",
            "[1, 2, 3][::-9223372036854775807]", "'abc'[::9223372036854775807]", "'abc'|truncate(9223372036854775807)",
            "range(0, 10, 5)[::9223372036854775807]", "'x'.expandtabs(9223372036854775807)", "0 ** 9223372036854775807",
            "(-1) ** 9223372036854775807", "1 ** 9223372036854775807", "(-9223372036854775807 - 1) % -1", "1e308 * 10 // 1 | int",
            "'abc'.find('c', -9223372036854775807)", "'a b'.split(' ', -9223372036854775807)", "'abc'.replace('a', 'b', 9223372036854775807)",
            "(0.0 / 1e-320)|round(2)", "'nan'|float|int", "'%d' % 1.5e300", "[1]|batch(9223372036854775807)|list",
        ] {
            let error = renderError("{{ \(expression) }}")
            #expect(error == nil || error?.code == .invalidOperation, "\(expression)")
        }
    }

    @Test func damagedTemplatesNeverCrash() throws {
        let source = """
            {%- set ns = namespace(a=0) %}{% macro m(p, q=2) -%}[{{ p|upper }},{{ q }}]{%- endmacro %}{# c #}
            {%- for k, v in d.items() if v is not none %}{{ loop.index ~ k[::-1] ~ '%s' % v }}{% if loop.last %}{% break %}{% else %}\
            {% set ns.a = ns.a + 1 %}{% endif %}{% endfor %}{{ m(ns.a, q=[1, {'a': 1.5e3}]) }}{% raw %}{{ }}{% endraw %}{% filter trim %} x\\u00e9 {% endfilter %}
            """
        let context: [(String, JSONValue)] = [("d", ["a": 1, "b": .null, "c": "x"])]
        #expect(try renderedText(source, context).contains("1a1"))
        let bytes = Array(source.utf8)
        var state: UInt64 = 99
        func next(_ bound: Int) -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int((state >> 33) % UInt64(bound))
        }
        var failures = 0
        for _ in 0..<3000 {
            var damaged = bytes
            for _ in 0...next(4) {
                switch next(4) {
                case 0: damaged[next(damaged.count)] = UInt8(next(128))
                case 1: damaged.remove(at: next(damaged.count))
                case 2: damaged.insert(contentsOf: ["{%", "%}", "{{", "}}", "(", "|", "'", "-", "0x", "\\u", "é", "{#"][next(12)].utf8, at: next(damaged.count))
                default: damaged.removeSubrange(next(damaged.count)..<damaged.count)
                }
                if damaged.isEmpty { damaged = [0x20] }
            }
            let error = renderError(String(decoding: damaged, as: UTF8.self), context, budget: TemplateBudget(maximumSteps: 100_000))
            if error != nil { failures += 1 }
        }
        #expect(failures > 1000 && failures < 3000)
    }
}
