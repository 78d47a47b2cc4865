import Inference
import Synchronization

/// An engine that does nothing by itself: it keeps what it was asked and sends the events that a test says.
final class ScriptedEngine: GenerationService {
    struct Submission {
        let request: GenerationRequest
        let id: SequenceID
        let sink: any GenerationSink
    }

    struct State {
        var submissions: [Submission] = []
        var cancelled: [SequenceID] = []
        var paused: [SequenceID: Bool] = [:]
        /// How many more submissions succeed before `refusal` is thrown.
        var acceptances = Int.max
        var refusal = InferenceError(.queueFull, "the queue is full")
        var statistics = EngineStatistics()
    }

    let limits: GenerationLimits
    let state = Mutex(State())

    init(contextLength: Int = 512, maxQueued: Int = 256) {
        limits = GenerationLimits(contextLength: contextLength, vocabularySize: TestModel.vocabularySize, maxSequences: 8, maxQueued: maxQueued)
    }

    var submissions: [Submission] { state.withLock { $0.submissions } }
    var requests: [GenerationRequest] { submissions.map(\.request) }
    var cancelled: [SequenceID] { state.withLock { $0.cancelled } }
    var paused: [SequenceID: Bool] { state.withLock { $0.paused } }

    var statistics: EngineStatistics { state.withLock { $0.statistics } }

    func setStatistics(_ change: (inout EngineStatistics) -> Void) {
        state.withLock { change(&$0.statistics) }
    }

    func refuse(after acceptances: Int, with error: InferenceError) {
        state.withLock {
            $0.acceptances = acceptances
            $0.refusal = error
        }
    }

    func submit(_ request: GenerationRequest, as id: SequenceID, to sink: any GenerationSink) throws(InferenceError) {
        let refusal = state.withLock { state -> InferenceError? in
            guard state.acceptances > 0 else { return state.refusal }
            state.acceptances -= 1
            state.submissions.append(Submission(request: request, id: id, sink: sink))
            return nil
        }
        if let refusal { throw refusal }
    }

    func cancel(_ id: SequenceID) { state.withLock { $0.cancelled.append(id) } }
    func beat() {}
    func setPaused(_ id: SequenceID, _ paused: Bool) { state.withLock { $0.paused[id] = paused } }

    /// Delivers one step's events; `index` counts submissions.
    func step(_ events: [(index: Int, kind: GenerationEvent.Kind)]) {
        let submissions = submissions
        submissions[0].sink.deliver(events.map { GenerationEvent(sequence: submissions[$0.index].id, kind: $0.kind) })
    }

    /// One event in a step of its own.
    func emit(_ kind: GenerationEvent.Kind, to index: Int = 0) {
        step([(index, kind)])
    }

    /// A text event whose tokens are the bytes of the text.
    func text(_ text: String, to index: Int = 0) {
        emit(.text(text, tokens: TestModel.ids(text).map { GeneratedToken(id: $0, logprobs: nil) }), to: index)
    }

    /// A whole answer: started, one text event, finished.
    func answer(_ text: String, to index: Int = 0, reason: FinishReason = .stop, cached: Int = 0) {
        emit(.started(cachedTokens: cached), to: index)
        self.text(text, to: index)
        finish(index, reason: reason, cached: cached, completion: text.utf8.count)
    }

    func finish(_ index: Int = 0, reason: FinishReason = .stop, cached: Int = 0, completion: Int) {
        let prompt = submissions[index].request.prompt.count
        emit(.finished(reason, GenerationUsage(promptTokens: prompt, cachedTokens: cached, completionTokens: completion), stopString: nil), to: index)
    }
}
