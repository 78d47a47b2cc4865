import GRDB
import Glibc
import Synchronization

/// What a server must remember, in the SQLite database `graft.sqlite` of its data directory.
///
/// There is one connection, and it locks the file for good: SQLite versions before 3.51.3 can corrupt a database in WAL mode when two connections write and
/// checkpoint at once, and distributions ship them. Every write is on disk when its call returns (`synchronous = FULL`). All calls block; make them on a
/// `BlockingExecutor`.
///
/// Rule: a write whose confirmation by the disk failed ends all writing (`failed`). The kernel forgets such an error once it has reported it, so a repeated
/// fsync would call durable what is not. Reading goes on; a restart reads what really is on disk.
public final class InstructionStore: Sendable {
    public static let fileName = "graft.sqlite"

    /// Held as long as the store lives.
    public let directory: DataDirectory
    /// Drawn at random when the database was made: folders of files say with it whose they are.
    public let id: String
    private let path: String
    private let queue: DatabaseQueue
    private let failure = Mutex<InstructionStoreError?>(nil)
    private let fault = Mutex<Int32?>(nil)

    /// Opens the database, or makes it, and brings its schema up to date.
    public init(directory: DataDirectory) throws(InstructionStoreError) {
        let path = "\(directory.path)/\(Self.fileName)"
        // SQLite would make the file readable to others; its WAL file takes the mode of this one.
        let descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o600)
        guard descriptor >= 0 else {
            throw InstructionStoreError(
                isStorageFull(errno) ? .storageFull : .storage, "\(path): cannot be opened: \(systemReason(errno)); check that this user may write there")
        }
        close(descriptor)
        do {
            queue = try DatabaseQueue(path: path, configuration: Self.configuration)
            id = try Self.prepare(queue, path: path)
        } catch {
            throw Self.translate(error, path: path)
        }
        self.path = path
        self.directory = directory
    }

    private static var configuration: Configuration {
        var configuration = Configuration()
        configuration.label = "graft.store"
        configuration.foreignKeysEnabled = true
        configuration.busyMode = .timeout(5)
        configuration.prepareDatabase { db in
            // The locking mode comes first: with it, WAL needs no memory shared with other processes from the first access on.
            for (pragma, expected) in [("locking_mode = EXCLUSIVE", "exclusive"), ("journal_mode = WAL", "wal")] {
                let found = try String.fetchOne(db, sql: "PRAGMA \(pragma)") ?? "nothing"
                guard found == expected else { throw InstructionStoreError(.storage, "SQLite: found \(found) after PRAGMA \(pragma), expected \(expected)") }
            }
            try db.execute(sql: "PRAGMA synchronous = FULL")
            // What was deleted must not be readable in free pages: conversations are in here.
            try db.execute(sql: "PRAGMA secure_delete = ON")
        }
        return configuration
    }

    /// - Returns: the store's id.
    private static func prepare(_ queue: DatabaseQueue, path: String) throws -> String {
        let migrator = Self.migrator
        if try queue.read(migrator.hasBeenSuperseded) {
            throw InstructionStoreError(
                .newerSchema,
                "\(path): was written by a later version of Graft, whose tables this one does not know; "
                    + "run that version, or name another data directory")
        }
        try migrator.migrate(queue)
        return try queue.read { db in
            for table in Self.checkedTables {
                let found = try String.fetchAll(db, sql: "PRAGMA quick_check('\(table)')")
                guard found == ["ok"] else { throw damage(path, "table \(table): \(found.first ?? "no answer")") }
            }
            guard let id = try String.fetchOne(db, sql: "SELECT id FROM store"), id.utf8.count == 32 else { throw damage(path, "the store's id is missing") }
            return id
        }
    }

    // MARK: Access

    func read<Value: Sendable>(_ body: (Database) throws -> Value) throws(InstructionStoreError) -> Value {
        do {
            return try queue.read(body)
        } catch {
            throw Self.translate(error, path: path)
        }
    }

    /// One transaction, durable on return.
    func write<Value: Sendable>(_ body: (Database) throws -> Value) throws(InstructionStoreError) -> Value {
        if let failure = failure.withLock({ $0 }) { throw failure }
        do {
            return try queue.write { db in
                let value = try body(db)
                if let code = fault.withLock({ $0 }) { throw DatabaseError(resultCode: ResultCode(rawValue: code)) }
                return value
            }
        } catch {
            let translated = Self.translate(error, path: path)
            if translated.code == .failed { failure.withLock { $0 = translated } }
            throw translated
        }
    }

    /// For tests: lets every following transaction fail at its end with a result code of SQLite; `nil` ends that.
    package func injectFault(resultCode: Int32?) {
        fault.withLock { $0 = resultCode }
    }

    /// For tests: runs a statement; its first value.
    package func evaluate(_ sql: String) throws(InstructionStoreError) -> String? {
        try write { db in try String.fetchOne(db, sql: sql) }
    }

    // MARK: Errors

    static func damage(_ path: String, _ what: String) -> InstructionStoreError {
        InstructionStoreError(.damaged, "\(path): is damaged: \(what); restore the data directory from a backup, or name another one")
    }

    private static func translate(_ error: any Error, path: String) -> InstructionStoreError {
        if let error = error as? InstructionStoreError { return error }
        guard let error = error as? DatabaseError else { return damage(path, "a row does not hold what its table promises") }
        // The text is SQLite's own and names tables and columns at most; arguments of statements are left out on purpose.
        let text = error.message ?? "no message"
        switch error.extendedResultCode {
        case .SQLITE_IOERR_FSYNC, .SQLITE_IOERR_DIR_FSYNC:
            return InstructionStoreError(
                .failed, "\(path): the disk failed to confirm a write (\(text)); nothing more is written until a restart: check the disk, then start again")
        default: break
        }
        switch error.resultCode {
        case .SQLITE_FULL: return InstructionStoreError(.storageFull, "\(path): no room is left on the disk (\(text)); free some, then try again")
        case .SQLITE_CORRUPT, .SQLITE_NOTADB: return damage(path, text)
        case .SQLITE_BUSY, .SQLITE_LOCKED:
            return InstructionStoreError(.busy, "\(path): another program has the database open (\(text)); close it, then try again")
        // Conflicts are told to clients, who need not know the server's paths.
        case .SQLITE_CONSTRAINT:
            return InstructionStoreError(.conflict, "the change contradicts what is stored (\(text)); look at what is there, then try again")
        default:
            let number = error.extendedResultCode.rawValue
            return InstructionStoreError(.storage, "\(path): cannot be read or written: \(text) (SQLite result \(number)); check the disk")
        }
    }
}
