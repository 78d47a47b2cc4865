import JSON
import Training

/// What an upload's report says about the size of its examples.
struct DatasetSize {
    var exampleCount: Int
    /// Tokens of all examples, and of the longest one before truncation.
    var tokenCount: Int, longestTokenCount: Int

    /// - Parameter report: as `DatasetReport.json` has it; `nil` comes of anything else.
    init?(report: String) {
        guard let object = (try? JSONValue(parsing: Array(report.utf8)))?.object,
            let examples = object["examples"]?.integer, let tokens = object["tokens"]?.integer, let longest = object["longest"]?.integer
        else { return nil }
        exampleCount = Int(examples)
        tokenCount = Int(tokens)
        longestTokenCount = Int(longest)
    }

    /// Examples that ask a trainer for no more memory than the real ones: one of the longest, and as many of its kind as fill a micro-batch.
    func standIn(longest: Int, rows: Int, method: JobRequest.Method) -> TrainingExamples {
        let tokens = [Int32](repeating: 0, count: max(1, longest))
        let example = TokenizedExample(tokens: tokens, isTrained: tokens.indices.map { $0 > 0 })
        let count = max(1, min(exampleCount, min(rows, tokenCount) / tokens.count))
        // Of a pair only one answer need be the longest.
        let shortest = TokenizedExample(tokens: [0, 0], isTrained: [false, true])
        return method == .dpo
            ? .preference(Array(repeating: PreferencePair(chosen: example, rejected: shortest), count: count)) : .supervised(Array(repeating: example, count: count))
    }
}
