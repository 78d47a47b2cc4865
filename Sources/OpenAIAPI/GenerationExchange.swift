import HTTPServing
import HTTPTypes
import Inference
import JSON

/// One request that the engine works on, and its response so far.
///
/// A state machine without clock, socket or engine: it takes the engine's events and gives the bytes and the steps of the response. Exactly
/// one terminal step comes out of it, whatever goes in. Confined to the server.
final class GenerationExchange {
    /// What is to be done with the response.
    enum Action {
        case respond(HTTPResponse, [UInt8])
        case start(HTTPResponse)
        case write([UInt8])
        case finish
    }

    /// How the exchange ended, for metrics and the log.
    enum Outcome {
        case completed
        /// `afterStart`: the client had its 200 already and got the error inside the stream.
        case failed(APIError, afterStart: Bool)
    }

    private enum Phase {
        /// Nothing was sent.
        case waiting
        case streaming
        case ended
    }

    /// Whether the exchange is kept.
    private enum Keeping {
        case no
        /// When the answer is complete.
        case due(ExchangeDraft)
        /// The answer is complete, and the end is told when it is kept.
        case underWay
    }

    struct Choice {
        let sequence: SequenceID
        /// Which prompt it answers.
        let prompt: Int
        var hasStarted = false
        var finish: FinishReason?
        var usage: GenerationUsage?
        /// Tokens so far.
        var generatedCount = 0
        /// Of an answer that is not streamed, or that is kept.
        var text = ""
        var tokenIDs: [Int32] = []
        var chatLogprobs: ChatLogprobs?
        var completionLogprobs: CompletionLogprobs?
        /// When its last token came.
        var lastToken: ContinuousClock.Instant?
    }

    let id: ExchangeID
    let requestID: String
    let receivedAt: ContinuousClock.Instant
    let caller: Caller
    let route: APIRoute
    let target: ModelTarget
    /// Tokens that the caller's key was charged beforehand.
    let reservation: Int
    let isStreamed: Bool
    let meters: ModelMeters
    private let adapterFields: HTTPFields
    /// What the caller's key had left when the request was let in.
    private let limitFields: HTTPFields
    private let promptTokenCount: Int
    var isCongested = false
    /// Set while a batch of events is worked on, so that an exchange is flushed once.
    var isTouched = false
    /// Events that wait until log-probabilities are written on another thread; `nil` when nothing is.
    var backlog: [(kind: GenerationEvent.Kind, choice: Int)]?

    private(set) var choices: [Choice] = []
    private(set) var outcome: Outcome?
    private let style: PreparedGeneration.Style
    private let includesUsage: Bool
    private let returnsTokenIDs: Bool
    private let ignored: [String]
    /// By prompt; kept only where the response shows them.
    private let promptTokens: [[Int32]]
    private let responseID: String
    private var keeping: Keeping
    private let created: Int
    private var phase = Phase.waiting
    private var isStartDue = false
    private var failure: APIError?
    private var unfinished: Int
    private var output: [UInt8] = []
    /// Everything of a chunk before the choice's index.
    private let chunkHead: [UInt8]

    init(
        _ prepared: PreparedGeneration, for request: APIRequest, route: APIRoute, reservation: Int, limits: HTTPFields, meters: ModelMeters, created: Int,
        timedID: String
    ) {
        id = request.exchange
        requestID = request.requestID
        receivedAt = request.receivedAt
        caller = request.caller
        self.reservation = reservation
        limitFields = limits
        promptTokenCount = prepared.promptTokenCount
        self.route = route
        self.meters = meters
        self.created = created
        target = prepared.target
        adapterFields = prepared.target.responseFields
        isStreamed = prepared.isStreamed
        style = prepared.style
        includesUsage = prepared.includesUsage
        returnsTokenIDs = prepared.returnsTokenIDs
        ignored = prepared.ignored
        unfinished = prepared.requests.count
        let isChat: Bool
        var echoes = false
        switch prepared.style {
        case .chat: isChat = true
        case .completion(let echo, _):
            isChat = false
            echoes = echo
        }
        responseID = (isChat ? KeptExchange.prefix : "cmpl-") + timedID
        keeping = prepared.draft.map { .due($0) } ?? .no
        let tokenizer = prepared.target.base.tokenizer
        choices.reserveCapacity(prepared.requests.count)
        for index in prepared.requests.indices {
            var choice = Choice(sequence: SequenceID(), prompt: index / prepared.choicesPerPrompt)
            if prepared.logprobs != nil {
                if isChat {
                    choice.chatLogprobs = ChatLogprobs(tokenizer)
                } else {
                    choice.completionLogprobs = CompletionLogprobs(tokenizer, withTokenIDs: prepared.returnsTokenIDs)
                }
            }
            choices.append(choice)
        }
        promptTokens =
            prepared.returnsTokenIDs || echoes
            ? stride(from: 0, to: prepared.requests.count, by: prepared.choicesPerPrompt).map { prepared.requests[$0].prompt } : []
        var head: [UInt8] = []
        head.append("data: ")
        Self.appendHead(
            id: responseID, object: isChat ? "chat.completion.chunk" : "text_completion", created: created, target: prepared.target, to: &head)
        head.append(",\"choices\":[{\"index\":")
        chunkHead = head
    }

    /// The sequences that the engine still works on.
    var liveSequences: [SequenceID] {
        outcome == nil ? choices.lazy.filter { $0.finish == nil }.map(\.sequence) : []
    }

    /// Sequences that are neither finished nor given up.
    var liveCount: Int { outcome == nil ? unfinished : 0 }

    /// Whether the client has the head of a stream, and not its end.
    var isStreaming: Bool { phase == .streaming }

    // MARK: - Events

    /// Takes one event of one choice. Returns whether the choice is over.
    func receive(_ kind: GenerationEvent.Kind, choice index: Int, now: ContinuousClock.Instant) -> Bool {
        guard outcome == nil, choices[index].finish == nil else { return false }
        switch kind {
        case .started:
            start(index)
        case .promptLogprobs(let entries):
            start(index)
            receivePromptLogprobs(entries, index)
        case .text(let text, let tokens):
            start(index)
            choices[index].generatedCount += tokens.count
            measure(index, tokens: tokens.count, now: now)
            receive(text, tokens, index)
        case .finished(let reason, let usage, _):
            start(index)
            choices[index].finish = reason
            choices[index].usage = usage
            unfinished -= 1
            if isStreamed { appendChunk(index, text: nil, finish: reason) }
            if unfinished == 0 { complete() }
            return true
        case .failed(let error):
            fail(APIError(error, param: route == .chat ? "messages" : "prompt"))
            return true
        }
        return false
    }

    /// Ends the exchange with an error; its sequences are the caller's to cancel.
    func fail(_ error: APIError) {
        guard outcome == nil else { return }
        failure = error
        outcome = .failed(error, afterStart: phase == .streaming || isStartDue)
    }

    private func start(_ index: Int) {
        guard !choices[index].hasStarted else { return }
        choices[index].hasStarted = true
        if isStreamed, phase == .waiting { isStartDue = true }
        switch style {
        case .chat:
            guard isStreamed else { return }
            output.append(contentsOf: chunkHead)
            output.appendInteger(index)
            output.append(",\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,\"finish_reason\":null}]")
            endChunk()
        case .completion(let echo, let prompts):
            guard echo else { return }
            let prompt = prompts[choices[index].prompt]
            if !isStreamed {
                choices[index].text = prompt
            } else if choices[index].completionLogprobs == nil {
                appendChunk(index, text: prompt, finish: nil)
            }
        }
    }

    private func receivePromptLogprobs(_ entries: [TokenLogprobs?], _ index: Int) {
        guard case .completion(true, let prompts) = style, choices[index].completionLogprobs != nil else { return }
        let prompt = choices[index].prompt
        choices[index].completionLogprobs?.append(prompt: promptTokens[prompt], entries, text: prompts[prompt])
        if isStreamed { appendChunk(index, text: prompts[prompt], finish: nil) }
    }

    // MARK: - Long prompts

    /// What it takes to write a prompt's log-probabilities on another thread: `nil` when that is not worth it.
    ///
    /// A hundred candidates for each of thousands of tokens take longer to write than the server's thread may be held up. While they are
    /// written, the exchange's events wait in `backlog`.
    func promptLogprobsToWriteElsewhere(
        _ kind: GenerationEvent.Kind, choice index: Int, threshold: Int
    ) -> (@Sendable () -> CompletionLogprobs)? {
        guard case .promptLogprobs(let entries) = kind, case .completion(true, let prompts) = style, outcome == nil,
            let empty = choices[index].completionLogprobs, let width = entries.last.map({ ($0?.top.count ?? 0) + 1 }),
            entries.count * width > threshold
        else { return nil }
        let tokens = promptTokens[choices[index].prompt]
        let text = prompts[choices[index].prompt]
        return {
            var logprobs = empty
            logprobs.append(prompt: tokens, entries, text: text)
            return logprobs
        }
    }

    /// Takes what was written elsewhere in place of the event.
    func receiveWrittenPromptLogprobs(_ logprobs: CompletionLogprobs, choice index: Int) {
        guard outcome == nil, case .completion(true, let prompts) = style else { return }
        start(index)
        choices[index].completionLogprobs = logprobs
        if isStreamed { appendChunk(index, text: prompts[choices[index].prompt], finish: nil) }
    }

    private func receive(_ text: String, _ tokens: [GeneratedToken], _ index: Int) {
        for token in tokens {
            choices[index].chatLogprobs?.append(token)
            choices[index].completionLogprobs?.append(token.id, token.logprobs)
        }
        if returnsTokenIDs { choices[index].tokenIDs.append(contentsOf: tokens.lazy.map(\.id)) }
        if case .due = keeping { choices[index].text += text }
        guard isStreamed else {
            if case .no = keeping { choices[index].text += text }
            return
        }
        let hasLogprobs = choices[index].chatLogprobs?.isEmpty == false || choices[index].completionLogprobs?.isEmpty == false
        if !text.isEmpty || hasLogprobs || !choices[index].tokenIDs.isEmpty { appendChunk(index, text: text, finish: nil) }
    }

    private func measure(_ index: Int, tokens: Int, now: ContinuousClock.Instant) {
        guard tokens > 0 else { return }
        if let last = choices[index].lastToken {
            let each = (now - last) / tokens
            for _ in 0..<tokens { meters.interToken.observe(each.inSeconds) }
        } else {
            let time = (now - receivedAt).inSeconds
            meters.timeToFirstToken.observe(time)
            for adapter in meters.adapters { adapter.timeToFirstToken.observe(time) }
        }
        choices[index].lastToken = now
    }

    private func complete() {
        if case .due(let draft) = keeping, draft.isDurable { return }
        if case .underWay = keeping { return }
        end()
    }

    /// What is to be kept, once, as soon as the answer is complete.
    func takeKept() -> KeptExchange? {
        guard case .due(let draft) = keeping, failure == nil, unfinished == 0 else { return nil }
        keeping = draft.isDurable ? .underWay : .no
        return KeptExchange(
            id: responseID, owner: caller.owner, requestID: requestID, created: created, target: target, usage: usage,
            choices: choices.map { KeptExchange.Choice(text: $0.text, finish: $0.finish) }, draft: draft)
    }

    /// The answer's end, which waited for it to be kept; or what prevented that.
    func finishKeeping(_ error: APIError?) {
        guard case .underWay = keeping, outcome == nil else { return }
        keeping = .no
        if let error { fail(error) } else { end() }
    }

    private func end() {
        outcome = .completed
        guard isStreamed else { return }
        if includesUsage {
            // The head of a chunk without its first choice.
            output.append(contentsOf: chunkHead.dropLast(#"{"index":"#.utf8.count))
            output.append("],\"usage\":")
            appendUsage(to: &output)
            output.append("}\n\n")
        }
        output.append("data: [DONE]\n\n")
    }

    /// What the caller's key is charged in the end: the prompts, and what was generated so far, also for a client that has left.
    var chargedTokenCount: Int {
        promptTokenCount + choices.reduce(0) { $0 + max($1.generatedCount, $1.usage?.completionTokens ?? 0) }
    }

    /// Prompt tokens count once for each prompt, however many answers it gets.
    var usage: GenerationUsage {
        var total = GenerationUsage(promptTokens: 0, cachedTokens: 0, completionTokens: 0)
        var last = -1
        for choice in choices {
            guard let usage = choice.usage else { continue }
            total.completionTokens += usage.completionTokens
            if choice.prompt != last {
                last = choice.prompt
                total.promptTokens += usage.promptTokens
                total.cachedTokens += usage.cachedTokens
            }
        }
        return total
    }

    // MARK: - Actions

    /// The steps that are due, in order; the caller carries them out at once.
    func takeActions(now: ContinuousClock.Instant) -> [Action] {
        guard phase != .ended else { return [] }
        guard isStreamed else {
            guard outcome != nil else { return [] }
            phase = .ended
            if let failure { return [.respond(head(of: failure, now: now), failure.body())] }
            return [.respond(head(contentType: ContentType.json, now: now), body())]
        }
        if let failure, phase == .waiting, !isStartDue {
            phase = .ended
            return [.respond(head(of: failure, now: now), failure.body())]
        }
        var actions: [Action] = []
        if isStartDue {
            isStartDue = false
            phase = .streaming
            var head = head(contentType: ContentType.eventStream, now: now)
            head.headerFields[.cacheControl] = "no-cache"
            // Proxies must not hold the pieces back.
            head.headerFields[.accelBuffering] = "no"
            actions.append(.start(head))
        }
        if let failure {
            output.append("data: {\"error\":")
            failure.appendObject(to: &output)
            output.append("}\n\n")
        }
        if !output.isEmpty {
            actions.append(.write(output))
            output = []
        }
        if outcome != nil {
            phase = .ended
            actions.append(.finish)
        }
        return actions
    }

    private func head(contentType: String, now: ContinuousClock.Instant) -> HTTPResponse {
        var head = HTTPResponse(status: .ok, headerFields: [.contentType: contentType])
        head.headerFields.append(contentsOf: adapterFields)
        decorate(&head, now: now)
        return head
    }

    private func head(of error: APIError, now: ContinuousClock.Instant) -> HTTPResponse {
        var head = error.head()
        decorate(&head, now: now)
        return head
    }

    private func decorate(_ head: inout HTTPResponse, now: ContinuousClock.Instant) {
        head.headerFields.append(contentsOf: limitFields)
        head.headerFields[.openAIProcessingTime] = String(max(0, Int((now - receivedAt).inSeconds * 1000)))
        if !ignored.isEmpty { head.headerFields[.ignoredParameters] = headerList(ignored) }
    }
}

// MARK: - JSON

extension GenerationExchange {
    private static func appendHead(id: String, object: StaticString, created: Int, target: ModelTarget, to out: inout [UInt8]) {
        out.append("{\"id\":")
        appendJSONString(id, to: &out)
        out.append(",\"object\":\"")
        out.append(object)
        out.append("\",\"created\":")
        out.appendInteger(created)
        out.append(",\"model\":")
        appendJSONString(target.name, to: &out)
        out.append(",\"system_fingerprint\":")
        appendJSONString(target.base.fingerprint, to: &out)
    }

    /// One chunk of one choice: text, or with `text` nil the end.
    private func appendChunk(_ index: Int, text: String?, finish: FinishReason?) {
        output.append(contentsOf: chunkHead)
        output.appendInteger(index)
        switch style {
        case .chat:
            if let text {
                output.append(",\"delta\":{\"content\":")
                appendJSONString(text, to: &output)
                output.append("},\"logprobs\":")
            } else {
                output.append(",\"delta\":{},\"logprobs\":")
            }
        case .completion:
            output.append(",\"text\":")
            appendJSONString(text ?? "", to: &output)
            output.append(",\"logprobs\":")
        }
        appendLogprobs(of: index, orNull: true, to: &output)
        appendFinish(finish, to: &output)
        if returnsTokenIDs {
            output.append(",\"token_ids\":")
            output.appendIntegers(choices[index].tokenIDs)
            choices[index].tokenIDs.removeAll(keepingCapacity: true)
        }
        output.append("}]")
        endChunk()
    }

    /// Everything of a chunk after its choices.
    private func endChunk() {
        output.append(includesUsage ? ",\"usage\":null}\n\n" : "}\n\n")
    }

    /// - Parameter orNull: whether an empty list is written as null.
    private func appendLogprobs(of index: Int, orNull: Bool, to out: inout [UInt8]) {
        if let isEmpty = choices[index].chatLogprobs?.isEmpty, !(isEmpty && orNull) {
            choices[index].chatLogprobs?.flush(to: &out)
        } else if let isEmpty = choices[index].completionLogprobs?.isEmpty, !(isEmpty && orNull) {
            choices[index].completionLogprobs?.flush(to: &out)
        } else {
            out.append("null")
        }
    }

    private func appendFinish(_ finish: FinishReason?, to out: inout [UInt8]) {
        switch finish {
        case nil: out.append(",\"finish_reason\":null")
        case .stop: out.append(",\"finish_reason\":\"stop\"")
        case .length: out.append(",\"finish_reason\":\"length\"")
        }
    }

    private func appendUsage(to out: inout [UInt8]) {
        let usage = usage
        out.append("{\"prompt_tokens\":")
        out.appendInteger(usage.promptTokens)
        out.append(",\"completion_tokens\":")
        out.appendInteger(usage.completionTokens)
        out.append(",\"total_tokens\":")
        out.appendInteger(usage.promptTokens + usage.completionTokens)
        out.append(",\"prompt_tokens_details\":{\"cached_tokens\":")
        out.appendInteger(usage.cachedTokens)
        out.append("},\"completion_tokens_details\":{\"reasoning_tokens\":0}}")
    }

    /// The whole response of a request that is not streamed.
    private func body() -> [UInt8] {
        var out: [UInt8] = []
        let isChat = if case .chat = style { true } else { false }
        Self.appendHead(
            id: responseID, object: isChat ? "chat.completion" : "text_completion", created: created, target: target, to: &out)
        out.append(",\"choices\":[")
        for index in choices.indices {
            out.append(index > 0 ? ",{\"index\":" : "{\"index\":")
            out.appendInteger(index)
            if isChat {
                out.append(",\"message\":{\"role\":\"assistant\",\"content\":")
                appendJSONString(choices[index].text, to: &out)
                out.append(",\"refusal\":null},\"logprobs\":")
            } else {
                out.append(",\"text\":")
                appendJSONString(choices[index].text, to: &out)
                out.append(",\"logprobs\":")
            }
            appendLogprobs(of: index, orNull: false, to: &out)
            appendFinish(choices[index].finish, to: &out)
            if returnsTokenIDs {
                out.append(",\"token_ids\":")
                out.appendIntegers(choices[index].tokenIDs)
                if !isChat {
                    out.append(",\"prompt_token_ids\":")
                    out.appendIntegers(promptTokens[choices[index].prompt])
                }
            }
            out.append("}")
        }
        out.append("],\"usage\":")
        appendUsage(to: &out)
        if isChat, returnsTokenIDs {
            out.append(",\"prompt_token_ids\":")
            out.appendIntegers(promptTokens[0])
        }
        out.append("}")
        return out
    }
}

extension ModelTarget {
    /// What tells the client which adapters made the answer; lists for blends, nothing for the base alone.
    var responseFields: HTTPFields {
        var fields = HTTPFields()
        guard !parts.isEmpty else { return fields }
        func list(_ text: (Part) -> String) -> String { parts.map(text).joined(separator: ", ") }
        fields[.graftAdapter] = list { $0.version.name }
        fields[.graftAdapterVersion] = list { String($0.version.number) }
        fields[.graftAdapterDigest] = list { "sha256:" + $0.version.digest }
        if isBlend { fields[.graftAdapterScale] = list { $0.weight.description } }
        return fields
    }
}

/// Field names made fit for a header: other bytes than letters, digits and `_.-` are percent-encoded, long names cut and long lists counted.
func headerList(_ names: [String]) -> String {
    let shown = names.prefix(20).map { name in
        var text = ""
        for byte in name.utf8.prefix(64) {
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"),
                UInt8(ascii: "_"), UInt8(ascii: "."), UInt8(ascii: "-"), UInt8(ascii: "["), UInt8(ascii: "]"):
                text.unicodeScalars.append(Unicode.Scalar(byte))
            default:
                let digits = String(byte, radix: 16, uppercase: true)
                text += digits.count == 1 ? "%0\(digits)" : "%\(digits)"
            }
        }
        return text
    }
    return shown.joined(separator: ", ") + (names.count > 20 ? ", and \(names.count - 20) more" : "")
}
