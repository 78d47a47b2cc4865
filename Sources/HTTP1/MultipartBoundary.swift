/// What separates the parts of a multipart body (RFC 2046 5.1.1): 1 to 70 characters out of a small alphabet, the last one no space.
public struct MultipartBoundary: Sendable, Equatable {
    public let text: String

    public init(_ text: String) throws(MultipartError) {
        guard (1...70).contains(text.utf8.count) else {
            throw MultipartError(.invalidBoundary, "the boundary has \(text.utf8.count) characters, expected 1 to 70")
        }
        guard text.utf8.allSatisfy(MultipartBoundary.isLegal), text.utf8.last != 0x20 else {
            throw MultipartError(.invalidBoundary, "the boundary has characters that RFC 2046 does not allow, expected letters, digits and '()+_,-./:=?")
        }
        self.text = text
    }

    /// The boundary that a Content-Type names.
    public init(contentType: String) throws(MultipartError) {
        guard let fields = FieldParameters(Array(contentType.utf8)[...]) else {
            throw MultipartError(.invalidBoundary, "the content-type is not of the form multipart/form-data; boundary=…")
        }
        let boundaries = fields.values("boundary")
        guard let boundary = boundaries.first else {
            throw MultipartError(.invalidBoundary, "the content-type names no boundary, expected multipart/form-data; boundary=…")
        }
        guard boundaries.count == 1 else {
            throw MultipartError(.invalidBoundary, "the content-type names \(boundaries.count) boundaries, expected one")
        }
        try self.init(boundary)
    }

    /// Whether a Content-Type is multipart/form-data, with whatever parameters.
    public static func isFormData(_ contentType: String) -> Bool {
        contentType.prefix { $0 != ";" }.lowercased().split(whereSeparator: { $0 == " " || $0 == "\t" }) == ["multipart/form-data"]
    }

    private static func isLegal(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x30...0x39, 0x41...0x5A, 0x61...0x7A: true
        default: "'()+_,-./:=? ".utf8.contains(byte)
        }
    }
}
