/// What the file `lock` of a data directory says about its holder: lines `pid 123` and, once known, `address https://127.0.0.1:8080` and, with TLS,
/// `certificate` and the SHA-256 of the server's certificate: whoever may read the file knows the server by it, whatever name the certificate is for.
///
/// The file always has the same size, filled up with empty lines, and is written over in place with one call: a full disk does not keep anybody from
/// taking over a directory that was used before, and whoever reads meanwhile finds no rest of a longer text behind a shorter one.
package struct LockRecord: Equatable {
    package static let byteCount = 512
    /// The longest address that fits beside the longest process id and a certificate.
    package static let longestAddress = byteCount - 32 - ("certificate ".utf8.count + fingerprintCount + 1)
    /// Hexadecimal digits of a SHA-256 digest.
    package static let fingerprintCount = 64

    package var processID: Int32
    package var address: String?
    /// 64 lower-case hexadecimal digits.
    package var certificate: String?

    package init(processID: Int32, address: String? = nil, certificate: String? = nil) {
        self.processID = processID
        self.address = address
        self.certificate = certificate
    }

    /// - Returns: `nil` for bytes that no holder wrote, or that one has written in part.
    package init?(_ bytes: [UInt8]) {
        guard bytes.count == Self.byteCount, bytes.last == UInt8(ascii: "\n") else { return nil }
        var processID: Int32?
        for line in bytes.split(separator: UInt8(ascii: "\n")) {
            let words = line.split(separator: UInt8(ascii: " "), maxSplits: 1).map { String(decoding: $0, as: UTF8.self) }
            guard words.count == 2 else { return nil }
            switch words[0] {
            case "pid": processID = Int32(words[1])
            case "address": address = words[1]
            case "certificate":
                guard LockRecord.isFingerprint(words[1]) else { return nil }
                certificate = words[1]
            default: return nil
            }
        }
        guard let processID, processID > 0 else { return nil }
        self.processID = processID
    }

    package var bytes: [UInt8] {
        var bytes = Array("pid \(processID)\n".utf8)
        if let address { bytes += Array("address \(address)\n".utf8) }
        if let certificate { bytes += Array("certificate \(certificate)\n".utf8) }
        precondition(bytes.count <= Self.byteCount, "a lock record of \(bytes.count) bytes")
        return bytes + [UInt8](repeating: UInt8(ascii: "\n"), count: Self.byteCount - bytes.count)
    }

    /// 64 lower-case hexadecimal digits.
    static func isFingerprint(_ text: String) -> Bool {
        text.utf8.count == fingerprintCount && text.allSatisfy { "0123456789abcdef".contains($0) }
    }

    /// Printable ASCII without spaces, and not too long.
    static func isValidAddress(_ address: String) -> Bool {
        (1...longestAddress).contains(address.utf8.count) && address.utf8.allSatisfy { (0x21...0x7e).contains($0) }
    }
}
