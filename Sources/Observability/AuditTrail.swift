import Glibc
import Logging

/// One change of what a server keeps, or the attempt, for whoever has to find out later what happened and who did it.
public struct AuditEntry: Sendable, Equatable {
    /// The id of the key that asked for it; `-` on a server without keys, `system` for what the server did by itself.
    public var actor: String
    /// Whose object it is about.
    public var tenant: String
    /// What was done to what kind of thing, such as `file.delete`.
    public var action: String
    /// The object's id or name; `-` when there is none. Never a client's own words.
    public var object: String
    /// `ok`, or the code of the error.
    public var result: String
    /// `-` when no request brought it about.
    public var requestID: String

    public init(actor: String, tenant: String, action: String, object: String, result: String, requestID: String = "-") {
        self.actor = actor
        self.tenant = tenant
        self.action = action
        self.object = object
        self.result = result
        self.requestID = requestID
    }
}

/// Where audit lines go: the process's log, and a file of their own if there is one. Safe from any thread.
public final class AuditTrail: Sendable {
    private let loggers: [Logger]
    private let serverID: String

    /// - Parameters:
    ///   - serverID: tells servers apart whose lines are collected in one place.
    ///   - file: gets one JSON object a line.
    public init(logger: Logger, serverID: String = "-", file: AuditFile? = nil) {
        self.serverID = serverID
        loggers = [logger] + (file.map { [$0.logger()] } ?? [])
    }

    public func record(_ entry: AuditEntry) {
        for logger in loggers {
            logger.notice(
                "audit",
                metadata: [
                    "actor": "\(entry.actor)", "tenant": "\(entry.tenant)", "action": "\(entry.action)", "object": "\(entry.object)",
                    "result": "\(entry.result)", "request_id": "\(entry.requestID)", "server": "\(serverID)",
                ])
        }
    }
}

/// A file that audit lines are added to, and that nobody but its owner can read. Each line is one write, so processes may share it; a program that rotates
/// logs has to copy and cut it.
public final class AuditFile: Sendable {
    /// Why the file cannot be written; the message names it and the way out.
    public struct Failure: Error, CustomStringConvertible {
        public let description: String
    }

    private let descriptor: Int32
    private let path: String
    private let reportFailure: @Sendable (String) -> Void

    /// Opens or makes the file.
    /// - Parameter reportFailure: gets what the system said about a line that could not be written.
    public init(path: String, reportFailure: @escaping @Sendable (String) -> Void) throws(Failure) {
        descriptor = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o600)
        guard descriptor >= 0 else {
            throw Failure(description: "\(path): the audit file cannot be opened: \(String(cString: strerror(errno))); name another one in the setting audit.file")
        }
        self.path = path
        self.reportFailure = reportFailure
    }

    deinit { close(descriptor) }

    func logger() -> Logger {
        Logger(label: "audit") { label in
            LineLogHandler(label: label, level: .notice, format: .json) { line in self.append(line) }
        }
    }

    private func append(_ line: [UInt8]) {
        let count = line.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
        guard count != line.count else { return }
        reportFailure("\(path): an audit line could not be written: \(count < 0 ? String(cString: strerror(errno)) : "the disk took a part of it")")
    }
}
