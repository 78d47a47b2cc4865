/// A value inside a running template. Lists, tuples and dictionaries never change, as in transformers' immutable sandbox.
enum TemplateObject {
    case undefined(TemplateUndefined)
    case none
    case bool(Bool)
    case integer(Int)
    case number(Double)
    case text(TemplateText)
    case list([TemplateObject])
    case tuple([TemplateObject])
    case dictionary(TemplateDictionary)
    /// What `keys()`, `values()` and `items()` of a dictionary give: sized and iterable, without positions.
    case view(TemplateDictionary, TemplateViewKind)
    case range(TemplateRange)
    /// What `map`, `select` and their like give: can be walked through once.
    case generator(TemplateGenerator)
    case namespace(TemplateNamespace)
    case loop(TemplateLoop)
    case macro(TemplateMacro)
    case function(TemplateFunction)
    case method(TemplateMethod)
    case cycler(TemplateCycler)
    case joiner(TemplateJoiner)
}

enum TemplateViewKind: String {
    case keys, values, items
}

/// Why something is undefined, for the message when it is used after all.
final class TemplateUndefined {
    enum Origin {
        case name(String)
        case attribute(of: String, String)
        case element(of: String, String)
        case explanation(String)
    }

    private let origin: Origin

    init(_ origin: Origin) { self.origin = origin }

    var message: String {
        switch origin {
        case .name(let name): "'\(name)' is undefined"
        case .attribute(let owner, let name): "'\(owner)' has no attribute '\(name)'"
        case .element(let owner, let key): "\(owner) has no element \(key)"
        case .explanation(let text): text
        }
    }
}

struct TemplateRange: Equatable {
    let start: Int
    let stop: Int
    let step: Int

    var count: Int {
        if step > 0 { return start < stop ? (stop - start - 1) / step + 1 : 0 }
        return start > stop ? (start - stop - 1) / -step + 1 : 0
    }

    /// Wraps around instead of trapping one step beyond the end, where slices point.
    subscript(_ index: Int) -> Int { start &+ index &* step }
}

final class TemplateGenerator {
    private var elements: [TemplateObject]
    private var position = 0
    let name: String

    init(_ elements: [TemplateObject], name: String) {
        self.elements = elements
        self.name = name
    }

    func next() -> TemplateObject? {
        guard position < elements.count else { return nil }
        position += 1
        return elements[position - 1]
    }

    /// What has not been taken yet, left in place.
    var rest: [TemplateObject] { Array(elements[position...]) }

    func drain() -> [TemplateObject] {
        defer { position = elements.count }
        return Array(elements[position...])
    }
}

final class TemplateNamespace {
    var attributes: [(name: TemplateText, value: TemplateObject)] = []

    func value(of name: TemplateText) -> TemplateObject? { attributes.first { $0.name == name }?.value }

    func set(_ name: TemplateText, _ value: TemplateObject) {
        if let index = attributes.firstIndex(where: { $0.name == name }) {
            attributes[index].value = value
        } else {
            attributes.append((name, value))
        }
    }
}

/// A running for loop, the template's `loop`. Elements are drawn, and filtered, only when they are needed.
final class TemplateLoop {
    let syntax: TemplateLoopSyntax
    /// The scope around the loop, in which its filter is evaluated.
    let scope: TemplateScope
    let depth: Int
    private(set) var elements: [TemplateObject]
    /// Whether the elements from `position` on have yet to pass the loop's filter.
    private(set) var isFiltering: Bool
    var position = 0
    /// The number of the current element, from 0.
    var index = -1
    var previous: TemplateObject?
    var current: TemplateObject?
    /// The element after the current one, once it was asked for; `.some(nil)` at the end.
    var following: TemplateObject??
    private(set) var length: Int?
    var lastChanged: [TemplateObject]?

    init(syntax: TemplateLoopSyntax, elements: [TemplateObject], scope: TemplateScope, depth: Int) {
        self.syntax = syntax
        self.elements = elements
        self.scope = scope
        self.depth = depth
        isFiltering = syntax.filter != nil
        length = isFiltering ? nil : elements.count
    }

    /// Takes what the filter let through of the elements that had not been drawn yet; `length` is known from then on.
    func replaceRest(with drawn: [TemplateObject]) {
        var isFollowed = false
        if case .some(.some) = following { isFollowed = true }
        elements = drawn
        position = 0
        isFiltering = false
        length = drawn.count + index + 1 + (isFollowed ? 1 : 0)
    }
}

final class TemplateMacro {
    let syntax: TemplateMacroSyntax
    /// Where the macro was defined: its body sees these names, as they are when it is called.
    let scope: TemplateScope

    init(syntax: TemplateMacroSyntax, scope: TemplateScope) {
        self.syntax = syntax
        self.scope = scope
    }
}

/// The functions that every template sees.
enum TemplateFunction: String, CaseIterable {
    case raiseException = "raise_exception"
    case strftimeNow = "strftime_now"
    case range, namespace, dict, joiner, cycler
}

/// A method before it is called, such as `text.strip`.
final class TemplateMethod {
    let receiver: TemplateObject
    let name: String

    init(_ receiver: TemplateObject, _ name: String) {
        self.receiver = receiver
        self.name = name
    }
}

final class TemplateCycler {
    let elements: [TemplateObject]
    var position = 0

    init(_ elements: [TemplateObject]) { self.elements = elements }

    var current: TemplateObject { elements[position] }
}

final class TemplateJoiner {
    let separator: TemplateText
    var wasUsed = false

    init(separator: TemplateText) { self.separator = separator }
}

/// The names that a part of a template has bound, inside of those around it.
final class TemplateScope {
    let parent: TemplateScope?
    private var bindings: [(name: Int, value: TemplateObject)] = []

    init(parent: TemplateScope?) { self.parent = parent }

    func set(_ name: Int, _ value: TemplateObject) {
        for index in bindings.indices where bindings[index].name == name {
            bindings[index].value = value
            return
        }
        bindings.append((name, value))
    }

    func removeAll() { bindings.removeAll() }

    func lookUp(_ name: Int) -> TemplateObject? {
        var scope: TemplateScope? = self
        while let current = scope {
            for binding in current.bindings where binding.name == name { return binding.value }
            scope = current.parent
        }
        return nil
    }
}

extension TemplateObject {
    init(_ value: TemplateValue) {
        switch value {
        case .null: self = .none
        case .bool(let value): self = .bool(value)
        case .integer(let value): self = .integer(value)
        case .number(let value): self = .number(value)
        case .string(let text, let isTrusted): self = .text(TemplateText(text, isTrusted: isTrusted))
        case .list(let elements): self = .list(elements.map { TemplateObject($0) })
        case .dictionary(let members):
            let dictionary = TemplateDictionary(capacity: members.count)
            for member in members {
                dictionary.set(text: TemplateText(member.key, isTrusted: member.isKeyTrusted), TemplateObject(member.value))
            }
            self = .dictionary(dictionary)
        }
    }

    /// An undefined value whose use fails with this message.
    static func missing(_ explanation: String) -> TemplateObject { .undefined(TemplateUndefined(.explanation(explanation))) }

    /// Python's truth of a value.
    var isTrue: Bool {
        switch self {
        case .undefined, .none: false
        case .bool(let value): value
        case .integer(let value): value != 0
        case .number(let value): value != 0
        case .text(let text): !text.isEmpty
        case .list(let elements), .tuple(let elements): !elements.isEmpty
        case .dictionary(let dictionary), .view(let dictionary, _): dictionary.count > 0
        case .range(let range): range.count > 0
        case .loop(let loop): loop.elements.count > 0
        case .generator, .namespace, .macro, .function, .method, .cycler, .joiner: true
        }
    }

    /// The name of the value's type in Python, for messages.
    var typeName: String {
        switch self {
        case .undefined: "Undefined"
        case .none: "NoneType"
        case .bool: "bool"
        case .integer: "int"
        case .number: "float"
        case .text: "str"
        case .list: "list"
        case .tuple: "tuple"
        case .dictionary: "dict"
        case .view(_, let kind): "dict_\(kind.rawValue)"
        case .range: "range"
        case .generator: "generator"
        case .namespace: "Namespace"
        case .loop: "LoopContext"
        case .macro: "Macro"
        case .function: "function"
        case .method: "method"
        case .cycler: "Cycler"
        case .joiner: "Joiner"
        }
    }

    /// How messages about missing attributes name the value.
    var ownerName: String {
        if case .none = self { return "None" }
        return "\(typeName) object"
    }

    /// The value as a number in Python's arithmetic, in which truth values count as 0 and 1.
    var arithmetic: TemplateNumber? {
        switch self {
        case .bool(let value): .integer(value ? 1 : 0)
        case .integer(let value): .integer(value)
        case .number(let value): .number(value)
        default: nil
        }
    }

    var isUndefined: Bool {
        if case .undefined = self { true } else { false }
    }

    /// Python's `==`.
    func equals(_ other: TemplateObject) -> Bool {
        switch (self, other) {
        case (.text(let a), .text(let b)): return a == b
        case (.none, .none), (.undefined, .undefined): return true
        case (.list(let a), .list(let b)), (.tuple(let a), .tuple(let b)):
            return a.count == b.count && zip(a, b).allSatisfy { $0.equals($1) }
        case (.dictionary(let a), .dictionary(let b)): return a.equals(b)
        case (.range(let a), .range(let b)): return a == b || (a.count == 0 && b.count == 0)
        case (.view(let a, let first), .view(let b, let second)): return first == second && a.equals(b)
        case (.generator(let a), .generator(let b)): return a === b
        case (.namespace(let a), .namespace(let b)): return a === b
        case (.macro(let a), .macro(let b)): return a === b
        case (.loop(let a), .loop(let b)): return a === b
        case (.function(let a), .function(let b)): return a == b
        case (.cycler(let a), .cycler(let b)): return a === b
        case (.joiner(let a), .joiner(let b)): return a === b
        default:
            guard let a = arithmetic, let b = other.arithmetic else { return false }
            return a == b
        }
    }
}

/// An integer or a float, compared across kinds as Python does.
enum TemplateNumber: Equatable {
    case integer(Int)
    case number(Double)

    var double: Double {
        switch self {
        case .integer(let value): Double(value)
        case .number(let value): value
        }
    }

    static func == (left: TemplateNumber, right: TemplateNumber) -> Bool {
        if case (.integer(let a), .integer(let b)) = (left, right) { return a == b }
        return left.double == right.double
    }

    static func < (left: TemplateNumber, right: TemplateNumber) -> Bool {
        if case (.integer(let a), .integer(let b)) = (left, right) { return a < b }
        return left.double < right.double
    }
}
