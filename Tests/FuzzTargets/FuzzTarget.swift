/// A parser that reads what strangers send, as one function of bytes: fuzzed by libFuzzer (`Scripts/fuzz`), and run over the kept inputs by `FuzzTests`.
///
/// What a target promises beyond not crashing is written at its function. A refusal by the parser is a good outcome of any input; a promise that does
/// not hold is a finding.
public enum FuzzTarget: String, CaseIterable, Sendable {
    /// Bytes of a connection.
    case http
    /// A line with the Content-Type, then the body.
    case multipart
    /// The body of `POST /v1/chat/completions`; any JSON text.
    case chat
    /// A file of training data in any format.
    case examples
    /// A GGUF file: a model's header and vocabulary, or an adapter.
    case gguf
    /// A safetensors file, an adapter's configuration, or a tar archive of both.
    case safetensors
    /// A chat template; behind a zero byte, if there is one, the messages as JSON.
    case template
    /// A byte that chooses a vocabulary, then text; the character U+0001 changes between trusted and untrusted.
    case tokenizer

    /// Runs the input through the target.
    ///
    /// - Throws: `FuzzFinding` when a promise is broken.
    public func run(_ input: [UInt8]) throws(FuzzFinding) {
        switch self {
        case .http: try fuzzHTTP(input)
        case .multipart: try fuzzMultipart(input)
        case .chat: try fuzzChat(input)
        case .examples: try fuzzExamples(input)
        case .gguf: try fuzzGGUF(input)
        case .safetensors: try fuzzSafetensors(input)
        case .template: try fuzzTemplate(input)
        case .tokenizer: try fuzzTokenizer(input)
        }
    }
}

/// A promise of a parser that an input breaks.
public struct FuzzFinding: Error, Sendable, Equatable, CustomStringConvertible {
    /// The promise, and how it was broken.
    public let message: String

    init(_ message: String) {
        self.message = message
    }

    public var description: String { message }
}

/// Throws a finding unless the promise holds.
func promise(_ holds: Bool, _ message: @autoclosure () -> String) throws(FuzzFinding) {
    guard holds else { throw FuzzFinding(message()) }
}

/// What must not be wrong on any input, because it is the target's own: a fixture that is missing, say.
func required<Value>(_ what: String, _ body: () throws -> Value) -> Value {
    do {
        return try body()
    } catch {
        fatalError("the fuzz target cannot start: \(what): \(error)")
    }
}

/// Bytes in memory of exactly their size, so that the address sanitizer sees a read one byte beyond them.
func withExactCopy<Result, Failure: Error>(
    of bytes: ArraySlice<UInt8>, _ body: (UnsafeRawBufferPointer) throws(Failure) -> Result
) throws(Failure) -> Result {
    let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count, alignment: 1)
    defer { copy.deallocate() }
    copy.copyBytes(from: bytes)
    return try body(UnsafeRawBufferPointer(copy))
}

/// The ways in which a target cuts an input: whole, in two at a place that the input's own bytes choose, and byte by byte if it is short.
func cuts(of input: ArraySlice<UInt8>) -> [[ArraySlice<UInt8>]] {
    // FNV-1a: any change of the input moves the cut.
    let hash = input.reduce(0xCBF2_9CE4_8422_2325 as UInt64) { ($0 ^ UInt64($1)) &* 0x100_0000_01B3 }
    let cut = input.startIndex + Int(hash >> 16) % (input.count + 1)
    var all = [[input], [input[..<cut], input[cut...]]]
    if input.count <= 2048 { all.append(input.indices.map { input[$0...$0] }) }
    return all
}
