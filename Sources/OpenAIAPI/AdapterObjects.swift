import Adapters
import JSON

/// The JSON of adapters and their versions.
package struct AdapterObjects {
    /// How many elements a page of adapters may have, and has unless a request says.
    static let pageRange = 1...1000, pageSize = 100

    private let base: AdapterBase
    private let resident: Set<String>

    package init(_ adapters: any AdapterService) {
        base = adapters.base
        resident = Set(adapters.statistics.resident.map { "\($0.name)@\($0.number)" })
    }

    package func adapter(_ record: AdapterRecord) -> JSONValue {
        [
            "id": .integer(Int64(record.id)), "object": "adapter", "name": .string(record.name), "owned_by": .string(record.owner),
            "promoted": record.promoted.map { .integer(Int64($0)) } ?? .null,
            "canary": record.canary.map { ["version": .integer(Int64($0.number)), "share": .number($0.share)] } ?? .null,
            "pinned": .bool(record.isPinned), "versions": .array(record.versions.map(version)),
        ]
    }

    package func version(_ version: AdapterVersion) -> JSONValue {
        let status: String
        var error: JSONValue = .null
        if let reason = version.quarantine {
            status = "quarantined"
            error = .string(reason)
        } else if version.baseDigest != base.digest {
            status = "other_base"
            error = .string("made for '\(version.baseName)'; this server runs '\(base.name)'")
        } else {
            status = "available"
        }
        return [
            "object": "adapter.version", "name": .string(version.name), "version": .integer(Int64(version.number)),
            "digest": .string("sha256:" + version.digest), "base": .string(version.baseName), "base_digest": .string("sha256:" + version.baseDigest),
            "rank": .integer(Int64(version.rank)), "pairs": .integer(Int64(version.pairCount)), "source": .string(Self.name(version.source)),
            "created_at": .integer(Int64(version.createdAt)), "bytes": .integer(Int64(version.byteCount)), "status": .string(status), "error": error,
            "resident": .bool(resident.contains(version.qualifiedName)),
        ]
    }

    private static func name(_ source: AdapterSource) -> String {
        switch source {
        case .peft: "peft"
        case .gguf: "gguf"
        case .job(let id): id
        }
    }

    /// All of something.
    static func list(_ elements: [JSONValue]) -> JSONValue {
        ["object": "list", "data": .array(elements), "has_more": false]
    }

    /// A page of adapters.
    static func list(_ adapters: [JSONValue], hasMore: Bool) -> JSONValue {
        [
            "object": "list", "data": .array(adapters), "has_more": .bool(hasMore), "first_id": adapters.first?["id"] ?? .null,
            "last_id": adapters.last?["id"] ?? .null,
        ]
    }
}
