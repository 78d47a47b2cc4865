/// One metadata value, in the type that the file gives it.
public enum GGUFValue: Sendable, Equatable {
    case uint8(UInt8)
    case int8(Int8)
    case uint16(UInt16)
    case int16(Int16)
    case uint32(UInt32)
    case int32(Int32)
    case float32(Float)
    case bool(Bool)
    case string(String)
    case array(GGUFArray)
    case uint64(UInt64)
    case int64(Int64)
    case float64(Double)
}

/// A metadata array: all elements have one type. Arrays of arrays are refused at parsing; no known model uses them.
public enum GGUFArray: Sendable, Equatable {
    case uint8s([UInt8])
    case int8s([Int8])
    case uint16s([UInt16])
    case int16s([Int16])
    case uint32s([UInt32])
    case int32s([Int32])
    case float32s([Float])
    case bools([Bool])
    case strings([String])
    case uint64s([UInt64])
    case int64s([Int64])
    case float64s([Double])

    public var count: Int {
        switch self {
        case .uint8s(let values): values.count
        case .int8s(let values): values.count
        case .uint16s(let values): values.count
        case .int16s(let values): values.count
        case .uint32s(let values): values.count
        case .int32s(let values): values.count
        case .float32s(let values): values.count
        case .bools(let values): values.count
        case .strings(let values): values.count
        case .uint64s(let values): values.count
        case .int64s(let values): values.count
        case .float64s(let values): values.count
        }
    }

    /// `u32`, `str`, …: the element type as the GGUF specification abbreviates it.
    public var elementTypeName: String {
        switch self {
        case .uint8s: "u8"
        case .int8s: "i8"
        case .uint16s: "u16"
        case .int16s: "i16"
        case .uint32s: "u32"
        case .int32s: "i32"
        case .float32s: "f32"
        case .bools: "bool"
        case .strings: "str"
        case .uint64s: "u64"
        case .int64s: "i64"
        case .float64s: "f64"
        }
    }
}

extension GGUFValue {
    /// `u32`, `str`, `array of f32`, …: for messages and `graft inspect`.
    public var typeName: String {
        switch self {
        case .uint8: "u8"
        case .int8: "i8"
        case .uint16: "u16"
        case .int16: "i16"
        case .uint32: "u32"
        case .int32: "i32"
        case .float32: "f32"
        case .bool: "bool"
        case .string: "str"
        case .array(let array): "array of \(array.elementTypeName)"
        case .uint64: "u64"
        case .int64: "i64"
        case .float64: "f64"
        }
    }

    /// The value of any integer type, when it fits `Int`; nil otherwise.
    var integer: Int? {
        switch self {
        case .uint8(let value): Int(value)
        case .int8(let value): Int(value)
        case .uint16(let value): Int(value)
        case .int16(let value): Int(value)
        case .uint32(let value): Int(value)
        case .int32(let value): Int(value)
        case .uint64(let value): Int(exactly: value)
        case .int64(let value): Int(value)
        case .float32, .float64, .bool, .string, .array: nil
        }
    }
}
