extension TemplateInterpreter {
    /// Python's `str` of a value, which is what `{{ }}` writes.
    func text(of value: TemplateObject) throws(TemplateError) -> TemplateText {
        switch value {
        case .text(let text): return text
        case .undefined: return TemplateText()
        case .none: return "None"
        case .bool(let value): return value ? "True" : "False"
        case .integer(let value): return TemplateText(String(value))
        case .number(let value): return TemplateText(value.pythonDescription)
        default: return try representation(of: value)
        }
    }

    /// Python's `repr`. What it adds to the texts inside is not trusted: a request decides how much of it there is.
    func representation(of value: TemplateObject) throws(TemplateError) -> TemplateText {
        var result = TemplateText()
        try appendRepresentation(of: value, to: &result)
        return result
    }

    private func appendRepresentation(of value: TemplateObject, to result: inout TemplateText) throws(TemplateError) {
        try spend(1)
        switch value {
        case .text(let text):
            try spend(bytes: result.byteCount + text.byteCount)
            result.append(text.representation)
        case .list(let elements): try appendElements(elements, "[", "]", to: &result)
        case .tuple(let elements): try appendElements(elements, "(", elements.count == 1 ? ",)" : ")", to: &result)
        case .dictionary(let dictionary):
            try enter()
            defer { leave() }
            result.append("{", isTrusted: false)
            for (index, entry) in dictionary.entries.enumerated() {
                if index > 0 { result.append(", ", isTrusted: false) }
                try appendRepresentation(of: entry.key, to: &result)
                result.append(": ", isTrusted: false)
                try appendRepresentation(of: entry.value, to: &result)
            }
            result.append("}", isTrusted: false)
        case .view(let dictionary, let kind):
            try appendElements(dictionary.elements(of: kind), "dict_\(kind.rawValue)([", "])", to: &result)
        case .namespace(let namespace):
            let dictionary = TemplateDictionary(capacity: namespace.attributes.count)
            for attribute in namespace.attributes { dictionary.set(text: attribute.name, attribute.value) }
            try enter()
            defer { leave() }
            result.append("<Namespace ", isTrusted: false)
            try appendRepresentation(of: .dictionary(dictionary), to: &result)
            result.append(">", isTrusted: false)
        case .range(let range):
            let step = range.step == 1 ? "" : ", \(range.step)"
            result.append("range(\(range.start), \(range.stop)\(step))", isTrusted: false)
        case .loop(let loop): result.append("<LoopContext \(loop.index + 1)/\(try length(of: loop))>", isTrusted: false)
        case .macro(let macro): result.append("<Macro '\(macro.syntax.name)'>", isTrusted: false)
        case .generator(let generator): result.append("<generator object \(generator.name)>", isTrusted: false)
        case .undefined: result.append("Undefined", isTrusted: false)
        case .function, .method, .cycler, .joiner: result.append("<\(value.typeName)>", isTrusted: false)
        case .none, .bool, .integer, .number: result.append(try text(of: value).string, isTrusted: false)
        }
    }

    private func appendElements(
        _ elements: [TemplateObject], _ opening: String, _ closing: String, to result: inout TemplateText
    ) throws(TemplateError) {
        try enter()
        defer { leave() }
        result.append(opening, isTrusted: false)
        for (index, element) in elements.enumerated() {
            if index > 0 { result.append(", ", isTrusted: false) }
            try appendRepresentation(of: element, to: &result)
        }
        result.append(closing, isTrusted: false)
    }

    /// The text that a string filter works on: a filter takes any value by its `str`.
    func subject(_ value: TemplateObject) throws(TemplateError) -> TemplateText {
        let text = try text(of: value)
        try spend(text.byteCount >> 6)
        return text
    }
}

extension Double {
    /// Python's `repr` of a float: the shortest digits that read back as the same value, in scientific notation below
    /// 1e-4 and from 1e16 on.
    var pythonDescription: String {
        guard isFinite else { return isNaN ? "nan" : (self < 0 ? "-inf" : "inf") }
        guard self != 0 else { return sign == .minus ? "-0.0" : "0.0" }
        var digits: [UInt8] = []
        var pointPosition = 0
        var exponent = 0
        var seesPoint = false
        var text = magnitude.description.utf8[...]
        while let byte = text.popFirst() {
            if byte == UInt8(ascii: ".") {
                seesPoint = true
            } else if byte == UInt8(ascii: "e") {
                exponent = Int(String(Substring(text))) ?? 0
                break
            } else {
                if digits.isEmpty, byte == UInt8(ascii: "0") {
                    if seesPoint { pointPosition -= 1 }
                    continue
                }
                digits.append(byte)
                if !seesPoint { pointPosition += 1 }
            }
        }
        while digits.count > 1, digits.last == UInt8(ascii: "0") { digits.removeLast() }
        // The value is 0.digits times ten to the power of `position`.
        let position = pointPosition + exponent
        let digitText = String(decoding: digits, as: UTF8.self)
        var result = sign == .minus ? "-" : ""
        if position < -3 || position > 16 {
            result += digitText.prefix(1)
            if digits.count > 1 { result += "." + digitText.dropFirst() }
            let power = position - 1
            result += power < 0 ? "e-" : "e+"
            result += (abs(power) < 10 ? "0" : "") + String(abs(power))
        } else if position <= 0 {
            result += "0." + String(repeating: "0", count: -position) + digitText
        } else if position >= digits.count {
            result += digitText + String(repeating: "0", count: position - digits.count) + ".0"
        } else {
            result += digitText.prefix(position) + "." + digitText.dropFirst(position)
        }
        return result
    }
}
