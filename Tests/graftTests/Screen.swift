import graft

/// As much of a terminal as `LineView` needs: cells, a cursor, a border at the right that holds the cursor back, and scrolling.
struct Screen {
    let columns: Int
    let rows: Int
    private(set) var row = 0
    private(set) var column = 0
    private var cells: [[String]]
    /// A character was written to the last cell of a row; the next one begins a new row.
    private var isPending = false

    init(columns: Int, rows: Int) {
        self.columns = columns
        self.rows = rows
        cells = Array(repeating: Array(repeating: " ", count: columns), count: rows)
    }

    /// The rows without the blanks at their ends, down to the last that is not empty.
    var lines: [String] {
        var lines = cells.map { row in
            var line = row.joined()
            while line.last == " " { line.removeLast() }
            return line
        }
        while lines.last == "" { lines.removeLast() }
        return lines
    }

    mutating func write(_ text: String) {
        var rest = Substring(text)
        while let character = rest.first {
            if rest.unicodeScalars.first == "\u{1B}" {
                rest = rest.dropFirst(2)
                let number = rest.prefix { $0.isNumber }
                rest = rest.dropFirst(number.count)
                sequence(rest.removeFirst(), Int(number) ?? 1)
            } else {
                rest.removeFirst()
                put(character)
            }
        }
    }

    private mutating func sequence(_ final: Character, _ count: Int) {
        isPending = false
        switch final {
        case "A": row = max(0, row - count)
        case "B": row = min(rows - 1, row + count)
        case "C": column = min(columns - 1, column + count)
        case "J":
            for i in column..<columns { cells[row][i] = " " }
            for lower in (row + 1)..<max(rows, row + 1) { cells[lower] = Array(repeating: " ", count: columns) }
        default: fatalError("the view sent ESC [ \(final), which this screen does not know")
        }
    }

    private mutating func put(_ character: Character) {
        switch character {
        case "\r": column = 0
        case "\n": lineFeed()
        case "\r\n":
            column = 0
            lineFeed()
        default:
            let width = CellWidth.of(character)
            if isPending || column + width > columns {
                column = 0
                lineFeed()
            }
            guard width > 0 else { return }
            cells[row][column] = String(character)
            for i in 1..<max(width, 1) { cells[row][column + i] = "" }
            isPending = column + width == columns
            column = min(columns - 1, column + width)
            return
        }
        isPending = false
    }

    private mutating func lineFeed() {
        if row == rows - 1 {
            cells.removeFirst()
            cells.append(Array(repeating: " ", count: columns))
        } else {
            row += 1
        }
        isPending = false
    }
}
