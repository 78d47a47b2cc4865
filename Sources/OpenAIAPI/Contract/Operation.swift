import HTTPTypes
import JSON

/// What the API's description says of one route, beyond its path and method.
struct Operation: Sendable {
    /// A parameter of the path or the query.
    struct Parameter: Sendable {
        var name: String
        var place = "query"
        var text: String
        var schema: Schema
        var isRequired = false
        /// An object whose members are sent as `name[member]=value`.
        var isDeep = false
    }

    struct Body: Sendable {
        var mediaType = "application/json"
        var schema: Schema
        var isRequired = true
        /// By name; each is accepted as it stands, apart from ids of things that must exist.
        var examples: [(name: String, value: JSONValue)] = []
    }

    /// The answer to a request that was carried out: always 200.
    struct Answer: Sendable {
        var text: String
        /// By media type; server-sent events beside JSON where a route can stream.
        var contents: [(mediaType: String, schema: Schema)]
        var headers: [String] = []
    }

    /// Unique; becomes the name of a method in generated clients.
    var id: String
    var tag: Tag
    var summary: String
    var text = ""
    var parameters: [Parameter] = []
    var body: Body?
    var answer: Answer
    /// Statuses of refusals that only some routes give; those that every route gives come from `OperationRefusals`.
    var refusals: [Int] = []

    /// The chapters of the description.
    enum Tag: String, CaseIterable, Sendable {
        case generation = "Generation"
        case models = "Models"
        case adapters = "Adapters"
        case files = "Files"
        case kept = "Kept completions"
        case jobs = "Fine-tuning"
        case tokens = "Tokens"
        case keys = "API keys"
        case server = "Server"

        var text: String {
            switch self {
            case .generation: "Answers to conversations and prompts, whole or as server-sent events."
            case .models: "What `model` can name."
            case .adapters: "LoRA adapters and their versions: publishing, rolling out, rolling back, exporting."
            case .files: "Uploaded files and what jobs write."
            case .kept: "Chat completions that are kept with their answers, what is said about them, and what is made of them."
            case .jobs: "Fine-tuning jobs, which train adapters while the server serves."
            case .tokens: "Text to tokens and back."
            case .keys: "Who may use the server, for what, and how much of it."
            case .server: "Health, version, metrics and this description."
            }
        }
    }
}

extension Operation.Answer {
    /// JSON.
    static func json(_ text: String, _ schema: Schema, headers: [String] = []) -> Operation.Answer {
        Operation.Answer(text: text, contents: [("application/json", schema)], headers: headers)
    }
}

extension Operation {
    /// The operation as OpenAPI has it.
    /// - Parameter isOpen: whether it is answered without a key.
    func json(isOpen: Bool) -> JSONObject {
        var object: JSONObject = ["operationId": .string(id), "tags": [.string(tag.rawValue)], "summary": .string(summary)]
        if !text.isEmpty { object["description"] = .string(text) }
        if isOpen { object["security"] = [] }
        if !parameters.isEmpty { object["parameters"] = .array(parameters.map { .object($0.json) }) }
        if let body { object["requestBody"] = .object(body.json) }
        var responses: JSONObject = ["200": .object(answerJSON)]
        for status in OperationRefusals.statuses(of: self, isOpen: isOpen) {
            responses[String(status)] = ["$ref": .string("#/components/responses/\(OperationRefusals.name(status))")]
        }
        object["responses"] = .object(responses)
        return object
    }

    private var answerJSON: JSONObject {
        let contents = answer.contents.map { ($0.mediaType, JSONValue.object(["schema": .object($0.schema.json)])) }
        var headers: JSONObject = ["x-request-id": Self.reference(header: "x-request-id")]
        for name in answer.headers { headers[name] = Self.reference(header: name) }
        return ["description": .string(answer.text), "headers": .object(headers), "content": .object(JSONObject(contents))]
    }

    static func reference(header name: String) -> JSONValue { ["$ref": .string("#/components/headers/\(name)")] }
}

extension Operation.Parameter {
    var json: JSONObject {
        var object: JSONObject = [
            "name": .string(name), "in": .string(place), "description": .string(text), "schema": .object(schema.json), "required": .bool(isRequired),
        ]
        if isDeep {
            object["style"] = "deepObject"
            object["explode"] = true
        }
        return object
    }

    /// The `{id}` of a path.
    static func id(_ text: String, example: String) -> Self {
        Self(name: "id", place: "path", text: text, schema: .string().example(.string(example)), isRequired: true)
    }

    /// How many elements a page has.
    static func limit(_ range: ClosedRange<Int>, otherwise: Int) -> Self {
        Self(name: "limit", text: "How many elements a page has.", schema: .integer(in: range).defaulting(to: .integer(Int64(otherwise))))
    }

    /// Where the page before ended.
    static func after(_ text: String = "The `last_id` of the page before.", _ schema: Schema = .string(length: 1...1024)) -> Self {
        Self(name: "after", text: text, schema: schema)
    }

    /// Where the page before ended, as an id that begins so; what it names need not exist any more.
    static func after(prefix: String) -> Self {
        after("The `last_id` of the page before; what it names need not exist any more.", .string(pattern: "^\(prefix)[0-9a-f]{32}$"))
    }

    static func order(otherwise: String) -> Self {
        Self(name: "order", text: "By the time of making.", schema: .word(["asc", "desc"]).defaulting(to: .string(otherwise)))
    }
}

extension Operation.Body {
    var json: JSONObject {
        var content: JSONObject = ["schema": .object(schema.json)]
        if !examples.isEmpty {
            content["examples"] = .object(JSONObject(examples.map { ($0.name, ["value": $0.value]) }))
        }
        return ["required": .bool(isRequired), "content": .object([mediaType: .object(content)])]
    }
}
