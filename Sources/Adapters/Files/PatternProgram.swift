/// A pattern compiled to an automaton (Ken Thompson, "Regular Expression Search Algorithm", 1968).
struct PatternProgram: Sendable {
    enum Assertion: Sendable {
        case start, end, wordBoundary, noWordBoundary
    }

    private enum Instruction: Sendable {
        case byte(ByteSet)
        case split(Int, Int)
        case jump(Int)
        case assert(Assertion)
        /// A look-ahead whose own instructions begin behind this one and end with `accept`; what follows it is at `next`.
        case look(isNegated: Bool, next: Int)
        case accept
    }

    /// The most instructions of one pattern; counted repetition multiplies them.
    private static let longest = 2_000

    private var instructions: [Instruction] = []

    var count: Int { instructions.count }

    init(_ text: String) throws(PatternProblem) {
        var parser = PatternParser(text)
        try emit(try parser.pattern())
        try append(.accept)
    }

    private mutating func append(_ instruction: Instruction) throws(PatternProblem) {
        guard instructions.count < Self.longest else { throw PatternProblem(reason: "it is too large once its repetitions are written out") }
        instructions.append(instruction)
    }

    private mutating func emit(_ node: PatternNode) throws(PatternProblem) {
        switch node {
        case .empty:
            break
        case .set(let set):
            try append(.byte(set))
        case .sequence(let nodes):
            for node in nodes { try emit(node) }
        case .choice(let first, let second):
            let split = instructions.count
            try append(.split(0, 0))
            try emit(first)
            let jump = instructions.count
            try append(.jump(0))
            instructions[split] = .split(split + 1, instructions.count)
            try emit(second)
            instructions[jump] = .jump(instructions.count)
        case .repetition(let node, let least, let most):
            try emitRepetition(node, least, most)
        case .assertion(let assertion):
            try append(.assert(assertion))
        case .lookAhead(let node, let isNegated):
            let look = instructions.count
            try append(.look(isNegated: isNegated, next: 0))
            try emit(node)
            try append(.accept)
            instructions[look] = .look(isNegated: isNegated, next: instructions.count)
        }
    }

    private mutating func emitRepetition(_ node: PatternNode, _ least: Int, _ most: Int?) throws(PatternProblem) {
        for _ in 0..<least {
            let before = instructions.count
            try emit(node)
            // Nothing, however often, is nothing.
            if instructions.count == before { return }
        }
        if let most {
            for _ in least..<most {
                let split = instructions.count
                try append(.split(0, 0))
                try emit(node)
                instructions[split] = .split(split + 1, instructions.count)
            }
        } else {
            let split = instructions.count
            try append(.split(0, 0))
            try emit(node)
            try append(.jump(split))
            instructions[split] = .split(split + 1, instructions.count)
        }
    }

    /// - Parameters:
    ///   - isWhole: whether the match must reach the path's end.
    ///   - steps: what may still be spent; below zero afterwards when it was not enough, and the result means nothing.
    func matches(_ path: [UInt8], isWhole: Bool, steps: inout Int) -> Bool {
        run(from: 0, at: 0, path, isWhole, &steps)
    }

    private func run(from start: Int, at position: Int, _ path: [UInt8], _ isWhole: Bool, _ steps: inout Int) -> Bool {
        steps -= instructions.count
        // The position after which an instruction was last reached.
        var reached = [Int](repeating: -1, count: instructions.count)
        var pending: [Int] = [start]
        var position = position
        while steps >= 0 {
            var waiting: [Int] = []
            while let index = pending.popLast() {
                guard reached[index] != position else { continue }
                reached[index] = position
                steps -= 1
                guard steps >= 0 else { return false }
                switch instructions[index] {
                case .byte:
                    waiting.append(index)
                case .split(let first, let second):
                    pending.append(first)
                    pending.append(second)
                case .jump(let target):
                    pending.append(target)
                case .assert(let assertion):
                    if holds(assertion, at: position, in: path) { pending.append(index + 1) }
                case .look(let isNegated, let next):
                    if run(from: index + 1, at: position, path, false, &steps) != isNegated { pending.append(next) }
                case .accept:
                    if !isWhole || position == path.count { return true }
                }
            }
            guard position < path.count, !waiting.isEmpty else { return false }
            for index in waiting {
                if case .byte(let set) = instructions[index], set.contains(path[position]) { pending.append(index + 1) }
            }
            position += 1
        }
        return false
    }

    private func holds(_ assertion: Assertion, at position: Int, in path: [UInt8]) -> Bool {
        switch assertion {
        case .start: position == 0
        case .end: position == path.count
        case .wordBoundary: isBoundary(position, path)
        case .noWordBoundary: !isBoundary(position, path)
        }
    }

    private func isBoundary(_ position: Int, _ path: [UInt8]) -> Bool {
        let before = position > 0 && ByteSet.word.contains(path[position - 1])
        let after = position < path.count && ByteSet.word.contains(path[position])
        return before != after
    }
}

/// What a pattern says.
indirect enum PatternNode: Sendable {
    case empty
    case set(ByteSet)
    case sequence([PatternNode])
    case choice(PatternNode, PatternNode)
    case repetition(PatternNode, least: Int, most: Int?)
    case assertion(PatternProgram.Assertion)
    case lookAhead(PatternNode, isNegated: Bool)
}

/// Reads the part of Python's `re` syntax that `ModulePattern` names.
struct PatternParser {
    /// The deepest nesting of groups; the parser recurses that deep.
    private static let deepest = 50
    /// The highest count of a repetition.
    private static let mostRepetitions = 1_000

    private let text: [Unicode.Scalar]
    private var offset = 0
    private var depth = 0

    init(_ text: String) {
        self.text = Array(text.unicodeScalars)
    }

    mutating func pattern() throws(PatternProblem) -> PatternNode {
        let node = try choice()
        guard offset == text.count else { throw PatternProblem(reason: "it has a ')' without its '('") }
        return node
    }

    private var next: Unicode.Scalar? { offset < text.count ? text[offset] : nil }

    private mutating func consume(_ scalar: Unicode.Scalar) -> Bool {
        guard next == scalar else { return false }
        offset += 1
        return true
    }

    private mutating func choice() throws(PatternProblem) -> PatternNode {
        var branches = [try sequence()]
        while consume("|") { branches.append(try sequence()) }
        // From the right, so that the tree leans on its last branch and is as deep as there are branches at most.
        var node = branches.removeLast()
        while let branch = branches.popLast() { node = .choice(branch, node) }
        return node
    }

    private mutating func sequence() throws(PatternProblem) -> PatternNode {
        var nodes: [PatternNode] = []
        while let scalar = next, scalar != "|", scalar != ")" {
            nodes.append(try repeated(try atom()))
        }
        return nodes.count == 1 ? nodes[0] : nodes.isEmpty ? .empty : .sequence(nodes)
    }

    private mutating func repeated(_ node: PatternNode) throws(PatternProblem) -> PatternNode {
        guard let (least, most) = try quantifier() else { return node }
        if case .assertion = node { throw PatternProblem(reason: "it repeats an anchor") }
        if consume("+") { throw PatternProblem(reason: "possessive repetition is not supported") }
        _ = consume("?")
        guard try quantifier() == nil else { throw PatternProblem(reason: "it repeats a repetition") }
        return .repetition(node, least: least, most: most)
    }

    /// Consumes `*`, `+`, `?` or `{m,n}`, if there is one. A brace that begins no such thing is a literal.
    private mutating func quantifier() throws(PatternProblem) -> (Int, Int?)? {
        if consume("*") { return (0, nil) }
        if consume("+") { return (1, nil) }
        if consume("?") { return (0, 1) }
        let start = offset
        guard consume("{") else { return nil }
        if next == "}" {
            offset = start
            return nil
        }
        let least = try count()
        var most = least
        let isRange = consume(",")
        if isRange { most = try count() }
        guard consume("}") else {
            offset = start
            return nil
        }
        if !isRange, least == nil { return nil }
        if let least, let most, least > most { throw PatternProblem(reason: "it has a repetition of \(least) to \(most)") }
        return (least ?? 0, most)
    }

    private mutating func count() throws(PatternProblem) -> Int? {
        var value: Int?
        while let scalar = next, ("0"..."9").contains(scalar) {
            let sum = (value ?? 0) * 10 + Int(scalar.value - 48)
            guard sum <= Self.mostRepetitions else { throw PatternProblem(reason: "it repeats more than \(Self.mostRepetitions) times") }
            value = sum
            offset += 1
        }
        return value
    }

    private mutating func atom() throws(PatternProblem) -> PatternNode {
        guard try quantifier() == nil else { throw PatternProblem(reason: "it repeats nothing") }
        let scalar = text[offset]
        offset += 1
        switch scalar {
        case ".": return .set(.exceptNewline)
        case "^": return .assertion(.start)
        case "$": return .assertion(.end)
        case "(": return try group()
        case "[": return .set(try characterClass())
        case "\\": return try escape()
        default: return .set(PatternParser.set(of: scalar))
        }
    }

    private static func set(of scalar: Unicode.Scalar) -> ByteSet {
        var set = ByteSet()
        // What is not ASCII matches no path.
        if scalar.isASCII { set.insert(UInt8(scalar.value)) }
        return set
    }

    private mutating func group() throws(PatternProblem) -> PatternNode {
        depth += 1
        guard depth <= Self.deepest else { throw PatternProblem(reason: "its groups nest deeper than \(Self.deepest)") }
        var look: Bool?
        if consume("?") {
            if consume("=") {
                look = false
            } else if consume("!") {
                look = true
            } else if next == "P", offset + 1 < text.count, text[offset + 1] == "<" {
                offset += 2
                try name()
            } else if !consume(":") {
                throw PatternProblem(reason: "groups that begin with '(?' are not supported, but for (?:, (?P<name>, (?= and (?!")
            }
        }
        let node = try choice()
        guard consume(")") else { throw PatternProblem(reason: "it has a '(' without its ')'") }
        depth -= 1
        // A group of its own, so that an anchor in it may be repeated.
        return look.map { .lookAhead(node, isNegated: $0) } ?? .sequence([node])
    }

    private mutating func name() throws(PatternProblem) {
        let start = offset
        if let scalar = next, ("0"..."9").contains(scalar) { throw PatternProblem(reason: "it has a group with a malformed name") }
        while let scalar = next, scalar.isASCII, ByteSet.word.contains(UInt8(scalar.value)) { offset += 1 }
        guard offset > start, consume(">") else { throw PatternProblem(reason: "it has a group with a malformed name") }
    }

    private mutating func escape() throws(PatternProblem) -> PatternNode {
        switch next {
        case "A":
            offset += 1
            return .assertion(.start)
        case "Z":
            offset += 1
            return .assertion(.end)
        case "b":
            offset += 1
            return .assertion(.wordBoundary)
        case "B":
            offset += 1
            return .assertion(.noWordBoundary)
        default:
            return .set(try escapedSet().set)
        }
    }

    /// What follows a backslash, when it stands for characters; `single` when it is one that may bound a range.
    private mutating func escapedSet() throws(PatternProblem) -> (set: ByteSet, single: Unicode.Scalar?) {
        guard let scalar = next else { throw PatternProblem(reason: "it ends in a backslash") }
        offset += 1
        func one(_ code: UInt8) -> (ByteSet, Unicode.Scalar?) { (ByteSet(code...code), Unicode.Scalar(code)) }
        switch scalar {
        case "d": return (.digit, nil)
        case "D": return (ByteSet.digit.complement, nil)
        case "w": return (.word, nil)
        case "W": return (ByteSet.word.complement, nil)
        case "s": return (.space, nil)
        case "S": return (ByteSet.space.complement, nil)
        case "a": return one(7)
        case "t": return one(9)
        case "n": return one(10)
        case "v": return one(11)
        case "f": return one(12)
        case "r": return one(13)
        case "0"..."9": throw PatternProblem(reason: "back-references and octal escapes are not supported (\\\(scalar))")
        case "a"..."z", "A"..."Z": throw PatternProblem(reason: "the escape \\\(scalar) is not supported")
        default: return (PatternParser.set(of: scalar), scalar)
        }
    }

    /// What follows an opening bracket.
    private mutating func characterClass() throws(PatternProblem) -> ByteSet {
        let isNegated = consume("^")
        var set = ByteSet()
        var isFirst = true
        while true {
            guard next != nil else { throw PatternProblem(reason: "it has a '[' without its ']'") }
            if !isFirst, consume("]") { break }
            isFirst = false
            let (lower, lowerSet) = try classMember()
            guard next == "-", offset + 1 < text.count, text[offset + 1] != "]" else {
                set.formUnion(lowerSet)
                continue
            }
            offset += 1
            let (upper, _) = try classMember()
            guard let lower, let upper, lower <= upper else { throw PatternProblem(reason: "it has a class with a malformed range") }
            if lower.isASCII { set.insert(UInt8(lower.value)...UInt8(min(upper.value, 127))) }
        }
        return isNegated ? set.complement : set
    }

    private mutating func classMember() throws(PatternProblem) -> (single: Unicode.Scalar?, set: ByteSet) {
        guard let scalar = next else { throw PatternProblem(reason: "it has a '[' without its ']'") }
        offset += 1
        guard scalar == "\\" else { return (scalar, PatternParser.set(of: scalar)) }
        if consume("b") { return (Unicode.Scalar(8 as UInt8), ByteSet(8...8)) }
        let (set, single) = try escapedSet()
        return (single, set)
    }
}
