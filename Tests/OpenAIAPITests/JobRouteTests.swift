import HTTPServing
import HTTPTypes
import InstructionStore
import JSON
import Modeling
import OpenAIAPI
import Testing
import Training
import Tuning

/// The routes below `/v1/fine_tuning/jobs`.
@Suite struct JobRouteTests {
    private let tuning = FakeTuning()
    private let harness: Harness

    init() throws {
        harness = try Harness(adapters: FakeAdapters(), tuning: tuning)
    }

    private func post(_ path: String, _ body: String = "") async -> RecordingTransport.Response {
        await harness.settled(await harness.send(.post, path, body))
    }

    private func get(_ path: String) async -> RecordingTransport.Response {
        await harness.settled(await harness.send(.get, path, contentType: nil))
    }

    private func create(_ fields: String = "") async -> RecordingTransport.Response {
        await post("/v1/fine_tuning/jobs", #"{"model":"tiny","training_file":"file-1"\#(fields.isEmpty ? "" : "," + fields)}"#)
    }

    private func request(_ fields: String) async throws -> JobRequest {
        let response = await create(fields)
        #expect(response.status == 200, "\(response.text)")
        return try #require(tuning.state.withLock { $0.requests.last })
    }

    private func error(_ fields: String) async throws -> (status: Int?, param: String?, code: String?) {
        let response = await create(fields)
        let error = try response.json()["error"]
        return (response.status, error?["param"]?.string, error?["code"]?.string)
    }

    // MARK: - Creating

    @Test func theJobObject() async throws {
        let response = await create(#""suffix":"bot","metadata":{"a":"b"}"#)
        #expect(response.status == 200)
        let hyperparameters: JSONValue = ["n_epochs": "auto", "batch_size": "auto", "learning_rate_multiplier": "auto"]
        #expect(
            try response.json() == [
                "object": "fine_tuning.job", "id": "ftjob-1", "created_at": 1_800_000_000, "finished_at": .null, "estimated_finish": .null, "model": "tiny",
                "fine_tuned_model": .null, "organization_id": "local", "status": "validating_files", "hyperparameters": hyperparameters,
                "method": ["type": "supervised", "supervised": ["hyperparameters": hyperparameters]], "training_file": "file-1", "validation_file": .null,
                "result_files": [], "trained_tokens": .null, "seed": 77, "error": .null, "integrations": [], "metadata": ["a": "b"],
                "user_provided_suffix": "bot",
                "graft": [
                    "adapter": .null, "paused": false, "storage": "ok", "promote": true, "initial_adapter": .null,
                    "progress": ["step": 0, "total_steps": 0, "trained_tokens": 0], "started_at": .null, "lora": .null, "data": .null,
                ],
            ])
    }

    @Test func aJobThatHasEnded() async throws {
        _ = await create(#""method":{"type":"dpo"}"#)
        let plan = JobPlan(
            JobRequest(model: "tiny", trainingFile: "f").with { $0.method = .dpo }, suffix: "bot", seed: 1, exampleCount: 100, parameterCount: 1,
            defaults: JobDefaults(), trainingDigest: "t", validationDigest: nil, initial: nil, initialPairs: nil)
        tuning.edit("ftjob-1") {
            $0.state = JobState(status: .succeeded)
            $0.plan = plan
            $0.finishedAt = 5
            $0.step = 9
            $0.stepCount = 9
            $0.trainedTokenCount = 1234
            $0.fineTunedModel = "ft:tiny:local:bot:ftjob-1"
            $0.adapter = "bot@2"
            $0.resultFiles = ["file-9"]
        }
        let job = try await get("/v1/fine_tuning/jobs/ftjob-1").json()
        let hyperparameters: JSONValue = ["n_epochs": 6, "batch_size": 8, "learning_rate_multiplier": 1.0, "beta": 0.1]
        #expect(job["hyperparameters"] == hyperparameters && job["method"]?["dpo"]?["hyperparameters"] == hyperparameters && job["method"]?["type"] == "dpo")
        #expect(job["trained_tokens"] == 1234 && job["fine_tuned_model"] == "ft:tiny:local:bot:ftjob-1" && job["result_files"] == ["file-9"])
        #expect(job["graft"]?["adapter"] == "bot@2" && job["graft"]?["data"] == ["training_examples": 90, "held_out_examples": 10])
        #expect(job["graft"]?["lora"]?["rank"] == 16 && job["graft"]?["lora"]?["learning_rate"] == 1e-4)
        #expect(job["graft"]?["lora"]?["target_modules"]?.array?.count == 7)
        tuning.edit("ftjob-1") {
            $0.state = JobState(status: .failed)
            $0.failure = FineTuningJob.Failure(code: "invalid_training_file", message: "it is bad", parameter: "training_file")
        }
        let error = try await get("/v1/fine_tuning/jobs/ftjob-1").json()["error"]
        #expect(error == ["code": "invalid_training_file", "message": "it is bad", "param": "training_file"])
        tuning.edit("ftjob-1") { $0.state = JobState(status: .queued, isPaused: true, storage: .full) }
        let paused = try await get("/v1/fine_tuning/jobs/ftjob-1").json()
        #expect(paused["status"] == "queued" && paused["graft"]?["paused"] == true && paused["graft"]?["storage"] == "full")
    }

    @Test func whatIsRead() async throws {
        var expected = JobRequest(model: "tiny", trainingFile: "file-1")
        #expect(try await request("") == expected)
        #expect(try await request(#""hyperparameters":{"n_epochs":"auto","batch_size":"auto"},"integrations":[],"seed":null"#) == expected)
        #expect(try await request(#""integrations":null,"lora":{"rank":"auto","target_modules":null,"precision":"auto"}"#) == expected)
        expected.epochs = 2
        expected.batchSize = 4
        expected.learningRateMultiplier = 0.5
        #expect(try await request(#""hyperparameters":{"n_epochs":2,"batch_size":4,"learning_rate_multiplier":0.5}"#) == expected)
        #expect(
            try await request(#""method":{"type":"supervised","supervised":{"hyperparameters":{"n_epochs":2,"batch_size":4.0,"learning_rate_multiplier":0.5}}}"#)
                == expected)
        expected.method = .dpo
        expected.beta = 0.2
        #expect(
            try await request(
                #""method":{"type":"dpo","dpo":{"hyperparameters":{"n_epochs":2,"batch_size":4,"learning_rate_multiplier":0.5,"beta":0.2}}}"#) == expected)
        let lora = try await request(
            #"""
            "validation_file":"file-2","suffix":"bot","seed":3,"lora":{"rank":8,"alpha":16,"dropout":0.1,"target_modules":["q_proj","down_proj"],
            "use_rslora":true,"max_length":512,"neftune_alpha":5,"packing":false,"precision":"float32","initial_adapter":"cat@2","promote":false,
            "validation_split":"auto","early_stopping_patience":2,"schedule":"linear","warmup_ratio":0.1,"learning_rate":0.001}
            """#)
        #expect(lora.validationFile == "file-2" && lora.suffix == "bot" && lora.seed == 3 && lora.rank == 8 && lora.alpha == 16 && lora.dropout == 0.1)
        #expect(lora.projections == [.q, .down] && lora.usesRankStabilisedScale == true && lora.maximumLength == 512 && lora.neftuneAlpha == 5)
        #expect(lora.packs == false && lora.precision == .float32 && lora.initialAdapter == "cat@2" && !lora.promotes && lora.validationSplit == nil)
        #expect(lora.earlyStoppingPatience == 2 && lora.schedule == .linear && lora.warmupRatio == 0.1 && lora.learningRate == 0.001)
        #expect(try await request(#""lora":{"target_modules":"all-linear","validation_split":0.2}"#).projections == Set(Projection.allCases))
    }

    @Test(arguments: [
        (#""hyperparameters":{"n_epochs":0}"#, "hyperparameters.n_epochs", "invalid_value"),
        (#""hyperparameters":{"n_epochs":51}"#, "hyperparameters.n_epochs", "invalid_value"),
        (#""hyperparameters":{"n_epochs":"three"}"#, "hyperparameters.n_epochs", "invalid_type"),
        (#""hyperparameters":{"epochs":3}"#, "hyperparameters.epochs", "unknown_parameter"),
        (#""hyperparameters":{},"method":{"type":"dpo"}"#, "hyperparameters", "invalid_value"),
        (#""method":{}"#, "method.type", "missing_required_parameter"),
        (#""method":{"type":"reinforcement"}"#, "method.type", "unsupported_value"), (#""method":{"type":"x"}"#, "method.type", "invalid_value"),
        (#""method":{"type":"dpo","supervised":{}}"#, "method.supervised", "unknown_parameter"),
        (#""method":{"type":"supervised","supervised":{"hyperparameters":{"beta":0.1}}}"#, "method.supervised.hyperparameters.beta", "unknown_parameter"),
        (#""method":{"type":"dpo","dpo":{"hyperparameters":{"beta":0}}}"#, "method.dpo.hyperparameters.beta", "invalid_value"),
        (#""lora":{"rank":100000}"#, "lora.rank", "invalid_value"), (#""lora":{"ranks":1}"#, "lora.ranks", "unknown_parameter"),
        (#""lora":{"target_modules":["q_proj","lm_head"]}"#, "lora.target_modules", "invalid_value"),
        (#""lora":{"target_modules":3}"#, "lora.target_modules", "invalid_type"), (#""lora":{"schedule":"step"}"#, "lora.schedule", "invalid_value"),
        (#""lora":{"precision":"float16"}"#, "lora.precision", "invalid_value"), (#""lora":[]"#, "lora", "invalid_type"),
        (#""integrations":[{"type":"wandb"}]"#, "integrations", "unsupported_parameter"), (#""suffix":"""#, "suffix", "invalid_value"),
        (#""seed":-1"#, "seed", "invalid_value"), (#""metadata":{"a":1}"#, "metadata", "invalid_type"), (#""epochs":3"#, "epochs", "unknown_parameter"),
    ]) func whatIsRefused(_ fields: String, _ param: String, _ code: String) async throws {
        let error = try await error(fields)
        #expect(error.status == 400 && error.param == param && error.code == code, "\(error)")
        #expect(tuning.state.withLock { $0.requests.isEmpty })
    }

    /// Whatever a known field holds, the answer is a job or a word on that field.
    @Test func oddValues() async throws {
        let values: [JSONValue] = [
            .null, true, -1, 0, 1, .integer(.max), .integer(.min), 0.5, 1e300, -0.0, "", "auto", "x", "\u{0}\u{2028}é🙂", [], [1], ["q_proj", .null], [:],
            ["type": "dpo", "dpo": ["hyperparameters": 3]], ["type": 1], ["a": .null], ["hyperparameters": []],
        ]
        let top = ["model", "training_file", "validation_file", "suffix", "seed", "metadata", "integrations", "method", "hyperparameters", "lora", ""]
        let lora = [
            "rank", "alpha", "dropout", "target_modules", "use_rslora", "max_length", "neftune_alpha", "packing", "precision", "initial_adapter", "promote",
            "validation_split", "early_stopping_patience", "schedule", "warmup_ratio", "learning_rate",
        ]
        for value in values {
            var bodies: [JSONObject] = top.map { [$0: value] } + lora.map { ["lora": [$0: value]] }
            bodies += ["n_epochs", "batch_size", "learning_rate_multiplier"].map { ["hyperparameters": [$0: value]] }
            for fields in bodies {
                var body: JSONObject = ["model": "tiny", "training_file": "f"]
                for (key, value) in fields { body[key] = value }
                let response = await post("/v1/fine_tuning/jobs", String(decoding: JSONValue.object(body).serialized(), as: UTF8.self))
                #expect(response.status == 200 || response.status == 400, "\(fields)")
                if response.status == 400 { #expect(try response.json()["error"]?["param"]?.string != nil, "\(fields)") }
            }
        }
        // What the wire lets through is in range, but for an empty list, which the service refuses.
        #expect(tuning.state.withLock { $0.requests.allSatisfy { $0.projections == [] || (try? $0.check()) != nil } })
    }

    @Test func whatIsMissing() async throws {
        for (body, param) in [(#"{"training_file":"f"}"#, "model"), (#"{"model":"m"}"#, "training_file")] {
            let response = await post("/v1/fine_tuning/jobs", body)
            #expect(try response.status == 400 && response.json()["error"]?["param"]?.string == param)
        }
        #expect(await post("/v1/fine_tuning/jobs", "[]").status == 400)
        #expect(await post("/v1/fine_tuning/jobs", "{").status == 400)
        let id = await harness.send(.post, "/v1/fine_tuning/jobs", "{}", contentType: "text/plain")
        #expect(await harness.settled(id).status == 415)
    }

    @Test func theServicesRefusals() async throws {
        for (error, status, code) in [
            (TuningError(.invalidArgument, "m", parameter: "training_file"), 400, "invalid_value"), (TuningError(.notFound, "m", parameter: "model"), 404, "model_not_found"),
            (TuningError(.tooLarge, "m", parameter: "lora.max_length"), 400, "memory_limit_exceeded"), (TuningError(.storageFull, "/path"), 507, "storage_full"),
            (TuningError(.storage, "/path"), 500, "storage_error"),
        ] {
            tuning.state.withLock { $0.failure = error }
            let response = await create()
            #expect(response.status == status)
            let found = try response.json()["error"]
            #expect(found?["code"]?.string == code && found?["param"]?.string == error.parameter && found?["message"]?.string?.contains("/path") == false)
            if status >= 500 { #expect(response.head?.headerFields[text: "x-should-retry"] == "false") }
        }
        #expect(harness.logs.text.contains("/path"))
    }

    // MARK: - Commands

    @Test func commands() async throws {
        _ = await create()
        tuning.edit("ftjob-1") { $0.state = JobState(status: .running) }
        let paused = try await post("/v1/fine_tuning/jobs/ftjob-1/pause").json()
        #expect(paused["status"] == "queued" && paused["graft"]?["paused"] == true && paused["object"] == "fine_tuning.job")
        #expect(try await post("/v1/fine_tuning/jobs/ftjob-1/resume").json()["graft"]?["paused"] == false)
        #expect(try await post("/v1/fine_tuning/jobs/ftjob-1/cancel").json()["status"] == "cancelled")
        let again = await post("/v1/fine_tuning/jobs/ftjob-1/cancel")
        #expect(again.status == 409 && again.head?.headerFields[text: "x-should-retry"] == "false")
        #expect(await post("/v1/fine_tuning/jobs/ftjob-9/cancel").status == 404)
        let lines = harness.logs.text.split(separator: "\n").filter { $0.contains("action=job.") && $0.contains(" audit ") }
        #expect(lines.count == 6 && lines.allSatisfy { $0.contains("tenant=local") })
        #expect(lines.last?.contains("fine_tuning_job_not_found") == true)
    }

    @Test func aServerWithoutTuning() async throws {
        let bare = try Harness(adapters: FakeAdapters())
        let response = await bare.get("/v1/fine_tuning/jobs")
        #expect(try response.status == 404 && response.json()["error"]?["code"] == "tuning_disabled")
    }

    @Test func aServerThatDrainsTakesNoJobs() async throws {
        _ = await create()
        harness.handlers.beginDraining()
        #expect(await create().status == 503)
        #expect(await get("/v1/fine_tuning/jobs/ftjob-1").status == 200)
    }

    // MARK: - Lists

    @Test func lists() async throws {
        for _ in 1...3 { _ = await create() }
        let all = try await get("/v1/fine_tuning/jobs").json()
        #expect(all["object"] == "list" && all["has_more"] == false && all["data"]?.array?.map { $0["id"] } == ["ftjob-3", "ftjob-2", "ftjob-1"])
        let page = try await get("/v1/fine_tuning/jobs?limit=1&after=ftjob-3").json()
        #expect(page["has_more"] == true && page["data"]?.array?.map { $0["id"] } == ["ftjob-2"])
        _ = await get("/v1/fine_tuning/jobs?metadata[a]=b&metadata[c]=d")
        _ = await get("/v1/fine_tuning/jobs?metadata=null")
        #expect(tuning.state.withLock { $0.filters } == [.any, .any, .pairs(["a": "b", "c": "d"]), .none])
        for query in ["limit=0", "limit=x", "limit=1001", "metadata=1", "metadata[]=b", "metadata=null&metadata[a]=b", "after=ftjob-9"] {
            #expect(await get("/v1/fine_tuning/jobs?\(query)").status == 400, "\(query)")
        }
    }

    @Test func eventsAndCheckpoints() async throws {
        _ = await create()
        tuning.add("Created", to: "ftjob-1")
        tuning.add("Step 1/9", to: "ftjob-1", kind: .metrics, data: ["step": 1, "train_loss": 2.5])
        let events = try await get("/v1/fine_tuning/jobs/ftjob-1/events").json()
        #expect(
            events == [
                "object": "list",
                "data": [
                    [
                        "object": "fine_tuning.job.event", "id": "ftevent-2", "created_at": 1_800_000_002, "level": "info", "message": "Step 1/9",
                        "type": "metrics", "data": ["step": 1, "train_loss": 2.5],
                    ],
                    [
                        "object": "fine_tuning.job.event", "id": "ftevent-1", "created_at": 1_800_000_001, "level": "info", "message": "Created",
                        "type": "message", "data": [:],
                    ],
                ], "has_more": false,
            ])
        let empty = try await get("/v1/fine_tuning/jobs/ftjob-1/checkpoints").json()
        #expect(empty == ["object": "list", "data": [], "has_more": false, "first_id": .null, "last_id": .null])
        tuning.state.withLock { state in
            state.checkpoints["ftjob-1"] = [1, 2].map { step in
                JobCheckpoint(
                    id: "ftckpt_1-\(step)", job: "ftjob-1", createdAt: 7, step: step, model: "ft:tiny:local:bot:ftjob-1:ckpt-step-\(step)",
                    adapter: "ftjob-1@\(step)", trainLoss: 1.5, trainAccuracy: 0.5, validLoss: step == 1 ? nil : 1.25, validAccuracy: step == 1 ? nil : 0.75,
                    rewardMargin: nil, isKept: step == 2, isBest: step == 2)
            }
        }
        let page = try await get("/v1/fine_tuning/jobs/ftjob-1/checkpoints?limit=1").json()
        #expect(page["has_more"] == true && page["first_id"] == "ftckpt_1-2" && page["last_id"] == "ftckpt_1-2")
        #expect(
            page["data"]?[0] == [
                "object": "fine_tuning.job.checkpoint", "id": "ftckpt_1-2", "created_at": 7,
                "fine_tuned_model_checkpoint": "ft:tiny:local:bot:ftjob-1:ckpt-step-2", "fine_tuning_job_id": "ftjob-1", "step_number": 2,
                "metrics": [
                    "step": 2, "train_loss": 1.5, "train_mean_token_accuracy": 0.5, "valid_loss": 1.25, "valid_mean_token_accuracy": 0.75,
                    "full_valid_loss": 1.25, "full_valid_mean_token_accuracy": 0.75,
                ], "graft": ["adapter": "ftjob-1@2", "kept": true, "best": true],
            ])
        #expect(await get("/v1/fine_tuning/jobs/ftjob-9/events").status == 404)
        #expect(await get("/v1/fine_tuning/jobs/ftjob-9/checkpoints").status == 404)
    }

    // MARK: - Following

    /// Waits until a stream has this many events.
    private func events(_ id: ExchangeID, _ count: Int) async throws -> [String] {
        while true {
            let response = await harness.response(id)
            let events = response.text.isEmpty ? [] : response.events()
            if events.count >= count { return events }
            await harness.transport.waitForJob()
        }
    }

    private func message(_ event: String) throws -> String? { try JSONValue(parsing: Array(event.utf8))["message"]?.string }

    @Test func aFollowerSeesAllAndTheEnd() async throws {
        _ = await create()
        tuning.add("one", to: "ftjob-1")
        let id = await harness.send(.get, "/v1/fine_tuning/jobs/ftjob-1/events?stream=true", contentType: nil)
        #expect(try await events(id, 1).map(message) == ["one"])
        var response = await harness.response(id)
        #expect(response.status == 200 && response.isStream && !response.isOver && response.keepAlive == .seconds(15))
        #expect(response.head?.headerFields[.contentType] == "text/event-stream; charset=utf-8")
        tuning.add("two", to: "ftjob-1")
        tuning.add("three", to: "ftjob-1")
        #expect(try await events(id, 3).map(message) == ["one", "two", "three"])
        tuning.edit("ftjob-1") { $0.state = JobState(status: .succeeded) }
        let all = try await events(id, 4)
        #expect(all.last == "[DONE]")
        response = await harness.response(id)
        #expect(response.isOver && response.heads == 1 && response.ends == 1)
        #expect(tuning.observerCount == 0)
        // One who comes later sees the rest.
        let late = await harness.settled(await harness.send(.get, "/v1/fine_tuning/jobs/ftjob-1/events?stream=true&after=ftevent-2", contentType: nil))
        #expect(try late.events().dropLast().map(message) == ["three"])
    }

    @Test func manyEventsComeInPieces() async throws {
        _ = await create()
        for number in 1...450 { tuning.add("\(number)", to: "ftjob-1") }
        tuning.edit("ftjob-1") { $0.state = JobState(status: .cancelled) }
        let response = await harness.settled(await harness.send(.get, "/v1/fine_tuning/jobs/ftjob-1/events?stream=true", contentType: nil))
        #expect(try response.events().dropLast().map(message) == (1...450).map(String.init))
        #expect(tuning.state.withLock { $0.readings } == [0, 200, 400])
    }

    @Test func aSlowFollowerIsNotReadFor() async throws {
        _ = await create()
        let id = await harness.send(.get, "/v1/fine_tuning/jobs/ftjob-1/events?stream=true", contentType: nil)
        while await !harness.response(id).isStream { await harness.transport.waitForJob() }
        await harness.setCongested(id, true)
        for number in 1...5 { tuning.add("\(number)", to: "ftjob-1") }
        _ = await harness.response(id)
        #expect(tuning.state.withLock { $0.readings } == [0])
        await harness.setCongested(id, false)
        #expect(try await events(id, 5).count == 5)
        #expect(tuning.state.withLock { $0.readings } == [0, 0])
    }

    @Test func aFollowerThatLeavesIsForgotten() async throws {
        _ = await create()
        let id = await harness.send(.get, "/v1/fine_tuning/jobs/ftjob-1/events?stream=true", contentType: nil)
        while await !harness.response(id).isStream { await harness.transport.waitForJob() }
        #expect(tuning.observerCount == 1)
        await harness.close(id)
        #expect(tuning.observerCount == 0)
        let before = await harness.response(id).text
        tuning.add("late", to: "ftjob-1")
        #expect(await harness.response(id).text == before)
    }

    @Test func drainingEndsStreams() async throws {
        _ = await create()
        let id = await harness.send(.get, "/v1/fine_tuning/jobs/ftjob-1/events?stream=true", contentType: nil)
        while await !harness.response(id).isStream { await harness.transport.waitForJob() }
        harness.handlers.beginDraining()
        tuning.tellAll()
        let response = await harness.settled(id)
        #expect(response.events() == ["[DONE]"])
        #expect(await harness.settled(await harness.send(.get, "/v1/fine_tuning/jobs/ftjob-1/events?stream=true", contentType: nil)).status == 503)
    }

    @Test func followingWhatIsNotThere() async throws {
        let response = await get("/v1/fine_tuning/jobs/ftjob-9/events?stream=true")
        #expect(response.status == 404 && !response.isStream && tuning.observerCount == 0)
        #expect(await get("/v1/fine_tuning/jobs/ftjob-9/events?stream=maybe").status == 400)
        _ = await create()
        #expect(await get("/v1/fine_tuning/jobs/ftjob-1/events?stream=true&after=x").status == 400)
        let id = await harness.send(.get, "/v1/fine_tuning/jobs/ftjob-1/events?stream=true", contentType: nil)
        while await !harness.response(id).isStream { await harness.transport.waitForJob() }
        tuning.state.withLock { $0.failure = TuningError(.storage, "/path failed") }
        tuning.tellAll()
        let broken = await harness.settled(id)
        #expect(broken.status == 200 && broken.text.contains("storage_error") && !broken.text.contains("/path") && !broken.text.contains("[DONE]"))
        #expect(tuning.observerCount == 0)
    }

    // MARK: - Names and figures

    @Test func tunedModelsAnswerByTheirNames() async throws {
        let adapters = try FakeAdapters()
        try adapters.add("bot", versions: 3, promoted: 3)
        let name = "ft:tiny:local:bot:ftjob-1"
        adapters.state.withLock { $0.aliases[name] = "bot@2" }
        let harness = try Harness(adapters: adapters)
        let id = await harness.chat(#"{"model":"\#(name)","messages":[{"role":"user","content":"Hi"}]}"#)
        let sent = try #require(harness.engine.requests.first)
        #expect(sent.adapters.parts.map(\.adapter.version) == [2] && sent.modelName == "bot")
        harness.engine.answer("Hello")
        #expect(try await harness.response(id).json()["model"]?.string == name)
        let card = try await harness.get("/v1/models/\(name)").json()
        #expect(card["id"]?.string == name && card["version"] == 2 && card["root"] == "bot" && card["parent"] == "tiny")
        let unknown = await harness.response(await harness.chat(#"{"model":"ft:tiny:local:bot:x","messages":[{"role":"user","content":"Hi"}]}"#))
        #expect(unknown.status == 404)
        #expect(await harness.get("/v1/models/ft:x").status == 404)
        let both = await harness.response(await harness.chat(#"{"model":"\#(name)","lora":[{"id":"bot"}],"messages":[{"role":"user","content":"Hi"}]}"#))
        #expect(try both.status == 400 && both.json()["error"]?["param"] == "lora")
        let deleted = await harness.settled(await harness.send(.delete, "/v1/models/\(name)", contentType: nil))
        #expect(try deleted.json() == ["id": .string(name), "object": "model", "deleted": true])
        #expect(adapters.record(named: "bot", owner: "local")?.versions.map(\.number) == [1, 3])
        #expect(await harness.get("/v1/models/\(name)").status == 404)
    }

    @Test func figures() async throws {
        tuning.state.withLock { state in
            state.statistics.jobs = [.running: 1, .succeeded: 4]
            state.statistics.steps = 12
            state.statistics.tokens = 3456
            state.statistics.trainedTokens = 789
        }
        #expect(
            harness.metric("graft_tuning") == [
                #"graft_tuning_jobs{status="validating_files"} 0"#, #"graft_tuning_jobs{status="queued"} 0"#, #"graft_tuning_jobs{status="running"} 1"#,
                #"graft_tuning_jobs{status="succeeded"} 4"#, #"graft_tuning_jobs{status="failed"} 0"#, #"graft_tuning_jobs{status="cancelled"} 0"#,
                "graft_tuning_steps_total 12", #"graft_tuning_tokens_total{kind="seen"} 3456"#, #"graft_tuning_tokens_total{kind="trained"} 789"#,
            ])
    }
}

extension JobRequest {
    func with(_ change: (inout JobRequest) -> Void) -> JobRequest {
        var request = self
        change(&request)
        return request
    }
}
