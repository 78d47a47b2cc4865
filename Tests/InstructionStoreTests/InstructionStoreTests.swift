import FoundationEssentials
import Glibc
import InstructionStore
import TestSupport
import Testing

struct InstructionStoreTests {
    let folder: TemporaryFolder
    var path: String { "\(folder.path)/data" }

    init() throws {
        folder = try TemporaryFolder()
    }

    private func open() throws -> InstructionStore {
        try InstructionStore(directory: DataDirectory(path: path))
    }

    private static func content(_ name: String, _ number: Int, digest: String = "d") -> AdapterVersionContent {
        AdapterVersionContent(
            digest: digest, baseName: "base", baseDigest: "b", rank: 4, pairCount: 2, source: "peft", configByteCount: 10, weightsByteCount: 20,
            folder: "local/\(name)/\(number)")
    }

    @discardableResult
    private func insert(
        _ store: InstructionStore, _ name: String = "bot", owner: String = "local", number: Int? = nil, promote: Bool = true, folder: String? = nil
    ) throws -> AdapterRow {
        let next = try store.nextAdapterNumber(owner: owner, name: name)
        var content = Self.content(name, number ?? next)
        content.folder = folder ?? "\(owner)/\(name)/\(number ?? next)"
        return try store.insertAdapterVersion(content, owner: owner, name: name, number: number ?? next, promote: promote, at: 7)
    }

    private func code(_ body: () throws -> Void) -> InstructionStoreError.Code? {
        do {
            try body()
            return nil
        } catch {
            return (error as? InstructionStoreError)?.code
        }
    }

    // MARK: The file

    @Test func everyCommitIsSyncedOnOneConnectionAlone() throws {
        let store = try open()
        #expect(try store.evaluate("PRAGMA journal_mode") == "wal")
        #expect(try store.evaluate("PRAGMA synchronous") == "2")
        #expect(try store.evaluate("PRAGMA locking_mode") == "exclusive")
        #expect(try store.evaluate("PRAGMA foreign_keys") == "1")
        try insert(store)
        let files = try folder.contents(of: "data")
        #expect(files == ["graft.sqlite", "graft.sqlite-wal", "lock"], "no memory is shared with other connections")
        for file in files {
            var status = stat()
            #expect(stat("\(path)/\(file)", &status) == 0 && status.st_mode & 0o777 == 0o600, "\(file)")
        }
    }

    @Test func keepsItsIdAndItsRows() throws {
        var first: InstructionStore? = try open()
        let id = try #require(first?.id)
        let row = try insert(try #require(first))
        first = nil
        let second = try open()
        #expect(second.id == id)
        #expect(try second.adapters() == [row])
        #expect(try second.adapterVersions() == [AdapterVersionRow(adapterID: row.id, number: 1, content: Self.content("bot", 1), createdAt: 7)])
        let other = try TemporaryFolder()
        #expect(try InstructionStore(directory: DataDirectory(path: other.path)).id != id)
    }

    @Test func somethingThatIsNoDatabaseIsNamed() throws {
        _ = try open()
        for file in try folder.contents(of: "data") where file != "lock" { unlink("\(path)/\(file)") }
        try Data(repeating: 0x41, count: 8192).write(to: URL(filePath: "\(path)/graft.sqlite"))
        let error = #expect(throws: InstructionStoreError.self) { try open() }
        #expect(error?.code == .damaged)
        #expect(error?.message.contains("\(path)/graft.sqlite") == true)
    }

    @Test func brokenPagesAreNoticedAtTheStart() throws {
        do {
            let store = try open()
            for _ in 0..<20 { try insert(store) }
        }
        let url = URL(filePath: "\(path)/graft.sqlite")
        var data = try Data(contentsOf: url)
        try #require(data.count > 3 * 4096)
        // The first page holds the schema; all others are made unreadable.
        data.replaceSubrange(4096..<data.count, with: repeatElement(0xff, count: data.count - 4096))
        try data.write(to: url)
        #expect(code { _ = try open() } == .damaged)
    }

    @Test func schemaOfALaterVersionIsLeftAlone() throws {
        do {
            let store = try open()
            _ = try store.evaluate("INSERT INTO grdb_migrations VALUES ('999-later') RETURNING identifier")
        }
        let error = #expect(throws: InstructionStoreError.self) { try open() }
        #expect(error?.code == .newerSchema)
        #expect(error?.message.contains("later version") == true)
    }

    @Test func directoryIsHeldAsLongAsTheStoreLives() throws {
        var store: InstructionStore? = try open()
        #expect(throws: DataDirectoryError.self) { try DataDirectory(path: path) }
        withExtendedLifetime(store) {}
        store = nil
        #expect(throws: Never.self) { try DataDirectory(path: path) }
    }

    // MARK: Failures

    @Test func fullDiskRefusesTheWriteAndNothingElse() throws {
        let store = try open()
        let before = try insert(store)
        let pages = try #require(try store.evaluate("PRAGMA page_count"))
        _ = try store.evaluate("PRAGMA max_page_count = \(pages)")
        var written = 1
        var refused: InstructionStoreError?
        while refused == nil {
            do {
                try insert(store, "bot\(written)")
                written += 1
            } catch {
                refused = error as? InstructionStoreError
            }
        }
        #expect(refused?.code == .storageFull)
        #expect(try store.adapters().count == written)
        #expect(try store.adapters().first == before)
        _ = try store.evaluate("PRAGMA max_page_count = 1000000")
        #expect(throws: Never.self) { try insert(store, "bot\(written)") }
    }

    static let faults: [(Int32, InstructionStoreError.Code)] = [(13, .storageFull), (10, .storage), (11, .damaged), (5, .busy)]

    @Test(arguments: faults)
    func failedTransactionChangesNothing(resultCode: Int32, expected: InstructionStoreError.Code) throws {
        let store = try open()
        store.injectFault(resultCode: resultCode)
        #expect(code { try insert(store) } == expected)
        #expect(try store.adapters().isEmpty)
        store.injectFault(resultCode: nil)
        #expect(try insert(store).promoted == 1)
    }

    /// Of SQLite: a file or a directory could not be synced.
    @Test(arguments: [Int32(10 | 4 << 8), Int32(10 | 5 << 8)])
    func unconfirmedWriteEndsAllWriting(resultCode: Int32) throws {
        do {
            let store = try open()
            let row = try insert(store)
            store.injectFault(resultCode: resultCode)
            #expect(code { try insert(store) } == .failed)
            store.injectFault(resultCode: nil)
            #expect(code { try insert(store) } == .failed)
            #expect(code { try store.addOwner("alice", at: 1) } == .failed)
            #expect(try store.adapters() == [row])
        }
        #expect(throws: Never.self) { try insert(try open()) }
    }

    @Test func messagesHoldNoValues() throws {
        let store = try open()
        try insert(store, folder: "secret-folder")
        let error = #expect(throws: InstructionStoreError.self) { try insert(store, folder: "secret-folder") }
        #expect(error?.code == .conflict)
        #expect(error?.message.contains("secret") == false)
        #expect(error?.message.contains("/") == false, "clients read what conflicts say, and get no paths of the server: \(error?.message ?? "")")
        #expect(try store.adapterVersions().count == 1)
    }

    // MARK: Owners

    @Test func localOwnerExistsAndOthersAreMade() throws {
        let store = try open()
        #expect(try store.owners() == ["local"])
        try store.addOwner("alice", at: 1)
        try store.addOwner("alice", at: 2)
        #expect(try store.owners() == ["alice", "local"])
        for name in ["", ".", "..", ".hidden", "a/b", "a b", "ä", String(repeating: "a", count: 65)] {
            #expect(code { try store.addOwner(name, at: 1) } == .invalidArgument, "\(name)")
        }
    }

    @Test func rowsNeedAnOwner() throws {
        let store = try open()
        #expect(code { _ = try store.nextAdapterNumber(owner: "nobody", name: "bot") } == .notFound)
        #expect(
            code { _ = try store.insertAdapterVersion(Self.content("bot", 1), owner: "nobody", name: "bot", number: 1, promote: true, at: 1) } == .conflict)
        #expect(try store.adapters().isEmpty)
    }

    // MARK: Adapters

    @Test func numbersAndIdsAreNeverReused() throws {
        var store: InstructionStore? = try open()
        func current() throws -> InstructionStore { try #require(store) }
        var ids: [Int] = []
        for expected in 1...5 {
            let row = try insert(try current())
            #expect(row.promoted == expected)
            ids.append(row.id)
            try current().deleteAdapter(id: row.id)
            if expected == 3 {
                store = nil
                store = try open()
            }
        }
        #expect(ids == Array(Set(ids)).sorted() && ids.count == 5)
        #expect(try current().nextAdapterNumber(owner: "local", name: "bot") == 6)
        #expect(try current().nextAdapterNumber(owner: "local", name: "other") == 1)
        #expect(code { try insert(try current(), number: 5) } == .conflict)
        #expect(code { try insert(try current(), number: 7) } == .conflict)
        #expect(try current().adapters().isEmpty)
    }

    @Test func firstVersionIsPromotedAnyway() throws {
        let store = try open()
        #expect(try insert(store, promote: false).promoted == 1)
        #expect(try insert(store, promote: false).promoted == 1)
        #expect(try insert(store, promote: true).promoted == 3)
    }

    @Test func rollbackTakesPromotionsBackOneByOne() throws {
        let store = try open()
        for _ in 1...4 { try insert(store) }
        let id = try #require(try store.adapters().first).id
        #expect(try store.rollBackAdapter(id: id, at: 8).promoted == 3)
        #expect(try store.rollBackAdapter(id: id, at: 8).promoted == 2)
        #expect(try store.promoteAdapter(id: id, number: 4, at: 9).promoted == 4)
        #expect(try store.adapterBeforePromoted(id: id) == 2)
        #expect(try store.rollBackAdapter(id: id, at: 10).promoted == 2)
        #expect(try store.rollBackAdapter(id: id, at: 10).promoted == 1)
        #expect(try store.adapterBeforePromoted(id: id) == nil)
        #expect(code { _ = try store.rollBackAdapter(id: id, at: 11) } == .conflict)
    }

    @Test func rollbackPassesOverDeletedVersions() throws {
        let store = try open()
        for _ in 1...3 { try insert(store, promote: false) }
        let id = try #require(try store.adapters().first).id
        for number in [2, 1, 3] { _ = try store.promoteAdapter(id: id, number: number, at: 8) }
        // Promoted in this order: 1, 2, 1, 3. Without 2 the two promotions of 1 follow one another.
        #expect(try store.deleteAdapterVersion(id: id, number: 2).promoted == 3)
        #expect(try store.rollBackAdapter(id: id, at: 9).promoted == 1)
        #expect(try store.adapterBeforePromoted(id: id) == nil)
    }

    @Test func promotingTheSameAgainAddsNothingToTheHistory() throws {
        let store = try open()
        for _ in 1...2 { try insert(store) }
        let id = try #require(try store.adapters().first).id
        for _ in 1...3 { _ = try store.promoteAdapter(id: id, number: 2, at: 8) }
        #expect(try store.rollBackAdapter(id: id, at: 9).promoted == 1)
        #expect(code { _ = try store.rollBackAdapter(id: id, at: 9) } == .conflict)
    }

    @Test func canaryEndsWithPromotionAndWithItsVersion() throws {
        let store = try open()
        for _ in 1...3 { try insert(store, promote: false) }
        let id = try #require(try store.adapters().first).id
        var row = try store.setAdapterCanary(id: id, (2, 0.25))
        #expect(row.canary == 2 && row.canaryShare == 0.25 && row.promoted == 1)
        row = try store.promoteAdapter(id: id, number: 2, at: 8)
        #expect(row.canary == nil && row.canaryShare == nil && row.promoted == 2)
        _ = try store.setAdapterCanary(id: id, (3, 0.5))
        row = try store.deleteAdapterVersion(id: id, number: 3)
        #expect(row.canary == nil && row.canaryShare == nil)
        for (number, share) in [(9, 0.5), (1, 0), (1, 1), (1, -1)] {
            #expect(code { _ = try store.setAdapterCanary(id: id, (number, share)) } == .conflict, "\(number) \(share)")
        }
        #expect(try store.adapters() == [row])
    }

    @Test func promotedVersionCannotGoAlone() throws {
        let store = try open()
        for _ in 1...2 { try insert(store) }
        let id = try #require(try store.adapters().first).id
        #expect(code { _ = try store.deleteAdapterVersion(id: id, number: 2) } == .conflict)
        #expect(code { _ = try store.deleteAdapterVersion(id: id, number: 3) } == .notFound)
        #expect(code { _ = try store.promoteAdapter(id: id, number: 3, at: 1) } == .conflict)
        try store.deleteAdapter(id: id)
        #expect(try store.adapters().isEmpty && store.adapterVersions().isEmpty)
        #expect(code { try store.deleteAdapter(id: id) } == .notFound)
    }

    @Test func quarantineAndPinAreKept() throws {
        do {
            let store = try open()
            let id = try insert(store).id
            #expect(try store.setAdapterPinned(id: id, true).isPinned)
            try store.setAdapterQuarantine(id: id, number: 1, "weights: is missing")
            #expect(code { try store.setAdapterQuarantine(id: id, number: 2, "x") } == .notFound)
        }
        let store = try open()
        #expect(try store.adapters().map(\.isPinned) == [true])
        #expect(try store.adapterVersions().map(\.quarantine) == ["weights: is missing"])
        try store.setAdapterQuarantine(id: try #require(try store.adapters().first).id, number: 1, nil)
        #expect(try store.adapterVersions().map(\.quarantine) == [nil])
    }
}
