import FoundationEssentials
import Logging
import Observability
import Synchronization
import Testing

@Suite struct AuditTests {
    private final class Lines: Sendable {
        let all = Mutex<[String]>([])
        func logger() -> Logger {
            Logger(label: "graft") { label in
                LineLogHandler(label: label, level: .info, format: .text) { line in self.all.withLock { $0.append(String(decoding: line, as: UTF8.self)) } }
            }
        }
    }

    private let entry = AuditEntry(actor: "key_1", tenant: "alice", action: "file.delete", object: "file-2", result: "ok", requestID: "req-3")

    @Test func oneLineToTheLogAndOneToTheFile() throws {
        let folder = FileManager.default.temporaryDirectory.appending(path: "graft-audit-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let path = folder.appending(path: "audit.jsonl").path
        let lines = Lines()
        for _ in 0..<2 {
            // The second trail adds to what the first has written.
            let trail = AuditTrail(logger: lines.logger(), serverID: "s4", file: try AuditFile(path: path) { Issue.record("\($0)") })
            trail.record(entry)
        }
        let logged = lines.all.withLock { $0 }
        #expect(logged.count == 2)
        #expect(
            logged[0].hasSuffix(
                " notice graft: audit action=file.delete actor=key_1 object=file-2 request_id=req-3 result=ok server=s4 tenant=alice\n"))
        let written = try String(decoding: Data(contentsOf: URL(filePath: path)), as: UTF8.self).split(separator: "\n")
        #expect(written.count == 2)
        for line in written {
            #expect(line.hasPrefix(#"{"time":""#) && line.contains(#""message":"audit","action":"file.delete","actor":"key_1","object":"file-2""#))
            #expect(line.hasSuffix(#""request_id":"req-3","result":"ok","server":"s4","tenant":"alice"}"#))
        }
        let mode = try FileManager.default.attributesOfItem(atPath: path)[.posixPermissions] as? Int
        #expect(mode == 0o600)
    }

    @Test func aFileThatCannotBeMadeIsNamed() {
        let error = #expect(throws: AuditFile.Failure.self) { _ = try AuditFile(path: "/nonexistent/audit.jsonl") { _ in } }
        #expect(error?.description.contains("/nonexistent/audit.jsonl") == true && error?.description.contains("audit.file") == true)
    }

    @Test func aFullDiskIsToldOf() throws {
        let lines = Lines()
        let failures = Lines()
        let trail = AuditTrail(logger: lines.logger(), file: try AuditFile(path: "/dev/full") { message in failures.all.withLock { $0.append(message) } })
        trail.record(entry)
        #expect(failures.all.withLock { $0.count } == 1 && lines.all.withLock { $0.count } == 1, "the log has the line all the same")
    }
}
