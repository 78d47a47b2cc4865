/// An expression of a parsed template. Names are numbers into `TemplateProgram.names`.
indirect enum TemplateExpression: Sendable {
    case none
    case bool(Bool)
    case integer(Int)
    case number(Double)
    case text(TemplateText)
    case list([TemplateExpression])
    case tuple([TemplateExpression])
    case dictionary([(key: TemplateExpression, value: TemplateExpression)])
    case name(Int)
    /// `object.name`
    case attribute(TemplateExpression, String)
    /// `object[key]`
    case item(TemplateExpression, key: TemplateExpression)
    case slice(TemplateExpression, start: TemplateExpression?, stop: TemplateExpression?, step: TemplateExpression?)
    case call(TemplateExpression, TemplateCall)
    case filter(TemplateExpression, name: String, TemplateCall)
    case test(TemplateExpression, name: String, TemplateCall)
    /// The text that a filter block or a block assignment collected.
    case collectedText
    case negation(TemplateExpression)
    case minus(TemplateExpression)
    case plus(TemplateExpression)
    case binary(TemplateOperator, TemplateExpression, TemplateExpression)
    case and(TemplateExpression, TemplateExpression)
    case or(TemplateExpression, TemplateExpression)
    /// `a ~ b ~ c`
    case concatenation([TemplateExpression])
    /// `a < b <= c`: each operand once, ending at the first comparison that fails.
    case comparison(TemplateExpression, [(relation: TemplateComparison, operand: TemplateExpression)])
    case conditional(test: TemplateExpression, then: TemplateExpression, otherwise: TemplateExpression?)
}

enum TemplateOperator: String, Sendable {
    case add = "+"
    case subtract = "-"
    case multiply = "*"
    case divide = "/"
    case floorDivide = "//"
    case remainder = "%"
    case power = "**"
}

enum TemplateComparison: String, Sendable {
    case equal = "=="
    case notEqual = "!="
    case less = "<"
    case lessOrEqual = "<="
    case greater = ">"
    case greaterOrEqual = ">="
    case contained = "in"
    case notContained = "not in"
}

/// The arguments of a call, a filter or a test as written.
struct TemplateCall: Sendable {
    var positional: [TemplateExpression] = []
    var named: [(name: String, value: TemplateExpression)] = []
    /// `*sequence`
    var sequence: TemplateExpression?
    /// `**mapping`
    var mapping: TemplateExpression?
}

/// Where an assignment puts a value.
indirect enum TemplateTarget: Sendable {
    case name(Int)
    /// `namespace.attribute`
    case attribute(of: Int, String)
    case tuple([TemplateTarget])
}

struct TemplateStatement: Sendable {
    let line: Int
    let kind: Kind

    indirect enum Kind: Sendable {
        case data(TemplateText)
        case output(TemplateExpression)
        case loop(TemplateLoopSyntax)
        /// The branches of if and elif in order, and that of else.
        case branch([(test: TemplateExpression, body: [TemplateStatement])], otherwise: [TemplateStatement])
        case assign(TemplateTarget, TemplateExpression)
        /// `{% set x | filter %}…{% endset %}`: `value` is the filters applied to `.collectedText`.
        case assignBlock(TemplateTarget, value: TemplateExpression, body: [TemplateStatement])
        case with([(target: TemplateTarget, value: TemplateExpression)], body: [TemplateStatement])
        case filterBlock(TemplateExpression, body: [TemplateStatement])
        case macro(TemplateMacroSyntax)
        case callBlock(TemplateMacroSyntax, TemplateExpression, TemplateCall)
        /// A body with a scope of its own that changes nothing else, such as `{% generation %}`.
        case scope([TemplateStatement])
        case breakLoop
        case continueLoop
    }
}

final class TemplateLoopSyntax: Sendable {
    let target: TemplateTarget
    let sequence: TemplateExpression
    let filter: TemplateExpression?
    let isRecursive: Bool
    let body: [TemplateStatement]
    let otherwise: [TemplateStatement]

    init(
        target: TemplateTarget, sequence: TemplateExpression, filter: TemplateExpression?, isRecursive: Bool,
        body: [TemplateStatement], otherwise: [TemplateStatement]
    ) {
        self.target = target
        self.sequence = sequence
        self.filter = filter
        self.isRecursive = isRecursive
        self.body = body
        self.otherwise = otherwise
    }
}

final class TemplateMacroSyntax: Sendable {
    /// Empty for the body of a call block.
    let name: String
    let parameters: [(name: Int, defaultValue: TemplateExpression?)]
    let body: [TemplateStatement]
    /// Whether the body mentions `caller`, `varargs`, `kwargs`; only then are such arguments accepted.
    let usesCaller: Bool
    let usesVarargs: Bool
    let usesKwargs: Bool

    init(
        name: String, parameters: [(name: Int, defaultValue: TemplateExpression?)], body: [TemplateStatement],
        usesCaller: Bool, usesVarargs: Bool, usesKwargs: Bool
    ) {
        self.name = name
        self.parameters = parameters
        self.body = body
        self.usesCaller = usesCaller
        self.usesVarargs = usesVarargs
        self.usesKwargs = usesKwargs
    }
}

/// A parsed template.
struct TemplateProgram: Sendable {
    var body: [TemplateStatement]
    /// The names that the template mentions; `WellKnown` are the first.
    var names: [String]

    /// Names that the interpreter itself binds.
    enum WellKnown: Int, CaseIterable {
        case loop, caller, varargs, kwargs

        var spelling: String {
            switch self {
            case .loop: "loop"
            case .caller: "caller"
            case .varargs: "varargs"
            case .kwargs: "kwargs"
            }
        }
    }
}
