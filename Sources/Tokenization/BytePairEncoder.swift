/// Byte-level byte-pair encoding: words by regular expression, merges by rank.
struct BytePairEncoder: Sendable {
    private let preTokenizer: PreTokenizer
    private let ignoresMerges: Bool
    /// By the bytes that tokens stand for; without control tokens, which no text can merge into.
    private let words: TokenTable
    private let merges: MergeTable
    private let wholeWords: WholeWords
    /// Token of each single byte, -1 where the vocabulary lacks it: such a byte is left out, as Hugging Face's and llama.cpp's encoders do.
    /// The unknown token cannot stand for it, since in these vocabularies that is a control token (often the end of text).
    private let byteTokens: ConstantBuffer<Int32>

    private struct Rule: MergeRule {
        let merges: MergeTable

        @inline(__always)
        func candidate(_ left: Symbol, _ right: Symbol) -> MergeCandidate {
            let entry = merges.entry(left.id, right.id)
            return MergeCandidate(priority: entry.rank, id: entry.result)
        }
    }

    init(_ vocabulary: Vocabulary, preTokenizer: PreTokenizer, ignoresMerges: Bool, words: TokenTable) throws(TokenizationError) {
        self.preTokenizer = preTokenizer
        self.ignoresMerges = ignoresMerges
        self.words = words
        wholeWords = WholeWords(tokenCount: vocabulary.tokens.count)
        byteTokens = ConstantBuffer((0..<256).map { byte in
            withUnsafePointer(to: UInt8(byte)) { words.id(of: $0, count: 1) }
        })
        merges = MergeTable(try Self.resolve(vocabulary, words: words))
    }

    /// The merges as ids. Those that take part in a control token are left out: no text may merge into one.
    private static func resolve(
        _ vocabulary: Vocabulary, words: TokenTable
    ) throws(TokenizationError) -> [(left: Int32, right: Int32, result: Int32)] {
        var resolved: [(left: Int32, right: Int32, result: Int32)] = []
        resolved.reserveCapacity(vocabulary.merges.count)
        let guarded = Set(vocabulary.tokens.indices.lazy.filter { vocabulary.types[$0] == .control || vocabulary.types[$0] == .unknown }.map { id in
            var bytes: [UInt8] = []
            return ByteAlphabet.decode(vocabulary.tokens[id], into: &bytes) ? bytes : Array(vocabulary.tokens[id].utf8)
        })
        var pair: [UInt8] = []
        for (rank, merge) in vocabulary.merges.enumerated() {
            var middle = -1
            pair.removeAll(keepingCapacity: true)
            var spelling = merge
            let isSpelled = spelling.withUTF8 { utf8 -> Bool in
                // The first character can itself be a space in vocabularies that do not spell it in the byte alphabet.
                guard utf8.count > 2, let space = utf8.dropFirst().firstIndex(of: UInt8(ascii: " ")), space + 1 < utf8.count else { return false }
                guard ByteAlphabet.decode(utf8[..<space], into: &pair) else { return false }
                middle = pair.count
                return ByteAlphabet.decode(utf8[(space + 1)...], into: &pair)
            }
            guard isSpelled else {
                throw TokenizationError(
                    code: .invalidVocabulary,
                    message: "merge \(rank) is \"\(merge)\", expected two tokens in GPT-2's byte alphabet with a space between; convert the model again")
            }
            let ids = pair.withUnsafeBufferPointer { bytes -> (Int32, Int32, Int32) in
                let base = bytes.baseAddress!
                return (
                    words.id(of: base, count: middle), words.id(of: base + middle, count: bytes.count - middle),
                    words.id(of: base, count: bytes.count)
                )
            }
            guard ids.0 >= 0, ids.1 >= 0, ids.2 >= 0 else {
                if guarded.contains(pair) || guarded.contains(Array(pair[..<middle])) || guarded.contains(Array(pair[middle...])) { continue }
                throw TokenizationError(
                    code: .invalidVocabulary,
                    message: "merge \(rank) \"\(merge)\" has a part or a result that is not a token of the vocabulary; convert the model again")
            }
            resolved.append(ids)
        }
        return resolved
    }

    /// Appends the tokens of `text[start..<end]`, a stretch without special tokens.
    func encode(_ text: UnsafePointer<UInt8>, from start: Int, to end: Int, scratch: inout SymbolMerger, into ids: inout [Int32]) {
        let splitter = WordSplitter(preTokenizer, text: text, end: end)
        var offset = start
        while offset < end {
            let wordEnd = splitter.wordEnd(from: offset)
            encodeWord(text, offset, wordEnd, &scratch, &ids)
            offset = wordEnd
        }
    }

    @inline(__always)
    private func encodeWord(_ text: UnsafePointer<UInt8>, _ start: Int, _ end: Int, _ scratch: inout SymbolMerger, _ ids: inout [Int32]) {
        let whole = words.id(of: text + start, count: end - start)
        if whole >= 0 {
            if ignoresMerges || wholeWords[whole] == .merges {
                ids.append(whole)
                return
            }
            if wholeWords[whole] == .unknown {
                mergeWord(text, start, end, &scratch)
                wholeWords[whole] = scratch.symbols.count == 1 && scratch.symbols[0].id == whole ? .merges : .staysSplit
                for symbol in scratch.symbols { ids.append(symbol.id) }
                return
            }
        }
        mergeWord(text, start, end, &scratch)
        for symbol in scratch.symbols { ids.append(symbol.id) }
    }

    private func mergeWord(_ text: UnsafePointer<UInt8>, _ start: Int, _ end: Int, _ scratch: inout SymbolMerger) {
        scratch.symbols.removeAll(keepingCapacity: true)
        for offset in start..<end {
            let id = byteTokens[Int(text[offset])]
            if id >= 0 { scratch.symbols.append(Symbol(id: id, start: Int32(offset), end: Int32(offset + 1))) }
        }
        scratch.merge(by: Rule(merges: merges))
    }
}
