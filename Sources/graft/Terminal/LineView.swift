/// Draws a `LineEditor` on a terminal: gives the characters and control sequences that bring the screen from what was drawn last to what
/// is to be seen now. It assumes that nothing else writes between `draw` and `finish`.
///
/// Rows are broken here and not by the terminal, because terminals differ at their right border. A text with more rows than the terminal
/// shows the rows around the cursor.
package struct LineView {
    package let prompt: String
    private let indent: String
    private let promptWidth: Int
    /// The row of the cursor below the first drawn row.
    private var cursorRow = 0
    private var drawnRows = 0

    private static let tab = "    "

    package init(prompt: String) {
        self.prompt = prompt
        promptWidth = CellWidth.of(prompt)
        indent = String(repeating: " ", count: promptWidth)
    }

    /// - Parameters:
    ///   - columns: the terminal's width in cells.
    ///   - rows: its height.
    package mutating func draw(_ editor: LineEditor, columns: Int, rows: Int) -> String {
        let layout = Layout(self, editor, columns: max(columns, promptWidth + 2))
        let height = min(layout.rows.count, max(rows, 1))
        let top = min(max(0, layout.cursor.row - height / 2), layout.rows.count - height)
        var output = toTop() + layout.rows[top..<(top + height)].joined(separator: "\r\n")
        cursorRow = layout.cursor.row - top
        drawnRows = height
        let up = height - 1 - cursorRow
        if up > 0 { output += "\u{1B}[\(up)A" }
        output += "\r"
        if layout.cursor.column > 0 { output += "\u{1B}[\(layout.cursor.column)C" }
        return output
    }

    /// Leaves the text on the screen and puts the cursor at the beginning of the row below it.
    package mutating func finish() -> String {
        guard drawnRows > 0 else { return "" }
        let down = drawnRows - 1 - cursorRow
        forget()
        return (down > 0 ? "\u{1B}[\(down)B" : "") + "\r\n"
    }

    /// The screen has become another one: draw from where the cursor is.
    package mutating func forget() {
        cursorRow = 0
        drawnRows = 0
    }

    /// To the first drawn row, everything from there on cleared.
    private func toTop() -> String {
        (cursorRow > 0 ? "\u{1B}[\(cursorRow)A" : "") + "\r\u{1B}[J"
    }

    private struct Layout {
        var rows: [String]
        var cursor = (row: 0, column: 0)
        private var column: Int
        private let columns: Int

        init(_ view: LineView, _ editor: LineEditor, columns: Int) {
            self.columns = columns
            rows = [view.prompt]
            column = view.promptWidth
            for character in editor.before { place(character, view) }
            // The cursor stands on the character after it, and that begins a new row where this one is full.
            let next = editor.after.first.map { $0.isNewline ? 0 : Self.shown($0).width } ?? 1
            if column + next > columns { breakRow(indent: "") }
            cursor = (rows.count - 1, column)
            for character in editor.after { place(character, view) }
        }

        private mutating func place(_ character: Character, _ view: LineView) {
            guard !character.isNewline else { return breakRow(indent: view.indent) }
            let (text, width) = Self.shown(character)
            if column + width > columns { breakRow(indent: "") }
            rows[rows.count - 1] += text
            column += width
        }

        private mutating func breakRow(indent: String) {
            rows.append(indent)
            column = indent.utf8.count
        }

        private static func shown(_ character: Character) -> (text: String, width: Int) {
            character == "\t" ? (LineView.tab, LineView.tab.utf8.count) : (String(character), CellWidth.of(character))
        }
    }
}
