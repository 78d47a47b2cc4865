import Glibc
import TLS

/// A blocking connection of a command to a server, in clear text or over TLS. Closed when the last user lets go.
final class ServerConnection {
    private let socket: Int32
    private let session: TLSSession?
    /// Plaintext that came with the handshake.
    private var early: [UInt8] = []

    /// Takes over a connected socket.
    /// - Parameter session: nil for clear text.
    /// - Throws: `TLSError`, or `CommandError` when the server goes away during the handshake.
    init(_ socket: Int32, session: TLSSession?) throws {
        self.socket = socket
        self.session = session
        try shakeHands()
    }

    deinit {
        if let session {
            session.close()
            _ = flush(session)
        }
        close(socket)
    }

    /// Sends all of the bytes.
    /// - Returns: what went wrong, if anything did.
    func send(_ bytes: [UInt8]) -> String? {
        bytes.withUnsafeBytes { bytes in
            guard let session else { return send(raw: bytes) }
            var rest = bytes
            while !rest.isEmpty {
                let piece = UnsafeRawBufferPointer(rebasing: rest.prefix(TLSSession.recordSize))
                switch session.write(piece) {
                case .written: break
                case .notYet: return "the connection's encryption ended"
                case .failed(let error): return error.message
                }
                if let failure = flush(session) { return failure }
                rest = UnsafeRawBufferPointer(rebasing: rest[piece.count...])
            }
            return nil
        }
    }

    /// Everything that the server sends until it closes the connection.
    /// - Throws: `TLSError` when a record is damaged.
    func receiveAll() throws -> [UInt8] {
        var answer = early
        var isOpen = true
        while isOpen {
            let bytes = receiveSome()
            // A reset after the answer is an end like any other; whether the answer is whole, its length says.
            guard !bytes.isEmpty else { break }
            if let session {
                isOpen = try decrypt(bytes, session, into: &answer)
            } else {
                answer += bytes
            }
        }
        return answer
    }

    // MARK: - TLS

    private func shakeHands() throws {
        guard let session else { return }
        // The first read begins the handshake.
        _ = try decrypt([], session, into: &early)
        while !session.isEstablished {
            if let failure = flush(session) { throw CommandError("the connection broke during the TLS handshake: \(failure)") }
            let bytes = receiveSome()
            guard !bytes.isEmpty else { throw CommandError("the server closed the connection during the TLS handshake") }
            _ = try decrypt(bytes, session, into: &early)
        }
        if let failure = flush(session) { throw CommandError("the connection broke during the TLS handshake: \(failure)") }
    }

    /// - Returns: whether more may come.
    private func decrypt(_ bytes: [UInt8], _ session: TLSSession, into answer: inout [UInt8]) throws -> Bool {
        try bytes.withUnsafeBytes { bytes in
            var rest = bytes
            repeat {
                rest = UnsafeRawBufferPointer(rebasing: rest[session.receive(rest)...])
                var buffer = [UInt8](repeating: 0, count: TLSSession.recordSize)
                reading: while true {
                    switch buffer.withUnsafeMutableBytes({ session.read(into: $0) }) {
                    case .bytes(let count): answer += buffer[..<count]
                    case .needsMore: break reading
                    case .ended: return false
                    case .failed(let error):
                        _ = flush(session)
                        throw error
                    }
                }
            } while !rest.isEmpty
            return true
        }
    }

    private func flush(_ session: TLSSession) -> String? {
        var failure: String?
        session.takeCiphertext { failure = send(raw: $0) }
        return failure
    }

    // MARK: - The socket

    private func send(raw bytes: UnsafeRawBufferPointer) -> String? {
        var sent = 0
        while sent < bytes.count {
            let count = Glibc.send(socket, bytes.baseAddress! + sent, bytes.count - sent, Int32(MSG_NOSIGNAL))
            if count > 0 {
                sent += count
            } else if errno != EINTR {
                return String(cString: strerror(errno))
            }
        }
        return nil
    }

    /// Some bytes; none at the end.
    private func receiveSome() -> [UInt8] {
        var chunk = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let count = recv(socket, &chunk, chunk.count, 0)
            if count > 0 { return Array(chunk[..<count]) }
            if count == 0 || errno != EINTR { return [] }
        }
    }
}
