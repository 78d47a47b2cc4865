/// Reads a template into statements and expressions, following Jinja's grammar.
struct TemplateParser {
    /// How deep statements and expressions may nest in the source; the parser recurses that deep.
    static let maximumNesting = 100
    /// How many operators, filters or attributes may follow each other in one expression.
    static let maximumChain = 500

    private let tokens: [TemplateToken]
    private var position = 0
    private var names: [String] = TemplateProgram.WellKnown.allCases.map(\.spelling)
    private var numbers: [String: Int] = [:]
    /// Where in `tokens` each open block began, innermost last: for messages.
    private var openTags: [(name: String, line: Int)] = []
    /// What the bodies of the macros that are being read mention, innermost last.
    private var macroMentions: [Set<Int>] = []
    private var nesting = 0
    private var loopNesting = 0

    static func program(of source: String) throws(TemplateError) -> TemplateProgram {
        var parser = TemplateParser(tokens: try TemplateLexer.tokens(of: source))
        let body = try parser.parseBody(until: [])
        return TemplateProgram(body: body, names: parser.names)
    }

    private init(tokens: [TemplateToken]) {
        self.tokens = tokens
        for (number, name) in names.enumerated() { numbers[name] = number }
    }

    // MARK: Tokens

    var current: TemplateToken { tokens[position] }
    private var next: TemplateToken { tokens[min(position + 1, tokens.count - 1)] }

    mutating func advance() {
        if position + 1 < tokens.count { position += 1 }
    }

    func isSymbol(_ symbol: String) -> Bool { current.kind == .symbol(symbol) }
    func isName(_ name: String) -> Bool { current.kind == .name(name) }
    func isNextName(_ name: String) -> Bool { next.kind == .name(name) }
    func isNextSymbol(_ symbol: String) -> Bool { next.kind == .symbol(symbol) }

    mutating func skipSymbol(_ symbol: String) -> Bool {
        guard isSymbol(symbol) else { return false }
        advance()
        return true
    }

    mutating func skipName(_ name: String) -> Bool {
        guard isName(name) else { return false }
        advance()
        return true
    }

    mutating func expectSymbol(_ symbol: String) throws(TemplateError) {
        guard skipSymbol(symbol) else { throw unexpected("expected '\(symbol)'") }
    }

    mutating func expectName() throws(TemplateError) -> String {
        guard case .name(let name) = current.kind else { throw unexpected("expected a name") }
        advance()
        return name
    }

    func unexpected(_ expectation: String) -> TemplateError {
        let found: String
        switch current.kind {
        case .data: found = "text"
        case .variableBegin: found = "'{{'"
        case .variableEnd: found = "'}}'"
        case .blockBegin: found = "'{%'"
        case .blockEnd: found = "'%}'"
        case .name(let name): found = "'\(name)'"
        case .string: found = "a string"
        case .integer(let value): found = "\(value)"
        case .number(let value): found = "\(value)"
        case .symbol(let symbol): found = "'\(symbol)'"
        case .end: found = "the end of the template"
        }
        return failure("\(expectation), found \(found)")
    }

    func failure(_ message: String, line: Int? = nil) -> TemplateError {
        TemplateError(code: .syntax, message: message, line: line ?? current.line)
    }

    mutating func number(of name: String) -> Int {
        if let number = numbers[name] { return number }
        names.append(name)
        numbers[name] = names.count - 1
        return names.count - 1
    }

    mutating func mention(_ name: Int) {
        for index in macroMentions.indices { macroMentions[index].insert(name) }
    }

    mutating func enter() throws(TemplateError) {
        nesting += 1
        guard nesting <= Self.maximumNesting else {
            throw failure("blocks and expressions nest deeper than the limit of \(Self.maximumNesting)")
        }
    }

    mutating func leave() { nesting -= 1 }

    /// Counts one more link of a chain such as `a + b + c`: each makes the expression one level deeper.
    func link(_ chain: inout Int) throws(TemplateError) {
        chain += 1
        guard chain <= Self.maximumChain else {
            throw failure("an expression chains more operators than the limit of \(Self.maximumChain)")
        }
    }

    // MARK: Statements

    /// Reads statements up to a tag that `ends` names; that name is the current token afterwards. No ends: up to the end.
    private mutating func parseBody(until ends: [String]) throws(TemplateError) -> [TemplateStatement] {
        try enter()
        defer { leave() }
        var body: [TemplateStatement] = []
        while true {
            let line = current.line
            switch current.kind {
            case .data(let text):
                advance()
                body.append(TemplateStatement(line: line, kind: .data(TemplateText(text))))
            case .variableBegin:
                advance()
                let expression = try parseTuple()
                guard current.kind == .variableEnd else { throw unexpected("expected '}}' after the expression") }
                advance()
                body.append(TemplateStatement(line: line, kind: .output(expression)))
            case .blockBegin:
                advance()
                if case .name(let name) = current.kind, ends.contains(name) { return body }
                let statements = try parseStatement()
                guard current.kind == .blockEnd else { throw unexpected("expected '%}' at the end of the tag") }
                advance()
                body.append(contentsOf: statements)
            case .end:
                guard ends.isEmpty else {
                    let open = openTags.last
                    throw failure(
                        "the template ends inside of '\(open?.name ?? "")' from line \(open?.line ?? 0); expected \(list(of: ends))")
                }
                return body
            default:
                throw unexpected("expected text or a tag")
            }
        }
    }

    private func list(of ends: [String]) -> String { ends.map { "'{% \($0) %}'" }.joined(separator: " or ") }

    /// Reads the body of a block: from the end of its opening tag to the name in one of the tags `ends`.
    private mutating func parseBlock(until ends: [String]) throws(TemplateError) -> [TemplateStatement] {
        _ = skipSymbol(":")
        guard current.kind == .blockEnd else { throw unexpected("expected '%}' at the end of the tag") }
        advance()
        return try parseBody(until: ends)
    }

    private mutating func parseStatement() throws(TemplateError) -> [TemplateStatement] {
        let line = current.line
        guard case .name(let tag) = current.kind else { throw unexpected("expected the name of a tag") }
        openTags.append((tag, line))
        defer { openTags.removeLast() }
        let kind: TemplateStatement.Kind
        switch tag {
        case "for": kind = .loop(try parseFor())
        case "if": kind = try parseIf()
        case "set": kind = try parseSet()
        case "with": kind = try parseWith()
        case "macro": kind = .macro(try parseMacro())
        case "call": kind = try parseCallBlock()
        case "filter":
            advance()
            let filters = try parseFilters(on: .collectedText, startsInline: true)
            let body = try parseBlock(until: ["endfilter"])
            advance()
            kind = .filterBlock(filters, body: body)
        case "generation":
            advance()
            let body = try parseBlock(until: ["endgeneration"])
            advance()
            kind = .scope(body)
        case "break", "continue":
            guard loopNesting > 0 else { throw failure("'\(tag)' stands outside of a for loop") }
            advance()
            kind = tag == "break" ? .breakLoop : .continueLoop
        case "print":
            advance()
            var statements: [TemplateStatement] = []
            while current.kind != .blockEnd {
                if !statements.isEmpty { try expectSymbol(",") }
                statements.append(TemplateStatement(line: line, kind: .output(try parseExpression())))
            }
            return statements
        case "autoescape", "block", "extends", "include", "import", "from", "do", "trans", "debug":
            throw TemplateError(
                code: .unsupported, message: "the tag '\(tag)' is not available in chat templates; a template is one file and writes plain text",
                line: line)
        case "else", "elif", "endif", "endfor", "endset", "endmacro", "endcall", "endfilter", "endwith", "endgeneration", "endraw":
            throw failure("'{% \(tag) %}' closes nothing here")
        default:
            throw failure("unknown tag '\(tag)'")
        }
        return [TemplateStatement(line: line, kind: kind)]
    }

    private mutating func parseFor() throws(TemplateError) -> TemplateLoopSyntax {
        advance()
        let target = try parseTarget(endsAtIn: true, allowsAttributes: false)
        guard skipName("in") else { throw unexpected("expected 'in' after the loop's variable") }
        let sequence = try parseTuple(withConditional: false, endsAtRecursive: true)
        var filter: TemplateExpression?
        if skipName("if") { filter = try parseExpression() }
        let isRecursive = skipName("recursive")
        loopNesting += 1
        let body = try parseBlock(until: ["endfor", "else"])
        loopNesting -= 1
        var otherwise: [TemplateStatement] = []
        if skipName("else") { otherwise = try parseBlock(until: ["endfor"]) }
        advance()
        return TemplateLoopSyntax(
            target: target, sequence: sequence, filter: filter, isRecursive: isRecursive, body: body, otherwise: otherwise)
    }

    private mutating func parseIf() throws(TemplateError) -> TemplateStatement.Kind {
        var branches: [(test: TemplateExpression, body: [TemplateStatement])] = []
        var otherwise: [TemplateStatement] = []
        repeat {
            // At `if` or `elif`.
            advance()
            let test = try parseTuple(withConditional: false)
            branches.append((test, try parseBlock(until: ["elif", "else", "endif"])))
        } while isName("elif")
        if skipName("else") { otherwise = try parseBlock(until: ["endif"]) }
        advance()
        return .branch(branches, otherwise: otherwise)
    }

    private mutating func parseSet() throws(TemplateError) -> TemplateStatement.Kind {
        advance()
        let target = try parseTarget(endsAtIn: false, allowsAttributes: true)
        if skipSymbol("=") { return .assign(target, try parseTuple()) }
        let value = try parseFilters(on: .collectedText, startsInline: false)
        let body = try parseBlock(until: ["endset"])
        advance()
        return .assignBlock(target, value: value, body: body)
    }

    private mutating func parseWith() throws(TemplateError) -> TemplateStatement.Kind {
        advance()
        var bindings: [(target: TemplateTarget, value: TemplateExpression)] = []
        while current.kind != .blockEnd {
            if !bindings.isEmpty { try expectSymbol(",") }
            let target = try parseTarget(endsAtIn: false, allowsAttributes: false)
            try expectSymbol("=")
            bindings.append((target, try parseExpression()))
        }
        let body = try parseBlock(until: ["endwith"])
        advance()
        return .with(bindings, body: body)
    }

    private mutating func parseMacro() throws(TemplateError) -> TemplateMacroSyntax {
        advance()
        let name = try expectName()
        macroMentions.append([])
        let parameters = try parseSignature()
        let outerLoops = loopNesting
        loopNesting = 0
        let body = try parseBlock(until: ["endmacro"])
        loopNesting = outerLoops
        advance()
        // The macro's own name is bound where it is defined.
        _ = number(of: name)
        return macro(name: name, parameters: parameters, body: body)
    }

    private mutating func parseCallBlock() throws(TemplateError) -> TemplateStatement.Kind {
        advance()
        macroMentions.append([])
        let parameters = isSymbol("(") ? try parseSignature() : []
        // The call itself is not part of the block that the callee gets.
        let mentions = macroMentions.removeLast()
        guard case .call(let callee, let call) = try parseExpression() else { throw failure("expected a call in the tag 'call'") }
        macroMentions.append(mentions)
        let outerLoops = loopNesting
        loopNesting = 0
        let body = try parseBlock(until: ["endcall"])
        loopNesting = outerLoops
        advance()
        return .callBlock(macro(name: "", parameters: parameters, body: body), callee, call)
    }

    private mutating func macro(
        name: String, parameters: [(name: Int, defaultValue: TemplateExpression?)], body: [TemplateStatement]
    ) -> TemplateMacroSyntax {
        let mentions = macroMentions.removeLast()
        func uses(_ name: TemplateProgram.WellKnown) -> Bool {
            mentions.contains(name.rawValue) && !parameters.contains { $0.name == name.rawValue }
        }
        return TemplateMacroSyntax(
            name: name, parameters: parameters, body: body, usesCaller: uses(.caller), usesVarargs: uses(.varargs),
            usesKwargs: uses(.kwargs))
    }

    private mutating func parseSignature() throws(TemplateError) -> [(name: Int, defaultValue: TemplateExpression?)] {
        try expectSymbol("(")
        var parameters: [(name: Int, defaultValue: TemplateExpression?)] = []
        while !isSymbol(")") {
            if !parameters.isEmpty { try expectSymbol(",") }
            let name = try parseAssignableName()
            if skipSymbol("=") {
                parameters.append((name, try parseExpression()))
            } else if parameters.last?.defaultValue != nil {
                throw failure("a parameter without default follows one with a default")
            } else {
                parameters.append((name, nil))
            }
        }
        advance()
        return parameters
    }

    // MARK: Targets

    private mutating func parseAssignableName() throws(TemplateError) -> Int {
        let name = try expectName()
        if ["true", "false", "none", "True", "False", "None"].contains(name) { throw failure("can't assign to '\(name)'") }
        return number(of: name)
    }

    private mutating func parseTarget(endsAtIn: Bool, allowsAttributes: Bool) throws(TemplateError) -> TemplateTarget {
        var targets: [TemplateTarget] = []
        var isTuple = false
        while true {
            if isSymbol(")") || current.kind == .blockEnd || (endsAtIn && isName("in")) { break }
            if skipSymbol("(") {
                try enter()
                let inner = try parseTarget(endsAtIn: false, allowsAttributes: false)
                leave()
                try expectSymbol(")")
                targets.append(inner)
            } else {
                let name = try parseAssignableName()
                if allowsAttributes, skipSymbol(".") {
                    mention(name)
                    targets.append(.attribute(of: name, try expectName()))
                } else {
                    targets.append(.name(name))
                }
            }
            guard skipSymbol(",") else { break }
            isTuple = true
        }
        if isTuple { return .tuple(targets) }
        guard let target = targets.first else { throw unexpected("expected a name to assign to") }
        return target
    }
}
