import JSON
import Modeling
import Training
import Tuning

/// Reads the body of `POST /v1/fine_tuning/jobs`: OpenAI's fields and the extension object `lora`.
///
/// A member that is not known is refused by name, at every level: a job that runs for an hour with a misspelt option would be worse.
package enum JobFields {
    package static func request(_ object: JSONObject) throws(APIError) -> JobRequest {
        var fields = RequestFields(object)
        guard let model = try fields.string("model", maximumBytes: 1024) else { throw .missing("model", expected: "the name of the model to start from") }
        guard let trainingFile = try fields.string("training_file", maximumBytes: 256) else {
            throw .missing("training_file", expected: "the id of a file of purpose fine-tune")
        }
        var request = JobRequest(model: model, trainingFile: trainingFile)
        request.validationFile = try fields.string("validation_file", maximumBytes: 256)
        if let suffix = try fields.string("suffix", maximumBytes: 1024) {
            guard JobRequest.suffixLength.contains(suffix.unicodeScalars.count) else {
                throw .invalidValue("suffix", "'suffix' has \(suffix.unicodeScalars.count) characters, expected 1 to \(JobRequest.suffixLength.upperBound)")
            }
            request.suffix = suffix
        }
        request.seed = try fields.integer("seed", in: JobRequest.seedRange)
        if let integrations = fields.value("integrations"), integrations.array?.isEmpty != true {
            guard integrations.array != nil else { throw .invalidType("integrations", found: integrations, expected: "an array") }
            throw .unsupportedParameter("integrations", "follow the job's events instead, and leave it out")
        }
        request.metadata = try metadata(fields.value("metadata"))
        try readHyperparameters(of: &fields, into: &request)
        if let lora = try fields.object("lora") { try read(lora, into: &request) }
        try refuseUnread(fields)
        return request
    }

    private static func refuseUnread(_ fields: RequestFields) throws(APIError) {
        guard let name = fields.unread.first else { return }
        throw APIError(
            .badRequest, .invalidRequest, code: "unknown_parameter", param: quoted(name),
            "'\(quoted(name))' is no field of a fine-tuning job; leave it out, or correct its name")
    }

    private static func metadata(_ value: JSONValue?) throws(APIError) -> [String: String] {
        guard let value else { return [:] }
        guard let object = value.object else { throw .invalidType("metadata", found: value, expected: "an object of strings") }
        var metadata: [String: String] = [:]
        for (key, value) in object {
            guard let text = value.string else { throw .invalidType("metadata", found: value, expected: "an object whose values are strings") }
            metadata[key] = text
        }
        return metadata
    }

    // MARK: Hyperparameters

    private static func readHyperparameters(of fields: inout RequestFields, into request: inout JobRequest) throws(APIError) {
        let old = try fields.object("hyperparameters")
        guard let method = try fields.object("method") else {
            if let old { try readHyperparameters(old, prefix: "hyperparameters.", into: &request) }
            return
        }
        guard old == nil else {
            throw .invalidValue("hyperparameters", "'hyperparameters' and 'method' are both set, expected them inside of 'method' alone")
        }
        var parts = RequestFields(method, prefix: "method.")
        let known = JobRequest.Method.allCases.map(\.rawValue)
        guard let type = try parts.string("type", maximumBytes: 64) else { throw .missing("method.type", expected: "one of \(known.joined(separator: ", "))") }
        guard let method = JobRequest.Method(rawValue: type) else {
            if type == "reinforcement" {
                throw .unsupportedValue(
                    "method.type", "'method.type' is \"reinforcement\", which is not supported; expected one of \(known.joined(separator: ", "))")
            }
            throw .invalidValue("method.type", "'method.type' is \"\(quoted(type))\", expected one of \(known.joined(separator: ", "))")
        }
        request.method = method
        if let options = try parts.object(method.rawValue) {
            var inner = RequestFields(options, prefix: "method.\(method.rawValue).")
            if let hyperparameters = try inner.object("hyperparameters") {
                try readHyperparameters(hyperparameters, prefix: "method.\(method.rawValue).hyperparameters.", into: &request)
            }
            try refuseUnread(inner)
        }
        try refuseUnread(parts)
    }

    private static func readHyperparameters(_ object: JSONObject, prefix: String, into request: inout JobRequest) throws(APIError) {
        var fields = RequestFields(object, prefix: prefix)
        if !isAutomatic("n_epochs", &fields) { request.epochs = try fields.integer("n_epochs", in: JobRequest.epochRange) }
        if !isAutomatic("batch_size", &fields) { request.batchSize = try fields.integer("batch_size", in: JobRequest.batchSizeRange) }
        if !isAutomatic("learning_rate_multiplier", &fields) {
            request.learningRateMultiplier = try fields.number("learning_rate_multiplier", in: JobRequest.multiplierRange, excludingLower: true)
        }
        if request.method == .dpo, !isAutomatic("beta", &fields) {
            request.beta = try fields.number("beta", in: JobRequest.betaRange, excludingLower: true)
        }
        try refuseUnread(fields)
    }

    /// Whether a field is the word that leaves the choice to the server.
    private static func isAutomatic(_ key: String, _ fields: inout RequestFields) -> Bool {
        fields.value(key)?.string == "auto"
    }

    // MARK: The extension object

    private static func read(_ object: JSONObject, into request: inout JobRequest) throws(APIError) {
        var fields = RequestFields(object, prefix: "lora.")
        if !isAutomatic("rank", &fields) { request.rank = try fields.integer("rank", in: JobRequest.rankRange) }
        if !isAutomatic("alpha", &fields) { request.alpha = try fields.number("alpha", in: JobRequest.alphaRange, excludingLower: true) }
        request.dropout = try fields.number("dropout", in: JobRequest.dropoutRange)
        request.projections = try projections(fields.value("target_modules"))
        request.usesRankStabilisedScale = try fields.bool("use_rslora")
        if !isAutomatic("max_length", &fields) { request.maximumLength = try fields.integer("max_length", in: JobRequest.lengthRange) }
        request.neftuneAlpha = try fields.number("neftune_alpha", in: JobRequest.neftuneRange)
        request.packs = try fields.bool("packing")
        request.precision = try word("precision", &fields, automatic: true)
        request.initialAdapter = try fields.string("initial_adapter", maximumBytes: 1024)
        request.promotes = try fields.bool("promote") ?? true
        if !isAutomatic("validation_split", &fields) { request.validationSplit = try fields.number("validation_split", in: JobRequest.splitRange) }
        if !isAutomatic("early_stopping_patience", &fields) {
            request.earlyStoppingPatience = try fields.integer("early_stopping_patience", in: JobRequest.patienceRange)
        }
        request.schedule = try word("schedule", &fields)
        request.warmupRatio = try fields.number("warmup_ratio", in: JobRequest.warmupRange)
        if !isAutomatic("learning_rate", &fields) {
            request.learningRate = try fields.number("learning_rate", in: JobRequest.learningRateRange, excludingLower: true)
        }
        try refuseUnread(fields)
    }

    private static func word<Choice: RawRepresentable & CaseIterable>(
        _ key: String, _ fields: inout RequestFields, automatic: Bool = false
    ) throws(APIError) -> Choice? where Choice.RawValue == String {
        guard let text = try fields.string(key, maximumBytes: 64), !(automatic && text == "auto") else { return nil }
        guard let choice = Choice(rawValue: text) else {
            let known = Choice.allCases.map(\.rawValue) + (automatic ? ["auto"] : [])
            throw .invalidValue(fields.name(key), "'\(fields.name(key))' is \"\(quoted(text))\", expected one of \(known.joined(separator: ", "))")
        }
        return choice
    }

    static let modules: [(name: String, projection: Projection)] = [
        ("q_proj", .q), ("k_proj", .k), ("v_proj", .v), ("o_proj", .o), ("gate_proj", .gate), ("up_proj", .up), ("down_proj", .down),
    ]

    /// PEFT's names, as a list or as the word for all.
    private static func projections(_ value: JSONValue?) throws(APIError) -> Set<Projection>? {
        let name = "lora.target_modules"
        let expected = "\"all-linear\" or an array of \(modules.map(\.name).joined(separator: ", "))"
        guard let value else { return nil }
        if let word = value.string {
            guard word == "all-linear" || word == "auto" else { throw .invalidValue(name, "'\(name)' is \"\(quoted(word))\", expected \(expected)") }
            return Set(Projection.allCases)
        }
        guard let elements = value.array else { throw .invalidType(name, found: value, expected: expected) }
        var projections: Set<Projection> = []
        for element in elements {
            guard let word = element.string else { throw .invalidType(name, found: element, expected: expected) }
            guard let module = modules.first(where: { $0.name == word }) else {
                throw .invalidValue(name, "'\(name)' has \"\(quoted(word))\", expected \(expected)")
            }
            projections.insert(module.projection)
        }
        return projections
    }
}
