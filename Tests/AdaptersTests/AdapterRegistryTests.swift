import Adapters
import FoundationEssentials
import Glibc
import InstructionStore
import Modeling
import Synchronization
import TestSupport
import Testing

struct AdapterRegistryTests {
    let fixture: RegistryFixture
    var registry: AdapterRegistry { fixture.registry }

    init() throws {
        fixture = try RegistryFixture()
    }

    private func refusal(_ body: () throws -> Void) -> AdapterError? { RegistryFixture.refusal(body) }

    private static let weights = "adapter_model.safetensors"
    private static let config = "adapter_config.json"

    // MARK: Publishing

    @Test func publishedVersionsAreListedAndServed() throws {
        let first = try fixture.publish("bot", seed: 1)
        let second = try fixture.publish("bot", seed: 2, promote: false, source: .job("ftjob-1"))
        #expect(first.number == 1 && second.number == 2 && first.digest != second.digest)
        #expect(first.digest.utf8.count == 64)
        #expect(first.rank == 2 && first.pairCount == 2 && first.createdAt == 1_700_000_000 && first.baseName == "tiny" && first.quarantine == nil)
        #expect(second.source == .job("ftjob-1"))
        let record = try #require(registry.record(named: "bot", owner: "local"))
        #expect(record.versions == [first, second])
        #expect(record.promoted == 1 && record.canary == nil && !record.isPinned)
        #expect(registry.record(id: record.id, owner: "local") == record)
        #expect(fixture.resolve("bot") == first)
        #expect(fixture.resolve("bot@1") == first)
        #expect(fixture.resolve("bot@2") == second)
        #expect(fixture.resolve("bot@latest") == second)
        #expect(fixture.resolve("bot@3") == nil)
        #expect(fixture.resolve("bo") == nil)
        let adapter = try registry.load(second)
        #expect(adapter.name == "bot" && adapter.version == 2 && adapter.digest == second.digest)
        #expect(try fixture.files() == fixture.expectedFiles(["local/bot/1", "local/bot/2"]))
    }

    @Test func restartServesWhatWasPublished() throws {
        try fixture.publish("bot", seed: 1)
        try fixture.publish("bot", seed: 2)
        try fixture.publish("bot", seed: 3, promote: false, source: .gguf)
        try fixture.publish("other", seed: 4, source: .job("j"))
        _ = try registry.promote("bot", number: 3, share: 0.25, owner: "local")
        _ = try registry.setPinned("other", true, owner: "local")
        let before = registry.records(owner: "local")
        let exported = try registry.export(try #require(fixture.resolve("bot@2")), as: .peft)
        try fixture.restart()
        #expect(registry.records(owner: "local") == before)
        #expect(before.map(\.name) == ["bot", "other"])
        for version in before.flatMap(\.versions) { #expect(try registry.load(version).digest == version.digest) }
        let again = try registry.export(try #require(fixture.resolve("bot@2")), as: .peft)
        #expect(exported.files.map(\.name) == [Self.config, Self.weights])
        #expect(again.files.map(\.bytes) == exported.files.map(\.bytes))
        // What a second restart would still know: the history of promotions.
        #expect(try registry.rollback("bot", owner: "local").canary == nil)
        #expect(try registry.rollback("bot", owner: "local").promoted == 1)
    }

    @Test func exportGivesTheFilesOfTheVersion() throws {
        let version = try fixture.publish("bot")
        let peft = try registry.export(version, as: .peft)
        for file in peft.files {
            #expect(try [UInt8](Data(contentsOf: URL(filePath: fixture.path("local/bot/1", file.name)))) == file.bytes)
        }
        #expect(peft.files.reduce(0) { $0 + $1.bytes.count } == version.byteCount)
        let gguf = try registry.export(version, as: .gguf)
        #expect(gguf.files.map(\.name) == ["bot.gguf"])
        #expect(gguf.files.first?.bytes.prefix(4) == Array("GGUF".utf8)[...])
    }

    /// A version that would make every request with it fail is not let in.
    @Test func overflowingContentIsRefused() throws {
        func publish(_ change: (inout LowRankPair) -> Void) -> AdapterError? {
            var content = RegistryFixture.content(seed: 1)
            change(&content.pairs[1])
            return refusal { _ = try registry.publish(content, as: "bot", owner: "local", source: .peft, promote: true) }
        }
        #expect(publish { $0.a[3] = 3e38 }?.code == .unreadable)
        #expect(
            publish {
                $0.a[3] = 1e25
                $0.b[5] = -1e25
            }?.code == .unsupported)
        #expect(try fixture.files().isEmpty)
    }

    @Test func namesInMessagesAreOneShortLine() throws {
        let name = "ft:\u{1B}[2J\n" + String(repeating: "x", count: 100_000)
        for attempt in [{ try fixture.publish(name) }, { try registry.delete(name, number: nil, owner: "local") },
            { _ = try registry.promote(name, number: nil, share: 7, owner: "local") },
        ] as [() throws -> Void] {
            let message = try #require(refusal(attempt)).message
            #expect(message.utf8.count < 400 && message.utf8.allSatisfy { $0 >= 32 }, "\(message.utf8.count) bytes")
        }
    }

    @Test func filesAreForThisUserAlone() throws {
        try fixture.publish("bot")
        for (path, expected) in [(fixture.path("local/bot/1", Self.weights), 0o600), (fixture.path("local", "bot"), 0o700), (fixture.directory, 0o700)] {
            var status = stat()
            #expect(stat(path, &status) == 0 && Int(status.st_mode & 0o777) == expected, "\(path)")
        }
    }

    @Test(arguments: ["", "default", "tiny", "other-model", "ft:x", "a b", "a/b", "..", ".", "ä", "a@1", String(repeating: "a", count: 65)])
    func refusesNamesThatMeanSomethingElse(name: String) throws {
        #expect(refusal { try fixture.publish(name) }?.code == .invalidName)
        #expect(registry.records(owner: "local").isEmpty)
        #expect(try fixture.files().isEmpty)
    }

    @Test(arguments: ["a", "A.b_c-D", ".hidden", "..a", "-rf", "1", "default1", String(repeating: "z", count: 64)])
    func takesOtherNames(name: String) throws {
        try fixture.publish(name)
        try fixture.restart()
        #expect(try registry.load(try #require(fixture.resolve(name))).name == name)
        try registry.delete(name, number: nil, owner: "local")
        #expect(try fixture.files().isEmpty)
    }

    @Test func refusesContentOfAnotherShape() throws {
        var content = RegistryFixture.content(seed: 1)
        func publish(_ content: AdapterContent) -> AdapterError? {
            refusal { _ = try registry.publish(content, as: "bot", owner: "local", source: .peft, promote: true) }
        }
        content.pairs[1].layer = RegistryFixture.configuration.layerCount
        #expect(publish(content)?.code == .wrongBase)
        content = RegistryFixture.content(seed: 1)
        content.pairs[0].a.removeLast()
        #expect(publish(content)?.code == .wrongBase)
        content = RegistryFixture.content(seed: 1)
        content.pairs[1].layer = 0
        #expect(publish(content)?.code == .invalidArgument)
        content.pairs = []
        #expect(publish(content)?.code == .invalidArgument)
        content = RegistryFixture.content(seed: 1)
        content.pairs[0].rank = Adapter.maximumRank + 1
        #expect(publish(content)?.code == .unsupported)
        content = RegistryFixture.content(seed: 1)
        content.pairs[0].b[3] = .nan
        #expect(publish(content) != nil)
        #expect(try fixture.files().isEmpty)
        #expect(try fixture.publish("bot").number == 1)
    }

    @Test func fullDiskLeavesNothingBehind() throws {
        let first = try fixture.publish("bot")
        fixture.store.injectFault(resultCode: 13)
        #expect(refusal { try fixture.publish("bot", seed: 2) }?.code == .storageFull)
        #expect(refusal { _ = try registry.promote("bot", number: nil, share: nil, owner: "local") }?.code == .storageFull)
        #expect(refusal { try registry.delete("bot", number: nil, owner: "local") }?.code == .storageFull)
        #expect(registry.record(named: "bot", owner: "local")?.versions == [first])
        #expect(try fixture.files() == fixture.expectedFiles(["local/bot/1"]))
        #expect(try registry.load(first).version == 1)
        fixture.store.injectFault(resultCode: nil)
        #expect(try fixture.publish("bot", seed: 2).number == 2)
    }

    @Test func unconfirmedCommitKeepsTheFilesUntilTheNextStartDecides() throws {
        try fixture.publish("bot")
        fixture.store.injectFault(resultCode: 10 | 4 << 8)
        #expect(refusal { try fixture.publish("bot", seed: 2) }?.code == .storage)
        #expect(registry.record(named: "bot", owner: "local")?.versions.count == 1)
        #expect(try fixture.files() == fixture.expectedFiles(["local/bot/1", "local/bot/2"]))
        try fixture.restart()
        #expect(try fixture.files() == fixture.expectedFiles(["local/bot/1"]))
        #expect(try fixture.publish("bot", seed: 2).number == 2)
    }

    // MARK: Interruptions

    static let publishing: [AdapterRegistry.Stage] = [.written, .synced, .parentsMade, .renamed, .parentsSynced, .verified]

    @Test(arguments: publishing)
    func failedPublicationLeavesTheOldState(stage: AdapterRegistry.Stage) throws {
        let first = try fixture.publish("bot")
        fixture.stages.action.withLock {
            $0 = { reached throws(AdapterError) in if reached == stage { throw AdapterError(.storageFull, "no room at \(stage)") } }
        }
        for name in ["bot", "new"] {
            #expect(refusal { try fixture.publish(name, seed: 2) } == AdapterError(.storageFull, "no room at \(stage)"))
        }
        #expect(try fixture.files() == fixture.expectedFiles(["local/bot/1"]))
        #expect(registry.records(owner: "local").map(\.versions) == [[first]])
        #expect(fixture.resolve("bot") == first)
        fixture.stages.action.withLock { $0 = nil }
        #expect(try fixture.publish("bot", seed: 2).number == 2)
        #expect(try fixture.publish("new", seed: 2).number == 1)
    }

    /// Copies all folders at a stage, as a process that dies there would leave them, and opens the copy.
    private func copy(at stage: AdapterRegistry.Stage, during body: () throws -> Void) throws -> RegistryFixture {
        let copy = try TemporaryFolder()
        let original = fixture.folder.path
        let copies = Mutex(0)
        fixture.stages.action.withLock {
            $0 = { reached throws(AdapterError) in
                guard reached == stage else { return }
                for part in ["data", "adapters"] {
                    do {
                        try FileManager.default.copyItem(atPath: "\(original)/\(part)", toPath: "\(copy.path)/\(part)")
                    } catch {
                        throw AdapterError(.storage, "\(error)")
                    }
                }
                copies.withLock { $0 += 1 }
            }
        }
        try body()
        fixture.stages.action.withLock { $0 = nil }
        #expect(copies.withLock { $0 } == 1)
        return try RegistryFixture(folder: copy)
    }

    @Test(arguments: publishing, ["bot", "new"])
    func deathWhilePublishingLeavesTheOldState(stage: AdapterRegistry.Stage, name: String) throws {
        let first = try fixture.publish("bot")
        let restarted = try copy(at: stage) { try fixture.publish(name, seed: 2) }
        #expect(restarted.registry.records(owner: "local").map(\.versions) == [[first]])
        #expect(try restarted.files() == restarted.expectedFiles(["local/bot/1"]))
        #expect(try restarted.registry.load(first).digest == first.digest)
        // Nobody saw the number, so the next one may have it.
        #expect(try restarted.publish(name, seed: 3).number == (name == "bot" ? 2 : 1))
    }

    @Test func deathAfterTheCommitKeepsTheVersion() throws {
        try fixture.publish("bot")
        let restarted = try copy(at: .committed) { try fixture.publish("bot", seed: 2) }
        let version = try #require(restarted.resolve("bot"))
        #expect(version.number == 2)
        #expect(try restarted.registry.load(version).version == 2)
    }

    @Test(arguments: [nil, 1] as [Int?])
    func deathWhileDeletingLeavesNoFiles(number: Int?) throws {
        try fixture.publish("bot")
        try fixture.publish("bot", seed: 2)
        let restarted = try copy(at: .rowsDeleted) { try registry.delete("bot", number: number, owner: "local") }
        #expect(restarted.registry.records(owner: "local").flatMap(\.versions).map(\.number) == (number == nil ? [] : [2]))
        #expect(try restarted.files() == restarted.expectedFiles(number == nil ? [] : ["local/bot/2"]))
    }

    @Test func leftoversGoAndForeignFilesStay() throws {
        try fixture.publish("bot")
        let kept = ["README.md", "local/notes.txt", "local/bot/notes/x", "local/bot/7/mine.txt"]
        try fixture.restart {
            for file in kept + [".tmp-1/adapter_config.json", ".tmp-2", "local/bot/9/\(Self.weights)", "local/gone/1/\(Self.config)"] {
                let url = URL(filePath: "\(fixture.directory)/\(file)")
                try FileManager.default.createDirectory(at: url.deletingLastPathComponent(), withIntermediateDirectories: true)
                try Data("x".utf8).write(to: url)
            }
        }
        let expected = fixture.expectedFiles(["local/bot/1"]) + kept + ["local/bot/notes/", "local/bot/7/"]
        #expect(try fixture.files().sorted() == expected.sorted())
        #expect(fixture.resolve("bot")?.quarantine == nil)
        // Foreign files where a version belongs are neither removed nor published over.
        for seed in 2...6 { try fixture.publish("bot", seed: seed) }
        #expect(refusal { try fixture.publish("bot", seed: 7) }?.code == .conflict)
        #expect(FileManager.default.fileExists(atPath: fixture.path("local/bot/7", "mine.txt")))
        #expect(try fixture.files().contains { $0.hasPrefix(".tmp-") } == false)
    }

    @Test func adaptersOfAnotherStoreAreNotTouched() throws {
        try fixture.publish("bot")
        let before = try fixture.files()
        try fixture.restart {
            for _ in 1...2 {
                let error = try refusalOfAnotherStore()
                #expect(error?.code == .conflict && error?.message.contains("local/bot/1") == true)
                #expect(error?.message.contains("GRAFT_ADAPTERS_DIRECTORY") == true)
            }
            #expect(try fixture.files() == before)
        }
        #expect(fixture.resolve("bot")?.quarantine == nil)
    }

    /// Opens the directory for another data directory, and closes it again.
    private func refusalOfAnotherStore() throws -> AdapterError? {
        let other = try InstructionStore(directory: DataDirectory(path: "\(fixture.folder.path)/other"))
        return refusal { _ = try AdapterRegistry(directory: fixture.directory, store: other, base: fixture.base, budgetBytes: 1, reservedNames: []) }
    }

    /// From before the first version on, when the marker alone would not yet keep others out.
    @Test func theDirectoryHasOneUserAtATime() throws {
        for published in 0...1 {
            if published == 1 { try fixture.publish("bot") }
            let error = try refusalOfAnotherStore()
            #expect(error?.code == .conflict, "\(published) versions")
            #expect(error?.message.contains(fixture.directory) == true && error?.message.contains("GRAFT_ADAPTERS_DIRECTORY") == true)
        }
        let files = try fixture.files()
        try fixture.restart()
        #expect(try fixture.files() == files)
        #expect(try registry.load(try #require(fixture.resolve("bot"))).version == 1)
    }

    @Test func anEmptyDirectoryPassesOn() throws {
        try fixture.publish("bot")
        try registry.delete("bot", number: nil, owner: "local")
        var error: AdapterError?
        try fixture.restart { error = try refusalOfAnotherStore() }
        #expect(error == nil)
        #expect(try fixture.publish("bot").number == 2)
    }

    /// Whatever lies where a version belongs may be somebody's, even if it looks like a version, or is empty.
    @Test(arguments: [[weights, config], [weights], []]) func publishedFoldersAreNeverReplaced(names: [String]) throws {
        let first = try fixture.publish("bot")
        let folder = "\(fixture.directory)/local/bot/2"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        for name in names { try Data("of \(name)".utf8).write(to: URL(filePath: "\(folder)/\(name)")) }
        let before = try fixture.files()
        let error = refusal { try fixture.publish("bot", seed: 2) }
        #expect(error?.code == .conflict && error?.message.contains("local/bot/2") == true)
        #expect(error?.message.contains(fixture.folder.path) == false, "clients read it")
        #expect(try fixture.files() == before)
        for name in names { #expect(try Data(contentsOf: URL(filePath: "\(folder)/\(name)")) == Data("of \(name)".utf8)) }
        #expect(registry.record(named: "bot", owner: "local")?.versions == [first])
        // No row knows it, so the next start takes it for what an interrupted publication left.
        try fixture.restart()
        #expect(try fixture.publish("bot", seed: 2).number == 2)
    }

    @Test(arguments: ["folder", "link"]) func aMarkerThatIsNoFileIsRefused(kind: String) throws {
        let folder = try TemporaryFolder(), marker = "\(folder.path)/adapters/.graft-adapters"
        try FileManager.default.createDirectory(atPath: "\(folder.path)/adapters", withIntermediateDirectories: true)
        if kind == "folder" {
            try FileManager.default.createDirectory(atPath: marker, withIntermediateDirectories: true)
        } else {
            try FileManager.default.createSymbolicLink(atPath: marker, withDestinationPath: "\(folder.path)/elsewhere")
        }
        let error = refusal { _ = try RegistryFixture(folder: folder) }
        #expect(error?.code == .storage && error?.message.contains(marker) == true)
        #expect(!FileManager.default.fileExists(atPath: "\(folder.path)/elsewhere"))
    }

    @Test func versionsWithoutAMarkAreNobodys() throws {
        let folder = try TemporaryFolder()
        let path = "\(folder.path)/adapters/local/bot/1"
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        try Data("x".utf8).write(to: URL(filePath: "\(path)/\(Self.weights)"))
        #expect(refusal { _ = try RegistryFixture(folder: folder) }?.code == .conflict)
        #expect(FileManager.default.fileExists(atPath: "\(path)/\(Self.weights)"))
    }

    // MARK: Damage

    @Test(arguments: [weights, config])
    func missingFileIsFoundAtTheStart(file: String) throws {
        try fixture.publish("bot")
        try fixture.publish("other", seed: 2)
        try fixture.restart { try FileManager.default.removeItem(atPath: fixture.path("local/bot/1", file)) }
        let version = try #require(fixture.resolve("bot"))
        #expect(version.quarantine == "local/bot/1/\(file): is missing", "relative, since clients read it")
        let error = refusal { _ = try registry.load(version) }
        #expect(error?.code == .quarantined && error?.message.contains("bot@1") == true && error?.message.contains(file) == true)
        #expect(try fixture.store.adapterVersions().map { $0.quarantine != nil } == [true, false])
        #expect(try registry.load(try #require(fixture.resolve("other"))).name == "other")
    }

    @Test func shortFileIsFoundAtTheStart() throws {
        try fixture.publish("bot")
        try fixture.restart { try RegistryFixture.truncate(fixture.path("local/bot/1", Self.weights)) }
        #expect(fixture.resolve("bot")?.quarantine?.contains("expected") == true)
        #expect(refusal { _ = try registry.export(try #require(fixture.resolve("bot")), as: .peft) }?.code == .quarantined)
    }

    @Test func changedBytesAreFoundWhenTheyAreLoaded() throws {
        let damaged = try fixture.publish("bot")
        let whole = try fixture.publish("other", seed: 2)
        try fixture.restart { try RegistryFixture.flipBit(fixture.path("local/bot/1", Self.weights)) }
        #expect(fixture.resolve("bot")?.quarantine == nil, "sizes are as they were")
        for _ in 1...2 {
            let error = refusal { _ = try registry.load(damaged) }
            #expect(error?.code == .quarantined && error?.message.contains("local/bot/1") == true)
            #expect(error?.message.contains(fixture.folder.path) == false, "clients read it")
        }
        #expect(fixture.resolve("bot")?.quarantine != nil)
        #expect(fixture.resident.isEmpty)
        #expect(try registry.load(whole).name == "other")
        try fixture.restart()
        #expect(fixture.resolve("bot")?.quarantine != nil, "the row remembers")
        // The way out: a new version, then the damaged one can go.
        #expect(try fixture.publish("bot").number == 2)
        try registry.delete("bot", number: 1, owner: "local")
        #expect(fixture.resolve("bot")?.quarantine == nil)
    }

    /// The configuration still has its size, and is no JSON any more.
    @Test func reasonsNameFilesInsideOfTheDirectory() throws {
        let version = try fixture.publish("bot")
        let path = fixture.path("local/bot/1", Self.config)
        try fixture.restart {
            let size = try Data(contentsOf: URL(filePath: path)).count
            try Data(repeating: UInt8(ascii: "x"), count: size).write(to: URL(filePath: path))
        }
        #expect(refusal { _ = try registry.load(version) }?.code == .quarantined)
        let reason = try #require(fixture.resolve("bot")?.quarantine)
        #expect(reason.hasPrefix("local/bot/1: adapter_config.json: "))
        // What is noted is looked at anew at every start, so a note with a path goes, too.
        let id = try #require(registry.record(named: "bot", owner: "local")).id
        try fixture.store.setAdapterQuarantine(id: id, number: 1, "\(path): is broken")
        try fixture.restart()
        #expect(fixture.resolve("bot")?.quarantine == reason)
        #expect(try fixture.store.adapterVersions().map(\.quarantine) == [reason])
    }

    /// That is the disk's fault and the operator's to read, with the whole path.
    @Test func damageRightAfterWritingIsTheDisks() throws {
        let path = fixture.path("local/bot/1", Self.weights)
        fixture.stages.action.withLock {
            $0 = { stage throws(AdapterError) in
                guard stage == .parentsSynced else { return }
                do { try RegistryFixture.truncate(path) } catch { throw AdapterError(.conflict, "\(error)") }
            }
        }
        let error = refusal { try fixture.publish("bot") }
        #expect(error?.code == .storage && error?.message.hasPrefix("\(path): found ") == true)
        #expect(try fixture.files().isEmpty)
    }

    @Test func restoredFilesAreServedAgain() throws {
        let version = try fixture.publish("bot")
        let path = fixture.path("local/bot/1", Self.weights)
        let original = try Data(contentsOf: URL(filePath: path))
        try fixture.restart { try RegistryFixture.flipBit(path) }
        #expect(refusal { _ = try registry.load(version) }?.code == .quarantined)
        try fixture.restart { try original.write(to: URL(filePath: path)) }
        #expect(fixture.resolve("bot") == version)
        #expect(try registry.load(version).digest == version.digest)
        #expect(try fixture.store.adapterVersions().map(\.quarantine) == [nil])
    }

    @Test func quarantinedVersionsAreNotPromoted() throws {
        try fixture.publish("bot")
        try fixture.publish("bot", seed: 2)
        try fixture.restart { try RegistryFixture.truncate(fixture.path("local/bot/1", Self.weights)) }
        #expect(refusal { _ = try registry.promote("bot", number: 1, share: nil, owner: "local") }?.code == .quarantined)
        #expect(refusal { _ = try registry.promote("bot", number: 1, share: 0.5, owner: "local") }?.code == .quarantined)
        #expect(refusal { _ = try registry.rollback("bot", owner: "local") }?.code == .quarantined)
        #expect(fixture.resolve("bot")?.number == 2)
    }

    @Test func otherBaseIsListedAndNotLoaded() throws {
        let version = try fixture.publish("bot")
        fixture.base.digest = String(repeating: "2", count: 64)
        fixture.base.name = "tiny-2"
        try fixture.restart()
        #expect(fixture.resolve("bot") == version)
        for attempt in [{ _ = try registry.load(version) }, { _ = try registry.export(version, as: .peft) }] as [() throws -> Void] {
            let error = refusal(attempt)
            #expect(error?.code == .wrongBase && error?.message.contains("tiny ") == true && error?.message.contains("tiny-2") == true)
        }
        #expect(refusal { _ = try registry.promote("bot", number: 1, share: nil, owner: "local") }?.code == .wrongBase)
        #expect(try fixture.publish("bot").number == 2)
        #expect(try registry.load(try #require(fixture.resolve("bot"))).version == 2)
        #expect(try fixture.store.adapterVersions().map(\.quarantine) == [nil, nil])
    }

    // MARK: Promotion and deletion

    @Test func rollbackEndsTheCanaryThenGoesBack() throws {
        for seed in 1...3 { try fixture.publish("bot", seed: seed, promote: seed < 3) }
        let record = try registry.promote("bot", number: nil, share: 0.5, owner: "local")
        #expect(record.promoted == 2 && record.canary == AdapterCanary(number: 3, share: 0.5))
        #expect(try registry.rollback("bot", owner: "local").canary == nil)
        #expect(registry.record(named: "bot", owner: "local")?.promoted == 2)
        #expect(try registry.rollback("bot", owner: "local").promoted == 1)
        #expect(refusal { _ = try registry.rollback("bot", owner: "local") }?.code == .conflict)
        #expect(try registry.promote("bot", number: nil, share: 1, owner: "local").promoted == 3)
        #expect(refusal { _ = try registry.rollback("new", owner: "local") }?.code == .notFound)
    }

    @Test func sharesOutOfRangeAndUnknownNumbersAreRefused() throws {
        for seed in 1...2 { try fixture.publish("bot", seed: seed) }
        for share in [-0.1, 1.1, .nan, .infinity] {
            #expect(refusal { _ = try registry.promote("bot", number: 1, share: share, owner: "local") }?.code == .invalidArgument, "\(share)")
        }
        #expect(refusal { _ = try registry.promote("bot", number: 3, share: nil, owner: "local") }?.code == .notFound)
        #expect(refusal { _ = try registry.promote("new", number: nil, share: nil, owner: "local") }?.code == .notFound)
        #expect(refusal { _ = try registry.promote("bot", number: 2, share: 0.5, owner: "local") }?.code == .conflict)
        #expect(try registry.promote("bot", number: nil, share: 0, owner: "local").canary == nil)
    }

    @Test func promotedVersionGoesOnlyWithTheName() throws {
        for seed in 1...3 { try fixture.publish("bot", seed: seed) }
        let error = refusal { try registry.delete("bot", number: 3, owner: "local") }
        #expect(error?.code == .conflict && error?.message.contains("promote another") == true)
        #expect(refusal { try registry.delete("bot", number: 4, owner: "local") }?.code == .notFound)
        try registry.delete("bot", number: 1, owner: "local")
        #expect(registry.record(named: "bot", owner: "local")?.versions.map(\.number) == [2, 3])
        #expect(try fixture.files() == fixture.expectedFiles(["local/bot/2", "local/bot/3"]))
        try registry.delete("bot", number: nil, owner: "local")
        #expect(registry.records(owner: "local").isEmpty)
        #expect(try fixture.files().isEmpty)
        #expect(refusal { try registry.delete("bot", number: nil, owner: "local") }?.code == .notFound)
    }

    @Test func lastVersionTakesTheNameAlong() throws {
        try fixture.publish("bot")
        #expect(refusal { try registry.delete("bot", number: 2, owner: "local") }?.code == .notFound)
        try registry.delete("bot", number: 1, owner: "local")
        #expect(registry.record(named: "bot", owner: "local") == nil)
        #expect(try fixture.files().isEmpty)
    }

    @Test func numbersAndIdsAreNeverReused() throws {
        var ids: [Int] = []
        for expected in 1...4 {
            #expect(try fixture.publish("bot").number == expected)
            ids.append(try #require(registry.record(named: "bot", owner: "local")).id)
            try registry.delete("bot", number: nil, owner: "local")
            if expected == 2 { try fixture.restart() }
        }
        #expect(Set(ids).count == 4 && ids == ids.sorted())
        #expect(registry.record(id: ids[0], owner: "local") == nil)
    }

    @Test func manyCyclesLeaveNoFiles() throws {
        for cycle in 1...200 {
            #expect(try fixture.publish("bot\(cycle % 3)", seed: cycle).number == (cycle + 2) / 3)
            try registry.delete("bot\(cycle % 3)", number: nil, owner: "local")
        }
        #expect(try fixture.files().isEmpty)
        #expect(fixture.resident.isEmpty)
        #expect(try fixture.store.adapterVersions().isEmpty)
    }

    // MARK: Owners

    @Test func anotherOwnerSeesNothing() throws {
        try fixture.store.addOwner("alice", at: 0)
        let mine = try fixture.publish("bot")
        let id = try #require(registry.record(named: "bot", owner: "local")).id
        #expect(registry.records(owner: "alice").isEmpty)
        #expect(registry.record(named: "bot", owner: "alice") == nil)
        #expect(registry.record(id: id, owner: "alice") == nil)
        #expect(fixture.resolve("bot", owner: "alice") == nil && fixture.resolve("bot@1", owner: "alice") == nil)
        let attempts: [() throws -> Void] = [
            { _ = try registry.promote("bot", number: 1, share: nil, owner: "alice") }, { _ = try registry.rollback("bot", owner: "alice") },
            { try registry.delete("bot", number: nil, owner: "alice") }, { _ = try registry.setPinned("bot", true, owner: "alice") },
        ]
        for attempt in attempts {
            let error = refusal(attempt)
            #expect(error?.code == .notFound)
            // Word for word what an absent name gives.
            #expect(error?.message == refusal { try registry.delete("bot", number: nil, owner: "nobody") }?.message)
        }
        // The same name is another adapter for her.
        let hers = try fixture.publish("bot", seed: 2, owner: "alice")
        #expect(hers.number == 1 && hers.digest != mine.digest)
        #expect(fixture.resolve("bot") == mine && fixture.resolve("bot", owner: "alice") == hers)
        try registry.delete("bot", number: nil, owner: "alice")
        #expect(try registry.load(mine).digest == mine.digest)
        #expect(refusal { _ = try registry.load(hers) }?.code == .notFound)
    }

    @Test func publishingNeedsAnOwnerThatExists() throws {
        #expect(refusal { try fixture.publish("bot", owner: "nobody") }?.code == .notFound)
        #expect(refusal { try fixture.publish("bot", owner: "../x") }?.code == .notFound)
        #expect(try fixture.files().isEmpty)
    }
}
