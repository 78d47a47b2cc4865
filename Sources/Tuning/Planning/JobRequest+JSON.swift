import JSON
import Modeling
import Training

/// How a request is kept in the job's row. Not the API's spelling: that one may change without making old rows unreadable.
extension JobRequest {
    package var json: JSONValue {
        var object: JSONObject = [
            "model": .string(model), "training_file": .string(trainingFile), "method": .string(method.rawValue), "promote": .bool(promotes),
            "metadata": .object(JSONObject(metadata.sorted { $0.key < $1.key }.map { ($0.key, .string($0.value)) })),
        ]
        object["validation_file"] = validationFile.map { .string($0) }
        object["n_epochs"] = epochs.map { .integer(Int64($0)) }
        object["batch_size"] = batchSize.map { .integer(Int64($0)) }
        object["learning_rate_multiplier"] = learningRateMultiplier.map { .number($0) }
        object["beta"] = beta.map { .number($0) }
        object["suffix"] = suffix.map { .string($0) }
        object["seed"] = seed.map { .integer(Int64($0)) }
        object["rank"] = rank.map { .integer(Int64($0)) }
        object["alpha"] = alpha.map { .number($0) }
        object["dropout"] = dropout.map { .number($0) }
        object["projections"] = projections.map { .array($0.map(\.rawValue).sorted().map { .integer(Int64($0)) }) }
        object["rslora"] = usesRankStabilisedScale.map { .bool($0) }
        object["max_length"] = maximumLength.map { .integer(Int64($0)) }
        object["neftune_alpha"] = neftuneAlpha.map { .number($0) }
        object["packs"] = packs.map { .bool($0) }
        object["precision"] = precision.map { .string($0.rawValue) }
        object["initial_adapter"] = initialAdapter.map { .string($0) }
        object["validation_split"] = validationSplit.map { .number($0) }
        object["patience"] = earlyStoppingPatience.map { .integer(Int64($0)) }
        object["schedule"] = schedule.map { .string($0.rawValue) }
        object["warmup_ratio"] = warmupRatio.map { .number($0) }
        object["learning_rate"] = learningRate.map { .number($0) }
        return .object(object)
    }

    /// - Returns: `nil` for what `json` did not write.
    package init?(_ json: JSONValue) {
        guard let model = json["model"]?.string, let trainingFile = json["training_file"]?.string,
            let method = json["method"]?.string.flatMap(Method.init(rawValue:)), let promotes = json["promote"]?.bool,
            let metadata = json["metadata"]?.object
        else { return nil }
        self.init(model: model, trainingFile: trainingFile)
        self.method = method
        self.promotes = promotes
        for (key, value) in metadata { self.metadata[key] = value.string }
        validationFile = json["validation_file"]?.string
        epochs = json["n_epochs"]?.integer.map { Int($0) }
        batchSize = json["batch_size"]?.integer.map { Int($0) }
        learningRateMultiplier = json["learning_rate_multiplier"]?.number
        beta = json["beta"]?.number
        suffix = json["suffix"]?.string
        seed = json["seed"]?.integer.map { Int($0) }
        rank = json["rank"]?.integer.map { Int($0) }
        alpha = json["alpha"]?.number
        dropout = json["dropout"]?.number
        projections = json["projections"]?.array.map { Set($0.compactMap { $0.integer.flatMap { Projection(rawValue: Int($0)) } }) }
        usesRankStabilisedScale = json["rslora"]?.bool
        maximumLength = json["max_length"]?.integer.map { Int($0) }
        neftuneAlpha = json["neftune_alpha"]?.number
        packs = json["packs"]?.bool
        precision = json["precision"]?.string.flatMap(TrainingConfiguration.Precision.init(rawValue:))
        initialAdapter = json["initial_adapter"]?.string
        validationSplit = json["validation_split"]?.number
        earlyStoppingPatience = json["patience"]?.integer.map { Int($0) }
        schedule = json["schedule"]?.string.flatMap(TrainingConfiguration.Schedule.init(rawValue:))
        warmupRatio = json["warmup_ratio"]?.number
        learningRate = json["learning_rate"]?.number
    }
}
