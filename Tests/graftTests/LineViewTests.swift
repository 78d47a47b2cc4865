import Testing
import graft

struct LineViewTests {
    /// An editor, a view and a screen together.
    private struct Desk {
        var editor = LineEditor()
        var view = LineView(prompt: "> ")
        var screen: Screen

        init(columns: Int, rows: Int = 8) {
            screen = Screen(columns: columns, rows: rows)
            draw()
        }

        mutating func draw() {
            screen.write(view.draw(editor, columns: screen.columns, rows: screen.rows))
        }

        mutating func press(_ keys: Key...) {
            for key in keys {
                _ = editor.handle(key)
                draw()
            }
        }

        var cursor: [Int] { [screen.row, screen.column] }
    }

    @Test func promptAndText() {
        var desk = Desk(columns: 20)
        #expect(desk.screen.lines == [">"])
        #expect(desk.cursor == [0, 2])
        desk.press(.text("hello"), .left, .left)
        #expect(desk.screen.lines == ["> hello"])
        #expect(desk.cursor == [0, 5])
        desk.press(.control("k"))
        #expect(desk.screen.lines == ["> hel"])
    }

    @Test func wideCharactersTakeTwoCells() {
        var desk = Desk(columns: 20)
        desk.press(.text("日本🙂e\u{301}👨‍👩‍👧‍👦!"))
        #expect(desk.cursor == [0, 12])
        desk.press(.left, .left)
        #expect(desk.cursor == [0, 9])
        desk.press(.left, .left)
        #expect(desk.cursor == [0, 6])
        desk.press(.backspace)
        #expect(desk.screen.lines == ["> 日🙂e\u{301}👨‍👩‍👧‍👦!"])
    }

    @Test func longTextGoesOnInTheNextRow() {
        var desk = Desk(columns: 8)
        desk.press(.text("abcdef"))
        #expect(desk.screen.lines == ["> abcdef"])
        // The row is full: the next character comes to the row below.
        #expect(desk.cursor == [1, 0])
        desk.press(.text("ghijklmnop"))
        #expect(desk.screen.lines == ["> abcdef", "ghijklmn", "op"])
        #expect(desk.cursor == [2, 2])
        desk.press(.home)
        #expect(desk.cursor == [0, 2])
        desk.press(.control("k"))
        #expect(desk.screen.lines == [">"])
    }

    @Test func aWideCharacterIsNotCutByTheBorder() {
        var desk = Desk(columns: 7)
        desk.press(.text("abcd日"))
        #expect(desk.screen.lines == ["> abcd", "日"])
        desk.press(.left)
        #expect(desk.cursor == [1, 0])
        desk.press(.left)
        #expect(desk.cursor == [0, 5])
    }

    @Test func linesOfThePrompt() {
        var desk = Desk(columns: 20)
        desk.press(.text("one"), .lineBreak, .text("two"))
        #expect(desk.screen.lines == ["> one", "  two"])
        #expect(desk.cursor == [1, 5])
        desk.press(.up, .backspace)
        #expect(desk.screen.lines == ["> on", "  two"])
        #expect(desk.cursor == [0, 4])
        desk.press(.control("c"))
        #expect(desk.screen.lines == [">"])
    }

    @Test func tabsAreFourCells() {
        var desk = Desk(columns: 20)
        desk.press(.text("a\tb"))
        #expect(desk.screen.lines == ["> a    b"])
        #expect(desk.cursor == [0, 8])
    }

    @Test func aTextTallerThanTheTerminalShowsWhereTheCursorIs() {
        var desk = Desk(columns: 10, rows: 4)
        desk.press(.paste((1...9).map(String.init).joined(separator: "\n")))
        #expect(desk.screen.lines == ["  6", "  7", "  8", "  9"])
        #expect(desk.cursor == [3, 3])
        desk.press(.up, .up, .up, .up)
        #expect(desk.screen.lines == ["  3", "  4", "  5", "  6"])
        #expect(desk.cursor == [2, 3])
        desk.press(.up, .up, .up, .up)
        #expect(desk.screen.lines == ["> 1", "  2", "  3", "  4"])
        #expect(desk.cursor == [0, 3])
    }

    @Test func whatWasAboveStays() {
        var desk = Desk(columns: 10)
        desk.press(.text("one"))
        desk.screen.write(desk.view.finish())
        desk.screen.write("answer\r\n")
        _ = desk.editor.handle(.enter)
        desk.draw()
        desk.press(.text("two"), .up, .down)
        #expect(desk.screen.lines == ["> one", "answer", "> two"])
    }

    @Test func finishingLeavesTheCursorBelowTheText() {
        var desk = Desk(columns: 10)
        desk.press(.paste("a\nb\nc"), .up, .up)
        desk.screen.write(desk.view.finish())
        #expect(desk.screen.lines == ["> a", "  b", "  c"])
        #expect(desk.cursor == [3, 0])
        let nothing = desk.view.finish()
        #expect(nothing == "")
    }

    @Test func aNarrowTerminalDoesNotTrap() {
        for columns in 1...4 {
            var editor = LineEditor()
            _ = editor.handle(.paste("日本 text\n🙂"))
            var view = LineView(prompt: "> ")
            let drawn = view.draw(editor, columns: columns, rows: 1)
            #expect(!drawn.isEmpty)
        }
    }
}

struct CellWidthTests {
    @Test(arguments: [
        ("a", 1), ("é", 1), ("e\u{301}", 1), ("ß", 1), ("я", 1), ("日", 2), ("ア", 2), ("ｱ", 1), ("한", 2), ("\u{1112}\u{1161}\u{11AB}", 2),
        ("Ａ", 2), ("、", 2),
        ("🙂", 2), ("👍🏽", 2), ("👨‍👩‍👧‍👦", 2), ("🇩🇪", 2), ("❤️", 2), ("❤", 1), ("1️⃣", 2), ("1", 1), ("\u{200B}", 0),
        ("\u{301}", 0), ("…", 1), ("—", 1), ("𠀀", 2),
        ("ก็", 1), ("नि", 2),
    ])
    func width(text: String, cells: Int) {
        #expect(CellWidth.of(text) == cells)
    }

    @Test func ofATextItIsTheSum() {
        #expect(CellWidth.of("日本 ok 🙂") == 10)
    }
}

struct TerminalTextTests {
    @Test func controlCharactersAreReplaced() {
        #expect(TerminalText.sanitized("a\u{1B}[31mb\u{8}\u{9B}c\u{7F}") == "a\u{FFFD}[31mb\u{FFFD}\u{FFFD}c\u{FFFD}")
        #expect(TerminalText.sanitized("a\r\nb\rc") == "a\nbc")
        #expect(TerminalText.sanitized("a\tb\n日本🙂") == "a\tb\n日本🙂")
        #expect(TerminalText.oneLine("a\nb\tc\u{7}") == "a b c\u{FFFD}")
    }
}
