import Tokenization

extension ServedModel {
    /// The tokens of a conversation, ready for the assistant's answer.
    package func tokens(of messages: [ChatMessage]) throws(APIError) -> [Int32] {
        do throws(TemplateError) {
            return try encoder.promptTokens(messages: messages.map(\.templateValue))
        } catch {
            throw APIError(
                .badRequest, .invalidRequest, code: "template_error", param: "messages",
                "The model's chat template refuses this conversation: \(quoted(error.message))")
        }
    }
}
