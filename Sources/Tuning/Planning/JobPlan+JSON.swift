import JSON
import Modeling
import Training

/// How a plan is kept in the job's row.
extension JobPlan {
    package var json: JSONValue {
        var object: JSONObject = [
            "epochs": .integer(Int64(configuration.epochs)), "batch_size": .integer(Int64(configuration.batchSize)),
            "learning_rate": .number(configuration.learningRate), "learning_rate_multiplier": .number(learningRateMultiplier),
            "warmup_ratio": .number(configuration.warmupRatio), "schedule": .string(configuration.schedule.rawValue),
            "weight_decay": .number(configuration.weightDecay), "maximum_gradient_norm": .number(configuration.maximumGradientNorm),
            "rank": .integer(Int64(configuration.rank)), "alpha": .number(configuration.alpha),
            "rslora": .bool(configuration.usesRankStabilisedScale), "dropout": .number(configuration.dropout),
            "projections": .array(configuration.projections.map(\.rawValue).sorted().map { .integer(Int64($0)) }),
            "neftune_alpha": .number(configuration.neftuneAlpha), "micro_batch_tokens": .integer(Int64(configuration.microBatchTokens)),
            "packs": .bool(configuration.packs), "precision": .string(configuration.precision.rawValue),
            "seed": .string(String(configuration.seed)), "max_length": .integer(Int64(maximumLength)), "suffix": .string(suffix),
            "training_digest": .string(trainingDigest), "examples": .integer(Int64(exampleCount)), "held_out": .integer(Int64(heldOutCount)),
            "patience": .integer(Int64(patience)),
        ]
        if case .preference(let beta) = configuration.method { object["beta"] = .number(beta) }
        object["validation_digest"] = validationDigest.map { .string($0) }
        object["initial"] = initial.map { ["name": .string($0.name), "number": .integer(Int64($0.number)), "digest": .string($0.digest)] }
        return .object(object)
    }

    /// - Returns: `nil` for what `json` did not write.
    package init?(_ json: JSONValue) {
        func integer(_ key: String) -> Int? { json[key]?.integer.map { Int($0) } }
        func number(_ key: String) -> Double? { json[key]?.number }
        guard let epochs = integer("epochs"), let batchSize = integer("batch_size"), let learningRate = number("learning_rate"),
            let multiplier = number("learning_rate_multiplier"), let warmupRatio = number("warmup_ratio"),
            let schedule = json["schedule"]?.string.flatMap(TrainingConfiguration.Schedule.init(rawValue:)), let weightDecay = number("weight_decay"),
            let maximumNorm = number("maximum_gradient_norm"), let rank = integer("rank"), let alpha = number("alpha"), let rslora = json["rslora"]?.bool,
            let dropout = number("dropout"), let projections = json["projections"]?.array, let neftuneAlpha = number("neftune_alpha"),
            let microBatchTokens = integer("micro_batch_tokens"), let packs = json["packs"]?.bool,
            let precision = json["precision"]?.string.flatMap(TrainingConfiguration.Precision.init(rawValue:)),
            let seed = json["seed"]?.string.flatMap({ UInt64($0) }), let maximumLength = integer("max_length"), let suffix = json["suffix"]?.string,
            let trainingDigest = json["training_digest"]?.string, let exampleCount = integer("examples"), let heldOutCount = integer("held_out"),
            let patience = integer("patience"), epochs > 0, batchSize > 0, exampleCount > heldOutCount, heldOutCount >= 0
        else { return nil }
        configuration = TrainingConfiguration()
        configuration.method = number("beta").map { .preference(beta: $0) } ?? .supervised
        configuration.epochs = epochs
        configuration.batchSize = batchSize
        configuration.learningRate = learningRate
        configuration.warmupRatio = warmupRatio
        configuration.schedule = schedule
        configuration.weightDecay = weightDecay
        configuration.maximumGradientNorm = maximumNorm
        configuration.rank = rank
        configuration.alpha = alpha
        configuration.usesRankStabilisedScale = rslora
        configuration.dropout = dropout
        configuration.projections = Set(projections.compactMap { $0.integer.flatMap { Projection(rawValue: Int($0)) } })
        configuration.neftuneAlpha = neftuneAlpha
        configuration.microBatchTokens = microBatchTokens
        configuration.packs = packs
        configuration.precision = precision
        configuration.seed = seed
        learningRateMultiplier = multiplier
        self.maximumLength = maximumLength
        self.suffix = suffix
        self.trainingDigest = trainingDigest
        validationDigest = json["validation_digest"]?.string
        self.exampleCount = exampleCount
        self.heldOutCount = heldOutCount
        self.patience = patience
        if let stored = json["initial"], let name = stored["name"]?.string, let number = stored["number"]?.integer, let digest = stored["digest"]?.string {
            initial = Initial(name: name, number: Int(number), digest: digest)
        } else {
            initial = nil
        }
    }
}
