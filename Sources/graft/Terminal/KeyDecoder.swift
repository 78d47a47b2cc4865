import Tokenization

/// Turns the bytes of a terminal in raw mode into keys, whatever the cuts between reads.
///
/// It knows the sequences of xterm and its relatives (ECMA-48 control sequences, `ESC O` keypad sequences, bracketed paste) and the common
/// Alt combinations. A sequence that it does not know is swallowed whole, so that no part of it ends up in the text.
package struct KeyDecoder {
    private var pending: [UInt8] = []
    private var characters = UTF8Assembler()
    /// The bytes of a paste whose end has not come yet.
    private var paste: [UInt8]?

    private static let escape: UInt8 = 0x1B
    private static let pasteEnd = Array("\u{1B}[201~".utf8)
    /// No key sends a longer sequence.
    private static let longestSequence = 32

    package init() {}

    /// Whether an Escape is waiting for what may follow it. If nothing does for some 50 ms, it was the key itself: `flush()`.
    package var isWaiting: Bool { paste == nil && !pending.isEmpty }

    package mutating func decode(_ bytes: some Sequence<UInt8>) -> [Key] {
        var keys: [Key] = []
        pending.append(contentsOf: bytes)
        var position = 0
        while position < pending.count {
            if paste != nil {
                takePaste(&position, &keys)
                continue
            }
            let byte = pending[position]
            if byte == Self.escape {
                endText(&keys)
                guard let length = takeSequence(at: position, &keys) else { break }
                position += length
            } else if byte >= 0x20 && byte != 0x7F || byte == 0x09 {
                let end = pending[position...].firstIndex { $0 < 0x20 && $0 != 0x09 || $0 == 0x7F } ?? pending.endIndex
                var text = ""
                characters.append(pending[position..<end], to: &text)
                appendText(text, &keys)
                position = end
            } else {
                endText(&keys)
                keys.append(Self.controlKey(byte))
                position += 1
            }
        }
        pending.removeFirst(position)
        return keys
    }

    /// Gives up waiting for the rest of a sequence.
    package mutating func flush() -> [Key] {
        guard isWaiting else { return [] }
        pending.removeAll()
        return [.other]
    }

    private func appendText(_ text: String, _ keys: inout [Key]) {
        if !text.isEmpty { keys.append(.text(text)) }
    }

    /// What is left of a character that something else interrupts.
    private mutating func endText(_ keys: inout [Key]) {
        appendText(characters.finish(), &keys)
    }

    private static func controlKey(_ byte: UInt8) -> Key {
        switch byte {
        case 0x0D, 0x0A: .enter
        case 0x7F, 0x08: .backspace
        case 0x01...0x1A: .control(Character(Unicode.Scalar(byte + 0x60)))
        default: .other
        }
    }

    // MARK: Sequences

    /// Reads the sequence that begins with the Escape at `start`.
    /// - Returns: its length, or nil when its end has not come yet.
    private mutating func takeSequence(at start: Int, _ keys: inout [Key]) -> Int? {
        let rest = pending[start...]
        guard rest.count > 1 else { return nil }
        switch rest[start + 1] {
        case UInt8(ascii: "["): return takeControlSequence(at: start, &keys)
        case UInt8(ascii: "O"):
            guard rest.count > 2 else { return nil }
            keys.append(Self.arrow(rest[start + 2], modifier: 1) ?? (rest[start + 2] == UInt8(ascii: "M") ? .enter : .other))
            return 3
        case Self.escape:
            // Alt and an arrow in some terminals, or Escape twice: what follows is read on its own.
            keys.append(.other)
            return 1
        case let byte:
            switch byte {
            case 0x0D, 0x0A: keys.append(.lineBreak)
            case 0x7F, 0x08: keys.append(.deleteWordLeft)
            case UInt8(ascii: "b"), UInt8(ascii: "B"): keys.append(.wordLeft)
            case UInt8(ascii: "f"), UInt8(ascii: "F"): keys.append(.wordRight)
            case UInt8(ascii: "d"), UInt8(ascii: "D"): keys.append(.deleteWordRight)
            default:
                keys.append(.other)
                // A character of several bytes after an Escape is more likely typed than part of a sequence.
                if byte >= 0x80 { return 1 }
            }
            return 2
        }
    }

    /// `ESC [ parameters final`
    private mutating func takeControlSequence(at start: Int, _ keys: inout [Key]) -> Int? {
        let parameters = start + 2
        // The Linux console sends `ESC [ [ A` for F1.
        if pending.count > parameters, pending[parameters] == UInt8(ascii: "[") {
            guard pending.count > parameters + 1 else { return nil }
            keys.append(.other)
            return 4
        }
        guard let end = pending[parameters...].firstIndex(where: { !(0x20...0x3F).contains($0) }) else {
            guard pending.count - start <= Self.longestSequence else {
                keys.append(.other)
                return pending.count - start
            }
            return nil
        }
        guard (0x40...0x7E).contains(pending[end]) else {
            // Something else began inside of it: only what came before is dropped.
            keys.append(.other)
            return end - start
        }
        let numbers = pending[parameters..<end].split(separator: UInt8(ascii: ";"), omittingEmptySubsequences: false)
            .map { Int(String(decoding: $0, as: UTF8.self)) ?? 1 }
        let modifier = numbers.count > 1 ? numbers[1] : 1
        switch (pending[end], numbers.first ?? 1) {
        case (UInt8(ascii: "~"), 200): paste = []
        case (UInt8(ascii: "~"), 1), (UInt8(ascii: "~"), 7): keys.append(.home)
        case (UInt8(ascii: "~"), 4), (UInt8(ascii: "~"), 8): keys.append(.end)
        case (UInt8(ascii: "~"), 3): keys.append(modifier == 1 ? .delete : .deleteWordRight)
        // Enter with a modifier, as xterm (`27;2;13~`) and kitty (`13;2u`) report it.
        case (UInt8(ascii: "~"), 27) where numbers.last == 13, (UInt8(ascii: "u"), 13): keys.append(modifier == 1 ? .enter : .lineBreak)
        case (let final, _): keys.append(Self.arrow(final, modifier: modifier) ?? .other)
        }
        return end - start + 1
    }

    /// - Parameter modifier: 1 + Shift 1, Alt 2, Ctrl 4.
    private static func arrow(_ final: UInt8, modifier: Int) -> Key? {
        let jumps = (modifier - 1) & 6 != 0
        switch final {
        case UInt8(ascii: "A"): return .up
        case UInt8(ascii: "B"): return .down
        case UInt8(ascii: "C"): return jumps ? .wordRight : .right
        case UInt8(ascii: "D"): return jumps ? .wordLeft : .left
        case UInt8(ascii: "H"): return .home
        case UInt8(ascii: "F"): return .end
        default: return nil
        }
    }

    // MARK: Paste

    private mutating func takePaste(_ position: inout Int, _ keys: inout [Key]) {
        // The marker may lie across two reads.
        let searched = max(0, paste!.count - Self.pasteEnd.count + 1)
        paste! += pending[position...]
        position = pending.count
        guard let end = Self.firstIndex(of: Self.pasteEnd, in: paste!, from: searched) else { return }
        let text = Self.cleaned(paste![..<end])
        // What follows the marker is decoded next.
        pending = Array(paste![(end + Self.pasteEnd.count)...])
        position = 0
        paste = nil
        if !text.isEmpty { keys.append(.paste(text)) }
    }

    private static func firstIndex(of needle: [UInt8], in haystack: [UInt8], from start: Int) -> Int? {
        guard haystack.count - start >= needle.count else { return nil }
        return (start...(haystack.count - needle.count)).first { haystack[$0] == needle[0] && haystack[$0..<($0 + needle.count)].elementsEqual(needle) }
    }

    private static func cleaned(_ bytes: ArraySlice<UInt8>) -> String {
        var result = ""
        var followsReturn = false
        for scalar in String(decoding: bytes, as: UTF8.self).unicodeScalars {
            switch scalar {
            case "\r": result.unicodeScalars.append("\n")
            case "\n": if !followsReturn { result.unicodeScalars.append("\n") }
            case "\t": result.unicodeScalars.append("\t")
            default: if scalar.properties.generalCategory != .control { result.unicodeScalars.append(scalar) }
            }
            followsReturn = scalar == "\r"
        }
        return result
    }
}
