import FoundationEssentials
import Glibc
import InstructionStore
import Synchronization
import TestSupport
import Testing

struct FileStoreTests {
    let folder: TemporaryFolder
    var files: String { "\(folder.path)/data/files" }

    init() throws {
        folder = try TemporaryFolder()
    }

    private final class Clock: Sendable {
        private let seconds = Mutex(1_800_000_000)

        var now: Int { seconds.withLock { $0 } }
        func pass(_ count: Int) { seconds.withLock { $0 += count } }
    }

    private func open(_ clock: Clock = Clock()) throws -> FileStore {
        try FileStore(InstructionStore(directory: DataDirectory(path: "\(folder.path)/data")), now: { clock.now })
    }

    @discardableResult
    private func add(_ store: FileStore, _ text: String, name: String = "a.jsonl", purpose: String = "fine-tune", owner: String = "local") throws -> StoredFile
    {
        try store.add(Array(text.utf8), name: name, purpose: purpose, owner: owner, status: .processed, report: #"{"examples":1,"problems":[1,2]}"#)
    }

    private func code(_ body: () throws -> Void) -> InstructionStoreError.Code? {
        do {
            try body()
            return nil
        } catch {
            return (error as? InstructionStoreError)?.code
        }
    }

    @Test func aFileStaysAsLongAsAJobNeedsIt() throws {
        let clock = Clock(), files = try open(clock), store = files.store
        let spool = try files.makeSpool()
        try spool.write(Array("validation".utf8))
        let training = try add(files, "training")
        let validation = try files.add(spool, name: "b.jsonl", purpose: "fine-tune", owner: "local", lifetime: 60, status: .processed, report: nil)
        var job = try store.insertJob(
            JobRow(
                id: "ftjob-1", owner: "local", createdAt: 5, request: #"{"training_file":"\#(training.id)","validation_file":"\#(validation.id)"}"#, metadata: nil,
                status: "running"),
            events: [])
        #expect(code { _ = try files.delete(id: training.id, owner: "local") } == .conflict)
        clock.pass(61)
        try add(files, "anything else")
        #expect(try files.contents(of: training) == Array("training".utf8) && files.contents(of: validation) == Array("validation".utf8))
        job.status = "succeeded"
        job.finishedAt = 6
        try store.updateJob(job)
        #expect(try files.delete(id: training.id, owner: "local"))
        try add(files, "anything")
        #expect(code { _ = try files.contents(of: validation) } == .notFound)
    }

    @Test func keepsFilesOverRestarts() throws {
        var store: FileStore? = try open()
        let file = try add(try #require(store), "hello\n")
        #expect(TimedIdentifiers.isValid(file.id, prefix: "file-"))
        #expect(file.byteCount == 6 && file.createdAt == 1_800_000_000 && file.expiresAt == nil && file.status == .processed)
        #expect(file.digest == "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03")
        store = nil
        let again = try open()
        #expect(try again.file(id: file.id, owner: "local") == file)
        #expect(try again.contents(of: file) == Array("hello\n".utf8))
        #expect(try folder.contents(of: "data/files") == [file.digest, "incoming/"])
        var status = stat()
        #expect(stat("\(files)/\(file.digest)", &status) == 0 && status.st_mode & 0o777 == 0o600)
    }

    @Test func piecesAreOneFile() throws {
        let store = try open()
        let spool = try store.makeSpool()
        for piece in ["he", "", "llo", "\n"] { try spool.write(Array(piece.utf8)) }
        #expect(spool.byteCount == 6)
        #expect(try spool.contents() == Array("hello\n".utf8))
        let file = try store.add(spool, name: "b", purpose: "batch", owner: "local", lifetime: nil, status: .uploaded, report: nil)
        #expect(try store.contents(of: file) == Array("hello\n".utf8))
        #expect(try store.file(id: file.id, owner: "local")?.report == nil)
    }

    @Test func aSpoolThatNobodyTakesLeavesNothing() throws {
        let store = try open()
        var spool: FileSpool? = try store.makeSpool()
        try spool?.write([1, 2, 3])
        #expect(try folder.contents(of: "data/files/incoming").count == 1)
        spool = nil
        #expect(try folder.contents(of: "data/files/incoming").isEmpty)
    }

    @Test func equalContentIsKeptOnceAndAsLongAsAnybodyNeedsIt() throws {
        let store = try open()
        let first = try add(store, "same", name: "1"), second = try add(store, "same", name: "2")
        #expect(first.id != second.id && first.digest == second.digest)
        #expect(try folder.contents(of: "data/files") == [first.digest, "incoming/"])
        #expect(try store.delete(id: first.id, owner: "local"))
        #expect(try store.file(id: first.id, owner: "local") == nil)
        #expect(try store.contents(of: second) == Array("same".utf8))
        #expect(try store.delete(id: second.id, owner: "local"))
        #expect(try folder.contents(of: "data/files") == ["incoming/"])
        #expect(try !store.delete(id: second.id, owner: "local"))
        #expect(code { _ = try store.contents(of: second) } == .notFound)
    }

    @Test func nobodySeesAnothersFiles() throws {
        let store = try open()
        try store.store.addOwner("ada", at: 1)
        let file = try add(store, "secret", owner: "ada")
        #expect(try store.file(id: file.id, owner: "local") == nil)
        #expect(try !store.delete(id: file.id, owner: "local"))
        #expect(try store.files(owner: "local", limit: 10, ascending: true).files.isEmpty)
        #expect(try store.files(owner: "ada", limit: 10, ascending: true).files.map(\.id) == [file.id])
        #expect(code { try add(store, "x", owner: "nobody") } == .conflict)
        // What was refused has left no bytes.
        #expect(try folder.contents(of: "data/files") == [file.digest, "incoming/"])
    }

    @Test func pages() throws {
        let store = try open()
        let made = try (0..<7).map { try add(store, "\($0)", purpose: $0 % 2 == 0 ? "fine-tune" : "batch").id }
        let all = try store.files(owner: "local", limit: 7, ascending: false)
        #expect(all.files.map(\.id) == made.reversed() && !all.hasMore)
        // Lists leave out what can be long.
        #expect(all.files.allSatisfy { $0.report == #"{"examples":1}"# })
        let first = try store.files(owner: "local", limit: 3, ascending: true)
        #expect(first.files.map(\.id) == Array(made[..<3]) && first.hasMore)
        // Where a page ended need not be there any more.
        #expect(try store.delete(id: made[2], owner: "local"))
        let second = try store.files(owner: "local", after: made[2], limit: 4, ascending: true)
        #expect(second.files.map(\.id) == Array(made[3...]) && !second.hasMore)
        #expect(try store.files(owner: "local", after: made[3], limit: 9, ascending: false).files.map(\.id) == [made[1], made[0]])
        #expect(try store.files(owner: "local", purpose: "batch", limit: 9, ascending: true).files.map(\.id) == [made[1], made[3], made[5]])
    }

    @Test func expiredFilesAreNotThere() throws {
        let clock = Clock()
        var store: FileStore? = try open(clock)
        func short(_ text: String) throws -> StoredFile {
            let spool = try #require(try store?.makeSpool())
            try spool.write(Array(text.utf8))
            return try #require(try store?.add(spool, name: "s", purpose: "batch", owner: "local", lifetime: 60, status: .uploaded, report: nil))
        }
        let file = try short("one")
        #expect(file.expiresAt == 1_800_000_060)
        clock.pass(59)
        #expect(try store?.file(id: file.id, owner: "local") == file)
        clock.pass(1)
        #expect(try store?.file(id: file.id, owner: "local") == nil)
        #expect(try store?.delete(id: file.id, owner: "local") == false)
        // A list, and the next file, clear away.
        #expect(try store?.files(owner: "local", limit: 9, ascending: true).files.isEmpty == true)
        #expect(try folder.contents(of: "data/files") == ["incoming/"])
        _ = try short("two")
        clock.pass(60)
        store = nil
        store = try open(clock)
        #expect(try folder.contents(of: "data/files") == ["incoming/"])
    }

    @Test func whatACrashLeavesIsRemoved() throws {
        var store: FileStore? = try open()
        let file = try add(try #require(store), "kept")
        store = nil
        // Bytes whose row was never written, and an upload that never ended.
        let orphan = String(repeating: "a", count: 64)
        try Data("x".utf8).write(to: URL(filePath: "\(files)/\(orphan)"))
        try Data("x".utf8).write(to: URL(filePath: "\(files)/incoming/123"))
        store = try open()
        #expect(try folder.contents(of: "data/files") == [file.digest, "incoming/"])
        #expect(try store?.contents(of: file) == Array("kept".utf8))
    }

    @Test func damageIsFoundAndHealedByTheSameContent() throws {
        let store = try open()
        let file = try add(store, "hello\n")
        for damage in ["hellO\n", "hell", "hello\nworld"] {
            try Data(damage.utf8).write(to: URL(filePath: "\(files)/\(file.digest)"))
            if damage.utf8.count > 6 { continue }
            #expect(code { _ = try store.contents(of: file) } == .damaged, "\(damage)")
        }
        unlink("\(files)/\(file.digest)")
        #expect(code { _ = try store.contents(of: file) } == .damaged)
        try add(store, "hello\n")
        #expect(try store.contents(of: file) == Array("hello\n".utf8))
    }

    @Test func aFullDiskKeepsNothingAndForgetsNothing() throws {
        let store = try open()
        let file = try add(store, "kept")
        store.injectWriteFault(ENOSPC)
        #expect(code { try add(store, "new") } == .storageFull)
        store.injectWriteFault(nil)
        // SQLITE_FULL at the commit.
        store.store.injectFault(resultCode: 13)
        #expect(code { try add(store, "new") } == .storageFull)
        #expect(code { try add(store, "kept") } == .storageFull)
        #expect(code { _ = try store.delete(id: file.id, owner: "local") } == .storageFull)
        store.store.injectFault(resultCode: nil)
        #expect(try folder.contents(of: "data/files") == [file.digest, "incoming/"])
        #expect(try store.contents(of: file) == Array("kept".utf8))
        try add(store, "new")
    }

    @Test func bytesStayWhenTheDiskDidNotConfirmTheirRow() throws {
        let store = try open()
        // SQLITE_IOERR_FSYNC: whether the row is there shows after a restart.
        store.store.injectFault(resultCode: 10 | 4 << 8)
        #expect(code { try add(store, "new") } == .failed)
        #expect(try folder.contents(of: "data/files").count == 2)
    }
}

struct TimedIdentifierTests {
    @Test func sortByTimeAlsoWhenTheClockIsSetBack() {
        let time = Mutex<Int64>(1_000_000)
        let identifiers = TimedIdentifiers(now: { time.withLock { $0 } })
        var made = [identifiers.next(prefix: "x-"), identifiers.next(prefix: "x-")]
        time.withLock { $0 = 5 }
        made.append(identifiers.next(prefix: "x-"))
        time.withLock { $0 = 2_000_000 }
        made.append(identifiers.next(prefix: "x-"))
        #expect(made == made.sorted() && Set(made).count == 4)
        #expect(made.allSatisfy { TimedIdentifiers.isValid($0, prefix: "x-") })
        #expect(made[0].hasPrefix("x-00000000000f4240"))
        for text in ["x-", "y-\(made[0].dropFirst(2))", made[0] + "0", made[0].uppercased(), "x-" + String(repeating: "g", count: 32)] {
            #expect(!TimedIdentifiers.isValid(text, prefix: "x-"), "\(text)")
        }
    }
}
