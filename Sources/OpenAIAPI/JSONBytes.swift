import JSON

/// Appending JSON text straight to a response's bytes: a streamed token must not cost a tree of values.
extension [UInt8] {
    mutating func append(_ text: StaticString) {
        append(contentsOf: UnsafeBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
    }

    mutating func appendStringOrNull(_ text: String?) {
        if let text { appendJSONString(text, to: &self) } else { append("null") }
    }

    mutating func appendInteger(_ value: some FixedWidthInteger) {
        appendJSONInteger(Int64(value), to: &self)
    }

    /// A natural-log probability with the fewest digits that give the same `Float` back. JSON has no infinity: a token that cannot
    /// be sampled is -9999, as at OpenAI.
    mutating func appendLogprob(_ value: Float) {
        guard value.isFinite else { return append("-9999.0") }
        var text = value.description
        text.withUTF8 { append(contentsOf: $0) }
    }

    mutating func appendIntegers(_ values: [Int32]) {
        append("[")
        for (index, value) in values.enumerated() {
            if index > 0 { append(",") }
            appendInteger(value)
        }
        append("]")
    }
}
