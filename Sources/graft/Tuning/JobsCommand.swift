import ArgumentParser
import JSON

#if canImport(Glibc)
import Glibc
#endif

struct JobsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "jobs",
        abstract: "List, show, follow, pause and cancel fine-tuning jobs.",
        discussion: """
            Asks the server that runs on the data directory, or the one that --server names. Without a server the commands look into the data \
            directory themselves; nothing is trained then, until `graft serve` or the same `graft tune` goes on with it.
            """,
        subcommands: [JobList.self, JobShow.self, JobWatch.self, JobPause.self, JobResume.self, JobCancel.self])
}

/// The options of every `graft jobs` command.
struct JobOptions: ParsableArguments {
    @OptionGroup var base: AdapterOptions
    @Option(help: ArgumentHelp("The server to ask. Default: the one that runs on the data directory.", valueName: "http[s]://host:port"))
    var server: String?
    @Option(help: ArgumentHelp("Authorities (PEM) that the server's certificate may come from, beside the system's. Default: GRAFT_CA_FILE.", valueName: "file"))
    var caFile: String?
}

private func printJSON(_ value: JSONValue) { print(String(decoding: value.serialized(), as: UTF8.self)) }

// MARK: - Text

extension JSONValue {
    /// `running`, `queued (paused)`, `queued (disk full)`: a job's status with what OpenAI has no word for.
    var jobStatusText: String {
        let status = self["status"]?.string ?? ""
        guard !isFinalJob, let more = self["graft"] else { return status }
        if more["paused"]?.bool == true { return status + " (paused)" }
        if let storage = more["storage"]?.string, storage != "ok" { return status + " (disk \(storage))" }
        return status
    }

    /// `72/150`
    fileprivate var jobStepsText: String {
        let progress = self["graft"]?["progress"]
        guard let count = progress?["total_steps"]?.integer, count > 0 else { return "-" }
        return "\(progress?["step"]?.integer ?? 0)/\(count)"
    }

    fileprivate var jobNameText: String { TerminalText.oneLine(self["user_provided_suffix"]?.string ?? "-") }
}

private func describe(_ job: JSONValue, checkpoints: [JSONValue]) -> String {
    var lines: [(String, String)] = [("job", job["id"]?.string ?? ""), ("status", job.jobStatusText)]
    func add(_ name: String, _ value: String?) {
        if let value { lines.append((name, TerminalText.oneLine(value))) }
    }
    if let error = job["error"], !error.isNull { add("error", error["message"]?.string) }
    add("name", job["user_provided_suffix"]?.string)
    add("adapter", job["graft"]?["adapter"]?.string)
    add("model", job["fine_tuned_model"]?.string)
    add("base", job["model"]?.string)
    add("continues", job["graft"]?["initial_adapter"]?.string)
    add("steps", job.jobStepsText)
    if let data = job["graft"]?["data"], let count = data["training_examples"]?.integer {
        add("examples", "\(count), \(data["held_out_examples"]?.integer ?? 0) held out")
    }
    if let lora = job["graft"]?["lora"], let rank = lora["rank"]?.integer, let h = job["hyperparameters"] {
        add(
            "method",
            "\(job["method"]?["type"]?.string ?? ""), \(h["n_epochs"]?.integer ?? 0) epochs, batch \(h["batch_size"]?.integer ?? 0), rank \(rank), "
                + "learning rate \(lora["learning_rate"]?.number ?? 0), seed \(job["seed"]?.integer ?? 0), \(lora["precision"]?.string ?? "")")
    }
    let width = lines.map(\.0.count).max() ?? 0
    var text = lines.map { name, value in name + String(repeating: " ", count: width + 2 - name.count) + value }.joined(separator: "\n")
    guard !checkpoints.isEmpty else { return text }
    var table = TextTable(["STEP", "TRAIN LOSS", "VALID LOSS", "", "CHECKPOINT"], rightAligned: [0, 1, 2])
    for checkpoint in checkpoints.reversed() {
        let metrics = checkpoint["metrics"]
        func loss(_ key: String) -> String { metrics?[key]?.number.map(JobProgress.short) ?? "-" }
        let more = checkpoint["graft"]
        table.add([
            "\(checkpoint["step_number"]?.integer ?? 0)", loss("train_loss"), loss("full_valid_loss"), more?["best"]?.bool == true ? "best" : "",
            more?["kept"]?.bool == true ? TerminalText.oneLine(checkpoint["fine_tuned_model_checkpoint"]?.string ?? "") : "removed",
        ])
    }
    text += "\n\n\(table)"
    return text
}

// MARK: - Commands

struct JobList: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "list", abstract: "The newest jobs.")
    @OptionGroup var options: JobOptions
    @Option(help: "How many at most, up to 100.") var limit = 20

    func validate() throws {
        if !(1...100).contains(limit) { throw ValidationError("--limit takes 1 to 100, not \(limit).") }
    }

    func run() throws {
        let jobs = try openJobs(options).list(limit: limit)
        if options.base.json { return printJSON(.array(jobs)) }
        if jobs.isEmpty { return print("no jobs yet: `graft tune --data FILE --name NAME` makes one") }
        var table = TextTable(["JOB", "STATUS", "NAME", "STEPS", "MODEL"], rightAligned: [3])
        for job in jobs {
            table.add([
                job["id"]?.string ?? "", job.jobStatusText, job.jobNameText, job.jobStepsText, TerminalText.oneLine(job["graft"]?["adapter"]?.string ?? "-"),
            ])
        }
        print(table)
    }
}

struct JobShow: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "show", abstract: "One job with its checkpoints.")
    @OptionGroup var options: JobOptions
    @Argument(help: ArgumentHelp("ftjob-…", valueName: "job")) var id: String

    func run() throws {
        let jobs = try openJobs(options)
        let job = try jobs.show(id)
        if options.base.json { return printJSON(job) }
        print(describe(job, checkpoints: try jobs.checkpoints(of: id)))
    }
}

struct JobWatch: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "watch", abstract: "Follow a job until it ends.",
        discussion: "Shows what has happened and what happens. Ctrl-C ends the watching, not the job. The exit code is 1 if the job failed.")
    @OptionGroup var options: JobOptions
    @Argument(help: ArgumentHelp("ftjob-…; default: the newest one.", valueName: "job")) var id: String?

    func run() throws {
        let jobs = try openJobs(options)
        guard let id = try id ?? jobs.list(limit: 1).first?["id"]?.string else { throw CommandError("there are no jobs to watch") }
        var follower = JobFollower(jobs, signals: try SignalPipe(reporting: [SIGINT]), json: options.base.json)
        switch try follower.follow(id) {
        case .finished(let job):
            if job["status"]?.string == "failed" { throw ExitCode(1) }
        case .interrupted: writeAll("the job goes on; `graft jobs cancel \(id)` ends it\n", to: STDERR_FILENO)
        case .waiting(let job):
            writeAll("the job is \(job.jobStatusText) and nobody works on it: `graft serve` goes on with it\n", to: STDERR_FILENO)
        }
    }
}

private func change(_ id: String, _ change: JobChange, _ options: JobOptions) throws {
    let job = try openJobs(options).change(id, change)
    if options.base.json { printJSON(job) } else { print("\(job["id"]?.string ?? "") is \(job.jobStatusText)") }
}

struct JobPause: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "pause", abstract: "Let a job rest; what is done is kept.")
    @OptionGroup var options: JobOptions
    @Argument(help: ArgumentHelp("ftjob-…", valueName: "job")) var id: String

    func run() throws { try change(id, .pause, options) }
}

struct JobResume: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "resume", abstract: "Let a paused job go on.")
    @OptionGroup var options: JobOptions
    @Argument(help: ArgumentHelp("ftjob-…", valueName: "job")) var id: String

    func run() throws { try change(id, .resume, options) }
}

struct JobCancel: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "cancel", abstract: "End a job for good; its checkpoints stay.")
    @OptionGroup var options: JobOptions
    @Argument(help: ArgumentHelp("ftjob-…", valueName: "job")) var id: String

    func run() throws { try change(id, .cancel, options) }
}
