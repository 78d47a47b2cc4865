import JSON
import Modeling
import Training
import Tuning

/// The JSON of fine-tuning jobs, their events and checkpoints, as OpenAI has it; what OpenAI has no place for is in the member `graft`.
package enum JobObjects {
    package static func job(_ job: FineTuningJob) -> JSONValue {
        let hyperparameters = hyperparameters(of: job)
        let method = job.request.method.rawValue
        return [
            "object": "fine_tuning.job", "id": .string(job.id), "created_at": .integer(Int64(job.createdAt)), "finished_at": integer(job.finishedAt),
            "estimated_finish": integer(job.estimatedFinish), "model": .string(job.request.model), "fine_tuned_model": string(job.fineTunedModel),
            "organization_id": .string(job.owner), "status": .string(job.status.rawValue), "hyperparameters": hyperparameters,
            "method": ["type": .string(method), method: ["hyperparameters": hyperparameters]] as JSONValue,
            "training_file": .string(job.request.trainingFile), "validation_file": string(job.request.validationFile),
            "result_files": .array(job.resultFiles.map { .string($0) }),
            "trained_tokens": job.status.isFinal ? .integer(Int64(job.trainedTokenCount)) : .null, "seed": integer(job.request.seed),
            "error": job.failure.map { ["code": .string($0.code), "message": .string($0.message), "param": string($0.parameter)] } ?? .null,
            "integrations": [],
            "metadata": job.request.metadata.isEmpty
                ? .null : .object(JSONObject(job.request.metadata.sorted { $0.key < $1.key }.map { ($0.key, .string($0.value)) })),
            "user_provided_suffix": string(job.request.suffix), "graft": extensions(of: job),
        ]
    }

    /// Numbers where they are known, the word for what is still open otherwise.
    private static func hyperparameters(of job: FineTuningJob) -> JSONValue {
        let request = job.request
        var object: JSONObject = [
            "n_epochs": integer(job.plan?.configuration.epochs ?? request.epochs, otherwise: "auto"),
            "batch_size": integer(job.plan?.configuration.batchSize ?? request.batchSize, otherwise: "auto"),
            "learning_rate_multiplier": number(job.plan?.learningRateMultiplier ?? request.learningRateMultiplier, otherwise: "auto"),
        ]
        if request.method == .dpo {
            var beta = request.beta
            if case .preference(let resolved)? = job.plan?.configuration.method { beta = resolved }
            object["beta"] = number(beta, otherwise: "auto")
        }
        return .object(object)
    }

    private static func extensions(of job: FineTuningJob) -> JSONValue {
        var object: JSONObject = [
            "adapter": string(job.adapter), "paused": .bool(job.state.isPaused), "storage": job.state.storage.map { .string($0.rawValue) } ?? "ok",
            "promote": .bool(job.request.promotes), "initial_adapter": string(job.request.initialAdapter),
            "progress": [
                "step": .integer(Int64(job.step)), "total_steps": .integer(Int64(job.stepCount)), "trained_tokens": .integer(Int64(job.trainedTokenCount)),
            ],
            "started_at": integer(job.startedAt),
        ]
        guard let plan = job.plan else {
            object["lora"] = .null
            object["data"] = .null
            return .object(object)
        }
        let configuration = plan.configuration
        object["lora"] = [
            "rank": .integer(Int64(configuration.rank)), "alpha": .number(configuration.alpha), "dropout": .number(configuration.dropout),
            "target_modules": .array(JobFields.modules.filter { configuration.projections.contains($0.projection) }.map { .string($0.name) }),
            "use_rslora": .bool(configuration.usesRankStabilisedScale), "max_length": .integer(Int64(plan.maximumLength)),
            "neftune_alpha": .number(configuration.neftuneAlpha), "packing": .bool(configuration.packs), "precision": .string(configuration.precision.rawValue),
            "schedule": .string(configuration.schedule.rawValue), "warmup_ratio": .number(configuration.warmupRatio),
            "learning_rate": .number(configuration.learningRate), "early_stopping_patience": .integer(Int64(plan.patience)),
        ]
        object["data"] = ["training_examples": .integer(Int64(plan.trainingCount)), "held_out_examples": .integer(Int64(plan.heldOutCount))]
        return .object(object)
    }

    package static func event(_ event: JobEvent) -> JSONValue {
        [
            "object": "fine_tuning.job.event", "id": .string(event.id), "created_at": .integer(Int64(event.createdAt)), "level": .string(event.level.rawValue),
            "message": .string(event.message), "type": .string(event.kind.rawValue), "data": .object(event.data),
        ]
    }

    package static func checkpoint(_ checkpoint: JobCheckpoint) -> JSONValue {
        var metrics: JSONObject = [
            "step": .integer(Int64(checkpoint.step)), "train_loss": .number(checkpoint.trainLoss),
            "train_mean_token_accuracy": .number(checkpoint.trainAccuracy),
        ]
        if let loss = checkpoint.validLoss, let accuracy = checkpoint.validAccuracy {
            metrics["valid_loss"] = .number(loss)
            metrics["valid_mean_token_accuracy"] = .number(accuracy)
            metrics["full_valid_loss"] = .number(loss)
            metrics["full_valid_mean_token_accuracy"] = .number(accuracy)
        }
        metrics["full_valid_reward_margin"] = checkpoint.rewardMargin.map { .number($0) }
        return [
            "object": "fine_tuning.job.checkpoint", "id": .string(checkpoint.id), "created_at": .integer(Int64(checkpoint.createdAt)),
            "fine_tuned_model_checkpoint": .string(checkpoint.model), "fine_tuning_job_id": .string(checkpoint.job),
            "step_number": .integer(Int64(checkpoint.step)), "metrics": .object(metrics),
            "graft": ["adapter": .string(checkpoint.adapter), "kept": .bool(checkpoint.isKept), "best": .bool(checkpoint.isBest)],
        ]
    }

    /// - Parameter cursors: whether the list names its first and last element.
    static func list<Element>(_ page: JobPage<Element>, cursors: Bool = false, _ object: (Element) -> JSONValue) -> JSONValue {
        let elements = page.elements.map(object)
        var list: JSONObject = ["object": "list", "data": .array(elements), "has_more": .bool(page.hasMore)]
        if cursors {
            list["first_id"] = elements.first?["id"] ?? .null
            list["last_id"] = elements.last?["id"] ?? .null
        }
        return .object(list)
    }

    // MARK: Members that may be absent

    private static func string(_ value: String?) -> JSONValue { value.map { .string($0) } ?? .null }
    private static func integer(_ value: Int?, otherwise: JSONValue = .null) -> JSONValue { value.map { .integer(Int64($0)) } ?? otherwise }
    private static func number(_ value: Double?, otherwise: JSONValue) -> JSONValue { value.map { .number($0) } ?? otherwise }
}
