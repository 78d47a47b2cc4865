import HTTPServing
import InstructionStore
import JSON

/// A decoded `POST /v1/datasets/from_logs`.
private struct DatasetRequest: Sendable {
    var filter = ExchangeFilter()
    var format = TrainingLine.Format.chat
    var name: String
    /// The most lines.
    var limit: Int?
    var ignored: [String]

    init(_ object: JSONObject) throws(APIError) {
        var fields = RequestFields(object)
        if let object = try fields.object("filter") { filter = try Self.filter(object) }
        if let word = try fields.string("format", maximumBytes: 64) {
            guard let format = TrainingLine.Format(rawValue: word) else {
                let expected = TrainingLine.Format.allCases.map { "\"\($0.rawValue)\"" }.joined(separator: " or ")
                throw .invalidValue("format", "'format' is \"\(quoted(word))\", expected \(expected)")
            }
            self.format = format
        }
        name = FileObjects.displayName(try fields.string("name", maximumBytes: 255) ?? "logs-\(format.rawValue).jsonl")
        limit = try fields.integer("limit", in: 1...Int(Int32.max))
        ignored = fields.unread
    }

    /// A member that is not understood would widen what is trained on, so it is refused.
    private static func filter(_ object: JSONObject) throws(APIError) -> ExchangeFilter {
        var fields = RequestFields(object, prefix: "filter.")
        var filter = ExchangeFilter()
        filter.model = try fields.string("model", maximumBytes: 1024)
        filter.user = try fields.string("user", maximumBytes: 1024).map(ExchangeDraft.storable)
        for (key, value) in try MetadataFields.read(fields.value("metadata"), param: "filter.metadata") { filter.metadata[key] = value }
        filter.earliest = try fields.integer("after", in: 0...Int(Int32.max) << 8)
        filter.latest = try fields.integer("before", in: 0...Int(Int32.max) << 8)
        if let metric = try fields.object("metric") { filter.metric = try Self.metric(metric) }
        try refuse(fields.unread, expected: "model, metadata, user, after, before, metric")
        return filter
    }

    private static func metric(_ object: JSONObject) throws(APIError) -> ExchangeFilter.Metric {
        var fields = RequestFields(object, prefix: "filter.metric.")
        guard let name = try fields.string("name", maximumBytes: 64) else { throw .missing("filter.metric.name", expected: "the name of a metric") }
        let bounds = -1e15...1e15
        let least = try fields.number("at_least", in: bounds)
        let most = try fields.number("at_most", in: bounds)
        let equal = fields.value("equals")
        try refuse(fields.unread, expected: "name, at_least, at_most, equals")
        if least != nil || most != nil {
            guard equal == nil else {
                throw .invalidValue("filter.metric.equals", "'filter.metric.equals' stands beside bounds, expected one or the other")
            }
            return ExchangeFilter.Metric(name: name, condition: .range(atLeast: least, atMost: most))
        }
        guard let equal else { return ExchangeFilter.Metric(name: name, condition: .present) }
        if let number = equal.number { return ExchangeFilter.Metric(name: name, condition: .number(number)) }
        guard equal.bool != nil || equal.string != nil else {
            throw .invalidType("filter.metric.equals", found: equal, expected: "true, false, a number or a text")
        }
        return ExchangeFilter.Metric(name: name, condition: .json(String(decoding: equal.serialized(), as: UTF8.self)))
    }

    private static func refuse(_ unread: [String], expected: String) throws(APIError) {
        guard let name = unread.first else { return }
        throw APIError(
            .badRequest, .invalidRequest, code: "unknown_parameter", param: name, "There is no '\(quoted(name))', expected one of \(expected)")
    }
}

extension APIHandlers {
    private static var pageSize: Int { 100 }

    /// `POST /v1/datasets/from_logs`: a file for fine-tuning out of exchanges that were kept, the oldest first.
    func makeDataset(_ request: APIRequest, from exchanges: ExchangeLog, on transport: isolated Transport) throws(APIError) {
        let files = try requireFiles()
        let wanted = try DatasetRequest(try preparation.object(request.body.joined()))
        let (requestID, owner) = (request.requestID, request.caller.owner)
        try changeObject(request, route: .datasetFromLogs, action: "file.create_from_logs", on: transport) { handlers, subject throws(APIError) in
            exchanges.drain()
            let spool = try handlers.stored(requestID) { () throws(InstructionStoreError) in try files.makeSpool() }
            let (count, omissions) = try handlers.write(wanted, from: exchanges, owner: owner, to: spool, requestID: requestID)
            var skipped = JSONObject()
            for omission in TrainingLine.Omission.allCases { skipped[omission.rawValue] = .integer(Int64(omissions[omission] ?? 0)) }
            guard count > 0 else {
                let sum = omissions.values.reduce(0, +)
                let reasons = TrainingLine.Omission.allCases.compactMap { reason in omissions[reason].map { "\(reason.rawValue): \($0)" } }
                throw APIError(
                    .badRequest, .invalidRequest, code: "no_examples", param: "filter",
                    sum == 0
                        ? "No kept completion passes the filter; widen it, or look at GET /v1/chat/completions"
                        : "\(sum) kept completions pass the filter and none makes an example (\(reasons.joined(separator: ", ")))")
            }
            let file = try handlers.keep(
                spool, in: files, name: wanted.name, purpose: FilePurpose.fineTune, lifetime: nil, owner: owner, requestID: requestID)
            subject = file.id
            var object = FileObjects.file(file)
            object["graft_dataset"] = ["format": .string(wanted.format.rawValue), "examples": .integer(Int64(count)), "skipped": .object(skipped)]
            return ChangeAnswer(.object(object), ignored: wanted.ignored)
        }
    }

    /// Blocking. A page at a time, so that requests come in between.
    private func write(
        _ wanted: DatasetRequest, from exchanges: ExchangeLog, owner: String, to spool: FileSpool, requestID: String
    ) throws(APIError) -> (count: Int, omissions: [TrainingLine.Omission: Int]) {
        let store = exchanges.store
        var count = 0
        var omissions: [TrainingLine.Omission: Int] = [:]
        var cursor: String?
        var hasMore = true
        while hasMore, count < wanted.limit ?? .max {
            let page = try stored(requestID) { () throws(InstructionStoreError) in
                try store.exchanges(wanted.filter, owner: owner, after: cursor, limit: Self.pageSize, ascending: true)
            }
            hasMore = page.hasMore
            cursor = page.exchanges.last?.id
            for exchange in page.exchanges where count < wanted.limit ?? .max {
                let line = try stored(requestID) { () throws(InstructionStoreError) in try Self.line(wanted.format, of: exchange, in: store) }
                switch line {
                case .omission(let reason): omissions[reason, default: 0] += 1
                case .line(let bytes) where !isTrainable(bytes): omissions[.untrainable, default: 0] += 1
                case .line(let bytes):
                    guard spool.byteCount + bytes.count <= configuration.fileBytes else {
                        throw .invalidValue(
                            "filter", "The file would be larger than the \(configuration.fileBytes) bytes that are accepted; narrow the filter, or set 'limit'")
                    }
                    try stored(requestID) { () throws(InstructionStoreError) in try spool.write(bytes) }
                    count += 1
                }
            }
        }
        return (count, omissions)
    }

    /// Whether the file that a line goes to would have it as an example: one that has not is good for nothing.
    private func isTrainable(_ line: [UInt8]) -> Bool {
        guard let inspect else { return true }
        return (try? inspect(line))?.problemCount == 0
    }

    private static func line(
        _ format: TrainingLine.Format, of exchange: StoredExchange, in store: InstructionStore
    ) throws(InstructionStoreError) -> TrainingLine {
        let said = try store.feedback(exchangeID: exchange.id, owner: exchange.owner)
        let better = said.last { $0.metric == StoredFeedback.demonstration }
        let demonstration: JSONObject? = if let better { try ExchangeObjects.parse(better.value, of: better.id).object } else { nil }
        let tools: [JSONValue]? = if let tools = exchange.tools { try ExchangeObjects.parse(tools, of: exchange.id).array } else { nil }
        return TrainingLine.make(
            format, messages: try ExchangeObjects.parse(exchange.messages, of: exchange.id).array ?? [], tools: tools,
            choices: try ExchangeObjects.parse(exchange.choices, of: exchange.id).array ?? [], demonstration: demonstration)
    }
}
