import Adapters
import FoundationEssentials
import InstructionStore
import JSON
import Modeling
import Synchronization
import Testing
import Training
import Tuning

struct JobQueueTests {
    let fixture: TuningFixture
    var queue: JobQueue { fixture.queue }

    init() throws {
        fixture = try TuningFixture()
    }

    // MARK: A whole life

    @Test func fromPostToModel() throws {
        let id = try fixture.create { $0.metadata = ["team": "a"] }
        #expect(id.hasPrefix("ftjob-") && id.utf8.count == 30)
        var job = try fixture.job(id)
        #expect(job.status == .validatingFiles && job.plan == nil && job.createdAt == 1_700_000_000 && job.request.metadata == ["team": "a"])
        #expect(queue.runNext() == .nothing, "files come first")
        #expect(queue.checkNext() == .worked && queue.checkNext() == .nothing)
        job = try fixture.job(id)
        #expect(job.status == .queued && job.plan?.exampleCount == 22 && job.plan?.heldOutCount == 2 && job.plan?.configuration.epochs == 4)
        #expect(queue.runNext() == .worked && queue.runNext() == .nothing)
        job = try fixture.job(id)
        #expect(job.status == .succeeded && job.step == 20 && job.stepCount == 20 && job.trainedTokenCount == 200 && job.failure == nil)
        #expect(job.finishedAt != nil && job.startedAt != nil && job.estimatedFinish == nil)
        let name = "ft:tiny:local:bot:\(id)"
        #expect(job.fineTunedModel == name && job.adapter == "bot@1")
        let version = try #require(fixture.adapters.version(alias: name, owner: "local"))
        #expect(version.qualifiedName == "bot@1" && version.source == .job(id))
        #expect(fixture.adapters.record(named: "bot", owner: "local")?.promoted == 1)
        // The loss falls to the end, so the last checkpoint is the best.
        let checkpoints = try fixture.checkpoints(id)
        let last = try #require(checkpoints.last)
        #expect(last.step == 20 && last.isBest && last.model == "\(name):ckpt-step-20" && last.validLoss == 1.8 && last.job == id)
        #expect(fixture.adapters.version(alias: last.model, owner: "local")?.digest == version.digest)
        #expect(try fixture.jobFolders().isEmpty)
        // The table of metrics.
        #expect(job.resultFiles == fixture.files.results.map(\.file.id) && job.resultFiles.count == 1)
        let table = String(decoding: fixture.files.results[0].bytes, as: UTF8.self).split(separator: "\n")
        #expect(table.count == 21 && table[0].hasPrefix("step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy"))
        #expect(table[1].hasPrefix("1,2.98,0.001,") && table[20].hasPrefix("20,2.6,0.02,1.8,0.5,"))
    }

    @Test func eventsTellTheStory() throws {
        let id = try fixture.create()
        fixture.work()
        let events = try fixture.events(id)
        let steps = events.filter { $0.kind == .metrics && $0.data["train_loss"] != nil }
        #expect(steps.map { $0.data["step"]?.integer } == (1...20).map { Int64($0) })
        #expect(steps[0].message == "Step 1/20: training loss=2.98")
        #expect(
            steps[0].data.keys.sorted() == [
                "epoch", "gradient_norm", "learning_rate", "seconds_left", "step", "tokens", "tokens_per_second", "total_steps", "train_loss",
                "train_mean_token_accuracy", "trained_tokens",
            ])
        #expect(events.first?.message == "Created fine-tuning job: \(id)" && events.last?.message == "The job has successfully completed")
        #expect(events.allSatisfy { $0.level == .info })
        let words = events.map(\.message).joined(separator: "\n")
        for word in ["Files validated: 20 examples to train on, 2 held out", "Fine-tuning job started", "New fine-tuned model created: ft:tiny:local:bot:"] {
            #expect(words.contains(word))
        }
        // In pages, newest first, without gap or double.
        var pages: [JobEvent] = [], after: String?
        while true {
            let page = try queue.events(of: id, owner: "local", after: after, limit: 7)
            pages += page.elements
            after = page.elements.last?.id
            guard page.hasMore else { break }
        }
        #expect(pages == events.reversed())
    }

    @Test func checkpointsAreModelsAtOnce() throws {
        let seen = Mutex<[String]>([])
        let adapters = fixture.adapters
        fixture.stages.action.withLock {
            $0 = { stage, job throws(Halt) in
                guard stage == .checkpointRecorded else { return }
                seen.withLock { seen in seen.append(adapters.record(named: job, owner: "local")?.versions.last.map(\.qualifiedName) ?? "none") }
            }
        }
        fixture.trainer.settings.withLock { $0.validLoss = { $0 == 6 ? 0.5 : 1 + Double($0) } }
        let id = try fixture.create { $0.earlyStoppingPatience = 0 }
        fixture.work()
        let checkpoints = try fixture.checkpoints(id)
        #expect(seen.withLock { $0.count } == checkpoints.count && checkpoints.count >= 8)
        #expect(checkpoints.filter(\.isBest).map(\.step) == [6])
        #expect(checkpoints.filter(\.isKept).map(\.step) == [6] + checkpoints.suffix(3).map(\.step))
        for checkpoint in checkpoints {
            #expect((fixture.adapters.version(alias: checkpoint.model, owner: "local") != nil) == checkpoint.isKept, "step \(checkpoint.step)")
        }
        #expect(fixture.adapters.record(named: id, owner: "local")?.versions.count == 4)
        // What is published in the end is the best, not the last.
        let best = try #require(fixture.adapters.version(alias: checkpoints.first { $0.isBest }?.model ?? "", owner: "local"))
        #expect(fixture.adapters.resolve(AdapterReference(name: "bot"), owner: "local", stickyKey: nil)?.digest == best.digest)
    }

    @Test func earlyStopping() throws {
        fixture.trainer.settings.withLock { $0.validLoss = { $0 <= 4 ? 1 : 2 } }
        let id = try fixture.create { $0.earlyStoppingPatience = 2 }
        fixture.work()
        let job = try fixture.job(id)
        let checkpoints = try fixture.checkpoints(id)
        #expect(job.status == .succeeded && job.step < job.stepCount)
        #expect(checkpoints.first { $0.isBest }?.step == 2 && checkpoints.count == 3, "\(checkpoints.map(\.step))")
        #expect(try fixture.messages(id).contains { $0.hasPrefix("Stopped early after step \(job.step)/20") })
    }

    @Test func withoutValidationTheLastIsTheBest() throws {
        let id = try fixture.create { $0.validationSplit = 0 }
        fixture.work()
        let last = try #require(fixture.checkpoints(id).last)
        #expect(last.isBest && last.validLoss == nil && last.step == 24)
        #expect(fixture.trainer.settings.withLock { $0.plan?.validation } == nil)
    }

    @Test func promotionIsAChoice() throws {
        _ = try fixture.create()
        fixture.work()
        let second = try fixture.create {
            $0.promotes = false
            $0.seed = 6
        }
        fixture.work()
        let record = try #require(fixture.adapters.record(named: "bot", owner: "local"))
        #expect(record.versions.map(\.number) == [1, 2] && record.promoted == 1)
        #expect(try fixture.job(second).adapter == "bot@2")
    }

    @Test func theDefaultNameIsTheJobs() throws {
        let id = try fixture.create { $0.suffix = nil }
        fixture.work()
        #expect(try fixture.job(id).adapter == "ft-\(id)@1" && fixture.job(id).fineTunedModel == "ft:tiny:local:ft-\(id):\(id)")
    }

    @Test func continuingAnAdapter() throws {
        let first = try fixture.create()
        fixture.work()
        let model = try #require(fixture.job(first).fineTunedModel)
        for name in [model, "bot", "bot@1", "bot@latest"] {
            let id = try fixture.create {
                $0.model = name
                $0.suffix = "more"
            }
            fixture.work()
            let job = try fixture.job(id)
            #expect(job.status == .succeeded && job.request.initialAdapter == "bot@1" && job.plan?.initial?.name == "bot")
            #expect(job.plan?.configuration.rank == 2 && job.plan?.configuration.projections == [.v])
            let initial = try fixture.adapters.content(of: try #require(fixture.adapters.version(alias: model, owner: "local"))).pairs
            #expect(fixture.trainer.settings.withLock { $0.plan?.initial } == initial)
        }
        #expect(
            refusal {
                _ = try fixture.create {
                    $0.initialAdapter = "bot"
                    $0.rank = 4
                }
            }?.parameter == "lora.rank")
        #expect(refusal { _ = try fixture.create { $0.model = "cat" } }?.code == .notFound)
        #expect(refusal { _ = try fixture.create { $0.initialAdapter = "cat" } }?.parameter == "lora.initial_adapter")
        #expect(
            refusal {
                _ = try fixture.create {
                    $0.model = "bot"
                    $0.initialAdapter = "bot"
                }
            }?.parameter == "lora.initial_adapter")
    }

    @Test func preferences() throws {
        let pairs = try fixture.files.add((1...30).map { "pair \($0)" })
        let id = try fixture.create {
            $0.trainingFile = pairs.id
            $0.method = .dpo
            $0.beta = 0.3
        }
        fixture.work()
        let job = try fixture.job(id)
        #expect(job.status == .succeeded && job.plan?.configuration.method == .preference(beta: 0.3))
        #expect(try fixture.events(id).contains { $0.data["train_reward_margin"]?.number == 0.5 })
    }

    // MARK: Files

    @Test func filesThatCannotBeUsed() throws {
        func failure(_ lines: [String], purpose: String = "fine-tune", status: StoredFile.Status = .processed, asValidation: Bool = false) throws
            -> FineTuningJob.Failure?
        {
            let file = try fixture.files.add(lines, purpose: purpose, status: status)
            let id = try fixture.create {
                if asValidation {
                    $0.validationFile = file.id
                    $0.validationSplit = nil
                } else {
                    $0.trainingFile = file.id
                }
            }
            #expect(queue.checkNext() == .worked)
            let job = try fixture.job(id)
            #expect(job.status == .failed && job.finishedAt != nil)
            #expect(try fixture.events(id).last?.level == .error)
            return job.failure
        }
        for (lines, purpose, status, word) in [
            (["x"], "assistants", StoredFile.Status.processed, "purpose"), (["x"], "fine-tune", .error, "lines that cannot be used"),
            (["unreadable"], "fine-tune", .processed, "none of the formats"), (["bad"], "fine-tune", .processed, "line 1: it is bad"),
            (["x", "bad"], "fine-tune", .uploaded, "1 of 2 rows"), (["pair"], "fine-tune", .processed, "dpo"),
        ] {
            let failed = try #require(try failure(lines, purpose: purpose, status: status))
            #expect(failed.code == "invalid_training_file" && failed.parameter == "training_file" && failed.message.contains(word), "\(failed.message)")
        }
        let validation = try #require(try failure(["bad"], asValidation: true))
        #expect(validation.code == "invalid_validation_file" && validation.parameter == "validation_file")
        // Created with a file that then went away.
        let file = try fixture.files.add(["x"])
        let id = try fixture.create { $0.trainingFile = file.id }
        fixture.files.remove(file.id)
        fixture.work()
        #expect(try fixture.job(id).failure?.code == "invalid_training_file")
    }

    @Test func rowsThatAreLeftOutAreTold() throws {
        let file = try fixture.files.add((1...20).map { "example \($0)" } + ["bad"])
        let id = try fixture.create { $0.trainingFile = file.id }
        fixture.work()
        #expect(try fixture.job(id).status == .succeeded)
        #expect(try fixture.events(id).contains { $0.level == .warn && $0.message.contains("1 of 21 rows cannot be used") })
    }

    @Test func aFileThatChangesIsNotedAtTheNextStart() throws {
        let id = try fixture.create()
        #expect(queue.checkNext() == .worked)
        let file = try fixture.job(id).request.trainingFile
        fixture.files.state.withLock { state in
            guard var entry = state.files[file] else { return }
            entry.file.digest = String(repeating: "0", count: 64)
            state.files[file] = entry
        }
        fixture.work()
        #expect(try fixture.job(id).failure?.code == "invalid_training_file")
    }

    @Test func requestsThatCannotBecomeJobs() throws {
        #expect(refusal { _ = try fixture.create { $0.trainingFile = "file-none" } }?.parameter == "training_file")
        #expect(refusal { _ = try fixture.create { $0.validationFile = "file-none"; $0.validationSplit = nil } }?.parameter == "validation_file")
        #expect(refusal { _ = try fixture.create { $0.model = "gpt" } }.map { ($0.code, $0.parameter) } ?? (.storage, nil) == (.notFound, "model"))
        for suffix in ["a b", "ft:x", "default", "tiny", ""] {
            #expect(refusal { _ = try fixture.create { $0.suffix = suffix } }?.parameter == "suffix", "\(suffix)")
        }
        let foreign = try fixture.files.add(["x"], owner: "somebody")
        #expect(refusal { _ = try fixture.create { $0.trainingFile = foreign.id } }?.parameter == "training_file")
        #expect(try queue.jobs(owner: "local", after: nil, limit: 10, metadata: .any).elements.isEmpty)
    }

    @Test func memory() throws {
        fixture.configure = { $0.memoryLimitBytes = 100 << 20 }
        try fixture.restart()
        fixture.trainer.settings.withLock { $0.memoryEstimate = 200 << 20 }
        let refused = try #require(refusal { _ = try fixture.create() })
        #expect(refused.code == .tooLarge && refused.message.contains("200 MiB") && refused.message.contains("100 MiB") && refused.parameter == "lora.max_length")
        // A large file that nobody reported on is looked at later.
        fixture.configure = {
            $0.memoryLimitBytes = 100 << 20
            $0.immediateCheckBytes = 1
        }
        try fixture.restart()
        let id = try fixture.create()
        fixture.work()
        #expect(try fixture.job(id).failure?.code == "memory_limit_exceeded")
        fixture.trainer.settings.withLock { $0.memoryEstimate = 100 << 20 }
        let fitting = try fixture.create()
        fixture.work()
        #expect(try fixture.job(fitting).status == .succeeded)
    }

    @Test func memoryOfLargeFilesByTheirReports() throws {
        fixture.configure = {
            $0.memoryLimitBytes = 100 << 20
            $0.immediateCheckBytes = 1
            $0.defaults.microBatchTokens = 100
        }
        try fixture.restart()
        func file(_ examples: Int, _ tokens: Int, longest: Int) throws -> String {
            let report = #"{"examples":\#(examples),"tokens":\#(tokens),"longest":\#(longest)}"#
            return try fixture.files.add(
                Array("abc".utf8), name: "x", purpose: "fine-tune", owner: "local", status: .processed, report: report
            ).id
        }
        fixture.trainer.settings.withLock { $0.memoryEstimate = 200 << 20 }
        let long = try file(50, 1000, longest: 40)
        let refused = try #require(refusal { _ = try fixture.create { $0.trainingFile = long } })
        #expect(refused.code == .tooLarge && refused.parameter == "lora.max_length" && refused.message.contains("201 MiB"))
        guard case .supervised(let examples) = fixture.trainer.settings.withLock({ $0.estimated })?.training else {
            Issue.record("no supervised stand-in")
            return
        }
        #expect(examples.map(\.tokens.count) == [40, 40], "as many of the longest as fill a micro-batch")
        // What is cut is not counted.
        _ = refusal { _ = try fixture.create { ($0.trainingFile, $0.maximumLength) = (long, 30) } }
        guard case .supervised(let cut) = fixture.trainer.settings.withLock({ $0.estimated })?.training else { return }
        #expect(cut.map(\.tokens.count) == [30, 30, 30])
        // The examples' own memory counts, five bytes a token.
        fixture.trainer.settings.withLock { $0.memoryEstimate = 50 << 20 }
        let many = try file(1 << 20, 11 << 20, longest: 11)
        #expect(refusal { _ = try fixture.create { $0.trainingFile = many } }?.code == .tooLarge)
        let fewer = try file(1 << 20, 9 << 20, longest: 9)
        #expect(refusal { _ = try fixture.create { $0.trainingFile = fewer } } == nil)
    }

    // MARK: Looking

    @Test func lists() throws {
        var ids: [String] = []
        for number in 1...5 { ids.append(try fixture.create { $0.metadata = number % 2 == 0 ? [:] : ["n": "\(number)", "odd": "yes\""] }) }
        func list(_ after: String? = nil, limit: Int = 10, _ filter: JobMetadataFilter = .any) throws -> [Int] {
            try queue.jobs(owner: "local", after: after, limit: limit, metadata: filter).elements.compactMap { job in ids.firstIndex(of: job.id).map { $0 + 1 } }
        }
        #expect(try list() == [5, 4, 3, 2, 1])
        #expect(try list(limit: 2) == [5, 4] && list(ids[3], limit: 2) == [3, 2])
        #expect(try queue.jobs(owner: "local", after: nil, limit: 5, metadata: .any).hasMore == false)
        #expect(try queue.jobs(owner: "local", after: nil, limit: 4, metadata: .any).hasMore == true)
        #expect(try list(nil, .pairs(["odd": "yes\""])) == [5, 3, 1] && list(nil, .pairs(["odd": "yes\"", "n": "3"])) == [3])
        #expect(try list(nil, .pairs(["odd": "no"])).isEmpty && list(nil, .none) == [4, 2])
        #expect(refusal { _ = try list("ftjob-x") }?.parameter == "after")
        // Another owner sees nothing.
        #expect(try queue.jobs(owner: "other", after: nil, limit: 5, metadata: .any).elements.isEmpty)
        #expect(refusal { _ = try queue.job(ids[0], owner: "other") }?.code == .notFound)
        #expect(refusal { _ = try queue.cancel(ids[0], owner: "other") }?.code == .notFound)
        #expect(refusal { _ = try queue.events(of: ids[0], owner: "other", after: nil, limit: 5) }?.code == .notFound)
        #expect(queue.statistics.jobs[.validatingFiles] == 5)
    }

    @Test func checkpointPages() throws {
        let id = try fixture.create()
        fixture.work()
        let all = try queue.checkpoints(of: id, owner: "local", after: nil, limit: 100)
        let first = try queue.checkpoints(of: id, owner: "local", after: nil, limit: 3)
        #expect(!all.hasMore && first.hasMore && first.elements == Array(all.elements.prefix(3)))
        let rest = try queue.checkpoints(of: id, owner: "local", after: first.elements.last?.id, limit: 100)
        #expect(first.elements + rest.elements == all.elements)
        #expect(all.elements.map(\.step) == all.elements.map(\.step).sorted(by: >))
        #expect(refusal { _ = try queue.checkpoints(of: id, owner: "local", after: "ftckpt_x", limit: 1) }?.parameter == "after")
    }

    @Test func statistics() throws {
        let id = try fixture.create()
        fixture.work()
        _ = try fixture.create()
        let statistics = queue.statistics
        #expect(statistics.jobs[.succeeded] == 1 && statistics.jobs[.validatingFiles] == 1 && statistics.jobs[.running] == 0)
        #expect(statistics.steps == 20 && statistics.tokens == 800 && statistics.trainedTokens == 200)
        try fixture.restart()
        #expect(queue.statistics.jobs[.succeeded] == 1 && queue.statistics.jobs[.validatingFiles] == 1)
        #expect(try fixture.job(id).status == .succeeded)
    }

    @Test func eachEndIsToldOnce() throws {
        let done = try fixture.create(), cancelled = try fixture.create()
        _ = try queue.pause(cancelled, owner: "local")
        #expect(fixture.notices.ends.withLock { $0.isEmpty })
        _ = try queue.cancel(cancelled, owner: "local")
        #expect(throws: TuningError.self) { try queue.cancel(cancelled, owner: "local") }
        let file = try fixture.files.add(["x"])
        let failed = try fixture.create { $0.trainingFile = file.id }
        fixture.files.remove(file.id)
        fixture.work()
        let ends = fixture.notices.ends.withLock { $0 }
        #expect(ends.count == 3 && ends.allSatisfy { $0.owner == "local" })
        #expect(ends.first { $0.id == cancelled } == ends[0] && ends[0].status == .cancelled && ends[0].adapter == nil && ends[0].errorCode == nil)
        let success = try #require(ends.first { $0.id == done })
        #expect(success.status == .succeeded && success.adapter == "bot@1" && success.errorCode == nil)
        let failure = try #require(ends.first { $0.id == failed })
        #expect(failure.status == .failed && failure.adapter == nil && failure.errorCode == "invalid_training_file")
    }

    @Test func followersAreTold() throws {
        let id = try fixture.create()
        let calls = Atomic<Int>(0)
        var observation: JobObservation? = queue.observe(id) { calls.add(1, ordering: .relaxed) }
        fixture.work()
        let count = calls.load(ordering: .relaxed)
        #expect(count >= 20)
        withExtendedLifetime(observation) {}
        observation = nil
        let other = try fixture.create()
        _ = try queue.cancel(other, owner: "local")
        #expect(calls.load(ordering: .relaxed) == count)
        let news = try queue.news(of: id, owner: "local", after: 0, limit: 10)
        #expect(news.events.count == 10 && !news.isOver)
        let last = try #require(fixture.events(id).last)
        #expect(try queue.news(of: id, owner: "local", after: last.number, limit: 10).isOver)
    }
}
