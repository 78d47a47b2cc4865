import Glibc
import HTTP1
import JSON
import TLS

/// A server, asked over HTTP or HTTPS: one request, one connection. Most often the one that holds the data directory of this machine.
struct RunningServer {
    struct Response {
        var status: Int
        var body: [UInt8]

        func json() throws -> JSONValue { try JSONValue(parsing: body) }
    }

    let address: String
    /// Sent with every request if there is one.
    private let key: String?
    private let host: String
    private let port: String
    /// nil for clear text.
    private let tls: TLSContext?
    /// The fingerprint of the one certificate that is right; nil when authorities vouch for it.
    private let certificate: String?

    /// - Parameters:
    ///   - address: as the server announced it, such as `http://127.0.0.1:8080`.
    ///   - key: an API key, for a server that wants one.
    ///   - certificate: the fingerprint of the server's certificate as it announced that beside the address; nil for a server that is known by its
    ///     address only, whose certificate must be for that address and come from an authority.
    ///   - authorities: a PEM file of authorities that are trusted beside the system's; nil is what GRAFT_CA_FILE names, if anything.
    init(address: String, key: String?, certificate: String? = nil, authorities: String? = nil) throws {
        self.address = address
        self.key = key
        let scheme = address.hasPrefix("https://") ? "https://" : "http://"
        guard address.hasPrefix(scheme), let colon = address.lastIndex(of: ":"), UInt16(address[address.index(after: colon)...]) != nil else {
            throw CommandError("the server's address is '\(TerminalText.oneLine(address))', expected http://host:port or https://host:port")
        }
        port = String(address[address.index(after: colon)...])
        host = String(address[..<colon].dropFirst(scheme.count)).replacing("[", with: "").replacing("]", with: "")
        self.certificate = certificate
        if scheme == "http://" {
            tls = nil
        } else {
            tls = try certificate == nil ? RunningServer.trusting(authorities) : TLSContext.clientThatComparesCertificates()
        }
    }

    private static func trusting(_ option: String?) throws -> TLSContext {
        guard let path = option ?? Environment["GRAFT_CA_FILE"] else { return TLSContext(clientTrusting: []) }
        let bytes = try TLSFiles.read(path, option == nil ? "GRAFT_CA_FILE" : "--ca-file")
        do { return TLSContext(clientTrusting: try TLSCertificate.parse(pem: bytes, name: path)) } catch { throw CommandError("\(error)") }
    }

    /// - Returns: whatever the server answered, errors included.
    func request(_ method: String, _ path: String, contentType: String? = nil, body: [UInt8] = []) throws -> Response {
        let connection = try open()
        let name = host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
        var head = "\(method) \(path) HTTP/1.1\r\nhost: \(name)\r\nconnection: close\r\naccept-encoding: identity\r\n"
        if let key { head += "authorization: Bearer \(key)\r\n" }
        if let contentType { head += "content-type: \(contentType)\r\n" }
        if !body.isEmpty || method == "POST" { head += "content-length: \(body.count)\r\n" }
        // A refusal may come before all is sent; then the answer says more than the failed write.
        let failure = connection.send(Array((head + "\r\n").utf8)) ?? connection.send(body)
        let answer: [UInt8]
        do { answer = try connection.receiveAll() } catch let error as TLSError {
            throw CommandError("the connection to the server at \(address) broke: \(error)")
        }
        guard !answer.isEmpty else {
            throw CommandError("the server at \(address) closed the connection without an answer\(failure.map { " (\($0))" } ?? ""); its log may say why")
        }
        return try RunningServer.parse(answer, from: address)
    }

    /// - Throws: the server's own words for whatever it refuses.
    func checked(_ method: String, _ path: String, contentType: String? = nil, body: [UInt8] = []) throws -> Response {
        let response = try request(method, path, contentType: contentType, body: body)
        guard response.status >= 300 else { return response }
        let message = (try? response.json())?["error"]?["message"]?.string ?? "status \(response.status)"
        let wayOut =
            switch response.status {
            case 401:
                key == nil
                    ? "; set GRAFT_API_KEY, or name a file with the key with --api-key-file. Who has none stops the server and makes one: `graft keys create NAME --scope admin`"
                    : "; look at GRAFT_API_KEY or the file of --api-key-file, and at `graft keys list` while the server is stopped"
            default: ""
            }
        throw CommandError("\(message) (the server at \(address) answered)\(wayOut)")
    }

    func json(_ method: String, _ path: String, body: JSONValue? = nil) throws -> JSONValue {
        try checked(method, path, contentType: body == nil ? nil : "application/json", body: body?.serialized() ?? []).json()
    }

    func json(_ method: String, _ path: String, form: MultipartForm) throws -> JSONValue {
        try checked(method, path, contentType: form.contentType, body: form.body).json()
    }

    private func connect() throws -> Int32 {
        var hints = addrinfo()
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        var found: UnsafeMutablePointer<addrinfo>?
        guard getaddrinfo(host, port, &hints, &found) == 0 else { throw CommandError("the server's address \(address) cannot be resolved") }
        defer { freeaddrinfo(found) }
        var reason: Int32 = 0
        var next = found
        while let candidate = next {
            let descriptor = socket(candidate.pointee.ai_family, candidate.pointee.ai_socktype | Int32(SOCK_CLOEXEC.rawValue), 0)
            if descriptor >= 0 {
                if Glibc.connect(descriptor, candidate.pointee.ai_addr, candidate.pointee.ai_addrlen) == 0 { return descriptor }
                reason = errno
                close(descriptor)
            }
            next = candidate.pointee.ai_next
        }
        throw CommandError("the server at \(address) cannot be reached: \(String(cString: strerror(reason)))")
    }

    /// - Throws: what keeps the server from being asked, and what helps.
    private func open() throws -> ServerConnection {
        let session = tls.map { TLSSession(client: $0, host: host) }
        let connection: ServerConnection
        do { connection = try ServerConnection(connect(), session: session) } catch let error as TLSError {
            switch error.code {
            case .untrusted:
                throw CommandError(
                    "the certificate of the server at \(address) is not accepted: \(error); use a name that the certificate is for, and name its authority's file "
                        + "with --ca-file or GRAFT_CA_FILE if it is none of the system's")
            default:
                throw CommandError("no TLS with the server at \(address): \(error); is it a server for https://?")
            }
        }
        if let certificate, session?.peerCertificate?.fingerprint != certificate {
            throw CommandError(
                "the server at \(address) shows another certificate than the server of the data directory announced; is it another program that listens there?")
        }
        return connection
    }

    /// A whole response of this project's own server: never chunked, because no route that is asked here streams.
    package static func parse(_ answer: [UInt8], from address: String) throws -> Response {
        let unexpected = CommandError("the server at \(address) gave an answer that is not HTTP; is it Graft that listens there?")
        guard let end = firstIndex(of: Array("\r\n\r\n".utf8), in: answer) else { throw unexpected }
        let lines = String(decoding: answer[..<end], as: UTF8.self).split(separator: "\r\n")
        let words = lines.first?.split(separator: " ") ?? []
        guard words.count >= 2, words[0].hasPrefix("HTTP/1."), let status = Int(words[1]) else { throw unexpected }
        var body = Array(answer[(end + 4)...])
        for line in lines.dropFirst() where line.lowercased().hasPrefix("content-length:") {
            guard let count = Int(line.dropFirst("content-length:".count).filter { $0 != " " }), count >= 0, body.count >= count else {
                throw CommandError("the server at \(address) closed the connection inside its answer")
            }
            body = Array(body[..<count])
        }
        return Response(status: status, body: body)
    }

    private static func firstIndex(of pattern: [UInt8], in bytes: [UInt8]) -> Int? {
        guard bytes.count >= pattern.count else { return nil }
        return (0...bytes.count - pattern.count).first { bytes[$0..<$0 + pattern.count].elementsEqual(pattern) }
    }
}

/// A form of fields and files (RFC 7578).
struct MultipartForm {
    struct Part {
        var name: String
        var filename: String?
        var bytes: [UInt8]

        init(_ name: String, _ text: String) {
            self.name = name
            bytes = Array(text.utf8)
        }

        /// - Parameter filename: without quotes, line ends and folders.
        init(_ name: String, filename: String, _ bytes: [UInt8]) {
            self.name = name
            self.filename = filename
            self.bytes = bytes
        }
    }

    let contentType: String
    let body: [UInt8]

    init(_ parts: [Part]) {
        let boundary = "graft-" + String(UInt64.random(in: .min ... .max), radix: 36)
        var body: [UInt8] = []
        for part in parts {
            let filename = part.filename.map { "; filename=\"\($0)\"" } ?? ""
            body += Array("--\(boundary)\r\ncontent-disposition: form-data; name=\"\(part.name)\"\(filename)\r\n\r\n".utf8)
            body += part.bytes
            body += Array("\r\n".utf8)
        }
        contentType = "multipart/form-data; boundary=\(boundary)"
        self.body = body + Array("--\(boundary)--\r\n".utf8)
    }
}
