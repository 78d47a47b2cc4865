import JSON
import Testing

@Suite struct JSONParsingTests {
    private func parse(_ text: String, maximumDepth: Int = 64) throws(JSONError) -> JSONValue {
        try JSONValue(parsing: text.utf8, maximumDepth: maximumDepth)
    }

    private func failure(_ bytes: [UInt8], maximumDepth: Int = 64) -> JSONError? {
        do throws(JSONError) {
            _ = try JSONValue(parsing: bytes, maximumDepth: maximumDepth)
            return nil
        } catch {
            return error
        }
    }

    @Test(arguments: [
        ("null", JSONValue.null), ("true", .bool(true)), ("false", .bool(false)), ("0", .integer(0)), ("-1", .integer(-1)),
        ("\"\"", .string("")), ("[]", .array([])), ("{}", .object(JSONObject())),
        (" \t\r\n[ 1 ,\n2 ] ", .array([.integer(1), .integer(2)])),
        ("{ \"a\" : { \"b\" : [ ] } }", .object(["a": .object(["b": .array([])])])),
        ("[[],{},\"x\",1.5]", .array([.array([]), .object(JSONObject()), .string("x"), .number(1.5)])),
    ])
    func values(_ text: String, _ expected: JSONValue) throws {
        #expect(try parse(text) == expected)
    }

    @Test func numbers() throws {
        let cases: [(String, JSONValue)] = [
            ("9223372036854775807", .integer(.max)), ("-9223372036854775808", .integer(.min)),
            ("9223372036854775808", .number(9_223_372_036_854_775_808)), ("-9223372036854775809", .number(-9_223_372_036_854_775_808)),
            ("123456789012345678901234567890", .number(Double("123456789012345678901234567890")!)),
            ("1000000000000000000", .integer(1_000_000_000_000_000_000)),
            ("1.0", .number(1)), ("1e2", .number(100)), ("1E+2", .number(100)), ("25e-1", .number(2.5)), ("0.1", .number(0.1)),
            ("0e5", .number(0)), ("0.0000000000000000000000000001", .number(1e-28)), ("1e22", .number(1e22)), ("1e23", .number(1e23)),
            ("1.7976931348623157e308", .number(.greatestFiniteMagnitude)), ("5e-324", .number(.leastNonzeroMagnitude)),
            ("2.2250738585072011e-308", .number(Double("2.2250738585072011e-308")!)), ("0.30000000000000004", .number(0.30000000000000004)),
            ("9007199254740993.0", .number(9_007_199_254_740_992)), ("3.141592653589793238462643383279", .number(.pi)),
        ]
        for (text, expected) in cases {
            #expect(try parse(text) == expected, "\(text)")
        }
        #expect(try parse("1e-400").number == 0)
        let tiny = "1e-" + String(repeating: "9", count: 40)
        #expect(try parse(tiny).number == 0)
        #expect(try parse("0e99999999999999999999") == .number(0))
        for text in ["-0", "-0.0", "-0e3"] {
            let value = try parse(text)
            #expect(value.integer == nil)
            #expect(value.number?.sign == .minus)
            #expect(value.number == 0)
        }
        // Many digits with a matching exponent.
        #expect(try parse("1" + String(repeating: "0", count: 400) + "e-400") == .number(1))
        #expect(try parse("0." + String(repeating: "0", count: 400) + "1e401") == .number(1))
    }

    @Test(arguments: ["1e400", "-1e400", "1e99999999999999999999", "1" + String(repeating: "0", count: 400)])
    func overflow(_ text: String) {
        #expect(failure(Array(text.utf8))?.code == .numberOutOfRange)
        #expect(failure(Array(text.utf8))?.offset == 0)
    }

    /// Text, code, offset of the offending byte.
    @Test(arguments: [
        ("", JSONError.Code.unexpectedEnd, 0), ("  ", .unexpectedEnd, 2), ("[", .unexpectedEnd, 1), ("[1", .unexpectedEnd, 2),
        ("[1,", .unexpectedEnd, 3), ("{", .unexpectedEnd, 1), ("{\"a\"", .unexpectedEnd, 4), ("{\"a\":", .unexpectedEnd, 5),
        ("\"abc", .unexpectedEnd, 4), ("\"\\", .unexpectedEnd, 2), ("\"\\u12", .unexpectedEnd, 5), ("tru", .unexpectedEnd, 3),
        ("-", .unexpectedEnd, 1), ("1.", .unexpectedEnd, 2), ("1e", .unexpectedEnd, 2), ("1e+", .unexpectedEnd, 3),
        ("[1,]", .unexpectedByte, 3), ("{\"a\":1,}", .unexpectedByte, 7), ("[,1]", .unexpectedByte, 1), ("[1 2]", .unexpectedByte, 3),
        ("{a:1}", .unexpectedByte, 1), ("{'a':1}", .unexpectedByte, 1), ("{\"a\" 1}", .unexpectedByte, 5), ("{1:2}", .unexpectedByte, 1),
        ("[1}", .unexpectedByte, 2), ("{\"a\":1]", .unexpectedByte, 6), ("]", .unexpectedByte, 0), ("NaN", .unexpectedByte, 0),
        ("Infinity", .unexpectedByte, 0), ("nul1", .unexpectedByte, 3), ("True", .unexpectedByte, 0), ("// x\n1", .unexpectedByte, 0),
        ("+1", .unexpectedByte, 0), (".5", .unexpectedByte, 0), ("'a'", .unexpectedByte, 0), ("\u{A0}1", .unexpectedByte, 0),
        ("\u{0C}1", .unexpectedByte, 0), ("\"a\nb\"", .unexpectedByte, 2), ("\"a\u{0}b\"", .unexpectedByte, 2),
        ("\"long text before the tab\tx\"", .unexpectedByte, 25),
        ("-x", .invalidNumber, 1), ("1.x", .invalidNumber, 2), ("1.e3", .invalidNumber, 2), ("1ex", .invalidNumber, 2),
        ("[-]", .invalidNumber, 2),
        ("1 2", .trailingContent, 2), ("{}{}", .trailingContent, 2), ("1x", .trailingContent, 1), ("0x10", .trailingContent, 1),
        ("1.5.5", .trailingContent, 3), ("null\u{0}", .trailingContent, 4), ("1//", .trailingContent, 1),
        ("\"\\x\"", .invalidEscape, 1), ("\"a\\'\"", .invalidEscape, 2), ("\"\\u12g4\"", .invalidEscape, 1), ("\"\\U0041\"", .invalidEscape, 1),
        ("\"\\ud800\"", .invalidEscape, 1), ("\"\\udc00\"", .invalidEscape, 1), ("\"\\ud800\\u0041\"", .invalidEscape, 1),
        ("\"\\ud800\\ud800\"", .invalidEscape, 1), ("\"\\ud800x\"", .invalidEscape, 1), ("\"\\udc00\\ud800\"", .invalidEscape, 1),
        ("\"ab\\n\\uD83D\"", .invalidEscape, 5),
        ("\u{FEFF}{}", .invalidEncoding, 0),
    ])
    func refusals(_ text: String, _ code: JSONError.Code, _ offset: Int) {
        let error = failure(Array(text.utf8))
        #expect(error?.code == code)
        #expect(error?.offset == offset)
        #expect(error?.description.hasPrefix("invalid JSON at byte \(offset): ") == true)
    }

    @Test func duplicateKeysAreRefusedWhereAskedFor() throws {
        func parse(_ text: String) throws(JSONError) -> JSONValue { try JSONValue(parsing: Array(text.utf8), refusingDuplicateKeys: true) }
        #expect(try parse(#"{"a":1,"b":{"a":2}}"#) == ["a": 1, "b": ["a": 2]])
        let many = (0..<20).map { "\"k\($0)\":\($0)" }.joined(separator: ",")
        for (text, offset) in [(#"{"a":1, "a":2}"#, 8), (#"[{"x":{"a":1,"\u0061":1}}]"#, 13), ("{\(many),\"k3\":0}", many.utf8.count + 2)] {
            #expect { try parse(text) } throws: { ($0 as? JSONError)?.code == .duplicateKey && ($0 as? JSONError)?.offset == offset }
            #expect(throws: Never.self) { try JSONValue(parsing: Array(text.utf8)) }
        }
    }

    @Test(arguments: [("01", 0), ("00", 0), ("-01", 1), ("[012.5]", 1)])
    func leadingZeros(_ text: String, _ offset: Int) {
        #expect(failure(Array(text.utf8))?.code == .invalidNumber)
        #expect(failure(Array(text.utf8))?.offset == offset)
        #expect(failure(Array(text.utf8))?.message == "a number must not start with a zero followed by digits")
    }

    @Test func escapes() throws {
        #expect(try parse(#""\"\\\/\b\f\n\r\t""#) == .string("\"\\/\u{08}\u{0C}\n\r\t"))
        #expect(try parse(#""\u0041\u00e9\u20AC\uD83D\uDE00""#) == .string("Aé€😀"))
        #expect(try parse(#""a\u0000b""#) == .string("a\u{0}b"))
        #expect(try parse(#""\uFFFF\uFFFE\uD7FF\uE000""#) == .string("\u{FFFF}\u{FFFE}\u{D7FF}\u{E000}"))
        #expect(try parse(#""plain text, then é\tand 中文 after it, and a \"quote\"""#) == .string("plain text, then é\tand 中文 after it, and a \"quote\""))
        #expect(try parse(#""\uDBFF\uDFFF""#) == .string("\u{10FFFF}"))
    }

    @Test func wellFormedUTF8() throws {
        for text in ["é", "€", "😀", "\u{7FF}", "\u{800}", "\u{FFFF}", "\u{10000}", "\u{10FFFF}", "\u{7F}", "e\u{301}", "🏳️‍🌈"] {
            #expect(try parse("\"\(text)\"") == .string(text))
            #expect(try parse("\"\\n\(text)\"") == .string("\n" + text))
        }
    }

    /// Offsets count from the opening quote; each sequence is tried in a plain string and in one with an escape.
    @Test(arguments: [
        [0x80], [0xBF], [0xC0, 0x80], [0xC1, 0xBF], [0xC3], [0xC3, 0x28], [0xE0, 0x80, 0x80], [0xE0, 0x9F, 0xBF], [0xE2, 0x82],
        [0xE2, 0x28, 0xA1], [0xED, 0xA0, 0x80], [0xED, 0xBF, 0xBF], [0xF0, 0x80, 0x80, 0x80], [0xF0, 0x8F, 0xBF, 0xBF],
        [0xF0, 0x9F, 0x98], [0xF4, 0x90, 0x80, 0x80], [0xF5, 0x80, 0x80, 0x80], [0xFE], [0xFF],
    ] as [[UInt8]])
    func malformedUTF8(_ sequence: [UInt8]) {
        let plain = failure([0x22, 0x61] + sequence + [0x62, 0x22])
        #expect(plain?.code == .invalidEncoding)
        #expect(plain?.offset == 2)
        let escaped = failure([0x22, 0x5C, 0x6E, 0x61] + sequence + [0x62, 0x22])
        #expect(escaped?.code == .invalidEncoding)
        #expect(escaped?.offset == 4)
        let key = failure([0x7B, 0x22] + sequence + [0x22, 0x3A, 0x31, 0x7D])
        #expect(key?.code == .invalidEncoding)
        #expect(key?.offset == 2)
    }

    @Test func depth() throws {
        func nested(_ depth: Int) -> [UInt8] {
            Array((String(repeating: "[", count: depth) + String(repeating: "]", count: depth)).utf8)
        }
        #expect(failure(nested(64)) == nil)
        #expect(failure(nested(65))?.code == .tooDeep)
        #expect(failure(nested(65))?.offset == 64)
        #expect(failure(Array(repeating: UInt8(ascii: "["), count: 1_000_000))?.code == .tooDeep)
        #expect(failure(Array("[]".utf8), maximumDepth: 0)?.code == .tooDeep)
        #expect(failure(Array("1".utf8), maximumDepth: 0) == nil)
        #expect(failure(Array("[[],[],{},[]]".utf8), maximumDepth: 2) == nil)
        #expect(failure(Array("{\"a\":{\"b\":{}}}".utf8), maximumDepth: 2)?.offset == 10)
        #expect(failure(nested(2000), maximumDepth: 2000) == nil)
    }

    @Test func objectsKeepOrderAndTheLastDuplicate() throws {
        let object = try #require(try parse(#"{"z":1,"a":2,"m":3,"a":4,"":5}"#).object)
        #expect(object.keys == ["z", "a", "m", ""])
        #expect(object.values == [1, 4, 3, 5])
        #expect(object.count == 4)
        #expect(object["a"] == .integer(4))
        #expect(object["absent"] == nil)
    }

    @Test func composedAndDecomposedKeysDiffer() throws {
        let value = try parse("{\"\u{E9}\":1,\"e\u{301}\":2}")
        #expect(value.object?.count == 2)
        #expect(value["\u{E9}"] == .integer(1))
        #expect(value["e\u{301}"] == .integer(2))
        #expect(JSONValue.string("\u{E9}") != .string("e\u{301}"))
    }

    @Test func manyKeys() throws {
        let count = 50_000
        var text = "{"
        for index in 0..<count { text += "\"key\(index)\":\(index)," }
        for index in stride(from: 0, to: count, by: 2) { text += "\"key\(index)\":\(-index)," }
        text += "\"end\":null}"
        let object = try #require(try parse(text).object)
        #expect(object.count == count + 1)
        #expect(object.keys.first == "key0")
        #expect(object.keys.last == "end")
        #expect(object["key31"] == .integer(31))
        #expect(object["key32"] == .integer(-32))
        #expect(object[49_999].key == "key49999")
    }

    @Test func anyCollectionOfBytes() throws {
        let bytes = Array("xx[1,\"é\"]yy".utf8)
        let slice = bytes[2..<(bytes.count - 2)]
        #expect(try JSONValue(parsing: slice) == [1, "é"])
        #expect(try JSONValue(parsing: slice.lazy.map { $0 }) == [1, "é"])
        #expect(throws: JSONError.self) { try JSONValue(parsing: [UInt8]()) }
    }

    @Test func everyPrefixOfAValueIsRefused() throws {
        let text = Array(#"{"a":[1.5e-3,"é\ud83d\ude00",true,null,{"b":false}]}"#.utf8)
        #expect(failure(text) == nil)
        for length in 0..<text.count {
            let error = failure(Array(text[..<length]))
            #expect(error != nil, "prefix of \(length) bytes")
            #expect((error?.offset ?? .max) <= length)
        }
    }

    @Test func damagedTextsNeverCrash() {
        let text = Array(#"{"messages":[{"role":"user","content":"h\u00e9llo \ud83d\ude00 é"}],"n":-12.5e+3,"x":[true,false,null]}"#.utf8)
        var state: UInt64 = 42
        func next(_ bound: Int) -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int((state >> 33) % UInt64(bound))
        }
        for _ in 0..<20_000 {
            var damaged = text
            for _ in 0...next(3) {
                switch next(3) {
                case 0: damaged[next(damaged.count)] = UInt8(next(256))
                case 1: damaged.remove(at: next(damaged.count))
                default: damaged.insert(UInt8(next(256)), at: next(damaged.count))
                }
            }
            do throws(JSONError) {
                let value = try JSONValue(parsing: damaged)
                let again = try JSONValue(parsing: value.serialized())
                #expect(again == value)
            } catch {
                #expect(error.offset >= 0 && error.offset <= damaged.count)
            }
        }
    }
}
