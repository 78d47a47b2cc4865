/// What stands between a value and its place in a formatted text.
private struct FieldFormat {
    enum Alignment { case left, right, center, afterSign }

    var fill: TemplateText = " "
    var alignment: Alignment?
    /// "+", " " or empty.
    var positiveSign = ""
    var isAlternate = false
    var grouping: Unicode.Scalar?
    var width = 0
    var precision: Int?
    var type: Unicode.Scalar?
}

extension TemplateInterpreter {
    /// The largest precision a format may ask for; Python has none, and no template needs it.
    private static let maximumPrecision = 1000

    // MARK: format % values

    /// Python's `format % operand`.
    func formatPercent(_ format: TemplateText, _ operand: TemplateObject) throws(TemplateError) -> TemplateText {
        var values: [TemplateObject]
        if case .tuple(let elements) = operand { values = elements } else { values = [operand] }
        var used = 0
        var isByName = false
        func nextValue() throws(TemplateError) -> TemplateObject {
            guard used < values.count else { throw failure(.invalidOperation, "a format needs more values than it was given") }
            used += 1
            return values[used - 1]
        }
        var result = TemplateText()
        var position = 0
        while let percent = format.offset(of: "%", from: position) {
            result.append(format, position..<percent)
            position = percent + 1
            func byte() -> UInt8? { position < format.byteCount ? format.bytes[position] : nil }
            var named: TemplateObject?
            if byte() == UInt8(ascii: "(") {
                guard let end = format.offset(of: ")", from: position), case .dictionary(let dictionary) = operand else {
                    throw failure(.invalidOperation, "a format with names needs a dictionary")
                }
                guard let value = dictionary.value(of: format[(position + 1)..<end]) else {
                    throw failure(.invalidOperation, "a format names a key that its dictionary lacks")
                }
                named = value
                isByName = true
                position = end + 1
            }
            var field = FieldFormat()
            flags: while let flag = byte() {
                switch flag {
                case UInt8(ascii: "-"): field.alignment = .left
                case UInt8(ascii: "+"): field.positiveSign = "+"
                case UInt8(ascii: " "): if field.positiveSign.isEmpty { field.positiveSign = " " }
                case UInt8(ascii: "0"): if field.alignment == nil { (field.fill, field.alignment) = ("0", .afterSign) }
                case UInt8(ascii: "#"): field.isAlternate = true
                default: break flags
                }
                position += 1
            }
            func number() throws(TemplateError) -> Int {
                if byte() == UInt8(ascii: "*") {
                    position += 1
                    return try integer(try nextValue(), "*") ?? 0
                }
                return try readNumber(format, &position) ?? 0
            }
            field.width = try number()
            if field.width < 0 { (field.alignment, field.width) = (.left, -max(field.width, -Int.max)) }
            if byte() == UInt8(ascii: ".") {
                position += 1
                field.precision = try number()
            }
            while let length = byte(), "hlL".utf8.contains(length) { position += 1 }
            guard let conversion = byte() else { throw failure(.invalidOperation, "a format ends after '%'") }
            let isTrusted = format.isTrusted(at: position)
            position += 1
            if conversion == UInt8(ascii: "%") {
                result.append("%", isTrusted: isTrusted)
                continue
            }
            let value = if let named { named } else { try nextValue() }
            field.type = Unicode.Scalar(conversion)
            let text = try convert(value, field)
            try append(text, field, isText: "src a".utf8.contains(conversion), defaultAlignment: .right, to: &result)
        }
        result.append(format, position..<format.byteCount)
        var isMapping = false
        if case .dictionary = operand { isMapping = true }
        if case .list = operand { isMapping = true }
        if case .undefined = operand { isMapping = true }
        if used < values.count, !isByName, !isMapping { throw failure(.invalidOperation, "a format was given more values than it uses") }
        return result
    }

    private func readNumber(_ text: TemplateText, _ position: inout Int) throws(TemplateError) -> Int? {
        let start = position
        var value = 0
        while position < text.byteCount, text.bytes[position] >= 0x30, text.bytes[position] <= 0x39 {
            value = value * 10 + Int(text.bytes[position] - 0x30)
            guard value < 1 << 40 else { throw failure(.invalidOperation, "a number in a format is too large") }
            position += 1
        }
        return position == start ? nil : value
    }

    /// The value as a printf conversion writes it, before padding.
    private func convert(_ value: TemplateObject, _ field: FieldFormat) throws(TemplateError) -> TemplateText {
        let type = field.type ?? "s"
        switch type {
        case "s", "r", "a":
            var text = type == "s" ? try self.text(of: value) : try representation(of: value)
            if let precision = field.precision { text = text.sliced(TemplateSlice(stop: max(precision, 0))) }
            return text
        case "c":
            if case .text(let text) = value, text.scalarCount == 1 { return text }
            // A character that a number names may come from a request.
            if case .integer(let code) = value, let scalar = UInt32(exactly: code).flatMap(Unicode.Scalar.init) {
                return TemplateText(String(scalar), isTrusted: false)
            }
            throw failure(.invalidOperation, "%c needs one character, found \(value.typeName)")
        case "d", "i", "u":
            switch value.arithmetic {
            case .integer(let number): return TemplateText(signed(digits(number.magnitude, 10, field.precision), number < 0, field))
            case .number(let number):
                guard let whole = Int(exactly: number.rounded(.towardZero)) else {
                    throw failure(.invalidOperation, "%d needs a number of at most 64 bits")
                }
                return TemplateText(signed(digits(whole.magnitude, 10, field.precision), whole < 0, field))
            case nil: throw failure(.invalidOperation, "%\(type) needs a number, found \(value.typeName)")
            }
        case "x", "X", "o":
            guard case .integer(let number)? = value.arithmetic else {
                throw failure(.invalidOperation, "%\(type) needs an integer, found \(value.typeName)")
            }
            var text = digits(number.magnitude, type == "o" ? 8 : 16, field.precision)
            if field.isAlternate { text = (type == "o" ? "0o" : "0x") + text }
            return TemplateText(signed(type == "X" ? text.uppercased() : text, number < 0, field))
        case "e", "E", "f", "F", "g", "G":
            guard let number = value.arithmetic?.double else {
                throw failure(.invalidOperation, "%\(type) needs a number, found \(value.typeName)")
            }
            return TemplateText(signed(try floatDigits(number, type, field), number.sign == .minus && !number.isNaN, field))
        default:
            throw failure(.invalidOperation, "a format has the unknown conversion '%\(Character(type))'")
        }
    }

    private func digits(_ magnitude: UInt, _ radix: Int, _ precision: Int?) -> String {
        let text = String(magnitude, radix: radix)
        return String(repeating: "0", count: min(max(0, (precision ?? 0) - text.count), Self.maximumPrecision)) + text
    }

    private func signed(_ digits: String, _ isNegative: Bool, _ field: FieldFormat) -> String {
        (isNegative ? "-" : field.positiveSign) + digits
    }

    /// The digits of a float without its sign.
    private func floatDigits(_ value: Double, _ type: Unicode.Scalar, _ field: FieldFormat) throws(TemplateError) -> String {
        let precision = field.precision ?? 6
        guard (0...Self.maximumPrecision).contains(precision) else {
            throw failure(.invalidOperation, "a format asks for a precision beyond \(Self.maximumPrecision)")
        }
        let lower = Character(type.properties.lowercaseMapping)
        let text = value.magnitude.formatted(lower, precision: precision, keepsPoint: field.isAlternate)
        return type.properties.isUppercase ? text.uppercased() : text
    }

    private func append(
        _ text: TemplateText, _ field: FieldFormat, isText: Bool, defaultAlignment: FieldFormat.Alignment, to result: inout TemplateText
    ) throws(TemplateError) {
        let missing = field.width - text.scalarCount
        try spend(bytes: result.byteCount + text.byteCount + max(missing, 0) * field.fill.byteCount)
        guard missing > 0 else {
            result.append(text)
            return
        }
        var alignment = field.alignment ?? defaultAlignment
        var fill = field.fill
        if isText, alignment == .afterSign { (alignment, fill) = (.right, " ") }
        switch alignment {
        case .left:
            result.append(text)
            result.append(fill.repeated(missing))
        case .right:
            result.append(fill.repeated(missing))
            result.append(text)
        case .center:
            result.append(fill.repeated(missing / 2))
            result.append(text)
            result.append(fill.repeated(missing - missing / 2))
        case .afterSign:
            var prefix = 0
            if let first = text.bytes.first, "+- ".utf8.contains(first) { prefix = 1 }
            if text.byteCount > prefix + 1, text.bytes[prefix] == 0x30, "xXobB".utf8.contains(text.bytes[prefix + 1]) { prefix += 2 }
            result.append(text[0..<prefix])
            result.append(fill.repeated(missing))
            result.append(text[prefix..<text.byteCount])
        }
    }

    // MARK: "{}".format(values)

    /// Python's `str.format`, with attributes and items looked up by the sandbox's rules.
    func formatBraces(_ format: TemplateText, _ arguments: TemplateArguments) throws(TemplateError) -> TemplateText {
        var automatic = 0
        return try formatBraces(format, arguments, &automatic, depth: 0)
    }

    private func formatBraces(
        _ format: TemplateText, _ arguments: TemplateArguments, _ automatic: inout Int, depth: Int
    ) throws(TemplateError) -> TemplateText {
        guard depth < 2 else { throw failure(.invalidOperation, "a format nests its fields too deeply") }
        var result = TemplateText()
        var position = 0
        while position < format.byteCount {
            let byte = format.bytes[position]
            guard byte == UInt8(ascii: "{") || byte == UInt8(ascii: "}") else {
                let start = position
                while position < format.byteCount, format.bytes[position] != UInt8(ascii: "{"), format.bytes[position] != UInt8(ascii: "}") {
                    position += 1
                }
                result.append(format, start..<position)
                continue
            }
            if position + 1 < format.byteCount, format.bytes[position + 1] == byte {
                result.append(format, position..<(position + 1))
                position += 2
                continue
            }
            guard byte == UInt8(ascii: "{") else { throw failure(.invalidOperation, "a format has a single '}'; write '}}'") }
            let start = position + 1
            var nesting = 1
            position = start
            while position < format.byteCount {
                if format.bytes[position] == UInt8(ascii: "{") { nesting += 1 }
                if format.bytes[position] == UInt8(ascii: "}") { nesting -= 1 }
                if nesting == 0 { break }
                position += 1
            }
            guard nesting == 0 else { throw failure(.invalidOperation, "a format has a '{' that is not closed") }
            try appendField(format[start..<position], arguments, &automatic, depth: depth, to: &result)
            position += 1
        }
        return result
    }

    /// Appends the field `name!conversion:specification`.
    private func appendField(
        _ field: TemplateText, _ arguments: TemplateArguments, _ automatic: inout Int, depth: Int, to result: inout TemplateText
    ) throws(TemplateError) {
        let colon = field.offset(of: ":") ?? field.byteCount
        var name = field[0..<colon]
        var conversion: UInt8?
        if let mark = name.offset(of: "!"), mark + 2 == name.byteCount {
            conversion = name.bytes[mark + 1]
            name = name[0..<mark]
        }
        var specification = colon < field.byteCount ? field[(colon + 1)..<field.byteCount] : TemplateText()
        var value = try fieldValue(name, arguments, &automatic)
        if specification.offset(of: "{") != nil {
            specification = try formatBraces(specification, arguments, &automatic, depth: depth + 1)
        }
        switch conversion {
        case nil: break
        case UInt8(ascii: "s"): value = .text(try text(of: value))
        case UInt8(ascii: "r"), UInt8(ascii: "a"): value = .text(try representation(of: value))
        default: throw failure(.invalidOperation, "a format knows the conversions !s, !r and !a only")
        }
        try appendFormatted(value, specification, to: &result)
    }

    private func fieldValue(_ name: TemplateText, _ arguments: TemplateArguments, _ automatic: inout Int) throws(TemplateError) -> TemplateObject {
        var position = 0
        while position < name.byteCount, name.bytes[position] != UInt8(ascii: "."), name.bytes[position] != UInt8(ascii: "[") { position += 1 }
        let head = name[0..<position]
        var value: TemplateObject
        if head.isEmpty || head.pythonInteger(base: 10) != nil {
            let index = head.pythonInteger(base: 10) ?? automatic
            if head.isEmpty { automatic += 1 }
            guard index >= 0, index < arguments.positional.count else {
                throw failure(.invalidOperation, "a format needs more values than it was given")
            }
            value = arguments.positional[index]
        } else {
            guard let found = arguments.named.first(where: { $0.name == head.string })?.value else {
                throw failure(.invalidOperation, "a format names the value '\(head.string)', which it was not given")
            }
            value = found
        }
        while position < name.byteCount {
            if name.bytes[position] == UInt8(ascii: ".") {
                var end = position + 1
                while end < name.byteCount, name.bytes[end] != UInt8(ascii: "."), name.bytes[end] != UInt8(ascii: "[") { end += 1 }
                value = try attribute(name[(position + 1)..<end].string, of: value)
                position = end
            } else {
                guard name.bytes[position] == UInt8(ascii: "["), let end = name.offset(of: "]", from: position) else {
                    throw failure(.invalidOperation, "a format has a '[' that is not closed")
                }
                let key = name[(position + 1)..<end]
                value = try item(key.pythonInteger(base: 10).map { .integer($0) } ?? .text(key), of: value)
                position = end + 1
            }
        }
        return value
    }

    private func appendFormatted(_ value: TemplateObject, _ specification: TemplateText, to result: inout TemplateText) throws(TemplateError) {
        var field = try parseSpecification(specification)
        let type = field.type
        var isNumber = value.arithmetic != nil
        if case .bool = value, type == nil, specification.isEmpty { isNumber = false }
        guard isNumber, type != "s" else {
            guard type == nil || type == "s" else {
                throw failure(.invalidOperation, "the format type '\(Character(type ?? "s"))' does not fit \(value.typeName)")
            }
            var text = try self.text(of: value)
            if let precision = field.precision { text = text.sliced(TemplateSlice(stop: precision)) }
            try append(text, field, isText: false, defaultAlignment: .left, to: &result)
            return
        }
        var isTrusted = true
        var text: String
        switch (value.arithmetic, type) {
        case (.integer(let number)?, nil), (.integer(let number)?, "d"?), (.integer(let number)?, "n"?):
            text = signed(grouped(String(number.magnitude), field), number < 0, field)
        case (.integer(let number)?, "x"?), (.integer(let number)?, "X"?), (.integer(let number)?, "o"?), (.integer(let number)?, "b"?):
            let radix = type == "o" ? 8 : (type == "b" ? 2 : 16)
            let prefix = field.isAlternate ? "0" + String(Character(type ?? "x")) : ""
            let digits = String(number.magnitude, radix: radix, uppercase: type == "X")
            text = signed(prefix + digits, number < 0, field)
        case (.integer(let code)?, "c"?):
            guard let scalar = UInt32(exactly: code).flatMap(Unicode.Scalar.init) else {
                throw failure(.invalidOperation, "the format type 'c' needs a character's number")
            }
            text = String(scalar)
            isTrusted = false
        case (let number?, "%"?):
            field.precision = field.precision ?? 6
            text = try floatDigits(number.double * 100, "f", field)
            text = signed(grouped(text, field) + "%", number.double.sign == .minus, field)
        case (let number?, "e"?), (let number?, "E"?), (let number?, "f"?), (let number?, "F"?), (let number?, "g"?), (let number?, "G"?):
            if type == "g" || type == "G", field.precision == 0 { field.precision = 1 }
            let digits = grouped(try floatDigits(number.double, type ?? "f", field), field)
            text = signed(digits, number.double.sign == .minus && !number.double.isNaN, field)
        case (.number(let number)?, nil):
            var digits = number.magnitude.pythonDescription
            if field.precision != nil {
                digits = try floatDigits(number, "g", field)
                if !digits.contains(".") && !digits.contains("e") { digits += ".0" }
            }
            text = signed(grouped(digits, field), number.sign == .minus, field)
        default:
            throw failure(.invalidOperation, "the format type '\(Character(type ?? "s"))' does not fit \(value.typeName)")
        }
        try append(TemplateText(text, isTrusted: isTrusted), field, isText: false, defaultAlignment: type == "c" ? .left : .right, to: &result)
    }

    private func grouped(_ digits: String, _ field: FieldFormat) -> String {
        guard let separator = field.grouping else { return digits }
        let whole = digits.prefix { $0.isASCII && $0.isNumber }
        var result = ""
        for (index, digit) in whole.enumerated() {
            if index > 0, (whole.count - index) % 3 == 0 { result.unicodeScalars.append(separator) }
            result.append(digit)
        }
        return result + digits.dropFirst(whole.count)
    }

    /// Reads `[[fill]align][sign][#][0][width][,][.precision][type]`.
    private func parseSpecification(_ text: TemplateText) throws(TemplateError) -> FieldFormat {
        var field = FieldFormat()
        var position = 0
        func alignment(at offset: Int) -> FieldFormat.Alignment? {
            guard offset < text.byteCount else { return nil }
            switch text.bytes[offset] {
            case UInt8(ascii: "<"): return .left
            case UInt8(ascii: ">"): return .right
            case UInt8(ascii: "^"): return .center
            case UInt8(ascii: "="): return .afterSign
            default: return nil
            }
        }
        if !text.isEmpty {
            let length = text.scalar(at: 0).length
            if let given = alignment(at: length) {
                field.fill = text[0..<length]
                field.alignment = given
                position = length + 1
            } else if let given = alignment(at: 0) {
                field.alignment = given
                position = 1
            }
        }
        func take(_ byte: UInt8) -> Bool {
            guard position < text.byteCount, text.bytes[position] == byte else { return false }
            position += 1
            return true
        }
        if take(UInt8(ascii: "+")) { field.positiveSign = "+" } else if take(UInt8(ascii: " ")) { field.positiveSign = " " } else { _ = take(UInt8(ascii: "-")) }
        if take(UInt8(ascii: "#")) { field.isAlternate = true }
        if take(UInt8(ascii: "0")), field.alignment == nil { (field.fill, field.alignment) = ("0", .afterSign) }
        field.width = try readNumber(text, &position) ?? 0
        if take(UInt8(ascii: ",")) { field.grouping = "," } else if take(UInt8(ascii: "_")) { field.grouping = "_" }
        if take(UInt8(ascii: ".")) {
            guard let precision = try readNumber(text, &position) else { throw failure(.invalidOperation, "a format lacks the digits of its precision") }
            field.precision = precision
        }
        if position < text.byteCount {
            let (type, length) = text.scalar(at: position)
            field.type = type
            position += length
        }
        guard position == text.byteCount else { throw failure(.invalidOperation, "a format specification is not written correctly") }
        return field
    }
}
