import Adapters
import FoundationEssentials
import InstructionStore
import Testing

/// Further names of versions, and reading a version's numbers back.
struct AdapterAliasTests {
    let fixture: RegistryFixture
    var registry: AdapterRegistry { fixture.registry }
    private let alias = "ft:tiny:local:bot:ftjob-1"

    init() throws {
        fixture = try RegistryFixture()
    }

    private func publish(_ seed: Int, as name: String = "bot", alias: String?, promote: Bool = true) throws -> AdapterVersion {
        try registry.publish(RegistryFixture.content(seed: seed), as: name, owner: "local", source: .job("ftjob-1"), promote: promote, alias: alias)
    }

    @Test func anAliasMeansOneVersionForGood() throws {
        let first = try publish(1, alias: alias)
        let second = try publish(2, alias: alias + ":ckpt-step-2")
        _ = try publish(3, alias: nil)
        #expect(registry.version(alias: alias, owner: "local") == first && registry.version(alias: alias + ":ckpt-step-2", owner: "local") == second)
        #expect(registry.version(alias: alias, owner: "other") == nil && registry.version(alias: "ft:x", owner: "local") == nil)
        #expect(registry.version(alias: "bot", owner: "local") == nil, "names are no aliases")
        try fixture.restart()
        #expect(registry.version(alias: alias, owner: "local") == first && registry.version(alias: alias + ":ckpt-step-2", owner: "local") == second)
    }

    @Test func publishingAgainGivesWhatIsThere() throws {
        let first = try publish(1, alias: alias)
        _ = try publish(2, alias: nil)
        #expect(try publish(9, alias: alias) == first)
        // Also under another name, also after a restart.
        #expect(try publish(9, as: "cat", alias: alias) == first)
        try fixture.restart()
        #expect(try publish(9, alias: alias) == first)
        #expect(registry.records(owner: "local").map(\.name) == ["bot"])
        #expect(registry.record(named: "bot", owner: "local")?.versions.count == 2)
        #expect(registry.record(named: "bot", owner: "local")?.promoted == 2, "nothing was promoted again")
        #expect(try fixture.files() == fixture.expectedFiles(["local/bot/1", "local/bot/2"]))
    }

    @Test(arguments: [AdapterRegistry.Stage.written, .synced, .parentsMade, .renamed, .parentsSynced, .verified])
    func anInterruptedPublicationLeavesNoAlias(_ stage: AdapterRegistry.Stage) throws {
        fixture.stages.action.withLock {
            $0 = { reached throws(AdapterError) in if reached == stage { throw AdapterError(.storageFull, "no room") } }
        }
        #expect(RegistryFixture.refusal { _ = try publish(1, alias: alias) }?.code == .storageFull)
        fixture.stages.action.withLock { $0 = nil }
        #expect(registry.version(alias: alias, owner: "local") == nil)
        #expect(try publish(1, alias: alias).number == 1)
    }

    @Test func aliasesGoWithTheirVersions() throws {
        _ = try publish(1, alias: alias)
        _ = try publish(2, alias: alias + ":2")
        _ = try publish(3, alias: alias + ":3")
        try registry.delete("bot", number: 1, owner: "local")
        #expect(registry.version(alias: alias, owner: "local") == nil && registry.version(alias: alias + ":2", owner: "local") != nil)
        try registry.delete("bot", number: nil, owner: "local")
        #expect(registry.version(alias: alias + ":2", owner: "local") == nil)
        // The alias is free again, for a version of a new number.
        #expect(try publish(4, alias: alias).number == 4)
        try fixture.restart()
        #expect(registry.version(alias: alias, owner: "local")?.number == 4 && registry.version(alias: alias + ":3", owner: "local") == nil)
    }

    @Test(arguments: ["", "bot", "ft", "ft:a b", "ft:ä", "ft:a\nb", "ft:" + String(repeating: "x", count: 600)]) func refusesWhatIsNoAlias(_ alias: String) throws {
        #expect(RegistryFixture.refusal { _ = try publish(1, alias: alias) }?.code == .invalidName)
        #expect(registry.records(owner: "local").isEmpty)
    }

    @Test func theNumbersOfAVersion() throws {
        let content = RegistryFixture.content(seed: 3)
        let version = try publish(3, alias: alias)
        #expect(try registry.content(of: version).pairs == content.pairs && registry.content(of: version).digest == version.digest)
        try RegistryFixture.flipBit(fixture.path("local/bot/1", "adapter_model.safetensors"))
        #expect(RegistryFixture.refusal { _ = try registry.content(of: version) }?.code == .quarantined)
        #expect(registry.version(alias: alias, owner: "local")?.quarantine != nil)
        try registry.delete("bot", number: nil, owner: "local")
        #expect(RegistryFixture.refusal { _ = try registry.content(of: version) }?.code == .notFound)
    }
}
