extension TemplateParser {
    /// Reads one expression, or several with commas between them as a tuple.
    mutating func parseTuple(
        withConditional: Bool = true, endsAtRecursive: Bool = false, isParenthesized: Bool = false
    ) throws(TemplateError) -> TemplateExpression {
        var elements: [TemplateExpression] = []
        var isTuple = false
        while true {
            if isTupleEnd || (endsAtRecursive && isName("recursive")) { break }
            elements.append(withConditional ? try parseExpression() : try parseOr())
            guard skipSymbol(",") else { break }
            isTuple = true
        }
        if !isTuple {
            if let element = elements.first { return element }
            guard isParenthesized else { throw unexpected("expected an expression") }
        }
        return .tuple(elements)
    }

    private var isTupleEnd: Bool { current.kind == .variableEnd || current.kind == .blockEnd || isSymbol(")") }

    mutating func parseExpression() throws(TemplateError) -> TemplateExpression {
        try enter()
        defer { leave() }
        var expression = try parseOr()
        var chain = 0
        while skipName("if") {
            try link(&chain)
            let test = try parseOr()
            let otherwise = skipName("else") ? try parseExpression() : nil
            expression = .conditional(test: test, then: expression, otherwise: otherwise)
        }
        return expression
    }

    private mutating func parseOr() throws(TemplateError) -> TemplateExpression {
        var left = try parseAnd()
        var chain = 0
        while skipName("or") {
            try link(&chain)
            left = .or(left, try parseAnd())
        }
        return left
    }

    private mutating func parseAnd() throws(TemplateError) -> TemplateExpression {
        var left = try parseNot()
        var chain = 0
        while skipName("and") {
            try link(&chain)
            left = .and(left, try parseNot())
        }
        return left
    }

    private mutating func parseNot() throws(TemplateError) -> TemplateExpression {
        guard isName("not") else { return try parseComparison() }
        advance()
        try enter()
        defer { leave() }
        return .negation(try parseNot())
    }

    private mutating func parseComparison() throws(TemplateError) -> TemplateExpression {
        let first = try parseSum()
        var rest: [(relation: TemplateComparison, operand: TemplateExpression)] = []
        while true {
            let comparison: TemplateComparison
            if case .symbol(let symbol) = current.kind, let known = TemplateComparison(rawValue: symbol) {
                comparison = known
                advance()
            } else if isName("in") {
                comparison = .contained
                advance()
            } else if isName("not"), isNextName("in") {
                comparison = .notContained
                advance()
                advance()
            } else {
                break
            }
            rest.append((comparison, try parseSum()))
        }
        return rest.isEmpty ? first : .comparison(first, rest)
    }

    private mutating func parseSum() throws(TemplateError) -> TemplateExpression {
        var left = try parseConcatenation()
        var chain = 0
        while true {
            try link(&chain)
            if skipSymbol("+") {
                left = .binary(.add, left, try parseConcatenation())
            } else if skipSymbol("-") {
                left = .binary(.subtract, left, try parseConcatenation())
            } else {
                return left
            }
        }
    }

    private mutating func parseConcatenation() throws(TemplateError) -> TemplateExpression {
        var parts = [try parseProduct()]
        while skipSymbol("~") { parts.append(try parseProduct()) }
        return parts.count == 1 ? parts[0] : .concatenation(parts)
    }

    private mutating func parseProduct() throws(TemplateError) -> TemplateExpression {
        var left = try parsePower()
        var chain = 0
        while case .symbol(let symbol) = current.kind, let known = TemplateOperator(rawValue: symbol),
            known == .multiply || known == .divide || known == .floorDivide || known == .remainder
        {
            try link(&chain)
            advance()
            left = .binary(known, left, try parsePower())
        }
        return left
    }

    private mutating func parsePower() throws(TemplateError) -> TemplateExpression {
        var left = try parseUnary()
        var chain = 0
        while skipSymbol("**") {
            try link(&chain)
            left = .binary(.power, left, try parseUnary())
        }
        return left
    }

    private mutating func parseUnary(withFilters: Bool = true) throws(TemplateError) -> TemplateExpression {
        try enter()
        defer { leave() }
        var expression: TemplateExpression
        if skipSymbol("-") {
            expression = .minus(try parseUnary(withFilters: false))
        } else if skipSymbol("+") {
            expression = .plus(try parseUnary(withFilters: false))
        } else {
            expression = try parsePrimary()
        }
        expression = try parsePostfix(on: expression)
        guard withFilters else { return expression }
        var chain = 0
        while true {
            try link(&chain)
            if isSymbol("|") {
                expression = try parseFilters(on: expression, startsInline: false)
            } else if isName("is") {
                expression = try parseTest(on: expression)
            } else if isSymbol("(") {
                expression = .call(expression, try parseCall())
            } else {
                return expression
            }
        }
    }

    private mutating func parsePrimary() throws(TemplateError) -> TemplateExpression {
        switch current.kind {
        case .name(let name):
            advance()
            switch name {
            case "true", "True": return .bool(true)
            case "false", "False": return .bool(false)
            case "none", "None": return .none
            default:
                let number = number(of: name)
                mention(number)
                return .name(number)
            }
        case .string(var text):
            advance()
            while case .string(let more) = current.kind {
                text += more
                advance()
            }
            return .text(TemplateText(text))
        case .integer(let value):
            advance()
            return .integer(value)
        case .number(let value):
            advance()
            return .number(value)
        case .symbol("("):
            advance()
            let expression = try parseTuple(isParenthesized: true)
            try expectSymbol(")")
            return expression
        case .symbol("["):
            advance()
            var elements: [TemplateExpression] = []
            while !isSymbol("]") {
                if !elements.isEmpty {
                    try expectSymbol(",")
                    if isSymbol("]") { break }
                }
                elements.append(try parseExpression())
            }
            try expectSymbol("]")
            return .list(elements)
        case .symbol("{"):
            advance()
            var members: [(key: TemplateExpression, value: TemplateExpression)] = []
            while !isSymbol("}") {
                if !members.isEmpty {
                    try expectSymbol(",")
                    if isSymbol("}") { break }
                }
                let key = try parseExpression()
                try expectSymbol(":")
                members.append((key, try parseExpression()))
            }
            try expectSymbol("}")
            return .dictionary(members)
        default:
            throw unexpected("expected an expression")
        }
    }

    private mutating func parsePostfix(on operand: TemplateExpression) throws(TemplateError) -> TemplateExpression {
        var expression = operand
        var chain = 0
        while true {
            try link(&chain)
            if skipSymbol(".") {
                switch current.kind {
                case .name(let name): expression = .attribute(expression, name)
                case .integer(let index): expression = .item(expression, key: .integer(index))
                default: throw unexpected("expected a name or a number after '.'")
                }
                advance()
            } else if skipSymbol("[") {
                expression = try parseSubscript(of: expression)
            } else if isSymbol("(") {
                expression = .call(expression, try parseCall())
            } else {
                return expression
            }
        }
    }

    private mutating func parseSubscript(of object: TemplateExpression) throws(TemplateError) -> TemplateExpression {
        var start: TemplateExpression?
        if !isSymbol(":") {
            let key = try parseExpression()
            if isSymbol(",") {
                var keys = [key]
                while skipSymbol(",") {
                    if isSymbol("]") { break }
                    keys.append(try parseExpression())
                }
                try expectSymbol("]")
                return .item(object, key: .tuple(keys))
            }
            if skipSymbol("]") { return .item(object, key: key) }
            start = key
        }
        try expectSymbol(":")
        var stop: TemplateExpression?
        var step: TemplateExpression?
        if !isSymbol(":"), !isSymbol("]") { stop = try parseExpression() }
        if skipSymbol(":"), !isSymbol("]") { step = try parseExpression() }
        try expectSymbol("]")
        return .slice(object, start: start, stop: stop, step: step)
    }

    mutating func parseCall() throws(TemplateError) -> TemplateCall {
        let line = current.line
        try expectSymbol("(")
        var call = TemplateCall()
        var isFirst = true
        while !isSymbol(")") {
            if !isFirst {
                try expectSymbol(",")
                if isSymbol(")") { break }
            }
            isFirst = false
            var isInOrder = true
            if skipSymbol("*") {
                isInOrder = call.sequence == nil && call.mapping == nil
                call.sequence = try parseExpression()
            } else if skipSymbol("**") {
                isInOrder = call.mapping == nil
                call.mapping = try parseExpression()
            } else if case .name(let name) = current.kind, isNextSymbol("=") {
                isInOrder = call.mapping == nil
                advance()
                advance()
                call.named.append((name, try parseExpression()))
            } else {
                isInOrder = call.sequence == nil && call.mapping == nil && call.named.isEmpty
                call.positional.append(try parseExpression())
            }
            if !isInOrder { throw failure("the arguments of a call are out of order; positional ones come first", line: line) }
        }
        advance()
        return call
    }

    private mutating func parseDottedName() throws(TemplateError) -> String {
        var name = try expectName()
        while skipSymbol(".") { name += "." + (try expectName()) }
        return name
    }

    /// Reads `| name(…) | …`; with `startsInline` the first bar is absent, as in the tag `filter`.
    mutating func parseFilters(on operand: TemplateExpression, startsInline: Bool) throws(TemplateError) -> TemplateExpression {
        var expression = operand
        var isInline = startsInline
        var chain = 0
        while isInline || isSymbol("|") {
            try link(&chain)
            if !isInline { advance() }
            isInline = false
            let name = try parseDottedName()
            expression = .filter(expression, name: name, isSymbol("(") ? try parseCall() : TemplateCall())
        }
        return expression
    }

    private mutating func parseTest(on operand: TemplateExpression) throws(TemplateError) -> TemplateExpression {
        advance()
        let isNegated = skipName("not")
        let name = try parseDottedName()
        var call = TemplateCall()
        switch current.kind {
        case .symbol("("):
            call = try parseCall()
        case .name("else"), .name("or"), .name("and"):
            break
        case .name("is"):
            throw failure("tests cannot be chained with 'is'; join them with 'and'")
        case .name, .string, .integer, .number, .symbol("["), .symbol("{"):
            call.positional = [try parsePostfix(on: try parsePrimary())]
        default:
            break
        }
        let test = TemplateExpression.test(operand, name: name, call)
        return isNegated ? .negation(test) : test
    }
}
