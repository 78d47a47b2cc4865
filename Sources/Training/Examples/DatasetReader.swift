import JSON
import Tokenization

/// Turns the bytes of an uploaded file into examples for one base model.
///
/// Container and format are recognised by content. Rows are read one by one and each byte once or twice, so that time is linear in the file
/// and no more than one row is held as values. A row that cannot be used is reported and left out; nothing is guessed.
public struct DatasetReader: Sendable {
    public let encoder: ConversationEncoder
    /// The most tokens of an example; longer ones lose their end.
    public let maximumLength: Int

    /// - Parameter maximumLength: at least 2, since the first token is never trained.
    public init(encoder: ConversationEncoder, maximumLength: Int) {
        precondition(maximumLength >= 2, "an example needs a token to predict from and one to predict")
        self.encoder = encoder
        self.maximumLength = maximumLength
    }

    /// - Parameter interruption: ends the reading between two rows.
    /// - Throws: if the file is in none of the formats. A file whose format can be told, but without a usable row, gives no examples and says why.
    ///   `interrupted` when that was asked for.
    public func read(_ bytes: [UInt8], interruption: Interruption? = nil) throws(DatasetError) -> Dataset {
        var (container, source) = try Self.open(bytes)
        var collection = DatasetCollection(container: container, encoder: encoder, maximumLength: maximumLength)
        while let row = source.next() {
            if interruption?.isRequested == true { throw .interrupted }
            collection.add(row)
        }
        return try collection.dataset()
    }

    // MARK: Containers

    private static func open(_ bytes: [UInt8]) throws(DatasetError) -> (DatasetContainer, any RowSource) {
        var start = bytes.starts(with: [0xEF, 0xBB, 0xBF]) ? 3 : 0
        if bytes.starts(with: [0xFF, 0xFE]) || bytes.starts(with: [0xFE, 0xFF]) || bytes.prefix(4).contains(0) {
            throw DatasetError("The file is not in UTF-8 (it begins as UTF-16 or as binary data); save it as UTF-8.")
        }
        let beginning = start
        while start < bytes.count, bytes[start].isJSONSpace { start += 1 }
        guard start < bytes.count else { throw DatasetError("The file is empty, expected rows of examples.") }
        switch bytes[start] {
        case UInt8(ascii: "["): return (.json, ArrayRows(bytes, from: beginning, isSingle: false))
        case UInt8(ascii: "{"):
            return isOneObject(bytes, from: start) ? (.json, ArrayRows(bytes, from: beginning, isSingle: true)) : (.jsonl, LineRows(bytes, from: beginning))
        default:
            do throws(DatasetError) {
                return (.csv, try TableRows(bytes, from: beginning))
            } catch {
                // A damaged first line does not hide the rows behind it.
                if hasObjectLine(bytes, from: start) { return (.jsonl, LineRows(bytes, from: beginning)) }
                let expected = "expected \(TableRows.expected) (rename them in the first line), or rows of JSON"
                throw DatasetError("The file is no JSON, and as comma-separated values \(error.message); \(expected).")
            }
        }
    }

    /// Whether the file is a single object over several lines.
    private static func isOneObject(_ bytes: [UInt8], from start: Int) -> Bool {
        var line = 0
        guard let end = ArrayRows.end(ofValueAt: start, in: bytes, line: &line), line > 0 else { return false }
        return bytes[end...].allSatisfy(\.isJSONSpace)
    }

    private static func hasObjectLine(_ bytes: [UInt8], from start: Int) -> Bool {
        var offset = start
        while let end = bytes[offset...].firstIndex(of: UInt8(ascii: "\n")) {
            offset = end + 1
            if offset < bytes.count, bytes[offset] == UInt8(ascii: "{") { return true }
        }
        return false
    }
}
