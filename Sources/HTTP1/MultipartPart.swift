/// The caps of one multipart body. Its size as a whole is capped with the request's body.
public struct MultipartLimits: Sendable, Equatable {
    public var parts = 16
    /// The header section of one part in bytes, line ends included.
    public var headerBytes = 8192

    public init() {}
}

/// What the header of one part says.
public struct MultipartPartHead: Sendable, Equatable {
    /// The form field's name, never empty.
    public let name: String
    /// What the client calls the file; for people only, never to be used as a path. No control characters.
    public let filename: String?
    public let contentType: String?

    public init(name: String, filename: String? = nil, contentType: String? = nil) {
        self.name = name
        self.filename = filename
        self.contentType = contentType
    }
}

/// A part of a body that is all in memory.
public struct MultipartPart: Sendable, Equatable {
    public let head: MultipartPartHead
    /// Where its content stands in the body.
    public let range: Range<Int>
}

extension MultipartPartHead {
    /// Reads a header section: lines that end with CRLF, the last one empty.
    init(headerSection bytes: [UInt8]) throws(MultipartError) {
        var disposition: FieldParameters?
        var contentType: String?
        for line in MultipartPartHead.lines(bytes) {
            guard let colon = line.firstIndex(of: UInt8(ascii: ":")), colon > line.startIndex, line[..<colon].allSatisfy(FieldParameters.isTokenByte) else {
                throw MultipartError(.malformed, "a header line of a part does not begin with a field name and a colon")
            }
            let value = line[(colon + 1)...]
            // A tab may stand between words; every other control character is a mistake or an attack.
            guard value.allSatisfy({ $0 >= 0x20 && $0 != 0x7F || $0 == 0x09 }) else {
                throw MultipartError(.malformed, "a header line of a part has control characters")
            }
            switch String(decoding: line[..<colon], as: UTF8.self).lowercased() {
            case "content-disposition":
                guard disposition == nil else { throw MultipartError(.malformed, "a part has two Content-Disposition lines, expected one") }
                guard let parsed = FieldParameters(value) else {
                    throw MultipartError(.malformed, "the Content-Disposition of a part is not of the form form-data; name=\"…\"")
                }
                disposition = parsed
            case "content-type":
                guard let text = String(validating: value, as: UTF8.self) else {
                    throw MultipartError(.malformed, "the Content-Type of a part is not UTF-8")
                }
                contentType = String(text.drop { $0 == " " || $0 == "\t" })
            case "content-transfer-encoding":
                // Taking base64 for the content itself would be a silent mistake; RFC 7578 gave the field up.
                let encoding = FieldParameters(value)?.value
                guard encoding == "binary" || encoding == "8bit" || encoding == "7bit" else {
                    throw MultipartError(.malformed, "a part has a Content-Transfer-Encoding, expected its bytes as they are (RFC 7578 4.7)")
                }
            default: break
            }
        }
        guard let disposition, disposition.value == "form-data" else {
            throw MultipartError(.malformed, "a part has no Content-Disposition of the form form-data; name=\"…\"")
        }
        let names = disposition.values("name")
        let filenames = disposition.values("filename")
        guard names.count == 1, let name = names.first, !name.isEmpty else {
            throw MultipartError(.malformed, "a part has \(names.count) names, expected exactly one that is not empty")
        }
        guard filenames.count <= 1 else { throw MultipartError(.malformed, "a part has \(filenames.count) filenames, expected at most one") }
        self.init(name: name, filename: filenames.first, contentType: contentType)
    }

    private static func lines(_ bytes: [UInt8]) -> [ArraySlice<UInt8>] {
        var lines: [ArraySlice<UInt8>] = []
        var start = 0
        while let end = bytes[start...].firstIndex(of: 0x0D) {
            if end > start { lines.append(bytes[start..<end]) }
            start = end + 2
        }
        return lines
    }
}
