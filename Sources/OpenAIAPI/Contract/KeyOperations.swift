import InstructionStore
import JSON

/// The description of the routes that manage API keys.
enum KeyOperations {
    private static let id = Operation.Parameter.id("The key's id.", example: "key_0123456789abcdef")
    private static let scopes = KeyScope.allCases.map(\.rawValue)

    static let create = Operation(
        id: "createKey", tag: .keys, summary: "Make an API key", text: "The key's text is in this answer and nowhere else: only its digest is kept.",
        body: Operation.Body(
            schema: .request(
                required: [("name", .string("By which people know it.", length: 1...InstructionStore.longestKeyName))],
                optional: [
                    ("owner", .string("Whose objects it sees; several keys may share one.", pattern: "^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$")),
                    ("scopes", .array(of: .word(scopes), "What it may be used for; all but `admin` when absent.", count: 1 ... .max)),
                    ("requests_per_minute", .integer("Absent: the server's own limit, if it has one.", in: 0...InstructionStore.largestKeyLimit)),
                    ("tokens_per_minute", .integer("Absent: the server's own limit, if it has one.", in: 0...InstructionStore.largestKeyLimit)),
                    ("expires_in_seconds", .integer("Absent: it lasts until it is revoked.", in: 1...KeyRequest.longest)),
                ]),
            examples: [("monitoring", ["name": "monitoring", "owner": "operations", "scopes": ["admin"], "requests_per_minute": 60, "expires_in_seconds": 86400])]),
        answer: .json("The key, with its text as `value`.", .named("APIKey"), headers: ["graft-ignored-parameters"]), refusals: [404, 409, 507])

    static let list = Operation(
        id: "listKeys", tag: .keys, summary: "List API keys",
        parameters: [.limit(1...1000, otherwise: 20), .order(otherwise: "asc"), .after()],
        answer: .json("A page of keys, revoked and expired ones too.", .list(of: .named("APIKey"), cursors: .string())), refusals: [404])

    static let retrieve = Operation(
        id: "retrieveKey", tag: .keys, summary: "Look at an API key", parameters: [id], answer: .json("The key.", .named("APIKey")), refusals: [404])

    static let revoke = Operation(
        id: "revokeKey", tag: .keys, summary: "Revoke an API key", text: "Holds at once, on connections that are open too.", parameters: [id],
        answer: .json("It opens nothing any more.", .named("Deleted")), refusals: [404, 409, 507])

    static let schemas: [Schema.Member] = [
        (
            "APIKey",
            .answer(
                "",
                [
                    ("object", .constant("organization.admin_api_key")), ("id", .string()), ("name", .string()),
                    ("redacted_value", .string("The beginning and the end of its text.")), ("created_at", .integer("Seconds since 1970.")),
                    ("last_used_at", Schema.integer("Seconds since 1970; null: not since the server was started.").orNull),
                    ("expires_at", Schema.integer("Seconds since 1970.").orNull), ("revoked_at", Schema.integer("Seconds since 1970.").orNull),
                    ("owner", .answer("", [("type", .constant("tenant")), ("id", .string()), ("name", .string())])),
                    ("scopes", .array(of: .word(scopes))), ("requests_per_minute", Schema.integer().orNull), ("tokens_per_minute", Schema.integer().orNull),
                ],
                optional: [("value", .string("Its text, in the answer to its making only."))])
        )
    ]
}
