import JSON
import OpenAIAPI
import Testing

@Suite struct TrainingLineTests {
    private static let question: [JSONValue] = [
        ["role": "system", "content": "Be brief.", "cache": true], ["role": "user", "content": "Hi", "name": .null],
        ["role": "assistant", "content": "Yo", "refusal": .null], ["role": "user", "content": [["type": "text", "text": "Again"]]],
    ]

    private static func choice(_ text: String, finish: JSONValue = "stop") -> JSONValue {
        ["index": 0, "message": ["role": "assistant", "content": .string(text), "refusal": .null, "tool_calls": .null], "finish_reason": finish]
    }

    private func make(
        _ format: TrainingLine.Format, choices: [JSONValue], better: JSONObject? = nil, tools: [JSONValue]? = nil
    ) throws -> (json: JSONValue?, omission: TrainingLine.Omission?) {
        switch TrainingLine.make(format, messages: Self.question, tools: tools, choices: choices, demonstration: better) {
        case .omission(let omission): return (nil, omission)
        case .line(let bytes):
            #expect(bytes.last == 0x0A && !bytes.dropLast().contains(0x0A))
            return (try JSONValue(parsing: bytes), nil)
        }
    }

    @Test func chat() throws {
        let made = try make(.chat, choices: [Self.choice("Hello!"), Self.choice("Second")])
        // The answer is learnt, and those before it are not: they have lines of their own.
        #expect(
            made.json == [
                "messages": [
                    ["role": "system", "content": "Be brief."], ["role": "user", "content": "Hi"], ["role": "assistant", "content": "Yo", "weight": 0],
                    ["role": "user", "content": [["type": "text", "text": "Again"]]], ["role": "assistant", "content": "Hello!"],
                ]
            ])
        #expect(try make(.chat, choices: [Self.choice("Hello!")], tools: [["type": "function"]]).json?["tools"] == [["type": "function"]])
    }

    @Test func aBetterAnswerTakesThePlace() throws {
        for choices in [[Self.choice("Hello!")], [Self.choice("")], [Self.choice("Hel", finish: "length")], []] {
            let made = try make(.chat, choices: choices, better: ["role": "assistant", "content": "Good day."])
            #expect(made.json?["messages"]?.array?.last == ["role": "assistant", "content": "Good day."])
        }
    }

    @Test func preference() throws {
        let made = try make(.preference, choices: [Self.choice("Hello!")], better: ["role": "assistant", "content": "Good day."], tools: [])
        #expect(made.json?.sortedKeys == ["input", "non_preferred_output", "preferred_output"])
        #expect(made.json?["input"]?["messages"]?.array?.count == 4 && made.json?["input"]?["messages"]?[2] == ["role": "assistant", "content": "Yo"])
        #expect(made.json?["preferred_output"] == [["role": "assistant", "content": "Good day."]])
        #expect(made.json?["non_preferred_output"] == [["role": "assistant", "content": "Hello!"]])
        // An answer that was cut off is a fine example of a worse one.
        #expect(try make(.preference, choices: [Self.choice("Hel", finish: "length")], better: ["role": "assistant", "content": "x"]).json != nil)
    }

    @Test func omissions() throws {
        let better: JSONObject = ["role": "assistant", "content": "Hello!"]
        #expect(try make(.chat, choices: [Self.choice("")]).omission == .emptyAnswer)
        #expect(try make(.chat, choices: []).omission == .emptyAnswer)
        #expect(try make(.chat, choices: [Self.choice("Hel", finish: "length")]).omission == .truncatedAnswer)
        #expect(try make(.preference, choices: [Self.choice("Hello!")]).omission == .noDemonstration)
        #expect(try make(.preference, choices: [Self.choice("Hello!")], better: better).omission == .unchanged)
        #expect(try make(.preference, choices: [Self.choice("")], better: better).omission == .emptyAnswer)
    }
}
