import Adapters
import Testing

struct AdapterCanaryTests {
    let fixture: RegistryFixture

    init() throws {
        fixture = try RegistryFixture()
        for seed in 1...2 { try fixture.publish("support-bot", seed: seed, promote: seed == 1) }
    }

    private static let keys = (0..<10_000).map { "user-\($0)" }

    private func onCanary(_ share: Double) throws -> Set<String> {
        _ = try fixture.registry.promote("support-bot", number: 2, share: share, owner: "local")
        return Set(Self.keys.filter { fixture.resolve("support-bot", stickyKey: $0)?.number == 2 })
    }

    /// Computed by another program: the first 8 bytes of SHA-256("name@number\0key"), big-endian, their upper 53 bits as a fraction.
    @Test(arguments: [
        ("alice", "support-bot", 2, 0.6389744957332183), ("bob", "support-bot", 2, 0.8071023720777738), ("", "x", 1, 0.9591610699533702),
        ("alice", "support-bot", 3, 0.3402816734448155), ("ключ", "a.b_c-D", 17, 0.3743195483138936),
    ])
    func positionsAreTheSameInEveryProcess(key: String, name: String, number: Int, expected: Double) {
        #expect(CanaryDraw.position(stickyKey: key, name: name, number: number) == expected)
    }

    @Test func sharesOfKeysAreSharesOfTraffic() throws {
        let fifth = try onCanary(0.2)
        #expect(fifth.count == 2061)
        let half = try onCanary(0.5)
        #expect(half.count == 5031)
        #expect(half.isSuperset(of: fifth), "raising the share moves nobody back")
        #expect(try onCanary(0.2) == fifth)
        try fixture.restart()
        #expect(Set(Self.keys.filter { fixture.resolve("support-bot", stickyKey: $0)?.number == 2 }) == fifth)
    }

    @Test func anotherCanaryDrawsAnew() throws {
        let second = try onCanary(0.5)
        try fixture.publish("support-bot", seed: 3, promote: false)
        _ = try fixture.registry.promote("support-bot", number: 3, share: 0.5, owner: "local")
        let third = Set(Self.keys.filter { fixture.resolve("support-bot", stickyKey: $0)?.number == 3 })
        // Independent halves have about a quarter of all keys in common.
        #expect((2200...2800).contains(second.intersection(third).count))
    }

    @Test func withoutAKeyEveryDrawIsItsOwn() throws {
        _ = try fixture.registry.promote("support-bot", number: 2, share: 0.5, owner: "local")
        let numbers = (0..<400).compactMap { _ in fixture.resolve("support-bot")?.number }
        // The chance of a false alarm is below 2 to the power of -398.
        #expect(numbers.count == 400 && Set(numbers) == [1, 2])
    }

    @Test func explicitVersionsAreNotDrawn() throws {
        _ = try fixture.registry.promote("support-bot", number: 2, share: 0.999, owner: "local")
        for key in Self.keys.prefix(200) {
            #expect(fixture.resolve("support-bot@1", stickyKey: key)?.number == 1)
            #expect(fixture.resolve("support-bot@latest", stickyKey: key)?.number == 2)
        }
    }

    @Test func promotionGivesItEverything() throws {
        _ = try onCanary(0.2)
        let record = try fixture.registry.promote("support-bot", number: 2, share: nil, owner: "local")
        #expect(record.promoted == 2 && record.canary == nil)
        #expect(Self.keys.prefix(200).allSatisfy { fixture.resolve("support-bot", stickyKey: $0)?.number == 2 })
        #expect(try fixture.registry.rollback("support-bot", owner: "local").promoted == 1)
    }

    @Test func zeroEndsIt() throws {
        _ = try onCanary(0.9)
        #expect(try fixture.registry.promote("support-bot", number: 2, share: 0, owner: "local").canary == nil)
        #expect(Self.keys.prefix(200).allSatisfy { fixture.resolve("support-bot", stickyKey: $0)?.number == 1 })
    }

    @Test func endsWhenItsVersionIsDeleted() throws {
        _ = try onCanary(0.9)
        try fixture.registry.delete("support-bot", number: 2, owner: "local")
        #expect(fixture.registry.record(named: "support-bot", owner: "local")?.canary == nil)
        #expect(Self.keys.prefix(200).allSatisfy { fixture.resolve("support-bot", stickyKey: $0)?.number == 1 })
    }

    @Test func publishingAPromotedVersionEndsIt() throws {
        _ = try onCanary(0.9)
        try fixture.publish("support-bot", seed: 3)
        let record = try #require(fixture.registry.record(named: "support-bot", owner: "local"))
        #expect(record.promoted == 3 && record.canary == nil)
    }

    @Test func damagedCanaryGetsNoRequests() throws {
        let keys = try onCanary(0.9)
        try fixture.restart { try RegistryFixture.flipBit(fixture.path("local/support-bot/2", "adapter_model.safetensors")) }
        let key = try #require(keys.first)
        let canary = try #require(fixture.resolve("support-bot", stickyKey: key))
        #expect(canary.number == 2)
        #expect(RegistryFixture.refusal { _ = try fixture.registry.load(canary) }?.code == .quarantined)
        #expect(fixture.resolve("support-bot", stickyKey: key)?.number == 1)
        #expect(fixture.resolve("support-bot@2", stickyKey: key)?.quarantine != nil)
    }
}
