import JSON

/// Comma-separated values under a line of names; only the columns of a known format are read.
struct TableRows: RowSource {
    private var records: TableRecords
    /// The names of the columns that are read, by their place.
    private let columns: [Int: String]
    private let columnCount: Int

    private static let layouts: [Set<String>] = [
        ["prompt", "completion"], ["instruction", "output"], ["prompt", "chosen", "rejected"], ["instruction", "chosen", "rejected"],
    ]
    private static let known: Set<String> = ["prompt", "completion", "instruction", "input", "output", "system", "chosen", "rejected"]

    static let expected = "columns named prompt,completion or instruction,input,output or prompt,chosen,rejected or instruction,input,chosen,rejected"

    /// - Throws: if the first line does not name the columns of a format; nothing is guessed from other names.
    init(_ bytes: [UInt8], from start: Int) throws(DatasetError) {
        records = TableRecords(bytes, from: start)
        var header = records.next()
        while case .blank = header { header = records.next() }
        guard case .fields(let fields) = header else { throw DatasetError("its first line cannot be read") }
        let names = fields.map { String(decoding: $0, as: UTF8.self).trimmingSpaces() }
        var columns: [Int: String] = [:]
        for (index, name) in names.enumerated() where Self.known.contains(name) {
            guard !columns.values.contains(name) else { throw DatasetError("its first line names the column '\(name)' twice") }
            columns[index] = name
        }
        self.columns = columns
        columnCount = names.count
        guard Self.layouts.contains(where: { $0.isSubset(of: columns.values) }) else { throw DatasetError(Self.found(names)) }
    }

    /// What the first line says. Names only if they look like names: it may be data.
    private static func found(_ names: [String]) -> String {
        if names.count == 1 {
            if names[0].contains(";") { return "its first line is divided by semicolons" }
            if names[0].contains("\t") { return "its first line is divided by tabs" }
            return "its first line names no columns"
        }
        guard names.allSatisfy(isName) else { return "its first line is no line of names" }
        let shown = names.prefix(8).joined(separator: ", ")
        return "its columns are named \(shown)\(names.count > 8 ? ", …" : "")"
    }

    static func isName(_ word: String) -> Bool {
        !word.isEmpty && word.utf8.count <= 32
            && word.utf8.allSatisfy { byte in
                UInt8(ascii: "a")...UInt8(ascii: "z") ~= byte || UInt8(ascii: "A")...UInt8(ascii: "Z") ~= byte || UInt8(ascii: "0")...UInt8(ascii: "9") ~= byte
                    || byte == UInt8(ascii: "_") || byte == UInt8(ascii: "-")
            }
    }

    mutating func next() -> FileRow? {
        while true {
            let line = records.line
            switch records.next() {
            case .end: return nil
            case .blank: continue
            case .problem(let message): return FileRow(line: line, problem: message)
            case .fields(let fields): return FileRow(line: line, content: object(fields))
            }
        }
    }

    private func object(_ fields: [[UInt8]]) -> Result<JSONObject, RowProblem> {
        guard fields.count == columnCount else {
            return .failure(
                RowProblem("the row has \(fields.count) fields, expected \(columnCount) as the first line names; put quotes around a field with commas"))
        }
        var object = JSONObject()
        for (index, field) in fields.enumerated() {
            guard let name = columns[index] else { continue }
            guard !field.contains(0) else { return .failure(RowProblem("the column '\(name)' holds a zero byte, expected text")) }
            guard let text = String(validating: field, as: UTF8.self) else {
                return .failure(RowProblem("the column '\(name)' holds bytes that are not UTF-8; save the file as UTF-8"))
            }
            object[name] = .string(text)
        }
        return .success(object)
    }
}

extension String {
    fileprivate func trimmingSpaces() -> String {
        var text = self[...]
        while text.first?.isWhitespace == true { text.removeFirst() }
        while text.last?.isWhitespace == true { text.removeLast() }
        return String(text)
    }
}
