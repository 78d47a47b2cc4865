import HTTPTypes
import InstructionStore
import JSON
import OpenAIAPI
import Testing

@Suite struct KeyRouteTests {
    private static let path = "/v1/organization/admin_api_keys"

    @Test func aKeyIsMadeShownOnceAndRevoked() async throws {
        let keyed = try KeyedHarness()
        let admin = try keyed.key([.admin], owner: "ops")
        let made = await keyed.send(
            .post, Self.path,
            #"{"name":"ci","owner":"alice","scopes":["infer","train"],"expires_in_seconds":3600,"requests_per_minute":60,"tokens_per_minute":0,"x":1}"#,
            key: admin.text)
        #expect(made.status == 200 && made.head?.headerFields[text: "graft-ignored-parameters"] == "x")
        var object = try #require(try made.json().object)
        let text = try #require(object["value"]?.string), id = try #require(object["id"]?.string)
        #expect(APIKeyText(text)?.id == String(id.dropFirst("key_".count)))
        object["value"] = nil
        let expected: JSONObject = [
            "object": "organization.admin_api_key", "id": .string(id), "name": "ci", "redacted_value": .string("sk-graft-..." + text.suffix(4)),
            "created_at": 1_800_000_000, "last_used_at": .null, "expires_at": 1_800_003_600, "revoked_at": .null,
            "owner": ["type": "tenant", "id": "alice", "name": "alice"], "scopes": ["infer", "train"], "requests_per_minute": 60, "tokens_per_minute": 0,
        ]
        #expect(object == expected)
        #expect(await keyed.send(.get, "/v1/fine_tuning/jobs", key: text).status == 200)
        #expect(await keyed.send(.get, Self.path, key: text).status == 403, "only admin manages keys")
        let shown = try await keyed.send(.get, "\(Self.path)/\(id)", key: admin.text).json()
        #expect(shown["last_used_at"] == 1_800_000_000 && shown["value"] == nil)
        let list = try await keyed.send(.get, Self.path, key: admin.text).json()
        #expect(list["data"]?.array?.map { $0["name"] } == ["test", "ci"] && list["has_more"] == false && list["last_id"] == .string(id))
        #expect(!(await keyed.send(.get, Self.path, key: admin.text).text.contains(text.suffix(43))))

        let revoked = await keyed.send(.delete, "\(Self.path)/\(id)", key: admin.text)
        #expect(try revoked.json() == ["object": "organization.admin_api_key.deleted", "id": .string(id), "deleted": true])
        #expect(await keyed.send(.get, "/v1/fine_tuning/jobs", key: text).status == 401)
        #expect(try await keyed.send(.get, "\(Self.path)/\(id)", key: admin.text).json()["revoked_at"] == 1_800_000_000)
        let lines = keyed.harness.logs.text.split(separator: "\n").filter { $0.contains(" audit ") }
        #expect(lines.count == 2)
        #expect(lines[0].contains("action=key.create actor=\(admin.id) object=\(id)") && lines[0].contains("result=ok") && lines[0].contains("tenant=ops"))
        #expect(lines[1].contains("action=key.revoke actor=\(admin.id) object=\(id)"))
    }

    @Test(arguments: [
        (#"{}"#, "name"), (#"{"name":""}"#, "name"), (#"{"name":1}"#, "name"), (#"{"name":"a","owner":"../x"}"#, "owner"),
        (#"{"name":"a","scopes":[]}"#, "scopes"), (#"{"name":"a","scopes":"infer"}"#, "scopes"), (#"{"name":"a","scopes":["infer","root"]}"#, "scopes[1]"),
        (#"{"name":"a","expires_in_seconds":0}"#, "expires_in_seconds"), (#"{"name":"a","requests_per_minute":-1}"#, "requests_per_minute"),
        (#"{"name":"a","tokens_per_minute":1e12}"#, "tokens_per_minute"),
    ])
    func badRequests(_ body: String, _ param: String) async throws {
        let keyed = try KeyedHarness()
        let response = await keyed.send(.post, Self.path, body, key: try keyed.key([.admin]).text)
        #expect(try response.status == 400 && response.json()["error"]?["param"] == .string(param), "\(response.text)")
        #expect(keyed.keys.hasUsableKey)
    }

    @Test func unknownKeys() async throws {
        let keyed = try KeyedHarness()
        let admin = try keyed.key([.admin]).text
        for id in ["key_0123456789abcdef", "nonsense", "0123456789abcdef"] {
            for method in [HTTPRequest.Method.get, .delete] {
                let response = await keyed.send(method, "\(Self.path)/\(id)", key: admin)
                #expect(try response.status == 404 && response.json()["error"]?["code"] == "api_key_not_found")
            }
        }
    }

    @Test func pages() async throws {
        let keyed = try KeyedHarness()
        let admin = try keyed.key([.admin]).text
        let ids = try (0..<4).map { _ in try keyed.key().id }
        func page(_ query: String) async throws -> [String?] {
            try await keyed.send(.get, "\(Self.path)?\(query)", key: admin).json()["data"]?.array?.map { $0["id"]?.string } ?? []
        }
        #expect(try await page("limit=2&after=\(ids[0])") == [ids[1], ids[2]])
        #expect(try await page("limit=2&order=desc") == [ids[3], ids[2]])
        #expect(try await page("after=\(ids[3])").isEmpty)
        #expect(await keyed.send(.get, "\(Self.path)?after=key_0000000000000000", key: admin).status == 400)
    }
}
