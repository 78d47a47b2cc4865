import Executors
import Inference
import Synchronization

/// An engine that needs no model: it answers every prompt with the same sentence, a byte-level token a step, on threads of its own.
/// `max_tokens`, stop strings, log-probabilities, `ignore_eos`, cancelling and pausing work as in a real one.
final class ParrotEngine: GenerationService {
    static let sentence = "Polly wants a crâcker, and says so: hello. "

    private struct State {
        var live: Set<SequenceID> = []
        var paused: Set<SequenceID> = []
        var cancelled: [SequenceID] = []
        var statistics = EngineStatistics()
    }

    let limits: GenerationLimits
    private let state = Mutex(State())
    private let threads = BlockingExecutor(name: "parrot", width: 8, capacity: 64)

    init(contextLength: Int = 4096) {
        limits = GenerationLimits(contextLength: contextLength, vocabularySize: 259, maxSequences: 8, maxQueued: 64)
    }

    /// A parrot can always speak.
    var statistics: EngineStatistics {
        var statistics = state.withLock { $0.statistics }
        statistics.lastStep = .now
        return statistics
    }
    /// Sequences that somebody still waits for.
    var liveCount: Int { state.withLock { $0.live.count } }
    var cancelledCount: Int { state.withLock { $0.cancelled.count } }
    var pausedCount: Int { state.withLock { $0.paused.count } }

    func submit(_ request: GenerationRequest, as id: SequenceID, to sink: any GenerationSink) throws(InferenceError) {
        state.withLock { _ = $0.live.insert(id) }
        do throws(ExecutorError) {
            try threads.submit { self.speak(request, id, sink) }
        } catch {
            throw InferenceError(.queueFull, error.message)
        }
    }

    func cancel(_ id: SequenceID) {
        state.withLock {
            if $0.live.remove(id) != nil { $0.cancelled.append(id) }
            $0.paused.remove(id)
        }
    }

    func setPaused(_ id: SequenceID, _ paused: Bool) {
        // A sequence that has ended here may still look alive to a server that has not got its last events.
        state.withLock {
            if paused, $0.live.contains(id) { $0.paused.insert(id) } else { $0.paused.remove(id) }
        }
    }

    func beat() {}
    func shutdown() { threads.shutdown() }

    /// The log-probabilities of any token: its own is the second best.
    private func logprobs(_ token: Int32, _ count: Int?) -> TokenLogprobs? {
        count.map { count in
            let top = (0..<count).map { rank in
                TokenProbability(token: rank == 1 ? token : (token + Int32(rank) + 1) % 256, logprob: -0.5 - Float(rank))
            }
            return TokenLogprobs(logprob: -1.5, top: top)
        }
    }

    private func speak(_ request: GenerationRequest, _ id: SequenceID, _ sink: any GenerationSink) {
        func deliver(_ kind: GenerationEvent.Kind) { sink.deliver([GenerationEvent(sequence: id, kind: kind)]) }
        deliver(.started(cachedTokens: 0))
        if request.wantsPromptLogprobs {
            deliver(.promptLogprobs(request.prompt.enumerated().map { $0.offset == 0 ? nil : logprobs($0.element, request.logprobs) }))
        }
        let limit = request.maxTokens ?? limits.contextLength - request.prompt.count
        var spoken = ""
        var waiting: [GeneratedToken] = []
        var count = 0
        var reason = FinishReason.length
        var stopString: String?
        let characters = Array(Self.sentence)
        speaking: while count < limit {
            let character = characters[spoken.count % characters.count]
            spoken.append(character)
            for byte in String(character).utf8 where count < limit {
                waiting.append(GeneratedToken(id: Int32(byte), logprobs: logprobs(Int32(byte), request.logprobs)))
                count += 1
            }
            if let stop = request.stop.first(where: { spoken.hasSuffix($0) }) {
                stopString = stop
                reason = .stop
                break speaking
            }
            // A tail that may become a stop string is held back, as a real engine does.
            let longest = request.stop.map(\.count).max() ?? 0
            if longest == 0 {
                deliver(.text(String(character), tokens: waiting))
                waiting = []
            }
            if !request.ignoresEndOfGeneration, spoken.count == characters.count {
                reason = .stop
                break
            }
            while true {
                let (isLive, isPaused) = state.withLock { ($0.live.contains(id), $0.paused.contains(id)) }
                if !isLive { return }
                if !isPaused { break }
                // A test double may doze where an engine would work for others.
                nap()
            }
        }
        if !request.stop.isEmpty {
            let text = stopString.map { String(spoken.dropLast($0.count)) } ?? spoken
            deliver(.text(text, tokens: waiting))
        }
        state.withLock { state in
            _ = state.live.remove(id)
            state.paused.remove(id)
            state.statistics.steps += 1
        }
        let usage = GenerationUsage(promptTokens: request.prompt.count, cachedTokens: 0, completionTokens: count)
        deliver(.finished(reason, usage, stopString: stopString))
    }
}
