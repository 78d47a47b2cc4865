/// The methods of strings, lists and dictionaries.
extension TemplateInterpreter {
    static let textMethods: Set<String> = [
        "capitalize", "center", "count", "endswith", "expandtabs", "find", "format", "index", "isalnum", "isalpha", "isascii", "isdecimal",
        "isdigit", "islower", "isnumeric", "isprintable", "isspace", "isupper", "join", "ljust", "lower", "lstrip", "partition",
        "removeprefix", "removesuffix", "replace", "rfind", "rindex", "rjust", "rpartition", "rsplit", "rstrip", "split", "splitlines",
        "startswith", "strip", "swapcase", "title", "upper", "zfill",
    ]
    static let tupleMethods: Set<String> = ["count", "index"]
    static let listMethods = tupleMethods.union(["copy"]).union(changingListMethods)
    static let dictionaryMethods = changingDictionaryMethods.union(["copy", "get", "items", "keys", "values"])
    private static let changingListMethods: Set<String> = ["append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"]
    private static let changingDictionaryMethods: Set<String> = ["clear", "pop", "popitem", "setdefault", "update"]

    func invoke(_ method: TemplateMethod, _ arguments: TemplateArguments) throws(TemplateError) -> TemplateObject {
        let name = method.name
        switch method.receiver {
        case .text(let text): return try invoke(name, on: text, arguments)
        case .list(let elements), .tuple(let elements):
            if Self.changingListMethods.contains(name) { throw isUnchanging("list", name) }
            if name == "copy" { return .list(elements) }
            let values = try bind(arguments, to: ["value"], required: 1, of: name)
            let wanted = values[0] ?? .none
            try spend(elements.count)
            if name == "count" { return .integer(elements.filter { $0.equals(wanted) }.count) }
            guard let index = elements.firstIndex(where: { $0.equals(wanted) }) else {
                throw failure(.invalidOperation, "'index' does not find the value in the list")
            }
            return .integer(index)
        case .dictionary(let dictionary):
            if Self.changingDictionaryMethods.contains(name) { throw isUnchanging("dict", name) }
            switch name {
            case "get":
                let values = try bind(arguments, to: ["key", "default"], required: 1, of: "get")
                guard let key = values[0], !key.isUndefined else { return values[1] ?? .none }
                return dictionary.value(of: try self.key(key)) ?? values[1] ?? .none
            case "copy": return .dictionary(dictionary)
            default:
                _ = try bind(arguments, to: [], of: name)
                return .view(dictionary, TemplateViewKind(rawValue: name) ?? .keys)
            }
        case .number(let value): return .bool(value == value.rounded())
        case .loop(let loop):
            if name == "cycle" {
                guard !arguments.positional.isEmpty else { throw failure(.invalidOperation, "'loop.cycle' needs items to cycle through") }
                return arguments.positional[loop.index % arguments.positional.count]
            }
            let isUnchanged = loop.lastChanged.map { TemplateObject.tuple($0).equals(.tuple(arguments.positional)) } ?? false
            if !isUnchanged { loop.lastChanged = arguments.positional }
            return .bool(!isUnchanged)
        case .cycler(let cycler):
            let current = cycler.current
            cycler.position = name == "reset" ? 0 : (cycler.position + 1) % cycler.elements.count
            return name == "reset" ? .none : current
        case .function:
            let values = try bind(arguments, to: ["iterable", "value"], required: 1, of: "dict.fromkeys")
            let dictionary = TemplateDictionary()
            for name in try elements(of: values[0] ?? .none) {
                try spend(1)
                dictionary.set(name, key: try key(name), values[1] ?? .none)
            }
            return try checkNesting(.dictionary(dictionary))
        default:
            throw failure(.invalidOperation, "\(method.receiver.typeName) has no method '\(name)'")
        }
    }

    private func isUnchanging(_ type: String, _ name: String) -> TemplateError {
        failure(.unsupported, "'\(type).\(name)' would change a value; chat templates run in an immutable sandbox, as in transformers")
    }

    // MARK: Strings

    private func invoke(_ name: String, on text: TemplateText, _ arguments: TemplateArguments) throws(TemplateError) -> TemplateObject {
        try spend(text.byteCount >> 6)
        switch name {
        case "strip", "lstrip", "rstrip":
            let values = try bind(arguments, to: ["chars"], of: name)
            let side: TemplateText.Side = name == "strip" ? .both : (name == "lstrip" ? .left : .right)
            return .text(text.stripped(side, of: try self.text(values[0], "chars")))
        case "split", "rsplit": return try split(name, text, arguments)
        case "splitlines":
            let values = try bind(arguments, to: ["keepends"], of: name)
            let lines = text.lines(keepingEnds: values[0]?.isTrue == true)
            try spend(lines.count)
            return .list(lines.map { .text($0) })
        case "startswith", "endswith": return .bool(try matchesEnd(name, text, arguments))
        case "replace":
            let values = try bind(arguments, to: ["old", "new", "count"], required: 2, of: name)
            guard let old = try self.text(values[0], "old"), let new = try self.text(values[1], "new") else {
                throw failure(.invalidOperation, "'replace' needs two strings")
            }
            return .text(try replace(in: text, old, with: new, limit: try integer(values[2], "count") ?? -1))
        case "upper": return .text(text.uppercased)
        case "lower": return .text(text.lowercased)
        case "title": return .text(text.titlecased)
        case "capitalize": return .text(text.capitalized)
        case "swapcase": return .text(text.caseSwapped)
        case "join":
            let values = try bind(arguments, to: ["iterable"], required: 1, of: name)
            var parts: [TemplateText] = []
            var size = 0
            for element in try elements(of: values[0] ?? .none) {
                guard case .text(let part) = element else {
                    throw failure(.invalidOperation, "'join' needs strings, found \(element.typeName)")
                }
                parts.append(part)
                size += part.byteCount + text.byteCount
            }
            try spend(bytes: size)
            try spend(parts.count)
            return .text(TemplateText.joined(parts, separator: text))
        case "format": return .text(try formatBraces(text, arguments))
        case "find", "rfind", "index", "rindex", "count": return try search(name, text, arguments)
        case "removeprefix", "removesuffix":
            let values = try bind(arguments, to: ["affix"], required: 1, of: name)
            guard let affix = try self.text(values[0], "affix") else { throw failure(.invalidOperation, "'\(name)' needs a string") }
            let whole = 0..<text.byteCount
            if name == "removeprefix" { return .text(text.hasPrefix(affix, in: whole) ? text[affix.byteCount..<text.byteCount] : text) }
            return .text(text.hasSuffix(affix, in: whole) ? text[0..<(text.byteCount - affix.byteCount)] : text)
        case "partition", "rpartition":
            let values = try bind(arguments, to: ["sep"], required: 1, of: name)
            guard let separator = try self.text(values[0], "sep"), !separator.isEmpty else {
                throw failure(.invalidOperation, "'\(name)' needs a separator that is not empty")
            }
            let found = name == "partition" ? text.offset(of: separator) : text.lastOffset(of: separator, endingAt: text.byteCount)
            let empty = TemplateObject.text(TemplateText())
            guard let found else { return .tuple(name == "partition" ? [.text(text), empty, empty] : [empty, empty, .text(text)]) }
            return .tuple([
                .text(text[0..<found]), .text(text[found..<(found + separator.byteCount)]),
                .text(text[(found + separator.byteCount)..<text.byteCount]),
            ])
        case "ljust", "rjust", "center", "zfill", "expandtabs": return .text(try pad(name, text, arguments))
        default: return .bool(try isOfKind(name, text, arguments))
        }
    }

    private func split(_ name: String, _ text: TemplateText, _ arguments: TemplateArguments) throws(TemplateError) -> TemplateObject {
        let values = try bind(arguments, to: ["sep", "maxsplit"], of: name)
        let limit = try integer(values[1], "maxsplit") ?? -1
        let parts: [TemplateText]
        if let separator = try self.text(values[0], "sep") {
            if separator.isEmpty { throw failure(.invalidOperation, "'\(name)' needs a separator that is not empty") }
            parts = name == "split" ? text.split(by: separator, limit: limit) : text.splitFromEnd(by: separator, limit: limit)
        } else {
            parts = text.splitAtWhitespace(limit: limit, fromEnd: name == "rsplit")
        }
        try spend(parts.count)
        return .list(parts.map { .text($0) })
    }

    /// The bytes between the scalar positions `start` and `end`; nil if `start` lies beyond the end of the text.
    private func range(_ text: TemplateText, _ start: TemplateObject?, _ end: TemplateObject?) throws(TemplateError) -> Range<Int>? {
        func position(_ value: TemplateObject?, _ name: String) throws(TemplateError) -> Int? {
            if case .some(.none) = value { return nil }
            return try integer(value, name)
        }
        guard start != nil || end != nil else { return 0..<text.byteCount }
        let count = text.scalarCount
        let slice = TemplateSlice(start: try position(start, "start"), stop: try position(end, "end"))
        if let start = slice.start, start > count { return nil }
        let (from, to, _) = slice.resolved(count: count)
        guard from <= to else { return nil }
        return text.offset(ofScalar: from)..<text.offset(ofScalar: to)
    }

    private func matchesEnd(_ name: String, _ text: TemplateText, _ arguments: TemplateArguments) throws(TemplateError) -> Bool {
        let values = try bind(arguments, to: ["affix", "start", "end"], required: 1, of: name)
        let affixes: [TemplateObject]
        if case .tuple(let elements) = values[0] { affixes = elements } else { affixes = [values[0] ?? .none] }
        guard let range = try range(text, values[1], values[2]) else { return false }
        for affix in affixes {
            guard let affix = try self.text(affix, "affix") else { throw failure(.invalidOperation, "'\(name)' needs a string, found NoneType") }
            if name == "startswith" ? text.hasPrefix(affix, in: range) : text.hasSuffix(affix, in: range) { return true }
        }
        return false
    }

    private func search(_ name: String, _ text: TemplateText, _ arguments: TemplateArguments) throws(TemplateError) -> TemplateObject {
        let values = try bind(arguments, to: ["sub", "start", "end"], required: 1, of: name)
        guard let pattern = try self.text(values[0], "sub") else { throw failure(.invalidOperation, "'\(name)' needs a string") }
        guard let range = try range(text, values[1], values[2]) else {
            if name.hasSuffix("index") { throw failure(.invalidOperation, "'\(name)' does not find the string") }
            return .integer(name == "count" ? 0 : -1)
        }
        if name == "count" {
            if pattern.isEmpty { return .integer(text.scalarCount(in: range) + 1) }
            return .integer(text[range].occurrences(of: pattern).count)
        }
        let found: Int?
        if name.hasPrefix("r") {
            try spend((range.count >> 6) * (min(pattern.byteCount, 4096) >> 6))
            found = text.lastOffset(of: pattern, endingAt: range.upperBound).flatMap { $0 >= range.lowerBound ? $0 : nil }
        } else {
            found = text.offset(of: pattern, from: range.lowerBound).flatMap { $0 + pattern.byteCount <= range.upperBound ? $0 : nil }
        }
        if let found { return .integer(text.scalarCount(in: 0..<found)) }
        if name.hasSuffix("index") { throw failure(.invalidOperation, "'\(name)' does not find the string") }
        return .integer(-1)
    }

    private func pad(_ name: String, _ text: TemplateText, _ arguments: TemplateArguments) throws(TemplateError) -> TemplateText {
        if name == "expandtabs" {
            let values = try bind(arguments, to: ["tabsize"], of: name)
            return try expandTabs(text, size: min(try integer(values[0], "tabsize") ?? 8, 1 << 40))
        }
        let values = try bind(arguments, to: name == "zfill" ? ["width"] : ["width", "fillchar"], required: 1, of: name)
        let width = try integer(values[0], "width") ?? 0
        try spend(bytes: max(width, 0))
        if name == "zfill" {
            let hasSign = text.bytes.first == UInt8(ascii: "-") || text.bytes.first == UInt8(ascii: "+")
            var result = text[0..<(hasSign ? 1 : 0)]
            result.append(text[(hasSign ? 1 : 0)..<text.byteCount].padded(to: hasSign ? width - 1 : width, with: "0", .right))
            return result
        }
        var fill: Unicode.Scalar = " "
        if let given = try self.text(values[1], "fillchar") {
            let scalars = given.string.unicodeScalars
            guard scalars.count == 1, let scalar = scalars.first else {
                throw failure(.invalidOperation, "'\(name)' fills with exactly one character")
            }
            fill = scalar
            try spend(bytes: max(width, 0).multipliedReportingOverflow(by: 4).partialValue)
        }
        return text.padded(to: width, with: fill, name == "ljust" ? .left : (name == "rjust" ? .right : .both))
    }

    private func expandTabs(_ text: TemplateText, size: Int) throws(TemplateError) -> TemplateText {
        var result = TemplateText()
        var column = 0
        var offset = 0
        while offset < text.byteCount {
            let (scalar, length) = text.scalar(at: offset)
            let isTrusted = text.isTrusted(at: offset)
            if scalar == "\t" {
                if size > 0 {
                    let missing = size - column % size
                    column += missing
                    try spend(bytes: result.byteCount + missing)
                    result.append(TemplateText(bytes: Array(repeating: 0x20, count: missing), isTrusted: isTrusted))
                }
            } else {
                column = scalar == "\n" || scalar == "\r" ? 0 : column + 1
                result.append(text, offset..<(offset + length))
            }
            offset += length
        }
        return result
    }

    private func isOfKind(_ name: String, _ text: TemplateText, _ arguments: TemplateArguments) throws(TemplateError) -> Bool {
        _ = try bind(arguments, to: [], of: name)
        switch name {
        case "isspace": return text.allScalars { $0.isPythonSpace }
        case "isascii": return text.isASCII
        case "islower": return text.isAll(lowercase: true)
        case "isupper": return text.isAll(lowercase: false)
        case "isprintable": return text.isEmpty || text.allScalars { $0.isPythonPrintable }
        case "isalpha": return text.allScalars { $0.properties.generalCategory.isLetter }
        case "isalnum": return text.allScalars { $0.properties.generalCategory.isLetter || $0.properties.numericType != nil }
        case "isdecimal": return text.allScalars { $0.properties.numericType == .decimal }
        case "isdigit": return text.allScalars { $0.properties.numericType == .decimal || $0.properties.numericType == .digit }
        default: return text.allScalars { $0.properties.numericType != nil }
        }
    }
}
