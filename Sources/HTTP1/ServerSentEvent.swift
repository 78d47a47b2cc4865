/// Framing of server-sent events (the WHATWG HTML standard, 9.2.5 "Parsing an event stream").
public enum ServerSentEvent {
    /// A comment: clients ignore it, and connections that idle stay open.
    public static let keepAlive = Array(":\n\n".utf8)

    /// Appends one event: `data: …` for each line of the payload and an empty line.
    public static func append(data: [UInt8], to out: inout [UInt8]) {
        out.reserveCapacity(out.count + data.count + 8)
        var rest = data[...]
        repeat {
            // A line of the payload must not end the event; a CR would end a line just as an LF does.
            let end = rest.firstIndex { $0 == 0x0A || $0 == 0x0D } ?? rest.endIndex
            out.append(contentsOf: "data: ".utf8)
            out.append(contentsOf: rest[..<end])
            out.append(0x0A)
            guard end < rest.endIndex else { break }
            let isPair = rest[end] == 0x0D && end + 1 < rest.endIndex && rest[end + 1] == 0x0A
            rest = rest[(end + (isPair ? 2 : 1))...]
        } while true
        out.append(0x0A)
    }

    /// One event as bytes of its own.
    public static func event(data: [UInt8]) -> [UInt8] {
        var out: [UInt8] = []
        append(data: data, to: &out)
        return out
    }

    /// One event with text.
    public static func event(_ text: String) -> [UInt8] {
        event(data: Array(text.utf8))
    }
}
