import HTTPServing
import InstructionStore

/// Who has sent a request, as far as it matters to the server.
package struct Caller: Sendable, Equatable {
    /// Whose objects it sees.
    package var owner: String
    /// The key's public id, `key_…`; `nil` on a server without keys.
    package var keyID: String?
    package var scopes: Set<KeyScope>
    /// What the key may use in a minute; `nil`: as much as it likes.
    package var requestsPerMinute: Int?
    package var tokensPerMinute: Int?

    /// Everybody, on a server without keys.
    package static let local = Caller(owner: Owner.local, keyID: nil, scopes: Set(KeyScope.allCases))
    /// Somebody whom nothing is known of, and who sees nothing.
    static let nobody = Caller(owner: "", keyID: nil, scopes: [])

    /// The actor of audit lines.
    var actor: String { keyID ?? "-" }
}

/// A request whose sender is known and may send it.
@dynamicMemberLookup
struct APIRequest: Sendable {
    let incoming: IncomingRequest
    let caller: Caller

    init(_ incoming: IncomingRequest, caller: Caller) {
        self.incoming = incoming
        self.caller = caller
    }

    subscript<Value>(dynamicMember path: KeyPath<IncomingRequest, Value>) -> Value { incoming[keyPath: path] }

    /// The same request without what it carried, for whoever answers it later.
    var withoutBody: APIRequest {
        APIRequest(
            IncomingRequest(
                exchange: incoming.exchange, head: incoming.head, path: incoming.path, query: incoming.query, body: [], requestID: incoming.requestID,
                receivedAt: incoming.receivedAt), caller: caller)
    }
}
