import HTTP1
import InstructionStore
import JSON
import Training

/// What a look into a file for fine-tuning has found.
public struct FileFindings: Sendable {
    /// Rows that can be used, and rows that cannot.
    public var exampleCount: Int, problemCount: Int
    /// The report as the file's answer shows it.
    public var json: JSONObject

    public init(exampleCount: Int, problemCount: Int, json: JSONObject) {
        self.exampleCount = exampleCount
        self.problemCount = problemCount
        self.json = json
    }

    /// A file is usable as a whole or not at all.
    var status: StoredFile.Status { exampleCount > 0 && problemCount == 0 ? .processed : .error }
}

/// Looks into the content of a file for fine-tuning; blocks.
/// - Throws: `DatasetError` for content that is none of the known formats.
public typealias FileInspector = @Sendable ([UInt8]) throws(DatasetError) -> FileFindings

/// What a file is for.
enum FilePurpose {
    static let fineTune = "fine-tune"
    /// What clients may upload. Of these only training data is looked into.
    static let uploadable = [fineTune, "assistants", "batch", "vision", "user_data", "evals"]
    /// What lists can be narrowed to.
    static let known = uploadable + ["fine-tune-results", "assistants_output", "batch_output"]
}

/// The JSON of files.
enum FileObjects {
    static func file(_ file: StoredFile) -> JSONObject {
        let report = file.report.flatMap { try? JSONValue(parsing: Array($0.utf8)) }
        var object: JSONObject = [
            "id": .string(file.id), "object": "file", "bytes": .integer(Int64(file.byteCount)), "created_at": .integer(Int64(file.createdAt)),
            "expires_at": file.expiresAt.map { .integer(Int64($0)) } ?? .null, "filename": .string(file.name), "purpose": .string(file.purpose),
            "status": .string(file.status.rawValue), "status_details": file.status == .error ? .string(details(report)) : .null,
        ]
        if let report { object["graft_report"] = report }
        return object
    }

    /// Why a file is not usable, in a sentence.
    private static func details(_ report: JSONValue?) -> String {
        guard let bad = report?["bad_lines"]?.integer, let good = report?["examples"]?.integer else { return "The file cannot be used for training." }
        return switch (bad, good) {
        case (0, _): "The file has no example that a model could be trained on."
        case (1, _): "One row of the file cannot be used, \(good) can; graft_report says why. Correct the file and upload it again."
        default: "\(bad) rows of the file cannot be used, \(good) can; graft_report lists the first of them. Correct the file and upload it again."
        }
    }

    /// A page of things that have ids.
    static func list(_ objects: [JSONObject], hasMore: Bool) -> JSONValue {
        [
            "object": "list", "data": .array(objects.map { .object($0) }), "has_more": .bool(hasMore), "first_id": objects.first?["id"] ?? .null,
            "last_id": objects.last?["id"] ?? .null,
        ]
    }

    /// A client's name for a file, made fit to be shown: without folders and control characters, at most 255 bytes, never empty.
    static func displayName(_ name: String?) -> String {
        var text = ""
        for scalar in (name ?? "").unicodeScalars {
            if scalar == "/" || scalar == "\\" {
                text = ""
                continue
            }
            let isHidden =
                switch scalar.properties.generalCategory {
                case .control, .format, .lineSeparator, .paragraphSeparator, .surrogate: true
                default: false
                }
            text.unicodeScalars.append(isHidden ? "\u{FFFD}" : scalar)
        }
        while text.utf8.count > 255 { text.unicodeScalars.removeLast() }
        return text.isEmpty || text == "." || text == ".." ? "file" : text
    }

    /// What tells a browser to save a file under its name (RFC 6266).
    static func disposition(_ name: String) -> String {
        let plain = String(decoding: name.utf8.map { PercentCoding.isPlain($0) ? $0 : UInt8(ascii: "_") }, as: UTF8.self)
        return "attachment; filename=\"\(plain)\"" + (plain == name ? "" : "; filename*=UTF-8''\(PercentCoding.encode(name))")
    }
}
