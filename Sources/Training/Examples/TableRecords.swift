/// Records of comma-separated values (RFC 4180): fields may be quoted, and quoted ones may hold commas, doubled quotes and line ends.
struct TableRecords {
    enum Record {
        case fields([[UInt8]])
        /// A line without anything on it.
        case blank
        case problem(String)
        case end
    }

    private let bytes: [UInt8]
    private var offset: Int
    /// The line that comes next, from 1.
    private(set) var line = 1

    init(_ bytes: [UInt8], from start: Int) {
        self.bytes = bytes
        offset = start
    }

    /// Goes over each byte once, whatever it finds: a record that is too long or has a stray quote ends where it would have ended anyway.
    mutating func next() -> Record {
        guard offset < bytes.count else { return .end }
        let start = offset
        var fields: [[UInt8]] = []
        var problem: String?
        var hasQuotes = false
        while true {
            var field: [UInt8] = []
            let isQuoted = offset < bytes.count && bytes[offset] == UInt8(ascii: "\"")
            if isQuoted {
                hasQuotes = true
                let opening = line
                if !readQuoted(into: &field, recordStart: start) {
                    problem = "the quote that opens a field on line \(opening) is never closed; this and what follows is not read"
                }
            }
            let textCount = readPlain(into: &field, recordStart: start)
            if isQuoted, textCount > 0, problem == nil {
                problem = "there is text behind the closing quote of field \(fields.count + 1), expected a comma; double a quote that belongs to the text"
            }
            fields.append(field)
            guard offset < bytes.count, bytes[offset] == UInt8(ascii: ",") else { break }
            offset += 1
        }
        let count = offset - start
        if offset < bytes.count {
            offset += 1
            line += 1
        }
        if count > FileRow.maximumBytes, problem == nil { problem = FileRow.tooLong(count).message + ", or close a quote that stays open" }
        if let problem { return .problem(problem) }
        if fields.count == 1, !hasQuotes, fields[0].allSatisfy(\.isJSONSpace) { return .blank }
        return .fields(fields)
    }

    /// A quoted field without its quotes; leaves the place behind the closing one. Whether there is one.
    private mutating func readQuoted(into field: inout [UInt8], recordStart: Int) -> Bool {
        offset += 1
        while offset < bytes.count {
            let byte = bytes[offset]
            offset += 1
            if byte == UInt8(ascii: "\"") {
                guard offset < bytes.count, bytes[offset] == UInt8(ascii: "\"") else { return true }
                offset += 1
            } else if byte == UInt8(ascii: "\n") {
                line += 1
            }
            if offset - recordStart <= FileRow.maximumBytes { field.append(byte) }
        }
        return false
    }

    /// What stands before the next comma or line end; how many bytes that were.
    private mutating func readPlain(into field: inout [UInt8], recordStart: Int) -> Int {
        let start = offset
        while offset < bytes.count, bytes[offset] != UInt8(ascii: ","), bytes[offset] != UInt8(ascii: "\n") { offset += 1 }
        var end = offset
        if end > start, bytes[end - 1] == UInt8(ascii: "\r"), end == bytes.count || bytes[end] == UInt8(ascii: "\n") { end -= 1 }
        if end - recordStart <= FileRow.maximumBytes { field += bytes[start..<end] }
        return end - start
    }
}
