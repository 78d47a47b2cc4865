import Inference
import Testing

/// What a whole text shows, found by trying every end: the earliest end of a stop string, and of those the longest.
private func reference(_ text: String, _ stops: [String]) -> (visible: String, matched: String?) {
    let bytes = Array(text.utf8)
    for end in 0...bytes.count {
        let ending = stops.filter { !$0.isEmpty && bytes[..<end].suffix($0.utf8.count).elementsEqual($0.utf8) }
        if let longest = ending.max(by: { $0.utf8.count < $1.utf8.count }) {
            return (String(decoding: bytes[..<(end - longest.utf8.count)], as: UTF8.self), longest)
        }
    }
    return (text, nil)
}

private func run(_ pieces: [String], _ stops: [String]) -> (visible: String, matched: String?) {
    var matcher = StopMatcher(stops)
    var visible = ""
    for piece in pieces where matcher.append(piece, to: &visible) { break }
    matcher.finish(to: &visible)
    return (visible, matcher.matched)
}

struct StopMatcherTests {
    @Test func releasesWhatCannotMatch() {
        var matcher = StopMatcher(["\n\nUser:"])
        var visible = ""
        #expect(!matcher.append("Hello", to: &visible))
        #expect(visible == "Hello")
        #expect(!matcher.append("\n", to: &visible))
        #expect(visible == "Hello" && matcher.heldCount == 1)
        #expect(!matcher.append("\nUs", to: &visible))
        #expect(visible == "Hello" && matcher.heldCount == 4)
        #expect(!matcher.append("age\n", to: &visible))
        #expect(visible == "Hello\n\nUsage" && matcher.heldCount == 1)
        #expect(matcher.append("\nUser: more", to: &visible))
        #expect(visible == "Hello\n\nUsage" && matcher.matched == "\n\nUser:")
        // Nothing follows.
        #expect(matcher.append("again", to: &visible))
        matcher.finish(to: &visible)
        #expect(visible == "Hello\n\nUsage")
    }

    @Test func finishReleasesWhatWasHeld() {
        #expect(run(["ab", "c<", "/"], ["</s>"]).visible == "abc</")
    }

    @Test func earliestEndWins() {
        let (visible, matched) = run(["xabcdy"], ["abcd", "bc"])
        #expect(visible == "xa" && matched == "bc")
    }

    @Test func longestOfTheSameEndWins() {
        let (visible, matched) = run(["xab", "cy"], ["c", "abc", "bc"])
        #expect(visible == "x" && matched == "abc")
    }

    @Test func selfOverlapIsFollowed() {
        #expect(run(["aaa", "ab"], ["aab"]).visible == "aa")
        #expect(run(["abab", "abac"], ["ababac"]).visible == "ab")
    }

    @Test func withoutStopsEverythingPasses() {
        #expect(run(["a", "b"], []).visible == "ab")
        #expect(run(["a", "b"], [""]).visible == "ab")
    }

    @Test func charactersStayWhole() {
        // The stop string starts with bytes that other characters share.
        var matcher = StopMatcher(["ü!", "日本"])
        var visible = ""
        for character in "für日 é日本x" {
            let before = visible
            if matcher.append(String(character), to: &visible) { break }
            #expect(visible.hasPrefix(before))
            #expect(!visible.unicodeScalars.contains("\u{FFFD}"))
        }
        #expect(visible == "für日 é")
    }

    @Test func randomTextsEqualTheReference() {
        var generator = SeededGenerator(3)
        let alphabet = ["a", "b", "ab", "ü", "日", "\n"]
        func word(_ lengths: ClosedRange<Int>) -> String {
            (0..<Int.random(in: lengths, using: &generator)).map { _ in alphabet.randomElement(using: &generator)! }.joined()
        }
        var ended = 0
        for _ in 0..<5000 {
            let stops = (0..<Int.random(in: 1...16, using: &generator)).map { _ in word(2...7) }
            let pieces = (0..<12).map { _ in word(0...3) }
            let expected = reference(pieces.joined(), stops)
            let found = run(pieces, stops)
            #expect(found.visible == expected.visible && found.matched == expected.matched, "\(pieces) \(stops)")
            if found.matched != nil { ended += 1 }

            // Nothing is held longer than needed: the held suffix is a prefix of a stop string.
            var matcher = StopMatcher(stops)
            var visible = ""
            var text = ""
            for piece in pieces {
                text += piece
                if matcher.append(piece, to: &visible) { break }
                #expect(visible.utf8.count + matcher.heldCount == text.utf8.count)
                let held = text.utf8.suffix(matcher.heldCount)
                #expect(held.isEmpty || stops.contains { $0.utf8.starts(with: held) })
                let longer = (held.count + 1)..<max(held.count + 2, text.utf8.count)
                #expect(!longer.contains { n in n <= text.utf8.count && stops.contains { $0.utf8.starts(with: text.utf8.suffix(n)) } })
            }
        }
        #expect(ended > 1000 && ended < 4900)
    }

    @Test func worstCaseTextIsReleased() {
        // A text that keeps a prefix of the stop string alive all the way.
        let stop = String(repeating: "a", count: 500) + "b"
        var matcher = StopMatcher([stop])
        var visible = ""
        for _ in 0..<2000 {
            let ended = matcher.append(String(repeating: "a", count: 10), to: &visible)
            #expect(!ended)
        }
        #expect(visible.utf8.count == 20000 - 500)
    }
}
