import TLS
import TestSupport
import Testing

private let request = Array("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".utf8)

@Suite struct TLSSessionTests {
    @Test("bytes go both ways over TLS 1.2 and 1.3", arguments: [(tls12, "TLSv1.2"), (tls13, "TLSv1.3")])
    func bothVersions(_ versions: ClosedRange<Int>, _ name: String) throws {
        let pair = SessionPair(try makeContext(), options { $0.versions = versions })
        pair.exchange()
        #expect(pair.server.isEstablished && pair.client.isEstablished)
        #expect(pair.server.version == name && pair.client.version == name)
        #expect(pair.server.applicationProtocol == "http/1.1")
        #expect(!pair.server.isResumed)
        #expect(pair.server.cipher.contains("GCM") || pair.server.cipher.contains("CHACHA20"))
        pair.client.write(request)
        pair.exchange()
        #expect(pair.plaintext == request)
        let body = (0..<100_000).map { UInt8(truncatingIfNeeded: $0) }
        for start in stride(from: 0, to: body.count, by: TLSSession.recordSize) {
            #expect(pair.serverWrites(Array(body[start..<min(body.count, start + TLSSession.recordSize)])) == .written)
        }
        pair.exchange()
        #expect(pair.answer == body)
    }

    @Test("a handshake and a request, byte by byte", arguments: [tls12, tls13])
    func byteByByte(_ versions: ClosedRange<Int>) throws {
        let pair = SessionPair(try makeContext(), options { $0.versions = versions })
        pair.exchange { bytes, _ in bytes.map { [$0] } }
        #expect(pair.server.isEstablished)
        pair.client.write(request)
        pair.exchange { bytes, _ in bytes.map { [$0] } }
        #expect(pair.plaintext == request)
        #expect(pair.serverWrites([1, 2, 3]) == .written)
        pair.exchange()
        #expect(pair.answer == [1, 2, 3])
    }

    @Test("a handshake and a request, cut in two at every place", arguments: [tls12, tls13])
    func everySplit(_ versions: ClosedRange<Int>) throws {
        let context = try makeContext()
        func run(cut: Int) -> SessionPair {
            let pair = SessionPair(context, options { $0.versions = versions })
            let split: ([UInt8], Int) -> [[UInt8]] = { bytes, before in
                let place = cut - before
                return (1..<bytes.count).contains(place) ? [Array(bytes[..<place]), Array(bytes[place...])] : [bytes]
            }
            pair.exchange(split)
            pair.client.write(request)
            pair.exchange(split)
            return pair
        }
        let length = run(cut: 0).sentToServer
        #expect(length > 300)
        for cut in 1..<length {
            let pair = run(cut: cut)
            #expect(pair.plaintext == request && pair.sentToServer == length, "cut at \(cut) of \(length)")
        }
    }

    @Test("many records in one piece, and a piece larger than the session takes at once")
    func manyRecords() throws {
        let pair = SessionPair(try makeContext())
        pair.exchange()
        let body = (0..<200_000).map { UInt8(truncatingIfNeeded: $0 &* 7) }
        for start in stride(from: 0, to: body.count, by: 1000) { pair.client.write(Array(body[start..<start + 1000])) }
        let all = pair.client.takeCiphertext()
        #expect(all.count > body.count)
        all.withUnsafeBytes { #expect(pair.server.receive($0) == TLSSession.inputLimit) }
        pair.feed(Array(all[TLSSession.inputLimit...]))
        #expect(pair.plaintext == body)
    }

    @Test func plaintextWaitsForTheHandshake() throws {
        let pair = SessionPair(try makeContext())
        #expect(pair.serverWrites([1]) == .notYet)
        pair.exchange()
        #expect(pair.serverWrites([1]) == .written)
    }

    @Test("what is older or weaker than allowed is refused", arguments: [
        ("TLS 1.1", 0x0302...0x0302, nil), ("TLS 1.0", 0x0301...0x0301, nil), ("no forward secrecy", tls12, "AES128-GCM-SHA256"),
        ("CBC", tls12, "ECDHE-ECDSA-AES128-SHA256"), ("finite-field keys", tls12, "DHE-RSA-AES128-GCM-SHA256"),
    ] as [(String, ClosedRange<Int>, String?)])
    func refusals(_ name: String, _ versions: ClosedRange<Int>, _ ciphers: String?) throws {
        let pair = SessionPair(try makeContext(), options {
            $0.versions = versions
            if let ciphers { $0.ciphers = ciphers + ":@SECLEVEL=0" }
        })
        pair.exchange()
        guard case .failed(let error)? = pair.lastResult else { Issue.record("the handshake went through"); return }
        #expect(error.code == .handshakeFailed)
        #expect(error.message == (versions == tls12 ? "no shared cipher" : "unsupported protocol"))
        // The client hears of it by an alert.
        #expect(pair.client.failure?.contains("alert") == true)
        #expect(!pair.server.isEstablished)
    }

    @Test("a client that offers only other protocols is refused; one that offers none is served", arguments: [tls12, tls13])
    func applicationProtocols(_ versions: ClosedRange<Int>) throws {
        let context = try makeContext()
        let other = SessionPair(context, options { ($0.protocols, $0.versions) = (["h2", "http/1.0"], versions) })
        other.exchange()
        #expect(other.client.failure == "tlsv1 alert no application protocol")
        guard case .failed(let error)? = other.lastResult else { Issue.record("h2 was accepted"); return }
        #expect(error.code == .handshakeFailed)

        let both = SessionPair(context, options { ($0.protocols, $0.versions) = (["h2", "http/1.1"], versions) })
        both.exchange()
        #expect(both.server.isEstablished && both.server.applicationProtocol == "http/1.1")

        let none = SessionPair(context, options { ($0.protocols, $0.versions) = ([], versions) })
        none.exchange()
        #expect(none.server.isEstablished && none.server.applicationProtocol == nil)
    }

    @Test("a session is resumed by the same context and not by another one", arguments: [tls12, tls13], [true, false])
    func resumption(_ versions: ClosedRange<Int>, endsOrderly: Bool) throws {
        let context = try makeContext()
        let first = SessionPair(context, options { $0.versions = versions })
        first.exchange()
        #expect(!first.client.isResumed)
        var earlier = first.client
        do {
            // The server's side of the first connection is gone when the second one comes.
            let scratch = SessionPair(context, options { ($0.versions, $0.session) = (versions, earlier) })
            scratch.exchange()
            #expect(scratch.server.isResumed && scratch.client.isResumed)
            if endsOrderly { scratch.server.close() }
            scratch.exchange()
            earlier = scratch.client
        }
        let second = SessionPair(context, options { ($0.versions, $0.session) = (versions, earlier) })
        second.exchange()
        #expect(second.server.isResumed && second.client.isResumed)
        second.client.write(request)
        second.exchange()
        #expect(second.plaintext == request)
        let renewed = SessionPair(try makeContext(), options { ($0.versions, $0.session) = (versions, earlier) })
        renewed.exchange()
        #expect(renewed.server.isEstablished && !renewed.server.isResumed)
    }

    @Test("both ends say that they send nothing more", arguments: [tls12, tls13])
    func closing(_ versions: ClosedRange<Int>) throws {
        let pair = SessionPair(try makeContext(), options { $0.versions = versions })
        pair.exchange()
        #expect(pair.serverWrites([9]) == .written)
        pair.server.close()
        pair.exchange()
        #expect(pair.answer == [9] && pair.client.sawCloseNotify)
        #expect(pair.lastResult == .needsMore)
        #expect(pair.serverWrites([9]) == .notYet)
        pair.client.close()
        pair.exchange()
        #expect(pair.lastResult == .ended)
    }

    @Test func clearTextIsToldFromTLS() throws {
        for text in ["GET / HTTP/1.1\r\n\r\n", "P", "OPTIONS * HTTP/1.1\r\n"] {
            let pair = SessionPair(try makeContext())
            pair.feed(Array(text.utf8))
            guard case .failed(let error)? = pair.lastResult else { Issue.record("\(text) was taken for TLS"); continue }
            #expect(error.code == .plainText)
            #expect(pair.takeServerCiphertext().isEmpty)
        }
    }

    @Test func nonsenseIsRefusedWithAnAlert() throws {
        let pair = SessionPair(try makeContext())
        pair.feed([0x16, 3, 1, 0, 5, 1, 2, 3, 4, 5])
        guard case .failed(let error)? = pair.lastResult else { Issue.record("nonsense was accepted"); return }
        #expect(error.code == .handshakeFailed)
        // An alert is a record of type 21.
        #expect(pair.takeServerCiphertext().first == 21)
        // It stays as it is.
        pair.feed(TestTLSClient().takeCiphertext())
        #expect(pair.lastResult == .failed(error))
    }

    @Test("a changed byte of a record breaks the session", arguments: [tls12, tls13])
    func damage(_ versions: ClosedRange<Int>) throws {
        let pair = SessionPair(try makeContext(), options { $0.versions = versions })
        pair.exchange()
        pair.client.write(request)
        var bytes = pair.client.takeCiphertext()
        bytes[bytes.count - 1] ^= 1
        pair.feed(bytes)
        guard case .failed(let error)? = pair.lastResult else { Issue.record("the damage was not seen"); return }
        #expect(error.code == .broken)
        #expect(pair.plaintext.isEmpty)
        #expect(pair.serverWrites([1]) == .failed(error))
    }

    @Test("new keys in the middle of a connection, byte by byte", arguments: [true, false])
    func keyUpdate(both: Bool) throws {
        let pair = SessionPair(try makeContext(), options { $0.versions = tls13 })
        pair.exchange()
        for round in 0..<3 {
            pair.client.updateKeys(both: both)
            pair.client.write([UInt8(round)])
            pair.exchange { bytes, _ in bytes.map { [$0] } }
            #expect(pair.serverWrites([UInt8(round + 10)]) == .written)
            pair.exchange()
        }
        #expect(pair.plaintext == [0, 1, 2])
        #expect(pair.answer == [10, 11, 12])
    }

    @Test func renegotiationIsRefused() throws {
        let pair = SessionPair(try makeContext(), options { $0.versions = tls12 })
        pair.exchange()
        pair.client.renegotiate()
        pair.exchange()
        #expect(pair.client.failure == "no renegotiation")
    }
}
