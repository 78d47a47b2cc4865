import InstructionStore
import Synchronization
import TLS

/// The keys of a server, in memory as they are in the store: who sends a request is found out without asking the disk.
///
/// The process holds the data directory, so nobody else changes the keys, and what is revoked here is refused from the next request on. A server asks for
/// keys as soon as there has been one, also when none of them opens anything any more: revoking the last key must not open the server.
public final class KeyRing: Sendable {
    private struct State {
        var keys: [String: StoredKey] = [:]
        /// When each key was last used, since the start; seconds since 1970 UTC.
        var uses: [String: Int] = [:]
    }

    private let state: Mutex<State>
    private let store: InstructionStore?
    private let isAlwaysRequired: Bool
    private let defaults: KeyLimits
    private let now: @Sendable () -> Int

    /// A ring without keys that cannot get any: everybody is let in as the local owner.
    public init() {
        state = Mutex(State())
        store = nil
        isAlwaysRequired = false
        defaults = KeyLimits()
        now = { secondsSince1970() }
    }

    /// - Parameters:
    ///   - isRequired: ask for keys also when there are none, as a server must that others than this machine can reach.
    ///   - defaults: for keys that do not say; `nil` and 0 are no limit.
    ///   - now: seconds since 1970 UTC.
    public init(
        _ store: InstructionStore, isRequired: Bool, defaults: KeyLimits = KeyLimits(), now: (@Sendable () -> Int)? = nil
    ) throws(InstructionStoreError) {
        self.store = store
        isAlwaysRequired = isRequired
        self.defaults = defaults
        self.now = now ?? { secondsSince1970() }
        state = Mutex(State(keys: Dictionary(try store.keys().map { ($0.id, $0) }) { $1 }))
    }

    /// Whether requests must have a key.
    public var isRequired: Bool { isAlwaysRequired || state.withLock { !$0.keys.isEmpty } }
    /// Whether there is a key that opens anything now.
    public var hasUsableKey: Bool {
        let time = now()
        return state.withLock { $0.keys.values.contains { $0.isUsable(at: time) } }
    }

    // MARK: Letting in

    /// Who has sent a request with this Authorization field.
    /// - Throws: 401, with the way to a key.
    package func caller(_ authorization: String?) throws(APIError) -> Caller {
        guard isRequired else { return .local }
        guard let authorization else { throw .missingKey }
        guard let token = Self.bearerToken(authorization) else { throw .malformedAuthorization }
        guard let text = APIKeyText(token) else { throw .unknownKey }
        let time = now()
        let found = state.withLock { $0.keys[text.id] }
        // The id is public. Whether there is one may be found out; what else the text must be may not.
        guard let found, constantTimeEqual(found.digest, text.digest) else { throw .unknownKey }
        guard found.revokedAt == nil else { throw .endedKey("was revoked") }
        guard found.isUsable(at: time) else { throw .endedKey("has expired") }
        state.withLock { $0.uses[found.id] = time }
        return caller(found)
    }

    private func caller(_ key: StoredKey) -> Caller {
        func limit(_ own: Int?, _ otherwise: Int?) -> Int? { (own ?? otherwise).flatMap { $0 > 0 ? $0 : nil } }
        return Caller(
            owner: key.grant.owner, keyID: key.objectID, scopes: key.grant.scopes,
            requestsPerMinute: limit(key.grant.limits.requestsPerMinute, defaults.requestsPerMinute),
            tokensPerMinute: limit(key.grant.limits.tokensPerMinute, defaults.tokensPerMinute))
    }

    /// Whether somebody who was let in would still be. Who came when there were no keys may finish.
    func isStillLetIn(_ caller: Caller) -> Bool {
        guard let id = caller.keyID else { return true }
        let time = now()
        return state.withLock { $0.keys[String(id.dropFirst(StoredKey.prefix.count))]?.isUsable(at: time) == true }
    }

    /// RFC 6750 section 2.1: the scheme's case does not matter.
    private static func bearerToken(_ authorization: String) -> String? {
        let words = authorization.split(separator: " ")
        guard words.count == 2, words[0].lowercased() == "bearer" else { return nil }
        return String(words[1])
    }

    // MARK: Managing (blocking, durable on return)

    /// - Returns: the key, and its text, which exists nowhere else.
    package func create(_ grant: StoredKey.Grant) throws(InstructionStoreError) -> (key: StoredKey, text: String) {
        guard let store else { throw Self.noStore }
        let text = APIKeyText()
        let key = try store.insertKey(text, grant, at: now())
        state.withLock { $0.keys[key.id] = key }
        return (key, text.text)
    }

    /// - Parameter id: with its prefix.
    /// - Returns: `nil`: there is no such key.
    package func revoke(_ id: String) throws(InstructionStoreError) -> StoredKey? {
        guard let store else { throw Self.noStore }
        guard id.hasPrefix(StoredKey.prefix), let key = try store.revokeKey(id: String(id.dropFirst(StoredKey.prefix.count)), at: now()) else { return nil }
        state.withLock { $0.keys[key.id] = key }
        return key
    }

    /// In the order in which they were made, with the time of the last use since the start.
    package func list() -> [(key: StoredKey, lastUse: Int?)] {
        state.withLock { state in
            state.keys.values.sorted { $0.number < $1.number }.map { ($0, state.uses[$0.id]) }
        }
    }

    /// The end of a key that is to last so many seconds.
    package func end(after seconds: Int?) -> Int? { seconds.map { now() + $0 } }

    private static let noStore = InstructionStoreError(.invalidArgument, "this server runs without a data directory and can keep no keys")
}
