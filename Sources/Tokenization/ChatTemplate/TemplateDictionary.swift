/// A dictionary in order of insertion. It is filled once and not changed after that.
final class TemplateDictionary {
    /// Smaller dictionaries are searched entry by entry.
    private static let linearSearchLimit = 8

    private(set) var entries: [(key: TemplateObject, value: TemplateObject)] = []
    private var positions: [Key: Int] = [:]

    init(capacity: Int = 0) { entries.reserveCapacity(capacity) }

    var count: Int { entries.count }

    /// What may be a key, so that equal keys hash alike: texts by content, 1 like 1.0 like true.
    enum Key: Hashable {
        case none
        case text(TemplateText)
        case integer(Int)
        case number(Double)
        case tuple([Key])

        /// Nil for lists, dictionaries and other values that Python calls unhashable.
        init?(_ object: TemplateObject) {
            switch object {
            case .none: self = .none
            case .text(let text): self = .text(text)
            case .bool(let value): self = .integer(value ? 1 : 0)
            case .integer(let value): self = .integer(value)
            case .number(let value): self = Int(exactly: value).map { .integer($0) } ?? .number(value)
            case .tuple(let elements):
                var keys: [Key] = []
                for element in elements {
                    guard let key = Key(element) else { return nil }
                    keys.append(key)
                }
                self = .tuple(keys)
            default: return nil
            }
        }
    }

    /// The value of a text key.
    func value(of text: TemplateText) -> TemplateObject? {
        if !positions.isEmpty {
            return positions[.text(text)].map { entries[$0].value }
        }
        for entry in entries {
            if case .text(let key) = entry.key, key == text { return entry.value }
        }
        return nil
    }

    func value(of key: Key) -> TemplateObject? {
        if case .text(let text) = key { return value(of: text) }
        return position(of: key).map { entries[$0].value }
    }

    func set(text: TemplateText, _ value: TemplateObject) { set(.text(text), key: .text(text), value) }

    /// `key` must be the hashable form of `object`.
    func set(_ object: TemplateObject, key: Key, _ value: TemplateObject) {
        if let position = position(of: key) {
            entries[position].value = value
            return
        }
        entries.append((object, value))
        if entries.count == Self.linearSearchLimit + 1 {
            for (index, entry) in entries.enumerated() {
                if let key = Key(entry.key) { positions[key] = index }
            }
        } else if entries.count > Self.linearSearchLimit {
            positions[key] = entries.count - 1
        }
    }

    private func position(of key: Key) -> Int? {
        if !positions.isEmpty { return positions[key] }
        return entries.firstIndex { Key($0.key) == key }
    }

    func equals(_ other: TemplateDictionary) -> Bool {
        guard count == other.count else { return false }
        return entries.allSatisfy { entry in
            guard let key = Key(entry.key), let value = other.value(of: key) else { return false }
            return entry.value.equals(value)
        }
    }

    func elements(of kind: TemplateViewKind) -> [TemplateObject] {
        switch kind {
        case .keys: entries.map(\.key)
        case .values: entries.map(\.value)
        case .items: entries.map { .tuple([$0.key, $0.value]) }
        }
    }
}
