import Adapters
import FoundationEssentials
import JSON
import Testing

@Suite struct ModulePatternTests {
    private static let fixture = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "Fixtures/patterns.json")

    /// How PEFT uses a pattern.
    private enum Way: CaseIterable {
        case whole, end, layers

        func pattern(_ text: String) throws(AdapterError) -> ModulePattern {
            switch self {
            case .whole: try ModulePattern(whole: text, subject: "t")
            case .end: try ModulePattern(end: text, subject: "t")
            case .layers: try ModulePattern(layersNamed: text, subject: "t")
            }
        }
    }

    /// What this reader refuses although Python takes it.
    private static func isBeyondUs(_ pattern: String) -> Bool {
        ["(?<=", "(?<!", "(?i", "(?a", "(?>", "(?#", "(?P=", "(?x", "\\1", "\\8", "\\x", "\\u", "*+", "++", "?+", "}+"].contains { pattern.contains($0) }
    }

    /// Hundreds of patterns, by hand and at random, against Python's `re`, in the three ways in which PEFT uses them.
    @Test func patternsMeanWhatPythonTakesThemFor() throws {
        let fixture = try JSONValue(parsing: Array(Data(contentsOf: Self.fixture)))
        let paths = try #require(fixture["paths"]?.array).map { Array(($0.string ?? "").utf8) }
        let cases = try #require(fixture["patterns"]?.array)
        #expect(cases.count > 400)
        var compared = 0
        for entry in cases {
            let row = try #require(entry.array), text = try #require(row[0].string)
            for (way, expected) in zip(Way.allCases, row.dropFirst()) {
                guard let expected = expected.string else {
                    #expect(throws: AdapterError.self, "\(text)") { try way.pattern(text) }
                    continue
                }
                guard !Self.isBeyondUs(text) else { continue }
                let pattern = try way.pattern(text)
                var budget = ModulePattern.Budget()
                let found = try paths.map { try pattern.matches($0, &budget) ? "1" : "0" }.joined()
                #expect(found == expected, "\(text)")
                compared += 1
            }
        }
        #expect(compared > 1000)
    }

    @Test(arguments: [
        ("(?<=a)b", "(?"), ("(?i)a", "(?"), (#"(a)\1"#, "back-references"), (#"\x61"#, #"\x"#), ("a*+", "possessive"), ("(", "without its ')'"),
        (")", "without its '('"),
        ("[a", "without its ']'"), ("a**", "repetition"), ("*a", "nothing"), ("a{2,1}", "2 to 1"), ("a{1001}", "1000"),
        ("((((a{50}){50}){50}){50})", "too large"),
        ("((){1000}){1000}{2}", "repetition"), (String(repeating: "(", count: 51), "deeper"), ("[z-a]", "range"), ("\\", "backslash"),
    ])
    func whatIsNotUnderstoodIsRefused(pattern: String, named: String) {
        #expect {
            _ = try ModulePattern(whole: pattern, subject: "adapter_config.json: target_modules")
        } throws: { error in
            guard let error = error as? AdapterError else { return false }
            return error.code == .unsupported && error.message.contains(named) && error.message.hasPrefix("adapter_config.json: target_modules: ")
        }
    }

    @Test func longPatternsAreRefused() throws {
        _ = try ModulePattern(whole: String(repeating: "a", count: 1000), subject: "t")
        let long = String(repeating: "a", count: 1001)
        #expect(throws: AdapterError.self) { try ModulePattern(whole: long, subject: "t") }
        #expect(throws: AdapterError.self) { try ModulePattern(end: long, subject: "t") }
        #expect(throws: AdapterError.self) { try ModulePattern(layersNamed: long, subject: "t") }
    }

    /// Patterns that make backtracking take forever cost no more than instructions times characters.
    @Test(arguments: ["(a+)+$", "(a|a)*$", "(a*)*b", "(a|aa)+c", "(.*)*x", "(a?){300}a{300}", "((a{0,9}){0,9})*b", "(?=(?=(?=.*.*.*x).*.*x).*x)a*"])
    func hostilePatternsAreCheap(pattern: String) throws {
        let compiled = try ModulePattern(whole: pattern, subject: "t")
        var budget = ModulePattern.Budget()
        let before = budget.steps
        _ = try compiled.matches([UInt8](repeating: UInt8(ascii: "a"), count: 64) + Array("!".utf8), &budget)
        #expect(before - budget.steps < 2_000_000)
    }

    @Test func theBudgetEnds() throws {
        let pattern = try ModulePattern(whole: "(a?){400}", subject: "rank_pattern")
        var budget = ModulePattern.Budget()
        budget.steps = 10_000
        let path = [UInt8](repeating: UInt8(ascii: "a"), count: 300)
        #expect {
            for _ in 0..<100 { _ = try pattern.matches(path, &budget) }
        } throws: { ($0 as? AdapterError)?.code == .unsupported && "\($0)".contains("rank_pattern") }
    }
}
