import EventLoops
import Executors
import Glibc
import HTTPServing
import Logging
import Synchronization
import TLS

/// The certificate of a running server: read at the start, and again on SIGHUP.
final class ServerTLS: Sendable {
    let acceptor: TLSAcceptor
    private let files: TLSFiles
    private let logger: Logger
    // Touched on the loop's thread only.
    nonisolated(unsafe) private var watcher: SignalWatcher?
    /// Readings follow one another; the last one decides.
    private let turn = Mutex(())

    /// - Throws: what is wrong with which file.
    init(_ files: TLSFiles, logger: Logger) throws {
        self.files = files
        self.logger = logger
        let context = try files.load()
        let failures = TLSFailureLog(logger)
        acceptor = TLSAcceptor(context) { failures.note($0) }
        report(context, "TLS certificate")
    }

    /// The certificate that new connections get, as `LockRecord` announces it.
    var fingerprint: String { acceptor.context.identity?.certificate.fingerprint ?? "" }

    /// Reads the files again whenever SIGHUP comes. Connections go on with what they began with.
    /// - Parameter changed: runs after each change, on a thread of its own.
    func watch(_ server: HTTPServer, changed: @escaping @Sendable (ServerTLS) -> Void) async throws {
        try await watch(on: server, changed)
    }

    private func watch(on server: isolated HTTPServer, _ changed: @escaping @Sendable (ServerTLS) -> Void) throws {
        watcher = try SignalWatcher(loop: server.loop, signal: SIGHUP) { [self] in
            // Disks may be slow, and the loop must not wait for them.
            NamedThread(name: "graft-certs") { if self.reload() { changed(self) } }.detach()
        }
    }

    /// - Returns: whether there is a new certificate; otherwise the old one stays.
    private func reload() -> Bool {
        turn.withLock { _ in
            do {
                let context = try files.load()
                acceptor.replace(with: context)
                report(context, "TLS certificate read again; new connections get it")
                return true
            } catch {
                logger.error("the TLS certificate could not be read again, and the old one stays", metadata: ["cause": "\(error)"])
                return false
            }
        }
    }

    /// No further signals are looked at.
    func stopWatching(_ server: HTTPServer) async {
        await stopWatching(on: server)
    }

    private func stopWatching(on server: isolated HTTPServer) {
        watcher?.close()
        watcher = nil
    }

    private func report(_ context: TLSContext, _ event: Logger.Message) {
        guard let identity = context.identity else { return }
        let certificate = identity.certificate
        logger.info(event, metadata: ["subject": "\(certificate.subject)", "serial": "\(certificate.serial)", "expires": "\(certificate.expiry)"])
        for warning in identity.warnings { logger.warning("TLS certificate", metadata: ["cause": "\(warning)"]) }
        if files.keyIsPublic {
            logger.warning("TLS private key", metadata: ["cause": "\(files.privateKey) can be read by every user of this machine; `chmod o-r` it"])
        }
    }
}

/// Logs connections that came to nothing, a few at a time: whoever can connect could fill a disk with them.
package final class TLSFailureLog: Sendable {
    private struct Window {
        var start: ContinuousClock.Instant?
        var logged = 0
        var withheld = 0
    }

    /// So many lines in such a time; what is beyond is counted.
    private static let most = 20, length = Duration.seconds(10)

    private let logger: Logger
    private let window = Mutex(Window())

    package init(_ logger: Logger) {
        self.logger = logger
    }

    package func note(_ failure: TLSConnectionFailure) {
        // Whoever connects and goes without a word only looks whether the port is open; load balancers do it all the time.
        let level: Logger.Level = failure.receivedCount == 0 && failure.kind == .truncated ? .debug : .info
        guard level >= logger.logLevel else { return }
        let (mayLog, withheld) = window.withLock { window -> (Bool, Int) in
            let now = ContinuousClock.now
            if window.start.map({ now - $0 > Self.length }) != false { window = Window(start: now, logged: 0, withheld: window.withheld) }
            guard window.logged < Self.most else {
                window.withheld += 1
                return (false, 0)
            }
            window.logged += 1
            defer { window.withheld = 0 }
            return (true, window.withheld)
        }
        guard mayLog else { return }
        var metadata: Logger.Metadata = ["cause": "\(failure.message)", "kind": "\(failure.kind)", "received_bytes": "\(failure.receivedCount)"]
        if withheld > 0 { metadata["withheld"] = "\(withheld)" }
        logger.log(level: level, "a TLS connection failed", metadata: metadata)
    }
}
