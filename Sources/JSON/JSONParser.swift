extension JSONValue {
    /// Parses one JSON text (RFC 8259, strictly).
    ///
    /// Refused: comments, trailing commas, `NaN`, a byte order mark, bytes that are not UTF-8, surrogate escapes without
    /// their partner, numbers that overflow a 64-bit float, anything after the value. An integer beyond `Int64` becomes
    /// `.number`. Time and memory are linear in the text; an array or object takes one level of `maximumDepth`.
    ///
    /// - Parameters:
    ///   - bytes: the whole text in UTF-8.
    ///   - maximumDepth: how deep arrays and objects may nest; the parser recurses that deep.
    ///   - refusingDuplicateKeys: whether an object with the same key twice is an error (`duplicateKey`, at the second key's opening quote).
    /// - Throws: `JSONError` with the offset of the first offending byte.
    public init(parsing bytes: some Collection<UInt8>, maximumDepth: Int = 64, refusingDuplicateKeys: Bool = false) throws(JSONError) {
        func parse(_ bytes: UnsafeBufferPointer<UInt8>) -> Result<JSONValue, JSONError> {
            JSONParser.parse(bytes, maximumDepth: maximumDepth, refusesDuplicateKeys: refusingDuplicateKeys)
        }
        let result = bytes.withContiguousStorageIfAvailable { parse($0) }
        self = try (result ?? Array(bytes).withUnsafeBufferPointer { parse($0) }).get()
    }
}

/// A recursive-descent parser over the bytes of one text.
private struct JSONParser {
    private let bytes: UnsafeBufferPointer<UInt8>
    private var offset = 0
    private var remainingDepth: Int
    private let maximumDepth: Int
    private let refusesDuplicateKeys: Bool
    /// Holds a string's bytes while its escapes are resolved; kept between strings to allocate once.
    private var scratch: [UInt8] = []

    static func parse(_ bytes: UnsafeBufferPointer<UInt8>, maximumDepth: Int, refusesDuplicateKeys: Bool) -> Result<JSONValue, JSONError> {
        var parser = JSONParser(bytes: bytes, maximumDepth: maximumDepth, refusesDuplicateKeys: refusesDuplicateKeys)
        do throws(JSONError) {
            return .success(try parser.parseText())
        } catch {
            return .failure(error)
        }
    }

    private init(bytes: UnsafeBufferPointer<UInt8>, maximumDepth: Int, refusesDuplicateKeys: Bool) {
        self.bytes = bytes
        self.maximumDepth = maximumDepth
        self.refusesDuplicateKeys = refusesDuplicateKeys
        remainingDepth = maximumDepth
    }

    private mutating func parseText() throws(JSONError) -> JSONValue {
        if bytes.count >= 3, bytes[0] == 0xEF, bytes[1] == 0xBB, bytes[2] == 0xBF {
            throw JSONError(code: .invalidEncoding, offset: 0, message: "the text starts with a byte order mark; send UTF-8 without one")
        }
        skipWhitespace()
        let value = try parseValue()
        skipWhitespace()
        guard offset == bytes.count else {
            throw JSONError(
                code: .trailingContent, offset: offset, message: "expected the end of the text after the value, found \(foundHere)")
        }
        return value
    }

    // MARK: Values

    private mutating func parseValue() throws(JSONError) -> JSONValue {
        guard offset < bytes.count else { throw unexpected("a value") }
        switch bytes[offset] {
        case UInt8(ascii: "\""): return .string(try parseString())
        case UInt8(ascii: "{"): return .object(try parseObject())
        case UInt8(ascii: "["): return .array(try parseArray())
        case UInt8(ascii: "-"), UInt8(ascii: "0")...UInt8(ascii: "9"): return try parseNumber()
        case UInt8(ascii: "t"):
            try expectWord("true")
            return .bool(true)
        case UInt8(ascii: "f"):
            try expectWord("false")
            return .bool(false)
        case UInt8(ascii: "n"):
            try expectWord("null")
            return .null
        default: throw unexpected("a value")
        }
    }

    private mutating func parseArray() throws(JSONError) -> [JSONValue] {
        try enter()
        offset += 1
        skipWhitespace()
        var elements: [JSONValue] = []
        if consume(UInt8(ascii: "]")) {
            remainingDepth += 1
            return elements
        }
        while true {
            elements.append(try parseValue())
            skipWhitespace()
            if consume(UInt8(ascii: ",")) {
                skipWhitespace()
            } else if consume(UInt8(ascii: "]")) {
                remainingDepth += 1
                return elements
            } else {
                throw unexpected("',' or ']' after an array's element")
            }
        }
    }

    private mutating func parseObject() throws(JSONError) -> JSONObject {
        try enter()
        offset += 1
        skipWhitespace()
        var object = JSONObject()
        if consume(UInt8(ascii: "}")) {
            remainingDepth += 1
            return object
        }
        while true {
            guard offset < bytes.count, bytes[offset] == UInt8(ascii: "\"") else { throw unexpected("a key in double quotes") }
            let start = offset
            let key = try parseString()
            skipWhitespace()
            guard consume(UInt8(ascii: ":")) else { throw unexpected("':' after an object's key") }
            skipWhitespace()
            let count = object.count
            object.set(key, to: try parseValue())
            guard object.count > count || !refusesDuplicateKeys else {
                throw JSONError(code: .duplicateKey, offset: start, message: "an object has the same key twice")
            }
            skipWhitespace()
            if consume(UInt8(ascii: ",")) {
                skipWhitespace()
            } else if consume(UInt8(ascii: "}")) {
                remainingDepth += 1
                return object
            } else {
                throw unexpected("',' or '}' after an object's member")
            }
        }
    }

    private mutating func enter() throws(JSONError) {
        guard remainingDepth > 0 else {
            throw JSONError(code: .tooDeep, offset: offset, message: "arrays and objects nest deeper than the limit of \(maximumDepth)")
        }
        remainingDepth -= 1
    }

    private mutating func expectWord(_ word: StaticString) throws(JSONError) {
        let length = word.utf8CodeUnitCount
        for index in 0..<length where offset + index >= bytes.count || bytes[offset + index] != word.utf8Start[index] {
            offset += index
            throw unexpected("the word '\(word)'")
        }
        offset += length
    }

    // MARK: Strings

    private mutating func parseString() throws(JSONError) -> String {
        let quote = offset
        offset += 1
        let start = offset
        skipPlainBytes()
        guard offset < bytes.count else { throw unterminatedString(from: quote) }
        if bytes[offset] == UInt8(ascii: "\"") {
            let text = try decode(UnsafeBufferPointer(rebasing: bytes[start..<offset]), at: start)
            offset += 1
            return text
        }
        scratch.removeAll(keepingCapacity: true)
        var runStart = start
        while true {
            guard offset < bytes.count else { throw unterminatedString(from: quote) }
            switch bytes[offset] {
            case UInt8(ascii: "\""):
                try appendRun(from: runStart)
                offset += 1
                return String(decoding: scratch, as: UTF8.self)
            case UInt8(ascii: "\\"):
                try appendRun(from: runStart)
                try parseEscape()
                runStart = offset
            default:
                throw JSONError(
                    code: .unexpectedByte, offset: offset,
                    message: "a string holds an unescaped control character (0x\(hexadecimal(bytes[offset]))); write it as an escape")
            }
            skipPlainBytes()
        }
    }

    /// Moves to the next byte that ends a run: a quote, a backslash or a control character.
    private mutating func skipPlainBytes() {
        // Eight bytes at a time; the classic tests for "some byte is zero / is below 0x20".
        let ones: UInt64 = 0x0101_0101_0101_0101
        let tops: UInt64 = 0x8080_8080_8080_8080
        let raw = UnsafeRawPointer(bytes.baseAddress!)
        while offset + 8 <= bytes.count {
            let word = raw.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
            let quotes = word ^ (ones &* UInt64(UInt8(ascii: "\"")))
            let slashes = word ^ (ones &* UInt64(UInt8(ascii: "\\")))
            let stops =
                (((quotes &- ones) & ~quotes) | ((slashes &- ones) & ~slashes) | ((word &- ones &* 0x20) & ~word)) & tops
            if stops != 0 {
                // Borrows run upwards only, so the lowest marked byte is a true stop.
                offset += UInt64(littleEndian: stops).trailingZeroBitCount / 8
                return
            }
            offset += 8
        }
        while offset < bytes.count {
            let byte = bytes[offset]
            if byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "\\") || byte < 0x20 { return }
            offset += 1
        }
    }

    private mutating func appendRun(from start: Int) throws(JSONError) {
        guard start < offset else { return }
        let run = UnsafeBufferPointer(rebasing: bytes[start..<offset])
        // Runs end at ASCII bytes, so a run is well formed exactly when the string's part of it is.
        if let bad = firstMalformedByte(run) { throw malformed(at: start + bad) }
        scratch.append(contentsOf: run)
    }

    private func decode(_ run: UnsafeBufferPointer<UInt8>, at start: Int) throws(JSONError) -> String {
        guard let text = String(validating: run, as: UTF8.self) else {
            throw malformed(at: start + (firstMalformedByte(run) ?? 0))
        }
        return text
    }

    private mutating func parseEscape() throws(JSONError) {
        let start = offset
        guard start + 1 < bytes.count else { throw unterminatedString(from: start) }
        offset += 2
        switch bytes[start + 1] {
        case UInt8(ascii: "\""): scratch.append(UInt8(ascii: "\""))
        case UInt8(ascii: "\\"): scratch.append(UInt8(ascii: "\\"))
        case UInt8(ascii: "/"): scratch.append(UInt8(ascii: "/"))
        case UInt8(ascii: "b"): scratch.append(0x08)
        case UInt8(ascii: "f"): scratch.append(0x0C)
        case UInt8(ascii: "n"): scratch.append(0x0A)
        case UInt8(ascii: "r"): scratch.append(0x0D)
        case UInt8(ascii: "t"): scratch.append(0x09)
        case UInt8(ascii: "u"):
            let unit = try parseHexadecimal(escape: start)
            var value = UInt32(unit)
            if UTF16.isTrailSurrogate(unit) { throw loneSurrogate(at: start) }
            if UTF16.isLeadSurrogate(unit) {
                guard offset + 1 < bytes.count, bytes[offset] == UInt8(ascii: "\\"), bytes[offset + 1] == UInt8(ascii: "u") else {
                    throw loneSurrogate(at: start)
                }
                offset += 2
                let trail = try parseHexadecimal(escape: offset - 2)
                guard UTF16.isTrailSurrogate(trail) else { throw loneSurrogate(at: start) }
                value = 0x10000 + (UInt32(unit & 0x3FF) << 10 | UInt32(trail & 0x3FF))
            }
            if let scalar = Unicode.Scalar(value) {
                scratch.append(contentsOf: UTF8.encode(scalar)!)
            }
        default:
            throw JSONError(
                code: .invalidEscape, offset: start,
                message: "unknown escape in a string; a backslash takes one of \" \\ / b f n r t u after it")
        }
    }

    private mutating func parseHexadecimal(escape start: Int) throws(JSONError) -> UInt16 {
        var unit: UInt16 = 0
        for _ in 0..<4 {
            guard offset < bytes.count else { throw unterminatedString(from: start) }
            let digit: UInt8
            switch bytes[offset] {
            case let byte where byte >= UInt8(ascii: "0") && byte <= UInt8(ascii: "9"): digit = byte - UInt8(ascii: "0")
            case let byte where byte >= UInt8(ascii: "a") && byte <= UInt8(ascii: "f"): digit = byte - UInt8(ascii: "a") + 10
            case let byte where byte >= UInt8(ascii: "A") && byte <= UInt8(ascii: "F"): digit = byte - UInt8(ascii: "A") + 10
            default:
                throw JSONError(code: .invalidEscape, offset: start, message: "\\u needs four hexadecimal digits, found \(foundHere)")
            }
            unit = unit << 4 | UInt16(digit)
            offset += 1
        }
        return unit
    }

    /// The offset of the first byte that breaks UTF-8 (RFC 3629: no overlong forms, no surrogates, at most U+10FFFF).
    private func firstMalformedByte(_ run: UnsafeBufferPointer<UInt8>) -> Int? {
        var index = 0
        while index < run.count {
            let lead = run[index]
            if lead < 0x80 {
                index += 1
                continue
            }
            let length: Int
            var second: ClosedRange<UInt8> = 0x80...0xBF
            switch lead {
            case 0xC2...0xDF: length = 2
            case 0xE0: (length, second) = (3, 0xA0...0xBF)
            case 0xE1...0xEC, 0xEE, 0xEF: length = 3
            case 0xED: (length, second) = (3, 0x80...0x9F)
            case 0xF0: (length, second) = (4, 0x90...0xBF)
            case 0xF1...0xF3: length = 4
            case 0xF4: (length, second) = (4, 0x80...0x8F)
            default: return index
            }
            guard index + length <= run.count, second.contains(run[index + 1]) else { return index }
            for next in 2..<max(length, 2) where run[index + next] & 0xC0 != 0x80 { return index }
            index += length
        }
        return nil
    }

    // MARK: Numbers

    private mutating func parseNumber() throws(JSONError) -> JSONValue {
        let start = offset
        let isNegative = consume(UInt8(ascii: "-"))
        // The significant digits, as far as they fit; `digitCount` counts them without leading zeros.
        var significand: UInt64 = 0
        var digitCount = 0
        let integerStart = offset
        skipDigits(into: &significand, count: &digitCount)
        let integerDigits = offset - integerStart
        if integerDigits == 0 {
            throw numberError("expected a digit after '-', found \(foundHere)")
        }
        if integerDigits > 1, bytes[integerStart] == UInt8(ascii: "0") {
            throw JSONError(code: .invalidNumber, offset: integerStart, message: "a number must not start with a zero followed by digits")
        }
        var scale = 0
        var isInteger = true
        if consume(UInt8(ascii: ".")) {
            isInteger = false
            let fractionStart = offset
            skipDigits(into: &significand, count: &digitCount)
            if offset == fractionStart {
                throw numberError("expected a digit after the decimal point, found \(foundHere)")
            }
            scale = fractionStart - offset
        }
        if offset < bytes.count, bytes[offset] | 0x20 == UInt8(ascii: "e") {
            isInteger = false
            offset += 1
            let isNegativeExponent = offset < bytes.count && bytes[offset] == UInt8(ascii: "-")
            if isNegativeExponent || (offset < bytes.count && bytes[offset] == UInt8(ascii: "+")) { offset += 1 }
            let exponentStart = offset
            var exponent = 0
            while offset < bytes.count, bytes[offset] >= UInt8(ascii: "0"), bytes[offset] <= UInt8(ascii: "9") {
                exponent = min(exponent * 10 + Int(bytes[offset] - UInt8(ascii: "0")), 1_000_000)
                offset += 1
            }
            if offset == exponentStart {
                throw numberError("expected a digit in the exponent, found \(foundHere)")
            }
            scale += isNegativeExponent ? -exponent : exponent
        }

        if isInteger, digitCount <= 18, !(isNegative && significand == 0) {
            return .integer(isNegative ? -Int64(significand) : Int64(significand))
        }
        // Both factors are exact in binary, so one operation rounds correctly (Clinger's fast path).
        if digitCount <= 15, scale >= -22, scale <= 22 {
            let magnitude = scale < 0 ? Double(significand) / Self.powersOfTen[-scale] : Double(significand) * Self.powersOfTen[scale]
            return .number(isNegative ? -magnitude : magnitude)
        }
        let text = String(decoding: UnsafeBufferPointer(rebasing: bytes[start..<offset]), as: UTF8.self)
        if isInteger, let value = Int64(text), value != 0 {
            return .integer(value)
        }
        guard let value = Double(text), value.isFinite else {
            throw JSONError(code: .numberOutOfRange, offset: start, message: "a number is beyond the range of a 64-bit float")
        }
        return .number(value)
    }

    private mutating func skipDigits(into significand: inout UInt64, count: inout Int) {
        while offset < bytes.count {
            let digit = bytes[offset] &- UInt8(ascii: "0")
            guard digit <= 9 else { return }
            if count < 19 { significand = significand &* 10 &+ UInt64(digit) }
            if significand != 0 { count += 1 }
            offset += 1
        }
    }

    private static let powersOfTen: [Double] = [
        1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
    ]

    // MARK: Bytes and errors

    private mutating func skipWhitespace() {
        while offset < bytes.count {
            switch bytes[offset] {
            case 0x20, 0x0A, 0x0D, 0x09: offset += 1
            default: return
            }
        }
    }

    private mutating func consume(_ byte: UInt8) -> Bool {
        guard offset < bytes.count, bytes[offset] == byte else { return false }
        offset += 1
        return true
    }

    private var foundHere: String {
        guard offset < bytes.count else { return "the end of the text" }
        let byte = bytes[offset]
        return byte > 0x20 && byte < 0x7F ? "'\(Character(Unicode.Scalar(byte)))'" : "byte 0x\(hexadecimal(byte))"
    }

    private func hexadecimal(_ byte: UInt8) -> String {
        (byte < 16 ? "0" : "") + String(byte, radix: 16, uppercase: true)
    }

    private func unexpected(_ expected: String) -> JSONError {
        JSONError(
            code: offset < bytes.count ? .unexpectedByte : .unexpectedEnd, offset: offset,
            message: "expected \(expected), found \(foundHere)")
    }

    private func unterminatedString(from start: Int) -> JSONError {
        JSONError(
            code: .unexpectedEnd, offset: bytes.count,
            message: "expected the closing quote of the string at byte \(start), found the end of the text")
    }

    private func malformed(at offset: Int) -> JSONError {
        JSONError(
            code: .invalidEncoding, offset: offset, message: "a string holds bytes that are not UTF-8 (0x\(hexadecimal(bytes[offset])))")
    }

    private func loneSurrogate(at offset: Int) -> JSONError {
        JSONError(
            code: .invalidEscape, offset: offset,
            message: "a \\u escape is half of a surrogate pair; write both halves, or the character itself in UTF-8")
    }

    private func numberError(_ message: String) -> JSONError {
        JSONError(code: offset < bytes.count ? .invalidNumber : .unexpectedEnd, offset: offset, message: message)
    }
}
