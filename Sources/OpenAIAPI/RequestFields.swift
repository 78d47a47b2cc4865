import JSON

/// Reads the members of one JSON object strictly, and keeps account of those that nobody asked for.
///
/// `null` counts as absent everywhere, as the client libraries send it for an option that was not set.
struct RequestFields {
    private let object: JSONObject
    /// What stands before the names in messages: empty, or such as `stream_options.`.
    private let prefix: String
    private var known: Set<String> = []

    init(_ object: JSONObject, prefix: String = "") {
        self.object = object
        self.prefix = prefix
    }

    /// The full name of a member for messages.
    func name(_ key: String) -> String { prefix + key }

    /// The full names of members that were not asked for and are not null.
    var unread: [String] {
        object.lazy.filter { !known.contains($0.key) && !$0.value.isNull }.map { prefix + $0.key }
    }

    mutating func value(_ key: String) -> JSONValue? {
        known.insert(key)
        guard let value = object[key], !value.isNull else { return nil }
        return value
    }

    /// Marks members as known without looking at them.
    mutating func accept(_ keys: some Sequence<String>) {
        known.formUnion(keys)
    }

    mutating func bool(_ key: String) throws(APIError) -> Bool? {
        guard let value = value(key) else { return nil }
        guard let bool = value.bool else { throw .invalidType(name(key), found: value, expected: "true or false") }
        return bool
    }

    mutating func string(_ key: String, maximumBytes: Int) throws(APIError) -> String? {
        guard let value = value(key) else { return nil }
        guard let string = value.string else { throw .invalidType(name(key), found: value, expected: "a string") }
        guard string.utf8.count <= maximumBytes else {
            throw .invalidValue(name(key), "'\(name(key))' has \(string.utf8.count) bytes, expected at most \(maximumBytes)")
        }
        return string
    }

    mutating func integer(_ key: String, in range: ClosedRange<Int>) throws(APIError) -> Int? {
        guard let value = value(key) else { return nil }
        return try Self.integer(value, name: name(key), in: range)
    }

    /// An integer in any spelling that means one: `1` and `1.0`, not `true` and not `"1"`.
    static func integer(_ value: JSONValue, name: String, in range: ClosedRange<Int>) throws(APIError) -> Int {
        var expected = "an integer from \(range.lowerBound) to \(range.upperBound)"
        if range.upperBound == Int(Int32.max) || range.upperBound == .max { expected = "an integer of at least \(range.lowerBound)" }
        if range == Int.min...Int.max { expected = "a 64-bit integer" }
        let found: Int?
        switch value {
        case .integer(let integer): found = Int(integer)
        // What is written below -2⁶³ rounds to it.
        case .number(let number): found = number > -0x1p63 ? Int(exactly: number) : nil
        default: throw .invalidType(name, found: value, expected: expected)
        }
        if case .number(let number) = value, found == nil, number != number.rounded() {
            throw .invalidType(name, found: value, expected: expected)
        }
        guard let found, range.contains(found) else {
            if range.upperBound == Int(Int32.max) { expected += " and at most \(range.upperBound)" }
            throw .invalidValue(name, "'\(name)' is \(describe(value)), expected \(expected)")
        }
        return found
    }

    /// A number between two bounds; the lower one itself is refused when `excludingLower` is set.
    mutating func number(_ key: String, in range: ClosedRange<Double>, excludingLower: Bool = false) throws(APIError) -> Double? {
        guard let value = value(key) else { return nil }
        let expected =
            excludingLower
            ? "a number above \(short(range.lowerBound)) and at most \(short(range.upperBound))"
            : "a number from \(short(range.lowerBound)) to \(short(range.upperBound))"
        guard let number = value.number else { throw .invalidType(name(key), found: value, expected: expected) }
        guard range.contains(number), !(excludingLower && number == range.lowerBound) else {
            throw .invalidValue(name(key), "'\(name(key))' is \(describe(value)), expected \(expected)")
        }
        return number
    }

    mutating func object(_ key: String) throws(APIError) -> JSONObject? {
        guard let value = value(key) else { return nil }
        guard let object = value.object else { throw .invalidType(name(key), found: value, expected: "an object") }
        return object
    }

    /// Refuses a known parameter that Graft does not do, unless it has a value that asks for nothing.
    mutating func refuse(_ parameter: UnsupportedParameter) throws(APIError) {
        guard let value = value(parameter.name), !parameter.neutral.contains(where: { isSame($0, value) }) else { return }
        throw .unsupportedParameter(name(parameter.name), parameter.remedy)
    }
}

/// Equality of JSON values where `1` and `1.0` are the same.
private func isSame(_ left: JSONValue, _ right: JSONValue) -> Bool {
    if let left = left.number, let right = right.number { return left == right }
    return left == right
}

/// A bound without a superfluous fraction: "2", not "2.0".
private func short(_ value: Double) -> String {
    value == value.rounded() ? String(Int(value)) : value.description
}
