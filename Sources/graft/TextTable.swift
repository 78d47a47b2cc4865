/// Rows of text in aligned columns, two spaces apart.
package struct TextTable: CustomStringConvertible {
    private var rows: [[String]]
    /// Columns whose texts end at the same place, for numbers.
    private let rightAligned: Set<Int>

    /// - Parameter header: one name for each column.
    package init(_ header: [String], rightAligned: Set<Int> = []) {
        rows = [header]
        self.rightAligned = rightAligned
    }

    package mutating func add(_ row: [String]) {
        precondition(row.count == rows[0].count, "a row has one text for each column")
        rows.append(row)
    }

    package var description: String {
        let widths = rows[0].indices.map { column in rows.map { CellWidth.of($0[column]) }.max()! }
        return rows.map { row in
            var line = ""
            for (column, text) in row.enumerated() {
                let gap = String(repeating: " ", count: widths[column] - CellWidth.of(text))
                line += (column == 0 ? "" : "  ") + (rightAligned.contains(column) ? gap + text : text + gap)
            }
            while line.last == " " { line.removeLast() }
            return line
        }.joined(separator: "\n")
    }
}
