import JSON

/// A client's own notes on an object: up to 16 pairs of short texts, as OpenAI bounds them.
enum MetadataFields {
    static let maximumPairs = 16, maximumKeyLength = 64, maximumValueLength = 512

    static func read(_ value: JSONValue?, param: String = "metadata") throws(APIError) -> [(key: String, value: String)] {
        guard let value, !value.isNull else { return [] }
        guard let object = value.object else { throw .invalidType(param, found: value, expected: "an object of strings") }
        guard object.count <= maximumPairs else {
            throw .invalidValue(param, "'\(param)' has \(object.count) pairs, expected at most \(maximumPairs)")
        }
        var pairs: [(key: String, value: String)] = []
        for (key, value) in object {
            guard (1...maximumKeyLength).contains(key.unicodeScalars.count) else {
                throw .invalidValue(param, "A key of '\(param)' has \(key.unicodeScalars.count) characters, expected 1 to \(maximumKeyLength)")
            }
            guard let text = value.string else { throw .invalidType("\(param)[\(quoted(key))]", found: value, expected: "a string") }
            guard text.unicodeScalars.count <= maximumValueLength else {
                throw .invalidValue(param, "A value of '\(param)' has \(text.unicodeScalars.count) characters, expected at most \(maximumValueLength)")
            }
            guard !key.utf8.contains(0), !text.utf8.contains(0) else { throw .invalidValue(param, "'\(param)' has a NUL character, expected texts without") }
            pairs.append((key, text))
        }
        return pairs
    }
}
