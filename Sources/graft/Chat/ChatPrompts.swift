import Inference
import Modeling
import OpenAIAPI
import Tokenization

/// Makes the engine's requests from conversations, in the way the server makes them.
struct ChatPrompts: Sendable {
    let model: ServedModel
    let sampling: SamplingParameters
    let maxTokens: Int?
    var stop: [String] = []
    var adapters = AdapterSet.none

    /// The prompt and one token of an answer do not fit.
    struct Overflow: Error {
        let promptTokens: Int
    }

    /// - Throws: `Overflow`, or `CommandError` if the model's template refuses the conversation.
    func request(_ messages: [Conversation.Message]) throws -> GenerationRequest {
        let tokens: [Int32]
        do {
            tokens = try model.tokens(of: messages.map { ChatMessage(role: $0.speaker.role, content: $0.text) })
        } catch {
            throw CommandError(error.message)
        }
        return try request(tokens, stop: model.chatTemplate == nil ? stop + [PlainTranscript.stop] : stop)
    }

    /// Goes on with a text as it is. What it spells as a control token is one.
    func request(continuing text: String) throws -> GenerationRequest {
        try request(model.tokenizer.encode(text, addSpecial: true, parseSpecial: true), stop: stop)
    }

    private func request(_ tokens: [Int32], stop: [String]) throws -> GenerationRequest {
        guard !tokens.isEmpty else { throw CommandError("the prompt is empty, expected some text") }
        guard tokens.count < model.contextLength else { throw Overflow(promptTokens: tokens.count) }
        var request = GenerationRequest(prompt: tokens)
        request.sampling = sampling
        request.maxTokens = maxTokens.map { min($0, model.contextLength - tokens.count) }
        request.stop = stop
        request.adapters = adapters
        request.modelName = model.name
        return request
    }
}

extension Conversation.Speaker {
    fileprivate var role: ChatMessage.Role {
        switch self {
        case .system: .system
        case .user: .user
        case .assistant: .assistant
        }
    }
}
