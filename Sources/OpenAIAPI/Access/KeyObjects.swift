import InstructionStore
import JSON

/// API keys as the API shows them: OpenAI's admin key objects, with what Graft's keys have besides.
package enum KeyObjects {
    /// - Parameter value: the key's text, which only the answer to its making has.
    package static func key(_ key: StoredKey, lastUse: Int?, value: String? = nil) -> JSONObject {
        func time(_ seconds: Int?) -> JSONValue { seconds.map { .integer(Int64($0)) } ?? .null }
        var object: JSONObject = [
            "object": "organization.admin_api_key", "id": .string(key.objectID), "name": .string(key.grant.name),
            "redacted_value": .string(APIKeyText.prefix + "..." + key.lastFour), "created_at": time(key.createdAt), "last_used_at": time(lastUse),
            "expires_at": time(key.grant.expiresAt), "revoked_at": time(key.revokedAt),
            "owner": ["type": "tenant", "id": .string(key.grant.owner), "name": .string(key.grant.owner)],
            "scopes": .array(key.grant.scopes.sorted.map { .string($0.rawValue) }), "requests_per_minute": time(key.grant.limits.requestsPerMinute),
            "tokens_per_minute": time(key.grant.limits.tokensPerMinute),
        ]
        if let value { object["value"] = .string(value) }
        return object
    }
}

/// A decoded `POST /v1/organization/admin_api_keys`.
struct KeyRequest {
    var grant: StoredKey.Grant
    /// How long the key lasts; `nil`: until it is revoked.
    var lifetime: Int?
    /// Names of unknown fields.
    var ignored: [String]

    /// A hundred years, so that no sum of times runs over.
    static let longest = 3_153_600_000

    init(_ object: JSONObject) throws(APIError) {
        var fields = RequestFields(object)
        guard let name = try fields.string("name", maximumBytes: InstructionStore.longestKeyName), !name.isEmpty else {
            throw .missing("name", expected: "a name by which people know the key")
        }
        grant = StoredKey.Grant(name: name)
        if let owner = try fields.string("owner", maximumBytes: 64) {
            guard InstructionStore.isValidOwner(owner) else {
                throw .invalidValue("owner", "'owner' is '\(quoted(owner))', expected 1 to 64 of A-Z a-z 0-9 . _ - that do not begin with a dot")
            }
            grant.owner = owner
        }
        if let value = fields.value("scopes") { grant.scopes = try Self.scopes(value) }
        grant.limits.requestsPerMinute = try fields.integer("requests_per_minute", in: 0...InstructionStore.largestKeyLimit)
        grant.limits.tokensPerMinute = try fields.integer("tokens_per_minute", in: 0...InstructionStore.largestKeyLimit)
        lifetime = try fields.integer("expires_in_seconds", in: 1...Self.longest)
        ignored = fields.unread
    }

    private static func scopes(_ value: JSONValue) throws(APIError) -> Set<KeyScope> {
        let expected = "an array of at least one of \(KeyScope.allCases.map { "\"\($0.rawValue)\"" }.joined(separator: ", "))"
        guard let elements = value.array, !elements.isEmpty else { throw .invalidType("scopes", found: value, expected: expected) }
        var scopes: Set<KeyScope> = []
        for (index, element) in elements.enumerated() {
            guard let scope = element.string.flatMap({ KeyScope(rawValue: $0) }) else {
                throw .invalidValue("scopes[\(index)]", "'scopes[\(index)]' is \(element.string.map { "'\(quoted($0))'" } ?? describe(element)), expected \(expected)")
            }
            scopes.insert(scope)
        }
        return scopes
    }
}
