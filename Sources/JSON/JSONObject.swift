/// The members of a JSON object in the order in which their keys first appeared.
///
/// A key that appears twice keeps its first position and takes its last value, as Python's `json` does. Two objects are
/// equal when they have equal members, whatever the order.
public struct JSONObject: Sendable {
    /// Objects up to this size are searched key by key; larger ones carry a hash index, which keeps hostile bodies of
    /// a hundred thousand keys linear.
    private static let linearSearchLimit = 8

    private var members: [Element]
    private var positions: [ExactKey: Int]

    /// An object without members.
    public init() {
        members = []
        positions = [:]
    }

    /// An object with these members, in this order; a key's last value wins at its first position.
    public init(_ members: [(String, JSONValue)]) {
        self.init()
        self.members.reserveCapacity(members.count)
        for (key, value) in members {
            set(key, to: value)
        }
    }

    /// The keys, in order.
    public var keys: [String] { members.map(\.key) }

    /// The values, in the order of their keys.
    public var values: [JSONValue] { members.map(\.value) }

    /// The value of `key`, nil when it is absent. Setting a new key appends it; setting nil removes the member.
    public subscript(_ key: String) -> JSONValue? {
        get {
            guard let position = position(of: key) else { return nil }
            return members[position].value
        }
        set {
            if let newValue {
                set(key, to: newValue)
            } else if let position = position(of: key) {
                members.remove(at: position)
                rebuildPositions()
            }
        }
    }

    mutating func set(_ key: String, to value: JSONValue) {
        if positions.isEmpty {
            if let position = position(of: key) {
                members[position].value = value
                return
            }
            members.append((key, value))
            rebuildPositions()
        } else if let position = positions.updateValue(members.count, forKey: ExactKey(text: key)) {
            // Keys are rarely repeated: hashing once and putting the old position back is the short way.
            positions[ExactKey(text: key)] = position
            members[position].value = value
        } else {
            members.append((key, value))
        }
    }

    private func position(of key: String) -> Int? {
        if !positions.isEmpty {
            return positions[ExactKey(text: key)]
        }
        for index in members.indices where hasSameBytes(members[index].key, key) {
            return index
        }
        return nil
    }

    private mutating func rebuildPositions() {
        if !positions.isEmpty { positions.removeAll(keepingCapacity: true) }
        guard members.count > Self.linearSearchLimit else { return }
        for index in members.indices {
            positions[ExactKey(text: members[index].key)] = index
        }
    }

    /// A key that is equal only to the same bytes: RFC 8259 compares names code unit by code unit.
    private struct ExactKey: Hashable {
        let text: String

        static func == (left: ExactKey, right: ExactKey) -> Bool { hasSameBytes(left.text, right.text) }
        func hash(into hasher: inout Hasher) { hashBytes(of: text, into: &hasher) }
    }
}

extension JSONObject: RandomAccessCollection {
    public typealias Element = (key: String, value: JSONValue)

    public var startIndex: Int { 0 }
    public var endIndex: Int { members.count }
    /// The number of members.
    public var count: Int { members.count }

    public subscript(position: Int) -> Element { members[position] }
}

extension JSONObject: Hashable {
    public static func == (left: JSONObject, right: JSONObject) -> Bool {
        guard left.count == right.count else { return false }
        for index in left.members.indices {
            let (key, value) = left.members[index]
            // The same position first: parsed texts mostly agree in order.
            let other = right.members[index]
            if hasSameBytes(key, other.key) {
                guard value == other.value else { return false }
            } else {
                guard right[key] == value else { return false }
            }
        }
        return true
    }

    public func hash(into hasher: inout Hasher) {
        // Order does not count, so the members' own hashes are combined by addition.
        var sum = 0
        for (key, value) in members {
            var member = Hasher()
            hashBytes(of: key, into: &member)
            member.combine(value)
            sum &+= member.finalize()
        }
        hasher.combine(members.count)
        hasher.combine(sum)
    }
}

extension JSONObject: ExpressibleByDictionaryLiteral {
    public init(dictionaryLiteral elements: (String, JSONValue)...) { self.init(elements) }
}
