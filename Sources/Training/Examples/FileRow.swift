import JSON

/// One row as it stands in a file.
struct FileRow {
    /// The most bytes of one row.
    static let maximumBytes = 4 << 20

    /// The line on which it begins, from 1.
    var line: Int
    var content: Result<JSONObject, RowProblem>

    init(line: Int, content: Result<JSONObject, RowProblem>) {
        self.line = line
        self.content = content
    }

    init(line: Int, problem: String) {
        self.init(line: line, content: .failure(RowProblem(problem)))
    }

    /// Parses a row of JSON.
    init(line: Int, json: ArraySlice<UInt8>) {
        self.init(line: line, content: Self.parse(json))
    }

    private static func parse(_ json: ArraySlice<UInt8>) -> Result<JSONObject, RowProblem> {
        guard json.count <= maximumBytes else { return .failure(Self.tooLong(json.count)) }
        do throws(JSONError) {
            let value = try JSONValue(parsing: json, refusingDuplicateKeys: true)
            guard let object = value.object else { return .failure(RowProblem("the row is \(value.kindName), expected an object")) }
            return .success(object)
        } catch {
            return .failure(RowProblem("the row is not valid JSON: at its byte \(error.offset), \(error.message)"))
        }
    }

    static func tooLong(_ count: Int) -> RowProblem {
        RowProblem("the row has \(count) bytes, expected at most \(maximumBytes); split it")
    }
}

/// The rows of a file, one after the other, each read once.
protocol RowSource {
    mutating func next() -> FileRow?
}

extension UInt8 {
    /// JSON's white space.
    var isJSONSpace: Bool { self == 0x20 || self == 0x0A || self == 0x0D || self == 0x09 }
}
