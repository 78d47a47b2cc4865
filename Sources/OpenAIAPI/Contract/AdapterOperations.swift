import Adapters
import JSON

/// The description of the routes about adapters: Graft's own, vLLM's and llama.cpp's.
enum AdapterOperations {
    private static let id = Operation.Parameter.id("The adapter's name.", example: "support-bot")
    private static let reference = Operation.Parameter.id("The adapter's name, or one version of it: `name@3`, `name@latest`.", example: "support-bot@latest")
    private static let ignored = ["graft-ignored-parameters"]
    private static let adapter = Operation.Answer.json("The adapter as it is afterwards.", .named("Adapter"), headers: ignored)

    static let create = Operation(
        id: "publishAdapter", tag: .adapters, summary: "Publish a new version of an adapter",
        text: "The files are either `adapter_config` and `adapter_model` (PEFT), or `gguf`, or `archive` (a tar of a PEFT directory).",
        body: Operation.Body(
            mediaType: "multipart/form-data",
            schema: .form(
                required: [
                    (
                        "name",
                        .string("1 to 64 letters, digits, dots, underscores and hyphens, the first one no dot.", pattern: "^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$")
                    )
                ],
                optional: [
                    ("promote", .word(["true", "false"], "Whether the bare name means this version from now on.").defaulting(to: "true")),
                    ("adapter_config", .bytes("adapter_config.json")), ("adapter_model", .bytes("adapter_model.safetensors")),
                    ("gguf", .bytes("A GGUF-LoRA file.")),
                    ("archive", .bytes("A tar of a PEFT directory.")),
                ])),
        answer: .json("The version, ready to be used.", .named("AdapterVersion"), headers: ignored), refusals: [404, 409, 422, 507])

    static let list = Operation(
        id: "listAdapters", tag: .adapters, summary: "List adapters with their versions", text: "The oldest first.",
        parameters: [
            .limit(AdapterObjects.pageRange, otherwise: AdapterObjects.pageSize),
            .after("The `last_id` of the page before; that adapter need not exist any more.", .integer(in: 0 ... .max)),
        ],
        answer: .json("A page of adapters.", .list(of: .named("Adapter"), cursors: .integer())), refusals: [404])

    static let retrieve = Operation(
        id: "retrieveAdapter", tag: .adapters, summary: "Look at an adapter, or at one version", parameters: [reference],
        answer: .json("An adapter for a name, a version for a version.", .anyOf([.named("Adapter"), .named("AdapterVersion")])), refusals: [404])

    static let versions = Operation(
        id: "listAdapterVersions", tag: .adapters, summary: "List the versions of an adapter", parameters: [id],
        answer: .json("All of them, the oldest first.", .list(of: .named("AdapterVersion"))), refusals: [404])

    static let promote = Operation(
        id: "promoteAdapter", tag: .adapters, summary: "Let the bare name mean a version, or give it a share of the requests", parameters: [id],
        body: Operation.Body(
            schema: .request(
                "",
                optional: [
                    ("version", .anyOf([.integer(in: 1 ... .max), .constant("latest")], "The newest unless said.")),
                    ("share", .number("Below 1: a canary, which gets this share of the requests; 0 ends it.", in: 0...1)),
                ]), isRequired: false, examples: [("newest", ["version": "latest"]), ("canary", ["version": 1, "share": 0.1])]),
        answer: adapter, refusals: [404, 409, 507])

    static let rollback = Operation(
        id: "rollbackAdapter", tag: .adapters, summary: "Go back to the version that was promoted before", parameters: [id],
        body: Operation.Body(schema: .request("No member is known."), isRequired: false), answer: adapter, refusals: [404, 409, 507])

    static let pin = Operation(
        id: "pinAdapter", tag: .adapters, summary: "Keep an adapter in memory, or let go of it", parameters: [id],
        body: Operation.Body(schema: .request("", required: [("pinned", .bool())]), examples: [("pin", ["pinned": true])]), answer: adapter,
        refusals: [404, 409, 507])

    static let export = Operation(
        id: "exportAdapter", tag: .adapters, summary: "Get an adapter's files",
        parameters: [
            reference,
            Operation.Parameter(
                name: "format", text: "`peft`: a tar of a PEFT directory; `gguf`: a GGUF-LoRA file.",
                schema: .word(AdapterFormat.allCases.map(\.rawValue)).defaulting(to: .string(AdapterFormat.peft.rawValue))),
        ],
        answer: Operation.Answer(
            text: "The files.",
            contents: [
                ("application/x-tar", .bytes("A tar of adapter_config.json and adapter_model.safetensors.")),
                ("application/octet-stream", .bytes("A GGUF-LoRA file.")),
            ],
            headers: ["content-disposition", "graft-adapter", "graft-adapter-version", "graft-adapter-digest"]),
        refusals: [404])

    static let delete = Operation(
        id: "deleteAdapter", tag: .adapters, summary: "Delete an adapter, or one version", parameters: [reference],
        answer: .json("It is gone; requests that use it finish with it.", .named("Deleted")), refusals: [404, 409, 507])

    // MARK: vLLM's

    private static let loraName: Schema.Member = ("lora_name", .string("The adapter's name."))
    private static func words(_ text: String) -> Operation.Answer {
        Operation.Answer(text: text, contents: [("text/plain", .string())], headers: ignored)
    }

    static let load = Operation(
        id: "loadLoRAAdapter", tag: .adapters, summary: "Publish an adapter from the server's disk (vLLM)",
        text: "Off unless the setting adapters.lora_paths_directory names the folder that paths stay in.",
        body: Operation.Body(
            schema: .request(
                "", required: [loraName, ("lora_path", .string("A PEFT directory or a .gguf file, on the server."))],
                optional: [("load_inplace", .bool("Whether a name that is there gets a new version."))]),
            examples: [("directory", ["lora_name": "support-bot", "lora_path": "support-bot", "load_inplace": true])]),
        answer: words("It is published."), refusals: [404, 409, 507])

    static let unload = Operation(
        id: "unloadLoRAAdapter", tag: .adapters, summary: "Delete an adapter (vLLM)",
        body: Operation.Body(schema: .request("", required: [loraName]), examples: [("name", ["lora_name": "support-bot"])]), answer: words("It is gone."),
        refusals: [404, 409, 507])

    // MARK: llama.cpp's

    static let global = Operation(
        id: "listLoRAAdapters", tag: .adapters, summary: "List adapters as llama.cpp does",
        answer: .json(
            "All adapters, with the scale that requests without `model` and `lora` apply.",
            .array(of: .answer("", [("id", .integer()), ("path", .string("The adapter's name.")), ("scale", .number())]))), refusals: [404])

    static let setGlobal = Operation(
        id: "setLoRAAdapters", tag: .adapters, summary: "Set what requests without `model` and `lora` apply (llama.cpp)",
        text: "Off unless the setting adapters.allow_global_lora is on. Adapters that are not listed are not applied.",
        body: Operation.Body(schema: .array(of: .named("BlendEntry"), count: 0...BlendEntry.maximumCount), examples: [("none", [])]),
        answer: .json("It is set.", .answer("", [("success", .constant(true))]), headers: ignored), refusals: [404])

    // MARK: Schemas

    static let schemas: [Schema.Member] = [
        (
            "Adapter",
            .answer(
                "A name, and the versions that were published under it.",
                [
                    ("id", .integer("llama.cpp's number of it; never used again.")), ("object", .constant("adapter")), ("name", .string()),
                    ("owned_by", .string()),
                    ("promoted", Schema.integer("The version that the bare name means.").orNull),
                    (
                        "canary",
                        Schema.answer("The version that gets a share of the bare name's requests.", [("version", .integer()), ("share", .number(in: 0...1))])
                            .orNull
                    ),
                    ("pinned", .bool("Whether it stays in memory.")), ("versions", .array(of: .named("AdapterVersion"), "The oldest first.")),
                ])
        ),
        (
            "AdapterVersion",
            .answer(
                "One version of an adapter, which never changes.",
                [
                    ("object", .constant("adapter.version")), ("name", .string()), ("version", .integer(in: 1 ... .max)),
                    ("digest", .string("Of the content.")),
                    ("base", .string("The model that it was made for.")), ("base_digest", .string()), ("rank", .integer()),
                    ("pairs", .integer("Pairs of matrices.")),
                    ("source", .string("`peft`, `gguf`, or the id of the job that made it.")), ("created_at", .integer("Seconds since 1970.")),
                    ("bytes", .integer()), ("status", .word(["available", "quarantined", "other_base"])),
                    ("error", Schema.string("Why it is not available.").orNull),
                    ("resident", .bool("Whether it is in memory.")),
                ])
        ),
    ]
}
