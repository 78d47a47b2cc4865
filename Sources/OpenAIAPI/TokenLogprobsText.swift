import Inference
import JSON
import Tokenization

/// Writes tokens as the logprobs of chat and of plain completions show them.
struct TokenSpelling: Sendable {
    private let tokenizer: Tokenizer
    /// The bytes of the token that was spelled last; kept to save an allocation a token.
    private(set) var bytes: [UInt8] = []

    init(_ tokenizer: Tokenizer) {
        self.tokenizer = tokenizer
    }

    /// Appends the token as a JSON string. Bytes that are no whole characters are written `\xe2\x82` after `prefix`, as OpenAI does, so
    /// that different tokens keep different spellings.
    mutating func append(_ token: Int32, partialPrefix prefix: StaticString, to out: inout [UInt8]) {
        bytes.removeAll(keepingCapacity: true)
        tokenizer.appendBytes(of: token, to: &bytes, includeSpecial: true)
        if let text = String(validating: bytes, as: UTF8.self) {
            appendJSONString(text, to: &out)
            return
        }
        out.append("\"")
        out.append(prefix)
        for byte in bytes {
            out.append("\\\\x")
            out.append(Self.hexadecimal(byte >> 4))
            out.append(Self.hexadecimal(byte & 15))
        }
        out.append("\"")
    }

    /// Characters (Unicode scalars) that begin in the token spelled last.
    var characterCount: Int { Self.characterCount(bytes) }

    static func characterCount(_ bytes: some Sequence<UInt8>) -> Int {
        bytes.reduce(0) { $1 & 0xC0 == 0x80 ? $0 : $0 + 1 }
    }

    func bytes(of token: Int32) -> [UInt8] {
        var bytes: [UInt8] = []
        tokenizer.appendBytes(of: token, to: &bytes, includeSpecial: true)
        return bytes
    }

    func isControl(_ token: Int32) -> Bool { tokenizer.isControl(token) }

    private static func hexadecimal(_ digit: UInt8) -> UInt8 {
        digit < 10 ? UInt8(ascii: "0") + digit : UInt8(ascii: "a") + digit - 10
    }
}

/// The spellings of tokens that were met before: the same candidates come up again and again.
private struct SpellingCache: Sendable {
    /// Tokens beyond this many are spelled anew each time.
    private static let capacity = 16_384

    private var text: [UInt8] = []
    private var places: [Int32: Range<Int>] = [:]

    mutating func append(_ token: Int32, from spelling: inout TokenSpelling, to out: inout [UInt8]) {
        if let place = places[token] {
            out.append(contentsOf: text[place])
            return
        }
        let start = out.count
        spelling.append(token, partialPrefix: "bytes:", to: &out)
        guard places.count < Self.capacity else { return }
        places[token] = text.count..<(text.count + out.count - start)
        text.append(contentsOf: out[start...])
    }
}

/// `logprobs` of a chat choice: `{"content":[{token, logprob, bytes, top_logprobs}],"refusal":null}`.
struct ChatLogprobs {
    private var spelling: TokenSpelling
    private var content: [UInt8] = []

    init(_ tokenizer: Tokenizer) {
        spelling = TokenSpelling(tokenizer)
    }

    var isEmpty: Bool { content.isEmpty }

    mutating func append(_ token: GeneratedToken) {
        guard let logprobs = token.logprobs else { return }
        if !content.isEmpty { content.append(",") }
        appendEntry(token.id, logprobs.logprob)
        content.append(",\"top_logprobs\":[")
        for (index, candidate) in logprobs.top.enumerated() {
            if index > 0 { content.append(",") }
            appendEntry(candidate.token, candidate.logprob)
            content.append("}")
        }
        content.append("]}")
    }

    /// Everything of an entry but its end.
    private mutating func appendEntry(_ token: Int32, _ logprob: Float) {
        content.append("{\"token\":")
        spelling.append(token, partialPrefix: "", to: &content)
        content.append(",\"logprob\":")
        content.appendLogprob(logprob)
        content.append(",\"bytes\":[")
        for (index, byte) in spelling.bytes.enumerated() {
            if index > 0 { content.append(",") }
            content.appendInteger(byte)
        }
        content.append("]")
    }

    /// Appends the object and forgets the tokens.
    mutating func flush(to out: inout [UInt8]) {
        out.append("{\"content\":[")
        out.append(contentsOf: content)
        out.append("],\"refusal\":null}")
        content.removeAll(keepingCapacity: true)
    }
}

/// `logprobs` of a completions choice: the older, columnar shape `{tokens, token_logprobs, top_logprobs, text_offset}`, and with
/// `return_token_ids` also `token_ids` and `top_token_ids`.
package struct CompletionLogprobs: Sendable {
    private var spelling: TokenSpelling
    private let withTokenIDs: Bool
    private var count = 0
    private var tokens: [UInt8] = []
    private var tokenLogprobs: [UInt8] = []
    private var topLogprobs: [UInt8] = []
    private var textOffset: [UInt8] = []
    private var tokenIDs: [UInt8] = []
    private var topTokenIDs: [UInt8] = []
    /// Where the keys of the present position stand in `topLogprobs`.
    private var keys: [Range<Int>] = []
    /// The text of the present log-probability.
    private var number: [UInt8] = []
    private var spellings = SpellingCache()
    /// Where the next token begins, in characters (Unicode scalars, as Python counts) of the choice's text.
    private var offset = 0

    package init(_ tokenizer: Tokenizer, withTokenIDs: Bool) {
        spelling = TokenSpelling(tokenizer)
        self.withTokenIDs = withTokenIDs
    }

    var isEmpty: Bool { count == 0 }

    /// The tokens of an echoed prompt. Not all of their characters need be in its text: the tokenizer may have put a control token or a
    /// space before it.
    package mutating func append(prompt tokens: [Int32], _ entries: [TokenLogprobs?], text: String) {
        var rest = Array(text.utf8)[...]
        for (token, entry) in zip(tokens, entries) {
            let start = offset
            append(token, entry)
            let bytes = spelling.bytes(of: token)
            if rest.starts(with: bytes) {
                rest = rest.dropFirst(bytes.count)
            } else if bytes.first == UInt8(ascii: " "), rest.starts(with: bytes.dropFirst()) {
                rest = rest.dropFirst(bytes.count - 1)
                offset = start + TokenSpelling.characterCount(bytes.dropFirst())
            } else if spelling.isControl(token) {
                offset = start
            }
        }
    }

    /// - Parameter logprobs: `nil` for a prompt's first token, which nothing predicts.
    mutating func append(_ token: Int32, _ logprobs: TokenLogprobs?) {
        if count > 0 {
            tokens.append(",")
            tokenLogprobs.append(",")
            topLogprobs.append(",")
            textOffset.append(",")
            tokenIDs.append(",")
            topTokenIDs.append(",")
        }
        count += 1
        spelling.append(token, partialPrefix: "bytes:", to: &tokens)
        textOffset.appendInteger(offset)
        offset += spelling.characterCount
        tokenIDs.appendInteger(token)
        guard let logprobs else {
            tokenLogprobs.append("null")
            topLogprobs.append("null")
            topTokenIDs.append("null")
            return
        }
        tokenLogprobs.appendLogprob(logprobs.logprob)
        appendTop(token, logprobs)
    }

    /// The most likely tokens and, even when it is not among them, the one that was taken. Two tokens of one spelling share a key; the
    /// likelier one, which comes first, has it, and clients that must tell them apart read `top_token_ids`.
    private mutating func appendTop(_ token: Int32, _ logprobs: TokenLogprobs) {
        topLogprobs.append("{")
        if withTokenIDs { topTokenIDs.append("[") }
        keys.removeAll(keepingCapacity: true)
        var isListed = false
        for (index, candidate) in logprobs.top.enumerated() {
            number.removeAll(keepingCapacity: true)
            number.appendLogprob(candidate.logprob)
            appendMember(candidate.token)
            if candidate.token == token { isListed = true }
            guard withTokenIDs else { continue }
            topTokenIDs.append(index > 0 ? ",[" : "[")
            topTokenIDs.appendInteger(candidate.token)
            topTokenIDs.append(",")
            topTokenIDs.append(contentsOf: number)
            topTokenIDs.append("]")
        }
        if !isListed {
            number.removeAll(keepingCapacity: true)
            number.appendLogprob(logprobs.logprob)
            appendMember(token)
        }
        topLogprobs.append("}")
        if withTokenIDs { topTokenIDs.append("]") }
    }

    /// A token with the log-probability that stands in `number`, unless its spelling has been listed.
    private mutating func appendMember(_ token: Int32) {
        let undo = topLogprobs.count
        if !keys.isEmpty { topLogprobs.append(",") }
        let start = topLogprobs.count
        spellings.append(token, from: &spelling, to: &topLogprobs)
        let key = start..<topLogprobs.count
        let isKnown = topLogprobs.withUnsafeBufferPointer { bytes in
            keys.contains { $0.count == key.count && bytes[$0].elementsEqual(bytes[key]) }
        }
        if isKnown {
            topLogprobs.removeLast(topLogprobs.count - undo)
            return
        }
        keys.append(key)
        topLogprobs.append(":")
        topLogprobs.append(contentsOf: number)
    }

    /// Appends the object and forgets the tokens; offsets go on.
    package mutating func flush(to out: inout [UInt8]) {
        func column(_ head: StaticString, _ bytes: [UInt8]) {
            out.append(head)
            out.append(contentsOf: bytes)
            out.append("]")
        }
        column("{\"tokens\":[", tokens)
        column(",\"token_logprobs\":[", tokenLogprobs)
        column(",\"top_logprobs\":[", topLogprobs)
        column(",\"text_offset\":[", textOffset)
        if withTokenIDs {
            column(",\"token_ids\":[", tokenIDs)
            column(",\"top_token_ids\":[", topTokenIDs)
        }
        out.append("}")
        count = 0
        tokens.removeAll(keepingCapacity: true)
        tokenLogprobs.removeAll(keepingCapacity: true)
        topLogprobs.removeAll(keepingCapacity: true)
        textOffset.removeAll(keepingCapacity: true)
        tokenIDs.removeAll(keepingCapacity: true)
        topTokenIDs.removeAll(keepingCapacity: true)
    }
}
