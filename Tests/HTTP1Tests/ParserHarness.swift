import HTTP1
import HTTPTypes

/// A request as the tests compare it.
struct Parsed: Equatable {
    var method: String
    var path: String
    var body: String
    var trailers: [String] = []
}

/// What a parser made of a whole input: the complete requests, and the error that ended it.
struct Outcome: Equatable {
    var requests: [Parsed] = []
    var error: HTTP1Error.Code?
    /// A request has begun and is not complete.
    var isMidMessage = false
}

/// Feeds pieces one after another, as a connection would, each from memory of its own.
func outcome(of pieces: [[UInt8]], limits: HTTPMessageLimits = HTTPMessageLimits()) -> Outcome {
    let parser = HTTPRequestParser(limits: limits)
    var outcome = Outcome()
    var head: HTTPRequestHead?
    do {
        for piece in pieces {
            try piece.withUnsafeBytes { bytes in
                var rest = bytes
                var mustAdvance = !rest.isEmpty
                while mustAdvance || !rest.isEmpty {
                    mustAdvance = false
                    let (consumed, event) = try parser.parse(rest)
                    rest = UnsafeRawBufferPointer(rebasing: rest[consumed...])
                    switch event {
                    case .head(let new):
                        head = new
                        mustAdvance = true
                    case .end(let trailers):
                        outcome.requests.append(
                            Parsed(
                                method: head?.request.method.rawValue ?? "", path: head?.path ?? "",
                                body: String(decoding: parser.takeBody().joined(), as: UTF8.self), trailers: trailers.map(\.description)))
                    case nil:
                        break
                    }
                }
            }
        }
    } catch let error as HTTP1Error {
        outcome.error = error.code
    } catch {}
    outcome.isMidMessage = outcome.error == nil && parser.isMidMessage
    return outcome
}

func outcome(of text: String, limits: HTTPMessageLimits = HTTPMessageLimits()) -> Outcome {
    outcome(of: [Array(text.utf8)], limits: limits)
}

/// The input whole, cut in two at every byte, and byte by byte.
func everySplit(of text: String) -> [[[UInt8]]] {
    let bytes = Array(text.utf8)
    var all = [[bytes], bytes.map { [$0] }]
    for cut in bytes.indices.dropFirst() {
        all.append([Array(bytes[..<cut]), Array(bytes[cut...])])
    }
    return all
}

/// The head of a single request.
func head(of text: String) throws -> HTTPRequestHead? {
    let parser = HTTPRequestParser()
    let result = try Array(text.utf8).withUnsafeBytes { try parser.parse($0) }
    guard case .head(let head) = result.event else { return nil }
    return head
}
