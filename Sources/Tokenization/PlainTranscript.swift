import JSON

/// The conversation of a base model, which has no template of its own.
///
/// Each message is a paragraph that begins with its speaker, `User: ` or `Assistant: `; a system message is a paragraph without one; a tool's
/// result begins with `Tool: `. The prompt ends with `Assistant:`, and the answer ends where the model would go on as the user.
package enum PlainTranscript {
    package static let stop = "\n\nUser:"

    /// - Parameter addsGenerationPrompt: whether the text shall end where the assistant's answer begins.
    static func pieces(_ messages: [JSONValue], addsGenerationPrompt: Bool) -> [TextPiece] {
        var pieces: [TextPiece] = []
        for message in messages {
            let speaker =
                switch message["role"]?.string {
                case "user": "User: "
                case "assistant": "Assistant: "
                case "tool": "Tool: "
                default: ""
                }
            if !speaker.isEmpty { pieces.append(TextPiece(text: speaker, isTrusted: true)) }
            pieces.append(TextPiece(text: message["content"]?.string ?? "", isTrusted: false))
            pieces.append(TextPiece(text: "\n\n", isTrusted: true))
        }
        if addsGenerationPrompt { pieces.append(TextPiece(text: "Assistant:", isTrusted: true)) }
        return pieces
    }
}
