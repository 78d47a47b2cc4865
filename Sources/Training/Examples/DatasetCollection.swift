import JSON
import Tokenization

/// Examples and problems as they come in, row after row.
struct DatasetCollection {
    private let encoder: ConversationEncoder
    private let maximumLength: Int
    /// Counts everything; its format is right once `format` is known.
    private var report: DatasetReport
    /// That of the first row whose format can be told.
    private var format: DatasetFormat?
    private var examples: [TokenizedExample] = []
    private var pairs: [PreferencePair] = []
    /// The members of the first object of no format.
    private var unknownMembers: [String]?

    init(container: DatasetContainer, encoder: ConversationEncoder, maximumLength: Int) {
        self.encoder = encoder
        self.maximumLength = maximumLength
        report = DatasetReport(format: .chat, container: container)
    }

    mutating func add(_ row: FileRow) {
        do throws(RowProblem) {
            try add(try row.content.get())
        } catch {
            report.problemCount += 1
            if report.problems.count < DatasetReport.maximumProblems { report.problems.append(DatasetProblem(line: row.line, message: error.message)) }
        }
    }

    func dataset() throws(DatasetError) -> Dataset {
        guard let format else { throw unrecognised }
        var report = report
        report.format = format
        return Dataset(examples: format == .preference ? .preference(pairs) : .supervised(examples), report: report)
    }

    private var unrecognised: DatasetError {
        let found: String
        if let unknownMembers {
            let names = unknownMembers.filter(TableRows.isName)
            found = names.isEmpty ? "its rows have no known members" : "its first row has the members \(names.prefix(8).joined(separator: ", "))"
        } else if let problem = report.problems.first {
            found = "line \(problem.line): \(problem.message)"
        } else {
            found = "it has no rows"
        }
        let formats = DatasetFormat.allCases.map { "\($0.rawValue): \($0.members)" }.joined(separator: "; ")
        return DatasetError("The file is in none of the known formats: \(found). Expected rows that are objects with the members of one format (\(formats)).")
    }

    // MARK: Rows

    private mutating func add(_ row: JSONObject) throws(RowProblem) {
        guard let found = DatasetFormat(recognising: row) else {
            guard let format else {
                if unknownMembers == nil { unknownMembers = row.keys }
                throw RowProblem("the row has the members of no format")
            }
            throw RowProblem("the row has not the members of the format \(format.rawValue), expected \(format.members)")
        }
        let format = self.format ?? found
        self.format = format
        guard found == format else {
            let expected = "expected \(format.rawValue) (\(format.members)) as the rows before it"
            throw RowProblem("the row is in the format \(found.rawValue) (\(found.members)), \(expected); put it into a file of its own")
        }
        switch try format.read(row) {
        case .conversation(let messages, let tools, let answers):
            let encoded = try encode(messages, tools: tools, answers: answers)
            try addSupervised(encoded.stretches, encoded)
        case .text(let prompt, let completion):
            try addSupervised([encoder.completion(prompt: prompt, completion: completion)], nil)
        case .conversationPair(let prompt, let tools, let chosen, let rejected):
            try addPair(try answer(chosen, to: prompt, tools: tools, "chosen"), try answer(rejected, to: prompt, tools: tools, "rejected"))
        case .textPair(let prompt, let chosen, let rejected):
            try addPair(encoder.completion(prompt: prompt, completion: chosen), encoder.completion(prompt: prompt, completion: rejected))
        }
    }

    private mutating func addSupervised(_ stretches: [EncodedConversation.Stretch], _ encoded: EncodedConversation?) throws(RowProblem) {
        let examples = stretches.map(example)
        let usable = examples.filter { $0.example.trainedCount > 0 }
        let skipped = encoded?.skippedAnswerCount ?? 0
        guard !usable.isEmpty else {
            if skipped == 0, stretches.isEmpty, let reason = encoded?.untrained.first {
                throw RowProblem("no answer can be trained: of message \(reason.message) (counted from 0), \(reason.reason)")
            }
            throw noRoom
        }
        self.examples += usable.map(\.example)
        report.exampleCount += 1
        report.untrainedAnswerCount += encoded?.untrained.count ?? 0
        let longest = examples.reduce(skipped > 0 ? encoded?.wholeTokenCount ?? 0 : 0) { max($0, $1.length) }
        count(usable.map(\.example), longest: longest, isTruncated: skipped > 0 || examples.contains { $0.length > maximumLength })
    }

    private mutating func addPair(_ chosen: EncodedConversation.Stretch, _ rejected: EncodedConversation.Stretch) throws(RowProblem) {
        let better = example(chosen)
        let worse = example(rejected)
        guard better.example.trainedCount > 0, worse.example.trainedCount > 0 else { throw noRoom }
        guard better.example != worse.example else {
            throw RowProblem(
                "the two answers are the same in the \(maximumLength) tokens that an example may have, expected a difference; raise the maximum length")
        }
        pairs.append(PreferencePair(chosen: better.example, rejected: worse.example))
        report.exampleCount += 1
        let longest = max(better.length, worse.length)
        count([better.example, worse.example], longest: longest, isTruncated: longest > maximumLength)
    }

    private mutating func count(_ examples: [TokenizedExample], longest: Int, isTruncated: Bool) {
        for example in examples {
            report.tokenCount += example.tokens.count
            report.trainedTokenCount += example.trainedCount
        }
        report.longestTokenCount = max(report.longestTokenCount, longest)
        if isTruncated { report.truncatedCount += 1 }
    }

    private var noRoom: RowProblem {
        RowProblem("what stands before the answer takes all of the \(maximumLength) tokens that an example may have; shorten it or raise the maximum length")
    }

    // MARK: Tokens

    private func encode(_ messages: [TrainingMessage], tools: [JSONValue]?, answers: [Int]) throws(RowProblem) -> EncodedConversation {
        do throws(TemplateError) {
            return try encoder.conversation(messages.map(\.templateValue), tools: tools, answers: answers, limit: maximumLength)
        } catch {
            guard error.code == .raised else { throw RowProblem("the model's chat template cannot write this conversation (\(error.code.rawValue))") }
            let reason = error.quotesRequest ? "" : ": \(error.message.prefix(160))"
            throw RowProblem("the model's chat template refuses this conversation\(reason)")
        }
    }

    private func answer(
        _ answer: TrainingMessage, to prompt: [TrainingMessage], tools: [JSONValue]?, _ name: String
    ) throws(RowProblem) -> EncodedConversation.Stretch {
        let encoded = try encode(prompt + [answer], tools: tools, answers: [prompt.count])
        if let stretch = encoded.stretches.first { return stretch }
        guard let reason = encoded.untrained.first?.reason else { throw noRoom }
        throw RowProblem("the \(name) answer cannot be trained: \(reason)")
    }

    /// The example of a stretch, without what stands behind its last answer, since nothing there is learnt from; and its length before truncation.
    private func example(_ stretch: EncodedConversation.Stretch) -> (example: TokenizedExample, length: Int) {
        let length = stretch.answers.last?.tokens.upperBound ?? 0
        let kept = min(length, maximumLength)
        var isTrained = [Bool](repeating: false, count: kept)
        for answer in stretch.answers {
            // Nothing predicts the first token.
            for index in answer.tokens where index > 0 && index < kept { isTrained[index] = true }
        }
        return (TokenizedExample(tokens: Array(stretch.tokens[..<kept]), isTrained: isTrained), length)
    }
}
