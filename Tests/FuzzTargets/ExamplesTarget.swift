import Tokenization
import Training

private let maximumLength = 96

/// Promises: a data set's counts are those of its examples; every example fits, trains something and not its first token; problems are listed in the
/// file's order, one line each.
func fuzzExamples(_ input: [UInt8]) throws(FuzzFinding) {
    let reader = DatasetReader(encoder: TestVocabulary.chat, maximumLength: maximumLength)
    let dataset: Dataset
    do throws(DatasetError) {
        dataset = try reader.read(input)
    } catch {
        return try promise(!error.message.isEmpty && !error.message.contains("\n"), "the message \(error.message)")
    }
    let report = dataset.report
    var examples: [TokenizedExample] = []
    switch dataset.examples {
    case .supervised(let list):
        try promise(report.format != .preference, "examples of the format \(report.format)")
        // A conversation may be cut into several.
        try promise(list.count >= report.exampleCount, "\(list.count) examples of \(report.exampleCount) rows")
        examples = list
    case .preference(let pairs):
        try promise(report.format == .preference, "pairs of the format \(report.format)")
        try promise(pairs.count == report.exampleCount, "\(pairs.count) pairs of \(report.exampleCount) rows")
        for pair in pairs { try promise(pair.chosen != pair.rejected, "a pair of equals") }
        examples = pairs.flatMap { [$0.chosen, $0.rejected] }
    }
    for example in examples {
        try promise(example.tokens.count <= maximumLength, "an example of \(example.tokens.count) tokens")
        try promise(example.trainedCount > 0 && example.isTrained.first == false, "an example that trains nothing, or its first token")
        for token in example.tokens {
            try promise(token >= 0 && Int(token) < TestVocabulary.chat.tokenizer.vocabularySize, "the token \(token)")
        }
    }
    try promise(report.tokenCount == examples.reduce(0) { $0 + $1.tokens.count }, "\(report.tokenCount) tokens are reported")
    try promise(report.trainedTokenCount == examples.reduce(0) { $0 + $1.trainedCount }, "\(report.trainedTokenCount) trained tokens are reported")
    try check(report, lines: input.count { $0 == 0x0A } + 1)
}

private func check(_ report: DatasetReport, lines: Int) throws(FuzzFinding) {
    try promise(report.problems.count == min(report.problemCount, DatasetReport.maximumProblems), "\(report.problems.count) of \(report.problemCount) problems")
    var last = 1
    for problem in report.problems {
        // A carriage return may end a line of comma-separated values.
        try promise(problem.line >= last && (problem.line <= lines || report.container == .csv), "a problem on line \(problem.line) behind one on \(last)")
        try promise(!problem.message.isEmpty && !problem.message.contains("\n"), "the message \(problem.message)")
        last = problem.line
    }
}
