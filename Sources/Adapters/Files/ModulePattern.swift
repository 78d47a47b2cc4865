import GGUF

/// One of PEFT's patterns over module paths, matched exactly as Python's `re` would and in bounded time.
///
/// The patterns come with the adapter, from anybody, so they are run as a nondeterministic automaton, all of its states at once: a match costs at most
/// the length of the program times the length of the path, where backtracking could take forever. Whether a text belongs to the language is all that
/// PEFT asks for, hence greedy and lazy repetition are the same here. Paths are ASCII.
///
/// Understood: literals, `.`, classes, `|`, groups (also named), `* + ? {m,n}` and their lazy forms, `^ $ \A \Z \b \B`, `\d \w \s` and their complements,
/// look-ahead. Not understood, and refused by name: look-behind, back-references, atomic groups, possessive repetition, inline flags, `\x \u \N`.
package struct ModulePattern: Sendable {
    /// What all patterns of one file may cost, in visited states; each match takes its part.
    package struct Budget {
        package var steps = 50_000_000

        package init() {}
    }

    /// The longest pattern that a file may bring, in characters.
    static let longest = 1_000

    private enum Form: Sendable {
        /// A key of letters, digits, `_` and `.` (any character) that ends the path, at its beginning or after a dot: what most files have.
        case plainEnd([UInt8])
        case program(PatternProgram, isWhole: Bool)
    }

    private let form: Form
    /// What holds the pattern, for messages: `target_modules`.
    private let subject: String

    /// A pattern for the whole path: `re.fullmatch(text, path)`.
    package init(whole text: String, subject: String) throws(AdapterError) {
        try self.init(text, compiled: text, isWhole: true, subject)
    }

    /// A key of `rank_pattern` or `alpha_pattern`: `re.match(rf"(.*\.)?({key})$", path)`.
    package init(end key: String, subject: String) throws(AdapterError) {
        let isPlain = key.utf8.allSatisfy { ByteSet.word.contains($0) || $0 == UInt8(ascii: ".") }
        if isPlain, key.utf8.count <= Self.longest {
            self.init(.plainEnd(Array(key.utf8)), subject)
        } else {
            try self.init(key, compiled: "(.*\\.)?(\(key))$", isWhole: false, subject)
        }
    }

    /// An entry of `layers_pattern`: `re.match(rf"(?:^|.*?\.){pattern}\.(?P<idx>\d+)\.", path)`.
    package init(layersNamed pattern: String, subject: String) throws(AdapterError) {
        try self.init(pattern, compiled: "(?:^|.*?\\.)\(pattern)\\.(?P<idx>\\d+)\\.", isWhole: false, subject)
    }

    private init(_ text: String, compiled: String, isWhole: Bool, _ subject: String) throws(AdapterError) {
        guard text.unicodeScalars.count <= Self.longest else {
            throw AdapterError(
                .unsupported,
                "\(subject): found a pattern of \(text.unicodeScalars.count) characters, expected at most \(Self.longest); list the module names instead")
        }
        do throws(PatternProblem) {
            self.init(.program(try PatternProgram(compiled), isWhole: isWhole), subject)
        } catch {
            throw AdapterError(.unsupported, "\(subject): pattern \(shown(text)): \(error.reason); list the module names instead")
        }
    }

    private init(_ form: Form, _ subject: String) {
        self.form = form
        self.subject = subject
    }

    /// What it takes in memory: instructions, or characters of a plain key.
    var size: Int {
        switch form {
        case .plainEnd(let key): key.count
        case .program(let program, _): program.count
        }
    }

    package func matches(_ path: [UInt8], _ budget: inout Budget) throws(AdapterError) -> Bool {
        switch form {
        case .plainEnd(let key):
            return Self.ends(path, with: key)
        case .program(let program, let isWhole):
            let result = program.matches(path, isWhole: isWhole, steps: &budget.steps)
            guard budget.steps >= 0 else {
                throw AdapterError(.unsupported, "\(subject): the file's patterns take too many steps to match; list the module names instead")
            }
            return result
        }
    }

    private static func ends(_ path: [UInt8], with key: [UInt8]) -> Bool {
        let start = path.count - key.count
        guard start >= 0, start == 0 || path[start - 1] == UInt8(ascii: ".") else { return false }
        var index = key.count - 1
        while index >= 0 {
            guard path[start + index] == key[index] || key[index] == UInt8(ascii: ".") else { return false }
            index -= 1
        }
        return true
    }
}

/// Why a pattern is not run.
struct PatternProblem: Error {
    let reason: String
}

/// A set of ASCII characters.
struct ByteSet: Sendable, Equatable {
    private var low: UInt64 = 0, high: UInt64 = 0

    init() {}

    init(_ range: ClosedRange<UInt8>) { insert(range) }

    mutating func insert(_ byte: UInt8) {
        if byte < 64 { low |= 1 << UInt64(byte) } else if byte < 128 { high |= 1 << UInt64(byte - 64) }
    }

    mutating func insert(_ range: ClosedRange<UInt8>) {
        for byte in range { insert(byte) }
    }

    mutating func formUnion(_ other: ByteSet) {
        low |= other.low
        high |= other.high
    }

    var complement: ByteSet {
        var other = self
        other.low = ~low
        other.high = ~high
        return other
    }

    func contains(_ byte: UInt8) -> Bool {
        byte < 64 ? low >> UInt64(byte) & 1 == 1 : byte < 128 && high >> UInt64(byte - 64) & 1 == 1
    }

    static let digit = ByteSet(UInt8(ascii: "0")...UInt8(ascii: "9"))
    static let word: ByteSet = {
        var set = digit
        set.insert(UInt8(ascii: "a")...UInt8(ascii: "z"))
        set.insert(UInt8(ascii: "A")...UInt8(ascii: "Z"))
        set.insert(UInt8(ascii: "_"))
        return set
    }()
    /// What Python's `\s` has of ASCII.
    static let space: ByteSet = {
        var set = ByteSet(9...13)
        set.insert(28...32)
        return set
    }()
    static let exceptNewline: ByteSet = {
        var set = ByteSet()
        set.insert(10)
        return set.complement
    }()
}
