import JSON

extension DatasetReport {
    /// What the files API keeps and answers.
    public var json: JSONObject {
        [
            "format": .string(format.rawValue), "container": .string(container.rawValue), "examples": .integer(Int64(exampleCount)),
            "tokens": .integer(Int64(tokenCount)), "trained_tokens": .integer(Int64(trainedTokenCount)), "truncated": .integer(Int64(truncatedCount)),
            "longest": .integer(Int64(longestTokenCount)), "untrained_answers": .integer(Int64(untrainedAnswerCount)),
            "bad_lines": .integer(Int64(problemCount)),
            "problems": .array(problems.map { ["line": .integer(Int64($0.line)), "message": .string($0.message)] }),
        ]
    }
}
