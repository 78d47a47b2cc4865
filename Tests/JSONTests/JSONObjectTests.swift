import JSON
import Testing

@Suite struct JSONObjectTests {
    @Test(arguments: [3, 40])
    func settingReplacingRemoving(_ count: Int) {
        var object = JSONObject()
        for index in 0..<count { object["k\(index)"] = .integer(Int64(index)) }
        object["k1"] = "one"
        #expect(object.keys == (0..<count).map { "k\($0)" })
        #expect(object["k1"] == .string("one"))
        object["k0"] = nil
        object["absent"] = nil
        #expect(object.count == count - 1)
        #expect(object["k0"] == nil)
        #expect(object.keys.first == "k1")
        #expect(object["k\(count - 1)"] == .integer(Int64(count - 1)))
        object["k0"] = .null
        #expect(object.keys.last == "k0")
        #expect(object["k0"] == .some(.null))
    }

    @Test func shrinkingBelowTheIndexKeepsWorking() {
        var object = JSONObject((0..<12).map { ("k\($0)", JSONValue.integer(Int64($0))) })
        for index in 0..<10 { object["k\(index)"] = nil }
        object["new"] = 5
        #expect(object.keys == ["k10", "k11", "new"])
        #expect(object["k11"] == 11)
        #expect(object["k3"] == nil)
    }

    @Test func iterationFollowsOrder() {
        let object: JSONObject = ["b": 1, "a": 2]
        var seen: [String] = []
        for (key, value) in object { seen.append("\(key)=\(value.integer ?? -1)") }
        #expect(seen == ["b=1", "a=2"])
        #expect(object.map(\.key) == object.keys)
    }

    @Test func equalityIgnoresOrder() {
        let a: JSONObject = ["x": 1, "y": [1, 2]]
        let b: JSONObject = ["y": [1, 2], "x": 1]
        #expect(a == b)
        #expect(a.hashValue == b.hashValue)
        #expect(a != ["x": 1, "y": [2, 1]])
        #expect(a != ["x": 1])
        #expect(a != ["x": 1, "z": [1, 2]])
        #expect(JSONValue.integer(1) != .number(1))
        #expect(Set<JSONValue>([.object(a), .object(b), 1, 1.0, "x", .null, .null]).count == 5)
    }

    @Test func accessors() {
        #expect(JSONValue.integer(3).number == 3)
        #expect(JSONValue.number(3).integer == nil)
        #expect(JSONValue.null.isNull)
        #expect(!JSONValue.bool(false).isNull)
        #expect(JSONValue.bool(true).bool == true)
        #expect(JSONValue.string("s").string == "s")
        #expect(JSONValue.array([1]).array == [1])
        #expect(JSONValue.array([1]).object == nil)
        #expect(JSONValue.string("s")["k"] == nil)
        #expect((["k": ["n": 2]] as JSONValue)["k"]?["n"] == 2)
    }
}
