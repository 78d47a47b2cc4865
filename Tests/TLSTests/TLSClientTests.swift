import TLS
import TestSupport
import Testing

/// The client's side, as `graft`'s own commands use it, against the server's.
@Suite struct TLSClientTests {
    /// Runs a handshake.
    /// - Returns: the client's error, or nil and the client.
    private func connect(_ client: TLSSession, to context: TLSContext) -> TLSError? {
        let server = TLSSession(server: context)
        var buffer = [UInt8](repeating: 0, count: TLSSession.recordSize)
        for _ in 0..<10 {
            if case .failed(let error) = buffer.withUnsafeMutableBytes({ client.read(into: $0) }) { return error }
            client.takeCiphertext { bytes in _ = server.receive(bytes) }
            _ = buffer.withUnsafeMutableBytes { server.read(into: $0) }
            server.takeCiphertext { bytes in _ = client.receive(bytes) }
            if client.isEstablished, server.isEstablished { return nil }
        }
        return TLSError(.handshakeFailed, "no end")
    }

    private let authority = TestCertificate(name: "authority", isAuthority: true)

    private func trusting() throws -> TLSContext {
        TLSContext(clientTrusting: try TLSCertificate.parse(pem: authority.certificatePEM, name: "ca.pem"))
    }

    @Test(arguments: ["localhost", "127.0.0.1"]) func acceptsWhatItsAuthorityVouchesFor(_ host: String) throws {
        let certificate = TestCertificate(issuer: authority)
        let client = TLSSession(client: try trusting(), host: host)
        #expect(connect(client, to: try makeContext(certificate)) == nil)
        #expect(client.applicationProtocol == "http/1.1")
        #expect(client.peerCertificate?.fingerprint == hexadecimal(SHA256Digest.of(certificate.certificateDER)))
    }

    @Test("what cannot be verified is refused, with the reason", arguments: ["self", "name", "address", "expired", "unknown"])
    func refuses(_ what: String) throws {
        let certificate =
            switch what {
            case "self": TestCertificate()
            case "expired": TestCertificate(begins: -7200, ends: -3600, issuer: authority)
            default: TestCertificate(issuer: authority)
            }
        let context = what == "unknown" ? TLSContext(clientTrusting: []) : try trusting()
        let client = TLSSession(client: context, host: ["name": "other.example", "address": "127.0.0.2"][what] ?? "localhost")
        let error = connect(client, to: try makeContext(certificate))
        let reasons = [
            "self": "self-signed certificate", "name": "hostname mismatch", "address": "IP address mismatch", "expired": "certificate has expired",
            "unknown": "unable to get local issuer certificate",
        ]
        #expect(error == TLSError(.untrusted, reasons[what] ?? ""))
        #expect(!client.isEstablished)
    }

    @Test func comparesCertificatesItself() throws {
        let certificate = TestCertificate(name: "elsewhere", alternatives: "DNS:elsewhere")
        let client = TLSSession(client: .clientThatComparesCertificates(), host: "127.0.0.1")
        #expect(connect(client, to: try makeContext(certificate)) == nil)
        #expect(client.peerCertificate?.fingerprint == hexadecimal(SHA256Digest.of(certificate.certificateDER)))
    }
}
