/// Runs one template once.
///
/// The values that a template sees cannot reach anything outside of it: every attribute, method, filter and test is one
/// of those spelled out in this folder.
final class TemplateInterpreter {
    let program: TemplateProgram
    let budget: TemplateBudget
    let clock: TemplateClock
    var scope: TemplateScope
    /// What was written so far: to the prompt, or to the innermost macro or block that collects its text.
    var output = TemplateText()
    /// What the innermost filter block or block assignment collected.
    var collectedText = TemplateText()
    private var remainingSteps: Int
    private var depth = 0
    /// The line of the statement being executed.
    private(set) var line = 1
    /// Namespaces, and scopes in which macros are defined, can be part of reference cycles; they are emptied at the end.
    private var namespaces: [TemplateNamespace] = []
    private var macroScopes: [TemplateScope] = []

    private enum Flow { case normal, breakLoop, continueLoop }

    static func run(
        _ program: TemplateProgram, context: [(String, TemplateValue)], budget: TemplateBudget, clock: TemplateClock
    ) throws(TemplateError) -> TemplateText {
        let interpreter = TemplateInterpreter(program, context: context, budget: budget, clock: clock)
        defer { interpreter.dissolveCycles() }
        _ = try interpreter.execute(program.body)
        return interpreter.output
    }

    private init(_ program: TemplateProgram, context: [(String, TemplateValue)], budget: TemplateBudget, clock: TemplateClock) {
        self.program = program
        self.budget = budget
        self.clock = clock
        remainingSteps = budget.maximumSteps
        // The context lies outside of the template's own assignments, but is found like them.
        let outermost = TemplateScope(parent: nil)
        for (number, name) in program.names.enumerated() {
            if let value = context.last(where: { $0.0 == name })?.1 {
                outermost.set(number, TemplateObject(value))
            } else if let function = TemplateFunction(rawValue: name) {
                outermost.set(number, .function(function))
            }
        }
        scope = TemplateScope(parent: outermost)
    }

    private func dissolveCycles() {
        for namespace in namespaces { namespace.attributes.removeAll() }
        for scope in macroScopes { scope.removeAll() }
    }

    // MARK: Budget and errors

    func failure(_ code: TemplateError.Code, _ message: String) -> TemplateError {
        TemplateError(code: code, message: message, line: line)
    }

    func spend(_ steps: Int) throws(TemplateError) {
        remainingSteps -= steps
        if remainingSteps < 0 {
            throw failure(.stepLimit, "rendering takes more than the limit of \(budget.maximumSteps) steps (TemplateBudget.maximumSteps)")
        }
    }

    /// Accounts for a text of this size that is about to be made.
    func spend(bytes: Int) throws(TemplateError) {
        if bytes > budget.maximumOutputBytes {
            throw failure(
                .outputLimit, "a text grows beyond the limit of \(budget.maximumOutputBytes) bytes (TemplateBudget.maximumOutputBytes)")
        }
        try spend(bytes >> 8)
    }

    func enter() throws(TemplateError) {
        depth += 1
        if depth > budget.maximumDepth {
            throw failure(
                .depthLimit,
                "expressions, blocks and macro calls nest deeper than the limit of \(budget.maximumDepth) (TemplateBudget.maximumDepth)")
        }
    }

    func leave() { depth -= 1 }

    /// How deep lists and dictionaries may contain each other; taking them apart recurses that deep.
    static let maximumNesting = 100

    /// Refuses a value that was just put together if it nests too deeply.
    func checkNesting(_ object: TemplateObject) throws(TemplateError) -> TemplateObject {
        try checkNesting(object, remaining: Self.maximumNesting)
        return object
    }

    private func checkNesting(_ object: TemplateObject, remaining: Int) throws(TemplateError) {
        guard remaining > 0 else {
            throw failure(.depthLimit, "lists and dictionaries nest deeper than the limit of \(Self.maximumNesting)")
        }
        let elements: [TemplateObject]
        switch object {
        case .list(let list), .tuple(let list): elements = list
        case .loop(let loop): elements = loop.elements
        case .cycler(let cycler): elements = cycler.elements
        case .generator(let generator): elements = generator.rest
        case .method(let method): elements = [method.receiver]
        case .dictionary(let dictionary), .view(let dictionary, _):
            try spend(dictionary.count)
            for entry in dictionary.entries {
                try checkNesting(entry.key, remaining: remaining - 1)
                try checkNesting(entry.value, remaining: remaining - 1)
            }
            return
        default: return
        }
        try spend(elements.count)
        for element in elements { try checkNesting(element, remaining: remaining - 1) }
    }

    func makeNamespace() -> TemplateNamespace {
        let namespace = TemplateNamespace()
        namespaces.append(namespace)
        return namespace
    }

    // MARK: Statements

    private func write(_ text: TemplateText) throws(TemplateError) {
        output.append(text)
        try spend(text.byteCount >> 8)
        if output.byteCount > budget.maximumOutputBytes { try spend(bytes: output.byteCount) }
    }

    private func execute(_ body: [TemplateStatement]) throws(TemplateError) -> Flow {
        for statement in body {
            line = statement.line
            try spend(1)
            let flow: Flow
            switch statement.kind {
            case .data(let text):
                try write(text)
                continue
            case .output(let expression):
                try write(try text(of: try evaluate(expression)))
                continue
            case .assign(let target, let expression):
                try assign(target, try evaluate(expression))
                continue
            case .branch(let branches, let otherwise): flow = try executeBranch(branches, otherwise: otherwise)
            case .loop(let syntax): flow = try executeLoop(syntax)
            case .breakLoop: return .breakLoop
            case .continueLoop: return .continueLoop
            case .scope(let body): flow = try executeInScope(body)
            default: flow = try executeRare(statement)
            }
            if flow != .normal { return flow }
        }
        return .normal
    }

    private func executeBranch(
        _ branches: [(test: TemplateExpression, body: [TemplateStatement])], otherwise: [TemplateStatement]
    ) throws(TemplateError) -> Flow {
        try enter()
        defer { leave() }
        for branch in branches where try evaluate(branch.test).isTrue {
            return try execute(branch.body)
        }
        return try execute(otherwise)
    }

    /// The statements that few templates use, apart from `execute` to keep its stack frame small.
    private func executeRare(_ statement: TemplateStatement) throws(TemplateError) -> Flow {
        switch statement.kind {
        case .macro(let syntax):
            if macroScopes.last !== scope { macroScopes.append(scope) }
            scope.set(nameNumber(syntax.name), .macro(TemplateMacro(syntax: syntax, scope: scope)))
        case .with(let bindings, let body):
            let inner = TemplateScope(parent: scope)
            // Every value is evaluated outside of the block.
            var values: [TemplateObject] = []
            for binding in bindings { values.append(try evaluate(binding.value)) }
            let outer = scope
            scope = inner
            defer { scope = outer }
            for (binding, value) in zip(bindings, values) { try assign(binding.target, value) }
            return try executeInScope(body)
        case .assignBlock(let target, let value, let body):
            let (text, flow) = try collect(body, in: TemplateScope(parent: scope))
            // Leaving the loop from inside of the block drops what it collected.
            if flow != .normal { return flow }
            try assign(target, try evaluate(value, collected: text))
        case .filterBlock(let filters, let body):
            let (text, flow) = try collect(body, in: TemplateScope(parent: scope))
            if flow != .normal { return flow }
            try write(try self.text(of: try evaluate(filters, collected: text)))
        case .callBlock(let syntax, let callee, let call):
            var arguments = try evaluate(call)
            if macroScopes.last !== scope { macroScopes.append(scope) }
            arguments.named.append(("caller", .macro(TemplateMacro(syntax: syntax, scope: scope))))
            try write(try text(of: try self.call(try evaluate(callee), arguments)))
        default:
            break
        }
        return .normal
    }

    private func executeInScope(_ body: [TemplateStatement]) throws(TemplateError) -> Flow {
        try enter()
        let outer = scope
        scope = TemplateScope(parent: outer)
        defer {
            scope = outer
            leave()
        }
        return try execute(body)
    }

    /// Executes statements with their output set aside, and returns it.
    private func collect(_ body: [TemplateStatement], in inner: TemplateScope) throws(TemplateError) -> (TemplateText, Flow) {
        try enter()
        let outer = scope
        var text = TemplateText()
        swap(&text, &output)
        scope = inner
        defer {
            scope = outer
            leave()
        }
        let flow = try execute(body)
        swap(&text, &output)
        return (text, flow)
    }

    private func evaluate(_ expression: TemplateExpression, collected text: TemplateText) throws(TemplateError) -> TemplateObject {
        let outer = collectedText
        collectedText = text
        defer { collectedText = outer }
        return try evaluate(expression)
    }

    private func nameNumber(_ name: String) -> Int { program.names.firstIndex(of: name) ?? -1 }

    func assign(_ target: TemplateTarget, _ value: TemplateObject) throws(TemplateError) {
        switch target {
        case .name(let name):
            scope.set(name, value)
        case .attribute(let name, let attribute):
            guard case .namespace(let namespace) = scope.lookUp(name) else {
                throw failure(.invalidOperation, "'\(program.names[name])' is not a namespace; only namespaces have attributes to assign")
            }
            if attribute.hasPrefix("_") { throw failure(.unsupported, "a namespace cannot hold '\(attribute)'; names must not begin with '_'") }
            namespace.set(TemplateText(attribute), value)
        case .tuple(let targets):
            let elements = try elements(of: value)
            guard elements.count == targets.count else {
                throw failure(.invalidOperation, "cannot assign \(elements.count) values to \(targets.count) names")
            }
            for (target, element) in zip(targets, elements) { try assign(target, element) }
        }
    }

    // MARK: Loops

    private func executeLoop(_ syntax: TemplateLoopSyntax) throws(TemplateError) -> Flow {
        try runLoop(syntax, over: try evaluate(syntax.sequence), depth: 0)
        return .normal
    }

    private func runLoop(_ syntax: TemplateLoopSyntax, over sequence: TemplateObject, depth: Int) throws(TemplateError) {
        try enter()
        let outer = scope
        defer {
            scope = outer
            leave()
        }
        let loop = TemplateLoop(syntax: syntax, elements: try elements(of: sequence), scope: outer, depth: depth)
        // Jinja runs the else branch unless some turn of the loop reached the end of its body.
        var wasCompleted = false
        while let element = try advance(loop) {
            scope = TemplateScope(parent: outer)
            scope.set(TemplateProgram.WellKnown.loop.rawValue, .loop(loop))
            try assign(syntax.target, element)
            let flow = try execute(syntax.body)
            if flow == .normal { wasCompleted = true }
            if flow == .breakLoop { break }
        }
        if !wasCompleted {
            scope = TemplateScope(parent: outer)
            _ = try execute(syntax.otherwise)
        }
    }

    /// `loop(elements)` inside of a recursive loop.
    func recurse(_ loop: TemplateLoop, over sequence: TemplateObject) throws(TemplateError) -> TemplateText {
        guard loop.syntax.isRecursive else {
            throw failure(.invalidOperation, "'loop' can only be called in a loop that is marked 'recursive'")
        }
        try enter()
        let outer = scope
        let outerLine = line
        var text = TemplateText()
        swap(&text, &output)
        scope = loop.scope
        defer {
            scope = outer
            line = outerLine
            leave()
        }
        try runLoop(loop.syntax, over: sequence, depth: loop.depth + 1)
        swap(&text, &output)
        return text
    }

    private func advance(_ loop: TemplateLoop) throws(TemplateError) -> TemplateObject? {
        guard let element = try following(loop) else { return nil }
        loop.following = nil
        loop.index += 1
        loop.previous = loop.current
        loop.current = element
        try spend(1)
        return element
    }

    /// The element after the current one.
    func following(_ loop: TemplateLoop) throws(TemplateError) -> TemplateObject? {
        if let following = loop.following { return following }
        let element = try draw(from: loop)
        loop.following = .some(element)
        return element
    }

    func length(of loop: TemplateLoop) throws(TemplateError) -> Int {
        if let length = loop.length { return length }
        var rest: [TemplateObject] = []
        while let element = try draw(from: loop) { rest.append(element) }
        loop.replaceRest(with: rest)
        return loop.length ?? 0
    }

    private func draw(from loop: TemplateLoop) throws(TemplateError) -> TemplateObject? {
        while loop.position < loop.elements.count {
            let element = loop.elements[loop.position]
            loop.position += 1
            guard loop.isFiltering, let filter = loop.syntax.filter else { return element }
            let outer = scope
            scope = TemplateScope(parent: loop.scope)
            defer { scope = outer }
            try assign(loop.syntax.target, element)
            if try evaluate(filter).isTrue { return element }
        }
        return nil
    }

    // MARK: Macros

    func call(_ macro: TemplateMacro, _ arguments: TemplateArguments) throws(TemplateError) -> TemplateText {
        let syntax = macro.syntax
        let inner = TemplateScope(parent: macro.scope)
        var named = arguments.named
        let outer = scope
        let outerLine = line
        try enter()
        scope = inner
        defer {
            scope = outer
            line = outerLine
            leave()
        }
        for (index, parameter) in syntax.parameters.enumerated() {
            if index < arguments.positional.count {
                inner.set(parameter.name, arguments.positional[index])
            } else if let position = named.firstIndex(where: { $0.name == program.names[parameter.name] }) {
                inner.set(parameter.name, named.remove(at: position).value)
            } else if let defaultValue = parameter.defaultValue {
                inner.set(parameter.name, try evaluate(defaultValue))
            } else {
                inner.set(parameter.name, .missing("parameter '\(program.names[parameter.name])' was not provided"))
            }
        }
        if syntax.usesCaller {
            let position = named.firstIndex { $0.name == TemplateProgram.WellKnown.caller.spelling }
            let caller = position.map { named.remove(at: $0).value } ?? .missing("the macro was not called by a call block: no caller")
            inner.set(TemplateProgram.WellKnown.caller.rawValue, caller)
        }
        let title = syntax.name.isEmpty ? "the call block" : "macro '\(syntax.name)'"
        if syntax.usesKwargs {
            let dictionary = TemplateDictionary(capacity: named.count)
            for (name, value) in named { dictionary.set(text: TemplateText(name), value) }
            inner.set(TemplateProgram.WellKnown.kwargs.rawValue, .dictionary(dictionary))
        } else if let extra = named.first {
            throw failure(.invalidOperation, "\(title) takes no argument named '\(extra.name)'")
        }
        if syntax.usesVarargs {
            inner.set(TemplateProgram.WellKnown.varargs.rawValue, .tuple(Array(arguments.positional.dropFirst(syntax.parameters.count))))
        } else if arguments.positional.count > syntax.parameters.count {
            throw failure(
                .invalidOperation, "\(title) takes \(syntax.parameters.count) arguments, found \(arguments.positional.count)")
        }
        return try collect(syntax.body, in: inner).0
    }
}
