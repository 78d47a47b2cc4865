import JSON

/// A model's chat template: Jinja, read once and rendered by a sandboxed interpreter as transformers' `apply_chat_template`
/// does.
///
/// Templates come with a model file, never with a request. They see what they are given and nothing else, they cannot
/// change it, and each render has a budget. What they write keeps its origin: text that stems from a request comes out in
/// pieces that are not trusted, through all string operations, so that it can never become a control token. Truth values
/// and numbers carry no origin; written by themselves they are digits and words of the template.
///
/// Not available, because chat templates have no use for it: other files (`include`, `import`, `extends`, `block`),
/// HTML escaping modes, and methods that change a list or dictionary, which transformers' immutable sandbox refuses as well.
public final class ChatTemplate: Sendable {
    private let program: TemplateProgram
    private let clock: TemplateClock

    /// Reads a template.
    ///
    /// - Parameters:
    ///   - source: Jinja source, as in GGUF's `tokenizer.chat_template`.
    ///   - clock: what `strftime_now` shows.
    /// - Throws: `TemplateError` with the line of what does not parse.
    public init(source: String, clock: TemplateClock = .system) throws(TemplateError) {
        program = try TemplateParser.program(of: source)
        self.clock = clock
    }

    /// Renders the template.
    ///
    /// - Parameters:
    ///   - context: the variables that the template sees; a later one of the same name wins. Request data must be marked as
    ///     not trusted.
    ///   - budget: ends a render that takes too much.
    /// - Returns: the text in pieces by origin; neighbours differ in trust, none is empty.
    /// - Throws: `TemplateError`; with the code `.raised` the template refuses these messages.
    public func render(_ context: [(String, TemplateValue)], budget: TemplateBudget = .default) throws(TemplateError) -> [TextPiece] {
        try TemplateInterpreter.run(program, context: context, budget: budget, clock: clock).pieces
    }

    /// Renders a conversation with the variables that `apply_chat_template` sets.
    ///
    /// Messages and tools are taken for request data and not trusted, except for a message's role if it is one of
    /// `roles`: some templates build the control token of a turn from it. As in transformers, a message's reasoning is seen
    /// under `reasoning_content` and `thinking`, whichever of `reasoning_content`, `thinking` and `reasoning` it came by.
    ///
    /// - Parameters:
    ///   - messages: the conversation, objects with `role` and `content`. Contents are passed on as they are: null is null.
    ///   - tools: the tools on offer, or nil for none.
    ///   - addGenerationPrompt: whether the text shall end where the assistant's answer begins.
    ///   - variables: more variables, such as the model file's `bos_token` and `eos_token`, or options of a request.
    /// - Throws: `TemplateError`.
    public func render(
        messages: [JSONValue], tools: [JSONValue]? = nil, addGenerationPrompt: Bool, variables: [(String, TemplateValue)] = [],
        budget: TemplateBudget = .default
    ) throws(TemplateError) -> [TextPiece] {
        var context: [(String, TemplateValue)] = [
            ("messages", .list(messages.map { Self.message($0) })),
            ("tools", tools.map { .list($0.map { TemplateValue($0, isTrusted: false) }) } ?? .null),
            ("documents", .null),
            ("add_generation_prompt", .bool(addGenerationPrompt)),
        ]
        context += variables
        return try render(context, budget: budget)
    }

    /// The roles whose names are words of the protocol and not a client's text.
    public static let roles: Set<String> = ["system", "developer", "user", "assistant", "tool", "function", "ipython", "model"]

    /// The members of a message that hold the reasoning before an answer; the first that is there counts.
    static let reasoningNames = ["reasoning_content", "thinking", "reasoning"]

    private static func message(_ json: JSONValue) -> TemplateValue {
        guard case .dictionary(var members) = TemplateValue(json, isTrusted: false) else { return TemplateValue(json, isTrusted: false) }
        for index in members.indices where members[index].key == "role" {
            if case .string(let role, _) = members[index].value, roles.contains(role) {
                members[index].value = .string(role, isTrusted: true)
            }
        }
        let reasoning = reasoningNames.lazy.compactMap { name in
            members.first { $0.key == name && $0.value != .null }?.value
        }.first
        guard let reasoning else { return .dictionary(members) }
        if !members.contains(where: { $0.key == "thinking" }) {
            members.insert(TemplateValue.Member(key: "thinking", isKeyTrusted: true, value: reasoning), at: 0)
        }
        if let index = members.firstIndex(where: { $0.key == "reasoning_content" }) {
            members[index].value = reasoning
        } else {
            members.append(TemplateValue.Member(key: "reasoning_content", isKeyTrusted: true, value: reasoning))
        }
        return .dictionary(members)
    }
}
