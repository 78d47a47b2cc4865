import HTTPServing
import HTTPTypes
import InstructionStore
import JSON
import Logging
import Tuning

extension APIHandlers {
    func requireTuning() throws(APIError) -> any TuningService {
        guard let tuning else { throw .tuningDisabled }
        return tuning
    }

    /// Runs a call of the job service, with its errors as the client sees them; what only the operator may see is logged.
    func tuned<Value>(_ requestID: String, _ body: () throws(TuningError) -> Value) throws(APIError) -> Value {
        do {
            return try body()
        } catch {
            switch error.code {
            case .storage, .storageFull:
                logger.error("the job store failed", metadata: ["request_id": "\(requestID)", "cause": "\(error.message)"])
            default: break
            }
            throw APIError(error)
        }
    }

    /// Everything below `/v1/fine_tuning/jobs`.
    func serveJobs(_ request: APIRequest, route: APIRoute, id: String, on transport: isolated Transport) throws(APIError) {
        let tuning = try requireTuning()
        let (requestID, owner) = (request.requestID, request.caller.owner)
        switch route {
        case .createJob:
            try requireJSON(request)
            if isDraining { throw .shuttingDown }
            let wanted = try JobFields.request(preparation.object(request.body.joined()))
            try change(request, route: route, action: "create", id: nil, on: transport) { () throws(TuningError) in
                try tuning.create(wanted, owner: owner)
            }
        case .cancelJob:
            try change(request, route: route, action: "cancel", id: id, on: transport) { () throws(TuningError) in try tuning.cancel(id, owner: owner) }
        case .pauseJob:
            try change(request, route: route, action: "pause", id: id, on: transport) { () throws(TuningError) in try tuning.pause(id, owner: owner) }
        case .resumeJob:
            try change(request, route: route, action: "resume", id: id, on: transport) { () throws(TuningError) in try tuning.resume(id, owner: owner) }
        case .jobs:
            let query = try JobQuery(request, defaultLimit: 20, allowsMetadata: true)
            try look(request, route: route, on: transport) { () throws(APIError) in
                try self.tuned(requestID) { () throws(TuningError) in
                    JobObjects.list(
                        try tuning.jobs(owner: owner, after: query.after, limit: query.limit, metadata: query.metadata), JobObjects.job)
                }
            }
        case .job:
            try look(request, route: route, on: transport) { () throws(APIError) in
                try self.tuned(requestID) { () throws(TuningError) in JobObjects.job(try tuning.job(id, owner: owner)) }
            }
        case .jobEvents:
            let query = try JobQuery(request, defaultLimit: 20, allowsStream: true)
            if query.isStreamed {
                let after = try query.after.map { text throws(APIError) in
                    guard let number = JobEvent.number(text) else {
                        throw .invalidValue("after", "'after' names no event, expected the id of the last one that was read")
                    }
                    return number
                }
                return try follow(request, job: id, after: after ?? 0, tuning, on: transport)
            }
            try look(request, route: route, on: transport) { () throws(APIError) in
                try self.tuned(requestID) { () throws(TuningError) in
                    JobObjects.list(try tuning.events(of: id, owner: owner, after: query.after, limit: query.limit), JobObjects.event)
                }
            }
        case .jobCheckpoints:
            let query = try JobQuery(request, defaultLimit: 10)
            try look(request, route: route, on: transport) { () throws(APIError) in
                try self.tuned(requestID) { () throws(TuningError) in
                    JobObjects.list(
                        try tuning.checkpoints(of: id, owner: owner, after: query.after, limit: query.limit), cursors: true, JobObjects.checkpoint)
                }
            }
        default:
            preconditionFailure("\(route) is not below /v1/fine_tuning/jobs")
        }
    }

    private func look(
        _ request: APIRequest, route: APIRoute, on transport: isolated Transport, _ work: @escaping @Sendable () throws(APIError) -> JSONValue
    ) throws(APIError) {
        let request = request.withoutBody
        try perform(
            request, route: route, with: tuningCalls, on: transport, work: work,
            then: { (handlers: APIHandlers, value: JSONValue, transport: isolated Transport) throws(APIError) in
                handlers.answer(request, route: route, value, on: transport)
            })
    }

    /// A change whose answer is the job as it is afterwards. It is carried out also when the client leaves, and leaves one audit line either way.
    private func change(
        _ request: APIRequest, route: APIRoute, action: String, id: String?, on transport: isolated Transport,
        _ work: @escaping @Sendable () throws(TuningError) -> FineTuningJob
    ) throws(APIError) {
        if isDraining { throw .shuttingDown }
        let request = request.withoutBody
        try look(request, route: route, on: transport) { () throws(APIError) in
            do throws(APIError) {
                let job = try self.tuned(request.requestID, work)
                self.audit("job." + action, job.id, request: request, result: "ok")
                return JobObjects.job(job)
            } catch {
                // What names no job may be anything that a client has put in the place of an id.
                self.audit("job." + action, error.status == .notFound ? nil : id, request: request, result: error.code ?? "error")
                throw error
            }
        }
    }
}

/// What a query asks of a list.
struct JobQuery: Sendable {
    var after: String?
    var limit: Int
    var metadata = JobMetadataFilter.any
    var isStreamed = false

    static let limitRange = 1...1000

    init(_ request: APIRequest, defaultLimit: Int, allowsMetadata: Bool = false, allowsStream: Bool = false) throws(APIError) {
        limit = defaultLimit
        var pairs: [String: String] = [:]
        for (name, value) in request.query {
            switch name {
            case "after": after = value.isEmpty ? nil : value
            case "limit":
                guard let number = Int(value), Self.limitRange.contains(number) else {
                    throw .invalidValue("limit", "'limit' is '\(quoted(value))', expected an integer from 1 to \(Self.limitRange.upperBound)")
                }
                limit = number
            case "stream" where allowsStream:
                guard value == "true" || value == "false" else { throw .invalidValue("stream", "'stream' is '\(quoted(value))', expected true or false") }
                isStreamed = value == "true"
            case "metadata" where allowsMetadata:
                guard value == "null" else {
                    throw .invalidValue("metadata", "'metadata' is '\(quoted(value))', expected null, or metadata[key]=value for each pair that jobs must have")
                }
                metadata = .none
            default:
                guard allowsMetadata, name.hasPrefix("metadata["), name.hasSuffix("]") else { continue }
                guard pairs.count < JobRequest.metadataCount else {
                    throw .invalidValue("metadata", "'metadata' names more than \(JobRequest.metadataCount) pairs, expected at most as many as a job can have")
                }
                pairs[try QueryFields.metadataKey(name)] = value
            }
        }
        guard !pairs.isEmpty else { return }
        guard metadata == .any else { throw .invalidValue("metadata", "'metadata' is null and names pairs, expected one of the two") }
        metadata = .pairs(pairs)
    }
}
