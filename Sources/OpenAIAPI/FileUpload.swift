import Executors
import HTTP1
import HTTPServing
import InstructionStore
import Synchronization

/// A form with a file, on its way from the client to the disk.
///
/// The server's thread only puts pieces down; a thread that may block takes the form apart and writes. When more than a megabyte waits for the disk,
/// the client has to wait too. A form that turns out to be bad is still read to its end, because clients look for an answer only then.
final class FileUpload: HTTPBodyReceiver {
    /// What came with the file.
    struct Form: Sendable {
        /// By part; only those that `fields` names.
        var texts: [String: String] = [:]
        /// The client's own, not to be trusted.
        var filename: String?
        /// Names of unknown parts.
        var ignored: [String] = []
        var spool: FileSpool?
    }

    static let fields = ["purpose", "expires_after[anchor]", "expires_after[seconds]"]
    private static let filePart = "file", longestText = 256
    /// Bytes that may wait for the disk.
    static let watermark = 1 << 20

    private struct Inbox {
        var pieces: [RequestBody] = []
        /// Of the pieces, and of those that are being written.
        var byteCount = 0
        var isScheduled = false
        var isPaused = false
        /// Nobody wants the rest.
        var isClosed = false
    }

    /// The form as far as it was taken apart. Touched by whoever holds the lock, for as long as the disk takes.
    private struct Assembly {
        let parser: MultipartParser
        var form = Form()
        var part: String?
        var text: [UInt8] = []
        var failure: APIError?
    }

    private let inbox = Mutex(Inbox())
    private let assembly: Mutex<Assembly>
    private let store: FileStore
    private let executor: BlockingExecutor
    private let reportFailure: @Sendable (InstructionStoreError) -> Void
    private let resume: @Sendable () -> Void

    /// - Parameters:
    ///   - reportFailure: told of what the disk did not do.
    ///   - resume: called on any thread when the client may go on.
    init(
        boundary: MultipartBoundary, store: FileStore, executor: BlockingExecutor, reportFailure: @escaping @Sendable (InstructionStoreError) -> Void,
        resume: @escaping @Sendable () -> Void
    ) {
        assembly = Mutex(Assembly(parser: MultipartParser(boundary: boundary)))
        self.store = store
        self.executor = executor
        self.reportFailure = reportFailure
        self.resume = resume
    }

    func receive(_ bytes: RequestBody) -> Bool {
        let (mustSchedule, isWelcome) = inbox.withLock { inbox -> (Bool, Bool) in
            guard !inbox.isClosed else { return (false, true) }
            inbox.pieces.append(bytes)
            inbox.byteCount += bytes.count
            inbox.isPaused = inbox.byteCount >= Self.watermark
            defer { inbox.isScheduled = true }
            return (!inbox.isScheduled, !inbox.isPaused)
        }
        guard mustSchedule else { return isWelcome }
        do throws(ExecutorError) {
            try executor.submit { self.drain() }
        } catch {
            // Nothing is written here any more; `finish` would find a form without its beginning.
            abandon()
            return true
        }
        return isWelcome
    }

    /// Takes what comes from now on as read.
    private func abandon() {
        inbox.withLock { inbox in
            inbox.isClosed = true
            inbox.pieces = []
        }
    }

    /// The client has gone: what was written is removed.
    func discard() {
        abandon()
        try? executor.submit { self.assembly.withLock { $0.form = Form() } }
    }

    /// The whole form. Blocking; to be called once, when all of the body was received.
    func finish() throws(APIError) -> Form {
        drain()
        guard !inbox.withLock({ $0.isClosed }) else { throw .shuttingDown }
        return try assembly.withLock { assembly throws(APIError) in
            defer { assembly.form = Form() }
            if let failure = assembly.failure { throw failure }
            do throws(MultipartError) {
                try assembly.parser.finish()
            } catch {
                throw APIError(error)
            }
            return assembly.form
        }
    }

    /// Writes all that waits.
    private func drain() {
        assembly.withLock { assembly in
            while let pieces = take() {
                var count = 0
                for body in pieces {
                    count += body.count
                    for piece in body.pieces where assembly.failure == nil { read(piece, into: &assembly) }
                }
                let mustResume = inbox.withLock { inbox in
                    inbox.byteCount -= count
                    defer { inbox.isPaused = inbox.isPaused && inbox.byteCount > Self.watermark / 2 }
                    return inbox.isPaused && inbox.byteCount <= Self.watermark / 2
                }
                if mustResume { resume() }
            }
        }
    }

    private func take() -> [RequestBody]? {
        inbox.withLock { inbox in
            guard !inbox.pieces.isEmpty else {
                inbox.isScheduled = false
                return nil
            }
            defer { inbox.pieces = [] }
            return inbox.pieces
        }
    }

    // MARK: The form

    private func read(_ piece: [UInt8], into assembly: inout Assembly) {
        do throws(APIError) {
            try piece.withUnsafeBufferPointer { buffer throws(APIError) in
                var rest = UnsafeRawBufferPointer(buffer)
                while let event = try Self.next(&rest, of: assembly.parser) { try take(event, into: &assembly) }
            }
        } catch {
            assembly.failure = error
            // What is on the disk is not needed while the rest comes.
            assembly.form = Form()
        }
    }

    private static func next(_ rest: inout UnsafeRawBufferPointer, of parser: MultipartParser) throws(APIError) -> MultipartParser.Event? {
        do throws(MultipartError) {
            let (consumed, event) = try parser.parse(rest)
            rest = UnsafeRawBufferPointer(rebasing: rest[consumed...])
            return event
        } catch {
            throw APIError(error)
        }
    }

    private func take(_ event: MultipartParser.Event, into assembly: inout Assembly) throws(APIError) {
        switch event {
        case .partHead(let head):
            assembly.part = head.name
            assembly.text = []
            if head.name == Self.filePart {
                guard assembly.form.spool == nil else { throw .invalidValue(Self.filePart, "The form has two parts 'file', expected one") }
                assembly.form.filename = head.filename
                assembly.form.spool = try stored { () throws(InstructionStoreError) in try store.makeSpool() }
            } else if Self.fields.contains(head.name) {
                guard assembly.form.texts[head.name] == nil else {
                    throw .invalidValue(head.name, "The form has two parts '\(head.name)', expected one")
                }
            } else {
                assembly.form.ignored.append(head.name)
            }
        case .partBytes(let bytes):
            guard let part = assembly.part else { return }
            if part == Self.filePart, let spool = assembly.form.spool {
                try stored { () throws(InstructionStoreError) in try spool.write(bytes) }
            } else if Self.fields.contains(part) {
                guard assembly.text.count + bytes.count <= Self.longestText else {
                    throw .invalidValue(part, "The part '\(part)' has more than \(Self.longestText) bytes, expected a short text")
                }
                assembly.text.append(contentsOf: bytes)
            }
        case .partEnd:
            guard let part = assembly.part, Self.fields.contains(part) else { return }
            guard let text = String(validating: assembly.text, as: UTF8.self) else {
                throw .invalidValue(part, "The part '\(part)' is not UTF-8, expected a short text")
            }
            assembly.form.texts[part] = text
        case .end: break
        }
    }

    private func stored<Value>(_ work: () throws(InstructionStoreError) -> Value) throws(APIError) -> Value {
        do throws(InstructionStoreError) {
            return try work()
        } catch {
            reportFailure(error)
            throw APIError(error)
        }
    }
}
