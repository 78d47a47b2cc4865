/// The key–value pairs of a GGUF file, in file order.
///
/// The typed getters return nil for an absent key and throw `GGUFError.Code.wrongType` for a value of another type, so that a model whose
/// `block_count` is a string is refused with a message rather than treated as if it had none.
public struct GGUFMetadata: Sendable, Equatable {
    /// In file order.
    public private(set) var keys: [String] = []
    private var values: [String: GGUFValue] = [:]

    public init() {}

    /// Metadata made in memory; of a key given twice the last value is kept.
    public init(_ pairs: [(String, GGUFValue)]) {
        for (key, value) in pairs where !insert(value, forKey: key) {
            values[key] = value
        }
    }

    public subscript(key: String) -> GGUFValue? { values[key] }

    public var count: Int { keys.count }

    /// Adds a pair at the end. False, and no change, when the key is there already.
    mutating func insert(_ value: GGUFValue, forKey key: String) -> Bool {
        let replaced = values.updateValue(value, forKey: key)
        if let replaced {
            values[key] = replaced
            return false
        }
        keys.append(key)
        return true
    }

    public func string(_ key: String) throws(GGUFError) -> String? {
        guard let value = values[key] else { return nil }
        guard case .string(let string) = value else { throw wrongType(key, value, "a string") }
        return string
    }

    public func bool(_ key: String) throws(GGUFError) -> Bool? {
        guard let value = values[key] else { return nil }
        guard case .bool(let bool) = value else { throw wrongType(key, value, "a bool") }
        return bool
    }

    /// A value of any integer type that fits `Int`.
    public func integer(_ key: String) throws(GGUFError) -> Int? {
        guard let value = values[key] else { return nil }
        guard let integer = value.integer else { throw wrongType(key, value, "an integer below 2^63") }
        return integer
    }

    /// A value of any floating-point or integer type.
    public func number(_ key: String) throws(GGUFError) -> Double? {
        guard let value = values[key] else { return nil }
        switch value {
        case .float32(let number): return Double(number)
        case .float64(let number): return number
        case .uint64(let number): return Double(number)
        default:
            guard let integer = value.integer else { throw wrongType(key, value, "a number") }
            return Double(integer)
        }
    }

    public func strings(_ key: String) throws(GGUFError) -> [String]? {
        guard let value = values[key] else { return nil }
        guard case .array(.strings(let strings)) = value else { throw wrongType(key, value, "an array of strings") }
        return strings
    }

    /// An array of f32, or of f64 rounded to `Float`.
    public func floats(_ key: String) throws(GGUFError) -> [Float]? {
        guard let value = values[key] else { return nil }
        switch value {
        case .array(.float32s(let floats)): return floats
        case .array(.float64s(let doubles)): return doubles.map { Float($0) }
        default: throw wrongType(key, value, "an array of floating-point numbers")
        }
    }

    /// An array of any integer type whose elements all fit `Int`.
    public func integers(_ key: String) throws(GGUFError) -> [Int]? {
        guard let value = values[key] else { return nil }
        switch value {
        case .array(.uint8s(let array)): return array.map { Int($0) }
        case .array(.int8s(let array)): return array.map { Int($0) }
        case .array(.uint16s(let array)): return array.map { Int($0) }
        case .array(.int16s(let array)): return array.map { Int($0) }
        case .array(.uint32s(let array)): return array.map { Int($0) }
        case .array(.int32s(let array)): return array.map { Int($0) }
        case .array(.int64s(let array)): return array.map { Int($0) }
        case .array(.uint64s(let array)):
            guard array.allSatisfy({ $0 <= UInt64(Int.max) }) else { throw wrongType(key, value, "an array of integers below 2^63") }
            return array.map { Int($0) }
        default: throw wrongType(key, value, "an array of integers")
        }
    }

    /// An array of bools.
    public func bools(_ key: String) throws(GGUFError) -> [Bool]? {
        guard let value = values[key] else { return nil }
        guard case .array(.bools(let bools)) = value else { throw wrongType(key, value, "an array of bools") }
        return bools
    }

    private func wrongType(_ key: String, _ value: GGUFValue, _ expected: String) -> GGUFError {
        var found = value.typeName
        if case .uint64(let number) = value { found += " \(number)" }
        return GGUFError(code: .wrongType, message: "metadata key \(shown(key)) is \(found), expected \(expected)")
    }
}
