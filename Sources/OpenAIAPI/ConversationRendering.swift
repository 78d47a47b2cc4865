import JSON
import Tokenization

/// The conversation of a base model, which has no template of its own.
///
/// Each message is a paragraph that begins with its speaker, `User: ` or `Assistant: `; a system message is a paragraph without one; a tool's
/// result begins with `Tool: `. The prompt ends with `Assistant:`, and the answer ends where the model would go on as the user.
package enum PlainTranscript {
    package static let stop = "\n\nUser:"

    static func pieces(_ messages: [ChatMessage]) -> [TextPiece] {
        var pieces: [TextPiece] = []
        for message in messages {
            let speaker =
                switch message.role {
                case .system, .developer: ""
                case .user: "User: "
                case .assistant: "Assistant: "
                case .tool: "Tool: "
                }
            if !speaker.isEmpty { pieces.append(TextPiece(text: speaker, isTrusted: true)) }
            pieces.append(TextPiece(text: message.content, isTrusted: false))
            pieces.append(TextPiece(text: "\n\n", isTrusted: true))
        }
        pieces.append(TextPiece(text: "Assistant:", isTrusted: true))
        return pieces
    }
}

extension ServedModel {
    /// The tokens of a conversation, ready for the assistant's answer.
    package func tokens(of messages: [ChatMessage]) throws(APIError) -> [Int32] {
        guard let chatTemplate else {
            return tokenizer.encode(PlainTranscript.pieces(messages), addSpecial: true)
        }
        // What the request said is never trusted: only the template's own text and the model's own tokens may become control tokens.
        var variables: [(String, TemplateValue)] = []
        if let bos = tokenizer.bos { variables.append(("bos_token", .string(tokenizer.tokenText(bos), isTrusted: true))) }
        if let eos = tokenizer.eos { variables.append(("eos_token", .string(tokenizer.tokenText(eos), isTrusted: true))) }
        let pieces: [TextPiece]
        do throws(TemplateError) {
            pieces = try chatTemplate.render(messages: messages.map(\.templateValue), addGenerationPrompt: true, variables: variables)
        } catch {
            throw APIError(
                .badRequest, .invalidRequest, code: "template_error", param: "messages",
                "The model's chat template refuses this conversation: \(quoted(error.message))")
        }
        // The template writes the beginning-of-sequence token itself where the model wants one.
        return tokenizer.encode(pieces, addSpecial: false)
    }
}
