import EventLoops
import HTTPServing
import HTTPTypes
import Testing

@Suite struct CrossOriginTests {
    private let policy = CrossOriginPolicy(origins: ["https://app.example.com", "http://localhost:3000"])

    private func request(_ method: HTTPRequest.Method = .get, origin: String?, asks: String? = nil, fields: String? = nil) -> HTTPRequest {
        var request = HTTPRequest(method: method, scheme: "http", authority: "h", path: "/v1/models")
        if let origin { request.headerFields[.origin] = origin }
        if let asks { request.headerFields[.accessControlRequestMethod] = asks }
        if let fields { request.headerFields[.accessControlRequestHeaders] = fields }
        return request
    }

    @Test func onlyExactOriginsMayRead() {
        for origin in ["https://app.example.com", "http://localhost:3000"] {
            let fields = policy.fields(for: request(origin: origin))
            #expect(fields[.accessControlAllowOrigin] == origin && fields[.vary] == "origin")
            #expect(fields[.accessControlAllowCredentials] == nil)
        }
        for origin in [
            nil, "https://app.example.com.evil.example", "https://evil.example", "http://app.example.com", "https://app.example.com:444", "null", "*",
            "https://APP.example.com", "http://localhost",
        ] {
            let fields = policy.fields(for: request(origin: origin))
            #expect(fields[.accessControlAllowOrigin] == nil && fields[.vary] == "origin", "\(origin ?? "none")")
            #expect(policy.preflight(request(.options, origin: origin, asks: "POST")) == nil, "\(origin ?? "none")")
        }
    }

    @Test func preflightsAreAnswered() throws {
        let asked = request(.options, origin: "http://localhost:3000", asks: "POST", fields: "authorization,content-type,x-stainless-os")
        let answer = try #require(policy.preflight(asked))
        #expect(answer.status == .noContent)
        #expect(answer.headerFields[.accessControlAllowMethods] == "GET, HEAD, POST, DELETE")
        #expect(answer.headerFields[.accessControlAllowHeaders] == "authorization,content-type,x-stainless-os")
        #expect(answer.headerFields[.accessControlAllowCredentials] == nil)
        #expect(policy.preflight(request(.options, origin: "http://localhost:3000")) == nil, "a plain OPTIONS is no preflight")
        #expect(policy.preflight(request(.post, origin: "http://localhost:3000", asks: "POST")) == nil)
    }

    @Test func whatIsAnOrigin() {
        for good in ["https://app.example.com", "http://localhost:3000", "http://[::1]:8080", "http://127.0.0.1"] { #expect(CrossOriginPolicy.isOrigin(good), "\(good)") }
        for bad in ["*", "", "null", "https://", "https://a/", "https://a/b", "https://A.example", "ftp://a", "app.example.com", "https://a b"] {
            #expect(!CrossOriginPolicy.isOrigin(bad), "\(bad)")
        }
    }

    /// Also refusals that no application has a part in carry the fields, or a page could not tell them from a broken network.
    @Test func everyAnswerOfAConnectionHasTheFields() {
        var configuration = HTTPServerConfiguration()
        configuration.crossOrigin = policy
        let machine = ConnectionMachine(configuration: configuration, stamps: ResponseStamps(seed: 1), now: 0)
        var output = ByteQueue()
        func send(_ head: String, _ act: (ConnectionMachine.Action) -> Void) -> String {
            Array((head + "\r\n\r\n").utf8).withUnsafeBytes { bytes in
                var rest = bytes
                while let action = machine.next(&rest, output: &output, now: 0) { act(action) }
            }
            defer { output.removeAll() }
            return String(decoding: output.contents(), as: UTF8.self).lowercased()
        }
        let allowed = send("GET /a HTTP/1.1\r\nHost: h\r\nOrigin: http://localhost:3000") { action in
            switch action {
            case .admit: machine.admit(bodyLimit: nil)
            case .dispatch(let request): machine.respond(request.sequence, HTTPResponse(status: .ok), body: [], output: &output, now: 0)
            default: Issue.record("unexpected")
            }
        }
        #expect(allowed.contains("access-control-allow-origin: http://localhost:3000\r\n") && allowed.contains("vary: origin\r\n"))
        let refused = send("GET /a HTTP/1.1\r\nHost: h\r\nOrigin: http://localhost:3000") { action in
            if case .admit = action { machine.refuse(HTTPResponse(status: .unauthorized), body: [], output: &output, now: 0) }
        }
        #expect(refused.hasPrefix("http/1.1 401 ") && refused.contains("access-control-allow-origin: http://localhost:3000\r\n"))
        let foreign = send("GET /a HTTP/1.1\r\nHost: h\r\nOrigin: http://evil.example") { action in
            if case .admit = action { machine.refuse(HTTPResponse(status: .unauthorized), body: [], output: &output, now: 0) }
        }
        #expect(foreign.contains("vary: origin\r\n") && !foreign.contains("access-control"))
    }
}
