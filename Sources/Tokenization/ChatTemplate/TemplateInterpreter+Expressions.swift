extension TemplateInterpreter {
    /// The value of an expression. Each kind with locals of its own has a function, to keep this recursive one's frame small.
    func evaluate(_ expression: TemplateExpression) throws(TemplateError) -> TemplateObject {
        try spend(1)
        switch expression {
        case .none: return .none
        case .bool(let value): return .bool(value)
        case .integer(let value): return .integer(value)
        case .number(let value): return .number(value)
        case .text(let text): return .text(text)
        case .name(let name): return lookUp(name)
        case .collectedText: return .text(collectedText)
        default: break
        }
        try enter()
        defer { leave() }
        switch expression {
        case .attribute(let object, let name): return try attribute(name, of: try evaluate(object))
        case .item(let object, let key): return try item(try evaluate(key), of: try evaluate(object))
        case .comparison(let first, let rest): return .bool(try evaluateComparison(first, rest))
        case .binary: return try evaluateBinary(expression)
        case .and, .or: return try evaluateLogic(expression)
        case .negation(let operand): return .bool(!(try evaluate(operand).isTrue))
        case .filter(let operand, let name, let call): return try evaluateFilter(operand, name, call)
        case .test(let operand, let name, let call): return try evaluateTest(operand, name, call)
        case .call(let callee, let call): return try evaluateCall(callee, call)
        case .conditional(let test, let then, let otherwise):
            if try evaluate(test).isTrue { return try evaluate(then) }
            if let otherwise { return try evaluate(otherwise) }
            return .missing("the inline 'if' on line \(line) was false and has no 'else'")
        case .slice(let object, let start, let stop, let step): return try evaluateSlice(object, start, stop, step)
        case .concatenation(let parts): return try evaluateConcatenation(parts)
        default: return try evaluateLiteral(expression)
        }
    }

    private func lookUp(_ name: Int) -> TemplateObject {
        scope.lookUp(name) ?? .undefined(TemplateUndefined(.name(program.names[name])))
    }

    private func evaluateLiteral(_ expression: TemplateExpression) throws(TemplateError) -> TemplateObject {
        switch expression {
        case .list(let expressions): return try checkNesting(.list(try evaluateAll(expressions)))
        case .tuple(let expressions): return try checkNesting(.tuple(try evaluateAll(expressions)))
        case .dictionary(let members):
            let dictionary = TemplateDictionary(capacity: members.count)
            for member in members {
                let key = try evaluate(member.key)
                dictionary.set(key, key: try self.key(key), try evaluate(member.value))
            }
            return try checkNesting(.dictionary(dictionary))
        case .minus(let operand): return try negate(try evaluate(operand))
        case .plus(let operand): return try plus(try evaluate(operand))
        default: return .none
        }
    }

    private func evaluateAll(_ expressions: [TemplateExpression]) throws(TemplateError) -> [TemplateObject] {
        var values: [TemplateObject] = []
        values.reserveCapacity(expressions.count)
        for expression in expressions { values.append(try evaluate(expression)) }
        return values
    }

    /// A chain of operators is a left-leaning tree; walking down its left side in a loop costs no stack.
    private func evaluateBinary(_ expression: TemplateExpression) throws(TemplateError) -> TemplateObject {
        var pending: [(op: TemplateOperator, right: TemplateExpression)] = []
        var leftmost = expression
        while case .binary(let op, let left, let right) = leftmost {
            pending.append((op, right))
            leftmost = left
        }
        var value = try evaluate(leftmost)
        while let (op, right) = pending.popLast() {
            value = try apply(op, value, try evaluate(right))
        }
        return value
    }

    private func evaluateLogic(_ expression: TemplateExpression) throws(TemplateError) -> TemplateObject {
        var pending: [(isAnd: Bool, right: TemplateExpression)] = []
        var leftmost = expression
        while true {
            if case .and(let left, let right) = leftmost {
                pending.append((true, right))
                leftmost = left
            } else if case .or(let left, let right) = leftmost {
                pending.append((false, right))
                leftmost = left
            } else {
                break
            }
        }
        var value = try evaluate(leftmost)
        while let (isAnd, right) = pending.popLast() {
            if value.isTrue == isAnd { value = try evaluate(right) }
        }
        return value
    }

    private func evaluateConcatenation(_ parts: [TemplateExpression]) throws(TemplateError) -> TemplateObject {
        var result = TemplateText()
        for part in parts {
            result.append(try text(of: try evaluate(part)))
            try spend(bytes: result.byteCount)
        }
        return .text(result)
    }

    private func evaluateComparison(
        _ first: TemplateExpression, _ rest: [(relation: TemplateComparison, operand: TemplateExpression)]
    ) throws(TemplateError) -> Bool {
        var left = try evaluate(first)
        for (comparison, operand) in rest {
            let right = try evaluate(operand)
            guard try compare(left, comparison, right) else { return false }
            left = right
        }
        return true
    }

    private func evaluateSlice(
        _ object: TemplateExpression, _ start: TemplateExpression?, _ stop: TemplateExpression?, _ step: TemplateExpression?
    ) throws(TemplateError) -> TemplateObject {
        let value = try evaluate(object)
        func position(_ expression: TemplateExpression?) throws(TemplateError) -> Int? {
            guard let expression else { return nil }
            switch try evaluate(expression) {
            case .none: return nil
            case .integer(let value): return value
            case .bool(let value): return value ? 1 : 0
            case let other: throw failure(.invalidOperation, "a slice needs integers, found \(other.typeName)")
            }
        }
        let slice = TemplateSlice(start: try position(start), stop: try position(stop), step: try position(step))
        if slice.step == 0 { throw failure(.invalidOperation, "the step of a slice is zero") }
        return try self.slice(value, slice)
    }

    func slice(_ value: TemplateObject, _ slice: TemplateSlice) throws(TemplateError) -> TemplateObject {
        switch value {
        case .text(let text):
            try spend(text.byteCount >> 6)
            return .text(text.sliced(slice))
        case .list(let elements): return .list(try pick(elements, slice))
        case .tuple(let elements): return .tuple(try pick(elements, slice))
        case .range(let range):
            let (start, stop, step) = slice.resolved(count: range.count)
            return .range(TemplateRange(start: range[start], stop: range[stop], step: range.step &* step))
        case .undefined(let undefined): throw failure(.undefined, undefined.message)
        default: throw failure(.invalidOperation, "\(value.typeName) has no slices")
        }
    }

    private func pick(_ elements: [TemplateObject], _ slice: TemplateSlice) throws(TemplateError) -> [TemplateObject] {
        let (start, stop, step) = slice.resolved(count: elements.count)
        if step == 1 {
            guard start < stop else { return [] }
            try spend(stop - start)
            return Array(elements[start..<stop])
        }
        let indices = slice.indices(count: elements.count)
        try spend(indices.count)
        return indices.map { elements[$0] }
    }

    private func evaluateFilter(_ operand: TemplateExpression, _ name: String, _ call: TemplateCall) throws(TemplateError) -> TemplateObject {
        let value = try evaluate(operand)
        return try filter(name, value, try evaluate(call))
    }

    private func evaluateTest(_ operand: TemplateExpression, _ name: String, _ call: TemplateCall) throws(TemplateError) -> TemplateObject {
        let value = try evaluate(operand)
        return .bool(try test(name, value, try evaluate(call)))
    }

    private func evaluateCall(_ callee: TemplateExpression, _ call: TemplateCall) throws(TemplateError) -> TemplateObject {
        let function = try evaluate(callee)
        return try self.call(function, try evaluate(call))
    }

    func call(_ callee: TemplateObject, _ arguments: TemplateArguments) throws(TemplateError) -> TemplateObject {
        switch callee {
        case .method(let method): return try invoke(method, arguments)
        case .function(let function): return try call(function, arguments)
        case .macro(let macro): return .text(try call(macro, arguments))
        case .loop(let loop):
            let values = try bind(arguments, to: ["iterable"], required: 1, of: "loop")
            return .text(try recurse(loop, over: values[0] ?? .none))
        case .joiner(let joiner):
            if joiner.wasUsed { return .text(joiner.separator) }
            joiner.wasUsed = true
            return .text(TemplateText())
        case .undefined(let undefined): throw failure(.undefined, undefined.message)
        default: throw failure(.invalidOperation, "\(callee.typeName) cannot be called")
        }
    }

    // MARK: Attributes and items

    /// `object.name`: a method or attribute first, then the item of that name.
    func attribute(_ name: String, of object: TemplateObject) throws(TemplateError) -> TemplateObject {
        switch object {
        case .dictionary(let dictionary):
            if Self.dictionaryMethods.contains(name) { return .method(TemplateMethod(object, name)) }
            if let value = dictionary.value(of: TemplateText(name)) { return value }
        case .text:
            if Self.textMethods.contains(name) { return .method(TemplateMethod(object, name)) }
        case .list:
            if Self.listMethods.contains(name) { return .method(TemplateMethod(object, name)) }
        case .tuple:
            if Self.tupleMethods.contains(name) { return .method(TemplateMethod(object, name)) }
        case .number:
            if name == "is_integer" { return .method(TemplateMethod(object, name)) }
        case .namespace(let namespace):
            if let value = namespace.value(of: TemplateText(name)) { return value }
        case .loop(let loop):
            if let value = try attribute(name, of: loop) { return value }
        case .macro(let macro):
            if name == "name" { return .text(TemplateText(macro.syntax.name)) }
            if name == "arguments" { return .tuple(macro.syntax.parameters.map { .text(TemplateText(program.names[$0.name])) }) }
        case .cycler(let cycler):
            if name == "current" { return cycler.current }
            if name == "next" || name == "reset" { return .method(TemplateMethod(object, name)) }
        case .function(.dict):
            if name == "fromkeys" { return .method(TemplateMethod(object, name)) }
        case .range(let range):
            switch name {
            case "start": return .integer(range.start)
            case "stop": return .integer(range.stop)
            case "step": return .integer(range.step)
            default: break
            }
        case .undefined(let undefined):
            throw failure(.undefined, undefined.message)
        case .none, .bool, .integer, .view, .generator, .method, .function, .joiner:
            break
        }
        return .undefined(TemplateUndefined(.attribute(of: object.ownerName, name)))
    }

    private func attribute(_ name: String, of loop: TemplateLoop) throws(TemplateError) -> TemplateObject? {
        switch name {
        case "index": return .integer(loop.index + 1)
        case "index0": return .integer(loop.index)
        case "first": return .bool(loop.index == 0)
        case "last": return .bool(try following(loop) == nil)
        case "length": return .integer(try length(of: loop))
        case "revindex": return .integer(try length(of: loop) - loop.index)
        case "revindex0": return .integer(try length(of: loop) - loop.index - 1)
        case "depth": return .integer(loop.depth + 1)
        case "depth0": return .integer(loop.depth)
        case "previtem": return loop.index == 0 ? .missing("there is no previous item") : loop.previous
        case "nextitem": return try following(loop) ?? .missing("there is no next item")
        case "cycle", "changed": return .method(TemplateMethod(.loop(loop), name))
        default: return nil
        }
    }

    /// `object[key]`: an item first, then, for a string, the method or attribute of that name.
    func item(_ key: TemplateObject, of object: TemplateObject) throws(TemplateError) -> TemplateObject {
        switch object {
        case .dictionary(let dictionary):
            if case .text(let text) = key {
                if let value = dictionary.value(of: text) { return value }
            } else if let key = TemplateDictionary.Key(key), let value = dictionary.value(of: key) {
                return value
            }
        case .list(let elements), .tuple(let elements):
            if let index = index(key, count: elements.count) { return elements[index] }
        case .range(let range):
            if let index = index(key, count: range.count) { return .integer(range[index]) }
        case .text(let text):
            switch key {
            case .integer, .bool:
                try spend(text.byteCount >> 6)
                if let index = index(key, count: text.scalarCount) {
                    let start = text.offset(ofScalar: index)
                    return .text(text[start..<(start + text.scalar(at: start).length)])
                }
            default: break
            }
        case .undefined(let undefined):
            throw failure(.undefined, undefined.message)
        default:
            break
        }
        guard case .text(let name) = key else {
            let keyText = TemplateText.joined([try representation(of: key)], separator: TemplateText()).string
            return .undefined(TemplateUndefined(.element(of: object.ownerName, keyText)))
        }
        let found = try attribute(name.string, of: object)
        if case .undefined = found { return .undefined(TemplateUndefined(.attribute(of: object.ownerName, name.string))) }
        return found
    }

    private func index(_ key: TemplateObject, count: Int) -> Int? {
        let position: Int
        switch key {
        case .integer(let value): position = value < 0 ? value + count : value
        case .bool(let value): position = value ? 1 : 0
        default: return nil
        }
        return position >= 0 && position < count ? position : nil
    }

    /// The hashable form of a dictionary's key.
    func key(_ object: TemplateObject) throws(TemplateError) -> TemplateDictionary.Key {
        guard let key = TemplateDictionary.Key(object) else {
            throw failure(.invalidOperation, "\(object.typeName) cannot be a dictionary's key")
        }
        return key
    }
}
