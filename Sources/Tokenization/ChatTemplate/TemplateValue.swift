import JSON

/// A value that a template can see.
public enum TemplateValue: Sendable, Equatable {
    case null
    case bool(Bool)
    case integer(Int)
    case number(Double)
    /// `isTrusted`: the text comes from the model file or this program, not from a request.
    case string(String, isTrusted: Bool)
    case list([TemplateValue])
    /// Keys in order; the key's own trust says where it came from. A repeated key keeps its first place and last value.
    case dictionary([Member])

    public struct Member: Sendable, Equatable {
        public var key: String
        public var isKeyTrusted: Bool
        public var value: TemplateValue

        public init(key: String, isKeyTrusted: Bool, value: TemplateValue) {
            self.key = key
            self.isKeyTrusted = isKeyTrusted
            self.value = value
        }
    }

    /// The value of a JSON text; `isTrusted` holds for every string and key in it. Request data is never trusted.
    public init(_ json: JSONValue, isTrusted: Bool) {
        switch json {
        case .null: self = .null
        case .bool(let value): self = .bool(value)
        case .integer(let value): self = .integer(Int(value))
        case .number(let value): self = .number(value)
        case .string(let value): self = .string(value, isTrusted: isTrusted)
        case .array(let elements): self = .list(elements.map { TemplateValue($0, isTrusted: isTrusted) })
        case .object(let object):
            self = .dictionary(
                object.map { Member(key: $0.key, isKeyTrusted: isTrusted, value: TemplateValue($0.value, isTrusted: isTrusted)) })
        }
    }
}
