import TLS

/// The text of an API key, which its user has and the server has not: `sk-graft-` + 16 hexadecimal digits + `-` + 43 characters.
///
/// The digits are the key's public id, by which it is looked up; no search depends on the secret. The rest is 32 random bytes in base64url (RFC 4648
/// section 5, without padding). Of the text the store keeps the SHA-256: 256 random bits cannot be guessed, so a hash that is slow on purpose, as passwords
/// need one, would only slow down every request.
public struct APIKeyText: Sendable {
    public static let prefix = "sk-graft-"
    /// Of the id in hexadecimal, and of the secret in base64url.
    static let idLength = 16, secretLength = 43
    static let byteCount = prefix.utf8.count + idLength + 1 + secretLength

    public let text: String
    /// Public.
    public let id: String

    /// A new key from the system's random numbers (getrandom(2)).
    public init() {
        var generator = SystemRandomNumberGenerator()
        let id = hexadecimal((0..<Self.idLength / 2).map { _ in UInt8.random(in: .min ... .max, using: &generator) })
        let secret = (0..<32).map { _ in UInt8.random(in: .min ... .max, using: &generator) }
        self.id = id
        text = Self.prefix + id + "-" + Self.base64URL(secret)
    }

    /// - Returns: `nil` for what cannot be the text of a key.
    public init?(_ text: String) {
        let bytes = Array(text.utf8)
        guard bytes.count == Self.byteCount, text.hasPrefix(Self.prefix) else { return nil }
        let rest = bytes.dropFirst(Self.prefix.utf8.count)
        let id = rest.prefix(Self.idLength), secret = rest.dropFirst(Self.idLength + 1)
        guard id.allSatisfy({ (0x30...0x39).contains($0) || (0x61...0x66).contains($0) }), rest[rest.startIndex + Self.idLength] == UInt8(ascii: "-"),
            secret.allSatisfy({ Self.alphabet.contains($0) })
        else { return nil }
        self.text = text
        self.id = String(decoding: id, as: UTF8.self)
    }

    /// What is kept of the key: 32 bytes.
    public var digest: [UInt8] { SHA256Digest.of(Array(text.utf8)) }
    /// What lists show, so that people can tell which key a text is.
    public var lastFour: String { String(text.suffix(4)) }

    private static let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".utf8)

    static func base64URL(_ bytes: [UInt8]) -> String {
        var text: [UInt8] = []
        var bits = 0, count = 0
        for byte in bytes {
            bits = bits << 8 | Int(byte)
            count += 8
            while count >= 6 {
                count -= 6
                text.append(alphabet[bits >> count & 63])
            }
            bits &= 1 << count - 1
        }
        if count > 0 { text.append(alphabet[bits << (6 - count) & 63]) }
        return String(decoding: text, as: UTF8.self)
    }
}
