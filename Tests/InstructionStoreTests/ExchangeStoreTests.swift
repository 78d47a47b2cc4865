import InstructionStore
import TestSupport
import Testing

struct ExchangeStoreTests {
    let folder: TemporaryFolder
    let store: InstructionStore

    init() throws {
        folder = try TemporaryFolder()
        store = try InstructionStore(directory: DataDirectory(path: "\(folder.path)/data"))
    }

    private static func exchange(
        _ number: Int, owner: String = "local", model: String = "base", label: String? = nil, user: String? = nil, at time: Int? = nil,
        metadata: [(key: String, value: String)] = []
    ) -> StoredExchange {
        StoredExchange(
            id: "chatcmpl-\(number + 1000)", owner: owner, createdAt: time ?? 1000 + number, model: model, label: label ?? model, user: user,
            messages: #"[{"role":"user","content":"\#(number)"}]"#, tools: number % 2 == 0 ? nil : "[]", choices: "[]", details: #"{"seed":1}"#,
            metadata: metadata)
    }

    private func numbers(_ filter: ExchangeFilter = ExchangeFilter(), after: Int? = nil, limit: Int = 100, ascending: Bool = true) throws -> [Int] {
        try store.exchanges(filter, owner: "local", after: after.map { "chatcmpl-\($0 + 1000)" }, limit: limit, ascending: ascending).exchanges
            .compactMap { Int($0.id.dropFirst("chatcmpl-".count)).map { $0 - 1000 } }
    }

    private func filter(_ change: (inout ExchangeFilter) -> Void) -> ExchangeFilter {
        var filter = ExchangeFilter()
        change(&filter)
        return filter
    }

    @discardableResult
    private func say(_ number: Int, _ metric: String, _ value: String, _ score: Double? = nil, id: String? = nil) throws -> Bool {
        try store.insertFeedback(
            StoredFeedback(
                id: id ?? "feedback-\(number)-\(metric)-\(value)", exchangeID: "chatcmpl-\(number + 1000)", owner: "local", metric: metric, value: value,
                number: score,
                createdAt: 5))
    }

    @Test func comesBackAsItWent() throws {
        let exchange = Self.exchange(1, user: "u", metadata: [("z", "1"), ("a", "2"), ("é", "")])
        try store.insertExchanges([exchange, Self.exchange(2)])
        #expect(try store.exchange(id: exchange.id, owner: "local") == exchange)
        #expect(try store.exchange(id: exchange.id, owner: "other") == nil)
        #expect(try store.exchange(id: "chatcmpl-9", owner: "local") == nil)
        // All or none.
        #expect(throws: InstructionStoreError.self) { try store.insertExchanges([Self.exchange(3), exchange]) }
        #expect(try numbers() == [1, 2])
    }

    @Test func pages() throws {
        try store.insertExchanges((0..<6).reversed().map { Self.exchange($0) })
        #expect(try numbers() == [0, 1, 2, 3, 4, 5])
        let first = try store.exchanges(ExchangeFilter(), owner: "local", after: nil, limit: 2, ascending: true)
        #expect(first.hasMore && first.exchanges.count == 2)
        #expect(try store.deleteExchange(id: first.exchanges[1].id, owner: "local"))
        #expect(try numbers(after: 1) == [2, 3, 4, 5])
        #expect(try numbers(after: 3, ascending: false) == [2, 0])
        #expect(try !store.exchanges(ExchangeFilter(), owner: "local", after: nil, limit: 5, ascending: true).hasMore)
    }

    @Test func filters() throws {
        try store.addOwner("ada", at: 1)
        try store.insertExchanges([
            Self.exchange(0, metadata: [("app", "web"), ("tier", "1")]), Self.exchange(1, model: "bot@2", label: "bot", user: "u"),
            Self.exchange(2, model: "bot", user: "v", metadata: [("app", "web")]), Self.exchange(3, owner: "ada", user: "u"),
        ])
        #expect(try numbers(filter { $0.model = "bot" }) == [1, 2])
        #expect(try numbers(filter { $0.model = "bot@2" }) == [1])
        #expect(try numbers(filter { $0.user = "u" }) == [1])
        #expect(try numbers(filter { $0.metadata = ["app": "web"] }) == [0, 2])
        #expect(try numbers(filter { $0.metadata = ["app": "web", "tier": "1"] }) == [0])
        #expect(try numbers(filter { $0.metadata = ["app": "' OR 1=1 --"] }) == [])
        #expect(try numbers(filter { ($0.earliest, $0.latest) = (1001, 1001) }) == [1])
    }

    @Test func feedbackFilters() throws {
        try store.insertExchanges((0..<5).map { Self.exchange($0) })
        try say(0, "thumb", "true", 1)
        try say(1, "thumb", "false", 0)
        try say(2, "score", "0.5", 0.5)
        try say(3, "score", "1", 1)
        try say(3, "comment", #""good""#)
        func having(_ name: String, _ condition: ExchangeFilter.Metric.Condition) throws -> [Int] {
            try numbers(filter { $0.metric = ExchangeFilter.Metric(name: name, condition: condition) })
        }
        #expect(try having("thumb", .json("true")) == [0])
        #expect(try having("thumb", .present) == [0, 1])
        #expect(try having("thumb", .range(atLeast: 1, atMost: nil)) == [0])
        // True is not the number one.
        #expect(try having("thumb", .number(1)) == [])
        #expect(try having("score", .number(1)) == [3])
        #expect(try having("score", .range(atLeast: 0.5, atMost: 0.9)) == [2])
        #expect(try having("comment", .json(#""good""#)) == [3])
        #expect(try having("comment", .range(atLeast: nil, atMost: 9)) == [])
        // The last word on a metric counts.
        try say(0, "thumb", "false", 0)
        #expect(try having("thumb", .json("true")) == [])
        #expect(try having("thumb", .json("false")) == [0, 1])
    }

    @Test func feedback() throws {
        try store.insertExchanges([Self.exchange(0)])
        #expect(try say(0, "comment", #""a""#, id: "feedback-1") && say(0, "comment", #""b""#, id: "feedback-2"))
        #expect(try say(0, "demonstration", "{}", id: "feedback-3") && say(0, "demonstration", "[]", id: "feedback-4"))
        #expect(try store.feedback(exchangeID: "chatcmpl-1000", owner: "local").map(\.value) == [#""a""#, #""b""#, "[]"])
        #expect(try !say(7, "comment", "1"))
        // It goes with what it is about.
        #expect(try store.deleteExchange(id: "chatcmpl-1000", owner: "local"))
        #expect(try store.evaluate("SELECT count(*) FROM exchange_feedback") == "0")
    }

    @Test func metadata() throws {
        try store.insertExchanges([Self.exchange(0, metadata: [("a", "1"), ("b", "2")])])
        let changed = try store.setExchangeMetadata([("c", "3")], id: "chatcmpl-1000", owner: "local")
        #expect(changed?.metadata.map(\.key) == ["c"])
        #expect(try store.exchange(id: "chatcmpl-1000", owner: "local") == changed)
        #expect(try store.setExchangeMetadata([], id: "chatcmpl-7", owner: "local") == nil)
    }

    @Test func deletionByUser() throws {
        try store.insertExchanges([
            Self.exchange(0, user: "u", metadata: [("a", "1")]), Self.exchange(1, user: "u"), Self.exchange(2, user: "v"), Self.exchange(3),
        ])
        #expect(try store.deleteExchanges(user: "u", owner: "other") == 0)
        #expect(try store.deleteExchanges(user: "u", owner: "local") == 2)
        #expect(try numbers() == [2, 3])
        #expect(try store.evaluate("SELECT count(*) FROM exchange_metadata") == "0")
        #expect(try store.evaluate("PRAGMA secure_delete") == "1")
    }

    @Test func retention() throws {
        let day = 86_400
        try store.insertExchanges((0..<6).map { Self.exchange($0, at: $0 * day) })
        #expect(try store.pruneExchanges(ExchangeRetention(days: 4, maximum: 10), at: 5 * day) == 1)
        #expect(try numbers() == [1, 2, 3, 4, 5])
        #expect(try store.pruneExchanges(ExchangeRetention(days: 4, maximum: 2), at: 5 * day) == 3)
        #expect(try numbers() == [4, 5])
        #expect(try store.pruneExchanges(ExchangeRetention(days: .max, maximum: 2), at: 5 * day) == 0)
        #expect(try store.pruneExchanges(ExchangeRetention(days: 4, maximum: 2), at: 500 * day) == 2)
    }
}
