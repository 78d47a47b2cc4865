import Tokenization

extension ServedModel {
    /// The tokens of a conversation, ready for the assistant's answer.
    ///
    /// - Throws: `template_error` when the template refuses the conversation, `template_limit` when it exceeds the budget.
    package func tokens(of messages: [ChatMessage], budget: TemplateBudget = .default) throws(APIError) -> [Int32] {
        do throws(TemplateError) {
            return try encoder.promptTokens(messages: messages.map(\.templateValue), budget: budget)
        } catch {
            switch error.code {
            case .stepLimit, .outputLimit, .depthLimit:
                throw APIError(
                    .badRequest, .invalidRequest, code: APIError.templateLimit, param: "messages",
                    "The model's chat template does not come to an end with this conversation: \(quoted(error.message))")
            default:
                throw APIError(
                    .badRequest, .invalidRequest, code: "template_error", param: "messages",
                    "The model's chat template refuses this conversation: \(quoted(error.message))")
            }
        }
    }
}

extension TemplateBudget {
    /// What a render may take on the server's own thread: some tens of milliseconds, ten times what a conversation in a small body needs.
    static let inline = TemplateBudget(maximumSteps: 100_000)
}

extension APIError {
    /// The code of a conversation that the template could not be rendered with inside of its budget.
    static let templateLimit = "template_limit"
}
