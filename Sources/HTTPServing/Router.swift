import HTTPTypes
import HTTP1

/// What a router found for a method and a path.
public enum RouteMatch<Handler: Sendable>: Sendable {
    /// The handler and the pattern's parameters, percent-decoded.
    case found(Handler, parameters: [String: String])
    /// The path exists for other methods only: 405 with these in `Allow`.
    case methodNotAllowed(allow: [HTTPRequest.Method])
    case notFound
}

/// Finds handlers by method and path. Patterns are paths whose segments are literal or a parameter in braces: `/v1/models/{id}`.
/// A literal segment wins over a parameter. A parameter takes one whole segment, in which `%2F` is a slash of the value.
///
/// `HEAD` is answered by the handler of `GET` unless it has one of its own.
public struct Router<Handler: Sendable>: Sendable {
    private struct Node: Sendable {
        var literals: [String: Int] = [:]
        var parameter: Int?
        var handlers: [(method: HTTPRequest.Method, handler: Handler, names: [String])] = []
    }

    private var nodes = [Node()]

    public init() {}

    /// Adds a route. A second one of the same method and shape is a mistake of the program, and ends it.
    public mutating func add(_ method: HTTPRequest.Method, _ pattern: String, _ handler: Handler) {
        precondition(pattern.hasPrefix("/"), "the route \(pattern) must begin with a slash")
        var node = 0
        var names: [String] = []
        for segment in Router.segments(pattern) {
            if segment.hasPrefix("{"), segment.hasSuffix("}") {
                names.append(String(segment.dropFirst().dropLast()))
                if nodes[node].parameter == nil {
                    nodes.append(Node())
                    nodes[node].parameter = nodes.count - 1
                }
                node = nodes[node].parameter ?? 0
            } else if let next = nodes[node].literals[String(segment)] {
                node = next
            } else {
                nodes.append(Node())
                nodes[node].literals[String(segment)] = nodes.count - 1
                node = nodes.count - 1
            }
        }
        precondition(!nodes[node].handlers.contains { $0.method == method }, "the route \(method.rawValue) \(pattern) exists already")
        nodes[node].handlers.append((method, handler, names))
    }

    /// - Parameter path: still percent-encoded, without the query.
    public func match(_ method: HTTPRequest.Method, _ path: String) -> RouteMatch<Handler> {
        guard path.utf8.first == UInt8(ascii: "/") else { return .notFound }
        var values: [String] = []
        guard let node = find(Router.segments(path)[...], from: 0, &values) else { return .notFound }
        let handlers = nodes[node].handlers
        if let found = handlers.first(where: { $0.method == method }) ?? (method == .head ? handlers.first { $0.method == .get } : nil) {
            return .found(found.handler, parameters: Dictionary(zip(found.names, values)) { $1 })
        }
        var allow = handlers.map(\.method)
        if allow.contains(.get), !allow.contains(.head) { allow.append(.head) }
        return .methodNotAllowed(allow: allow)
    }

    private func find(_ segments: ArraySlice<Substring>, from node: Int, _ values: inout [String]) -> Int? {
        guard let segment = segments.first else { return nodes[node].handlers.isEmpty ? nil : node }
        guard let text = PercentCoding.decode(segment) else { return nil }
        if let next = nodes[node].literals[text], let found = find(segments.dropFirst(), from: next, &values) {
            return found
        }
        guard let next = nodes[node].parameter, !text.isEmpty else { return nil }
        values.append(text)
        if let found = find(segments.dropFirst(), from: next, &values) { return found }
        values.removeLast()
        return nil
    }

    private static func segments(_ path: String) -> [Substring] {
        path.dropFirst().split(separator: "/", omittingEmptySubsequences: false)
    }
}
