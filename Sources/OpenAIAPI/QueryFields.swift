import HTTPServing

/// Reads the pairs of a query strictly. A name without a pair, and what nobody asks for, is no mistake.
struct QueryFields {
    private let pairs: [(name: String, value: String)]

    init(_ request: APIRequest) {
        pairs = request.query
    }

    func string(_ name: String, maximumBytes: Int = 1024) throws(APIError) -> String? {
        let values = pairs.lazy.filter { $0.name == name }.map(\.value)
        guard let value = values.first else { return nil }
        guard values.count == 1 else { throw .invalidValue(name, "The query has '\(name)' more than once, expected it once") }
        guard value.utf8.count <= maximumBytes else {
            throw .invalidValue(name, "'\(name)' has \(value.utf8.count) bytes, expected at most \(maximumBytes)")
        }
        return value
    }

    func integer(_ name: String, in range: ClosedRange<Int>) throws(APIError) -> Int? {
        guard let text = try string(name) else { return nil }
        guard let number = Int(text), range.contains(number) else {
            throw .invalidValue(name, "'\(name)' is '\(quoted(text))', expected an integer from \(range.lowerBound) to \(range.upperBound)")
        }
        return number
    }

    /// `order`: whether it is ascending.
    func isAscending(otherwise: Bool) throws(APIError) -> Bool {
        switch try string("order") {
        case nil: return otherwise
        case "asc": return true
        case "desc": return false
        case let word?: throw .invalidValue("order", "'order' is '\(quoted(word))', expected asc or desc")
        }
    }

    /// `after`: where the page before ended.
    func cursor(isValid: (String) -> Bool) throws(APIError) -> String? {
        guard let text = try string("after") else { return nil }
        guard isValid(text) else { throw .invalidValue("after", "'after' is '\(quoted(text))', expected the last_id of the page before") }
        return text
    }

    /// The key of a field called `metadata[key]`.
    static func metadataKey(_ name: String) throws(APIError) -> String {
        let key = String(name.dropFirst("metadata[".count).dropLast())
        guard !key.isEmpty else { throw .invalidValue("metadata", "The query has 'metadata[]', which names no key, expected metadata[key]=value") }
        return key
    }

    /// All `metadata[key]=value`. `metadata=null` asks for nothing.
    func metadata() throws(APIError) -> [String: String] {
        var found: [String: String] = [:]
        for (name, value) in pairs where name.hasPrefix("metadata[") && name.hasSuffix("]") {
            let key = try Self.metadataKey(name)
            guard found.updateValue(value, forKey: key) == nil else {
                throw .invalidValue("metadata", "The query has 'metadata' twice for one key, expected it once")
            }
        }
        return found
    }
}
