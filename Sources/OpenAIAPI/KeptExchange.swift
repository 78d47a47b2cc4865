import Inference
import InstructionStore
import JSON

/// Which chat completions are kept.
enum ExchangeKeeping: Sendable {
    case never
    /// Those with `store: true`.
    case onRequest
    /// All without `store: false`.
    case unlessRefused
}

/// What is kept of a request; its answer comes later.
struct ExchangeDraft: Sendable {
    /// The client has asked for it, and is told of the answer's end only when it is on disk.
    var isDurable: Bool
    /// JSON, as the client sent it.
    var messages: String
    var tools: String?
    var user: String?
    var metadata: [(key: String, value: String)]
    /// What OpenAI's object shows of how the answer was drawn.
    var parameters: JSONObject

    /// An end user's name as the store holds it: SQLite ends texts at a NUL.
    static func storable(_ user: String) -> String { user.replacing("\0", with: "\u{FFFD}") }

    /// Checks `store` and `metadata` in any case.
    init?(_ object: JSONObject, _ fields: inout RequestFields, options: GenerationOptions, keeping: ExchangeKeeping) throws(APIError) {
        let wish = try fields.bool("store")
        metadata = try MetadataFields.read(fields.value("metadata"))
        switch keeping {
        case .never: return nil
        case .onRequest: guard wish == true else { return nil }
        case .unlessRefused: guard wish != false else { return nil }
        }
        func text(_ key: String) -> String? {
            guard let value = object[key], value.array?.isEmpty == false else { return nil }
            return String(decoding: value.serialized(), as: UTF8.self)
        }
        isDurable = wish == true
        messages = text("messages") ?? "[]"
        tools = text("tools")
        user = options.stickyKey.map(Self.storable)
        parameters = JSONObject()
        for key in ["seed", "temperature", "top_p", "presence_penalty", "frequency_penalty", "service_tier", "tool_choice", "response_format"] {
            parameters[key] = object[key] ?? .null
        }
    }
}

/// A request and its answer, on their way to the disk.
struct KeptExchange: Sendable {
    static let prefix = "chatcmpl-"

    struct Choice: Sendable {
        var text: String
        var finish: FinishReason?
    }

    var id: String
    var owner: String
    var requestID: String
    var created: Int
    var target: ModelTarget
    var usage: GenerationUsage
    var choices: [Choice]
    var draft: ExchangeDraft

    /// Text for the store; not to be made on the server's thread.
    var stored: StoredExchange {
        var details = draft.parameters
        details["request_id"] = .string(requestID)
        details["system_fingerprint"] = .string(target.base.fingerprint)
        details["usage"] = [
            "prompt_tokens": .integer(Int64(usage.promptTokens)), "completion_tokens": .integer(Int64(usage.completionTokens)),
            "total_tokens": .integer(Int64(usage.promptTokens + usage.completionTokens)),
            "prompt_tokens_details": ["cached_tokens": .integer(Int64(usage.cachedTokens))],
            "completion_tokens_details": ["reasoning_tokens": 0],
        ]
        details["graft"] = [
            "base": .string(target.base.name), "base_digest": .string("sha256:" + target.base.digest),
            "adapters": .array(
                target.parts.map {
                    [
                        "name": .string($0.version.name), "version": .integer(Int64($0.version.number)),
                        "digest": .string("sha256:" + $0.version.digest), "scale": .number(Double($0.weight)),
                    ]
                }),
        ]
        let answers = choices.enumerated().map { index, choice -> JSONValue in
            [
                "index": .integer(Int64(index)),
                "message": [
                    "role": "assistant", "content": .string(choice.text), "refusal": .null, "tool_calls": .null, "function_call": .null,
                ],
                "finish_reason": .string(choice.finish == .length ? "length" : "stop"), "logprobs": .null,
            ]
        }
        return StoredExchange(
            id: id, owner: owner, createdAt: created, model: target.name, label: target.label, user: draft.user, messages: draft.messages,
            tools: draft.tools, choices: String(decoding: JSONValue.array(answers).serialized(), as: UTF8.self),
            details: String(decoding: JSONValue.object(details).serialized(), as: UTF8.self), metadata: draft.metadata)
    }
}
