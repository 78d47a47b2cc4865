import InstructionStore
import JSON
import OpenAIAPI
import Synchronization
import Testing
import Tuning

/// Jobs in memory, moved by tests.
final class FakeTuning: TuningService {
    struct State {
        var jobs: [FineTuningJob] = []
        var events: [String: [JobEvent]] = [:]
        var checkpoints: [String: [JobCheckpoint]] = [:]
        var lastEvent = 0
        /// Every request for a job that came.
        var requests: [JobRequest] = []
        /// What lists were asked for.
        var filters: [JobMetadataFilter] = []
        /// Every blocking call throws this.
        var failure: TuningError?
        var observers: [Int: (job: String, body: @Sendable () -> Void)] = [:]
        var lastObserver = 0
        /// Readings of news, by what they came after.
        var readings: [Int] = []
        var statistics = TuningStatistics()
    }

    let state = Mutex(State())

    private func enter() throws(TuningError) {
        if let failure = state.withLock({ $0.failure }) { throw failure }
    }

    // MARK: For tests

    var observerCount: Int { state.withLock { $0.observers.count } }

    func add(_ message: String, to id: String, kind: JobEvent.Kind = .message, data: JSONObject = JSONObject()) {
        let observers = state.withLock { state in
            state.lastEvent += 1
            state.events[id, default: []].append(
                JobEvent(number: state.lastEvent, createdAt: 1_800_000_000 + state.lastEvent, level: .info, kind: kind, message: message, data: data))
            return state.observers.values.filter { $0.job == id }.map(\.body)
        }
        for observer in observers { observer() }
    }

    func edit(_ id: String, _ change: (inout FineTuningJob) -> Void) {
        let observers = state.withLock { state in
            if let index = state.jobs.firstIndex(where: { $0.id == id }) { change(&state.jobs[index]) }
            return state.observers.values.filter { $0.job == id }.map(\.body)
        }
        for observer in observers { observer() }
    }

    /// As a service does that shuts down.
    func tellAll() {
        for observer in state.withLock({ $0.observers.values.map(\.body) }) { observer() }
    }

    // MARK: TuningService

    func create(_ request: JobRequest, owner: String) throws(TuningError) -> FineTuningJob {
        try enter()
        return state.withLock { state in
            state.requests.append(request)
            var request = request
            request.seed = request.seed ?? 77
            let job = FineTuningJob(id: "ftjob-\(state.jobs.count + 1)", owner: owner, request: request, createdAt: 1_800_000_000)
            state.jobs.append(job)
            return job
        }
    }

    private func change(_ id: String, _ owner: String, _ happening: JobState.Happening) throws(TuningError) -> FineTuningJob {
        let state = try job(id, owner: owner).state.after(happening)
        edit(id) { $0.state = state }
        return try job(id, owner: owner)
    }

    func cancel(_ id: String, owner: String) throws(TuningError) -> FineTuningJob { try change(id, owner, .cancelled) }
    func pause(_ id: String, owner: String) throws(TuningError) -> FineTuningJob { try change(id, owner, .paused) }
    func resume(_ id: String, owner: String) throws(TuningError) -> FineTuningJob { try change(id, owner, .resumed) }

    func job(_ id: String, owner: String) throws(TuningError) -> FineTuningJob {
        try enter()
        guard let job = state.withLock({ $0.jobs.first { $0.id == id && $0.owner == owner } }) else { throw TuningError(.notFound, "there is no fine-tuning job of this id") }
        return job
    }

    private func page<Element>(_ all: [Element], after: String?, limit: Int, id: (Element) -> String) throws(TuningError) -> JobPage<Element> {
        var rest = Array(all.reversed())[...]
        if let after {
            guard let index = rest.firstIndex(where: { id($0) == after }) else { throw TuningError(.invalidArgument, "'after' names nothing", parameter: "after") }
            rest = rest[(index + 1)...]
        }
        return JobPage(elements: Array(rest.prefix(limit)), hasMore: rest.count > limit)
    }

    func jobs(owner: String, after: String?, limit: Int, metadata: JobMetadataFilter) throws(TuningError) -> JobPage<FineTuningJob> {
        try enter()
        state.withLock { $0.filters.append(metadata) }
        return try page(state.withLock { $0.jobs.filter { $0.owner == owner } }, after: after, limit: limit) { $0.id }
    }

    func events(of id: String, owner: String, after: String?, limit: Int) throws(TuningError) -> JobPage<JobEvent> {
        _ = try job(id, owner: owner)
        return try page(state.withLock { $0.events[id] ?? [] }, after: after, limit: limit) { $0.id }
    }

    func checkpoints(of id: String, owner: String, after: String?, limit: Int) throws(TuningError) -> JobPage<JobCheckpoint> {
        _ = try job(id, owner: owner)
        return try page(state.withLock { $0.checkpoints[id] ?? [] }, after: after, limit: limit) { $0.id }
    }

    func news(of id: String, owner: String, after number: Int, limit: Int) throws(TuningError) -> JobNews {
        let job = try job(id, owner: owner)
        let events = state.withLock { state in
            state.readings.append(number)
            return Array((state.events[id] ?? []).filter { $0.number > number }.prefix(limit))
        }
        return JobNews(events: events, isOver: job.status.isFinal && events.count < limit)
    }

    func observe(_ id: String, _ body: @escaping @Sendable () -> Void) -> JobObservation {
        let key = state.withLock { state in
            state.lastObserver += 1
            state.observers[state.lastObserver] = (id, body)
            return state.lastObserver
        }
        return JobObservation { [weak self] in self?.state.withLock { $0.observers[key] = nil } }
    }

    var statistics: TuningStatistics { state.withLock { $0.statistics } }
}
