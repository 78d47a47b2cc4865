import Testing
import Tokenization

@Suite struct UTF8AssemblerTests {
    private func assembled(_ chunks: [[UInt8]]) -> (parts: [String], whole: String) {
        var assembler = UTF8Assembler()
        var parts: [String] = []
        for chunk in chunks {
            var out = ""
            assembler.append(chunk, to: &out)
            parts.append(out)
        }
        parts.append(assembler.finish())
        #expect(!assembler.isHolding)
        return (parts, parts.joined())
    }

    @Test func holdsBackIncompleteCharacters() {
        let llama = Array("🦙".utf8)
        #expect(assembled([[0x61, llama[0]], [llama[1]], [llama[2]], [llama[3], 0x62]]).parts == ["a", "", "", "🦙b", ""])
        #expect(assembled([[0xC3], [0xA9]]).parts == ["", "é", ""])
        #expect(assembled([Array("é".utf8), [], Array("à".utf8)]).parts == ["é", "", "à", ""])
    }

    @Test func givesUpOnBrokenCharactersAtOnce() {
        // Not a character's beginning, whatever follows.
        #expect(assembled([[0xFF], [0x61]]).parts == ["\u{FFFD}", "a", ""])
        #expect(assembled([[0x80], [0x61]]).parts == ["\u{FFFD}", "a", ""])
        #expect(assembled([[0xED, 0xA0], [0x80]]).parts == ["\u{FFFD}\u{FFFD}", "\u{FFFD}", ""])
        #expect(assembled([[0xE4, 0xBD], [0x61]]).parts == ["", "\u{FFFD}a", ""])
        #expect(assembled([[0xF0, 0x9F, 0xA6]]).parts == ["", "\u{FFFD}"])
    }

    /// Whatever the cuts, the whole is what decoding all bytes at once gives.
    @Test func anyCutsGiveTheSameText() {
        var generator = SeededGenerator(state: 7)
        let alphabet: [[UInt8]] = [
            [0x61], [0xC3, 0xA9], [0xE4, 0xBD, 0xA0], [0xF0, 0x9F, 0xA6, 0x99], [0xC3], [0xE4, 0xBD], [0xF0, 0x9F, 0xA6], [0x80], [0xBF], [0xC0], [0xE0],
            [0xE0, 0x80], [0xED], [0xED, 0xA0], [0xF4], [0xF4, 0x90], [0xF5], [0xFF], [0xF0, 0x80], [0x00],
        ]
        for _ in 0..<4000 {
            let bytes = (0..<Int.random(in: 1...10, using: &generator)).flatMap { _ in alphabet.randomElement(using: &generator)! }
            var chunks: [[UInt8]] = []
            var start = 0
            while start < bytes.count {
                let end = min(bytes.count, start + Int.random(in: 1...4, using: &generator))
                chunks.append(Array(bytes[start..<end]))
                start = end
            }
            let result = assembled(chunks)
            #expect(Array(result.whole.utf8) == Array(String(decoding: bytes, as: UTF8.self).utf8), "\(bytes)")
        }
    }

    @Test func canBeUsedAgainAfterFinish() {
        var assembler = UTF8Assembler()
        var out = ""
        assembler.append([0xE4], to: &out)
        #expect(assembler.isHolding)
        #expect(assembler.finish() == "\u{FFFD}")
        assembler.append([0x61], to: &out)
        #expect(out == "a")
        #expect(assembler.finish() == "")
    }
}
