import Adapters
import InstructionStore
import JSON
import Modeling
import Training

extension JobQueue {
    // MARK: Creating

    public func create(_ request: JobRequest, owner: String) throws(TuningError) -> FineTuningJob {
        try request.check()
        var request = request
        try resolveModel(&request, owner: owner)
        let id = "ftjob-" + Self.randomDigits(24)
        if let suffix = request.suffix {
            do throws(AdapterError) {
                try adapters.check(name: suffix)
            } catch {
                throw TuningError(.invalidArgument, "'suffix', the name of the adapter that comes of the job: \(error.message)", parameter: "suffix")
            }
        }
        if request.seed == nil { request.seed = Int.random(in: JobRequest.seedRange) }
        for (file, parameter) in [(request.trainingFile, "training_file"), (request.validationFile, "validation_file")] {
            guard let file else { continue }
            guard try stored({ () throws(InstructionStoreError) in try files.file(id: file, owner: owner) }) != nil else {
                throw TuningError(
                    .invalidArgument, "'\(parameter)' names a file that does not exist, expected the id of an uploaded file; POST it to /v1/files first",
                    parameter: parameter)
            }
        }
        try checkMemory(request, id: id, owner: owner)
        let pairs = request.metadata.sorted { $0.key < $1.key }.map { ($0.key, JSONValue.string($0.value)) }
        let metadata = pairs.isEmpty ? nil : JSONValue.object(JSONObject(pairs))
        let draft = JobRow(
            id: id, owner: owner, createdAt: now(), request: Self.text(request.json), metadata: metadata.map(Self.text),
            status: JobState.Status.validatingFiles.rawValue)
        let row = try stored { () throws(InstructionStoreError) in
            try store.insertJob(
                draft, events: [event("Created fine-tuning job: \(id)"), event("Validating training file: \(request.trainingFile)")])
        }
        state.withLock { $0.statistics.jobs[.validatingFiles, default: 0] += 1 }
        wake()
        return try job(row)
    }

    /// Lets an adapter that is to be continued stand for exactly one version from now on.
    private func resolveModel(_ request: inout JobRequest, owner: String) throws(TuningError) {
        let isBase = request.model == adapters.base.name || configuration.baseNames.contains(request.model)
        if isBase { request.model = adapters.base.name }
        guard isBase || request.initialAdapter == nil else {
            throw TuningError(
                .invalidArgument, "'lora.initial_adapter' is set and 'model' is not the base '\(adapters.base.name)', expected one adapter to continue",
                parameter: "lora.initial_adapter")
        }
        guard let name = isBase ? request.initialAdapter : request.model else { return }
        let parameter = isBase ? "lora.initial_adapter" : "model"
        let version: AdapterVersion? =
            if let version = adapters.version(alias: name, owner: owner) {
                version
            } else if let reference = AdapterReference(name), let record = adapters.record(named: reference.name, owner: owner) {
                switch reference.selector {
                case .promoted: record.versions.first { $0.number == record.promoted }
                case .latest: record.versions.last
                case .number(let number): record.versions.first { $0.number == number }
                }
            } else {
                nil
            }
        guard let version else {
            throw TuningError(
                isBase ? .invalidArgument : .notFound,
                "'\(parameter)' names neither the base '\(adapters.base.name)' nor an adapter of this server; GET /v1/models lists what there is",
                parameter: parameter)
        }
        guard version.quarantine == nil, version.baseDigest == adapters.base.digest else {
            throw TuningError(
                .invalidArgument,
                "'\(parameter)' names \(version.qualifiedName), which \(version.quarantine == nil ? "belongs to another base" : "is damaged"), "
                    + "expected an adapter that this server can serve", parameter: parameter)
        }
        for (isSet, name) in [
            (request.rank != nil, "lora.rank"), (request.alpha != nil, "lora.alpha"), (request.projections != nil, "lora.target_modules"),
            (request.usesRankStabilisedScale != nil, "lora.use_rslora"),
        ] where isSet {
            throw TuningError(
                .invalidArgument, "'\(name)' is set, and the job continues \(version.qualifiedName), which has its own; leave it out", parameter: name)
        }
        request.initialAdapter = version.qualifiedName
    }

    /// Refuses what would not fit, as far as that can be said at once.
    private func checkMemory(_ request: JobRequest, id: String, owner: String) throws(TuningError) {
        guard let limit = configuration.memoryLimitBytes else { return }
        var found: [StoredFile] = []
        for id in [request.trainingFile, request.validationFile].compactMap({ $0 }) {
            if let file = try stored({ () throws(InstructionStoreError) in try files.file(id: id, owner: owner) }) { found.append(file) }
        }
        let byteCount = found.reduce(0) { $0 + $1.byteCount }
        // Files that cannot be used are the job's own business: it tells of them when it fails.
        guard byteCount <= configuration.immediateCheckBytes else { return try checkMemory(request, id: id, limit: limit, found) }
        guard let (plan, data) = try? prepare(request, id: id, owner: owner) else { return }
        let estimate = trainer.memoryEstimate(for: data.trainingPlan(plan))
        if estimate > limit { throw TuningError(.tooLarge, Self.memoryMessage(estimate, limit, plan), parameter: "lora.max_length") }
    }

    /// Large files are read when the job's turn comes. What their uploads reported bounds the memory from below: a job that is refused here could not have
    /// run, and one that passes may still fail when it is looked at. An adapter that is continued is not read for it.
    private func checkMemory(_ request: JobRequest, id: String, limit: Int, _ files: [StoredFile]) throws(TuningError) {
        let reports = files.compactMap { file in file.report.flatMap { DatasetSize(report: $0) } }
        guard request.initialAdapter == nil, reports.count == files.count, let training = reports.first else { return }
        let plan = JobPlan(
            request, suffix: request.suffix ?? "ft-\(id)", seed: request.seed ?? 0, exampleCount: training.exampleCount,
            parameterCount: adapters.base.configuration.approximateParameterCount, defaults: configuration.defaults, trainingDigest: "", validationDigest: nil,
            initial: nil, initialPairs: nil)
        let longest = min(reports.reduce(1) { max($0, $1.longestTokenCount) }, plan.maximumLength)
        let standIn = training.standIn(longest: longest, rows: plan.configuration.microBatchTokens, method: request.method)
        let shape = TrainingPlan(configuration: plan.configuration, training: standIn)
        let tokens = reports.reduce(0) { $0 + $1.tokenCount }
        let estimate = trainer.memoryEstimate(for: shape) + max(0, tokens * TrainingExamples.tokenBytes - standIn.byteCount)
        if estimate > limit { throw TuningError(.tooLarge, Self.memoryMessage(estimate, limit, plan), parameter: "lora.max_length") }
    }

    static func memoryMessage(_ estimate: Int, _ limit: Int, _ plan: JobPlan) -> String {
        let mebibytes = { (bytes: Int) in (bytes >> 20) + (bytes & 0xFFFFF == 0 ? 0 : 1) }
        return "the job would need about \(mebibytes(estimate)) MiB beside the model, expected at most \(mebibytes(limit)) MiB (tuning.memory_megabytes); "
            + "lower lora.max_length (now \(plan.maximumLength)) or lora.rank (now \(plan.configuration.rank)), or name fewer lora.target_modules"
    }

    /// Reads everything that a request names, and fills in what it leaves open.
    func prepare(_ request: JobRequest, id: String, owner: String, interruption: Interruption? = nil) throws(Halt) -> (JobPlan, JobData) {
        let maximumLength = request.maximumLength ?? configuration.defaults.maximumLength
        let data = try reader.data(for: request, owner: owner, maximumLength: maximumLength, interruption: interruption)
        let plan = JobPlan(
            request, suffix: request.suffix ?? "ft-\(id)", seed: request.seed ?? 0, exampleCount: data.training.examples.count,
            parameterCount: adapters.base.configuration.approximateParameterCount, defaults: configuration.defaults, trainingDigest: data.trainingDigest,
            validationDigest: data.validationDigest, initial: data.initial, initialPairs: data.initialPairs)
        return (plan, data)
    }

    static func text(_ value: JSONValue) -> String { String(decoding: value.serialized(), as: UTF8.self) }

    private static func randomDigits(_ count: Int) -> String {
        let digits = Array("0123456789abcdef")
        return String((0..<count).map { _ in digits[Int.random(in: 0..<16)] })
    }

    // MARK: Commands

    public func cancel(_ id: String, owner: String) throws(TuningError) -> FineTuningJob {
        try command(id, owner, .cancelled, "The job was cancelled")
    }

    public func pause(_ id: String, owner: String) throws(TuningError) -> FineTuningJob {
        try command(id, owner, .paused, "The job was paused")
    }

    public func resume(_ id: String, owner: String) throws(TuningError) -> FineTuningJob {
        try command(id, owner, .resumed, "The job was resumed")
    }

    private func command(_ id: String, _ owner: String, _ happening: JobState.Happening, _ message: String) throws(TuningError) -> FineTuningJob {
        let number = try find(id, owner).number
        let row = try change(number, happening) { row, companions throws(TuningError) in
            companions.events = [event(message)]
            if happening == .paused { row.estimatedFinish = nil }
        }
        // The run that has the job in hand removes its folder itself, when it has found out.
        if happening == .cancelled, state.withLock({ $0.current?.number != number }) { snapshotFile(id).remove() }
        wake()
        return try job(row)
    }
}
