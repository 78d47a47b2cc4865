/// Which tokens are special, how far they can be trusted, and which of them end an answer.
///
/// Files do not agree on token types: converters have marked turn borders as user-defined or normal. So a token's spelling and the ids
/// that the file names (`bos`, `eos`, …) count too.
struct SpecialTokenRoles {
    /// The vocabulary's types, corrected.
    private(set) var types: [Vocabulary.TokenType]
    /// Tokens that are matched whole; a guarded one only in trusted text.
    private(set) var matched: [(id: Int32, isGuarded: Bool)] = []
    private(set) var endOfGeneration: Set<Int32> = []

    /// Spellings that end a turn, a message or a text in published models.
    private static let endings: Set<String> = [
        "<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<|endoftext|>", "<|eom_id|>",
        "<|end_of_text|>", "<end_of_turn>", "<end_of_utterance>", "<eos>", "<turn|>", "</s>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]",
        "<｜end▁of▁sentence｜>",
    ]

    /// Endings that are also words of some vocabularies (HTML's strike-through), so that only the control token of this spelling counts.
    private static let ambiguousEndings: Set<String> = ["</s>", "<eos>", "<EOT>", "[EOT]", "[EOS]"]

    /// After these, what a fill-in-the-middle request asked for is over.
    private static let fillEndings: Set<String> = [
        "<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<reponame>", "<|file_sep|>",
    ]

    /// Markers that some files call user-defined although a request must not write them, beside those spelled `<|…|>`. No word that a
    /// vocabulary may hold for its own sake (HTML's `<s>`) is among them.
    private static let markers: Set<String> = [
        "<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>", "<end_of_utterance>",
        "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_CALLS]",
        "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "<turn|>", "<|turn>",
    ]

    init(_ vocabulary: Vocabulary) {
        types = vocabulary.types
        let named = Set([vocabulary.bos, vocabulary.eos, vocabulary.eot, vocabulary.eom].compactMap { $0 })
        let fillEnds = Set(vocabulary.fillEnds)
        var hasReturn = false
        var hasCall = false
        var hasFlush = false
        var end: Int32?
        for (index, token) in vocabulary.tokens.enumerated() {
            let id = Int32(index)
            // Most tokens are words; their first character tells.
            guard types[index] != .normal || Self.maySpellSpecial(token) else { continue }
            let isBracketed = Self.isBracketed(token)
            if types[index] == .normal || types[index] == .userDefined || types[index] == .undefined {
                // A named id is believed only if it looks like a marker: a file may name a word such as a line end.
                if isBracketed && Self.endings.contains(token) || named.contains(id) && Self.isMarker(token) {
                    types[index] = .control
                } else if id == vocabulary.unknown, Self.isMarker(token) {
                    types[index] = .unknown
                }
            }
            switch types[index] {
            case .control, .unknown:
                matched.append((id, true))
            case .userDefined:
                matched.append((id, isBracketed || Self.markers.contains(token)))
            default:
                continue
            }
            let isEnding = Self.endings.contains(token) && (types[index] == .control || !Self.ambiguousEndings.contains(token))
            let isFillEnding = Self.fillEndings.contains(token) && (types[index] == .control || isBracketed) || fillEnds.contains(id)
            if isEnding || isFillEnding { endOfGeneration.insert(id) }
            switch token {
            case "<|return|>": hasReturn = true
            case "<|call|>", "<|calls|>": hasCall = true
            case "<|flush|>": hasFlush = true
            case "<|end|>": end = id
            default: break
            }
        }
        // In formats of several channels `<|end|>` ends a channel, and the others the answer.
        if let end, hasCall, hasReturn || hasFlush { endOfGeneration.remove(end) }
        for id in [vocabulary.eos, vocabulary.eot, vocabulary.eom] {
            if let id { endOfGeneration.insert(id) }
        }
    }

    private static func maySpellSpecial(_ token: String) -> Bool {
        switch token.utf8.first {
        case UInt8(ascii: "<"), UInt8(ascii: "["), UInt8(ascii: "_"): true
        default: false
        }
    }

    /// `<…>` or `[…]`
    private static func isMarker(_ token: String) -> Bool {
        token.utf8.count > 2 && (token.hasPrefix("<") && token.hasSuffix(">") || token.hasPrefix("[") && token.hasSuffix("]"))
    }

    /// `<|…|>` or `<｜…｜>`: no vocabulary holds such a word by chance.
    static func isBracketed(_ token: String) -> Bool {
        token.utf8.count > 4 && (token.hasPrefix("<|") && token.hasSuffix("|>") || token.hasPrefix("<｜") && token.hasSuffix("｜>"))
    }
}
