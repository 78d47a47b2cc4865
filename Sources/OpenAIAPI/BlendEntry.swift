import Adapters
import JSON

/// One entry of a request's `lora`, or of `POST /lora-adapters`: an adapter and how strongly it is applied.
public struct BlendEntry: Sendable {
    public enum Adapter: Sendable, Equatable {
        /// `name`, `name@3` or `name@latest`.
        case reference(AdapterReference)
        /// llama.cpp's integer; stands for the bare name.
        case id(Int)
    }

    public var adapter: Adapter
    public var scale: Float
    /// Where the request has it, for messages; `nil` for what no request said.
    public var param: String?

    public init(adapter: Adapter, scale: Float, param: String? = nil) {
        self.adapter = adapter
        self.scale = scale
        self.param = param
    }

    static let maximumScale = 100.0
    /// The longest list that is looked at; entries with a scale of 0 count here, though they are not applied.
    static let maximumCount = 64

    /// The adapter as the client spelt it; a name or a number, so it is fit for messages.
    var spelling: String {
        switch adapter {
        case .id(let id): String(id)
        case .reference(let reference): reference.description
        }
    }

    /// Reads a list of `{"id": name[@version] | integer, "scale": x}`; the scale is 1 unless said.
    ///
    /// - Parameters:
    ///   - path: how messages call the list.
    ///   - unknown: gets the names of members that no entry has, once each.
    static func list(_ value: JSONValue, path: String, unknown: inout [String]) throws(APIError) -> [BlendEntry] {
        guard let elements = value.array else { throw .invalidType(path, found: value, expected: "an array of {id, scale}") }
        guard elements.count <= maximumCount else {
            throw .invalidValue(path, "'\(path)' has \(elements.count) entries, expected at most \(maximumCount)")
        }
        var entries: [BlendEntry] = []
        var seen: Set<String> = []
        for (index, element) in elements.enumerated() {
            let place = "\(path)[\(index)]"
            guard let object = element.object else { throw .invalidType(place, found: element, expected: "an object with id and scale") }
            var fields = RequestFields(object, prefix: place + ".")
            let param = "\(place).id"
            let expected = "an adapter's name, name@version or integer id"
            guard let id = fields.value("id") else { throw .missing(param, expected: expected) }
            let adapter: Adapter
            switch id {
            case .string(let text):
                guard let reference = AdapterReference(text) else { throw .adapterNotFound(text, param: param) }
                adapter = .reference(reference)
            case .integer(let number): adapter = .id(Int(number))
            default: throw .invalidType(param, found: id, expected: expected)
            }
            let scale = try fields.number("scale", in: -maximumScale...maximumScale) ?? 1
            let entry = BlendEntry(adapter: adapter, scale: Float(scale), param: param)
            let key = if case .id = adapter { "#" + entry.spelling } else { entry.spelling }
            guard seen.insert(key).inserted else { throw .duplicateAdapter(entry.spelling, param: param) }
            entries.append(entry)
            for name in fields.unread {
                let general = path + "." + name.dropFirst(place.count + 1)
                if !unknown.contains(general), unknown.count < 32 { unknown.append(general) }
            }
        }
        return entries
    }
}
