/// The text of a prompt while it is being written: keys in, text and cursor out. A pure state machine; `LineView` draws it.
///
/// The text may have several lines. It is held in two halves around the cursor, so that a combining mark joins the character before it.
package struct LineEditor {
    package enum Outcome: Equatable {
        /// Text or cursor changed.
        case edited
        case unchanged
        /// The text was entered; the editor is empty again and the text is the newest line of the history.
        case submitted(String)
        /// Ctrl-C: what was there is gone.
        case interrupted(hadText: Bool)
        /// Ctrl-D on an empty line.
        case endOfInput
        /// Ctrl-L
        case clearScreen
        /// Ctrl-Z
        case suspend
    }

    /// What is left and right of the cursor.
    package private(set) var before = ""
    package private(set) var after = ""
    package var text: String { before + after }
    package var isEmpty: Bool { before.isEmpty && after.isEmpty }

    /// Entered lines, oldest first.
    package private(set) var history: [String] = []
    /// Where in the history the text comes from; `history.count` is the new line.
    private var place = 0
    /// The new line, while the history is shown.
    private var draft = ""
    /// What Ctrl-Y brings back.
    private var killed = ""

    private static let longestHistory = 1000

    package init() {}

    package mutating func handle(_ key: Key) -> Outcome {
        switch key {
        case .text(let text), .paste(let text):
            before += text
            return .edited
        case .lineBreak:
            before += "\n"
            return .edited
        case .enter: return submit()
        case .backspace: return edit(!before.isEmpty) { $0.before.removeLast() }
        case .delete: return edit(!after.isEmpty) { $0.after.removeFirst() }
        case .control("d"): return isEmpty ? .endOfInput : handle(.delete)
        case .left, .control("b"): return edit(!before.isEmpty) { $0.moveLeft(1) }
        case .right, .control("f"): return edit(!after.isEmpty) { $0.moveRight(1) }
        case .wordLeft: return edit(!before.isEmpty) { $0.moveLeft($0.wordBefore) }
        case .wordRight: return edit(!after.isEmpty) { $0.moveRight($0.wordAfter) }
        case .home, .control("a"): return edit(lineBefore > 0) { $0.moveLeft($0.lineBefore) }
        case .end, .control("e"): return edit(lineAfter > 0) { $0.moveRight($0.lineAfter) }
        case .up: return moveUp()
        case .down: return moveDown()
        case .control("p"): return recall(place - 1)
        case .control("n"): return recall(place + 1)
        // At a line's border the line end itself goes, so that repeating the key goes on.
        case .control("k"): return edit(!after.isEmpty) { $0.killRight(max(1, $0.lineAfter)) }
        case .control("u"): return edit(!before.isEmpty) { $0.killLeft(max(1, $0.lineBefore)) }
        case .control("w"): return edit(!before.isEmpty) { $0.killLeft($0.blankWordBefore) }
        case .deleteWordLeft: return edit(!before.isEmpty) { $0.killLeft($0.wordBefore) }
        case .deleteWordRight: return edit(!after.isEmpty) { $0.killRight($0.wordAfter) }
        case .control("y"): return edit(!killed.isEmpty) { $0.before += $0.killed }
        case .control("c"):
            let hadText = !isEmpty
            clear()
            return .interrupted(hadText: hadText)
        case .control("l"): return .clearScreen
        case .control("z"): return .suspend
        case .control, .other: return .unchanged
        }
    }

    private mutating func edit(_ isPossible: Bool, _ change: (inout LineEditor) -> Void) -> Outcome {
        guard isPossible else { return .unchanged }
        change(&self)
        return .edited
    }

    private mutating func submit() -> Outcome {
        let entered = text
        clear()
        if entered.contains(where: { !$0.isWhitespace }), history.last != entered {
            history.append(entered)
            if history.count > Self.longestHistory { history.removeFirst() }
        }
        place = history.count
        return .submitted(entered)
    }

    private mutating func clear() {
        before = ""
        after = ""
        draft = ""
        place = history.count
    }

    // MARK: Movement

    private mutating func moveLeft(_ count: Int) {
        after = before.suffix(count) + after
        before.removeLast(count)
    }

    private mutating func moveRight(_ count: Int) {
        before += after.prefix(count)
        after.removeFirst(count)
    }

    /// Characters back to the beginning of the line, and on to its end.
    private var lineBefore: Int { before.reversed().prefix { !$0.isNewline }.count }
    private var lineAfter: Int { after.prefix { !$0.isNewline }.count }

    private var wordBefore: Int { Self.wordLength(before.reversed()) { $0.isLetter || $0.isNumber } }
    private var wordAfter: Int { Self.wordLength(after) { $0.isLetter || $0.isNumber } }
    /// Ctrl-W's words end at white space only.
    private var blankWordBefore: Int { Self.wordLength(before.reversed()) { !$0.isWhitespace } }

    /// What separates, and then the word.
    private static func wordLength(_ characters: some Collection<Character>, _ isPart: (Character) -> Bool) -> Int {
        let gap = characters.prefix { !isPart($0) }.count
        return gap + characters.dropFirst(gap).prefix(while: isPart).count
    }

    private mutating func killLeft(_ count: Int) {
        killed = String(before.suffix(count))
        before.removeLast(count)
    }

    private mutating func killRight(_ count: Int) {
        killed = String(after.prefix(count))
        after.removeFirst(count)
    }

    /// To the line above, at the same distance from its beginning; from the first line into the history.
    private mutating func moveUp() -> Outcome {
        let column = lineBefore
        guard column < before.count else { return recall(place - 1) }
        moveLeft(column + 1)
        moveLeft(max(0, lineBefore - column))
        return .edited
    }

    private mutating func moveDown() -> Outcome {
        let column = lineBefore
        let rest = lineAfter
        guard rest < after.count else { return recall(place + 1) }
        moveRight(rest + 1)
        moveRight(min(column, lineAfter))
        return .edited
    }

    private mutating func recall(_ wanted: Int) -> Outcome {
        guard (0...history.count).contains(wanted) else { return .unchanged }
        if place == history.count { draft = text }
        place = wanted
        before = wanted == history.count ? draft : history[wanted]
        after = ""
        return .edited
    }
}
