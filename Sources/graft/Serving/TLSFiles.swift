import Glibc
import TLS

/// The two files that say who a server is.
struct TLSFiles {
    let certificate: String
    let privateKey: String

    /// Far more than any chain of certificates takes.
    private static let longestFile = 1 << 20

    /// Reads and checks both.
    /// - Throws: what is wrong with which file.
    func load() throws -> TLSContext {
        let chain = try TLSFiles.read(certificate, "the setting server.tls_certificate")
        let key = try TLSFiles.read(privateKey, "the setting server.tls_private_key")
        do {
            let identity = try TLSIdentity(chain: chain, chainName: certificate, privateKey: key, keyName: privateKey)
            return try TLSContext(server: identity)
        } catch {
            throw CommandError("\(error)")
        }
    }

    /// Whether every user of the machine may read the private key.
    var keyIsPublic: Bool {
        var info = stat()
        return stat(privateKey, &info) == 0 && info.st_mode & 0o004 != 0
    }

    /// - Parameter origin: who named the file, for messages.
    static func read(_ path: String, _ origin: String) throws -> [UInt8] {
        func failure(_ what: String) -> CommandError { CommandError("\(path): \(what); it is named by \(origin)") }
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw failure("cannot be opened: \(String(cString: strerror(errno)))") }
        defer { close(descriptor) }
        var bytes = [UInt8](repeating: 0, count: longestFile + 1)
        var count = 0
        while count < bytes.count {
            let got = bytes.withUnsafeMutableBytes { Glibc.read(descriptor, $0.baseAddress! + count, $0.count - count) }
            if got == 0 { break }
            if got < 0, errno == EINTR { continue }
            guard got > 0 else { throw failure("cannot be read: \(String(cString: strerror(errno)))") }
            count += got
        }
        guard count <= longestFile else { throw failure("found more than \(longestFile) bytes, expected a certificate or key in PEM") }
        return Array(bytes[..<count])
    }
}
