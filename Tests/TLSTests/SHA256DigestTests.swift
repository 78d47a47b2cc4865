import Testing
import TLS

/// Vectors of FIPS 180-4 and NIST's examples.
@Suite struct SHA256DigestTests {
    @Test(arguments: [
        ("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        ("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (
            "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
        ),
    ])
    func knownText(_ text: String, _ expected: String) {
        #expect(hexadecimal(SHA256Digest.of(Array(text.utf8))) == expected)
    }

    @Test func aMillionTimesTheLetterAInUnevenPieces() {
        var digest = SHA256Digest()
        var left = 1_000_000
        var piece = 1
        while left > 0 {
            let count = min(piece, left)
            digest.update([UInt8](repeating: UInt8(ascii: "a"), count: count))
            left -= count
            piece = piece * 3 % 4099 + 1
        }
        #expect(digest.finishHexadecimal() == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0")
    }

    @Test func anEmptyPieceChangesNothing() {
        var digest = SHA256Digest()
        digest.update([])
        digest.update(Array("abc".utf8))
        digest.update(UnsafeRawBufferPointer(start: nil, count: 0))
        #expect(digest.finishHexadecimal() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    }

    @Test func hexadecimalKeepsLeadingZeros() {
        #expect(hexadecimal([0x00, 0x0a, 0xf0, 0xff]) == "000af0ff")
    }
}
