import JSON

/// The description of health, version, metrics, and of the description itself.
enum ServerOperations {
    private static let status = Schema.answer("", [("status", .constant("ok"))])

    static let livez = Operation(
        id: "getLivez", tag: .server, summary: "Whether the process lives", text: "Never waits for the engine.", answer: .json("It does.", status))

    static let readyz = Operation(
        id: "getReadyz", tag: .server, summary: "Whether the server can answer now",
        text: "503 while it shuts down, and when the engine has had work for a while and ended no step.", answer: .json("It can.", status))

    static let health = Operation(
        id: "getHealth", tag: .server, summary: "Whether the server can answer now (llama.cpp, vLLM)", text: "The same as /readyz.",
        answer: .json("It can.", status))

    static let version = Operation(
        id: "getVersion", tag: .server, summary: "Which server this is",
        answer: .json("Its name and version.", .answer("", [("name", .constant("graft")), ("version", .string())])))

    static let metrics = Operation(
        id: "getMetrics", tag: .server, summary: "Counters, gauges and histograms",
        answer: Operation.Answer(text: "Prometheus's text format.", contents: [("text/plain", .string())]))

    static let description = Operation(
        id: "getOpenAPI", tag: .server, summary: "This description",
        answer: .json(
            "OpenAPI 3.1.",
            .answer(
                "",
                [
                    ("openapi", .string()), ("info", .map(of: .any())), ("servers", .array(of: .any())), ("security", .array(of: .any())),
                    ("tags", .array(of: .any())),
                    ("paths", .map(of: .any())), ("components", .map(of: .any())),
                ])))
}
