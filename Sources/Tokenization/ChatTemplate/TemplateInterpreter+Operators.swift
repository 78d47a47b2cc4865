#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

extension TemplateInterpreter {
    private func unsupported(_ op: String, _ left: TemplateObject, _ right: TemplateObject) -> TemplateError {
        if case .undefined(let undefined) = left { return failure(.undefined, undefined.message) }
        if case .undefined(let undefined) = right { return failure(.undefined, undefined.message) }
        return failure(.invalidOperation, "'\(op)' does not work between \(left.typeName) and \(right.typeName)")
    }

    private func overflow(_ op: String) -> TemplateError { failure(.invalidOperation, "the result of '\(op)' exceeds 64 bits") }

    // MARK: Arithmetic

    func apply(_ op: TemplateOperator, _ left: TemplateObject, _ right: TemplateObject) throws(TemplateError) -> TemplateObject {
        switch (op, left, right) {
        case (.add, .text(var a), .text(let b)):
            try spend(bytes: a.byteCount + b.byteCount)
            a.append(b)
            return .text(a)
        case (.add, .list(let a), .list(let b)):
            try spend(a.count + b.count)
            return .list(a + b)
        case (.add, .tuple(let a), .tuple(let b)):
            try spend(a.count + b.count)
            return .tuple(a + b)
        case (.remainder, .text(let format), _): return .text(try formatPercent(format, right))
        case (.multiply, _, _): return try multiply(left, right)
        default: break
        }
        guard let a = left.arithmetic, let b = right.arithmetic else { throw unsupported(op.rawValue, left, right) }
        if case (.integer(let a), .integer(let b)) = (a, b) { return try apply(op, a, b) }
        return .number(try apply(op, a.double, b.double))
    }

    private func multiply(_ left: TemplateObject, _ right: TemplateObject) throws(TemplateError) -> TemplateObject {
        if let a = left.arithmetic, let b = right.arithmetic {
            if case (.integer(let a), .integer(let b)) = (a, b) { return try apply(.multiply, a, b) }
            return .number(a.double * b.double)
        }
        let (sequence, factor) = left.arithmetic == nil ? (left, right) : (right, left)
        guard case .integer(let number)? = factor.arithmetic else { throw unsupported("*", left, right) }
        let count = max(number, 0)
        switch sequence {
        case .text(let text):
            let (size, overflows) = text.byteCount.multipliedReportingOverflow(by: count)
            try spend(bytes: overflows ? .max : size)
            return .text(text.repeated(count))
        case .list(let elements): return .list(try repeated(elements, count))
        case .tuple(let elements): return .tuple(try repeated(elements, count))
        default: throw unsupported("*", left, right)
        }
    }

    private func repeated(_ elements: [TemplateObject], _ count: Int) throws(TemplateError) -> [TemplateObject] {
        let (size, overflows) = elements.count.multipliedReportingOverflow(by: count)
        try spend(overflows ? .max / 2 : size)
        return Array(repeatElement(elements, count: elements.isEmpty ? 0 : count).joined())
    }

    private func apply(_ op: TemplateOperator, _ a: Int, _ b: Int) throws(TemplateError) -> TemplateObject {
        let (value, overflows): (Int, Bool)
        switch op {
        case .add: (value, overflows) = a.addingReportingOverflow(b)
        case .subtract: (value, overflows) = a.subtractingReportingOverflow(b)
        case .multiply: (value, overflows) = a.multipliedReportingOverflow(by: b)
        case .divide: return .number(try apply(.divide, Double(a), Double(b)))
        case .floorDivide, .remainder:
            guard b != 0 else { throw failure(.invalidOperation, "division by zero") }
            guard b != -1 else { return op == .remainder ? .integer(0) : try apply(.subtract, 0, a) }
            let (quotient, remainder) = a.quotientAndRemainder(dividingBy: b)
            // Python rounds down, and the remainder takes the divisor's sign.
            let isBelow = remainder != 0 && (remainder < 0) != (b < 0)
            return .integer(op == .floorDivide ? (isBelow ? quotient - 1 : quotient) : (isBelow ? remainder + b : remainder))
        case .power:
            guard b >= 0 else { return .number(try apply(.power, Double(a), Double(b))) }
            var result = 1
            for _ in 0..<b {
                if result == 0 || (a == 1 || (a == -1 && b % 2 == 0)) { break }
                if a == -1 { return .integer(-1) }
                let (product, overflows) = result.multipliedReportingOverflow(by: a)
                if overflows { throw overflow(op.rawValue) }
                result = product
            }
            return .integer(result)
        }
        if overflows { throw overflow(op.rawValue) }
        return .integer(value)
    }

    private func apply(_ op: TemplateOperator, _ a: Double, _ b: Double) throws(TemplateError) -> Double {
        switch op {
        case .add: return a + b
        case .subtract: return a - b
        case .multiply: return a * b
        case .power:
            if a == 0, b < 0 { throw failure(.invalidOperation, "division by zero") }
            return pow(a, b)
        case .divide, .floorDivide, .remainder:
            guard b != 0 else { throw failure(.invalidOperation, "division by zero") }
            if op == .divide { return a / b }
            var remainder = fmod(a, b)
            if remainder != 0, (remainder < 0) != (b < 0) { remainder += b }
            if op == .remainder { return remainder == 0 ? (b < 0 ? -0.0 : 0.0) : remainder }
            // As CPython: the quotient is rounded from the exact difference, not from a / b.
            let quotient = (a - remainder) / b
            if quotient == 0 { return (a / b).sign == .minus ? -0.0 : 0.0 }
            let floored = quotient.rounded(.down)
            return quotient - floored > 0.5 ? floored + 1 : floored
        }
    }

    func negate(_ value: TemplateObject) throws(TemplateError) -> TemplateObject {
        switch value.arithmetic {
        case .integer(let number): return try apply(.subtract, 0, number)
        case .number(let number): return .number(-number)
        case nil: throw unsupportedUnary("-", value)
        }
    }

    func plus(_ value: TemplateObject) throws(TemplateError) -> TemplateObject {
        switch value.arithmetic {
        case .integer(let number): return .integer(number)
        case .number(let number): return .number(number)
        case nil: throw unsupportedUnary("+", value)
        }
    }

    private func unsupportedUnary(_ op: String, _ value: TemplateObject) -> TemplateError {
        if case .undefined(let undefined) = value { return failure(.undefined, undefined.message) }
        return failure(.invalidOperation, "'\(op)' does not work on \(value.typeName)")
    }

    // MARK: Comparison

    func compare(_ left: TemplateObject, _ comparison: TemplateComparison, _ right: TemplateObject) throws(TemplateError) -> Bool {
        switch comparison {
        case .equal, .notEqual:
            try spendForComparison(left, right)
            return left.equals(right) == (comparison == .equal)
        case .less: return try isLess(left, right, "<")
        case .greater: return try isLess(right, left, ">")
        case .lessOrEqual: return try isLessOrEqual(left, right, "<=")
        case .greaterOrEqual: return try isLessOrEqual(right, left, ">=")
        case .contained: return try contains(right, left)
        case .notContained: return !(try contains(right, left))
        }
    }

    private func spendForComparison(_ left: TemplateObject, _ right: TemplateObject) throws(TemplateError) {
        switch (left, right) {
        case (.text(let a), .text(let b)): try spend(min(a.byteCount, b.byteCount) >> 8)
        case (.list(let a), .list(let b)), (.tuple(let a), .tuple(let b)): try spend(min(a.count, b.count))
        case (.dictionary(let a), .dictionary(let b)): try spend(min(a.count, b.count))
        default: break
        }
    }

    func isLess(_ left: TemplateObject, _ right: TemplateObject, _ op: String = "<") throws(TemplateError) -> Bool {
        switch (left, right) {
        case (.text(let a), .text(let b)): return a < b
        case (.list(let a), .list(let b)), (.tuple(let a), .tuple(let b)):
            for (x, y) in zip(a, b) where !x.equals(y) { return try isLess(x, y, op) }
            return a.count < b.count
        default:
            guard let a = left.arithmetic, let b = right.arithmetic else { throw unsupported(op, left, right) }
            return a < b
        }
    }

    private func isLessOrEqual(_ left: TemplateObject, _ right: TemplateObject, _ op: String) throws(TemplateError) -> Bool {
        if let a = left.arithmetic, let b = right.arithmetic { return a < b || a == b }
        if case (.list, .list) = (left, right), left.equals(right) { return true }
        if case (.tuple, .tuple) = (left, right), left.equals(right) { return true }
        if case (.text(let a), .text(let b)) = (left, right) { return a <= b }
        return try isLess(left, right, op)
    }

    /// `element in container`.
    func contains(_ container: TemplateObject, _ element: TemplateObject) throws(TemplateError) -> Bool {
        switch container {
        case .text(let text):
            guard case .text(let wanted) = element else {
                if case .undefined(let undefined) = element { throw failure(.undefined, undefined.message) }
                throw failure(.invalidOperation, "'in' on a string needs a string on its left, found \(element.typeName)")
            }
            try spend(text.byteCount >> 8)
            return text.offset(of: wanted) != nil
        case .dictionary(let dictionary), .view(let dictionary, .keys):
            if element.isUndefined { return false }
            return dictionary.value(of: try key(element)) != nil
        case .undefined: return false
        default:
            let elements = try elements(of: container)
            try spend(elements.count)
            return elements.contains { $0.equals(element) }
        }
    }

    // MARK: Iteration

    /// What a for loop over the value walks through; takes everything from a generator.
    func elements(of value: TemplateObject) throws(TemplateError) -> [TemplateObject] {
        switch value {
        case .list(let elements), .tuple(let elements): return elements
        case .dictionary(let dictionary):
            try spend(dictionary.count)
            return dictionary.elements(of: .keys)
        case .view(let dictionary, let kind):
            try spend(dictionary.count)
            return dictionary.elements(of: kind)
        case .range(let range):
            try spend(range.count)
            return (0..<range.count).map { .integer(range[$0]) }
        case .generator(let generator): return generator.drain()
        case .text(let text):
            try spend(text.byteCount)
            return text.characters.map { .text($0) }
        case .undefined: return []
        default: throw failure(.invalidOperation, "\(value.typeName) cannot be iterated over")
        }
    }

    /// Python's `len`; nil for what has none.
    func length(of value: TemplateObject) throws(TemplateError) -> Int? {
        switch value {
        case .text(let text):
            try spend(text.byteCount >> 8)
            return text.scalarCount
        case .list(let elements), .tuple(let elements): return elements.count
        case .dictionary(let dictionary), .view(let dictionary, _): return dictionary.count
        case .range(let range): return range.count
        case .loop(let loop): return try length(of: loop)
        case .undefined: return 0
        default: return nil
        }
    }
}
