import Adapters
import FoundationEssentials
import GGUF
import Glibc
import InstructionStore
import JSON
import Modeling
import Synchronization
import TestSupport
import Training
import Tuning

/// A queue over a real store and real adapters of the tiny llama model, with a trainer and files in memory; it can be closed and opened again like a
/// process that died.
final class TuningFixture {
    static let model: ModelConfiguration = {
        do {
            return try ModelConfiguration(metadata: GGUFFile(path: goldenFolder.appending(path: "tiny/llama.gguf").path).metadata)
        } catch {
            fatalError("\(error)")
        }
    }()

    /// What happens at the stages; tests set it when they need it.
    final class Stages: Sendable {
        let action = Mutex<JobQueue.StageHook?>(nil)
        let seen = Mutex<[JobQueue.Stage]>([])

        var hook: JobQueue.StageHook {
            { stage, job throws(Halt) in
                self.seen.withLock { $0.append(stage) }
                let action = self.action.withLock { $0 }
                try action?(stage, job)
            }
        }

        /// The process dies when a stage is reached for the n-th time, counted from 1.
        func die(at stage: JobQueue.Stage, _ count: Int = 1) {
            let left = Mutex(count)
            let counter = Counter(left: left)
            action.withLock {
                $0 = { reached, _ throws(Halt) in
                    if reached == stage, counter.isReached() { throw .died }
                }
            }
        }

        private final class Counter: Sendable {
            let left: Mutex<Int>
            init(left: consuming sending Mutex<Int>) { self.left = left }
            func isReached() -> Bool {
                left.withLock { left in
                    left -= 1
                    return left == 0
                }
            }
        }
    }

    /// The queue of the present process, for closures that must not keep it alive.
    final class Present: Sendable {
        let queue = Mutex<JobQueue?>(nil)

        func callAsFunction(_ body: (JobQueue) throws -> Void) {
            if let queue = queue.withLock({ $0 }) { try? body(queue) }
        }
    }

    let present = Present()
    let folder: TemporaryFolder
    let trainer = FakeTrainer()
    let files = FakeFiles()
    let stages = Stages()
    let notices = Notices()
    var configure: (inout TuningConfiguration) -> Void = { _ in }
    private(set) var store: InstructionStore
    private(set) var adapters: AdapterRegistry
    private(set) var queue: JobQueue

    final class Notices: Sendable {
        let lines = Mutex<[String]>([])
        /// Jobs that have ended, in order.
        let ends = Mutex<[JobEnd]>([])
    }

    init(configure: @escaping (inout TuningConfiguration) -> Void = { _ in }) throws {
        folder = try TemporaryFolder()
        self.configure = configure
        (store, adapters, queue) = try Self.open(folder, trainer, files, stages, notices, configure)
        present.queue.withLock { $0 = queue }
    }

    private static func open(
        _ folder: TemporaryFolder, _ trainer: FakeTrainer, _ files: FakeFiles, _ stages: Stages, _ notices: Notices,
        _ configure: (inout TuningConfiguration) -> Void
    ) throws -> (InstructionStore, AdapterRegistry, JobQueue) {
        let store = try InstructionStore(directory: DataDirectory(path: "\(folder.path)/data"))
        let base = AdapterBase(name: "tiny", digest: String(repeating: "1", count: 64), configuration: model, numerics: .exact)
        let adapters = try AdapterRegistry(
            directory: "\(folder.path)/adapters", store: store, base: base, budgetBytes: 1 << 30, reservedNames: [], now: { 1_700_000_000 })
        var configuration = TuningConfiguration(directory: "\(folder.path)/data/jobs")
        configuration.snapshotSteps = 7
        configuration.storageRetry = .milliseconds(1)
        configure(&configuration)
        let start = ContinuousClock.now
        let queue = try JobQueue(
            store: store, adapters: adapters, files: files, trainer: trainer, read: read, configuration: configuration,
            notice: { job, message in notices.lines.withLock { $0.append("\(job) \(message)") } }, ended: { job in notices.ends.withLock { $0.append(job) } },
            now: { 1_700_000_000 }, uptime: { start },
            onStage: stages.hook)
        return (store, adapters, queue)
    }

    /// Closes everything without a word, lets `body` change the folders, and opens again.
    func restart(after body: () throws -> Void = {}) throws {
        present.queue.withLock { $0 = nil }
        let placeholder = try TemporaryFolder()
        (store, adapters, queue) = try Self.open(placeholder, trainer, files, Stages(), Notices(), { _ in })
        try body()
        (store, adapters, queue) = try Self.open(folder, trainer, files, stages, notices, configure)
        present.queue.withLock { $0 = queue }
    }

    /// The data format of the tests; see `FakeFiles.add`.
    static let read: DatasetReading = { bytes, maximumLength, interruption throws(DatasetError) in
        let lines = String(decoding: bytes, as: UTF8.self).split(separator: "\n").map(String.init)
        guard !lines.isEmpty, lines[0] != "unreadable" else { throw DatasetError("found none of the formats") }
        if lines[0] == "endless" {
            while interruption?.isRequested != true { usleep(1000) }
            throw .interrupted
        }
        func example(_ text: String) -> TokenizedExample {
            let tokens = text.utf8.prefix(maximumLength).map { Int32($0) }
            return TokenizedExample(tokens: tokens, isTrained: tokens.indices.map { $0 > 0 })
        }
        let arePairs = lines[0].hasPrefix("pair")
        var report = DatasetReport(format: arePairs ? .preference : .chat, container: .jsonl)
        var examples: [TokenizedExample] = []
        for (index, line) in lines.enumerated() {
            if line.hasPrefix("bad") {
                report.problemCount += 1
                report.problems.append(DatasetProblem(line: index + 1, message: "it is bad"))
            } else {
                examples.append(example(line))
                report.truncatedCount += line.utf8.count > maximumLength ? 1 : 0
            }
        }
        report.exampleCount = examples.count
        report.tokenCount = examples.reduce(0) { $0 + $1.tokens.count }
        report.trainedTokenCount = examples.reduce(0) { $0 + $1.trainedCount }
        return Dataset(
            examples: arePairs ? .preference(examples.map { PreferencePair(chosen: $0, rejected: $0) }) : .supervised(examples), report: report)
    }

    // MARK: Shortcuts

    /// Twenty examples in batches of four over four epochs: 20 steps, with a validation set of two.
    func smallRequest(_ change: (inout JobRequest) -> Void = { _ in }) throws -> JobRequest {
        let file = try files.add((1...22).map { "example \($0)" })
        var request = JobRequest(model: "tiny", trainingFile: file.id)
        request.suffix = "bot"
        request.seed = 5
        request.epochs = 4
        request.batchSize = 4
        request.validationSplit = 0.1
        change(&request)
        return request
    }

    func create(_ change: (inout JobRequest) -> Void = { _ in }) throws -> String {
        try queue.create(smallRequest(change), owner: "local").id
    }

    func job(_ id: String) throws -> FineTuningJob { try queue.job(id, owner: "local") }

    /// Works until nothing is left to do.
    func work() {
        while queue.checkNext() == .worked {}
        while queue.runNext() == .worked {}
    }

    /// Oldest first.
    func events(_ id: String) throws -> [JobEvent] {
        try queue.news(of: id, owner: "local", after: 0, limit: 10_000).events
    }

    func messages(_ id: String) throws -> [String] { try events(id).map(\.message) }

    /// In the order of their steps.
    func checkpoints(_ id: String) throws -> [JobCheckpoint] {
        try queue.checkpoints(of: id, owner: "local", after: nil, limit: 1000).elements.reversed()
    }

    func snapshotExists(_ id: String) -> Bool {
        FileManager.default.fileExists(atPath: "\(folder.path)/data/jobs/\(id)/snapshot")
    }

    /// The names in the directory of snapshots.
    func jobFolders() throws -> [String] { try FileManager.default.contentsOfDirectory(atPath: "\(folder.path)/data/jobs").sorted() }
}

/// The error that a call throws, if it is one of tuning.
func refusal(_ body: () throws -> Void) -> TuningError? {
    do {
        try body()
        return nil
    } catch {
        return error as? TuningError
    }
}
