import FoundationEssentials
import TLS
import Training

#if canImport(Glibc)
import Glibc
#endif

/// A file of examples that the user names.
struct TrainingFile {
    let path: String
    let bytes: [UInt8]
    /// The path's last part.
    var name: String { path.split(separator: "/").last.map(String.init) ?? path }
    /// SHA-256 of the bytes, as files of the store are named.
    var digest: String { hexadecimal(SHA256Digest.of(bytes)) }

    init(path: String) throws {
        bytes = try readUserFile(path, expected: "a file of examples")
        self.path = path
    }

    /// - Throws: unless every row can be used.
    func report(by reader: DatasetReader) throws -> DatasetReport {
        let report: DatasetReport
        do {
            report = try reader.read(bytes).report
        } catch {
            throw CommandError("\(path): \(error.message)")
        }
        guard report.problemCount == 0, report.exampleCount > 0 else {
            throw refusal(examples: report.exampleCount, problems: report.problemCount, shown: report.problems.map { ($0.line, $0.message) })
        }
        return report
    }

    /// Why a file cannot be trained on: its first bad lines.
    func refusal(examples: Int, problems: Int, shown: [(line: Int, message: String)]) -> CommandError {
        if problems == 0 { return CommandError("\(path): there is no example that a model could be trained on") }
        let most = 10
        let lines = shown.prefix(most).map { "\n  line \($0.line): \(TerminalText.oneLine($0.message))" }.joined()
        let more = problems > min(most, shown.count) ? "\n  and \(problems - min(most, shown.count)) more" : ""
        return CommandError("\(path): \(problems) of \(problems + examples) rows cannot be used:\(lines)\(more)\ncorrect or remove them")
    }
}
