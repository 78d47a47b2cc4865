import InstructionStore
import TestSupport
import Testing

struct JobRowTests {
    let folder: TemporaryFolder

    init() throws {
        folder = try TemporaryFolder()
    }

    private func open() throws -> InstructionStore {
        try InstructionStore(directory: DataDirectory(path: "\(folder.path)/data"))
    }

    private func insert(_ store: InstructionStore, _ id: String, owner: String = "local", metadata: String? = nil) throws -> JobRow {
        try store.insertJob(
            JobRow(id: id, owner: owner, createdAt: 5, request: "{}", metadata: metadata, status: "queued"),
            events: [JobEventRow(createdAt: 5, level: "info", type: "message", message: "created")])
    }

    private func code(_ body: () throws -> Void) -> InstructionStoreError.Code? {
        do {
            try body()
            return nil
        } catch {
            return (error as? InstructionStoreError)?.code
        }
    }

    private func step(_ number: Int) -> JobEventRow {
        JobEventRow(createdAt: number, level: "info", type: "metrics", message: "step \(number)", data: "{\"step\":\(number)}", step: number)
    }

    private func checkpoint(_ step: Int) -> JobCheckpointRow {
        JobCheckpointRow(
            step: step, createdAt: 1, alias: "ft:\(step)", adapter: "ftjob-1", version: step, trainLoss: 1.5, trainAccuracy: 0.5, validLoss: nil,
            validAccuracy: nil, rewardMargin: nil)
    }

    @Test func aRowKeepsEverything() throws {
        var row: JobRow
        do {
            let store = try open()
            row = try insert(store, "ftjob-1", metadata: #"{"a":"b"}"#)
            #expect(row.number == 1 && row.status == "queued" && !row.isPaused)
            row.status = "failed"
            row.isPaused = true
            row.storage = "full"
            row.plan = "{\"a\":1}"
            row.startsWithoutSnapshot = 2
            row.step = 3
            row.stepCount = 4
            row.trainedTokenCount = 5
            row.startedAt = 6
            row.finishedAt = 7
            row.estimatedFinish = 8
            row.fineTunedModel = "ft:x"
            row.adapter = "bot@1"
            row.resultFile = "file-1"
            row.errorCode = "e"
            row.errorMessage = "m"
            row.errorParameter = "p"
            try store.updateJob(row, events: [step(1), step(2)], checkpoint: checkpoint(2))
        }
        let store = try open()
        #expect(try store.job(number: 1) == row)
        #expect(try store.job(id: "ftjob-1", owner: "local") == row)
        #expect(try store.job(id: "ftjob-1", owner: "other") == nil && store.job(id: "x", owner: "local") == nil)
        #expect(try store.jobEvents(job: 1, after: 0, limit: 10).map(\.message) == ["created", "step 1", "step 2"])
        #expect(try store.jobEvents(job: 1, before: nil, limit: 2).map(\.message) == ["step 2", "step 1"])
        #expect(try store.jobEvents(job: 1, before: 2, limit: 2).map(\.message) == ["created"])
        #expect(try store.jobCheckpoints(job: 1) == [checkpoint(2)])
        #expect(try store.unfinishedJobs().isEmpty && store.jobCounts() == ["failed": 1])
        #expect(code { _ = try store.job(number: 9) } == .notFound)
    }

    @Test func aChangeIsWholeOrNothing() throws {
        let store = try open()
        var row = try insert(store, "ftjob-1")
        row.step = 1
        store.injectFault(resultCode: 13)
        #expect(code { try store.updateJob(row, events: [step(1)], checkpoint: checkpoint(1)) } == .storageFull)
        #expect(code { _ = try insert(store, "ftjob-2") } == .storageFull)
        store.injectFault(resultCode: nil)
        #expect(try store.job(number: 1).step == 0 && store.jobEvents(job: 1, after: 0, limit: 9).count == 1 && store.jobCheckpoints(job: 1).isEmpty)
        // A state that contradicts itself is refused with everything that came along.
        row.status = "succeeded"
        #expect(code { try store.updateJob(row, events: [step(1)]) } == .conflict)
        row.status = "resting"
        row.finishedAt = 1
        #expect(code { try store.updateJob(row, events: [step(1)]) } == .conflict)
        #expect(try store.jobEvents(job: 1, after: 0, limit: 9).count == 1)
        row.number = 5
        row.status = "failed"
        #expect(code { try store.updateJob(row) } == .notFound)
        #expect(code { _ = try insert(store, "ftjob-1") } == .conflict)
        #expect(code { _ = try insert(store, "ftjob-3", owner: "nobody") } == .conflict)
    }

    @Test func goingBack() throws {
        let store = try open()
        let row = try insert(store, "ftjob-1")
        let other = try insert(store, "ftjob-2")
        try store.updateJob(other, events: [step(4)])
        for number in 1...4 { try store.updateJob(row, events: [step(number)], checkpoint: checkpoint(number)) }
        try store.updateJob(row, events: [step(3)], rewindingTo: 2)
        let events = try store.jobEvents(job: row.number, after: 0, limit: 99)
        #expect(events.map(\.message) == ["created", "step 1", "step 2", "step 3"])
        // Numbers are not given twice, so that whoever follows misses nothing.
        #expect(events.last.map { $0.number > 7 } == true)
        #expect(try store.jobCheckpoints(job: row.number).map(\.step) == [1, 2])
        #expect(try store.jobEvents(job: other.number, after: 0, limit: 9).count == 2)
        try store.updateJob(row, checkpoint: checkpoint(2))
        try store.setJobCheckpointRemoved(job: row.number, step: 2, at: 77)
        #expect(try store.jobCheckpoints(job: row.number).map(\.removedAt) == [nil, 77])
        #expect(code { try store.setJobCheckpointRemoved(job: row.number, step: 9, at: 1) } == .notFound)
    }

    @Test func filters() throws {
        let store = try open()
        try store.addOwner("other", at: 1)
        for (index, metadata) in [nil, #"{"a":"1"}"#, #"{"a":"1","b":"2"}"#, #"{"a":"2","k\"]":"x"}"#].enumerated() {
            _ = try insert(store, "ftjob-\(index)", metadata: metadata)
        }
        _ = try insert(store, "ftjob-x", owner: "other", metadata: #"{"a":"1"}"#)
        func list(_ filter: JobMetadataFilter, before: Int? = nil, limit: Int = 9) throws -> [String] {
            try store.jobs(owner: "local", before: before, limit: limit, metadata: filter).map { String($0.id.dropFirst(6)) }
        }
        #expect(try list(.any) == ["3", "2", "1", "0"] && list(.any, before: 4, limit: 2) == ["2", "1"])
        #expect(try list(.none) == ["0"] && list(.pairs(["a": "1"])) == ["2", "1"] && list(.pairs(["a": "1", "b": "2"])) == ["2"])
        #expect(try list(.pairs(["k\"]": "x"])) == ["3"] && list(.pairs(["a": "'; --"])).isEmpty)
        #expect(try store.unfinishedJobs().map(\.number) == [1, 2, 3, 4, 5])
    }

    // MARK: Aliases of adapters

    private func publish(_ store: InstructionStore, _ name: String, _ number: Int, alias: String?, owner: String = "local") throws -> AdapterRow {
        let content = AdapterVersionContent(
            digest: "d", baseName: "base", baseDigest: "b", rank: 4, pairCount: 2, source: "job:x", configByteCount: 1, weightsByteCount: 2,
            folder: "\(owner)/\(name)/\(number)")
        return try store.insertAdapterVersion(content, owner: owner, name: name, number: number, promote: true, alias: alias, at: 7)
    }

    @Test func aliases() throws {
        let store = try open()
        try store.addOwner("other", at: 1)
        let bot = try publish(store, "bot", 1, alias: "ft:a")
        _ = try publish(store, "bot", 2, alias: "ft:b")
        _ = try publish(store, "cat", 1, alias: nil)
        // The alias stands for one version, and what would take it away is not entered at all.
        #expect(code { _ = try publish(store, "bot", 3, alias: "ft:a") } == .conflict)
        #expect(try store.adapterVersions().count == 3 && store.nextAdapterNumber(owner: "local", name: "bot") == 3)
        _ = try publish(store, "bot", 1, alias: "ft:a", owner: "other")
        #expect(try store.adapterAliases().map(\.alias) == ["ft:a", "ft:b", "ft:a"])
        _ = try store.deleteAdapterVersion(id: bot.id, number: 1)
        #expect(try store.adapterAliases().map(\.alias) == ["ft:b", "ft:a"])
        try store.deleteAdapter(id: bot.id)
        #expect(try store.adapterAliases().map(\.owner) == ["other"])
    }
}
