import InstructionStore
import TLS
import TestSupport
import Testing

struct KeyStoreTests {
    let folder: TemporaryFolder

    init() throws { folder = try TemporaryFolder() }

    private func open() throws -> InstructionStore {
        try InstructionStore(directory: DataDirectory(path: "\(folder.path)/data"))
    }

    private func code(_ body: () throws -> Void) -> InstructionStoreError.Code? {
        do {
            try body()
            return nil
        } catch {
            return (error as? InstructionStoreError)?.code
        }
    }

    // MARK: The text

    @Test func textsHaveTheirFormAndNeverRepeat() throws {
        let texts = (0..<200).map { _ in APIKeyText() }
        #expect(Set(texts.map(\.text)).count == 200 && Set(texts.map(\.id)).count == 200)
        for key in texts {
            #expect(key.text.wholeMatch(of: #/sk-graft-[0-9a-f]{16}-[A-Za-z0-9_-]{43}/#) != nil, "\(key.text)")
            let read = try #require(APIKeyText(key.text))
            #expect(read.id == key.id && read.digest == key.digest && read.lastFour == String(key.text.suffix(4)))
            #expect(key.digest == SHA256Digest.of(Array(key.text.utf8)))
        }
    }

    @Test func otherTextsAreRefused() {
        let good = APIKeyText().text
        for bad in [
            "", "sk-graft-", "sk-" + good, good + "A", String(good.dropLast()), good.replacing("sk-graft-", with: "sk-GRAFT-"), String(good.dropLast()) + "+",
            "sk-graft-0123456789ABCDEF-" + good.suffix(43), "sk-graft-0123456789abcdef_" + good.suffix(43), String(good.dropLast(2)) + "é",
        ] {
            #expect(APIKeyText(bad) == nil, "\(bad)")
        }
    }

    // MARK: Rows

    @Test func aKeyIsKeptWithoutItsText() throws {
        let text = APIKeyText()
        let grant = StoredKey.Grant(
            name: "ci", owner: "alice", scopes: [.train, .infer], limits: KeyLimits(requestsPerMinute: 60, tokensPerMinute: 0), expiresAt: 100)
        do {
            let store = try open()
            let key = try store.insertKey(text, grant, at: 10)
            #expect(key.id == text.id && key.objectID == "key_" + text.id && key.grant == grant && key.createdAt == 10 && key.revokedAt == nil)
            #expect(key.digest == text.digest && key.lastFour == text.lastFour)
            #expect(try store.owners() == ["alice", "local"], "a key makes its owner")
            let secret = String(text.text.suffix(43))
            let columns = try store.evaluate("SELECT group_concat(id || owner || name || digest || last_four || scopes) FROM api_keys") ?? ""
            #expect(columns.contains(text.id) && !columns.contains(secret) && !columns.contains(secret.dropLast(4)))
        }
        let store = try open()
        #expect(try store.keys().map(\.grant) == [grant], "it is there after a restart")
    }

    @Test func usableUntilItEndsOrIsRevoked() throws {
        let store = try open()
        let ending = try store.insertKey(APIKeyText(), StoredKey.Grant(name: "a", expiresAt: 100), at: 10)
        #expect(ending.isUsable(at: 99) && !ending.isUsable(at: 100) && !ending.isUsable(at: 101))
        let other = try store.insertKey(APIKeyText(), StoredKey.Grant(name: "b"), at: 11)
        #expect(other.isUsable(at: .max) && other.grant.owner == "local" && other.grant.scopes == [.infer, .files, .train])
        let revoked = try #require(try store.revokeKey(id: other.id, at: 50))
        #expect(revoked.revokedAt == 50 && !revoked.isUsable(at: 50))
        #expect(try store.revokeKey(id: other.id, at: 60)?.revokedAt == 50, "the first time counts")
        #expect(try store.revokeKey(id: "0123456789abcdef", at: 60) == nil)
        #expect(try store.keys().map(\.grant.name) == ["a", "b"], "rows stay")
    }

    @Test func badGrantsAreRefused() throws {
        let store = try open()
        let grants = [
            StoredKey.Grant(name: ""), StoredKey.Grant(name: String(repeating: "n", count: 129)), StoredKey.Grant(name: "a\nb"),
            StoredKey.Grant(name: "a", owner: "../x"), StoredKey.Grant(name: "a", scopes: []),
            StoredKey.Grant(name: "a", limits: KeyLimits(requestsPerMinute: -1)), StoredKey.Grant(name: "a", limits: KeyLimits(tokensPerMinute: 1_000_000_001)),
            StoredKey.Grant(name: "a", expiresAt: 10),
        ]
        for grant in grants { #expect(code { _ = try store.insertKey(APIKeyText(), grant, at: 10) } == .invalidArgument, "\(grant)") }
        #expect(try store.keys().isEmpty && store.owners() == ["local"])
        let text = APIKeyText()
        _ = try store.insertKey(text, StoredKey.Grant(name: "a"), at: 10)
        #expect(code { _ = try store.insertKey(text, StoredKey.Grant(name: "a"), at: 10) } == .conflict)
    }

    @Test func aDamagedRowIsToldOf() throws {
        let store = try open()
        _ = try store.insertKey(APIKeyText(), StoredKey.Grant(name: "a"), at: 10)
        _ = try store.evaluate("UPDATE api_keys SET scopes = 'infer root'")
        #expect(code { _ = try store.keys() } == .damaged)
    }
}
