extension JSONValue {
    /// The value as compact JSON in UTF-8; `appendSerialized(to:sortedKeys:)` says how it is written.
    public func serialized(sortedKeys: Bool = false) -> [UInt8] {
        var out: [UInt8] = []
        appendSerialized(to: &out, sortedKeys: sortedKeys)
        return out
    }

    /// Appends the value as compact JSON in UTF-8, without line breaks.
    ///
    /// A `.number` gets the shortest text that reads back as the same 64-bit float, always with a fraction or an
    /// exponent, so that kinds survive a round trip; infinities and NaN, which JSON cannot write, become `null`.
    ///
    /// - Parameters:
    ///   - out: where to append.
    ///   - sortedKeys: whether members are written by ascending key (UTF-8 bytes) instead of in their own order.
    public func appendSerialized(to out: inout [UInt8], sortedKeys: Bool = false) {
        switch self {
        case .null: appendJSONBytes("null", to: &out)
        case .bool(true): appendJSONBytes("true", to: &out)
        case .bool(false): appendJSONBytes("false", to: &out)
        case .integer(let value): appendJSONInteger(value, to: &out)
        case .number(let value): appendJSONNumber(value, to: &out)
        case .string(let value): appendJSONString(value, to: &out)
        case .array(let elements):
            out.append(UInt8(ascii: "["))
            var isFirst = true
            for element in elements {
                if !isFirst { out.append(UInt8(ascii: ",")) }
                isFirst = false
                element.appendSerialized(to: &out, sortedKeys: sortedKeys)
            }
            out.append(UInt8(ascii: "]"))
        case .object(let object):
            object.appendSerialized(to: &out, sortedKeys: sortedKeys)
        }
    }
}

extension JSONObject {
    /// Appends the object as compact JSON in UTF-8; see `JSONValue.appendSerialized(to:sortedKeys:)`.
    public func appendSerialized(to out: inout [UInt8], sortedKeys: Bool = false) {
        out.append(UInt8(ascii: "{"))
        var isFirst = true
        func append(_ key: String, _ value: JSONValue) {
            if !isFirst { out.append(UInt8(ascii: ",")) }
            isFirst = false
            appendJSONString(key, to: &out)
            out.append(UInt8(ascii: ":"))
            value.appendSerialized(to: &out, sortedKeys: sortedKeys)
        }
        if sortedKeys {
            for (key, value) in sorted(by: { $0.key.utf8.lexicographicallyPrecedes($1.key.utf8) }) { append(key, value) }
        } else {
            for (key, value) in self { append(key, value) }
        }
        out.append(UInt8(ascii: "}"))
    }
}

/// Appends a string as a JSON string: quoted, in UTF-8, with everything escaped that must be.
///
/// U+0085, U+2028 and U+2029 are escaped as well: many clients split a stream of events with a function that takes these
/// for line ends.
public func appendJSONString(_ s: String, to out: inout [UInt8]) {
    out.append(UInt8(ascii: "\""))
    let isDone: Void? = s.utf8.withContiguousStorageIfAvailable { appendEscaped($0, to: &out) }
    if isDone == nil {
        Array(s.utf8).withUnsafeBufferPointer { appendEscaped($0, to: &out) }
    }
    out.append(UInt8(ascii: "\""))
}

/// Appends an integer in decimal.
public func appendJSONInteger(_ value: Int64, to out: inout [UInt8]) {
    if value < 0 { out.append(UInt8(ascii: "-")) }
    var rest = value.magnitude
    if rest < 10 {
        out.append(UInt8(ascii: "0") + UInt8(truncatingIfNeeded: rest))
        return
    }
    let start = out.count
    while rest > 0 {
        let (quotient, digit) = rest.quotientAndRemainder(dividingBy: 10)
        out.append(UInt8(ascii: "0") + UInt8(truncatingIfNeeded: digit))
        rest = quotient
    }
    out[start...].reverse()
}

/// Appends a 64-bit float as a JSON number; infinities and NaN become `null`.
public func appendJSONNumber(_ value: Double, to out: inout [UInt8]) {
    guard value.isFinite else { return appendJSONBytes("null", to: &out) }
    var text = value.description
    text.withUTF8 { out.append(contentsOf: $0) }
}

private func appendJSONBytes(_ text: StaticString, to out: inout [UInt8]) {
    out.append(contentsOf: UnsafeBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
}

private func appendEscaped(_ bytes: UnsafeBufferPointer<UInt8>, to out: inout [UInt8]) {
    var runStart = 0
    var index = 0
    func flush() {
        if runStart < index { out.append(contentsOf: UnsafeBufferPointer(rebasing: bytes[runStart..<index])) }
    }
    while index < bytes.count {
        let byte = bytes[index]
        if byte >= 0x20, byte != UInt8(ascii: "\""), byte != UInt8(ascii: "\\"), byte != 0xC2, byte != 0xE2 {
            index += 1
            continue
        }
        if byte == 0xC2 {
            if index + 1 < bytes.count, bytes[index + 1] == 0x85 {
                flush()
                appendJSONBytes("\\u0085", to: &out)
                index += 2
                runStart = index
            } else {
                index += 1
            }
            continue
        }
        if byte == 0xE2 {
            if index + 2 < bytes.count, bytes[index + 1] == 0x80, bytes[index + 2] == 0xA8 || bytes[index + 2] == 0xA9 {
                flush()
                appendJSONBytes(bytes[index + 2] == 0xA8 ? "\\u2028" : "\\u2029", to: &out)
                index += 3
                runStart = index
            } else {
                index += 1
            }
            continue
        }
        flush()
        index += 1
        runStart = index
        out.append(UInt8(ascii: "\\"))
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"): out.append(byte)
        case 0x08: out.append(UInt8(ascii: "b"))
        case 0x09: out.append(UInt8(ascii: "t"))
        case 0x0A: out.append(UInt8(ascii: "n"))
        case 0x0C: out.append(UInt8(ascii: "f"))
        case 0x0D: out.append(UInt8(ascii: "r"))
        default:
            appendJSONBytes("u00", to: &out)
            out.append(hexadecimalDigit(byte >> 4))
            out.append(hexadecimalDigit(byte & 15))
        }
    }
    flush()
}

private func hexadecimalDigit(_ value: UInt8) -> UInt8 {
    value < 10 ? UInt8(ascii: "0") + value : UInt8(ascii: "a") + value - 10
}
