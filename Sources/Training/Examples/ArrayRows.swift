/// One JSON array of objects, or one object alone. Rows are found by their brackets, so that only one at a time is held as values.
struct ArrayRows: RowSource {
    private let bytes: [UInt8]
    private var offset: Int
    private var line = 1
    private var isFinished = false
    private var isFirst = true
    /// The file is one object and no array.
    private let isSingle: Bool

    /// - Parameter start: where the array begins, or the object for `isSingle`; only white space may stand before it.
    init(_ bytes: [UInt8], from start: Int, isSingle: Bool) {
        self.bytes = bytes
        self.isSingle = isSingle
        offset = start
        skipSpace()
        if !isSingle { offset += 1 }
    }

    mutating func next() -> FileRow? {
        if isFinished { return nil }
        skipSpace()
        guard offset < bytes.count else { return end("the array does not end, expected ']' behind its last row") }
        if isSingle { return isFirst ? row() : nil }
        if bytes[offset] == UInt8(ascii: "]") { return close() }
        if !isFirst {
            guard bytes[offset] == UInt8(ascii: ",") else { return end("there is no ',' between two rows; this and what follows is not read") }
            offset += 1
            skipSpace()
            if offset < bytes.count, bytes[offset] == UInt8(ascii: "]") { return end("there is a ',' behind the last row, expected ']'") }
            guard offset < bytes.count else { return next() }
        }
        return row()
    }

    private mutating func row() -> FileRow {
        isFirst = false
        let start = offset
        let firstLine = line
        guard let end = Self.end(ofValueAt: start, in: bytes, line: &line) else {
            isFinished = true
            return FileRow(line: firstLine, problem: "the row does not end: a bracket or a quote is not closed; this and what follows is not read")
        }
        offset = end
        if isSingle { isFinished = true }
        return FileRow(line: firstLine, json: bytes[start..<end])
    }

    private mutating func close() -> FileRow? {
        offset += 1
        skipSpace()
        guard offset < bytes.count else {
            isFinished = true
            return nil
        }
        return end("there is text behind the array's end, which is not read")
    }

    private mutating func end(_ problem: String) -> FileRow {
        isFinished = true
        return FileRow(line: line, problem: problem)
    }

    private mutating func skipSpace() {
        while offset < bytes.count, bytes[offset].isJSONSpace {
            if bytes[offset] == UInt8(ascii: "\n") { line += 1 }
            offset += 1
        }
    }

    /// The end of the value that begins at `start`, as far as brackets and quotes tell; `nil` if it has none.
    static func end(ofValueAt start: Int, in bytes: [UInt8], line: inout Int) -> Int? {
        var depth = 0
        var isQuoted = false
        var offset = start
        while offset < bytes.count {
            let byte = bytes[offset]
            if byte == UInt8(ascii: "\n") { line += 1 }
            if isQuoted {
                if byte == UInt8(ascii: "\\") {
                    offset += 1
                    if offset < bytes.count, bytes[offset] == UInt8(ascii: "\n") { line += 1 }
                } else if byte == UInt8(ascii: "\"") {
                    isQuoted = false
                    if depth == 0 { return offset + 1 }
                }
            } else {
                switch byte {
                case UInt8(ascii: "\""): isQuoted = true
                case UInt8(ascii: "{"), UInt8(ascii: "["): depth += 1
                case UInt8(ascii: "}"), UInt8(ascii: "]"):
                    if depth == 0 { return max(offset, start + 1) }
                    depth -= 1
                    if depth == 0 { return offset + 1 }
                case UInt8(ascii: ","): if depth == 0 { return max(offset, start + 1) }
                default: break
                }
            }
            offset += 1
        }
        return nil
    }
}
