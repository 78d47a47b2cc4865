import Testing
import graft

struct LineEditorTests {
    /// The text with `|` where the cursor is.
    private func shown(_ editor: LineEditor) -> String { editor.before + "|" + editor.after }

    private func edited(_ keys: Key...) -> String {
        var editor = LineEditor()
        for key in keys { _ = editor.handle(key) }
        return shown(editor)
    }

    @Test func typing() {
        #expect(edited(.text("abc"), .left, .text("X")) == "abX|c")
        #expect(edited(.text("abc"), .home, .right, .delete, .end, .backspace) == "a|")
        #expect(edited(.text("abc"), .control("a"), .control("d"), .control("e"), .text("d")) == "bcd|")
        #expect(edited(.text("abc"), .control("b"), .control("b"), .control("f"), .text("-")) == "ab-|c")
    }

    @Test func charactersAreMovedOverAndDeletedWhole() {
        let family = "👨‍👩‍👧‍👦"
        #expect(edited(.text("日本\(family)"), .left, .left) == "日|本\(family)")
        #expect(edited(.text("a\(family)"), .backspace) == "a|")
        #expect(edited(.text("e"), .text("\u{301}"), .backspace) == "|")
        #expect(edited(.text("xe"), .left, .right, .text("\u{301}"), .left) == "x|e\u{301}")
        #expect(edited(.text("🇩🇪🇫🇷"), .left) == "🇩🇪|🇫🇷")
    }

    @Test func words() {
        #expect(edited(.text("one two, three"), .wordLeft) == "one two, |three")
        #expect(edited(.text("one two, three"), .wordLeft, .wordLeft) == "one |two, three")
        #expect(edited(.text("one two"), .home, .wordRight) == "one| two")
        #expect(edited(.text("see a/b.txt now"), .left, .left, .left, .left, .control("w")) == "see | now")
        #expect(edited(.text("see a/b.txt"), .deleteWordLeft) == "see a/b.|")
        #expect(edited(.text("one two"), .home, .deleteWordRight) == "| two")
    }

    @Test func killingAndBringingBack() {
        #expect(edited(.text("one two"), .wordLeft, .control("k")) == "one |")
        #expect(edited(.text("one two"), .wordLeft, .control("u")) == "|two")
        #expect(edited(.text("one two"), .control("w"), .home, .control("y")) == "two|one ")
        #expect(edited(.text("one"), .lineBreak, .text("two"), .control("u")) == "one\n|")
        #expect(edited(.text("one"), .lineBreak, .text("two"), .control("u"), .control("u")) == "one|")
        #expect(edited(.text("one"), .lineBreak, .text("two"), .up, .home, .control("k")) == "|\ntwo")
        #expect(edited(.text("one"), .lineBreak, .text("two"), .up, .home, .control("k"), .control("k")) == "|two")
    }

    @Test func severalLines() {
        #expect(edited(.paste("long line\nab\nlast one"), .up) == "long line\nab|\nlast one")
        #expect(edited(.paste("long line\nab\nlast"), .up, .up, .left, .down, .down) == "long line\nab\nl|ast")
        #expect(edited(.paste("ab\ncd"), .home, .text("x")) == "ab\nx|cd")
        #expect(edited(.paste("ab\ncd"), .up, .end) == "ab|\ncd")
    }

    @Test func enteringGivesTheTextAndAnEmptyLine() {
        var editor = LineEditor()
        _ = editor.handle(.text("hello"))
        _ = editor.handle(.left)
        #expect(editor.handle(.enter) == .submitted("hello"))
        #expect(editor.isEmpty)
        #expect(editor.handle(.enter) == .submitted(""))
        #expect(editor.history == ["hello"])
    }

    private func editor(with history: String...) -> LineEditor {
        var editor = LineEditor()
        for line in history {
            _ = editor.handle(.paste(line))
            _ = editor.handle(.enter)
        }
        return editor
    }

    @Test func history() {
        var editor = editor(with: "one", "two", "two", " ")
        #expect(editor.history == ["one", "two"])
        _ = editor.handle(.text("dra"))
        #expect(editor.handle(.up) == .edited)
        #expect(shown(editor) == "two|")
        #expect(editor.handle(.up) == .edited)
        #expect(shown(editor) == "one|")
        #expect(editor.handle(.up) == .unchanged)
        _ = editor.handle(.down)
        _ = editor.handle(.down)
        #expect(shown(editor) == "dra|")
        #expect(editor.handle(.down) == .unchanged)
        _ = editor.handle(.control("p"))
        _ = editor.handle(.text("!"))
        #expect(editor.handle(.enter) == .submitted("two!"))
        #expect(editor.history == ["one", "two", "two!"])
        #expect(editor.handle(.up) == .edited)
        #expect(shown(editor) == "two!|")
    }

    @Test func upGoesThroughALongLineBeforeTheHistory() {
        var editor = editor(with: "old")
        _ = editor.handle(.paste("a\nb"))
        _ = editor.handle(.up)
        #expect(shown(editor) == "a|\nb")
        _ = editor.handle(.up)
        #expect(shown(editor) == "old|")
        _ = editor.handle(.down)
        #expect(shown(editor) == "a\nb|")
    }

    @Test func controlKeysThatAreNoEdits() {
        var editor = LineEditor()
        #expect(editor.handle(.control("c")) == .interrupted(hadText: false))
        #expect(editor.handle(.control("d")) == .endOfInput)
        _ = editor.handle(.text("ab"))
        #expect(editor.handle(.control("d")) == .unchanged)
        #expect(editor.handle(.control("l")) == .clearScreen)
        #expect(editor.handle(.control("z")) == .suspend)
        #expect(editor.handle(.other) == .unchanged)
        #expect(editor.handle(.control("c")) == .interrupted(hadText: true))
        #expect(editor.isEmpty)
    }

    @Test func keysAtTheEndsChangeNothing() {
        var editor = LineEditor()
        for key in [Key.left, .right, .up, .down, .home, .end, .backspace, .delete, .wordLeft, .wordRight, .control("k"), .control("u"), .control("w"), .control("y")] {
            #expect(editor.handle(key) == .unchanged)
        }
        #expect(editor.isEmpty)
    }

    @Test func anyKeysKeepTheTextWhole() {
        let keys: [Key] = [
            .text("a"), .text("日"), .text("\u{301}"), .text("🙂"), .paste("x\ny z"), .lineBreak, .backspace, .delete, .left, .right, .up, .down, .wordLeft,
            .wordRight, .home, .end, .deleteWordLeft, .deleteWordRight, .control("k"), .control("u"), .control("w"), .control("y"), .control("p"),
            .control("n"), .enter,
        ]
        var random = Xorshift(seed: 5)
        var editor = LineEditor()
        var view = LineView(prompt: "> ")
        var screen = Screen(columns: 12, rows: 6)
        for _ in 0..<4000 {
            let key = keys[random.below(keys.count)]
            if key == .enter {
                screen.write(view.draw(editor, columns: 12, rows: 6))
                screen.write(view.finish())
                #expect(screen.column == 0)
            }
            let before = editor.text
            switch editor.handle(key) {
            case .unchanged: #expect(editor.text == before)
            case .submitted(let text): #expect(text == before)
            default: break
            }
            screen.write(view.draw(editor, columns: 12, rows: 6))
            #expect(screen.column < 12)
        }
    }
}
