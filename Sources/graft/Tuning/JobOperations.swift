import Adapters
import HTTP1
import InstructionStore
import JSON
import OpenAIAPI
import Training
import Tuning

/// What the command line does with jobs, on the store itself or through the server that holds it. Jobs, events and checkpoints are the API's JSON objects.
protocol JobOperations {
    /// Newest first.
    func list(limit: Int) throws -> [JSONValue]
    func show(_ id: String) throws -> JSONValue
    /// Newest first.
    func checkpoints(of id: String) throws -> [JSONValue]
    func change(_ id: String, _ change: JobChange) throws -> JSONValue
    /// Events after a number, oldest first.
    func events(of id: String, after number: Int) throws -> [JSONValue]
    /// Whether somebody works on jobs, so that waiting for news makes sense.
    var isWorking: Bool { get }
}

enum JobChange: String {
    case cancel, pause, resume
}

extension JSONValue {
    /// The number in an event's id, by which events are ordered.
    var eventNumber: Int { self["id"]?.string?.split(separator: "-").last.flatMap { Int($0) } ?? 0 }
    /// Whether a job has ended.
    var isFinalJob: Bool { ["succeeded", "failed", "cancelled"].contains(self["status"]?.string) }
}

/// The jobs of a store that this process holds.
struct LocalJobs: JobOperations {
    let service: any TuningService
    let isWorking: Bool
    /// Held as long as this works on it.
    private let home: AdapterHome
    private let owner = Owner.local

    init(_ service: any TuningService, holding home: AdapterHome, isWorking: Bool) {
        self.service = service
        self.home = home
        self.isWorking = isWorking
    }

    func list(limit: Int) throws -> [JSONValue] {
        try service.jobs(owner: owner, after: nil, limit: limit, metadata: .any).elements.map(JobObjects.job)
    }

    func show(_ id: String) throws -> JSONValue { JobObjects.job(try service.job(id, owner: owner)) }

    func checkpoints(of id: String) throws -> [JSONValue] {
        try service.checkpoints(of: id, owner: owner, after: nil, limit: 100).elements.map(JobObjects.checkpoint)
    }

    func change(_ id: String, _ change: JobChange) throws -> JSONValue {
        let job =
            switch change {
            case .cancel: try service.cancel(id, owner: owner)
            case .pause: try service.pause(id, owner: owner)
            case .resume: try service.resume(id, owner: owner)
            }
        return JobObjects.job(job)
    }

    func events(of id: String, after number: Int) throws -> [JSONValue] {
        try service.news(of: id, owner: owner, after: number, limit: 1000).events.map(JobObjects.event)
    }
}

/// Asks the running server.
struct RemoteJobs: JobOperations {
    let server: RunningServer
    let isWorking = true
    static let path = "/v1/fine_tuning/jobs"

    func list(limit: Int) throws -> [JSONValue] { try server.json("GET", "\(Self.path)?limit=\(limit)")["data"]?.array ?? [] }
    func show(_ id: String) throws -> JSONValue { try server.json("GET", path(id)) }
    func checkpoints(of id: String) throws -> [JSONValue] { try server.json("GET", path(id) + "/checkpoints?limit=100")["data"]?.array ?? [] }
    func change(_ id: String, _ change: JobChange) throws -> JSONValue { try server.json("POST", path(id) + "/" + change.rawValue) }

    func events(of id: String, after number: Int) throws -> [JSONValue] {
        // The API's pages go from the newest back.
        var found: [JSONValue] = []
        while true {
            let cursor = found.last?["id"]?.string.map { "&after=\($0)" } ?? ""
            let page = try server.json("GET", path(id) + "/events?limit=100" + cursor)
            let events = page["data"]?.array ?? []
            let news = events.filter { $0.eventNumber > number }
            found += news
            if news.count < events.count || events.isEmpty || page["has_more"]?.bool != true { return found.reversed() }
        }
    }

    private func path(_ id: String) -> String { "\(Self.path)/\(PercentCoding.encode(id))" }
}

/// The jobs of the data directory: opened here, or asked of the server that has it open.
func openJobs(_ options: JobOptions) throws -> any JobOperations {
    if let address = options.server { return RemoteJobs(server: try RunningServer(address: address, key: try options.base.access.key(), authorities: options.caFile)) }
    let (settings, engine) = try options.base.engineSettings()
    do {
        let home = try AdapterHome(try AdapterSettings(settings))
        let adapters = try home.registry(base: try adapterBase(engine))
        let queue = try JobQueue(
            store: home.store, adapters: adapters, files: FileStore(home.store), trainer: NoTrainer(),
            read: { _, _, _ throws(DatasetError) in throw DatasetError("Nothing is read here.") }, configuration: TuningConfiguration(directory: home.jobsDirectory))
        return LocalJobs(queue, holding: home, isWorking: false)
    } catch let error as DataDirectoryError {
        guard let holder = error.holder, let address = holder.address else { throw error }
        return RemoteJobs(server: try RunningServer(address: address, key: try options.base.access.key(), certificate: holder.certificate))
    }
}

/// Of a queue that is only looked at and changed: it needs no model in memory.
private struct NoTrainer: TrainingService {
    func memoryEstimate(for plan: TrainingPlan) -> Int { 0 }

    func start(_ plan: TrainingPlan, from snapshot: [UInt8]?, interruption: Interruption) throws(TrainingError) -> any TrainingRun {
        throw TrainingError(.unavailable, "this process does not train")
    }
}
