/// One token of a template's source and the line on which it starts.
struct TemplateToken: Sendable {
    enum Kind: Sendable, Equatable {
        /// Text outside of tags.
        case data(String)
        case variableBegin, variableEnd
        case blockBegin, blockEnd
        case name(String)
        case string(String)
        case integer(Int)
        case number(Double)
        /// An operator or bracket, as written.
        case symbol(String)
        case end
    }

    let kind: Kind
    let line: Int
}

/// Cuts a template into tokens, as Jinja does with `trim_blocks` and `lstrip_blocks` set and one trailing newline dropped.
struct TemplateLexer {
    private let source: [UInt8]
    private var offset = 0
    private var line = 1
    private var tokens: [TemplateToken] = []
    /// Whether the last token ended with a newline, so that the next tag stands at the start of its line.
    private var isAtLineStart = true

    static func tokens(of source: String) throws(TemplateError) -> [TemplateToken] {
        var lexer = TemplateLexer(source)
        try lexer.readAll()
        return lexer.tokens
    }

    private init(_ text: String) {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(text.utf8.count)
        var followsReturn = false
        for byte in text.utf8 {
            if byte == UInt8(ascii: "\r") {
                bytes.append(UInt8(ascii: "\n"))
            } else if byte != UInt8(ascii: "\n") || !followsReturn {
                bytes.append(byte)
            }
            followsReturn = byte == UInt8(ascii: "\r")
        }
        if bytes.last == UInt8(ascii: "\n") { bytes.removeLast() }
        source = bytes
    }

    // MARK: Text between tags

    private enum Tag { case raw, block, variable, comment }

    private mutating func readAll() throws(TemplateError) {
        while offset < source.count {
            var start = offset
            while start < source.count, tagKind(at: start) == nil { start += 1 }
            guard let kind = tagKind(at: start) else {
                emitData(offset..<source.count)
                advance(to: source.count)
                break
            }
            let sign = self.sign(at: start + 2)
            emitStrippedData(offset..<start, sign: sign, isVariable: kind == .variable)
            advance(to: start)
            isAtLineStart = false
            switch kind {
            case .variable:
                emit(.variableBegin)
                advance(to: start + (sign == nil ? 2 : 3))
                try readTag(isVariable: true)
            case .block:
                emit(.blockBegin)
                advance(to: start + (sign == nil ? 2 : 3))
                try readTag(isVariable: false)
            case .comment:
                advance(to: start + (sign == nil ? 2 : 3))
                try skipComment()
            case .raw:
                try readRaw()
            }
        }
        emit(.end)
    }

    private func tagKind(at position: Int) -> Tag? {
        guard position + 1 < source.count, source[position] == UInt8(ascii: "{") else { return nil }
        switch source[position + 1] {
        case UInt8(ascii: "{"): return .variable
        case UInt8(ascii: "#"): return .comment
        case UInt8(ascii: "%"): return rawBodyStart(at: position) == nil ? .block : .raw
        default: return nil
        }
    }

    private func sign(at position: Int) -> UInt8? {
        guard position < source.count, source[position] == UInt8(ascii: "-") || source[position] == UInt8(ascii: "+") else { return nil }
        return source[position]
    }

    private func has(_ text: StaticString, at position: Int) -> Bool {
        guard position + text.utf8CodeUnitCount <= source.count else { return false }
        for index in 0..<text.utf8CodeUnitCount where source[position + index] != text.utf8Start[index] { return false }
        return true
    }

    private func skippingSpace(from position: Int) -> Int {
        var position = position
        while position < source.count {
            let (isSpace, length) = spaceAt(position)
            guard isSpace else { break }
            position += length
        }
        return position
    }

    private func spaceAt(_ position: Int) -> (isSpace: Bool, length: Int) {
        if source[position] < 0x80 { return (Unicode.Scalar(source[position]).isPythonSpace, 1) }
        let (scalar, length) = TemplateText(bytes: Array(source[position..<min(position + 4, source.count)]), isTrusted: true).scalar(at: 0)
        return (scalar.isPythonSpace, length)
    }

    /// Emits the text before a tag, stripped as the tag's sign or `lstrip_blocks` asks.
    private mutating func emitStrippedData(_ range: Range<Int>, sign: UInt8?, isVariable: Bool) {
        var end = range.upperBound
        if sign == UInt8(ascii: "-") {
            end = range.lowerBound + TemplateText(bytes: Array(source[range]), isTrusted: true).stripped(.right).byteCount
        } else if sign == nil, !isVariable {
            var lineStart = range.upperBound
            while lineStart > range.lowerBound, source[lineStart - 1] != UInt8(ascii: "\n") { lineStart -= 1 }
            if lineStart > range.lowerBound || isAtLineStart, skippingSpace(from: lineStart) >= range.upperBound { end = lineStart }
        }
        emitData(range.lowerBound..<end)
    }

    private mutating func emitData(_ range: Range<Int>) {
        guard !range.isEmpty else { return }
        emit(.data(String(decoding: source[range], as: UTF8.self)))
    }

    private mutating func emit(_ kind: TemplateToken.Kind) {
        tokens.append(TemplateToken(kind: kind, line: line))
    }

    private mutating func advance(to position: Int) {
        for byte in source[offset..<position] where byte == UInt8(ascii: "\n") { line += 1 }
        if position > offset { isAtLineStart = source[position - 1] == UInt8(ascii: "\n") }
        offset = position
    }

    private func failure(_ message: String) -> TemplateError {
        TemplateError(code: .syntax, message: message, line: line)
    }

    /// The end of a tag's closing sign at `position`, with the whitespace that goes with it; nil if none is there.
    private func tagEnd(_ closing: StaticString, at position: Int, trimsNewline: Bool) -> Int? {
        if trimsNewline, position < source.count, source[position] == UInt8(ascii: "+"), has(closing, at: position + 1) {
            return position + 3
        }
        if position < source.count, source[position] == UInt8(ascii: "-"), has(closing, at: position + 1) {
            return skippingSpace(from: position + 3)
        }
        guard has(closing, at: position) else { return nil }
        return position + (trimsNewline && position + 2 < source.count && source[position + 2] == UInt8(ascii: "\n") ? 3 : 2)
    }

    private mutating func skipComment() throws(TemplateError) {
        var position = offset
        while position < source.count {
            if let end = tagEnd("#}", at: position, trimsNewline: true) {
                advance(to: end)
                return
            }
            position += 1
        }
        throw failure("a comment is not closed; expected '#}'")
    }

    /// Where the text of `{% raw %}` begins, if such a tag stands at `position`.
    private func rawBodyStart(at position: Int) -> Int? {
        var next = position + 2
        if sign(at: next) != nil { next += 1 }
        next = skippingSpace(from: next)
        guard has("raw", at: next) else { return nil }
        next = skippingSpace(from: next + 3)
        if has("-%}", at: next) { return skippingSpace(from: next + 3) }
        return has("%}", at: next) ? next + 2 : nil
    }

    private mutating func readRaw() throws(TemplateError) {
        let start = rawBodyStart(at: offset) ?? offset
        advance(to: start)
        var position = start
        while position < source.count {
            if has("{%", at: position) {
                let sign = self.sign(at: position + 2)
                var next = skippingSpace(from: position + (sign == nil ? 2 : 3))
                if has("endraw", at: next) {
                    next = skippingSpace(from: next + 6)
                    if let end = tagEnd("%}", at: next, trimsNewline: true) {
                        emitStrippedData(start..<position, sign: sign, isVariable: false)
                        advance(to: end)
                        return
                    }
                }
            }
            position += 1
        }
        throw failure("a raw block is not closed; expected '{% endraw %}'")
    }

    // MARK: Inside of tags

    /// The two-byte operators come first, so that `//` is not read as two divisions.
    private static let symbols: [StaticString] = [
        "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}", ">", "<", "=", ".", ":", "|", ",",
        ";",
    ]

    private mutating func readTag(isVariable: Bool) throws(TemplateError) {
        var openBrackets: [String] = []
        while offset < source.count {
            if openBrackets.isEmpty, let end = tagEnd(isVariable ? "}}" : "%}", at: offset, trimsNewline: !isVariable) {
                emit(isVariable ? .variableEnd : .blockEnd)
                advance(to: end)
                return
            }
            let (isSpace, length) = spaceAt(offset)
            if isSpace {
                advance(to: offset + length)
                continue
            }
            let byte = source[offset]
            if isDigit(byte) {
                try readNumber()
            } else if isNameByte(byte) {
                let start = offset
                var end = offset
                while end < source.count, isNameByte(source[end]) || isDigit(source[end]) { end += 1 }
                emit(.name(String(decoding: source[start..<end], as: UTF8.self)))
                advance(to: end)
            } else if byte == UInt8(ascii: "'") || byte == UInt8(ascii: "\"") {
                try readString(quote: byte)
            } else {
                guard let symbol = Self.symbols.first(where: { has($0, at: offset) }) else {
                    throw failure("unexpected character '\(Character(Unicode.Scalar(byte)))'")
                }
                let text = symbol.description
                switch text {
                case "(": openBrackets.append(")")
                case "[": openBrackets.append("]")
                case "{": openBrackets.append("}")
                case ")", "]", "}":
                    guard let expected = openBrackets.popLast() else { throw failure("unexpected '\(text)'") }
                    guard expected == text else { throw failure("unexpected '\(text)', expected '\(expected)'") }
                default: break
                }
                emit(.symbol(text))
                advance(to: offset + symbol.utf8CodeUnitCount)
            }
        }
        throw failure("the template ends inside a tag; expected '\(isVariable ? "}}" : "%}")'")
    }

    private func isDigit(_ byte: UInt8) -> Bool { byte >= UInt8(ascii: "0") && byte <= UInt8(ascii: "9") }

    private func isNameByte(_ byte: UInt8) -> Bool {
        let letter = byte | 0x20
        return (letter >= UInt8(ascii: "a") && letter <= UInt8(ascii: "z")) || byte == UInt8(ascii: "_") || byte >= 0x80
    }

    private mutating func readNumber() throws(TemplateError) {
        let start = offset
        func isDigit(_ byte: UInt8, radix: Int) -> Bool {
            guard let value = Unicode.Scalar(byte).properties.numericType == nil ? hexadecimalValue(byte) : Int(byte) - 48 else { return false }
            return value < radix
        }
        if source[start] == UInt8(ascii: "0"), start + 2 < source.count, let radix = [UInt8(ascii: "x"): 16, UInt8(ascii: "o"): 8, UInt8(ascii: "b"): 2][source[start + 1] | 0x20] {
            var end = start + 2
            while end < source.count, isDigit(source[end], radix: radix) || source[end] == UInt8(ascii: "_") { end += 1 }
            let digits = String(decoding: source[(start + 2)..<end].filter { $0 != UInt8(ascii: "_") }, as: UTF8.self)
            guard let value = Int(digits, radix: radix) else { throw failure("a number is not written correctly, or exceeds 64 bits") }
            emit(.integer(value))
            advance(to: end)
            return
        }
        func digitsEnd(from position: Int) -> Int {
            var end = position
            while end < source.count,
                self.isDigit(source[end]) || (source[end] == UInt8(ascii: "_") && end > position && end + 1 < source.count && self.isDigit(source[end + 1]))
            { end += 1 }
            return end
        }
        var end = digitsEnd(from: start)
        var isNumber = false
        // After a dot, as in `list.0.1`, digits are an index.
        let followsDot = start > 0 && source[start - 1] == UInt8(ascii: ".")
        if !followsDot {
            if end + 1 < source.count, source[end] == UInt8(ascii: "."), self.isDigit(source[end + 1]) {
                isNumber = true
                end = digitsEnd(from: end + 1)
            }
            if end + 1 < source.count, source[end] | 0x20 == UInt8(ascii: "e") {
                let signed = source[end + 1] == UInt8(ascii: "+") || source[end + 1] == UInt8(ascii: "-")
                let exponent = end + (signed ? 2 : 1)
                if exponent < source.count, self.isDigit(source[exponent]) {
                    isNumber = true
                    end = digitsEnd(from: exponent)
                }
            }
        }
        let text = String(decoding: source[start..<end].filter { $0 != UInt8(ascii: "_") }, as: UTF8.self)
        if isNumber {
            guard let value = Double(text) else { throw failure("a number is not written correctly") }
            emit(.number(value))
        } else {
            guard let value = Int(text) else { throw failure("an integer exceeds 64 bits") }
            if text.utf8.count > 1, text.utf8.first == UInt8(ascii: "0"), value != 0 {
                throw failure("an integer must not start with zero")
            }
            emit(.integer(value))
        }
        advance(to: end)
    }

    private func hexadecimalValue(_ byte: UInt8) -> Int? {
        switch byte | 0x20 {
        case UInt8(ascii: "a")...UInt8(ascii: "f"): Int(byte | 0x20) - 87
        default: isDigit(byte) ? Int(byte) - 48 : nil
        }
    }

    private mutating func readString(quote: UInt8) throws(TemplateError) {
        var position = offset + 1
        var text: [UInt8] = []
        while position < source.count, source[position] != quote {
            guard source[position] == UInt8(ascii: "\\") else {
                text.append(source[position])
                position += 1
                continue
            }
            guard position + 1 < source.count else { break }
            position = try appendEscape(at: position, to: &text)
        }
        guard position < source.count else { throw failure("a string is not closed; expected \(quote == UInt8(ascii: "'") ? "'" : "\"")") }
        emit(.string(String(decoding: text, as: UTF8.self)))
        advance(to: position + 1)
    }

    /// Resolves a backslash escape as Python does in a string literal; returns the position after it.
    private func appendEscape(at start: Int, to text: inout [UInt8]) throws(TemplateError) -> Int {
        func number(from position: Int, digits: Int) throws(TemplateError) -> UInt32 {
            var value: UInt32 = 0
            for index in position..<(position + digits) {
                guard index < source.count, let digit = hexadecimalValue(source[index]) else {
                    throw failure("a string holds an escape with too few hexadecimal digits")
                }
                value = value << 4 | UInt32(digit)
            }
            return value
        }
        func append(_ value: UInt32) throws(TemplateError) {
            guard let scalar = Unicode.Scalar(value) else { throw failure("a string holds an escape that is not a character") }
            text.append(contentsOf: UTF8.encode(scalar)!)
        }
        let byte = source[start + 1]
        switch byte {
        case UInt8(ascii: "\n"): return start + 2
        case UInt8(ascii: "\\"), UInt8(ascii: "'"), UInt8(ascii: "\""): text.append(byte)
        case UInt8(ascii: "a"): text.append(0x07)
        case UInt8(ascii: "b"): text.append(0x08)
        case UInt8(ascii: "f"): text.append(0x0C)
        case UInt8(ascii: "n"): text.append(0x0A)
        case UInt8(ascii: "r"): text.append(0x0D)
        case UInt8(ascii: "t"): text.append(0x09)
        case UInt8(ascii: "v"): text.append(0x0B)
        case UInt8(ascii: "0")...UInt8(ascii: "7"):
            var value: UInt32 = 0
            var end = start + 1
            while end < min(start + 4, source.count), source[end] >= UInt8(ascii: "0"), source[end] <= UInt8(ascii: "7") {
                value = value << 3 | UInt32(source[end] - UInt8(ascii: "0"))
                end += 1
            }
            try append(value)
            return end
        case UInt8(ascii: "x"):
            try append(try number(from: start + 2, digits: 2))
            return start + 4
        case UInt8(ascii: "u"):
            let lead = try number(from: start + 2, digits: 4)
            if (0xD800..<0xDC00).contains(lead), has("\\u", at: start + 6) {
                let trail = try number(from: start + 8, digits: 4)
                if (0xDC00..<0xE000).contains(trail) {
                    try append(0x10000 + ((lead & 0x3FF) << 10 | (trail & 0x3FF)))
                    return start + 12
                }
            }
            try append(lead)
            return start + 6
        case UInt8(ascii: "U"):
            try append(try number(from: start + 2, digits: 8))
            return start + 10
        default:
            // Python keeps an unknown escape as it stands.
            text.append(UInt8(ascii: "\\"))
            text.append(byte)
        }
        return start + 2
    }
}
