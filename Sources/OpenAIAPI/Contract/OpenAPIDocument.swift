import JSON

/// The description of the whole API, in OpenAPI 3.1, which `GET /openapi.json` answers.
///
/// It is built from the route table, so no route can be missing; a test compares the rest of it with what the routes do.
enum OpenAPIDocument {
    static func make(version: String, limits: RequestLimits) -> JSONValue {
        var paths = JSONObject()
        for route in APIRoute.allCases {
            var methods = paths[route.path]?.object ?? JSONObject()
            methods[route.method.rawValue.lowercased()] = .object(route.operation.json(isOpen: route.isOpen))
            paths[route.path] = .object(methods)
        }
        return [
            "openapi": "3.1.0",
            "info": [
                "title": "Graft", "version": .string(version),
                "summary": "An inference server for instruction-tuned language models, with LoRA adapters and fine-tuning.",
                "description": .string(conventions),
            ],
            "servers": [["url": "/"]], "security": [["bearer": []]],
            "tags": .array(Operation.Tag.allCases.map { ["name": .string($0.rawValue), "description": .string($0.text)] }), "paths": .object(paths),
            "components": .object(components(limits)),
        ]
    }

    /// What holds for every route.
    private static let conventions = """
        The API is OpenAI's where OpenAI has one; what is Graft's own, or llama.cpp's or vLLM's, says so.

        **Keys.** A server that has keys, or that listens on more than a loopback address, wants one as a bearer token. Without keys it takes any, or none.

        **Bodies.** JSON in UTF-8, at most 64 levels deep. A member whose value is null counts as absent. When a name occurs twice in an object, its last value \
        counts. A member that is not known is ignored and listed in the header `graft-ignored-parameters`, except where a description says that it is refused. \
        A parameter that is known and not supported is refused with 400, unless its value asks for nothing.

        **Refusals.** Each has the same body, an Error. A path answers a method that it does not know with 405, and lists those that it knows in the header `allow`; a \
        path that is not listed here is answered with 404. GET can be asked as HEAD.

        **Owners.** What belongs to somebody else looks as if it were not there.
        """

    private static func components(_ limits: RequestLimits) -> JSONObject {
        let schemas =
            GenerationOperations.schemas(limits) + AdapterOperations.schemas + FileOperations.schemas + ExchangeOperations.schemas + JobOperations.schemas
            + KeyOperations.schemas
            + [("Error", OperationRefusals.schema)]
        return [
            "securitySchemes": ["bearer": ["type": "http", "scheme": "bearer", "description": "A key that the operator has made."]],
            "schemas": .object(JSONObject(schemas.map { ($0.name, .object($0.schema.json)) })), "responses": .object(OperationRefusals.components),
            "headers": .object(
                JSONObject(OperationRefusals.headers.map { ($0.name, ["description": .string($0.text), "schema": .object($0.schema.json)]) })),
        ]
    }
}
