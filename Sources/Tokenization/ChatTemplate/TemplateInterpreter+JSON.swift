/// The filter `tojson`, which is Python's `json.dumps`.
extension TemplateInterpreter {
    private struct JSONStyle {
        var escapesNonASCII = false
        /// Nil: everything on one line.
        var indentation: TemplateText?
        var itemSeparator: TemplateText = ", "
        var keySeparator: TemplateText = ": "
        var sortsKeys = false
    }

    func dumpJSON(_ value: TemplateObject, _ arguments: TemplateArguments) throws(TemplateError) -> TemplateText {
        var style = JSONStyle()
        if !arguments.isEmpty {
            let values = try bind(arguments, to: ["ensure_ascii", "indent", "separators", "sort_keys"], of: "tojson")
            style.escapesNonASCII = values[0]?.isTrue ?? false
            style.sortsKeys = values[3]?.isTrue ?? false
            switch values[1] {
            case nil, .some(.none): break
            case .text(let text): style.indentation = text
            case .some(let width):
                let count = max(try integer(width, "indent") ?? 0, 0)
                try spend(bytes: count)
                style.indentation = TemplateText(" ").repeated(count)
            }
            if style.indentation != nil { style.itemSeparator = "," }
            switch values[2] {
            case nil, .some(.none): break
            case .some(let separators):
                let parts = try elements(of: separators)
                guard parts.count == 2, case .text(let item) = parts[0], case .text(let key) = parts[1] else {
                    throw failure(.invalidOperation, "the argument 'separators' of tojson must be two strings")
                }
                style.itemSeparator = item
                style.keySeparator = key
            }
        }
        var result = TemplateText()
        try append(value, style, level: 0, to: &result)
        return result
    }

    /// Appends a value. Whatever the dump adds to the texts inside is not trusted: a request decides how much of it there is.
    private func append(_ value: TemplateObject, _ style: JSONStyle, level: Int, to result: inout TemplateText) throws(TemplateError) {
        try spend(1)
        switch value {
        case .none: result.append("null", isTrusted: false)
        case .bool(let value): result.append(value ? "true" : "false", isTrusted: false)
        case .integer(let value): result.append(String(value), isTrusted: false)
        case .number(let value): result.append(jsonDescription(value), isTrusted: false)
        case .text(let text): try append(text, style, to: &result)
        case .list(let elements), .tuple(let elements):
            try appendContainer("[", "]", count: elements.count, style, level: level, to: &result) { (index, result) throws(TemplateError) in
                try append(elements[index], style, level: level + 1, to: &result)
            }
        case .dictionary(let dictionary):
            var entries = dictionary.entries
            if style.sortsKeys { entries = try sorted(entries) }
            try appendContainer("{", "}", count: entries.count, style, level: level, to: &result) { (index, result) throws(TemplateError) in
                try append(try keyText(entries[index].key), style, to: &result)
                append(separator: style.keySeparator, to: &result)
                try append(entries[index].value, style, level: level + 1, to: &result)
            }
        case .undefined(let undefined): throw failure(.undefined, "tojson: \(undefined.message)")
        default: throw failure(.invalidOperation, "tojson cannot write \(value.typeName); put the filter 'list' before it")
        }
    }

    private func appendContainer(
        _ opening: String, _ closing: String, count: Int, _ style: JSONStyle, level: Int, to result: inout TemplateText,
        _ appendElement: (Int, inout TemplateText) throws(TemplateError) -> Void
    ) throws(TemplateError) {
        try enter()
        defer { leave() }
        result.append(opening, isTrusted: false)
        func breakLine(_ level: Int, _ result: inout TemplateText) throws(TemplateError) {
            guard let indentation = style.indentation else { return }
            result.append("\n", isTrusted: false)
            for _ in 0..<level { append(separator: indentation, to: &result) }
            try spend(bytes: result.byteCount)
        }
        for index in 0..<count {
            if index > 0 { append(separator: style.itemSeparator, to: &result) }
            try breakLine(level + 1, &result)
            try appendElement(index, &result)
        }
        if count > 0 { try breakLine(level, &result) }
        result.append(closing, isTrusted: false)
    }

    private func append(separator: TemplateText, to result: inout TemplateText) {
        result.append(TemplateText(bytes: separator.bytes, isTrusted: false))
    }

    private func sorted(
        _ entries: [(key: TemplateObject, value: TemplateObject)]
    ) throws(TemplateError) -> [(key: TemplateObject, value: TemplateObject)] {
        try spend(entries.count)
        // Python compares the keys as they are, so that different kinds cannot be sorted.
        let areTexts = entries.allSatisfy { if case .text = $0.key { true } else { false } }
        let areNumbers = entries.allSatisfy { $0.key.arithmetic != nil }
        guard areTexts || areNumbers else { throw failure(.invalidOperation, "tojson cannot sort keys of different kinds") }
        return entries.sorted { left, right in
            if case (.text(let a), .text(let b)) = (left.key, right.key) { return a < b }
            if let a = left.key.arithmetic, let b = right.key.arithmetic { return a < b }
            return false
        }
    }

    private func keyText(_ key: TemplateObject) throws(TemplateError) -> TemplateText {
        switch key {
        case .text(let text): return text
        case .none: return TemplateText("null", isTrusted: false)
        case .bool(let value): return TemplateText(value ? "true" : "false", isTrusted: false)
        case .integer(let value): return TemplateText(String(value), isTrusted: false)
        case .number(let value): return TemplateText(jsonDescription(value), isTrusted: false)
        default: throw failure(.invalidOperation, "tojson cannot write a key of type \(key.typeName)")
        }
    }

    private func jsonDescription(_ value: Double) -> String {
        if value.isNaN { return "NaN" }
        return value.isInfinite ? (value < 0 ? "-Infinity" : "Infinity") : value.pythonDescription
    }

    private func append(_ text: TemplateText, _ style: JSONStyle, to result: inout TemplateText) throws(TemplateError) {
        try spend(bytes: result.byteCount + text.byteCount)
        try spend(text.byteCount >> 6)
        result.append("\"", isTrusted: false)
        var runStart = 0
        var offset = 0
        while offset < text.byteCount {
            let byte = text.bytes[offset]
            let needsEscape = byte < 0x20 || byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "\\") || (byte >= 0x80 && style.escapesNonASCII)
            guard needsEscape else {
                offset += 1
                continue
            }
            result.append(text, runStart..<offset)
            let (scalar, length) = text.scalar(at: offset)
            result.append(jsonEscape(scalar), isTrusted: text.isTrusted(at: offset))
            offset += length
            runStart = offset
        }
        result.append(text, runStart..<offset)
        result.append("\"", isTrusted: false)
    }

    private func jsonEscape(_ scalar: Unicode.Scalar) -> String {
        switch scalar {
        case "\"": return "\\\""
        case "\\": return "\\\\"
        case "\n": return "\\n"
        case "\r": return "\\r"
        case "\t": return "\\t"
        case "\u{08}": return "\\b"
        case "\u{0C}": return "\\f"
        default:
            return UTF16.encode(scalar)!.map { unit in
                let digits = String(unit, radix: 16)
                return "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            }.joined()
        }
    }
}
