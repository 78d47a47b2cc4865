/// The formats in which training data comes, recognised by content.
public enum DatasetFormat: String, Sendable, CaseIterable {
    /// OpenAI's `messages`, with `weight` and `tools`.
    case chat
    /// `prompt` and `completion`.
    case completion
    /// Two answers to one prompt: OpenAI's `preferred_output`, TRL's `chosen` and `rejected`, and their relatives.
    case preference
    /// `instruction`, `input`, `output`, `system`, `history`.
    case alpaca
    /// `conversations` of `from` and `value`.
    case shareGPT = "sharegpt"
}

/// How the rows of a data set are written down.
public enum DatasetContainer: String, Sendable, CaseIterable {
    /// One JSON object a line; one JSON array of objects; comma-separated values under a line of names.
    case jsonl, json, csv
}

/// A row that cannot be used.
public struct DatasetProblem: Sendable, Equatable {
    /// 1 for the first; in a JSON array, the line on which the row begins.
    public var line: Int
    /// What was found and what was expected; never the row's own words.
    public var message: String

    public init(line: Int, message: String) {
        self.line = line
        self.message = message
    }
}

/// What a model would see of a data set.
public struct DatasetReport: Sendable, Equatable {
    /// The most problems that are listed.
    public static let maximumProblems = 100

    public var format: DatasetFormat
    public var container: DatasetContainer
    /// Rows that can be used.
    public var exampleCount = 0
    /// Tokens of those, both answers of a pair, after truncation; and those that the loss counts.
    public var tokenCount = 0, trainedTokenCount = 0
    /// Examples that were longer than the limit and lost their end.
    public var truncatedCount = 0
    /// The longest example, before truncation.
    public var longestTokenCount = 0
    /// Answers of usable rows that are only read, although the row asks to train them: the model's template does not write them in a way that
    /// serving would ask for.
    public var untrainedAnswerCount = 0
    /// Rows that cannot be used, and the first of them.
    public var problemCount = 0
    public var problems: [DatasetProblem] = []

    public init(format: DatasetFormat, container: DatasetContainer) {
        self.format = format
        self.container = container
    }
}

public struct Dataset: Sendable {
    public var examples: TrainingExamples
    public var report: DatasetReport

    public init(examples: TrainingExamples, report: DatasetReport) {
        self.examples = examples
        self.report = report
    }
}

/// Bytes that are none of the formats.
public struct DatasetError: Error, Sendable, Equatable, CustomStringConvertible {
    public let message: String

    public init(_ message: String) {
        self.message = message
    }

    public var description: String { message }

    /// Somebody asked the reading to stop; nothing is wrong with the bytes.
    public static let interrupted = DatasetError("The reading was interrupted.")
}
