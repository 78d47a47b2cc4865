import GRDB
import TLS

/// A row of the table `api_keys`: everything of a key but its text.
public struct StoredKey: Sendable, Equatable {
    /// Whose objects the key opens, what it may do there and how often, and until when.
    public struct Grant: Sendable, Equatable {
        /// For people.
        public var name: String
        public var owner: String
        public var scopes: Set<KeyScope>
        public var limits: KeyLimits
        /// Seconds since 1970 UTC, from which on the key is refused; `nil`: never.
        public var expiresAt: Int?

        public init(
            name: String, owner: String = InstructionStore.localOwner, scopes: Set<KeyScope> = KeyScope.standard, limits: KeyLimits = KeyLimits(),
            expiresAt: Int? = nil
        ) {
            self.name = name
            self.owner = owner
            self.scopes = scopes
            self.limits = limits
            self.expiresAt = expiresAt
        }
    }

    /// In what order the keys were made.
    public var number: Int
    /// The 16 hexadecimal digits in the key's text.
    public var id: String
    public var grant: Grant
    /// The SHA-256 of the key's text.
    public var digest: [UInt8]
    public var lastFour: String
    /// Seconds since 1970 UTC.
    public var createdAt: Int
    public var revokedAt: Int?

    /// The id as clients and logs see it.
    public var objectID: String { Self.prefix + id }
    public static let prefix = "key_"

    /// Whether a text has the form of an `objectID`.
    public static func isValidID(_ text: String) -> Bool {
        text.hasPrefix(prefix) && text.utf8.count == prefix.utf8.count + APIKeyText.idLength
            && text.utf8.dropFirst(prefix.utf8.count).allSatisfy { (0x30...0x39).contains($0) || (0x61...0x66).contains($0) }
    }

    /// Whether the key opens anything at a time.
    public func isUsable(at time: Int) -> Bool {
        revokedAt == nil && grant.expiresAt.map { time < $0 } ?? true
    }

    init(_ row: Row) throws {
        number = try row.value("number")
        id = try row.value("id")
        let words: String = try row.value("scopes")
        let scopes = words.split(separator: " ").map { KeyScope(rawValue: String($0)) }
        let hexadecimal: String = try row.value("digest")
        guard !scopes.contains(nil), let digest = Self.bytes(hexadecimal) else {
            throw DatabaseError(resultCode: .SQLITE_CORRUPT, message: "a key has a scope or a digest that no version of this program writes")
        }
        grant = Grant(
            name: try row.value("name"), owner: try row.value("owner"), scopes: Set(scopes.compactMap { $0 }),
            limits: KeyLimits(requestsPerMinute: try row.optional("requests_per_minute"), tokensPerMinute: try row.optional("tokens_per_minute")),
            expiresAt: try row.optional("expires_at"))
        self.digest = digest
        lastFour = try row.value("last_four")
        createdAt = try row.value("created_at")
        revokedAt = try row.optional("revoked_at")
    }

    private static func bytes(_ hexadecimal: String) -> [UInt8]? {
        let digits = Array(hexadecimal.utf8)
        guard digits.count == 2 * SHA256Digest.byteCount else { return nil }
        var bytes: [UInt8] = []
        for index in stride(from: 0, to: digits.count, by: 2) {
            guard let byte = UInt8(String(decoding: digits[index...index + 1], as: UTF8.self), radix: 16) else { return nil }
            bytes.append(byte)
        }
        return bytes
    }
}
