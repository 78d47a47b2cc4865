import Testing
import graft

struct KeyDecoderTests {
    private func keys(_ bytes: [UInt8]) -> [Key] {
        var decoder = KeyDecoder()
        let keys = decoder.decode(bytes)
        #expect(!decoder.isWaiting)
        return keys
    }

    private func keys(_ text: String) -> [Key] { keys(Array(text.utf8)) }

    @Test(arguments: [
        ("\r", Key.enter), ("\n", .enter), ("\u{7F}", .backspace), ("\u{8}", .backspace), ("\u{1}", .control("a")), ("\u{1A}", .control("z")), ("\0", .other),
        ("\u{1B}[A", .up), ("\u{1B}[B", .down), ("\u{1B}[C", .right), ("\u{1B}[D", .left), ("\u{1B}OA", .up), ("\u{1B}OF", .end), ("\u{1B}OM", .enter),
        ("\u{1B}[H", .home), ("\u{1B}[F", .end), ("\u{1B}[1~", .home), ("\u{1B}[4~", .end), ("\u{1B}[7~", .home), ("\u{1B}[8~", .end), ("\u{1B}[3~", .delete),
        ("\u{1B}[3;5~", .deleteWordRight), ("\u{1B}[1;5C", .wordRight), ("\u{1B}[1;3D", .wordLeft), ("\u{1B}[1;2C", .right), ("\u{1B}b", .wordLeft),
        ("\u{1B}f", .wordRight), ("\u{1B}d", .deleteWordRight), ("\u{1B}\u{7F}", .deleteWordLeft), ("\u{1B}\r", .lineBreak), ("\u{1B}[13;2u", .lineBreak),
        ("\u{1B}[27;2;13~", .lineBreak), ("\u{1B}[5~", .other), ("\u{1B}[[A", .other), ("\u{1B}[<0;1;1M", .other), ("\u{1B}x", .other),
    ])
    func oneKey(sequence: String, key: Key) {
        #expect(keys(sequence) == [key])
        #expect(keys("a\(sequence)b") == [.text("a"), key, .text("b")])
    }

    @Test func charactersOfSeveralBytesWaitForTheirEnd() {
        var decoder = KeyDecoder()
        let bytes = Array("é🙂".utf8)
        var read: [Key] = []
        for byte in bytes { read += decoder.decode([byte]) }
        #expect(read == [.text("é"), .text("🙂")])
        #expect(!decoder.isWaiting)
    }

    @Test func brokenCharactersAreMarked() {
        #expect(keys([0x61, 0xC3, 0x0D]) == [.text("a"), .text("\u{FFFD}"), .enter])
        #expect(keys([0xFF, 0x62]) == [.text("\u{FFFD}b")])
    }

    @Test func aLoneEscapeIsAKeyOfItsOwn() {
        var decoder = KeyDecoder()
        #expect(decoder.decode([0x1B]) == [])
        #expect(decoder.isWaiting)
        #expect(decoder.flush() == [.other])
        #expect(!decoder.isWaiting)
        #expect(decoder.decode(Array("[A".utf8)) == [.text("[A")])
    }

    @Test func anEndlessSequenceIsGivenUp() {
        #expect(keys("\u{1B}[" + String(repeating: "1;", count: 40) + "\r") == [.other, .enter])
    }

    @Test func aPasteIsOneKey() {
        #expect(keys("\u{1B}[200~one\r\ntwo\rthree\nfour\u{1B}[201~\r") == [.paste("one\ntwo\nthree\nfour"), .enter])
    }

    @Test func aPasteCannotSendKeys() {
        #expect(keys("\u{1B}[200~a\u{3}\u{1B}[Db\tc\u{1B}[201~") == [.paste("a[Db\tc")])
    }

    @Test func anEmptyPasteIsNothing() {
        #expect(keys("\u{1B}[200~\u{1B}[201~x") == [.text("x")])
    }

    /// Neighbouring texts joined: where they are cut depends on the reads.
    private func joined(_ keys: [Key]) -> [Key] {
        var result: [Key] = []
        for key in keys {
            if case .text(let more) = key, case .text(let text)? = result.last {
                result[result.count - 1] = .text(text + more)
            } else {
                result.append(key)
            }
        }
        return result
    }

    @Test func cutsBetweenReadsDoNotMatter() {
        let pieces = [
            "a", "é", "🙂", "日本", "\r", "\u{1B}[A", "\u{1B}[1;5D", "\u{1B}OB", "\u{1B}b", "\u{1B}[200~x\r\ny 🙂\u{1B}[201~", "\u{3}", "\u{7F}", "\u{1B}\u{1B}[C",
            "\u{1B}[3~", "\u{1B}\r",
        ]
        var random = Xorshift(seed: 11)
        for _ in 0..<300 {
            let bytes = (0..<12).flatMap { _ in Array(pieces[random.below(pieces.count)].utf8) }
            var whole = KeyDecoder()
            let expected = joined(whole.decode(bytes))
            var decoder = KeyDecoder()
            var read: [Key] = []
            var position = 0
            while position < bytes.count {
                let end = min(bytes.count, position + 1 + random.below(4))
                read += decoder.decode(bytes[position..<end])
                position = end
            }
            #expect(joined(read) == expected)
        }
    }

    @Test func anyBytesAreTakenInStride() {
        var random = Xorshift(seed: 12)
        let likely: [UInt8] = [0x1B, 0x5B, 0x4F, 0x32, 0x30, 0x3B, 0x7E, 0x0D, 0x41, 0xC3, 0xA9, 0xF0, 0xFF]
        for _ in 0..<2000 {
            var decoder = KeyDecoder()
            for _ in 0..<random.below(6) {
                let bytes = (0..<random.below(12)).map { _ in random.below(2) == 0 ? likely[random.below(likely.count)] : UInt8(random.below(256)) }
                _ = decoder.decode(bytes)
            }
            _ = decoder.flush()
            #expect(!decoder.isWaiting)
        }
    }
}

/// Repeatable numbers (Marsaglia's xorshift).
struct Xorshift {
    private var state: UInt64

    init(seed: UInt64) {
        state = seed &* 0x9E37_79B9_7F4A_7C15 | 1
    }

    mutating func below(_ limit: Int) -> Int {
        state ^= state << 13
        state ^= state >> 7
        state ^= state << 17
        return Int(state >> 33) % limit
    }
}
