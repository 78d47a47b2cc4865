/// A field value of the form `value; name=text; name="quoted text"`, as Content-Type and Content-Disposition have it.
struct FieldParameters {
    /// What stands before the first semicolon, in lower case.
    let value: String
    /// In order, names in lower case. A name may come more than once; what that means is the caller's to say.
    private(set) var parameters: [(name: String, value: String)] = []

    /// - Returns: nil for text of another form: a quote that is not closed, a parameter without a value, bytes that are not UTF-8.
    init?(_ bytes: ArraySlice<UInt8>) {
        let end = bytes.firstIndex(of: UInt8(ascii: ";")) ?? bytes.endIndex
        guard let value = FieldParameters.text(FieldParameters.trimmed(bytes[..<end])), !value.isEmpty else { return nil }
        self.value = value.lowercased()
        var rest = bytes[end...]
        while !rest.isEmpty {
            // `rest` begins with the semicolon.
            rest = FieldParameters.trimmed(rest.dropFirst())
            // Nothing between two semicolons, or after the last one, is harmless.
            if rest.isEmpty || rest.first == UInt8(ascii: ";") { continue }
            guard let equals = rest.firstIndex(of: UInt8(ascii: "=")),
                let name = FieldParameters.text(FieldParameters.trimmed(rest[..<equals])), FieldParameters.isToken(name)
            else { return nil }
            rest = FieldParameters.trimmed(rest[(equals + 1)...])
            guard let text = FieldParameters.takeValue(&rest) else { return nil }
            parameters.append((name.lowercased(), text))
            rest = FieldParameters.trimmed(rest)
            guard rest.isEmpty || rest.first == UInt8(ascii: ";") else { return nil }
        }
    }

    /// The values of all parameters of this name.
    func values(_ name: String) -> [String] {
        parameters.filter { $0.name == name }.map(\.value)
    }

    private static func takeValue(_ rest: inout ArraySlice<UInt8>) -> String? {
        guard rest.first == UInt8(ascii: "\"") else {
            let end = rest.firstIndex(of: UInt8(ascii: ";")) ?? rest.endIndex
            let value = trimmed(rest[..<end])
            rest = rest[end...]
            guard !value.isEmpty, value.allSatisfy({ $0 > 0x20 && $0 != 0x7F && $0 != UInt8(ascii: "\"") }) else { return nil }
            return text(value)
        }
        var value: [UInt8] = []
        var index = rest.startIndex + 1
        while index < rest.endIndex {
            switch rest[index] {
            case UInt8(ascii: "\""):
                rest = rest[(index + 1)...]
                return text(value[...])
            case UInt8(ascii: "\\") where index + 1 < rest.endIndex && (rest[index + 1] == UInt8(ascii: "\"") || rest[index + 1] == UInt8(ascii: "\\")):
                // Other backslashes are themselves: some clients send the path of a file as it is.
                index += 1
                value.append(rest[index])
            case let byte:
                value.append(byte)
            }
            index += 1
        }
        return nil
    }

    private static func text(_ bytes: ArraySlice<UInt8>) -> String? {
        String(validating: bytes, as: UTF8.self)
    }

    private static func trimmed(_ bytes: ArraySlice<UInt8>) -> ArraySlice<UInt8> {
        var bytes = bytes
        while let first = bytes.first, first == 0x20 || first == 0x09 { bytes = bytes.dropFirst() }
        while let last = bytes.last, last == 0x20 || last == 0x09 { bytes = bytes.dropLast() }
        return bytes
    }

    private static func isToken(_ text: String) -> Bool {
        !text.isEmpty && text.utf8.allSatisfy(isTokenByte)
    }

    /// Whether a byte may stand in a field name (RFC 9110 5.6.2).
    static func isTokenByte(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x30...0x39, 0x41...0x5A, 0x61...0x7A: true
        default: "!#$%&'*+-.^_`|~".utf8.contains(byte)
        }
    }
}
