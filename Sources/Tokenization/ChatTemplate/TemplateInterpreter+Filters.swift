/// `value | name(arguments)`.
extension TemplateInterpreter {
    static let filterNames: Set<String> = [
        "abs", "attr", "batch", "capitalize", "center", "count", "d", "default", "dictsort", "e", "escape", "first", "float",
        "forceescape", "format", "indent", "int", "items", "join", "last", "length", "list", "lower", "map", "max", "min", "reject",
        "rejectattr", "replace", "reverse", "round", "safe", "select", "selectattr", "slice", "sort", "string", "sum", "title", "tojson",
        "trim", "truncate", "unique", "upper", "wordcount",
    ]

    func filter(_ name: String, _ value: TemplateObject, _ arguments: TemplateArguments) throws(TemplateError) -> TemplateObject {
        switch name {
        case "tojson": return .text(try dumpJSON(value, arguments))
        case "trim":
            let values = try bind(arguments, to: ["chars"], of: "trim")
            return .text(try subject(value).stripped(of: try text(values[0], "chars")))
        case "length", "count":
            guard let length = try length(of: value) else { throw failure(.invalidOperation, "\(value.typeName) has no length") }
            return .integer(length)
        case "default", "d":
            let values = try bind(arguments, to: ["default_value", "boolean"], of: "default")
            let isMissing = value.isUndefined || (values[1]?.isTrue == true && !value.isTrue)
            return isMissing ? values[0] ?? .text(TemplateText()) : value
        case "string", "safe": return .text(try text(of: value))
        case "list": return .list(try elements(of: value))
        case "items":
            switch value {
            case .undefined: return .generator(TemplateGenerator([], name: "do_items"))
            case .dictionary(let dictionary):
                try spend(dictionary.count)
                return try checkNesting(.generator(TemplateGenerator(dictionary.elements(of: .items), name: "do_items")))
            default: throw failure(.invalidOperation, "the filter 'items' needs a dictionary, found \(value.typeName)")
            }
        case "upper", "lower", "title", "capitalize", "replace", "indent", "escape", "e", "forceescape", "format", "truncate", "center",
            "wordcount":
            return try filterText(name, value, arguments)
        case "int", "float", "abs", "round": return try filterNumber(name, value, arguments)
        case "map", "select", "reject", "selectattr", "rejectattr": return try filterEach(name, value, arguments)
        default: return try filterSequence(name, value, arguments)
        }
    }

    // MARK: Texts

    private func filterText(_ name: String, _ value: TemplateObject, _ arguments: TemplateArguments) throws(TemplateError) -> TemplateObject {
        switch name {
        case "upper": return .text(try subject(value).uppercased)
        case "lower": return .text(try subject(value).lowercased)
        case "capitalize": return .text(try subject(value).capitalized)
        case "title": return .text(titled(try subject(value)))
        case "escape", "e", "forceescape":
            return .text(
                try subject(value).mapped { scalar in
                    switch scalar {
                    case "&": "&amp;"
                    case "<": "&lt;"
                    case ">": "&gt;"
                    case "'": "&#39;"
                    case "\"": "&#34;"
                    default: String(scalar)
                    }
                })
        case "replace":
            let values = try bind(arguments, to: ["old", "new", "count"], required: 2, of: "replace")
            return .text(
                try replace(
                    in: try subject(value), try text(of: values[0] ?? .none), with: try text(of: values[1] ?? .none),
                    limit: try integer(optional(values[2]), "count") ?? -1))
        case "indent": return .text(try indent(value, arguments))
        case "format":
            guard arguments.named.isEmpty || arguments.positional.isEmpty else {
                throw failure(.invalidOperation, "the filter 'format' takes positional or named arguments, not both")
            }
            var operand = TemplateObject.tuple(arguments.positional)
            if !arguments.named.isEmpty {
                let dictionary = TemplateDictionary(capacity: arguments.named.count)
                for (name, value) in arguments.named { dictionary.set(text: TemplateText(name), value) }
                operand = .dictionary(dictionary)
            }
            return .text(try formatPercent(try subject(value), operand))
        case "truncate": return .text(try truncate(value, arguments))
        case "center":
            let values = try bind(arguments, to: ["width"], of: "center")
            let width = try integer(values[0], "width") ?? 80
            try spend(bytes: max(width, 0))
            return .text(try subject(value).padded(to: width, .both))
        default:
            var count = 0
            var isInWord = false
            for scalar in try subject(value).string.unicodeScalars {
                let isWord = scalar == "_" || scalar.properties.numericType != nil || scalar.properties.generalCategory.isLetter
                if isWord, !isInWord { count += 1 }
                isInWord = isWord
            }
            return .integer(count)
        }
    }

    /// An argument for which none counts as absent.
    private func optional(_ value: TemplateObject?) -> TemplateObject? {
        if case .some(.none) = value { return nil }
        return value
    }

    func replace(in text: TemplateText, _ old: TemplateText, with new: TemplateText, limit: Int) throws(TemplateError) -> TemplateText {
        try spend(text.byteCount >> 8)
        let occurrences = text.occurrences(of: old, limit: limit)
        try spend(occurrences.count >> 2)
        let (growth, overflows) = occurrences.count.multipliedReportingOverflow(by: new.byteCount)
        try spend(bytes: overflows ? .max : text.byteCount + growth)
        return text.replacing(occurrences, ofLength: old.byteCount, with: new)
    }

    /// Jinja's own notion of a title: a capital after whitespace, a hyphen or an opening bracket.
    private func titled(_ text: TemplateText) -> TemplateText {
        var result = TemplateText()
        var offset = 0
        while offset < text.byteCount {
            let start = offset
            func isSeparator(_ scalar: Unicode.Scalar) -> Bool {
                switch scalar {
                case "-", "(", "{", "[", "<": true
                default: scalar.isPythonSpace
                }
            }
            let (first, length) = text.scalar(at: start)
            offset += length
            if isSeparator(first) {
                result.append(text, start..<offset)
                continue
            }
            while offset < text.byteCount {
                let (scalar, length) = text.scalar(at: offset)
                if isSeparator(scalar) { break }
                offset += length
            }
            result.append(text[start..<(start + length)].uppercased)
            result.append(text[(start + length)..<offset].lowercased)
        }
        return result
    }

    private func indent(_ value: TemplateObject, _ arguments: TemplateArguments) throws(TemplateError) -> TemplateText {
        let values = try bind(arguments, to: ["width", "first", "blank"], of: "indent")
        guard var text = try text(value, "the indented value") else { throw failure(.invalidOperation, "the filter 'indent' needs a string") }
        let indentation: TemplateText
        if case .text(let given) = values[0] {
            indentation = given
        } else {
            let width = try integer(values[0], "width") ?? 4
            try spend(bytes: max(width, 0))
            indentation = TemplateText(" ").repeated(max(width, 0))
        }
        text.append("\n")
        let lines = text.lines()
        let (growth, overflows) = lines.count.multipliedReportingOverflow(by: indentation.byteCount)
        try spend(bytes: overflows ? .max : text.byteCount + growth)
        try spend(lines.count)
        var result = TemplateText()
        for (index, line) in lines.enumerated() {
            if index > 0 { result.append("\n") }
            let isIndented = index == 0 ? values[1]?.isTrue == true : (values[2]?.isTrue == true || !line.isEmpty)
            if isIndented { result.append(indentation) }
            result.append(line)
        }
        return result
    }

    private func truncate(_ value: TemplateObject, _ arguments: TemplateArguments) throws(TemplateError) -> TemplateText {
        let values = try bind(arguments, to: ["length", "killwords", "end", "leeway"], of: "truncate")
        let text = try subject(value)
        let length = min(max(try integer(values[0], "length") ?? 255, -1), 1 << 40)
        let end = try self.text(values[2], "end") ?? "..."
        let leeway = min(max(try integer(optional(values[3]), "leeway") ?? 5, -1), 1 << 40)
        let kept = length - end.scalarCount
        guard kept >= 0, leeway >= 0 else { throw failure(.invalidOperation, "the filter 'truncate' needs a length of at least that of its end") }
        if text.scalarCount <= length + leeway { return text }
        var result = text[0..<text.offset(ofScalar: kept)]
        if values[1]?.isTrue != true { result = result.splitFromEnd(by: " ", limit: 1)[0] }
        result.append(end)
        return result
    }

    // MARK: Numbers

    private func filterNumber(_ name: String, _ value: TemplateObject, _ arguments: TemplateArguments) throws(TemplateError) -> TemplateObject {
        if case .undefined(let undefined) = value { throw failure(.undefined, undefined.message) }
        switch name {
        case "int":
            let values = try bind(arguments, to: ["default", "base"], of: "int")
            let base = try integer(values[1], "base") ?? 10
            switch value {
            case .bool, .integer: return .integer(try integer(value, "value") ?? 0)
            case .number(let number): if let truncated = Int(exactly: number.rounded(.towardZero)) { return .integer(truncated) }
            case .text(let text):
                if let number = text.pythonInteger(base: base) { return .integer(number) }
                if let number = text.pythonNumber, let truncated = Int(exactly: number.rounded(.towardZero)) { return .integer(truncated) }
            default: break
            }
            return values[0] ?? .integer(0)
        case "float":
            let values = try bind(arguments, to: ["default"], of: "float")
            if let number = value.arithmetic { return .number(number.double) }
            if case .text(let text) = value, let number = text.pythonNumber { return .number(number) }
            return values[0] ?? .number(0)
        case "abs":
            switch value.arithmetic {
            case .integer(let number): return number < 0 ? try negate(.integer(number)) : .integer(number)
            case .number(let number): return .number(number.magnitude)
            case nil: throw failure(.invalidOperation, "the filter 'abs' needs a number, found \(value.typeName)")
            }
        default:
            let values = try bind(arguments, to: ["precision", "method"], of: "round")
            let precision = try integer(values[0], "precision") ?? 0
            let method = try text(values[1], "method")?.string ?? "common"
            guard let number = value.arithmetic else { throw failure(.invalidOperation, "the filter 'round' needs a number, found \(value.typeName)") }
            guard abs(precision) <= 300 else { throw failure(.invalidOperation, "the filter 'round' takes a precision of at most 300") }
            switch method {
            case "common":
                if case .integer(let integer) = number, precision >= 0 { return .integer(integer) }
                if case .integer(let integer) = number { return .integer(Int(exactly: Double(integer).pythonRounded(precision)) ?? integer) }
                return .number(number.double.pythonRounded(precision))
            case "ceil", "floor":
                let scale = Double.powerOfTen(precision)
                return .number((number.double * scale).rounded(method == "ceil" ? .up : .down) / scale)
            default: throw failure(.invalidOperation, "the filter 'round' knows the methods common, ceil and floor")
            }
        }
    }
}

extension Unicode.GeneralCategory {
    var isLetter: Bool {
        switch self {
        case .uppercaseLetter, .lowercaseLetter, .titlecaseLetter, .modifierLetter, .otherLetter: true
        default: false
        }
    }
}
