/// JSON Lines: an object on each line; empty lines are passed over.
struct LineRows: RowSource {
    private let bytes: [UInt8]
    private var offset: Int
    private var line = 0

    init(_ bytes: [UInt8], from start: Int) {
        self.bytes = bytes
        offset = start
    }

    mutating func next() -> FileRow? {
        while offset < bytes.count {
            var start = offset
            var end = bytes[offset...].firstIndex(of: UInt8(ascii: "\n")) ?? bytes.count
            offset = end + 1
            line += 1
            while start < end, bytes[start].isJSONSpace { start += 1 }
            while start < end, bytes[end - 1].isJSONSpace { end -= 1 }
            if start < end { return FileRow(line: line, json: bytes[start..<end]) }
        }
        return nil
    }
}
