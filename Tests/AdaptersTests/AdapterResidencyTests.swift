import Adapters
import Glibc
import Modeling
import Synchronization
import Testing

struct AdapterResidencyTests {
    /// Of one packed adapter; all that the fixture makes are equal in size.
    private static func packedBytes() throws -> Int {
        let fixture = try RegistryFixture()
        return try fixture.registry.load(fixture.publish("a")).byteCount
    }

    /// A registry with room for `count` adapters and the names a, b, c, … published.
    private func fixture(room count: Int, names: [String]) throws -> RegistryFixture {
        let fixture = try RegistryFixture(budgetBytes: try Self.packedBytes() * count)
        for (seed, name) in names.enumerated() { try fixture.publish(name, seed: seed) }
        try fixture.restart()
        return fixture
    }

    @Test func publishedIsResidentAndRestartedIsNot() throws {
        let fixture = try RegistryFixture()
        let version = try fixture.publish("a")
        #expect(fixture.resident == ["a@1"])
        let adapter = try #require(fixture.registry.resident(version))
        #expect(try fixture.registry.load(version) === adapter)
        #expect(fixture.stages.filesRead.load(ordering: .relaxed) == 0)
        try fixture.restart()
        #expect(fixture.resident.isEmpty && fixture.registry.resident(version) == nil)
        #expect(fixture.registry.statistics.loads == 0)
        let loaded = try fixture.registry.load(version)
        #expect(fixture.registry.resident(version) === loaded && loaded !== adapter)
        #expect(fixture.registry.statistics.loads == 1 && fixture.stages.filesRead.load(ordering: .relaxed) == 1)
        #expect(fixture.registry.statistics.resident.first?.byteCount == loaded.byteCount)
    }

    @Test func leastRecentlyUsedGoesFirst() throws {
        let fixture = try fixture(room: 3, names: ["a", "b", "c", "d", "e"])
        func load(_ name: String) throws { _ = try fixture.registry.load(try #require(fixture.resolve(name))) }
        for name in ["a", "b", "c"] { try load(name) }
        #expect(fixture.resident == ["a@1", "b@1", "c@1"])
        // A look-up and a load of what is there both count as uses: b is the oldest then.
        #expect(fixture.registry.resident(try #require(fixture.resolve("a"))) != nil)
        try load("c")
        try load("d")
        #expect(fixture.resident == ["a@1", "c@1", "d@1"])
        try load("e")
        #expect(fixture.resident == ["c@1", "d@1", "e@1"])
        let statistics = fixture.registry.statistics
        #expect(statistics.evictions == ["a": 1, "b": 1])
        #expect(statistics.loads == 5)
        #expect(statistics.budgetBytes == fixture.budgetBytes)
    }

    @Test func looksThatResolveDoNotCountAsUse() throws {
        let fixture = try fixture(room: 2, names: ["a", "b", "c"])
        for name in ["a", "b"] { _ = try fixture.registry.load(try #require(fixture.resolve(name))) }
        _ = fixture.resolve("a")
        _ = fixture.registry.records(owner: "local")
        _ = try fixture.registry.export(try #require(fixture.resolve("a")), as: .peft)
        _ = try fixture.registry.load(try #require(fixture.resolve("c")))
        #expect(fixture.resident == ["b@1", "c@1"])
    }

    @Test func pinnedNamesStay() throws {
        let fixture = try fixture(room: 2, names: ["a", "b", "c", "d"])
        func load(_ name: String) throws { _ = try fixture.registry.load(try #require(fixture.resolve(name))) }
        #expect(try fixture.registry.setPinned("a", true, owner: "local").isPinned)
        try load("a")
        for name in ["b", "c", "d", "b"] { try load(name) }
        #expect(fixture.resident == ["a@1", "b@1"])
        try fixture.restart()
        for name in ["a", "b", "c"] { try load(name) }
        #expect(fixture.resident == ["a@1", "c@1"])
        // Without its pin it is the oldest again.
        #expect(try fixture.registry.setPinned("a", false, owner: "local").isPinned == false)
        try load("d")
        #expect(fixture.resident == ["c@1", "d@1"])
    }

    /// A pin holds what the bare name stands for; older versions give their memory back.
    @Test func pinsHoldThePromotedVersionAndTheCanary() throws {
        let fixture = try fixture(room: 1, names: ["a"])
        func load(_ number: Int) throws { _ = try fixture.registry.load(try #require(fixture.resolve("a@\(number)"))) }
        _ = try fixture.registry.setPinned("a", true, owner: "local")
        try load(1)
        for seed in 2...4 {
            try fixture.publish("a", seed: seed)
            #expect(fixture.resident == ["a@\(seed)"])
        }
        let statistics = fixture.registry.statistics
        #expect(statistics.resident.reduce(0) { $0 + $1.byteCount } <= statistics.budgetBytes && statistics.evictions == ["a": 3])
        // A canary gets a part of the bare name's requests, so that both stay.
        try fixture.publish("a", seed: 5, promote: false)
        _ = try fixture.registry.promote("a", number: 5, share: 0.5, owner: "local")
        try load(4)
        try fixture.publish("b")
        #expect(fixture.resident == ["a@4", "a@5", "b@1"])
        try load(2)
        #expect(fixture.resident == ["a@2", "a@4", "a@5"])
        _ = try fixture.registry.rollback("a", owner: "local")
        #expect(fixture.resident == ["a@4"], "without its canary")
        _ = try fixture.registry.promote("a", number: 1, share: nil, owner: "local")
        try load(1)
        #expect(fixture.resident == ["a@1"])
    }

    @Test func pinsMayExceedTheBudgetUntilTheyEnd() throws {
        let fixture = try fixture(room: 1, names: ["a", "b", "c"])
        for name in ["a", "b", "c"] {
            _ = try fixture.registry.setPinned(name, true, owner: "local")
            _ = try fixture.registry.load(try #require(fixture.resolve(name)))
        }
        #expect(fixture.resident == ["a@1", "b@1", "c@1"])
        _ = try fixture.registry.setPinned("b", false, owner: "local")
        #expect(fixture.resident == ["a@1", "c@1"])
        _ = try fixture.registry.setPinned("c", false, owner: "local")
        #expect(fixture.resident == ["a@1"])
    }

    @Test func oneIsKeptWhateverTheBudget() throws {
        let fixture = try RegistryFixture(budgetBytes: 0)
        let first = try fixture.publish("a")
        let second = try fixture.publish("b", seed: 2)
        #expect(fixture.resident == ["b@1"])
        _ = try fixture.registry.load(first)
        #expect(fixture.resident == ["a@1"] && fixture.registry.resident(second) == nil)
    }

    @Test func deletedIsLetGoOfAndItsUsersKeepIt() throws {
        let fixture = try RegistryFixture()
        let version = try fixture.publish("a")
        var held: Adapter? = try fixture.registry.load(version)
        weak let seen = held
        try fixture.registry.delete("a", number: nil, owner: "local")
        #expect(fixture.resident.isEmpty)
        #expect(held?.digest == version.digest && seen != nil)
        held = nil
        #expect(seen == nil, "the last user frees it")
        #expect(RegistryFixture.refusal { _ = try fixture.registry.load(version) }?.code == .notFound)
        #expect(fixture.registry.resident(version) == nil)
    }

    @Test func republishedNameIsAnotherObject() throws {
        let fixture = try RegistryFixture()
        let first = try fixture.publish("a", seed: 1)
        let held = try fixture.registry.load(first)
        let second = try fixture.publish("a", seed: 2)
        #expect(try fixture.registry.load(try #require(fixture.resolve("a"))).digest == second.digest)
        #expect(held.digest == first.digest && held.version == 1)
        #expect(fixture.resident == ["a@1", "a@2"])
    }

    // MARK: Together

    private final class Work {
        let body: @Sendable () -> Void
        init(_ body: @escaping @Sendable () -> Void) { self.body = body }
    }

    /// Runs `body` on as many threads as asked for, all at once, and waits for them.
    private func onThreads(_ count: Int, _ body: @escaping @Sendable (Int) -> Void) {
        var threads = [pthread_t](repeating: 0, count: count)
        for index in threads.indices {
            let work = Unmanaged.passRetained(Work { body(index) })
            let status = pthread_create(
                &threads[index], nil,
                { argument in
                    if let argument { Unmanaged<Work>.fromOpaque(argument).takeRetainedValue().body() }
                    return nil
                }, work.toOpaque())
            precondition(status == 0, "a thread")
        }
        for thread in threads { pthread_join(thread, nil) }
    }

    @Test func concurrentLoadsShareOneReading() throws {
        let fixture = try fixture(room: 4, names: ["a", "b"])
        let versions = try ["a", "b"].map { try #require(fixture.resolve($0)) }
        let registry = fixture.registry
        let found = Mutex<[Int: Set<ObjectIdentifier>]>([:])
        // The first readers wait until all threads have been told to load.
        let started = Atomic<Int>(0)
        fixture.stages.action.withLock {
            $0 = { _ in
                while started.load(ordering: .acquiring) < 16 { sched_yield() }
            }
        }
        onThreads(16) { index in
            started.add(1, ordering: .releasing)
            guard let adapter = try? registry.load(versions[index % 2]) else { return }
            found.withLock { _ = $0[index % 2, default: []].insert(ObjectIdentifier(adapter)) }
        }
        #expect(found.withLock { $0.mapValues(\.count) } == [0: 1, 1: 1])
        #expect(registry.statistics.loads == 2)
        #expect(fixture.stages.filesRead.load(ordering: .relaxed) == 2)
    }

    @Test func failedLoadIsTriedAgain() throws {
        let fixture = try fixture(room: 1, names: ["a"])
        let version = try #require(fixture.resolve("a"))
        fixture.stages.action.withLock { $0 = { _ throws(AdapterError) in throw AdapterError(.storage, "the disk is tired") } }
        #expect(RegistryFixture.refusal { _ = try fixture.registry.load(version) }?.message == "the disk is tired")
        fixture.stages.action.withLock { $0 = nil }
        #expect(try fixture.registry.load(version).version == 1)
        #expect(fixture.resolve("a")?.quarantine == nil)
    }

    @Test func deletionWhileLoadingWins() throws {
        let fixture = try fixture(room: 1, names: ["a"])
        let version = try #require(fixture.resolve("a"))
        let registry = fixture.registry
        fixture.stages.action.withLock {
            $0 = { stage throws(AdapterError) in
                if stage == .filesRead { try registry.delete("a", number: nil, owner: "local") }
            }
        }
        #expect(RegistryFixture.refusal { _ = try registry.load(version) }?.code == .notFound)
        #expect(fixture.resident.isEmpty)
        fixture.stages.action.withLock { $0 = nil }
        #expect(try fixture.publish("a").number == 2)
    }

    @Test func changesAndLoadsFromManyThreadsAgree() throws {
        let fixture = try fixture(room: 2, names: ["a", "b", "c"])
        #expect(publishAndLoad(fixture.registry) == [])
        let before = fixture.registry.records(owner: "local")
        #expect(before.map { $0.versions.map(\.number) } == [Array(1...9), Array(1...9), Array(1...9)])
        #expect(fixture.resident.count == 2)
        try fixture.restart()
        #expect(fixture.registry.records(owner: "local") == before)
    }

    /// Two threads publish 24 versions of a, b and c while six load what the names stand for.
    /// - Returns: what went wrong.
    private func publishAndLoad(_ registry: AdapterRegistry) -> [String] {
        let problems = Mutex<[String]>([])
        onThreads(8) { index in
            for round in 0..<12 {
                let name = ["a", "b", "c"][(index + round) % 3]
                do {
                    if index < 2 {
                        let content = RegistryFixture.content(seed: index * 100 + round)
                        _ = try registry.publish(content, as: name, owner: "local", source: .peft, promote: true)
                    } else if let reference = AdapterReference(name), let version = registry.resolve(reference, owner: "local", stickyKey: nil) {
                        let adapter = try registry.load(version)
                        if adapter.digest != version.digest || adapter.version != version.number { problems.withLock { $0.append("\(name): mixed up") } }
                    }
                } catch {
                    problems.withLock { $0.append("\(error)") }
                }
            }
        }
        return problems.withLock { $0 }
    }
}
