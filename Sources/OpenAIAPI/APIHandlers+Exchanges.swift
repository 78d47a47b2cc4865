import HTTPServing
import HTTPTypes
import InstructionStore
import JSON

extension APIHandlers {
    func requireExchanges() throws(APIError) -> ExchangeLog {
        guard let exchanges else { throw .filesDisabled }
        return exchanges
    }

    /// Exchanges that were kept, what is said about them, and what is made of them.
    func serveExchanges(_ request: APIRequest, route: APIRoute, id: String, on transport: isolated Transport) throws(APIError) {
        let exchanges = try requireExchanges()
        let (requestID, owner) = (request.requestID, request.caller.owner)
        switch route {
        case .keptChats: try listExchanges(request, from: exchanges, on: transport)
        case .keptChat:
            try answer(request, route: route, with: storeWork, on: transport) { handlers throws(APIError) in
                .object(try handlers.completion(try handlers.find(id, in: exchanges, owner: owner, requestID: requestID), in: exchanges, requestID: requestID))
            }
        case .changeKeptChat:
            try requireJSON(request)
            var fields = RequestFields(try preparation.object(request.body.joined()))
            guard let value = fields.value("metadata") else { throw .missing("metadata", expected: "an object of strings") }
            let metadata = try MetadataFields.read(value)
            let ignored = fields.unread
            try changeObject(request, route: route, action: "exchange.change", subject: id, with: storeWork, on: transport) { handlers, _ throws(APIError) in
                exchanges.drain()
                let changed = try handlers.stored(requestID) { () throws(InstructionStoreError) in
                    try exchanges.store.setExchangeMetadata(metadata, id: id, owner: owner)
                }
                guard let changed else { throw .exchangeNotFound(id) }
                return ChangeAnswer(.object(try handlers.completion(changed, in: exchanges, requestID: requestID)), ignored: ignored)
            }
        case .deleteKeptChat:
            try changeObject(request, route: route, action: "exchange.delete", subject: id, with: storeWork, on: transport) { handlers, _ throws(APIError) in
                exchanges.drain()
                let isDeleted = try handlers.stored(requestID) { () throws(InstructionStoreError) in
                    try exchanges.store.deleteExchange(id: id, owner: owner)
                }
                guard isDeleted else { throw .exchangeNotFound(id) }
                return ChangeAnswer(["object": "chat.completion.deleted", "id": .string(id), "deleted": true])
            }
        case .deleteKeptChats:
            guard let user = try QueryFields(request).string("user"), !user.isEmpty else {
                throw .missing("user", expected: "the end user whose completions are all to be deleted, as ?user=…")
            }
            let stored = ExchangeDraft.storable(user)
            try changeObject(request, route: route, action: "exchange.delete_of_user", with: storeWork, on: transport) { handlers, _ throws(APIError) in
                exchanges.drain()
                let count = try handlers.stored(requestID) { () throws(InstructionStoreError) in
                    try exchanges.store.deleteExchanges(user: stored, owner: owner)
                }
                return ChangeAnswer(["object": "chat.completions.deleted", "deleted": true, "count": .integer(Int64(count))])
            }
        case .keptMessages: try listMessages(request, id, from: exchanges, on: transport)
        case .feedback:
            try requireJSON(request)
            try addFeedback(request, to: exchanges, on: transport)
        case .datasetFromLogs:
            try requireJSON(request)
            try makeDataset(request, from: exchanges, on: transport)
        default: preconditionFailure("\(route) is no route of exchanges")
        }
    }

    // MARK: - Looking

    private func find(_ id: String, in exchanges: ExchangeLog, owner: String, requestID: String) throws(APIError) -> StoredExchange {
        // What was answered may be on its way to the disk.
        exchanges.drain()
        let found = try stored(requestID) { () throws(InstructionStoreError) in try exchanges.store.exchange(id: id, owner: owner) }
        guard let found else { throw .exchangeNotFound(id) }
        return found
    }

    private func completion(_ exchange: StoredExchange, in exchanges: ExchangeLog, requestID: String) throws(APIError) -> JSONObject {
        try stored(requestID) { () throws(InstructionStoreError) in
            try ExchangeObjects.completion(exchange, feedback: try exchanges.store.feedback(exchangeID: exchange.id, owner: exchange.owner))
        }
    }

    private func listExchanges(_ request: APIRequest, from exchanges: ExchangeLog, on transport: isolated Transport) throws(APIError) {
        let query = QueryFields(request)
        var filter = ExchangeFilter()
        filter.model = try query.string("model")
        filter.metadata = try query.metadata()
        let wanted = filter
        let limit = try query.integer("limit", in: 1...100) ?? 20
        let isAscending = try query.isAscending(otherwise: true)
        let after = try query.cursor { TimedIdentifiers.isValid($0, prefix: KeptExchange.prefix) }
        let owner = request.caller.owner
        try answer(request, route: .keptChats, with: storeWork, on: transport) { handlers throws(APIError) in
            exchanges.drain()
            return try handlers.stored(request.requestID) { () throws(InstructionStoreError) in
                let page = try exchanges.store.exchanges(wanted, owner: owner, after: after, limit: limit, ascending: isAscending)
                var objects: [JSONObject] = []
                for exchange in page.exchanges {
                    objects.append(
                        try ExchangeObjects.completion(exchange, feedback: try exchanges.store.feedback(exchangeID: exchange.id, owner: exchange.owner)))
                }
                return FileObjects.list(objects, hasMore: page.hasMore)
            }
        }
    }

    private func listMessages(_ request: APIRequest, _ id: String, from exchanges: ExchangeLog, on transport: isolated Transport) throws(APIError) {
        let query = QueryFields(request)
        let limit = try query.integer("limit", in: 1...100) ?? 20
        let isAscending = try query.isAscending(otherwise: true)
        let after = try query.string("after")
        try answer(request, route: .keptMessages, with: storeWork, on: transport) { handlers throws(APIError) in
            let exchange = try handlers.find(id, in: exchanges, owner: request.caller.owner, requestID: request.requestID)
            var messages = try handlers.stored(request.requestID) { () throws(InstructionStoreError) in try ExchangeObjects.messages(exchange) }
            if !isAscending { messages.reverse() }
            if let after {
                guard let place = messages.firstIndex(where: { $0["id"] == .string(after) }) else {
                    throw .invalidValue("after", "'after' is '\(quoted(after))', expected the id of one of the messages")
                }
                messages.removeFirst(place + 1)
            }
            return FileObjects.list(Array(messages.prefix(limit)), hasMore: messages.count > limit)
        }
    }

    // MARK: - Feedback

    private func addFeedback(_ request: APIRequest, to exchanges: ExchangeLog, on transport: isolated Transport) throws(APIError) {
        var fields = RequestFields(try preparation.object(request.body.joined()))
        guard let id = try fields.string("inference_id", maximumBytes: 256) else {
            throw .missing("inference_id", expected: "the id of a kept completion, chatcmpl-…")
        }
        guard let metric = try fields.string("metric_name", maximumBytes: 64), !metric.isEmpty, !metric.utf8.contains(0) else {
            throw .missing("metric_name", expected: "the name of a metric, or comment or demonstration")
        }
        guard let value = fields.value("value") else { throw .missing("value", expected: "true, false, a number, a text or a message") }
        let (kept, number) = try Self.feedbackValue(value, metric: metric)
        let ignored = fields.unread
        let feedback = StoredFeedback(
            id: identifiers.next(prefix: "feedback-"), exchangeID: id, owner: request.caller.owner, metric: metric,
            value: String(decoding: kept.serialized(), as: UTF8.self), number: number, createdAt: secondsSince1970())
        try changeObject(request, route: .feedback, action: "feedback.create", subject: feedback.id, with: storeWork, on: transport) { handlers, _ throws(APIError) in
            // The answer may be on its way to the disk.
            exchanges.drain()
            let isKnown = try handlers.stored(request.requestID) { () throws(InstructionStoreError) in try exchanges.store.insertFeedback(feedback) }
            guard isKnown else { throw .exchangeNotFound(id, param: "inference_id") }
            return ChangeAnswer(
                .object(try handlers.stored(request.requestID) { () throws(InstructionStoreError) in try ExchangeObjects.feedback(feedback) }),
                ignored: ignored)
        }
    }

    /// What is kept of a value, and its number if it has one.
    private static func feedbackValue(_ value: JSONValue, metric: String) throws(APIError) -> (JSONValue, Double?) {
        switch metric {
        case StoredFeedback.comment:
            guard let text = value.string, !text.isEmpty else { throw .invalidType("value", found: value, expected: "a comment's text, which is not empty") }
            return (.string(text), nil)
        case StoredFeedback.demonstration:
            let expected = "the better answer: a text that is not empty, or an assistant's message"
            if let text = value.string, !text.isEmpty { return (["role": "assistant", "content": .string(text)], nil) }
            guard var message = value.object else { throw .invalidType("value", found: value, expected: expected) }
            guard (message["role"] ?? "assistant") == "assistant" else {
                throw .invalidValue("value.role", "'value.role' is not \"assistant\", expected \(expected)")
            }
            guard message["content"]?.string?.isEmpty == false || message["tool_calls"]?.array?.isEmpty == false else {
                throw .missing("value.content", expected: "a text that is not empty, or tool_calls")
            }
            message["role"] = "assistant"
            return (.object(message), nil)
        default:
            if let bool = value.bool { return (value, bool ? 1 : 0) }
            guard let number = value.number, number.isFinite else {
                throw .invalidType("value", found: value, expected: "true, false or a number; texts belong to the metrics comment and demonstration")
            }
            return (value, number)
        }
    }
}
