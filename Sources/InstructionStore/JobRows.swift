/// A row of the table `fine_tuning_jobs`. What is JSON in it is the business of whoever wrote it.
public struct JobRow: Sendable, Equatable {
    /// In the order in which jobs were made; never reused. 0 before the row is entered.
    public var number = 0
    /// `ftjob-…`.
    public var id: String
    public var owner: String
    /// Seconds since 1970 UTC, like all times here.
    public var createdAt: Int
    /// What was asked for, as JSON.
    public var request: String
    /// A JSON object of strings; `nil` when the job has none.
    public var metadata: String?
    /// One of the words of OpenAI's API.
    public var status: String
    public var isPaused = false
    /// Why the job waits for the disk; `nil` when it does not.
    public var storage: String?
    /// What the request was resolved to, as JSON; set once, before the first step.
    public var plan: String?
    /// How often a process took the job up since its last snapshot.
    public var startsWithoutSnapshot = 0
    public var step = 0, stepCount = 0
    public var trainedTokenCount = 0
    public var startedAt: Int?, finishedAt: Int?, estimatedFinish: Int?
    /// The alias of the version that came of it, and that version as `name@number`.
    public var fineTunedModel: String?, adapter: String?
    /// The id of the file of metrics.
    public var resultFile: String?
    public var errorCode: String?, errorMessage: String?, errorParameter: String?

    public init(id: String, owner: String, createdAt: Int, request: String, metadata: String?, status: String) {
        self.id = id
        self.owner = owner
        self.createdAt = createdAt
        self.request = request
        self.metadata = metadata
        self.status = status
    }
}

/// A row of the table `fine_tuning_events`.
public struct JobEventRow: Sendable, Equatable {
    /// Ascending over all jobs; never reused. 0 before the row is entered.
    public var number = 0
    public var createdAt: Int
    /// `info`, `warn` or `error`.
    public var level: String
    /// `message` or `metrics`.
    public var type: String
    public var message: String
    /// A JSON object.
    public var data: String?
    /// The step that it tells of: when a run goes on from before that step, the event goes. `nil`: it stays.
    public var step: Int?

    public init(createdAt: Int, level: String, type: String, message: String, data: String? = nil, step: Int? = nil) {
        self.createdAt = createdAt
        self.level = level
        self.type = type
        self.message = message
        self.data = data
        self.step = step
    }
}

/// A row of the table `fine_tuning_checkpoints`: an adapter that a job published on its way.
public struct JobCheckpointRow: Sendable, Equatable {
    public var step: Int
    public var createdAt: Int
    /// The permanent alias that names its adapter as a model.
    public var alias: String
    /// The adapter's name and the version's number.
    public var adapter: String
    public var version: Int
    public var trainLoss: Double, trainAccuracy: Double
    /// `nil` without a validation set.
    public var validLoss: Double?, validAccuracy: Double?
    public var rewardMargin: Double?
    /// When its adapter was removed to keep the number of checkpoints small; `nil`: it is there.
    public var removedAt: Int?

    public init(
        step: Int, createdAt: Int, alias: String, adapter: String, version: Int, trainLoss: Double, trainAccuracy: Double, validLoss: Double?,
        validAccuracy: Double?, rewardMargin: Double?, removedAt: Int? = nil
    ) {
        self.step = step
        self.createdAt = createdAt
        self.alias = alias
        self.adapter = adapter
        self.version = version
        self.trainLoss = trainLoss
        self.trainAccuracy = trainAccuracy
        self.validLoss = validLoss
        self.validAccuracy = validAccuracy
        self.rewardMargin = rewardMargin
        self.removedAt = removedAt
    }
}

/// Which jobs a list shows, by what their makers noted on them.
public enum JobMetadataFilter: Sendable, Equatable {
    case any
    /// Jobs without metadata.
    case none
    /// Jobs that have all of these pairs.
    case pairs([String: String])
}
