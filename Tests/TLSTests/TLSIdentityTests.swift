import TLS
import TestSupport
import Testing

@Suite struct TLSIdentityTests {
    private func refusal(chain: [UInt8], key: [UInt8]) -> TLSError? {
        do {
            _ = try TLSIdentity(chain: chain, chainName: "cert.pem", privateKey: key, keyName: "key.pem")
            return nil
        } catch {
            return error
        }
    }

    @Test func namesWhatItHolds() throws {
        let certificate = TestCertificate(name: "example.org", serial: 0xAB12)
        let identity = try TLSIdentity(
            chain: certificate.certificatePEM, chainName: "cert.pem", privateKey: certificate.keyPEM, keyName: "key.pem")
        #expect(identity.certificate.serial == "AB12")
        #expect(identity.certificate.subject == "CN=example.org")
        #expect(identity.certificate.expiry.hasSuffix("GMT"))
        #expect(identity.certificate.fingerprint == hexadecimal(SHA256Digest.of(certificate.certificateDER)))
        #expect(identity.warnings == [])
        // One file may hold both.
        let both = certificate.keyPEM + certificate.certificatePEM
        #expect(refusal(chain: both, key: both) == nil)
    }

    @Test func refusesWhatCannotBeUsed() throws {
        let certificate = TestCertificate(), other = TestCertificate(name: "other")
        let chain = certificate.certificatePEM, key = certificate.keyPEM
        func check(_ error: TLSError?, _ code: TLSError.Code, _ words: String, line: Int = #line) {
            #expect(error?.code == code, "line \(line)")
            #expect(error?.message.contains(words) == true, "line \(line): \(error?.message ?? "accepted")")
        }
        check(refusal(chain: [], key: key), .badCertificate, "cert.pem: found an empty file")
        check(refusal(chain: certificate.certificateDER, key: key), .badCertificate, "cert.pem: found no '-----BEGIN CERTIFICATE-----'")
        check(refusal(chain: key, key: key), .badCertificate, "cert.pem: found no '-----BEGIN CERTIFICATE-----'")
        var damaged = other.certificatePEM
        damaged[40...43] = [42, 42, 42, 42]
        check(refusal(chain: chain + damaged, key: key), .badCertificate, "cert.pem: certificate 2 of the file is damaged")
        check(refusal(chain: chain, key: []), .badPrivateKey, "key.pem: found an empty file")
        check(refusal(chain: chain, key: chain), .badPrivateKey, "key.pem: found no private key")
        check(refusal(chain: chain, key: certificate.encryptedKeyPEM), .badPrivateKey, "key.pem: the private key is encrypted")
        check(refusal(chain: chain, key: other.keyPEM), .keyMismatch, "key.pem: the private key is not that of the first certificate in cert.pem (CN=localhost)")
        check(refusal(chain: other.certificatePEM + chain, key: key), .keyMismatch, "it belongs to certificate 2 of that file")
    }

    @Test func warnsOfWhatClientsWillRefuse() throws {
        func warnings(_ certificate: TestCertificate, and more: [UInt8] = []) throws -> [String] {
            try TLSIdentity(
                chain: certificate.certificatePEM + more, chainName: "cert.pem", privateKey: certificate.keyPEM, keyName: "key.pem"
            ).warnings
        }
        let expired = try warnings(TestCertificate(begins: -7200, ends: -3600))
        #expect(expired.count == 1 && expired[0].contains("expired on"))
        let future = try warnings(TestCertificate(begins: 3600, ends: 7200))
        #expect(future.count == 1 && future[0].contains("not valid yet"))
        let authority = TestCertificate(name: "authority", isAuthority: true)
        #expect(try warnings(TestCertificate(issuer: authority), and: authority.certificatePEM) == [])
        let stranger = TestCertificate(name: "stranger", isAuthority: true)
        let wrong = try warnings(TestCertificate(issuer: authority), and: stranger.certificatePEM)
        #expect(wrong.count == 1 && wrong[0].contains("certificate 2 did not issue certificate 1"))
    }

    @Test func refusesShortKeys() throws {
        let weak = TestCertificate(key: .rsa(bits: 1024))
        let error = #expect(throws: TLSError.self) { try makeContext(weak) }
        #expect(error?.code == .badCertificate && error?.message.contains("key too small") == true)
        _ = try makeContext(TestCertificate(key: .rsa(bits: 2048)))
    }
}
