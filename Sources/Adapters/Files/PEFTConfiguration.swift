import GGUF
import JSON

/// What `adapter_config.json` says, as far as Graft honours it; everything that would change the result in another way is refused by name.
/// Keys that are absent have PEFT's defaults.
struct PEFTConfiguration: Sendable {
    /// A module of the base, as patterns see it.
    struct Module {
        var path: String
        var bytes: [UInt8]
        /// Nil outside of the layers.
        var layer: Int?

        init(_ path: String, layer: Int?) {
            self.path = path
            bytes = Array(path.utf8)
            self.layer = layer
        }
    }

    /// Which modules a target or exclusion covers.
    private enum Selection: Sendable {
        /// Paths or their ends after a dot.
        case names(Set<String>)
        case pattern(ModulePattern)
        /// Every projection of every layer.
        case allLinear
    }

    /// The longest file that is read; parsed, it takes up to fifty times as much.
    static let longest = 1 << 20
    /// What the patterns of one file may take together, in instructions.
    private static let largestPatterns = 200_000

    private var rank = 8
    private var alpha = 8.0
    private var isRankStabilized = false
    private var rankPatterns: [(pattern: ModulePattern, rank: Int)] = []
    private var alphaPatterns: [(pattern: ModulePattern, alpha: Double)] = []
    private var targets = Selection.allLinear
    private var exclusions: Selection?
    /// `layers_to_transform`; nil for all.
    private var layers: Set<Int>?
    private var layerPatterns: [ModulePattern] = []
    private(set) var baseModelName: String?
    private var patternSize = 0

    init(parsing file: [UInt8]) throws(AdapterError) {
        guard file.count <= Self.longest else {
            throw AdapterError(.unreadable, "adapter_config.json: found \(file.count) bytes, expected at most \(Self.longest)")
        }
        let value: JSONValue
        do {
            value = try JSONValue(parsing: file, maximumDepth: 16, refusingDuplicateKeys: true)
        } catch {
            throw AdapterError(.unreadable, "adapter_config.json: \(error.description)")
        }
        guard case .object(let members) = value else {
            throw AdapterError(.unreadable, "adapter_config.json: found \(value.kindName), expected an object")
        }
        try Self.checkKind(members)
        for (key, value) in members { try Self.checkKey(key, value) }
        try readScaling(members)
        try readSelections(members)
        if case .string(let name)? = members["base_model_name_or_path"], !name.isEmpty { baseModelName = name }
    }

    // MARK: - What is asked of it

    func rank(of module: Module, _ budget: inout ModulePattern.Budget) throws(AdapterError) -> Int {
        for entry in rankPatterns where try entry.pattern.matches(module.bytes, &budget) { return entry.rank }
        return rank
    }

    /// alpha / r, or alpha / √r.
    func scale(of module: Module, rank: Int, _ budget: inout ModulePattern.Budget) throws(AdapterError) -> Float {
        var alpha = alpha
        for entry in alphaPatterns where try entry.pattern.matches(module.bytes, &budget) {
            alpha = entry.alpha
            break
        }
        let divisor = isRankStabilized ? Double(rank).squareRoot() : Double(rank)
        return try PairTable.checkedScale(alpha / divisor, "adapter_config.json: the scale of \(module.path), lora_alpha / \(isRankStabilized ? "√r" : "r")")
    }

    /// Whether PEFT would put an adapter on the module (its `check_target_module_exists`).
    func covers(_ module: Module, _ budget: inout ModulePattern.Budget) throws(AdapterError) -> Bool {
        if let exclusions, try Self.selects(exclusions, module, &budget) { return false }
        guard try Self.selects(targets, module, &budget) else { return false }
        guard case .names(let names) = targets, let layers, !names.contains(module.path) else { return true }
        guard let layer = module.layer else { return false }
        if !layerPatterns.isEmpty {
            var isNamed = false
            for pattern in layerPatterns where try pattern.matches(module.bytes, &budget) {
                isNamed = true
                break
            }
            guard isNamed else { return false }
        }
        return layers.contains(layer)
    }

    private static func selects(_ selection: Selection, _ module: Module, _ budget: inout ModulePattern.Budget) throws(AdapterError) -> Bool {
        switch selection {
        case .names(let names):
            if names.contains(module.path) { return true }
            var rest = module.path[...]
            while let dot = rest.firstIndex(of: ".") {
                rest = rest[rest.index(after: dot)...]
                if names.contains(String(rest)) { return true }
            }
            return false
        case .pattern(let pattern):
            return try pattern.matches(module.bytes, &budget)
        case .allLinear:
            return module.layer != nil
        }
    }

    // MARK: - Reading

    private static func checkKind(_ members: JSONObject) throws(AdapterError) {
        guard let kind = members["peft_type"] else {
            if members["lora_parameters"] != nil || members["fine_tune_type"] != nil {
                throw AdapterError(
                    .unsupported,
                    "adapter_config.json: this is an adapter of mlx-lm, whose tensors are transposed and whose scale means something else, expected PEFT's format; convert it to PEFT first"
                )
            }
            throw AdapterError(.unreadable, "adapter_config.json: peft_type is absent, expected \"LORA\"; this is not the configuration of a PEFT adapter")
        }
        guard case .string("LORA") = kind else {
            throw AdapterError(
                .unsupported, "adapter_config.json: peft_type: found \(described(kind)), expected \"LORA\"; other kinds of adapters are not supported")
        }
    }

    /// Keys that Graft reads elsewhere.
    private static let readKeys: Set<String> = [
        "peft_type", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "target_modules", "exclude_modules", "layers_to_transform",
        "layers_pattern",
        "base_model_name_or_path",
    ]

    /// Keys that say where the adapter came from and how it was trained or initialised, but nothing about how it is applied. Whether an initialiser
    /// has changed the base weights is `init_lora_weights`' to say, not its parameters'.
    private static let harmlessKeys: Set<String> = [
        "task_type", "auto_mapping", "peft_version", "revision", "inference_mode", "lora_dropout", "megatron_config", "megatron_core", "qalora_group_size",
        "ensure_weight_tying", "loftq_config", "eva_config", "corda_config", "lora_ga_config", "runtime_config", "lora_dtype", "lorap_lr_ratio",
    ]

    /// What refused keys would have asked for.
    private static let refusedKeys: [String: String] = [
        "use_dora": "DoRA is not supported; train without it",
        "lora_bias": "biases of adapters are not supported; train with lora_bias=False",
        "modules_to_save": "whole modules beside the adapter are not supported; train with modules_to_save=None",
        "trainable_token_indices": "trained tokens are not supported; train without them",
        "layer_replication": "replicated layers are not supported",
        "alora_invocation_tokens": "activated LoRA is not supported",
        "invocation_string": "activated LoRA is not supported",
        "target_parameters": "adapters of parameters are not supported, only those of linear layers",
        "use_qalora": "QA-LoRA is not supported",
        "use_bdlora": "BD-LoRA is not supported",
        "fan_in_fan_out": "transposed base weights are not supported; no supported base has them",
    ]

    private static func checkKey(_ key: String, _ value: JSONValue) throws(AdapterError) {
        if readKeys.contains(key) || harmlessKeys.contains(key) { return }
        switch key {
        case "bias":
            if value.isNull { return }
            guard case .string("none") = value else {
                throw AdapterError(.unsupported, "adapter_config.json: bias: found \(described(value)), expected \"none\"; trained biases are not supported")
            }
        case "init_lora_weights":
            switch value {
            case .null, .bool, .string("gaussian"), .string("orthogonal"), .string("true"), .string("false"): return
            default:
                throw AdapterError(
                    .unsupported,
                    "adapter_config.json: init_lora_weights: found \(described(value)), expected true, false, \"gaussian\" or \"orthogonal\"; other initialisers change the base weights or the adapter's meaning: save the adapter with path_initial_model_for_weight_conversion"
                )
            }
        default:
            guard !isNothing(value) else { return }
            let reason = refusedKeys[key] ?? "this setting is unknown, so that its effect would be lost; remove it if it has none"
            throw AdapterError(.unsupported, "adapter_config.json: \(shown(key)): found \(described(value)), expected it to be off or absent: \(reason)")
        }
    }

    private static func isNothing(_ value: JSONValue) -> Bool {
        switch value {
        case .null, .bool(false): true
        case .string(let text): text.isEmpty
        case .array(let elements): elements.isEmpty
        case .object(let members): members.isEmpty
        case .bool(true), .integer, .number: false
        }
    }

    private static func described(_ value: JSONValue) -> String {
        switch value {
        case .string(let text): shown(text)
        case .bool(let flag): "\(flag)"
        case .integer(let number): "\(number)"
        case .number(let number): "\(number)"
        default: value.kindName
        }
    }

    private static func mismatch(_ key: String, _ value: JSONValue, _ expected: String) -> AdapterError {
        AdapterError(.unreadable, "adapter_config.json: \(key): found \(described(value)), expected \(expected)")
    }

    private mutating func readScaling(_ members: JSONObject) throws(AdapterError) {
        if let value = members["r"] { rank = try Self.rank(value, "r") }
        if let value = members["lora_alpha"] { alpha = try Self.number(value, "lora_alpha") }
        switch members["use_rslora"] {
        case nil, .null?: break
        case .bool(let flag)?: isRankStabilized = flag
        case let value?: throw Self.mismatch("use_rslora", value, "true or false")
        }
        for (key, value) in try Self.patterns(members, "rank_pattern") {
            let subject = "rank_pattern[\(shown(key))]"
            rankPatterns.append(
                (try admitted(ModulePattern(end: key, subject: "adapter_config.json: rank_pattern"), "rank_pattern"), try Self.rank(value, subject)))
        }
        for (key, value) in try Self.patterns(members, "alpha_pattern") {
            let subject = "alpha_pattern[\(shown(key))]"
            alphaPatterns.append(
                (try admitted(ModulePattern(end: key, subject: "adapter_config.json: alpha_pattern"), "alpha_pattern"), try Self.number(value, subject)))
        }
    }

    /// Counts a pattern against what the file's patterns may take.
    private mutating func admitted(_ pattern: ModulePattern, _ key: String) throws(AdapterError) -> ModulePattern {
        patternSize += pattern.size
        guard patternSize <= Self.largestPatterns else {
            throw AdapterError(.unsupported, "adapter_config.json: \(key): the file's patterns are too many or too large; list the module names instead")
        }
        return pattern
    }

    private static func patterns(_ members: JSONObject, _ key: String) throws(AdapterError) -> JSONObject {
        switch members[key] {
        case nil, .null?: return JSONObject()
        case .object(let patterns)?: return patterns
        case let value?: throw mismatch(key, value, "an object of patterns")
        }
    }

    private static func rank(_ value: JSONValue, _ key: String) throws(AdapterError) -> Int {
        guard case .integer(let number) = value, number > 0 else { throw mismatch(key, value, "an integer from 1") }
        return Int(number)
    }

    private static func number(_ value: JSONValue, _ key: String) throws(AdapterError) -> Double {
        guard let number = value.number else { throw mismatch(key, value, "a number") }
        return number
    }

    private mutating func readSelections(_ members: JSONObject) throws(AdapterError) {
        let subject = "adapter_config.json: target_modules"
        switch members["target_modules"] {
        case .string(let text)?:
            targets = text.lowercased() == "all-linear" ? .allLinear : .pattern(try ModulePattern(whole: text, subject: subject))
        case .array(let elements)?:
            targets = .names(try Self.names(elements, "target_modules"))
        case let value:
            throw Self.mismatch("target_modules", value ?? .null, "a list of module names, a pattern or \"all-linear\"")
        }
        switch members["exclude_modules"] {
        case nil, .null?, .string("")?: break
        case .string(let text)?: exclusions = .pattern(try ModulePattern(whole: text, subject: "adapter_config.json: exclude_modules"))
        case .array(let elements)?: exclusions = .names(try Self.names(elements, "exclude_modules"))
        case let value?: throw Self.mismatch("exclude_modules", value, "a list of module names or a pattern")
        }
        try readLayers(members)
    }

    private mutating func readLayers(_ members: JSONObject) throws(AdapterError) {
        switch members["layers_to_transform"] {
        case nil, .null?:
            return
        case .integer(let layer)?:
            layers = [Int(layer)]
        case .array(let elements)?:
            var numbers: Set<Int> = []
            for element in elements {
                guard case .integer(let layer) = element else { throw Self.mismatch("layers_to_transform", element, "a list of layer numbers") }
                numbers.insert(Int(layer))
            }
            layers = numbers.isEmpty ? nil : numbers
        case let value?:
            throw Self.mismatch("layers_to_transform", value, "a layer's number or a list of them")
        }
        guard case .names = targets else {
            throw AdapterError(
                .unreadable,
                "adapter_config.json: layers_to_transform: found beside target_modules that are no list, expected null; PEFT refuses the two together")
        }
        let subject = "adapter_config.json: layers_pattern"
        switch members["layers_pattern"] {
        case nil, .null?, .string("")?:
            break
        case .string(let text)?:
            layerPatterns = [try admitted(ModulePattern(layersNamed: text, subject: subject), "layers_pattern")]
        case .array(let elements)?:
            for element in elements {
                guard case .string(let text) = element else { throw Self.mismatch("layers_pattern", element, "a list of names") }
                layerPatterns.append(try admitted(ModulePattern(layersNamed: text, subject: subject), "layers_pattern"))
            }
        case let value?:
            throw Self.mismatch("layers_pattern", value, "a name or a list of names")
        }
    }

    private static func names(_ elements: [JSONValue], _ key: String) throws(AdapterError) -> Set<String> {
        var names: Set<String> = []
        for element in elements {
            guard case .string(let name) = element else { throw mismatch(key, element, "a list of module names") }
            names.insert(name)
        }
        return names
    }
}
