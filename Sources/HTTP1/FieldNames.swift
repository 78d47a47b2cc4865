import HTTPTypes

/// Names that most requests carry, ready made: making one checks each character and allocates twice.
enum FieldNames {
    private static let common: [[(bytes: [UInt8], name: HTTPField.Name)]] = {
        let names = [
            "Accept", "Accept-Encoding", "Accept-Language", "Authorization", "Connection", "Content-Length", "Content-Type", "Cookie",
            "Expect", "Host", "Origin", "Referer", "Transfer-Encoding", "User-Agent", "X-Request-Id", "X-Forwarded-For",
            "X-Stainless-Arch", "X-Stainless-Async", "X-Stainless-Lang", "X-Stainless-OS", "X-Stainless-Package-Version",
            "X-Stainless-Retry-Count", "X-Stainless-Runtime", "X-Stainless-Runtime-Version", "X-Stainless-Read-Timeout",
        ]
        var byLength: [[(bytes: [UInt8], name: HTTPField.Name)]] = Array(repeating: [], count: 32)
        for spelling in names + names.map({ $0.lowercased() }) {
            guard let name = HTTPField.Name(spelling) else { continue }
            byLength[spelling.utf8.count].append((Array(spelling.utf8), name))
        }
        return byLength
    }()

    /// The name in the spelling it was sent in; nil when it is not a token.
    static func name(_ bytes: ArraySlice<UInt8>) -> HTTPField.Name? {
        if bytes.count < common.count {
            for candidate in common[bytes.count] where candidate.bytes.elementsEqual(bytes) {
                return candidate.name
            }
        }
        return HTTPField.Name(String(decoding: bytes, as: UTF8.self))
    }
}
