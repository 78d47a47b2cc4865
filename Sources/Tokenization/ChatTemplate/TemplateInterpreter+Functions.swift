/// The functions that every template can call.
extension TemplateInterpreter {
    /// As many elements as Jinja's sandbox lets a range have.
    private static let maximumRange = 100_000

    func call(_ function: TemplateFunction, _ arguments: TemplateArguments) throws(TemplateError) -> TemplateObject {
        switch function {
        case .raiseException:
            let values = try bind(arguments, to: ["message"], required: 1, of: "raise_exception")
            let text = try text(of: values[0] ?? .none)
            throw TemplateError(code: .raised, message: text.string, line: line, quotesRequest: !text.pieces.allSatisfy(\.isTrusted))
        case .strftimeNow:
            let values = try bind(arguments, to: ["format"], required: 1, of: "strftime_now")
            guard let format = try text(values[0], "format") else { throw failure(.invalidOperation, "strftime_now needs a format") }
            return .text(TemplateText(clock.now().formatted(format.string)))
        case .range: return .range(try range(arguments))
        case .namespace:
            let namespace = makeNamespace()
            for (name, value) in try members(arguments, of: "namespace") {
                guard case .text(let text) = name else { throw failure(.invalidOperation, "a namespace's names are strings") }
                if text.string.hasPrefix("_") {
                    throw failure(.unsupported, "a namespace cannot hold '\(text.string)'; names must not begin with '_'")
                }
                namespace.set(text, value)
            }
            return .namespace(namespace)
        case .dict:
            let dictionary = TemplateDictionary()
            for (name, value) in try members(arguments, of: "dict") { dictionary.set(name, key: try key(name), value) }
            return try checkNesting(.dictionary(dictionary))
        case .joiner:
            let values = try bind(arguments, to: ["sep"], of: "joiner")
            return .joiner(TemplateJoiner(separator: try text(values[0], "sep") ?? ", "))
        case .cycler:
            guard arguments.named.isEmpty, !arguments.positional.isEmpty else {
                throw failure(.invalidOperation, "cycler needs at least one item, and none by name")
            }
            return try checkNesting(.cycler(TemplateCycler(arguments.positional)))
        }
    }

    private func range(_ arguments: TemplateArguments) throws(TemplateError) -> TemplateRange {
        var numbers: [Int] = []
        for argument in arguments.positional {
            if case .undefined(let undefined) = argument { throw failure(.undefined, undefined.message) }
            numbers.append(try integer(argument, "range") ?? 0)
        }
        guard arguments.named.isEmpty, (1...3).contains(numbers.count) else {
            throw failure(.invalidOperation, "range takes one to three integers")
        }
        let start = numbers.count == 1 ? 0 : numbers[0]
        let stop = numbers.count == 1 ? numbers[0] : numbers[1]
        let step = numbers.count == 3 ? numbers[2] : 1
        if step == 0 { throw failure(.invalidOperation, "the step of a range is zero") }
        let bound = Int.max / 4
        guard abs(Double(start)) < Double(bound), abs(Double(stop)) < Double(bound), abs(Double(step)) < Double(bound) else {
            throw failure(.invalidOperation, "the numbers of a range are too large")
        }
        let range = TemplateRange(start: start, stop: stop, step: step)
        guard range.count <= Self.maximumRange else {
            throw failure(.invalidOperation, "a range has \(range.count) elements; the limit is \(Self.maximumRange)")
        }
        return range
    }

    /// The members that `dict(…)` or `namespace(…)` is given: a dictionary or pairs, then names.
    private func members(_ arguments: TemplateArguments, of function: String) throws(TemplateError) -> [(TemplateObject, TemplateObject)] {
        guard arguments.positional.count <= 1 else {
            throw failure(.invalidOperation, "\(function) takes at most one argument without name")
        }
        var result: [(TemplateObject, TemplateObject)] = []
        if let first = arguments.positional.first {
            if case .dictionary(let dictionary) = first {
                result = dictionary.entries.map { ($0.key, $0.value) }
            } else {
                for pair in try elements(of: first) {
                    let parts = try elements(of: pair)
                    guard parts.count == 2 else { throw failure(.invalidOperation, "\(function) needs pairs of a key and a value") }
                    result.append((parts[0], parts[1]))
                }
            }
        }
        for (name, value) in arguments.named { result.append((.text(TemplateText(name)), value)) }
        try spend(result.count)
        return result
    }
}
