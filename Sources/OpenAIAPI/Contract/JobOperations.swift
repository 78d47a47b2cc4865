import JSON
import Training
import Tuning

/// The description of the routes about fine-tuning jobs.
enum JobOperations {
    private static let id = Operation.Parameter.id("The job's id.", example: "ftjob-0123456789abcdef")
    private static let job = Operation.Answer.json("The job as it is now.", .named("FineTuningJob"))
    private static let changes = [404, 409, 507]

    static let create = Operation(
        id: "createFineTuningJob", tag: .jobs, summary: "Begin a fine-tuning job", text: "Members that are not known are refused by name, at every level.",
        body: Operation.Body(
            schema: .named("FineTuningJobRequest"),
            examples: [
                (
                    "supervised",
                    [
                        "model": "default", "training_file": "file-0123456789abcdef", "suffix": "support-bot",
                        "method": ["type": "supervised", "supervised": ["hyperparameters": ["n_epochs": 1, "batch_size": "auto"]]],
                        "lora": ["rank": 4, "max_length": 128],
                    ]
                )
            ]),
        answer: job, refusals: changes)

    static let list = Operation(
        id: "listFineTuningJobs", tag: .jobs, summary: "List jobs", text: "The newest first.",
        parameters: [
            .after("The id of the last job of the page before.", .string()), .limit(JobQuery.limitRange, otherwise: 20),
            Operation.Parameter(
                name: "metadata", text: "Only jobs that have these pairs, sent as `metadata[key]=value`; `metadata=null`: only jobs that have none.",
                schema: .map(of: .string(), maximumCount: JobRequest.metadataCount), isDeep: true),
        ],
        answer: .json("A page of jobs.", .list(of: .named("FineTuningJob"))), refusals: [404])

    static let retrieve = Operation(
        id: "retrieveFineTuningJob", tag: .jobs, summary: "Look at a job", parameters: [id], answer: job, refusals: [404])

    static let cancel = Operation(id: "cancelFineTuningJob", tag: .jobs, summary: "End a job", parameters: [id], answer: job, refusals: changes)
    static let pause = Operation(
        id: "pauseFineTuningJob", tag: .jobs, summary: "Pause a job", text: "It is `queued` until it is resumed.", parameters: [id], answer: job,
        refusals: changes)
    static let resume = Operation(id: "resumeFineTuningJob", tag: .jobs, summary: "Let a paused job go on", parameters: [id], answer: job, refusals: changes)

    static let events = Operation(
        id: "listFineTuningEvents", tag: .jobs, summary: "List or follow the events of a job",
        text: "A list has the newest first; a stream has the oldest first.",
        parameters: [
            id, .after("The id of the last event that was read.", .string()), .limit(JobQuery.limitRange, otherwise: 20),
            Operation.Parameter(
                name: "stream", text: "Whether to send what there is and then what comes, until the job ends.",
                schema: .word(["true", "false"]).defaulting(to: "false")),
        ],
        answer: Operation.Answer(
            text: "A page of events, or a stream of them.",
            contents: [
                ("application/json", .list(of: .named("FineTuningJobEvent"))),
                ("text/event-stream", GenerationAnswers.events("FineTuningJobEvent")),
            ]),
        refusals: [404])

    static let checkpoints = Operation(
        id: "listFineTuningCheckpoints", tag: .jobs, summary: "List the checkpoints of a job", text: "The newest first.",
        parameters: [id, .after("The `last_id` of the page before.", .string()), .limit(JobQuery.limitRange, otherwise: 10)],
        answer: .json("A page of checkpoints.", .list(of: .named("FineTuningJobCheckpoint"), cursors: .string())), refusals: [404])

    // MARK: Schemas

    private static func orAuto(_ schema: Schema) -> Schema { .anyOf([schema, .constant("auto")]) }

    private static func hyperparameters(_ method: JobRequest.Method?) -> Schema {
        var members: [Schema.Member] = [
            ("n_epochs", orAuto(.integer(in: JobRequest.epochRange))), ("batch_size", orAuto(.integer(in: JobRequest.batchSizeRange))),
            ("learning_rate_multiplier", orAuto(.number("Scales the rate that suits the model.", in: JobRequest.multiplierRange, excludingLower: true))),
        ]
        if method == .dpo {
            members.append(
                ("beta", orAuto(.number("How strongly a preferred answer is told from a rejected one.", in: JobRequest.betaRange, excludingLower: true))))
        }
        return .request("What is `auto`, or not there, is decided when the data are known.", optional: members, isClosed: true)
    }

    private static let request = Schema.request(
        "",
        required: [
            ("model", .string("The base model, or an adapter or a tuned model to go on with.")),
            ("training_file", .string("The id of a file of purpose `fine-tune`.")),
        ],
        optional: [
            ("validation_file", .string("The id of another one.")),
            ("suffix", .string("The name of the adapter that comes of it.", length: JobRequest.suffixLength)),
            ("seed", .integer(in: JobRequest.seedRange)), ("integrations", .array(of: .any(), "Not supported: follow the job's events.", count: 0...0)),
            ("metadata", GenerationRequests.metadata("The client's own notes.")),
            ("hyperparameters", hyperparameters(nil).described("The older place of `method`'s; not with it.")),
            (
                "method",
                .request(
                    "", required: [("type", .word(JobRequest.Method.allCases.map(\.rawValue)))],
                    optional: JobRequest.Method.allCases.map { method in
                        (method.rawValue, .request("", optional: [("hyperparameters", hyperparameters(method))], isClosed: true))
                    }, isClosed: true)
            ), ("lora", lora),
        ], isClosed: true)

    private static let lora = Schema.request(
        "Graft's own options.",
        optional: [
            ("rank", orAuto(.integer(in: JobRequest.rankRange))), ("alpha", orAuto(.number(in: JobRequest.alphaRange, excludingLower: true))),
            ("dropout", .number(in: JobRequest.dropoutRange)),
            (
                "target_modules",
                .anyOf([.word(["all-linear", "auto"]), .array(of: .word(JobFields.modules.map(\.name)), "PEFT's names.", count: 1 ... .max)])
            ), ("use_rslora", .bool("Whether the scale is alpha over the rank's square root.")),
            ("max_length", orAuto(.integer("Tokens of an example; what is longer loses its end.", in: JobRequest.lengthRange))),
            ("neftune_alpha", .number(in: JobRequest.neftuneRange)), ("packing", .bool("Whether examples share sequences.")),
            ("precision", .word(TrainingConfiguration.Precision.allCases.map(\.rawValue) + ["auto"])),
            ("initial_adapter", .string("An adapter to go on with, when `model` is the base.")),
            ("promote", .bool("Whether the adapter's bare name means the result from then on.").defaulting(to: true)),
            ("validation_split", orAuto(.number("The share that is held out without a validation file.", in: JobRequest.splitRange))),
            ("early_stopping_patience", orAuto(.integer("Evaluations without improvement that end the job; 0: none do.", in: JobRequest.patienceRange))),
            ("schedule", .word(TrainingConfiguration.Schedule.allCases.map(\.rawValue))), ("warmup_ratio", .number(in: JobRequest.warmupRange)),
            (
                "learning_rate",
                orAuto(.number("The peak, instead of `learning_rate_multiplier`.", in: JobRequest.learningRateRange, excludingLower: true))
            ),
        ], isClosed: true)

    /// Numbers where they are known, the word for what is still open otherwise.
    private static let decided = Schema.answer(
        "", [("n_epochs", orAuto(.integer())), ("batch_size", orAuto(.integer())), ("learning_rate_multiplier", orAuto(.number()))],
        optional: [("beta", orAuto(.number()))])

    private static let extensions = Schema.answer(
        "What OpenAI has no place for.",
        [
            ("adapter", Schema.string("The adapter that comes, or came, of it.").orNull), ("paused", .bool()),
            ("storage", .word(["ok", "full", "failed"], "Why the job waits for the disk.")), ("promote", .bool()), ("initial_adapter", Schema.string().orNull),
            ("progress", .answer("", [("step", .integer()), ("total_steps", .integer()), ("trained_tokens", .integer())])),
            ("started_at", Schema.integer().orNull),
            (
                "lora",
                Schema.answer(
                    "What was decided.",
                    [
                        ("rank", .integer()), ("alpha", .number()), ("dropout", .number()),
                        ("target_modules", .array(of: .word(JobFields.modules.map(\.name)))),
                        ("use_rslora", .bool()), ("max_length", .integer()), ("neftune_alpha", .number()), ("packing", .bool()),
                        ("precision", .word(TrainingConfiguration.Precision.allCases.map(\.rawValue))),
                        ("schedule", .word(TrainingConfiguration.Schedule.allCases.map(\.rawValue))), ("warmup_ratio", .number()), ("learning_rate", .number()),
                        ("early_stopping_patience", .integer()),
                    ]
                ).orNull
            ), ("data", Schema.answer("", [("training_examples", .integer()), ("held_out_examples", .integer())]).orNull),
        ])

    private static let checkpointMetrics = Schema.answer(
        "", [("step", .integer()), ("train_loss", .number()), ("train_mean_token_accuracy", .number())],
        optional: ["valid_loss", "valid_mean_token_accuracy", "full_valid_loss", "full_valid_mean_token_accuracy", "full_valid_reward_margin"].map {
            ($0, .number())
        })

    static let schemas: [Schema.Member] = [
        ("FineTuningJobRequest", request),
        (
            "FineTuningJob",
            .answer(
                "",
                [
                    ("object", .constant("fine_tuning.job")), ("id", .string()), ("created_at", .integer("Seconds since 1970.")),
                    ("finished_at", Schema.integer().orNull),
                    ("estimated_finish", Schema.integer().orNull), ("model", .string()),
                    ("fine_tuned_model", Schema.string("What `model` takes to use the result.").orNull),
                    ("organization_id", .string()), ("status", .word(JobState.Status.allCases.map(\.rawValue))), ("hyperparameters", decided),
                    (
                        "method",
                        .answer(
                            "", [("type", .word(JobRequest.Method.allCases.map(\.rawValue)))],
                            optional: JobRequest.Method.allCases.map { ($0.rawValue, .answer("", [("hyperparameters", decided)])) })
                    ), ("training_file", .string()), ("validation_file", Schema.string().orNull),
                    ("result_files", .array(of: .string("The id of a table of metrics."))), ("trained_tokens", Schema.integer().orNull),
                    ("seed", Schema.integer().orNull),
                    ("error", Schema.answer("Why it failed.", [("code", .string()), ("message", .string()), ("param", Schema.string().orNull)]).orNull),
                    ("integrations", .array(of: .any(), count: 0...0)), ("metadata", Schema.map(of: .string()).orNull),
                    ("user_provided_suffix", Schema.string().orNull),
                    ("graft", extensions),
                ])
        ),
        (
            "FineTuningJobEvent",
            .answer(
                "",
                [
                    ("object", .constant("fine_tuning.job.event")), ("id", .string()), ("created_at", .integer("Seconds since 1970.")),
                    ("level", .word(["info", "warn", "error"])), ("message", .string()), ("type", .word(["message", "metrics"])), ("data", .map(of: .any())),
                ])
        ),
        (
            "FineTuningJobCheckpoint",
            .answer(
                "",
                [
                    ("object", .constant("fine_tuning.job.checkpoint")), ("id", .string()), ("created_at", .integer("Seconds since 1970.")),
                    ("fine_tuned_model_checkpoint", .string("What `model` takes to use it.")), ("fine_tuning_job_id", .string()), ("step_number", .integer()),
                    ("metrics", checkpointMetrics), ("graft", .answer("", [("adapter", .string()), ("kept", .bool()), ("best", .bool())])),
                ])
        ),
    ]
}
