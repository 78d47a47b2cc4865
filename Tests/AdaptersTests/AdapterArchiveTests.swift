import Adapters
import FoundationEssentials
import Testing

@Suite struct AdapterArchiveTests {
    private let config = Array("{}".utf8), weights = (0..<700).map { UInt8($0 % 251) }

    private func file(_ name: String, _ bytes: [UInt8]) -> ExportedAdapter.File { .init(name: name, bytes: bytes) }

    private var both: [ExportedAdapter.File] { [file("adapter_config.json", config), file("adapter_model.safetensors", weights)] }

    /// One header and its content, as `AdapterArchive` writes them, with bytes of the header changed and its checksum made right again.
    private func entry(_ name: String, _ bytes: [UInt8] = [], kind: Character = "0", _ change: (inout [UInt8]) -> Void = { _ in }) -> [UInt8] {
        var entry = Array(AdapterArchive.write([file(name, bytes)]).dropLast(1024))
        entry[156] = kind.asciiValue ?? 0
        change(&entry)
        var sum = 8 * 32
        for index in 0..<512 where !(148..<156).contains(index) { sum += Int(entry[index]) }
        let digits = String(sum, radix: 8)
        entry.replaceSubrange(148..<156, with: Array((String(repeating: "0", count: 6 - digits.count) + digits + "\0 ").utf8))
        return entry
    }

    private func archive(_ entries: [UInt8]..., end: Int = 1024) -> [UInt8] { entries.flatMap { $0 } + [UInt8](repeating: 0, count: end) }

    private func expect(_ code: AdapterError.Code, _ words: String..., from bytes: [UInt8], sourceLocation: SourceLocation = #_sourceLocation) {
        for word in words {
            expectRefusal(code, word, sourceLocation: sourceLocation) { () throws(AdapterError) in _ = try AdapterArchive.read(bytes) }
        }
    }

    private var files: [UInt8] { entry("adapter_config.json", config) + entry("adapter_model.safetensors", weights) }

    @Test func whatIsWrittenIsRead() throws {
        let written = AdapterArchive.write(both)
        #expect(written.count % 512 == 0 && written == AdapterArchive.write(both))
        let found = try AdapterArchive.read(written)
        #expect(found.config == config && found.weights == weights)
        #expect(try AdapterArchive.read(archive(files)).weights == weights)
        let empty = try AdapterArchive.read(AdapterArchive.write([file("adapter_model.safetensors", []), file("adapter_config.json", [])]))
        #expect(empty.config.isEmpty && empty.weights.isEmpty)
    }

    /// A header byte by byte, against the format's own table.
    @Test func headersAreUstar() {
        let header = AdapterArchive.write([file("a.txt", [1, 2, 3])]).prefix(512)
        #expect(String(decoding: header[0..<6], as: UTF8.self) == "a.txt\0")
        #expect(String(decoding: header[100..<108], as: UTF8.self) == "0000644\0")
        #expect(String(decoding: header[124..<136], as: UTF8.self) == "00000000003\0")
        #expect(String(decoding: header[136..<148], as: UTF8.self) == "00000000000\0")
        #expect(String(decoding: header[257..<265], as: UTF8.self) == "ustar\u{0}00")
    }

    @Test(arguments: ["", "./", "my-adapter/", "./my-adapter/"]) func oneFolderIsAllowed(folder: String) throws {
        let bytes = archive(
            folder.isEmpty ? [] : entry(folder, kind: "5"), entry(folder + "README.md", [1]), entry(folder + "adapter_config.json", config),
            entry(folder + "adapter_model.safetensors", weights), entry(folder + "checkpoint/adapter_config.json.old", [2]), end: 10240)
        let found = try AdapterArchive.read(bytes)
        #expect(found.config == config && found.weights == weights)
    }

    /// GNU tar's own magic, the old form of a regular file, a prefix, extended headers with times.
    @Test func dialectsAreRead() throws {
        func gnu(_ entry: inout [UInt8]) { entry.replaceSubrange(257..<265, with: Array("ustar  \0".utf8)) }
        let mtime = Array("29 mtime=1700000000.12345678\n".utf8)
        let bytes = archive(
            entry("pax_global_header", mtime, kind: "g"), entry("PaxHeaders/x", mtime, kind: "x"), entry("adapter_config.json", config, gnu),
            entry("adapter_model.safetensors", weights) { header in
                header[156] = 0
                header.replaceSubrange(345..<348, with: Array("sub".utf8))
            })
        expect(.unreadable, "two folders", from: bytes)
        let same = archive(
            entry("PaxHeaders/x", mtime, kind: "x"), entry("sub/adapter_config.json", config, gnu),
            entry("adapter_model.safetensors", weights) { header in
                header[156] = 0
                header.replaceSubrange(345..<348, with: Array("sub".utf8))
            })
        #expect(try AdapterArchive.read(same).weights == weights)
    }

    @Test(arguments: [
        "../adapter_config.json", "a/../adapter_config.json", "/adapter_config.json", "a//adapter_config.json", "a/./b", "a\\b", "a\nb", "..", "",
    ])
    func unsafeNamesAreRefused(name: String) {
        expect(
            .unreadable, "plain relative path",
            from: archive(
                files,
                entry("x") { header in
                    header.replaceSubrange(0..<100, with: Array(name.utf8) + [UInt8](repeating: 0, count: 100 - name.utf8.count))
                }))
    }

    @Test func aNULInsideANameIsRefused() {
        expect(.unreadable, "NUL", from: archive(files, entry("x") { $0.replaceSubrange(0..<4, with: [97, 0, 98, 0]) }))
    }

    @Test(
        arguments: [
            ("1", "link"), ("2", "link"), ("3", "device"), ("4", "device"), ("6", "pipe"), ("7", "type 55"), ("L", "long name"), ("K", "long name"),
            ("S", "type 83"),
        ] as [(Character, String)])
    func otherEntriesAreRefused(kind: Character, word: String) {
        expect(.unsupported, word, "'other'", from: archive(files, entry("other", kind: kind)))
    }

    @Test(arguments: ["20 path=../../etc/x\n", "18 linkpath=/a/b.c\n", "11 size=12\n", "26 GNU.sparse.realsize=512\n"]) func extensionsThatRenameAreRefused(
        record: String
    ) {
        expect(.unsupported, "extended header", from: archive(entry("x", Array(record.utf8), kind: "x"), files))
    }

    @Test(arguments: ["x", "99 a=b\n", " a=b\n", "-1 a=b\n", "0 \n", "2 a", "99999999999999999999 a=b\n"]) func malformedExtensionsAreRefused(record: String) {
        expect(.unreadable, "malformed extended header", from: archive(entry("x", Array(record.utf8), kind: "x"), files))
    }

    @Test func whatIsMissingIsNamed() {
        expect(.unreadable, "no adapter_model.safetensors", from: archive(entry("adapter_config.json", config)))
        expect(.unreadable, "no adapter_config.json", from: archive(entry("adapter_model.safetensors", weights)))
        expect(.unsupported, "adapter_model.bin", "pickle", from: archive(entry("adapter_config.json", config), entry("adapter_model.bin", weights)))
        expect(
            .unreadable, "no adapter_model.safetensors",
            from: archive(entry("a/b/adapter_config.json", config), entry("a/b/adapter_model.safetensors", weights)))
        expect(.unreadable, "'b/adapter_config.json'", "expected one", from: archive(files, entry("b/adapter_config.json", config)))
        expect(.unreadable, "no adapter_model.safetensors", from: archive())
    }

    @Test func entriesAreCounted() throws {
        let more = (0..<15).map { entry("file\($0)") }
        #expect(try AdapterArchive.read(archive(files, more[..<14].flatMap { $0 })).config == config)
        expect(.unreadable, "more than 16", from: archive(files, more.flatMap { $0 }))
        expect(.unreadable, "more than 16", from: archive((0..<33).flatMap { _ in entry("g", kind: "g") }, files))
    }

    @Test func damageIsRefused() {
        let whole = archive(files)
        for length in 0..<whole.count - 1024 where length % 37 == 0 || length % 512 == 0 {
            expect(.unreadable, "archive", from: Array(whole[..<length]))
        }
        for index in [0, 20, 99, 100, 130, 150, 156, 200, 300, 400, 511] {
            var damaged = whole
            damaged[index] ^= 0x11
            expect(.unreadable, "archive", from: damaged)
        }
        expect(.unreadable, "behind its end mark", from: whole + entry("more"))
        expect(.unreadable, "size of", from: archive(entry("adapter_config.json", config) { $0[124] = 0x80 }))
        expect(
            .unreadable, "bytes, but", from: archive(entry("adapter_config.json", config) { $0.replaceSubrange(124..<136, with: Array("777777777777".utf8)) }))
        expect(.unreadable, "directory", from: archive(entry("d/", [1], kind: "5"), files))
    }

    @Test(
        arguments: [
            ([0x1F, 0x8B, 8, 0], "gzip"), ([0x50, 0x4B, 3, 4], "zip"), ([0x28, 0xB5, 0x2F, 0xFD], "zstd"), ([0xFD, 0x37, 0x7A, 0x58], "xz"),
            ([0x42, 0x5A, 0x68, 0x39], "bzip2"),
        ] as [([UInt8], String)])
    func compressedArchivesAreRefused(magic: [UInt8], name: String) {
        expect(.unreadable, name, from: magic + [UInt8](repeating: 7, count: 1024))
    }
}

@Suite struct AdapterContentTests {
    @Test func theDigestIsOfTheNumbersAlone() throws {
        let base = try tinyBase("qwen3"), content = randomContent(base, storage: .bfloat16)
        #expect(content.digest.count == 64)
        var other = content
        other.storage = .float32
        other.baseModelName = nil
        other.pairs.reverse()
        #expect(other.digest == content.digest)
        func changed(_ change: (inout AdapterContent) -> Void) -> String {
            var other = content
            change(&other)
            return other.digest
        }
        let digests = [
            content.digest, changed { $0.pairs[0].a[5] = 9 }, changed { $0.pairs[0].b[5] = 9 }, changed { $0.pairs[0].scale = 1 },
            changed { $0.pairs[0].layer = 1 },
            changed { $0.pairs[0].projection = .down }, changed { $0.pairs.removeLast() }, changed { $0.pairs[0].a = content.pairs[7].a },
            changed { $0.pairs[0].rank = 2 },
        ]
        #expect(Set(digests).count == digests.count)
    }

    /// Pinned, because digests are kept on disk. The bytes are those that the documentation of `digest` lists, hashed with Python's hashlib.
    @Test func theDigestIsStable() {
        let content = AdapterContent(
            pairs: [.init(layer: 1, projection: .o, scale: 0.5, rank: 1, a: [1, -2], b: [3, 4, 0.25])], storage: .float32, baseModelName: nil)
        #expect(content.digest == "d7ec9a738c2a19021c728a41c3ac5ff9440244089ae743ab7589196b4797bc18")
    }

    @Test func filesAreToldApartByTheirBytes() throws {
        let base = try tinyBase("llama"), content = randomContent(base)
        let peft = PEFTAdapter.write(content, base: base, baseModelName: "b"), gguf = GGUFAdapter.write(content, base: base, name: "n")
        func file(_ bytes: [UInt8]) -> ExportedAdapter.File { .init(name: "blob", bytes: bytes) }
        let archive = AdapterArchive.write([
            .init(name: "adapter_config.json", bytes: peft.config), .init(name: "adapter_model.safetensors", bytes: peft.weights),
        ])
        for (files, source) in [
            ([file(peft.config), file(peft.weights)], AdapterSource.peft), ([file(peft.weights), file(peft.config)], .peft), ([file(gguf)], .gguf),
            ([file(archive)], .peft),
        ] {
            let found = try AdapterContent.read(files, base: base)
            #expect(found.content.digest == content.digest && found.source == source)
        }
        func refused(_ code: AdapterError.Code, _ word: String, _ files: [UInt8]...) {
            expectRefusal(code, word) { () throws(AdapterError) in _ = try AdapterContent.read(files.map { file($0) }, base: base) }
        }
        refused(.unreadable, "adapter_config.json is missing", peft.weights)
        refused(.unreadable, "adapter_model.safetensors is missing", peft.config)
        refused(.unreadable, "adapter_config.json is missing")
        refused(.unreadable, "second JSON", peft.config, peft.config, peft.weights)
        refused(.unreadable, "second safetensors", peft.config, peft.weights, peft.weights)
        refused(.unreadable, "among 2 files", gguf, peft.config)
        refused(.unreadable, "compressed", [0x1F, 0x8B, 8, 0])
        refused(.unsupported, "pickle", [0x80, 2, 0x7D])
        refused(.unsupported, "pickle", [0x50, 0x4B, 3, 4] + Array("xxarchive/data.pkl".utf8))
        refused(.unreadable, "none of the known formats", [1, 2, 3])
        refused(.unreadable, "none of the known formats", [])
    }
}
