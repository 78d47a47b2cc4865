import JSON
import Testing

@Suite struct JSONSerializationTests {
    private func text(_ value: JSONValue, sortedKeys: Bool = false) -> String {
        String(decoding: value.serialized(sortedKeys: sortedKeys), as: UTF8.self)
    }

    @Test func compactTextInOrder() {
        let value: JSONValue = ["z": 1, "a": [true, false, .null, 1.5, "x"], "m": [:], "e": []]
        #expect(text(value) == #"{"z":1,"a":[true,false,null,1.5,"x"],"m":{},"e":[]}"#)
        #expect(text(value, sortedKeys: true) == #"{"a":[true,false,null,1.5,"x"],"e":[],"m":{},"z":1}"#)
    }

    @Test func keysAreSortedAtEveryLevelByBytes() {
        let value: JSONValue = ["b": ["y": 1, "x": 2], "é": 3, "B": [["d": 1, "c": 2]]]
        #expect(text(value, sortedKeys: true) == #"{"B":[{"c":2,"d":1}],"b":{"x":2,"y":1},"é":3}"#)
    }

    @Test(arguments: [
        (Int64(0), "0"), (7, "7"), (-7, "-7"), (10, "10"), (-100, "-100"), (1_234_567_890, "1234567890"),
        (.max, "9223372036854775807"), (.min, "-9223372036854775808"),
    ])
    func integers(_ value: Int64, _ expected: String) {
        #expect(text(.integer(value)) == expected)
    }

    @Test func numbers() {
        let cases: [(Double, String)] = [
            (1, "1.0"), (-0.0, "-0.0"), (0.1, "0.1"), (1e16, "1e+16"), (1e-5, "1e-05"), (.leastNonzeroMagnitude, "5e-324"), (123456.789, "123456.789"),
            (.infinity, "null"), (-.infinity, "null"), (.nan, "null"),
        ]
        for (value, expected) in cases {
            #expect(text(.number(value)) == expected)
        }
    }

    @Test func strings() {
        #expect(text(.string("a\"b\\c/d\u{8}\u{9}\u{A}\u{C}\u{D}\u{0}\u{1F}\u{7F}é😀")) == #""a\"b\\c/d\b\t\n\f\r\u0000\u001f"# + "\u{7F}é😀\"")
        #expect(text(.string("")) == "\"\"")
        #expect(text(.string("a\u{85}b\u{2028}c\u{2029}d©“\u{2027}\u{202A}")) == #""a\u0085b\u2028c\u2029d©“"# + "\u{2027}\u{202A}\"")
        var out: [UInt8] = Array("data: ".utf8)
        appendJSONString("x\ny", to: &out)
        #expect(String(decoding: out, as: UTF8.self) == #"data: "x\ny""#)
    }

    @Test func everyScalarBelowTheSurrogatesSurvives() throws {
        var all = ""
        for value in UInt32(0)..<0xD800 { all.unicodeScalars.append(Unicode.Scalar(value)!) }
        let bytes = JSONValue.string(all).serialized()
        #expect(try JSONValue(parsing: bytes) == .string(all))
        #expect(!bytes.contains { $0 < 0x20 })
    }

    @Test func roundTripKeepsKindsAndValues() throws {
        let value: JSONValue = [
            "integer": 1, "number": 1.0, "negative zero": -0.0, "big": .number(1e300), "third": .number(1.0 / 3),
            "nested": [[], [:], ["": [.null]]], "text": "line\nline",
        ]
        let again = try JSONValue(parsing: value.serialized())
        #expect(again == value)
        #expect(again.object?.keys == value.object?.keys)
        #expect(again["negative zero"]?.number?.sign == .minus)
        #expect(again["integer"]?.integer == 1)
        #expect(again["number"]?.integer == nil)
    }

    @Test func randomFloatsSurvive() throws {
        var state: UInt64 = 7
        for _ in 0..<20_000 {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            let value = Double(bitPattern: state)
            guard value.isFinite else { continue }
            #expect(try JSONValue(parsing: JSONValue.number(value).serialized()).number == value)
            let short = (Double(state % 1_000_000) / 1000).description
            #expect(try JSONValue(parsing: short.utf8).number == Double(short))
        }
    }
}
