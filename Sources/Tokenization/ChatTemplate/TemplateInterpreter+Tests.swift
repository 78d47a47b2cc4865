/// `value is name(arguments)`.
extension TemplateInterpreter {
    static let testNames: Set<String> = [
        "!=", "<", "<=", "==", ">", ">=", "boolean", "callable", "defined", "divisibleby", "eq", "equalto", "escaped", "even", "false",
        "filter", "float", "ge", "greaterthan", "gt", "in", "integer", "iterable", "le", "lessthan", "lower", "lt", "mapping", "ne", "none",
        "number", "odd", "sameas", "sequence", "string", "test", "true", "undefined", "upper",
    ]

    func test(_ name: String, _ value: TemplateObject, _ arguments: TemplateArguments) throws(TemplateError) -> Bool {
        func operand() throws(TemplateError) -> TemplateObject {
            let values = try bind(arguments, to: ["other"], required: 1, of: "the test '\(name)'")
            return values[0] ?? .none
        }
        switch name {
        case "eq", "equalto", "==": return try compare(value, .equal, try operand())
        case "ne", "!=": return try compare(value, .notEqual, try operand())
        case "lt", "lessthan", "<": return try compare(value, .less, try operand())
        case "le", "<=": return try compare(value, .lessOrEqual, try operand())
        case "gt", "greaterthan", ">": return try compare(value, .greater, try operand())
        case "ge", ">=": return try compare(value, .greaterOrEqual, try operand())
        case "in": return try contains(try operand(), value)
        case "sameas": return isSame(value, try operand())
        case "divisibleby":
            return try apply(.remainder, try number(value, name), try operand()).equals(.integer(0))
        default: break
        }
        guard arguments.isEmpty else { throw failure(.invalidOperation, "the test '\(name)' takes no arguments") }
        switch name {
        case "defined": return !value.isUndefined
        case "undefined": return value.isUndefined
        case "none": if case .none = value { return true } else { return false }
        case "boolean": if case .bool = value { return true } else { return false }
        case "true": if case .bool(true) = value { return true } else { return false }
        case "false": if case .bool(false) = value { return true } else { return false }
        case "integer": if case .integer = value { return true } else { return false }
        case "float": if case .number = value { return true } else { return false }
        case "number": return value.arithmetic != nil
        case "string": if case .text = value { return true } else { return false }
        case "mapping": if case .dictionary = value { return true } else { return false }
        case "sequence":
            switch value {
            case .text, .list, .tuple, .dictionary, .range, .undefined: return true
            default: return false
            }
        case "iterable":
            switch value {
            case .text, .list, .tuple, .dictionary, .view, .range, .generator, .undefined, .loop: return true
            default: return false
            }
        case "callable":
            switch value {
            case .macro, .function, .method, .joiner, .loop, .undefined: return true
            default: return false
            }
        case "odd", "even":
            return try apply(.remainder, try number(value, name), .integer(2)).equals(.integer(name == "odd" ? 1 : 0))
        case "lower": return try subject(value).isAll(lowercase: true)
        case "upper": return try subject(value).isAll(lowercase: false)
        case "escaped": return false
        case "filter", "test":
            guard case .text(let text) = value else { return false }
            return (name == "filter" ? Self.filterNames : Self.testNames).contains(text.string)
        default: throw failure(.unsupported, "there is no test '\(name)'")
        }
    }

    private func number(_ value: TemplateObject, _ test: String) throws(TemplateError) -> TemplateObject {
        if case .undefined(let undefined) = value { throw failure(.undefined, undefined.message) }
        guard value.arithmetic != nil else {
            throw failure(.invalidOperation, "the test '\(test)' needs a number, found \(value.typeName)")
        }
        return value
    }

    /// Python's `is`, as far as it means anything for values without identity: the same kind and equal.
    private func isSame(_ left: TemplateObject, _ right: TemplateObject) -> Bool {
        switch (left, right) {
        case (.bool(let a), .bool(let b)): a == b
        case (.bool, _), (_, .bool): false
        case (.integer, .number), (.number, .integer): false
        default: left.equals(right)
        }
    }
}
