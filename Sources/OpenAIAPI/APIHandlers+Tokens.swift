import HTTPServing
import JSON
import Tokenization

/// An answer of `/tokenize` or `/detokenize`.
struct TokenConversion: Sendable {
    var model: String
    var answer: JSONValue
    /// Names of unknown fields.
    var ignored: [String]
}

extension APIHandlers {
    /// `/tokenize` and `/detokenize`.
    func convert(_ request: APIRequest, route: APIRoute, on transport: isolated Transport) throws(APIError) {
        let owner = request.caller.owner
        try prepare(
            request, route: route, on: transport,
            work: { preparation, body throws(APIError) in route == .tokenize ? try preparation.tokenize(body, owner: owner) : try preparation.detokenize(body, owner: owner) },
            then: { (handlers: APIHandlers, conversion: TokenConversion, transport: isolated Transport) throws(APIError) in
                handlers.answer(
                    request, route: route, conversion.answer, model: conversion.model, ignored: conversion.ignored, on: transport)
            })
    }
}

extension RequestPreparation {
    /// Text to token ids, in llama.cpp's and vLLM's spelling.
    ///
    /// The body has one of `content` (llama.cpp: `add_special` is false and `parse_special` true unless said), `prompt` (vLLM:
    /// `add_special_tokens` is true unless said) and `messages` (a conversation, as chat would render it). With `with_pieces` each token is
    /// `{"id","piece"}`, where a piece that is no whole characters is an array of bytes.
    func tokenize(_ body: [UInt8], owner: String) throws(APIError) -> TokenConversion {
        var fields = RequestFields(try object(body))
        let target = try self.target(try fields.string("model", maximumBytes: 1024), owner: owner)
        let tokenizer = target.base.tokenizer
        let content = try fields.string("content", maximumBytes: .max)
        let prompt = try fields.string("prompt", maximumBytes: .max)
        let addSpecial = try fields.bool("add_special")
        let addSpecialTokens = try fields.bool("add_special_tokens")
        let parseSpecial = try fields.bool("parse_special") ?? true
        let withPieces = try fields.bool("with_pieces") ?? false
        var unknown: [String] = []
        let messages = fields.value("messages") == nil ? nil : try ChatMessage.list(&fields, unknown: &unknown)
        for parameter in UnsupportedParameter.chat where parameter.name != "add_special_tokens" { try fields.refuse(parameter) }
        guard [content != nil, prompt != nil, messages != nil].count(where: { $0 }) == 1 else {
            throw .missing("content", expected: "exactly one of content, prompt and messages")
        }
        let tokens: [Int32]
        if let messages {
            tokens = try target.base.tokens(of: messages, budget: templateBudget)
        } else {
            let adds = addSpecial ?? addSpecialTokens ?? (prompt != nil)
            tokens = tokenizer.encode(content ?? prompt ?? "", addSpecial: adds, parseSpecial: parseSpecial)
        }
        let list: [JSONValue] = tokens.map { id in
            guard withPieces else { return .integer(Int64(id)) }
            var bytes: [UInt8] = []
            tokenizer.appendBytes(of: id, to: &bytes, includeSpecial: true)
            let piece: JSONValue =
                String(validating: bytes, as: UTF8.self).map { .string($0) } ?? .array(bytes.map { .integer(Int64($0)) })
            return ["id": .integer(Int64(id)), "piece": piece]
        }
        return TokenConversion(
            model: target.name,
            answer: [
                "tokens": .array(list), "count": .integer(Int64(tokens.count)),
                "max_model_len": .integer(Int64(min(target.base.contextLength, engineLimits.contextLength))),
            ], ignored: fields.unread + unknown)
    }

    /// Token ids to text: `{"tokens":[…]}` gives `{"content","prompt"}`, llama.cpp's and vLLM's name for the same text.
    func detokenize(_ body: [UInt8], owner: String) throws(APIError) -> TokenConversion {
        var fields = RequestFields(try object(body))
        let target = try self.target(try fields.string("model", maximumBytes: 1024), owner: owner)
        guard let value = fields.value("tokens") else { throw .missing("tokens", expected: "an array of token ids") }
        guard let elements = value.array else { throw .invalidType("tokens", found: value, expected: "an array of token ids") }
        let tokenizer = target.base.tokenizer
        let tokens = try CompletionRequest.tokens(elements, path: "tokens", vocabularySize: tokenizer.vocabularySize)
        let text = JSONValue.string(tokenizer.decode(tokens, skipSpecial: false))
        return TokenConversion(model: target.name, answer: ["content": text, "prompt": text], ignored: fields.unread)
    }
}
