import TLS
import TestSupport

/// The server that is tested and a client, connected by two arrays.
final class SessionPair {
    let server: TLSSession
    let client: TestTLSClient
    /// What the server read.
    var plaintext: [UInt8] = []
    /// What the client read.
    var answer: [UInt8] = []
    private(set) var results: [TLSSession.ReadResult] = []
    private(set) var sentToServer = 0

    init(_ context: TLSContext, _ options: TestTLSClient.Options = TestTLSClient.Options()) {
        server = TLSSession(server: context)
        client = TestTLSClient(options)
    }

    /// The last thing that the server's `read` said.
    var lastResult: TLSSession.ReadResult? { results.last }

    /// Carries bytes in both directions until neither side has any.
    /// - Parameter split: cuts what is on its way to the server; gets the bytes and how many went before.
    func exchange(_ split: ([UInt8], Int) -> [[UInt8]] = { bytes, _ in [bytes] }) {
        while true {
            let up = client.takeCiphertext()
            for piece in up.isEmpty ? [] : split(up, sentToServer) { feed(piece) }
            sentToServer += up.count
            let down = takeServerCiphertext()
            client.receive(down)
            answer += client.read()
            if up.isEmpty && down.isEmpty { return }
        }
    }

    func takeServerCiphertext() -> [UInt8] {
        var bytes: [UInt8] = []
        server.takeCiphertext { bytes += $0 }
        return bytes
    }

    /// Gives the server bytes, as a stream would.
    func feed(_ bytes: [UInt8]) {
        var rest = bytes[...]
        while !rest.isEmpty {
            let taken = rest.withUnsafeBytes { server.receive($0) }
            precondition(taken > 0 && taken <= rest.count)
            rest = rest.dropFirst(taken)
            readAll()
        }
    }

    private func readAll() {
        var buffer = [UInt8](repeating: 0, count: TLSSession.recordSize)
        while true {
            let result = buffer.withUnsafeMutableBytes { server.read(into: $0) }
            results.append(result)
            guard case .bytes(let count) = result else { return }
            plaintext += buffer[..<count]
        }
    }

    @discardableResult
    func serverWrites(_ bytes: [UInt8]) -> TLSSession.WriteResult {
        bytes.withUnsafeBytes { server.write($0) }
    }
}

/// The context of a server with a certificate of its own.
func makeContext(_ certificate: TestCertificate = TestCertificate()) throws -> TLSContext {
    try TLSContext(
        server: TLSIdentity(chain: certificate.certificatePEM, chainName: "cert.pem", privateKey: certificate.keyPEM, keyName: "key.pem"))
}

func options(_ change: (inout TestTLSClient.Options) -> Void) -> TestTLSClient.Options {
    var options = TestTLSClient.Options()
    change(&options)
    return options
}

let tls12 = 0x0303...0x0303, tls13 = 0x0304...0x0304
