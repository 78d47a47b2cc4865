/// The evaluated arguments of a call.
struct TemplateArguments {
    var positional: [TemplateObject] = []
    var named: [(name: String, value: TemplateObject)] = []

    var isEmpty: Bool { positional.isEmpty && named.isEmpty }
}

extension TemplateInterpreter {
    func evaluate(_ call: TemplateCall) throws(TemplateError) -> TemplateArguments {
        var arguments = TemplateArguments()
        for expression in call.positional { arguments.positional.append(try evaluate(expression)) }
        if let sequence = call.sequence { arguments.positional += try elements(of: try evaluate(sequence)) }
        for (name, expression) in call.named {
            guard !arguments.named.contains(where: { $0.name == name }) else {
                throw failure(.invalidOperation, "a call gives the argument '\(name)' twice")
            }
            arguments.named.append((name, try evaluate(expression)))
        }
        if let mapping = call.mapping {
            guard case .dictionary(let dictionary) = try evaluate(mapping) else {
                throw failure(.invalidOperation, "the value after '**' in a call is not a dictionary")
            }
            for entry in dictionary.entries {
                guard case .text(let name) = entry.key else {
                    throw failure(.invalidOperation, "the dictionary after '**' in a call has a key that is no string")
                }
                arguments.named.append((name.string, entry.value))
            }
        }
        return arguments
    }

    /// Sorts arguments into parameters; nil where none was given. `required` counts the parameters without default.
    func bind(_ arguments: TemplateArguments, to parameters: [String], required: Int = 0, of function: String) throws(TemplateError) -> [TemplateObject?] {
        var values = [TemplateObject?](repeating: nil, count: parameters.count)
        guard arguments.positional.count <= parameters.count else {
            throw failure(.invalidOperation, "\(function) takes at most \(parameters.count) arguments, found \(arguments.positional.count)")
        }
        for (index, value) in arguments.positional.enumerated() { values[index] = value }
        for (name, value) in arguments.named {
            guard let index = parameters.firstIndex(of: name) else {
                throw failure(.invalidOperation, "\(function) takes no argument named '\(name)'")
            }
            guard values[index] == nil else { throw failure(.invalidOperation, "\(function) got the argument '\(name)' twice") }
            values[index] = value
        }
        for index in 0..<required where values[index] == nil {
            throw failure(.invalidOperation, "\(function) needs the argument '\(parameters[index])'")
        }
        return values
    }

    /// The integer that an argument holds; nil for an absent argument.
    func integer(_ object: TemplateObject?, _ name: String) throws(TemplateError) -> Int? {
        switch object {
        case nil: return nil
        case .integer(let value): return value
        case .bool(let value): return value ? 1 : 0
        case .some(let other): throw failure(.invalidOperation, "the argument '\(name)' must be an integer, found \(other.typeName)")
        }
    }

    /// The text that an argument holds; nil for an absent argument and for none.
    func text(_ object: TemplateObject?, _ name: String) throws(TemplateError) -> TemplateText? {
        switch object {
        case nil, .some(.none): return nil
        case .text(let text): return text
        case .some(let other):
            if case .undefined(let undefined) = other { throw failure(.undefined, undefined.message) }
            throw failure(.invalidOperation, "the argument '\(name)' must be a string, found \(other.typeName)")
        }
    }
}
