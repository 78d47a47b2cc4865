import EventLoops
import TLS

/// A TLS session between a socket and its connection.
final class TLSFilter: StreamFilter {
    private let session: TLSSession
    private let report: (TLSConnectionFailure) -> Void
    private var receivedCount = 0
    private var hasReported = false

    /// How much plaintext is encrypted before the system is asked whether it takes it: what a client does not take waits as plaintext, but for this.
    private static let sealedSize = 65536

    init(_ session: TLSSession, report: @escaping (TLSConnectionFailure) -> Void) {
        self.session = session
        self.report = report
    }

    // MARK: - What comes

    func receive(_ bytes: UnsafeRawBufferPointer) -> Int {
        let taken = session.receive(bytes)
        receivedCount += taken
        return taken
    }

    func read(into buffer: UnsafeMutableRawBufferPointer) -> StreamFilterResult {
        switch session.read(into: buffer) {
        case .bytes(let count): return .bytes(count)
        case .needsMore: return .needsMore
        case .ended:
            peerIsGone()
            return .ended
        case .failed(let error):
            note(TLSFilter.kind(of: error), error.message)
            return error.code == .plainText ? .unfiltered : .failed(error.message)
        }
    }

    // MARK: - What goes

    func seal(_ output: inout ByteQueue, into wire: inout ByteQueue) -> Bool {
        var sealed = 0
        while sealed < TLSFilter.sealedSize, !output.isEmpty {
            let (result, count) = output.withFirst { bytes in
                let piece = UnsafeRawBufferPointer(rebasing: bytes[..<min(bytes.count, TLSSession.recordSize)])
                return (session.write(piece), piece.count)
            }
            switch result {
            case .written:
                output.removeFirst(count)
                sealed += count
            case .notYet:
                moveReplies(to: &wire)
                return true
            case .failed(let error):
                note(TLSFilter.kind(of: error), error.message)
                return false
            }
        }
        moveReplies(to: &wire)
        return true
    }

    func moveReplies(to wire: inout ByteQueue) {
        session.takeCiphertext { wire.append($0) }
    }

    func finish(into wire: inout ByteQueue) {
        session.close()
        moveReplies(to: &wire)
    }

    // MARK: - The end

    func peerIsGone() {
        guard !session.isEstablished else { return }
        note(.truncated, "the client went away before the handshake was complete")
    }

    func streamWillClose() {
        guard !session.isEstablished else { return }
        note(.stalled, "the handshake was not complete when its time was over or the server stopped")
    }

    private static func kind(of error: TLSError) -> TLSConnectionFailure.Kind {
        switch error.code {
        case .plainText: .plainText
        case .broken: .broken
        default: .handshakeFailed
        }
    }

    /// The first thing that goes wrong explains the rest.
    private func note(_ kind: TLSConnectionFailure.Kind, _ message: String) {
        guard !hasReported else { return }
        hasReported = true
        report(TLSConnectionFailure(kind, message, receivedCount: receivedCount))
    }
}
