import Adapters
import ArgumentParser
import InstructionStore
import JSON
import OpenAIAPI
import Training
import Tuning

#if canImport(Glibc)
import Glibc
#endif

struct TuneCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "tune",
        abstract: "Train a LoRA adapter on your examples, and publish it under a name.",
        discussion: """
            Reads chat JSONL (`messages`), prompt/completion, preference pairs (trained with DPO), Alpaca, ShareGPT or CSV; the format is recognised by \
            content, and every line that cannot be used is named. Without a server the adapter is trained here. While a server runs on the data \
            directory, it does the work and serves the adapter at once.

              graft tune --data pairs.jsonl --name support-bot
              graft tune --data more.jsonl --name support-bot --from support-bot --epochs 2

            Ctrl-C stops after the step in hand; the same command goes on from there, also after a crash. What is not said is chosen to suit the \
            data and the model; what was chosen is shown by `graft jobs show`.
            """)

    @Option(help: ArgumentHelp("The examples.", valueName: "file"))
    var data: String
    @Option(help: ArgumentHelp("The adapter's name: 1 to 64 of A-Z a-z 0-9 . _ -. If there is one, this becomes its newest version.", valueName: "name"))
    var name: String
    @Option(help: ArgumentHelp("Examples to judge by. Default: a tenth of the data, when there are 50 or more.", valueName: "file"))
    var validation: String?
    @Option(help: ArgumentHelp("Continue this adapter: NAME, NAME@3, NAME@latest or a checkpoint's ft:… name.", valueName: "adapter"))
    var from: String?
    @Option(help: ArgumentHelp("supervised or dpo. Default: what the data's format is for.", valueName: "method"))
    var method: JobRequest.Method?
    @Option(help: ArgumentHelp("Passes over the data, 1 to 50.", valueName: "n"))
    var epochs: Int?
    @Option(help: ArgumentHelp("Examples of one step, 1 to 256.", valueName: "n"))
    var batchSize: Int?
    @Option(help: ArgumentHelp("The peak. Default: 1e-3 below 0.3 billion parameters, 5e-4 below 1, 2e-4 above; a tenth for DPO.", valueName: "rate"))
    var learningRate: Double?
    @Option(help: ArgumentHelp("cosine, linear or constant.", valueName: "schedule"))
    var schedule: TrainingConfiguration.Schedule?
    @Option(help: ArgumentHelp("The share of the steps that the learning rate rises for.", valueName: "share"))
    var warmupRatio: Double?
    @Option(help: ArgumentHelp("DPO: how much straying from the reference costs.", valueName: "beta"))
    var beta: Double?
    @Option(help: ArgumentHelp("The adapter's rank, 1 to 256. Default: the setting tuning.rank.", valueName: "rank"))
    var rank: Int?
    @Option(help: ArgumentHelp("The adapter's scale is alpha / rank. Default: twice the rank.", valueName: "alpha"))
    var alpha: Double?
    @Flag(help: "The adapter's scale is alpha / √rank.")
    var rslora = false
    @Option(help: ArgumentHelp("all-linear, or some of q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj.", valueName: "modules"))
    var targetModules: String?
    @Option(help: ArgumentHelp("The share of the adapters' inputs that is dropped at random.", valueName: "share"))
    var dropout: Double?
    @Option(help: ArgumentHelp("Noise on the embeddings; 5 to 15 is usual.", valueName: "alpha"))
    var neftuneAlpha: Double?
    @Option(help: ArgumentHelp("Longer examples lose their end. Default: the setting tuning.max_length.", valueName: "tokens"))
    var maxLength: Int?
    @Flag(help: "Compute each example on its own.")
    var noPacking = false
    @Option(help: ArgumentHelp("float32 or bfloat16. Default: the faster one here.", valueName: "precision"))
    var precision: TrainingConfiguration.Precision?
    @Option(help: ArgumentHelp("The share of the data that is held out to judge by; 0 is none.", valueName: "share"))
    var validationSplit: Double?
    @Option(help: ArgumentHelp("End after so many evaluations without improvement; 0 is never.", valueName: "n"))
    var patience: Int?
    @Option(help: ArgumentHelp("Equal seeds give equal adapters on the same machine.", valueName: "number"))
    var seed: Int?
    @Flag(help: "The bare name keeps meaning the version that is promoted now.")
    var noPromote = false
    @Flag(help: "Make a new job even if the same one is unfinished.")
    var new = false
    @Flag(help: "Print the API's events, one JSON object a line, and the job at the end.")
    var json = false
    @OptionGroup var options: TuningModelOptions
    @OptionGroup var access: AccessOptions

    func validate() throws {
        guard AdapterReference(name)?.selector == .promoted else {
            throw ValidationError("--name takes 1 to 64 of A-Z a-z 0-9 . _ - without a version, not '\(TerminalText.oneLine(name))'.")
        }
        do {
            let format = beta == nil ? DatasetFormat.chat : .preference
            try request(model: "model", trainingFile: "file", validationFile: validation, format: format.rawValue).check()
        } catch {
            throw ValidationError("\(error)")
        }
    }

    func run() throws {
        let file = try TrainingFile(path: data), judges = try validation.map { try TrainingFile(path: $0) }
        let (settings, engine) = try options.engineSettings()
        let home: AdapterHome
        do {
            home = try AdapterHome(try AdapterSettings(settings))
        } catch let error as DataDirectoryError {
            guard let holder = error.holder, let address = holder.address else { throw error }
            return try tune(file, judges, on: RunningServer(address: address, key: try access.key(), certificate: holder.certificate))
        }
        try tune(file, judges, home, settings, engine)
    }

    // MARK: Here

    private func tune(
        _ file: TrainingFile, _ judges: TrainingFile?, _ home: AdapterHome, _ settings: Settings, _ engine: EngineSettings
    ) throws {
        let tuning = try TuningSettings(settings)
        let loaded = try LoadedModel(engine, hashing: true)
        let files = try FileStore(home.store)
        let adapters = try home.registry(
            base: AdapterBase(name: loaded.name, digest: loaded.digest, configuration: loaded.model.configuration, numerics: engine.exact ? .exact : .fast))
        let encoder = try loaded.encoder()
        let queue = try tuning.queue(
            home: home, loaded: loaded, encoder: encoder, adapters: adapters, files: files, turnstile: tuning.turnstile(), reserved: 0,
            notice: { job, message in writeAll("graft: \(job): \(message)\n", to: STDERR_FILENO) })
        let reader = DatasetReader(encoder: encoder, maximumLength: min(maxLength ?? tuning.maximumLength, loaded.model.configuration.contextLength))
        func keep(_ file: TrainingFile) throws -> (id: String, format: String) {
            let report = try file.report(by: reader)
            let stored = try files.add(
                file.bytes, name: file.name, purpose: "fine-tune", owner: Owner.local, status: .processed,
                report: String(decoding: JSONValue.object(report.json).serialized(), as: UTF8.self))
            return (stored.id, report.format.rawValue)
        }

        let job: FineTuningJob
        if let unfinished = try unfinished(file, judges, queue, files, adapters, base: loaded.name) {
            say("going on with \(unfinished.id), which is at step \(unfinished.step)\(unfinished.stepCount > 0 ? "/\(unfinished.stepCount)" : "")")
            job = unfinished.state.isPaused ? try queue.resume(unfinished.id, owner: Owner.local) : unfinished
        } else {
            for other in try queue.jobs(owner: Owner.local, after: nil, limit: 100, metadata: .any).elements where !other.status.isFinal && other.request.suffix == name {
                say("\(other.id) of the same name has not ended: `graft serve` would go on with it; `graft jobs cancel \(other.id)` ends it")
            }
            // Both are looked at before one is kept.
            _ = try judges.map { try $0.report(by: reader) }
            let training = try keep(file), validation = try judges.map(keep)
            do {
                job = try queue.create(
                    request(model: loaded.name, trainingFile: training.id, validationFile: validation?.id, format: training.format), owner: Owner.local)
            } catch {
                for id in [training.id, validation?.id].compactMap({ $0 }) { _ = try? files.delete(id: id, owner: Owner.local) }
                throw error
            }
        }
        let jobs = LocalJobs(queue, holding: home, isWorking: true)
        // From here on Ctrl-C ends the step in hand; until here it ends the process.
        let signals = try SignalPipe(reporting: [SIGINT, SIGTERM])
        queue.start(only: job.id)
        var follower = JobFollower(jobs, signals: signals, json: json)
        let end = Result { try follower.follow(job.id) }
        queue.shutdown()
        switch try end.get() {
        case .finished(let finished):
            // The copies that the job read; the user has the originals.
            for id in [job.request.trainingFile, job.request.validationFile].compactMap({ $0 }) { _ = try? files.delete(id: id, owner: Owner.local) }
            try conclude(finished)
        case .interrupted, .waiting:
            say("stopped after step \(try jobs.show(job.id)["graft"]?["progress"]?["step"]?.integer ?? 0); the same command goes on from there, and so does `graft serve`")
            throw ExitCode(1)
        }
    }

    /// The job that this very command began and did not end.
    private func unfinished(
        _ file: TrainingFile, _ judges: TrainingFile?, _ queue: JobQueue, _ files: FileStore, _ adapters: AdapterRegistry, base: String
    ) throws -> FineTuningJob? {
        if new { return nil }
        for job in try queue.jobs(owner: Owner.local, after: nil, limit: 100, metadata: .any).elements where !job.status.isFinal && job.request.suffix == name {
            func isSame(_ id: String?, _ file: TrainingFile?) throws -> Bool {
                guard let id, let file else { return id == nil && file == nil }
                return try files.file(id: id, owner: Owner.local)?.digest == file.digest
            }
            guard try isSame(job.request.trainingFile, file), try isSame(job.request.validationFile, judges) else { continue }
            var asked = try request(
                model: base, trainingFile: job.request.trainingFile, validationFile: job.request.validationFile,
                format: job.request.method == .dpo ? DatasetFormat.preference.rawValue : DatasetFormat.chat.rawValue)
            // What was filled in when the job was made: a seed, and the exact version of the adapter that is continued.
            if seed == nil { asked.seed = job.request.seed }
            if let from {
                let stored = job.request.initialAdapter
                let named = adapters.version(alias: from, owner: Owner.local)?.qualifiedName
                guard let stored, named == stored || AdapterReference(from)?.name == AdapterReference(stored)?.name else { continue }
                asked.initialAdapter = stored
            }
            if asked == job.request { return job }
        }
        return nil
    }

    // MARK: By the server

    private func tune(_ file: TrainingFile, _ judges: TrainingFile?, on server: RunningServer) throws {
        if options.threads != nil { throw CommandError("a server runs at \(server.address) and trains on its own threads: leave out --threads, or stop the server") }
        say("the server at \(server.address) trains")
        func upload(_ file: TrainingFile) throws -> (id: String, format: String) {
            let name = file.name.replacing("\"", with: "_").filter { !$0.isNewline }
            let form = MultipartForm([.init("purpose", "fine-tune"), .init("file", filename: name, file.bytes)])
            let answer = try server.json("POST", "/v1/files", form: form)
            let report = answer["graft_report"]
            let problems = (report?["problems"]?.array ?? []).map { (Int($0["line"]?.integer ?? 0), $0["message"]?.string ?? "") }
            if answer["status"]?.string == "error" {
                if let id = answer["id"]?.string { _ = try? server.checked("DELETE", "/v1/files/\(id)") }
                throw file.refusal(examples: Int(report?["examples"]?.integer ?? 0), problems: Int(report?["bad_lines"]?.integer ?? 0), shown: problems)
            }
            return (answer["id"]?.string ?? "", report?["format"]?.string ?? "")
        }
        func remove(_ files: [String?]) { for file in files.compactMap({ $0 }) { _ = try? server.checked("DELETE", "/v1/files/\(file)") } }
        let id: String, files: [String?]
        if let job = try unfinished(file, on: server) {
            id = job["id"]?.string ?? ""
            files = [job["training_file"]?.string, job["validation_file"]?.string]
            say("the server is at work on \(id), of the same name and data: following that; --new makes another one")
        } else {
            let training = try upload(file), validation = try judges.map(upload)
            files = [training.id, validation?.id]
            do {
                id = try server.json(
                    "POST", RemoteJobs.path,
                    body: body(model: options.model ?? "default", trainingFile: training.id, validationFile: validation?.id, format: training.format))["id"]?.string ?? ""
            } catch {
                remove(files)
                throw error
            }
        }
        var follower = JobFollower(RemoteJobs(server: server), signals: try SignalPipe(reporting: [SIGINT, SIGTERM]), json: json)
        switch try follower.follow(id) {
        case .finished(let finished):
            remove(files)
            try conclude(finished)
        case .interrupted, .waiting: say("the job goes on in the server; `graft jobs watch \(id)` shows it, `graft jobs cancel \(id)` ends it")
        }
    }

    /// A job of the server's that has not ended, with this name and these examples: one that a local run of this command left, or an earlier one.
    private func unfinished(_ file: TrainingFile, on server: RunningServer) throws -> JSONValue? {
        if new { return nil }
        return try RemoteJobs(server: server).list(limit: 100).first { job in
            guard !job.isFinalJob, job["user_provided_suffix"]?.string == name, let id = job["training_file"]?.string else { return false }
            return (try? server.checked("GET", "/v1/files/\(id)/content"))?.body == file.bytes
        }
    }

    // MARK: What is asked for

    private func request(model: String, trainingFile: String, validationFile: String?, format: String) throws -> JobRequest {
        do {
            return try JobFields.request(body(model: model, trainingFile: trainingFile, validationFile: validationFile, format: format).object ?? JSONObject())
        } catch {
            throw CommandError(error.message)
        }
    }

    /// The API's request: what a client of the server would send.
    private func body(model: String, trainingFile: String, validationFile: String?, format: String) -> JSONValue {
        let method = method ?? (format == DatasetFormat.preference.rawValue ? .dpo : .supervised)
        func integer(_ value: Int?) -> JSONValue { value.map { .integer(Int64($0)) } ?? .null }
        func number(_ value: Double?) -> JSONValue { value.map { .number($0) } ?? .null }
        var hyperparameters: JSONObject = ["n_epochs": integer(epochs), "batch_size": integer(batchSize)]
        if method == .dpo || beta != nil { hyperparameters["beta"] = number(beta) }
        let modules: JSONValue? = targetModules.map { text in
            text == "all-linear" ? "all-linear" : .array(text.split(separator: ",", omittingEmptySubsequences: false).map { .string(String($0)) })
        }
        return [
            "model": .string(model), "training_file": .string(trainingFile), "validation_file": validationFile.map { .string($0) } ?? .null,
            "suffix": .string(name), "seed": integer(seed),
            "method": ["type": .string(method.rawValue), method.rawValue: ["hyperparameters": .object(hyperparameters)]] as JSONValue,
            "lora": [
                "rank": integer(rank), "alpha": number(alpha), "use_rslora": rslora ? true : .null, "target_modules": modules ?? .null, "dropout": number(dropout),
                "neftune_alpha": number(neftuneAlpha), "max_length": integer(maxLength), "packing": noPacking ? false : .null,
                "precision": precision.map { .string($0.rawValue) } ?? .null, "validation_split": number(validationSplit),
                "early_stopping_patience": integer(patience), "learning_rate": number(learningRate), "schedule": schedule.map { .string($0.rawValue) } ?? .null,
                "warmup_ratio": number(warmupRatio), "initial_adapter": from.map { .string($0) } ?? .null, "promote": noPromote ? false : .null,
            ],
        ]
    }

    // MARK: The end

    private func conclude(_ job: JSONValue) throws {
        if json { print(String(decoding: job.serialized(), as: UTF8.self)) }
        guard job["status"]?.string == "succeeded" else {
            // The failure itself was among the events.
            throw ExitCode(1)
        }
        let adapter = job["graft"]?["adapter"]?.string ?? name
        let seconds = (job["finished_at"]?.integer ?? 0) - (job["graft"]?["started_at"]?.integer ?? 0)
        if !json {
            print("\(adapter) is published: \(job["trained_tokens"]?.integer ?? 0) trained tokens in \(seconds) s; `graft chat\(options.model.map { " -m \($0)" } ?? "") --adapter \(noPromote ? adapter : name)` talks to it")
        }
    }

    private func say(_ text: String) {
        if !json { writeAll(text + "\n", to: STDERR_FILENO) }
    }
}

/// The model that is trained on, when no server runs.
struct TuningModelOptions: ParsableArguments {
    @Option(name: .shortAndLong, help: ArgumentHelp("The base model. Default: the setting `model`; a running server's own.", valueName: "name|file"))
    var model: String?
    @Option(help: ArgumentHelp("Settings. Default: Config/graft.yaml, if there is one.", valueName: "file"))
    var config: String?
    @Option(help: "Compute threads. Default: one per core.")
    var threads: Int?

    func engineSettings() throws -> (settings: Settings, engine: EngineSettings) {
        var options = ModelOptions()
        options.model = model
        options.config = config
        options.threads = threads
        options.context = nil
        options.exact = false
        try options.validate()
        return try options.engineSettings()
    }
}

extension JobRequest.Method: ExpressibleByArgument {}
extension TrainingConfiguration.Schedule: ExpressibleByArgument {}
