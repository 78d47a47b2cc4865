import InstructionStore
import JSON

/// A job as it stands.
public struct FineTuningJob: Sendable, Equatable {
    public struct Failure: Error, Sendable, Equatable {
        /// A word for programs.
        public var code: String
        public var message: String
        /// The request's field.
        public var parameter: String?

        public init(code: String, message: String, parameter: String? = nil) {
            self.code = code
            self.message = message
            self.parameter = parameter
        }
    }

    /// `ftjob-…`.
    public var id: String
    public var owner: String
    /// As it was asked for, with the seed filled in.
    public var request: JobRequest
    public var state: JobState
    /// What the request was resolved to; `nil` before the files were read.
    public var plan: JobPlan?
    /// Seconds since 1970 UTC, like all times here.
    public var createdAt: Int
    public var startedAt: Int?, finishedAt: Int?, estimatedFinish: Int?
    /// Optimiser steps that are done, of all; 0 of 0 before the first start.
    public var step: Int, stepCount: Int
    public var trainedTokenCount: Int
    /// The alias of what came of it, and the version itself as `name@number`.
    public var fineTunedModel: String?, adapter: String?
    /// Ids.
    public var resultFiles: [String]
    public var failure: Failure?

    public var status: JobState.Status { state.status }

    public init(
        id: String, owner: String, request: JobRequest, state: JobState = JobState(), plan: JobPlan? = nil, createdAt: Int, startedAt: Int? = nil,
        finishedAt: Int? = nil, estimatedFinish: Int? = nil, step: Int = 0, stepCount: Int = 0, trainedTokenCount: Int = 0, fineTunedModel: String? = nil,
        adapter: String? = nil, resultFiles: [String] = [], failure: Failure? = nil
    ) {
        self.id = id
        self.owner = owner
        self.request = request
        self.state = state
        self.plan = plan
        self.createdAt = createdAt
        self.startedAt = startedAt
        self.finishedAt = finishedAt
        self.estimatedFinish = estimatedFinish
        self.step = step
        self.stepCount = stepCount
        self.trainedTokenCount = trainedTokenCount
        self.fineTunedModel = fineTunedModel
        self.adapter = adapter
        self.resultFiles = resultFiles
        self.failure = failure
    }
}

/// Something that happened to a job.
public struct JobEvent: Sendable, Equatable {
    public enum Level: String, Sendable {
        case info, warn, error
    }

    public enum Kind: String, Sendable {
        case message, metrics
    }

    /// Ascending.
    public var number: Int
    public var createdAt: Int
    public var level: Level
    public var kind: Kind
    public var message: String
    public var data: JSONObject

    /// `ftevent-…`.
    public var id: String { Self.prefix + String(number) }

    public init(number: Int, createdAt: Int, level: Level, kind: Kind, message: String, data: JSONObject = JSONObject()) {
        self.number = number
        self.createdAt = createdAt
        self.level = level
        self.kind = kind
        self.message = message
        self.data = data
    }

    private static let prefix = "ftevent-"

    /// The number in an id; `nil` for what is no event's id.
    package static func number(_ id: String) -> Int? {
        guard id.hasPrefix(prefix), let number = Int(id.dropFirst(prefix.count)), number > 0, prefix + String(number) == id else { return nil }
        return number
    }
}

/// An adapter that a job published on its way.
public struct JobCheckpoint: Sendable, Equatable {
    /// `ftckpt_…`.
    public var id: String
    public var job: String
    public var createdAt: Int
    public var step: Int
    /// The model name that answers as this checkpoint, and the version as `name@number`.
    public var model: String, adapter: String
    public var trainLoss: Double, trainAccuracy: Double
    /// Over the whole validation set; `nil` without one.
    public var validLoss: Double?, validAccuracy: Double?
    /// For preferences.
    public var rewardMargin: Double?
    /// Whether its adapter is still there.
    public var isKept: Bool
    /// Whether it is the best of the job so far.
    public var isBest: Bool

    public init(
        id: String, job: String, createdAt: Int, step: Int, model: String, adapter: String, trainLoss: Double, trainAccuracy: Double, validLoss: Double?,
        validAccuracy: Double?, rewardMargin: Double?, isKept: Bool, isBest: Bool
    ) {
        self.id = id
        self.job = job
        self.createdAt = createdAt
        self.step = step
        self.model = model
        self.adapter = adapter
        self.trainLoss = trainLoss
        self.trainAccuracy = trainAccuracy
        self.validLoss = validLoss
        self.validAccuracy = validAccuracy
        self.rewardMargin = rewardMargin
        self.isKept = isKept
        self.isBest = isBest
    }
}

/// A part of a list.
public struct JobPage<Element: Sendable>: Sendable {
    public var elements: [Element]
    /// Whether there are more behind these.
    public var hasMore: Bool

    public init(elements: [Element], hasMore: Bool) {
        self.elements = elements
        self.hasMore = hasMore
    }
}
