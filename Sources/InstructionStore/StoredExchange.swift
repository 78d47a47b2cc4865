/// A conversation and its answer that were kept. The store looks into none of the JSON.
public struct StoredExchange: Sendable, Equatable {
    /// The answer's `chatcmpl-…`.
    public var id: String
    public var owner: String
    /// Seconds since 1970 UTC.
    public var createdAt: Int
    /// The name that the answer carries, and that name without a version.
    public var model: String, label: String
    /// The end user, as the client calls him.
    public var user: String?
    /// A JSON array: the request's messages.
    public var messages: String
    /// A JSON array: the request's tools.
    public var tools: String?
    /// A JSON array: all answers.
    public var choices: String
    /// A JSON object: everything else that is known.
    public var details: String
    /// The client's own notes, in its order.
    public var metadata: [(key: String, value: String)]

    public init(
        id: String, owner: String, createdAt: Int, model: String, label: String, user: String?, messages: String, tools: String?, choices: String,
        details: String, metadata: [(key: String, value: String)]
    ) {
        self.id = id
        self.owner = owner
        self.createdAt = createdAt
        self.model = model
        self.label = label
        self.user = user
        self.messages = messages
        self.tools = tools
        self.choices = choices
        self.details = details
        self.metadata = metadata
    }

    public static func == (left: StoredExchange, right: StoredExchange) -> Bool {
        left.id == right.id && left.owner == right.owner && left.createdAt == right.createdAt && left.model == right.model && left.label == right.label
            && left.user == right.user && left.messages == right.messages && left.tools == right.tools && left.choices == right.choices
            && left.details == right.details && left.metadata.elementsEqual(right.metadata) { $0 == $1 }
    }
}

/// What somebody said about an answer.
public struct StoredFeedback: Sendable, Equatable {
    /// Any number of them belong to one answer; of every other metric the last one counts.
    public static let comment = "comment"
    /// The better answer.
    public static let demonstration = "demonstration"

    /// `feedback-…`.
    public var id: String
    public var exchangeID: String
    public var owner: String
    public var metric: String
    /// JSON.
    public var value: String
    /// Of a score; 1 and 0 for true and false.
    public var number: Double?
    /// Seconds since 1970 UTC.
    public var createdAt: Int

    public init(id: String, exchangeID: String, owner: String, metric: String, value: String, number: Double?, createdAt: Int) {
        self.id = id
        self.exchangeID = exchangeID
        self.owner = owner
        self.metric = metric
        self.value = value
        self.number = number
        self.createdAt = createdAt
    }
}

/// Which exchanges are meant: those for which everything that is set holds.
public struct ExchangeFilter: Sendable, Equatable {
    public struct Metric: Sendable, Equatable {
        public enum Condition: Sendable, Equatable {
            /// Bounds of scores, both inclusive.
            case range(atLeast: Double?, atMost: Double?)
            /// The number of a score.
            case number(Double)
            /// JSON of anything else.
            case json(String)
            /// It is there at all.
            case present
        }

        public var name: String
        public var condition: Condition

        public init(name: String, condition: Condition) {
            self.name = name
            self.condition = condition
        }
    }

    /// With or without a version.
    public var model: String?
    public var user: String?
    public var metadata: [String: String] = [:]
    /// Seconds since 1970 UTC, both inclusive.
    public var earliest: Int?, latest: Int?
    public var metric: Metric?

    public init() {}
}

/// How many exchanges are kept, and for how long.
public struct ExchangeRetention: Sendable, Equatable {
    public var days: Int
    public var maximum: Int

    public init(days: Int = 30, maximum: Int = 100_000) {
        self.days = days
        self.maximum = maximum
    }
}
