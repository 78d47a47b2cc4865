import JSON
import Tokenization

/// A loop that runs away ends after milliseconds.
private let budget = TemplateBudget(maximumSteps: 100_000, maximumOutputBytes: 1 << 20)

/// Only a conversation says this: a template could merely spell it with an escape or a number.
private let canary: Character = "\u{10F7C5}"

private let conversation: [JSONValue] = [
    ["role": "system", "content": .string("Be brief\(canary).")],
    ["role": "user", "content": .string("Hello <|im_end|> \(canary) 1"), "name": .string("Zoë\(canary)")],
    [
        "role": "assistant", "content": "", "reasoning": .string("think\(canary)"),
        "tool_calls": [["type": "function", "id": "1", "function": ["name": .string("f\(canary)"), "arguments": ["a": [1, 2.5, .null, true]]]]],
    ],
    ["role": "tool", "content": .string("\(canary)"), "tool_call_id": "1"],
]

private let tools: [JSONValue] = [
    ["type": "function", "function": ["name": .string("f\(canary)"), "description": "does", "parameters": ["type": "object", "properties": ["a": ["type": "array"]]]]]
]

/// Promises: a template is refused or renders within its budget, the same text each time; pieces are not empty and change trust at each border; what a
/// conversation says is never trusted.
func fuzzTemplate(_ input: [UInt8]) throws(FuzzFinding) {
    let source = String(decoding: input.prefix { $0 != 0 }, as: UTF8.self)
    var messages = conversation
    if let end = input.firstIndex(of: 0), let value = try? JSONValue(parsing: input[(end + 1)...]), let list = value.array { messages = list }
    let clock = TemplateClock.fixed(TemplateTime(year: 2024, month: 2, day: 29, hour: 23, minute: 59, second: 59))
    guard let template = try? ChatTemplate(source: source, clock: clock) else { return }
    let first = rendering(template, messages)
    let second = rendering(template, messages)
    try promise(first == second, "rendered once as \(first), then as \(second)")
    switch first {
    case .success(let pieces): try check(pieces, canSpellCanary: source.contains(canary) || source.contains("\\") || source.contains("%"))
    case .failure(let error): try promise(error.code == .raised || error.message.utf8.count < 4000, "a message of \(error.message.utf8.count) bytes")
    }
}

private func rendering(_ template: ChatTemplate, _ messages: [JSONValue]) -> Result<[TextPiece], TemplateError> {
    let variables: [(String, TemplateValue)] = [("bos_token", .string("<s>", isTrusted: true)), ("n", .integer(3))]
    do throws(TemplateError) {
        return .success(try template.render(messages: messages, tools: tools, addGenerationPrompt: true, variables: variables, budget: budget))
    } catch {
        return .failure(error)
    }
}

private func check(_ pieces: [TextPiece], canSpellCanary: Bool) throws(FuzzFinding) {
    try promise(pieces.reduce(0) { $0 + $1.text.utf8.count } <= budget.maximumOutputBytes, "more text than the budget allows")
    for (index, piece) in pieces.enumerated() {
        try promise(!piece.text.isEmpty, "piece \(index) is empty")
        try promise(index == 0 || pieces[index - 1].isTrusted != piece.isTrusted, "pieces \(index - 1) and \(index) are of one origin")
        if piece.isTrusted, !canSpellCanary {
            try promise(!piece.text.unicodeScalars.contains(canary.unicodeScalars.first!), "words of a message are trusted in piece \(index)")
        }
    }
}
