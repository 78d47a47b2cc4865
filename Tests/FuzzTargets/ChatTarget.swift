import Inference
import JSON
import OpenAIAPI
import Tokenization

private let preparation = RequestPreparation(
    models: FixedModels([
        ServedModel(
            name: "tiny", aliases: ["small"], tokenizer: TestVocabulary.chat.tokenizer, chatTemplate: TestVocabulary.chat.chatTemplate, contextLength: 512,
            created: 1_700_000_000, digest: String(repeating: "0123456789abcdef", count: 4))
    ]), engineLimits: GenerationLimits(contextLength: 512, vocabularySize: TestVocabulary.chat.tokenizer.vocabularySize, maxSequences: 4, maxQueued: 32),
    limits: RequestLimits())

private let startOfTurn = TestVocabulary.chat.tokenizer.encode("<|im_start|>", addSpecial: false, parseSpecial: true)

/// Promises: what the JSON writer writes parses back to the same value, to the same bytes; a request is refused with a 4xx and a code, or becomes work that
/// fits the context; a conversation has as many turns as messages, whatever they say.
func fuzzChat(_ input: [UInt8]) throws(FuzzFinding) {
    let value: JSONValue?
    do throws(JSONError) {
        value = try withExactCopy(of: input[...]) { bytes throws(JSONError) in try JSONValue(parsing: bytes) }
    } catch {
        value = nil
        try promise(error.offset >= 0 && error.offset <= input.count, "a mistake at offset \(error.offset) of \(input.count)")
    }
    if let value { try checkWriting(of: value) }

    let prepared: PreparedGeneration
    do throws(APIError) {
        prepared = try preparation.chat(input, owner: "fuzz")
    } catch {
        try promise((400..<500).contains(error.status.code), "status \(error.status.code) for \(error.message)")
        return try promise(!error.message.isEmpty && error.message.utf8.count < 4000, "a message of \(error.message.utf8.count) bytes")
    }
    try promise((1...32).contains(prepared.requests.count), "\(prepared.requests.count) answers")
    let messages = value?["messages"]?.array?.count ?? 0
    for request in prepared.requests {
        try promise(!request.prompt.isEmpty && request.prompt.count < 512, "a prompt of \(request.prompt.count) tokens")
        try promise((request.maxTokens ?? 1) > 0, "\(request.maxTokens ?? 0) tokens are asked for")
        try promise(request.stop.allSatisfy { !$0.isEmpty }, "an empty stop string")
        let sampling = request.sampling
        for number in [sampling.temperature, sampling.topP, sampling.minP, sampling.presencePenalty, sampling.frequencyPenalty, sampling.repetitionPenalty] {
            try promise(number.isFinite, "the parameter \(number)")
        }
        try promise(request.prompt.count { $0 == startOfTurn[0] } == messages + 1, "a prompt of \(messages) messages with other turns")
    }
}

private func checkWriting(of value: JSONValue) throws(FuzzFinding) {
    let written = value.serialized()
    let again: JSONValue
    do throws(JSONError) {
        again = try JSONValue(parsing: written)
    } catch {
        throw FuzzFinding("what is written does not parse: \(error)")
    }
    try promise(again == value, "what is written reads back as another value")
    try promise(again.serialized() == written, "what is read back is written in another way")
    try promise(!written.contains(0x0A) && !written.contains(0x0D), "a line end in compact JSON")
}
