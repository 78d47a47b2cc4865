/// What the file `lock` of a data directory says about its holder: lines `pid 123` and, once known, `address http://127.0.0.1:8080`.
///
/// The file always has the same size, filled up with empty lines, and is written over in place with one call: a full disk does not keep anybody from
/// taking over a directory that was used before, and whoever reads meanwhile finds no rest of a longer text behind a shorter one.
package struct LockRecord: Equatable {
    package static let byteCount = 512
    /// The longest address that fits beside the longest process id.
    package static let longestAddress = byteCount - 32

    package var processID: Int32
    package var address: String?

    package init(processID: Int32, address: String? = nil) {
        self.processID = processID
        self.address = address
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
            default: return nil
            }
        }
        guard let processID, processID > 0 else { return nil }
        self.processID = processID
    }

    package var bytes: [UInt8] {
        var bytes = Array("pid \(processID)\n".utf8)
        if let address { bytes += Array("address \(address)\n".utf8) }
        precondition(bytes.count <= Self.byteCount, "a lock record of \(bytes.count) bytes")
        return bytes + [UInt8](repeating: UInt8(ascii: "\n"), count: Self.byteCount - bytes.count)
    }

    /// Printable ASCII without spaces, and not too long.
    static func isValidAddress(_ address: String) -> Bool {
        (1...longestAddress).contains(address.utf8.count) && address.utf8.allSatisfy { (0x21...0x7e).contains($0) }
    }
}
