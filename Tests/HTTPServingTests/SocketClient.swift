import Glibc
import TestSupport

/// A blocking TCP client on loopback that sends and shows raw bytes, over TLS if it has a session.
final class SocketClient {
    struct Response: Equatable {
        var status = 0
        var fields: [String: String] = [:]
        var body = ""
    }

    private(set) var descriptor: Int32
    private var received: [UInt8] = []
    let tls: TestTLSClient?

    /// - Parameters:
    ///   - receiveBuffer: the kernel's, in bytes; small ones make a slow reader at once.
    ///   - tls: the handshake takes place when something is sent or read.
    init?(port: Int, receiveBuffer: Int32? = nil, tls: TestTLSClient? = nil) {
        self.tls = tls
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        if var size = receiveBuffer {
            setsockopt(descriptor, SOL_SOCKET, SO_RCVBUF, &size, socklen_t(MemoryLayout<Int32>.size))
        }
        // A test that waits in vain must fail and not hang.
        var patience = timeval(tv_sec: 20, tv_usec: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = UInt16(port).bigEndian
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        let result = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        if result != 0 {
            close(descriptor)
            descriptor = -1
            return nil
        }
    }

    deinit {
        disconnect()
    }

    func disconnect() {
        if descriptor >= 0 { close(descriptor) }
        descriptor = -1
    }

    /// Ends the connection with a RST.
    func reset() {
        var option = linger(l_onoff: 1, l_linger: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_LINGER, &option, socklen_t(MemoryLayout<linger>.size))
        disconnect()
    }

    /// Ends the sending half.
    func finish() {
        shutdown(descriptor, Int32(SHUT_WR))
    }

    func send(_ text: String) {
        send(Array(text.utf8))
    }

    func send(_ bytes: [UInt8]) {
        guard let tls else { return send(raw: bytes) }
        shakeHands()
        tls.write(bytes)
        send(raw: tls.takeCiphertext())
    }

    /// Ends the TLS session and not the connection.
    func sendCloseNotify() {
        tls?.close()
        send(raw: tls?.takeCiphertext() ?? [])
    }

    /// Completes the handshake; nothing when it is complete or impossible.
    func shakeHands() {
        guard let tls else { return }
        while !tls.isEstablished, tls.failure == nil {
            send(raw: tls.takeCiphertext())
            guard fill() else { return }
        }
        send(raw: tls.takeCiphertext())
    }

    /// Sends bytes as they are.
    func send(raw bytes: [UInt8]) {
        var offset = 0
        while offset < bytes.count {
            let sent = bytes.withUnsafeBytes { Glibc.send(descriptor, $0.baseAddress! + offset, bytes.count - offset, Int32(MSG_NOSIGNAL)) }
            guard sent > 0 else { return }
            offset += sent
        }
    }

    /// Reads once; false at the end or after the patience is over.
    private func fill() -> Bool {
        var buffer = [UInt8](repeating: 0, count: 65536)
        let count = recv(descriptor, &buffer, buffer.count, 0)
        guard count > 0 else { return false }
        if let tls {
            tls.receive(Array(buffer[..<count]))
            received += tls.read()
            send(raw: tls.takeCiphertext())
        } else {
            received.append(contentsOf: buffer[..<count])
        }
        return true
    }

    /// Everything until the server closes.
    func readToEnd() -> String {
        shakeHands()
        while fill() {}
        defer { received = [] }
        return String(decoding: received, as: UTF8.self)
    }

    /// Waits until `count` bytes are there and takes them.
    func read(_ count: Int) -> [UInt8] {
        while received.count < count, fill() {}
        let taken = Array(received.prefix(count))
        received.removeFirst(taken.count)
        return taken
    }

    private func readLine() -> String? {
        while true {
            if let end = received.indices.dropLast().first(where: { received[$0] == 0x0D && received[$0 + 1] == 0x0A }) {
                let line = String(decoding: received[..<end], as: UTF8.self)
                received.removeFirst(end + 2)
                return line
            }
            guard fill() else { return nil }
        }
    }

    /// Status and fields; nil when the connection ends first.
    func readHead() -> Response? {
        guard let first = readLine() else { return nil }
        var response = Response()
        response.status = Int(first.split(separator: " ").dropFirst().first ?? "") ?? 0
        while let line = readLine(), !line.isEmpty {
            let parts = line.split(separator: ":", maxSplits: 1)
            response.fields[parts[0].lowercased()] = parts.count > 1 ? String(parts[1].drop { $0 == " " }) : ""
        }
        return response
    }

    /// One chunk; nil for the last one.
    func readChunk() -> String? {
        guard let line = readLine(), let count = Int(line, radix: 16) else { return nil }
        let content = read(count)
        _ = read(2)
        return count == 0 ? nil : String(decoding: content, as: UTF8.self)
    }

    func readResponse(toHead: Bool = false) -> Response? {
        guard var response = readHead() else { return nil }
        if toHead { return response }
        if response.fields["transfer-encoding"] == "chunked" {
            while let chunk = readChunk() { response.body += chunk }
        } else if let length = response.fields["content-length"].flatMap({ Int($0) }) {
            response.body = String(decoding: read(length), as: UTF8.self)
        }
        return response
    }
}
