import InstructionStore

/// Figures for `/metrics`.
public struct TuningStatistics: Sendable, Equatable {
    /// Jobs by status, all owners together.
    public var jobs: [JobState.Status: Int] = [:]
    /// Since the start: optimiser steps, tokens that went through the model for training, and those of them that the loss counted.
    public var steps: UInt64 = 0
    public var tokens: UInt64 = 0, trainedTokens: UInt64 = 0

    public init() {}
}

/// That a job has ended, for whoever keeps account of what a server changes.
public struct JobEnd: Sendable, Equatable {
    public var id: String
    public var owner: String
    /// `succeeded`, `failed` or `cancelled`.
    public var status: JobState.Status
    /// What it has published, as `name@number`.
    public var adapter: String?
    /// Why it failed.
    public var errorCode: String?
}

/// What is new about a job for somebody who follows it.
public struct JobNews: Sendable {
    /// Oldest first.
    public var events: [JobEvent]
    /// Nothing will come after these: the job has ended.
    public var isOver: Bool

    public init(events: [JobEvent], isOver: Bool) {
        self.events = events
        self.isOver = isOver
    }
}

/// Ends an observation when it is let go of.
public final class JobObservation: Sendable {
    private let end: @Sendable () -> Void

    public init(_ end: @escaping @Sendable () -> Void) {
        self.end = end
    }

    deinit {
        end()
    }
}

/// Fine-tuning jobs as the API and the command line see them. `JobQueue` is the one implementation; tests may bring another.
///
/// Methods marked *blocking* read and write files; call them on a `BlockingExecutor`. What they change is durable when they return.
public protocol TuningService: AnyObject, Sendable {
    // MARK: Changing (all blocking)

    /// - Throws: `invalidArgument` and `tooLarge`; `notFound` with the parameter `model`.
    func create(_ request: JobRequest, owner: String) throws(TuningError) -> FineTuningJob
    func cancel(_ id: String, owner: String) throws(TuningError) -> FineTuningJob
    func pause(_ id: String, owner: String) throws(TuningError) -> FineTuningJob
    func resume(_ id: String, owner: String) throws(TuningError) -> FineTuningJob

    // MARK: Looking (all blocking)

    func job(_ id: String, owner: String) throws(TuningError) -> FineTuningJob
    /// Newest first.
    /// - Parameter after: the id of the job before the first one wanted.
    func jobs(owner: String, after: String?, limit: Int, metadata: JobMetadataFilter) throws(TuningError) -> JobPage<FineTuningJob>
    /// Newest first.
    func events(of id: String, owner: String, after: String?, limit: Int) throws(TuningError) -> JobPage<JobEvent>
    /// Newest first.
    func checkpoints(of id: String, owner: String, after: String?, limit: Int) throws(TuningError) -> JobPage<JobCheckpoint>
    /// The events after a number.
    func news(of id: String, owner: String, after number: Int, limit: Int) throws(TuningError) -> JobNews

    // MARK: Following

    /// Calls `body`, on any thread, whenever there is news of a job, and when the service ends. It must not block.
    func observe(_ id: String, _ body: @escaping @Sendable () -> Void) -> JobObservation
    var statistics: TuningStatistics { get }
}
