/// A request target in one of the forms that an origin server gets (RFC 9112 3.2): `/path?query`, `http://host/path?query`, `*`.
struct RequestTarget {
    /// Of an absolute target.
    let authority: String?
    let path: String
    let query: String?
    /// What the request line would say in origin form.
    let pathAndQuery: String

    init(_ bytes: [UInt8], isOptions: Bool) throws(HTTP1Error) {
        for byte in bytes where byte <= 0x20 || byte >= 0x7F || byte == UInt8(ascii: "#") {
            throw HTTP1Error(.malformed, "the request target has a character that must be percent-encoded")
        }
        var rest = bytes[...]
        var authority: String?
        if rest.first == UInt8(ascii: "/") {
            // The usual form.
        } else if isOptions, rest.elementsEqual([UInt8(ascii: "*")]) {
            self.init(authority: nil, path: "*", query: nil, pathAndQuery: "*")
            return
        } else if let start = RequestTarget.schemeEnd(bytes) {
            rest = bytes[start...]
            let end = rest.firstIndex { $0 == UInt8(ascii: "/") || $0 == UInt8(ascii: "?") } ?? rest.endIndex
            authority = String(decoding: rest[..<end], as: UTF8.self)
            rest = rest[end...]
        } else {
            throw HTTP1Error(.malformed, "the request target is neither a path nor an absolute http URL")
        }
        let mark = rest.firstIndex(of: UInt8(ascii: "?"))
        let path = String(decoding: rest[..<(mark ?? rest.endIndex)], as: UTF8.self)
        let query = mark.map { String(decoding: rest[($0 + 1)...], as: UTF8.self) }
        // An absolute target may leave the path out.
        let isEmpty = path.isEmpty
        let whole = query == nil ? path : String(decoding: rest, as: UTF8.self)
        self.init(authority: authority, path: isEmpty ? "/" : path, query: query, pathAndQuery: isEmpty ? "/" + whole : whole)
    }

    private init(authority: String?, path: String, query: String?, pathAndQuery: String) {
        self.authority = authority
        self.path = path
        self.query = query
        self.pathAndQuery = pathAndQuery
    }

    /// The offset behind `http://` or `https://`.
    private static func schemeEnd(_ bytes: [UInt8]) -> Int? {
        for scheme in ["http://", "https://"] where bytes.count >= scheme.utf8.count {
            if zip(bytes, scheme.utf8).allSatisfy({ FieldCollector.lowercase($0) == $1 }) {
                return scheme.utf8.count
            }
        }
        return nil
    }
}

/// `host[:port]` as in a Host field (RFC 9110 7.2), without user information.
struct Authority {
    /// In lower case; an IPv6 address keeps its brackets.
    let host: String

    init(_ bytes: some Collection<UInt8>) throws(HTTP1Error) {
        let bytes = Array(bytes)
        guard !bytes.isEmpty else { throw HTTP1Error(.malformed, "the host is empty") }
        var end = 0
        if bytes[0] == UInt8(ascii: "[") {
            guard let close = bytes.firstIndex(of: UInt8(ascii: "]")), close > 1,
                bytes[1..<close].allSatisfy({ Authority.isHex($0) || $0 == UInt8(ascii: ":") || $0 == UInt8(ascii: ".") })
            else { throw HTTP1Error(.malformed, "the host is not an IPv6 address in brackets") }
            end = close + 1
        } else {
            while end < bytes.count, Authority.isNameCharacter(bytes[end]) { end += 1 }
            guard end > 0 else { throw HTTP1Error(.malformed, "the host is empty") }
        }
        if end < bytes.count {
            guard bytes[end] == UInt8(ascii: ":"), bytes.count - end - 1 <= 5,
                bytes[(end + 1)...].allSatisfy({ (0x30...0x39).contains($0) })
            else { throw HTTP1Error(.malformed, "the host is not a name or address with an optional port") }
        }
        host = String(decoding: bytes[..<end].map(FieldCollector.lowercase), as: UTF8.self)
    }

    private static func isHex(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x30...0x39, 0x41...0x46, 0x61...0x66: true
        default: false
        }
    }

    /// Unreserved characters, percent-encoding and the sub-delimiters but the comma, which would join two fields.
    private static let isName: [Bool] = (0..<256).map { byte in
        switch UInt8(byte) {
        case 0x30...0x39, 0x41...0x5A, 0x61...0x7A: true
        default: "-._~%!$&'()*+;=".utf8.contains(UInt8(byte))
        }
    }

    private static func isNameCharacter(_ byte: UInt8) -> Bool {
        isName[Int(byte)]
    }
}
