import HTTPTypes

/// Gathers names and values of a header section as they come in pieces, in one flat buffer.
struct FieldCollector {
    struct Field {
        let nameStart: Int
        var nameEnd: Int
        var valueEnd: Int
    }

    private(set) var bytes: [UInt8] = []
    private(set) var fields: [Field] = []
    private var isInValue = true

    mutating func removeAll() {
        bytes.removeAll(keepingCapacity: true)
        fields.removeAll(keepingCapacity: true)
        isInValue = true
    }

    mutating func appendName(_ piece: UnsafeRawBufferPointer) {
        if isInValue {
            isInValue = false
            fields.append(Field(nameStart: bytes.count, nameEnd: bytes.count, valueEnd: bytes.count))
        }
        bytes.append(contentsOf: piece)
        fields[fields.count - 1].nameEnd = bytes.count
        fields[fields.count - 1].valueEnd = bytes.count
    }

    mutating func appendValue(_ piece: UnsafeRawBufferPointer) {
        isInValue = true
        bytes.append(contentsOf: piece)
        fields[fields.count - 1].valueEnd = bytes.count
    }

    mutating func endValue() {
        isInValue = true
    }

    func name(_ field: Field) -> ArraySlice<UInt8> {
        bytes[field.nameStart..<field.nameEnd]
    }

    /// The value without white space around it.
    func value(_ field: Field) -> ArraySlice<UInt8> {
        var start = field.nameEnd
        var end = field.valueEnd
        while start < end, bytes[start] == 0x20 || bytes[start] == 0x09 { start += 1 }
        while end > start, bytes[end - 1] == 0x20 || bytes[end - 1] == 0x09 { end -= 1 }
        return bytes[start..<end]
    }

    /// Whether a field's name is `lowercased`, in whatever case it was sent.
    func isNamed(_ field: Field, _ lowercased: StaticString) -> Bool {
        guard field.nameEnd - field.nameStart == lowercased.utf8CodeUnitCount else { return false }
        let other = lowercased.utf8Start
        for i in 0..<lowercased.utf8CodeUnitCount where FieldCollector.lowercase(bytes[field.nameStart + i]) != other[i] {
            return false
        }
        return true
    }

    static func lowercase(_ byte: UInt8) -> UInt8 {
        (0x41...0x5A).contains(byte) ? byte | 0x20 : byte
    }
}
