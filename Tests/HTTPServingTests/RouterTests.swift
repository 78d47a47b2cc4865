import HTTPServing
import HTTPTypes
import Testing

@Suite struct RouterTests {
    private func router() -> Router<String> {
        var router = Router<String>()
        router.add(.get, "/v1/models", "list")
        router.add(.get, "/v1/models/{id}", "one")
        router.add(.delete, "/v1/models/{id}", "delete")
        router.add(.post, "/v1/jobs/{job}/checkpoints/{checkpoint}", "both")
        router.add(.get, "/v1/jobs/latest", "latest")
        router.add(.get, "/v1/jobs/{job}", "job")
        router.add(.get, "/v1/jobs/{job}/events", "events")
        router.add(.get, "/", "root")
        return router
    }

    private func describe(_ match: RouteMatch<String>) -> String {
        switch match {
        case .found(let handler, let parameters):
            "\(handler) " + parameters.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }.joined(separator: ",")
        case .methodNotAllowed(let allow): "405 " + allow.map(\.rawValue).joined(separator: ",")
        case .notFound: "404"
        }
    }

    @Test(arguments: [
        ("GET", "/v1/models", "list "),
        ("GET", "/v1/models/a", "one id=a"),
        ("GET", "/v1/models/a%2Fb%20c", "one id=a/b c"),
        ("DELETE", "/v1/models/a", "delete id=a"),
        ("HEAD", "/v1/models", "list "),
        ("POST", "/v1/models", "405 GET,HEAD"),
        ("POST", "/v1/models/a", "405 GET,DELETE,HEAD"),
        ("GET", "/v1/jobs/j/checkpoints/c", "405 POST"),
        ("POST", "/v1/jobs/j/checkpoints/c", "both checkpoint=c,job=j"),
        ("GET", "/v1/jobs/latest", "latest "),
        ("GET", "/v1/jobs/late", "job job=late"),
        ("GET", "/v1/jobs/latest/events", "events job=latest"),
        ("GET", "/", "root "),
        ("GET", "/v1", "404"),
        ("GET", "/v1/", "404"),
        ("GET", "/v1/models/", "404"),
        ("GET", "/v1/models/a/", "404"),
        ("GET", "//v1/models", "404"),
        ("GET", "/v1/models/%zz", "404"),
        ("GET", "/v1/%6Dodels", "list "),
        ("OPTIONS", "*", "404"),
    ])
    func matches(_ method: String, _ path: String, _ expected: String) throws {
        #expect(describe(router().match(try #require(HTTPRequest.Method(method)), path)) == expected)
    }
}
