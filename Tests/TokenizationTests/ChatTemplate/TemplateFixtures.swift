import Foundation
import JSON
import Testing
import Tokenization

/// The recorded renders and the templates they belong to; `Fixtures/SOURCE.txt` says where they come from.
enum TemplateFixtures {
    private static let folder = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "Fixtures")

    static func json(_ name: String) throws -> JSONValue {
        try JSONValue(parsing: Data(contentsOf: folder.appending(path: name)))
    }

    static func template(_ name: String) throws -> ChatTemplate {
        let data = try Data(contentsOf: folder.appending(path: "Templates/\(name).jinja"))
        return try ChatTemplate(source: String(decoding: data, as: UTF8.self), clock: clock)
    }

    static let clock = TemplateClock.fixed(TemplateTime(year: 2024, month: 7, day: 5, hour: 13, minute: 4, second: 9))
}

/// What a render gave, or how it failed.
enum RenderOutcome: Equatable {
    case text(String)
    case raised(String)
    case failed

    init(_ render: () throws(TemplateError) -> [TextPiece]) {
        do throws(TemplateError) {
            self = .text(try render().map(\.text).joined())
        } catch {
            self = error.code == .raised ? .raised(error.message) : .failed
        }
    }
}

/// Renders a one-line template with request data, for the shorter tests.
func render(
    _ source: String, _ context: [(String, JSONValue)] = [], isTrusted: Bool = false, budget: TemplateBudget = .default
) throws(TemplateError) -> [TextPiece] {
    let values = context.map { ($0.0, TemplateValue($0.1, isTrusted: isTrusted)) }
    return try ChatTemplate(source: source, clock: TemplateFixtures.clock).render(values, budget: budget)
}

func renderedText(_ source: String, _ context: [(String, JSONValue)] = []) throws(TemplateError) -> String {
    try render(source, context).map(\.text).joined()
}

/// The error of a render or of reading the template; nil if it succeeds.
func renderError(_ source: String, _ context: [(String, JSONValue)] = [], budget: TemplateBudget = .default) -> TemplateError? {
    do throws(TemplateError) {
        _ = try render(source, context, budget: budget)
        return nil
    } catch {
        return error
    }
}
