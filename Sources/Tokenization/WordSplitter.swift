/// Finds the words of a text, one after another, exactly as a `PreTokenizer`'s regular expressions would, in one pass over UTF-8.
///
/// The text between two special tokens is one splitter's whole world: a look-ahead never sees past its end. No word end depends on
/// what came before the word, so the position is the only state.
struct WordSplitter {
    private let classes = UnicodeClasses.shared
    private let preTokenizer: PreTokenizer
    private let text: UnsafePointer<UInt8>
    private let end: Int

    /// - Parameters:
    ///   - text: valid UTF-8, which must outlive the splitter.
    ///   - end: the offset at which the text ends, on a character border.
    init(_ preTokenizer: PreTokenizer, text: UnsafePointer<UInt8>, end: Int) {
        self.preTokenizer = preTokenizer
        self.text = text
        self.end = end
    }

    /// The offset at which the word that begins at `start` ends; always beyond `start`.
    @inline(__always)
    func wordEnd(from start: Int) -> Int {
        switch preTokenizer {
        case .gpt2: gpt2WordEnd(from: start, isolatesNumbers: false)
        case .smollm: gpt2WordEnd(from: start, isolatesNumbers: true)
        case .qwen2: llamaWordEnd(from: start, numberLimit: 1, joinsMarks: false)
        case .qwen35: llamaWordEnd(from: start, numberLimit: 1, joinsMarks: true)
        case .llama3: llamaWordEnd(from: start, numberLimit: 3, joinsMarks: false)
        case .default: defaultWordEnd(from: start)
        }
    }

    // MARK: Characters

    private struct Character {
        var kind: UInt8
        var length: Int
    }

    @inline(__always)
    private func character(at offset: Int) -> Character {
        let lead = text[offset]
        if lead < 0x80 { return Character(kind: classes.rawClass(of: UInt32(lead)), length: 1) }
        return multibyteCharacter(at: offset, lead: UInt32(lead))
    }

    private func multibyteCharacter(at offset: Int, lead: UInt32) -> Character {
        @inline(__always) func tail(_ index: Int) -> UInt32 { UInt32(text[offset + index]) & 0x3F }
        if lead < 0xE0 {
            return Character(kind: classes.rawClass(of: (lead & 0x1F) << 6 | tail(1)), length: 2)
        }
        if lead < 0xF0 {
            return Character(kind: classes.rawClass(of: (lead & 0x0F) << 12 | tail(1) << 6 | tail(2)), length: 3)
        }
        return Character(kind: classes.rawClass(of: (lead & 0x07) << 18 | tail(1) << 12 | tail(2) << 6 | tail(3)), length: 4)
    }

    /// The end of the longest run from `start` whose characters' classes are in `kinds`, a set of bits `1 << class`.
    @inline(__always)
    private func runEnd(from start: Int, of kinds: UInt8) -> Int {
        var offset = start
        while offset < end {
            let next = character(at: offset)
            if kinds & (1 << next.kind) == 0 { break }
            offset += next.length
        }
        return offset
    }

    private static let letters = UInt8(1) << UnicodeClass.letter.rawValue
    private static let numbers = UInt8(1) << UnicodeClass.number.rawValue
    private static let marks = UInt8(1) << UnicodeClass.mark.rawValue
    private static let whitespace = UInt8(1) << UnicodeClass.whitespace.rawValue
    /// `[^\s\p{L}\p{N}]`
    private static let symbols = ~(letters | numbers | whitespace)

    private static let space = UInt8(ascii: " ")
    private static let apostrophe = UInt8(ascii: "'")

    @inline(__always)
    private func isNewline(_ byte: UInt8) -> Bool { byte == 0x0A || byte == 0x0D }

    /// The length of `'s`, `'t`, `'re`, `'ve`, `'m`, `'ll` or `'d` at `start`, where an apostrophe stands; 0 when there is none.
    private func contractionLength(at start: Int, ignoringCase: Bool) -> Int {
        let fold: UInt8 = ignoringCase ? 0x20 : 0
        guard start + 1 < end else { return 0 }
        let first = text[start + 1]
        // U+017F, the long s, is the one character beyond ASCII that folds to a letter of these suffixes.
        if ignoringCase, first == 0xC5, start + 2 < end, text[start + 2] == 0xBF { return 3 }
        switch first | fold {
        case UInt8(ascii: "s"), UInt8(ascii: "t"), UInt8(ascii: "m"), UInt8(ascii: "d"):
            return 2
        case UInt8(ascii: "r"), UInt8(ascii: "v"):
            return start + 2 < end && text[start + 2] | fold == UInt8(ascii: "e") ? 3 : 0
        case UInt8(ascii: "l"):
            return start + 2 < end && text[start + 2] | fold == UInt8(ascii: "l") ? 3 : 0
        default:
            return 0
        }
    }

    // MARK: Rules

    /// - Parameter isolatesNumbers: numbers were cut out one by one beforehand, so they end the text for what stands before them.
    private func gpt2WordEnd(from start: Int, isolatesNumbers: Bool) -> Int {
        let byte = text[start]
        if byte == Self.apostrophe {
            let length = contractionLength(at: start, ignoringCase: false)
            if length > 0 { return start + length }
        }
        let first = character(at: start)
        var wordStart = start
        var kind = first.kind
        if byte == Self.space, start + 1 < end {
            let next = character(at: start + 1)
            if next.kind != UnicodeClass.whitespace.rawValue, !(isolatesNumbers && next.kind == UnicodeClass.number.rawValue) {
                wordStart = start + 1
                kind = next.kind
            }
        }
        switch kind {
        case UnicodeClass.letter.rawValue:
            return runEnd(from: wordStart, of: Self.letters)
        case UnicodeClass.number.rawValue:
            return isolatesNumbers ? start + first.length : runEnd(from: wordStart, of: Self.numbers)
        case UnicodeClass.whitespace.rawValue:
            return whitespaceEnd(from: start, endingBefore: isolatesNumbers ? Self.numbers : 0)
        default:
            return runEnd(from: wordStart, of: Self.symbols)
        }
    }

    /// `\s+(?!\S)|\s+`: the whole run when the text ends after it (or a class of `boundary` follows, which counts as an end), else all
    /// but its last character, which belongs to the next word or stands alone.
    private func whitespaceEnd(from start: Int, endingBefore boundary: UInt8) -> Int {
        var offset = start
        var last = start
        while offset < end {
            let next = character(at: offset)
            if next.kind != UnicodeClass.whitespace.rawValue {
                if boundary & (1 << next.kind) != 0 { return offset }
                return last > start ? last : offset
            }
            last = offset
            offset += next.length
        }
        return offset
    }

    private func llamaWordEnd(from start: Int, numberLimit: Int, joinsMarks: Bool) -> Int {
        let wordKinds = joinsMarks ? Self.letters | Self.marks : Self.letters
        let byte = text[start]
        if byte == Self.apostrophe {
            let length = contractionLength(at: start, ignoringCase: true)
            if length > 0 { return start + length }
        }
        let first = character(at: start)
        if wordKinds & (1 << first.kind) != 0 { return runEnd(from: start + first.length, of: wordKinds) }
        if first.kind == UnicodeClass.number.rawValue {
            var offset = start + first.length
            for _ in 1..<numberLimit where offset < end {
                let next = character(at: offset)
                if next.kind != UnicodeClass.number.rawValue { break }
                offset += next.length
            }
            return offset
        }
        // One character of any kind but a number or a line end may lead a word.
        let afterFirst = start + first.length
        if afterFirst < end, !isNewline(byte) {
            let next = character(at: afterFirst)
            if wordKinds & (1 << next.kind) != 0 { return runEnd(from: afterFirst + next.length, of: wordKinds) }
            if byte == Self.space, symbolKinds(joinsMarks) & (1 << next.kind) != 0 {
                return symbolsEnd(from: afterFirst, joinsMarks: joinsMarks)
            }
        }
        if first.kind != UnicodeClass.whitespace.rawValue { return symbolsEnd(from: start, joinsMarks: joinsMarks) }
        return linesEnd(from: start)
    }

    @inline(__always)
    private func symbolKinds(_ joinsMarks: Bool) -> UInt8 { joinsMarks ? Self.symbols & ~Self.marks : Self.symbols }

    /// `[^\s\p{L}\p{N}]+[\r\n]*`
    @inline(__always)
    private func symbolsEnd(from start: Int, joinsMarks: Bool) -> Int {
        var offset = runEnd(from: start, of: symbolKinds(joinsMarks))
        while offset < end, isNewline(text[offset]) { offset += 1 }
        return offset
    }

    /// `\s*[\r\n]+|\s+(?!\S)|\s+`: through the run's last line end when it has one.
    private func linesEnd(from start: Int) -> Int {
        var offset = start
        var last = start
        var afterNewline = start
        while offset < end {
            let next = character(at: offset)
            if next.kind != UnicodeClass.whitespace.rawValue { break }
            last = offset
            offset += next.length
            if isNewline(text[last]) { afterNewline = offset }
        }
        if afterNewline > start { return afterNewline }
        return offset == end || last == start ? offset : last
    }

    /// The four expressions of `default` run one after another over the pieces of the one before; together they amount to this.
    private func defaultWordEnd(from start: Int) -> Int {
        let byte = text[start]
        if isDefaultPunctuation(at: start) { return defaultPunctuationEnd(from: start) }
        let first = character(at: start)
        switch first.kind {
        case UnicodeClass.number.rawValue:
            return defaultNumberEnd(from: start)
        case UnicodeClass.whitespace.rawValue:
            guard byte == Self.space, start + 1 < end, !isDefaultPunctuation(at: start + 1) else {
                return defaultWhitespaceEnd(from: start)
            }
            switch character(at: start + 1).kind {
            case UnicodeClass.whitespace.rawValue: return defaultWhitespaceEnd(from: start)
            case UnicodeClass.number.rawValue: return start + 1
            case UnicodeClass.letter.rawValue: return runEnd(from: start + 1, of: Self.letters)
            default: return defaultSymbolsEnd(from: start + 1)
            }
        case UnicodeClass.letter.rawValue:
            return runEnd(from: start, of: Self.letters)
        default:
            return defaultSymbolsEnd(from: start)
        }
    }

    /// `[\p{P}$+<=>^~|]`
    @inline(__always)
    private func isDefaultPunctuation(at offset: Int) -> Bool {
        switch text[offset] {
        case UInt8(ascii: "$"), UInt8(ascii: "+"), UInt8(ascii: "<"), UInt8(ascii: "="), UInt8(ascii: ">"), UInt8(ascii: "^"),
            UInt8(ascii: "~"), UInt8(ascii: "|"):
            true
        default:
            character(at: offset).kind == UnicodeClass.punctuation.rawValue
        }
    }

    private func defaultPunctuationEnd(from start: Int) -> Int {
        var offset = start
        while offset < end, isDefaultPunctuation(at: offset) { offset += character(at: offset).length }
        return offset
    }

    private func defaultSymbolsEnd(from start: Int) -> Int {
        var offset = start
        while offset < end, !isDefaultPunctuation(at: offset) {
            let next = character(at: offset)
            if Self.symbols & (1 << next.kind) == 0 { break }
            offset += next.length
        }
        return offset
    }

    private func defaultWhitespaceEnd(from start: Int) -> Int {
        let offset = runEnd(from: start, of: Self.whitespace)
        if offset == end || isDefaultPunctuation(at: offset) { return offset }
        return whitespaceEnd(from: start, endingBefore: 0)
    }

    private func defaultNumberEnd(from start: Int) -> Int {
        var offset = start
        while offset < end {
            if isThreeDigits(at: offset) { return offset == start ? start + 3 : offset }
            let next = character(at: offset)
            if next.kind != UnicodeClass.number.rawValue { break }
            offset += next.length
        }
        return offset
    }

    @inline(__always)
    private func isThreeDigits(at offset: Int) -> Bool {
        guard offset + 3 <= end else { return false }
        return (0..<3).allSatisfy { text[offset + $0] &- 0x30 < 10 }
    }
}
