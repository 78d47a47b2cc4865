import JSON

/// The one way from a conversation to tokens, for serving and for training.
///
/// What messages say is never trusted: only the template's own text and the model's own tokens may become control tokens.
public struct ConversationEncoder: Sendable {
    public let tokenizer: Tokenizer
    /// `nil` for a base model, whose conversations are written as a plain transcript: a paragraph for each message.
    public let chatTemplate: ChatTemplate?

    public init(tokenizer: Tokenizer, chatTemplate: ChatTemplate?) {
        self.tokenizer = tokenizer
        self.chatTemplate = chatTemplate
    }

    /// The tokens of a conversation, ready for the assistant's answer.
    ///
    /// - Parameters:
    ///   - messages: as `message(role:content:extras:)` makes them.
    ///   - tools: the tools on offer, in OpenAI's shape; a base model never sees them.
    ///   - budget: ends a render that takes too much.
    /// - Throws: what the template throws; with the code `.raised` it refuses this conversation.
    public func promptTokens(messages: [JSONValue], tools: [JSONValue]? = nil, budget: TemplateBudget = .default) throws(TemplateError) -> [Int32] {
        tokens(of: try rendered(messages, tools: tools, addsGenerationPrompt: true, budget: budget).pieces)
    }

    /// A message as templates are written for it. `developer` is OpenAI's later name for `system`, which templates do not know.
    ///
    /// - Parameter extras: `name`, `tool_call_id`, `tool_calls`: what some templates show beside role and content.
    public static func message(role: String, content: String, extras: JSONObject = JSONObject()) -> JSONValue {
        var object = JSONObject()
        object["role"] = .string(role == "developer" ? "system" : role)
        object["content"] = .string(content)
        for (key, value) in extras { object[key] = value }
        return .object(object)
    }

    /// A tool call in OpenAI's shape as templates are written for it (transformers' convention): arguments that are a JSON object in a
    /// string become that object. `nil` for a call without `function.name`.
    public static func toolCall(_ value: JSONValue) -> JSONValue? {
        guard var call = value.object, var function = call["function"]?.object, function["name"]?.string != nil else { return nil }
        if let arguments = function["arguments"]?.string, let parsed = try? JSONValue(parsing: Array(arguments.utf8)), parsed.object != nil {
            function["arguments"] = parsed
        }
        call["function"] = .object(function)
        return .object(call)
    }

    // MARK: Rendering

    func rendered(
        _ messages: [JSONValue], tools: [JSONValue]?, addsGenerationPrompt: Bool, budget: TemplateBudget = .default
    ) throws(TemplateError) -> RenderedText {
        guard let chatTemplate else { return RenderedText(PlainTranscript.pieces(messages, addsGenerationPrompt: addsGenerationPrompt)) }
        var variables: [(String, TemplateValue)] = []
        if let bos = tokenizer.bos { variables.append(("bos_token", .string(tokenizer.tokenText(bos), isTrusted: true))) }
        if let eos = tokenizer.eos { variables.append(("eos_token", .string(tokenizer.tokenText(eos), isTrusted: true))) }
        return RenderedText(
            try chatTemplate.render(messages: messages, tools: tools, addGenerationPrompt: addsGenerationPrompt, variables: variables, budget: budget))
    }

    /// A template writes the beginning-of-sequence token itself where the model wants one; a plain transcript needs it added.
    func tokens(of pieces: [TextPiece]) -> [Int32] { tokenizer.encode(pieces, addSpecial: chatTemplate == nil) }
}
