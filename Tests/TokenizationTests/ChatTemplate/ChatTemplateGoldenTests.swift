import JSON
import Testing
import Tokenization

/// Renders of jinja2 and transformers, reproduced exactly.
@Suite struct ChatTemplateGoldenTests {
    @Test func conversationsWithRealTemplates() throws {
        let golden = try TemplateFixtures.json("golden.json")
        let conversations = try #require(golden["conversations"]?.object)
        let tools = try #require(golden["tools"]?.array)
        let cases = try #require(golden["cases"]?.array)
        #expect(cases.count == 390)
        var templates: [String: ChatTemplate] = [:]
        for one in cases {
            let name = try #require(one["template"]?.string)
            let conversation = try #require(one["conversation"]?.string)
            let template = try templates[name] ?? TemplateFixtures.template(name)
            templates[name] = template
            let variables = (one["variables"]?.object ?? JSONObject()).map { ($0.key, TemplateValue($0.value, isTrusted: true)) }
            let outcome = RenderOutcome { () throws(TemplateError) in
                try template.render(
                    messages: conversations[conversation]?.array ?? [], tools: one["tools"] == true ? tools : nil,
                    addGenerationPrompt: one["generation_prompt"] == true, variables: variables)
            }
            let expected: RenderOutcome
            if let text = one["text"]?.string {
                expected = .text(text)
            } else {
                expected = one["raised"] == true ? .raised(one["error"]?.string ?? "") : .failed
            }
            #expect(outcome == expected, "\(name), \(conversation), tools: \(one["tools"] == true)")
        }
        #expect(templates.count == 10)
    }

    @Test func expressionsAndStatements() throws {
        let recorded = try TemplateFixtures.json("snippets.json")
        let context = try #require(recorded["context"]?.object).map { ($0.key, $0.value) }
        let snippets = try #require(recorded["snippets"]?.array)
        #expect(snippets.count > 900)
        for snippet in snippets {
            let source = try #require(snippet["source"]?.string)
            let outcome = RenderOutcome { () throws(TemplateError) in try render(source, context) }
            if let text = snippet["text"]?.string {
                #expect(outcome == .text(text), "\(source)")
            } else if let message = snippet["error"]?.string, !message.isEmpty {
                #expect(outcome == .raised(message), "\(source)")
            } else {
                #expect(outcome == .failed, "\(source)")
            }
        }
    }
}
