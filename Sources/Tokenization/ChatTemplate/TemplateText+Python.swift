/// What Python's `str` does, over scalars, keeping the origin of every part.
extension TemplateText {
    // MARK: Stripping and splitting

    enum Side {
        case both, left, right

        var includesLeft: Bool { self != .right }
        var includesRight: Bool { self != .left }
    }

    /// `str.strip`, `lstrip`, `rstrip`: without the whitespace, or the scalars of `characters`, at the named ends.
    func stripped(_ side: Side = .both, of characters: TemplateText? = nil) -> TemplateText {
        let isStripped: (Unicode.Scalar) -> Bool
        if let characters {
            let set = Set(characters.string.unicodeScalars)
            isStripped = { set.contains($0) }
        } else {
            isStripped = { $0.isPythonSpace }
        }
        var start = 0
        var end = byteCount
        if side.includesLeft {
            while start < end {
                let (scalar, length) = scalar(at: start)
                guard isStripped(scalar) else { break }
                start += length
            }
        }
        if side.includesRight {
            while end > start {
                let previous = offset(before: end)
                guard isStripped(scalar(at: previous).scalar) else { break }
                end = previous
            }
        }
        return self[start..<end]
    }

    /// `str.split(separator, limit)`; the separator is not empty. A negative limit means no limit.
    func split(by separator: TemplateText, limit: Int = -1) -> [TemplateText] {
        var parts: [TemplateText] = []
        var start = 0
        while limit < 0 || parts.count < limit, let found = offset(of: separator, from: start) {
            parts.append(self[start..<found])
            start = found + separator.byteCount
        }
        parts.append(self[start..<byteCount])
        return parts
    }

    /// `str.rsplit(separator, limit)`: the same, but a limit counts from the end.
    func splitFromEnd(by separator: TemplateText, limit: Int) -> [TemplateText] {
        guard limit >= 0 else { return split(by: separator) }
        var parts: [TemplateText] = []
        var end = byteCount
        while parts.count < limit, let found = lastOffset(of: separator, endingAt: end) {
            parts.append(self[(found + separator.byteCount)..<end])
            end = found
        }
        parts.append(self[0..<end])
        return parts.reversed()
    }

    /// `str.split()` and `str.rsplit()` without separator: at runs of whitespace, without empty parts.
    func splitAtWhitespace(limit: Int = -1, fromEnd: Bool = false) -> [TemplateText] {
        var words: [Range<Int>] = []
        var offset = 0
        var wordStart: Int?
        while offset < byteCount {
            let (scalar, length) = scalar(at: offset)
            if scalar.isPythonSpace {
                if let start = wordStart { words.append(start..<offset) }
                wordStart = nil
            } else if wordStart == nil {
                wordStart = offset
            }
            offset += length
        }
        if let start = wordStart { words.append(start..<byteCount) }
        guard limit >= 0, words.count > limit else { return words.map { self[$0] } }
        if fromEnd {
            // The rest keeps its inner whitespace and loses the outer.
            let rest = words.count - limit
            let head = self[0..<words[rest - 1].upperBound].stripped(.right)
            return [head] + words[rest...].map { self[$0] }
        }
        return words[..<limit].map { self[$0] } + [self[words[limit].lowerBound..<byteCount]]
    }

    /// `str.splitlines(keepends)`.
    func lines(keepingEnds: Bool = false) -> [TemplateText] {
        var result: [TemplateText] = []
        var start = 0
        var offset = 0
        while offset < byteCount {
            let (scalar, length) = scalar(at: offset)
            guard scalar.isPythonLineBreak else {
                offset += length
                continue
            }
            var end = offset + length
            if scalar == "\r", end < byteCount, bytes[end] == UInt8(ascii: "\n") { end += 1 }
            result.append(self[start..<(keepingEnds ? end : offset)])
            start = end
            offset = end
        }
        if start < byteCount { result.append(self[start..<byteCount]) }
        return result
    }

    /// `separator.join(parts)`.
    static func joined(_ parts: [TemplateText], separator: TemplateText) -> TemplateText {
        var result = TemplateText()
        result.reserveCapacity(parts.reduce(0) { $0 + $1.byteCount } + separator.byteCount * max(0, parts.count - 1))
        for (index, part) in parts.enumerated() {
            if index > 0 { result.append(separator) }
            result.append(part)
        }
        return result
    }

    /// The offsets at which `pattern` occurs, without overlaps; an empty pattern occurs before every scalar and at the end.
    func occurrences(of pattern: TemplateText, limit: Int = -1) -> [Int] {
        var found: [Int] = []
        var start = 0
        while limit < 0 || found.count < limit {
            guard let offset = offset(of: pattern, from: start) else { break }
            found.append(offset)
            if pattern.isEmpty {
                guard offset < byteCount else { break }
                start = offset + scalar(at: offset).length
            } else {
                start = offset + pattern.byteCount
            }
        }
        return found
    }

    /// `str.replace(old, new, limit)` at occurrences found before.
    func replacing(_ occurrences: [Int], ofLength length: Int, with new: TemplateText) -> TemplateText {
        guard !occurrences.isEmpty else { return self }
        var result = TemplateText()
        result.reserveCapacity(byteCount + occurrences.count * (new.byteCount - length))
        var start = 0
        for offset in occurrences {
            result.append(self, start..<offset)
            result.append(new, 0..<new.byteCount)
            start = offset + length
        }
        result.append(self, start..<byteCount)
        return result
    }

    /// `text[start:stop:step]` with Python's rules for absent and negative numbers; `step` is not zero.
    func sliced(_ slice: TemplateSlice) -> TemplateText {
        let count = scalarCount
        let (start, stop, step) = slice.resolved(count: count)
        if step == 1 {
            guard start < stop else { return TemplateText() }
            let from = count == byteCount ? start : offset(ofScalar: start)
            let to = count == byteCount ? stop : (stop == count ? byteCount : offset(ofScalar: stop))
            return self[from..<to]
        }
        let all = characters
        var result = TemplateText()
        for index in slice.indices(count: count) { result.append(all[index]) }
        return result
    }

    // MARK: Letters

    func mapped(_ transform: (Unicode.Scalar) -> String) -> TemplateText {
        var result = TemplateText()
        result.reserveCapacity(byteCount)
        var offset = 0
        while offset < byteCount {
            let (scalar, length) = scalar(at: offset)
            result.append(transform(scalar), isTrusted: isTrusted(at: offset))
            offset += length
        }
        return result
    }

    var uppercased: TemplateText { mapped { $0.properties.uppercaseMapping } }

    var lowercased: TemplateText {
        var offset = 0
        return mapped { scalar in
            defer { offset += UTF8.width(scalar) }
            return lowercaseMapping(of: scalar, at: offset)
        }
    }

    private func lowercaseMapping(of scalar: Unicode.Scalar, at offset: Int) -> String {
        if scalar == "\u{3A3}" { return isFinalSigma(at: offset) ? "\u{3C2}" : "\u{3C3}" }
        return scalar.properties.lowercaseMapping
    }

    /// Unicode's Final_Sigma condition: a letter before the sigma and none after it, ignoring marks and the like.
    private func isFinalSigma(at sigma: Int) -> Bool {
        var before = sigma
        var followsLetter = false
        while before > 0 {
            before = offset(before: before)
            let properties = scalar(at: before).scalar.properties
            if properties.isCaseIgnorable { continue }
            followsLetter = properties.isCased
            break
        }
        guard followsLetter else { return false }
        var after = sigma + 2
        while after < byteCount {
            let (scalar, length) = scalar(at: after)
            if scalar.properties.isCaseIgnorable {
                after += length
                continue
            }
            return !scalar.properties.isCased
        }
        return true
    }

    /// `str.capitalize`: the first scalar in title case, the others in lower case.
    var capitalized: TemplateText {
        guard !isEmpty else { return self }
        let length = scalar(at: 0).length
        var result = self[0..<length].mapped { $0.properties.titlecaseMapping }
        result.append(self[length..<byteCount].lowercased)
        return result
    }

    /// `str.title`: every letter after a non-letter in title case, the others in lower case.
    var titlecased: TemplateText {
        var followsLetter = false
        var offset = 0
        return mapped { scalar in
            defer { offset += UTF8.width(scalar) }
            let mapping = followsLetter ? lowercaseMapping(of: scalar, at: offset) : scalar.properties.titlecaseMapping
            followsLetter = scalar.properties.isCased
            return mapping
        }
    }

    var caseSwapped: TemplateText {
        mapped { $0.properties.isUppercase ? $0.properties.lowercaseMapping : $0.properties.uppercaseMapping }
    }

    func allScalars(_ isMember: (Unicode.Scalar) -> Bool) -> Bool {
        var offset = 0
        while offset < byteCount {
            let (scalar, length) = scalar(at: offset)
            guard isMember(scalar) else { return false }
            offset += length
        }
        return byteCount > 0
    }

    /// `str.islower` or `str.isupper`: at least one cased scalar, and none of the other case.
    func isAll(lowercase: Bool) -> Bool {
        var hasCased = false
        var offset = 0
        while offset < byteCount {
            let (scalar, length) = scalar(at: offset)
            let properties = scalar.properties
            let isTitle = properties.generalCategory == .titlecaseLetter
            if isTitle || (lowercase ? properties.isUppercase : properties.isLowercase) { return false }
            if lowercase ? properties.isLowercase : properties.isUppercase { hasCased = true }
            offset += length
        }
        return hasCased
    }

    // MARK: Padding

    /// `str.ljust`, `rjust`, `center` (Python puts an odd space left of the text when the width is odd).
    func padded(to width: Int, with fill: Unicode.Scalar = " ", _ side: Side) -> TemplateText {
        let missing = width - scalarCount
        guard missing > 0 else { return self }
        let left: Int
        switch side {
        case .left: left = 0
        case .right: left = missing
        case .both: left = missing / 2 + (missing & width & 1)
        }
        let padding = TemplateText(String(fill))
        var result = padding.repeated(left)
        result.append(self)
        result.append(padding.repeated(missing - left))
        return result
    }

    /// Python's `repr`: in single quotes unless only single quotes occur inside; quotes and escapes are not trusted.
    var representation: TemplateText {
        let quote: Unicode.Scalar = bytes.contains(UInt8(ascii: "'")) && !bytes.contains(UInt8(ascii: "\"")) ? "\"" : "'"
        var result = TemplateText()
        result.reserveCapacity(byteCount + 2)
        result.append(quote, isTrusted: false)
        var offset = 0
        while offset < byteCount {
            let (scalar, length) = scalar(at: offset)
            let isTrusted = isTrusted(at: offset)
            offset += length
            switch scalar {
            case quote, "\\":
                result.append("\\", isTrusted: isTrusted)
                result.append(scalar, isTrusted: isTrusted)
            case "\n": result.append("\\n", isTrusted: isTrusted)
            case "\r": result.append("\\r", isTrusted: isTrusted)
            case "\t": result.append("\\t", isTrusted: isTrusted)
            default:
                if scalar.isPythonPrintable {
                    result.append(scalar, isTrusted: isTrusted)
                } else {
                    result.append(scalar.pythonEscape, isTrusted: isTrusted)
                }
            }
        }
        result.append(quote, isTrusted: false)
        return result
    }
}

/// The three parts of `[start:stop:step]`, absent parts nil, `step` never zero.
struct TemplateSlice {
    var start: Int?
    var stop: Int?
    var step: Int?

    /// Python's `slice.indices`: positions clamped to the sequence.
    func resolved(count: Int) -> (start: Int, stop: Int, step: Int) {
        let step = step ?? 1
        let lower = step < 0 ? -1 : 0
        let upper = step < 0 ? count - 1 : count
        func clamp(_ position: Int?, _ absent: Int) -> Int {
            guard let position else { return absent }
            return position < 0 ? max(position &+ count, lower) : min(position, upper)
        }
        return (clamp(start, step < 0 ? upper : lower), clamp(stop, step < 0 ? lower : upper), step)
    }

    /// The positions that the slice selects, in its order.
    func indices(count: Int) -> [Int] {
        let (start, stop, step) = resolved(count: count)
        guard step > 0 ? start < stop : start > stop else { return [] }
        // A step longer than the sequence selects the first position only, and must not overflow.
        return Array(stride(from: start, to: stop, by: min(max(step, -count), max(count, 1))))
    }
}

extension Unicode.Scalar {
    /// `str.isspace`, which is also what Python's regular expressions and `strip` take for whitespace.
    var isPythonSpace: Bool {
        switch value {
        case 0x09...0x0D, 0x1C...0x20, 0x85, 0xA0, 0x1680, 0x2000...0x200A, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000: true
        default: false
        }
    }

    /// Where `str.splitlines` ends a line.
    var isPythonLineBreak: Bool {
        switch value {
        case 0x0A...0x0D, 0x1C...0x1E, 0x85, 0x2028, 0x2029: true
        default: false
        }
    }

    /// `str.isprintable`.
    var isPythonPrintable: Bool {
        if value < 0x7F { return value >= 0x20 }
        switch properties.generalCategory {
        case .control, .format, .surrogate, .privateUse, .unassigned, .lineSeparator, .paragraphSeparator, .spaceSeparator: return false
        default: return true
        }
    }

    /// How `repr` writes what is not printable.
    var pythonEscape: String {
        func digits(_ width: Int) -> String {
            let text = String(value, radix: 16)
            return String(repeating: "0", count: max(0, width - text.count)) + text
        }
        if value < 0x100 { return "\\x" + digits(2) }
        if value < 0x10000 { return "\\u" + digits(4) }
        return "\\U" + digits(8)
    }
}
