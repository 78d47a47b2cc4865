import JSON

/// A schema of the API's description: JSON Schema 2020-12, as OpenAPI 3.1 uses it.
///
/// Requests and answers differ in one rule, so each has a maker of its own: in a request `null` counts as absent, so every member that may be left out
/// may be null; in an answer every member is there unless it is listed as optional.
struct Schema: Sendable {
    typealias Member = (name: String, schema: Schema)

    private(set) var json: JSONObject

    private init(_ json: JSONObject) {
        self.json = json
    }

    private init(type: JSONValue, _ text: String) {
        json = ["type": type]
        if !text.isEmpty { json["description"] = .string(text) }
    }

    // MARK: Simple values

    static func bool(_ text: String = "") -> Schema { Schema(type: "boolean", text) }

    /// - Parameter length: in characters.
    static func string(_ text: String = "", length: ClosedRange<Int>? = nil, pattern: String? = nil) -> Schema {
        var schema = Schema(type: "string", text)
        if let length {
            if length.lowerBound > 0 { schema.json["minLength"] = .integer(Int64(length.lowerBound)) }
            if length.upperBound < .max { schema.json["maxLength"] = .integer(Int64(length.upperBound)) }
        }
        if let pattern { schema.json["pattern"] = .string(pattern) }
        return schema
    }

    /// One of some words.
    static func word(_ words: [String], _ text: String = "") -> Schema {
        var schema = Schema(type: "string", text)
        schema.json["enum"] = .array(words.map { .string($0) })
        return schema
    }

    /// Always the same.
    static func constant(_ value: JSONValue, _ text: String = "") -> Schema {
        var schema = Schema(["const": value])
        if !text.isEmpty { schema.json["description"] = .string(text) }
        return schema
    }

    /// Anything, which `values` may narrow.
    static func any(_ text: String = "", of values: [JSONValue]? = nil) -> Schema {
        var schema = Schema(text.isEmpty ? [:] : ["description": .string(text)])
        if let values { schema.json["enum"] = .array(values) }
        return schema
    }

    /// - Parameter range: a bound at the edge of 64 bits is none.
    static func integer(_ text: String = "", in range: ClosedRange<Int> = .min ... .max) -> Schema {
        var schema = Schema(type: "integer", text)
        if range.lowerBound > .min { schema.json["minimum"] = .integer(Int64(range.lowerBound)) }
        if range.upperBound < .max { schema.json["maximum"] = .integer(Int64(range.upperBound)) }
        if range == .min ... .max { schema.json["format"] = "int64" }
        return schema
    }

    static func number(_ text: String = "", in range: ClosedRange<Double>? = nil, excludingLower: Bool = false) -> Schema {
        var schema = Schema(type: "number", text)
        if let range {
            schema.json[excludingLower ? "exclusiveMinimum" : "minimum"] = bound(range.lowerBound)
            schema.json["maximum"] = bound(range.upperBound)
        }
        return schema
    }

    private static func bound(_ value: Double) -> JSONValue { Int64(exactly: value).map { .integer($0) } ?? .number(value) }

    /// The bytes of a part of a form, or of a whole body.
    static func bytes(_ text: String) -> Schema {
        var schema = Schema(type: "string", text)
        schema.json["contentMediaType"] = "application/octet-stream"
        return schema
    }

    /// JSON inside of a text.
    static func json(of content: Schema, _ text: String) -> Schema {
        var schema = Schema(type: "string", text)
        schema.json["contentMediaType"] = "application/json"
        schema.json["contentSchema"] = .object(content.json)
        return schema
    }

    // MARK: Composed ones

    static func array(of element: Schema, _ text: String = "", count: ClosedRange<Int> = 0 ... .max) -> Schema {
        var schema = Schema(type: "array", text)
        schema.json["items"] = .object(element.json)
        if count.lowerBound > 0 { schema.json["minItems"] = .integer(Int64(count.lowerBound)) }
        if count.upperBound < .max { schema.json["maxItems"] = .integer(Int64(count.upperBound)) }
        return schema
    }

    /// Members of any names and one kind.
    static func map(of value: Schema, _ text: String = "", maximumCount: Int? = nil, keys: Schema? = nil) -> Schema {
        var schema = Schema(type: "object", text)
        schema.json["additionalProperties"] = .object(value.json)
        if let maximumCount { schema.json["maxProperties"] = .integer(Int64(maximumCount)) }
        if let keys { schema.json["propertyNames"] = .object(keys.json) }
        return schema
    }

    /// An object of a request.
    /// - Parameter isClosed: other members are refused; otherwise they are ignored and listed in `graft-ignored-parameters`.
    static func request(_ text: String = "", required: [Member] = [], optional: [Member] = [], isClosed: Bool = false) -> Schema {
        var schema = object(text, required: required, optional: optional.map { ($0.name, $0.schema.orNull) })
        if isClosed { schema.json["additionalProperties"] = false }
        return schema
    }

    /// An object of an answer. Clients must expect more members than these.
    static func answer(_ text: String = "", _ members: [Member], optional: [Member] = []) -> Schema {
        object(text, required: members, optional: optional)
    }

    /// The fields of a form, which has no null.
    static func form(required: [Member], optional: [Member]) -> Schema { object("", required: required, optional: optional) }

    private static func object(_ text: String, required: [Member], optional: [Member]) -> Schema {
        var schema = Schema(type: "object", text)
        schema.json["properties"] = .object(JSONObject((required + optional).map { ($0.name, .object($0.schema.json)) }))
        if !required.isEmpty { schema.json["required"] = .array(required.map { .string($0.name) }) }
        return schema
    }

    static func anyOf(_ choices: [Schema], _ text: String = "") -> Schema {
        var schema = Schema(text.isEmpty ? [:] : ["description": .string(text)])
        schema.json["anyOf"] = .array(choices.map { .object($0.json) })
        return schema
    }

    /// A schema of `components`, by name.
    static func named(_ name: String, _ text: String = "") -> Schema {
        var schema = Schema(["$ref": .string("#/components/schemas/\(name)")])
        if !text.isEmpty { schema.json["description"] = .string(text) }
        return schema
    }

    /// A page of things.
    /// - Parameter cursors: whether the page names its first and last element.
    static func list(of element: Schema, cursors: Schema? = nil) -> Schema {
        var members: [Member] = [("object", .constant("list")), ("data", .array(of: element)), ("has_more", .bool("Whether there is a next page."))]
        if let cursors {
            members += [("first_id", cursors.orNull), ("last_id", cursors.described("What `after` takes to get the next page.").orNull)]
        }
        return .answer("", members)
    }

    // MARK: Changes

    var orNull: Schema {
        let null: JSONObject = ["type": "null"]
        var schema = self
        if let type = json["type"] {
            if type == "null" || type.array != nil { return self }
            schema.json["type"] = [type, "null"]
            if let values = json["enum"]?.array { schema.json["enum"] = .array(values + [.null]) }
        } else if let choices = json["anyOf"]?.array {
            schema.json["anyOf"] = .array(choices + [.object(null)])
        } else if let values = json["enum"]?.array {
            if !values.contains(.null) { schema.json["enum"] = .array(values + [.null]) }
        } else if json["$ref"] != nil || json["const"] != nil {
            var inner = json
            inner["description"] = nil
            schema.json = json["description"].map { ["description": $0] } ?? [:]
            schema.json["anyOf"] = [.object(inner), .object(null)]
        }
        return schema
    }

    func described(_ text: String) -> Schema {
        var schema = self
        schema.json["description"] = .string(text)
        return schema
    }

    func defaulting(to value: JSONValue) -> Schema {
        var schema = self
        schema.json["default"] = value
        return schema
    }

    func example(_ value: JSONValue) -> Schema {
        var schema = self
        schema.json["examples"] = [value]
        return schema
    }
}
