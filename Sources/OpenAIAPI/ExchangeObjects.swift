import InstructionStore
import JSON

/// The JSON of kept exchanges and of what was said about them.
enum ExchangeObjects {
    /// OpenAI's stored completion, with a member of our own.
    static func completion(_ exchange: StoredExchange, feedback: [StoredFeedback] = []) throws(InstructionStoreError) -> JSONObject {
        var object: JSONObject = [
            "object": "chat.completion", "id": .string(exchange.id), "model": .string(exchange.model), "created": .integer(Int64(exchange.createdAt)),
        ]
        let details = try parse(exchange.details, of: exchange.id).object ?? JSONObject()
        for (key, value) in details where key != "graft" { object[key] = value }
        object["input_user"] = exchange.user.map { .string($0) } ?? .null
        object["tools"] = if let tools = exchange.tools { try parse(tools, of: exchange.id) } else { .null }
        object["metadata"] = .object(JSONObject(exchange.metadata.map { ($0.key, .string($0.value)) }))
        object["choices"] = try parse(exchange.choices, of: exchange.id)
        var graft = details["graft"]?.object ?? JSONObject()
        var said: [JSONValue] = []
        for entry in feedback { said.append(.object(try Self.feedback(entry))) }
        graft["feedback"] = .array(said)
        object["graft"] = .object(graft)
        return object
    }

    /// The request's messages, each with an id of its own.
    static func messages(_ exchange: StoredExchange) throws(InstructionStoreError) -> [JSONObject] {
        var messages: [JSONObject] = []
        for (index, value) in (try parse(exchange.messages, of: exchange.id).array ?? []).enumerated() {
            var object = value.object ?? JSONObject()
            object["id"] = .string("\(exchange.id)-\(index)")
            object["name"] = object["name"] ?? .null
            // A list of parts has a place of its own beside the text.
            let parts = object["content"].flatMap { $0.array == nil ? nil : $0 }
            object["content"] = parts == nil ? object["content"] ?? .null : .null
            object["content_parts"] = parts ?? .null
            messages.append(object)
        }
        return messages
    }

    static func feedback(_ feedback: StoredFeedback) throws(InstructionStoreError) -> JSONObject {
        [
            "id": .string(feedback.id), "object": "feedback", "feedback_id": .string(feedback.id), "inference_id": .string(feedback.exchangeID),
            "metric_name": .string(feedback.metric), "value": try parse(feedback.value, of: feedback.id), "created_at": .integer(Int64(feedback.createdAt)),
        ]
    }

    /// JSON that was checked when it was stored.
    static func parse(_ text: String, of id: String) throws(InstructionStoreError) -> JSONValue {
        do throws(JSONError) {
            return try JSONValue(parsing: Array(text.utf8), maximumDepth: 128)
        } catch {
            throw InstructionStoreError(.damaged, "the row \(id) holds text that is not JSON; restore the data directory from a backup, or delete the row")
        }
    }
}
