import Foundation
import ModelStore
import Testing

@Suite struct CatalogTests {
    /// The catalogue that is shipped.
    @Test func theCatalogueIsSound() throws {
        let path = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "../../Models/catalog.json").path
        let catalog = try ModelCatalog(path: path)
        #expect(catalog.models.map(\.name) == ["smollm2-135m-instruct", "qwen2.5-coder-0.5b-instruct", "qwen2.5-coder-1.5b-instruct", "gemma-3-270m"])
        #expect(catalog.defaultName == "smollm2-135m-instruct")
        #expect(catalog.models.map(\.size) == [98_362_432, 491_400_064, 1_117_320_768, 253_113_024])
        let partCounts = catalog.models.map { model in
            if case .packages(let parts) = model.source { parts.count } else { 0 }
        }
        #expect(partCounts == [1, 6, 22, 4])
        #expect(catalog["gemma-3-270m"]?.architecture == "gemma3")
        #expect(catalog["nothing"] == nil)
    }

    private static let digest = String(repeating: "0f", count: 32)

    /// A catalogue of one good model, with replacements.
    private func catalog(_ replacements: [(String, String)]) throws -> ModelCatalog {
        var text = """
            {"default": "a", "models": [{"name": "a", "architecture": "llama", "license": "MIT", "summary": "s", "file": "a.gguf", "size": 10,
            "sha256": "\(Self.digest)", "packages": [{"package": "p", "version": "1", "member": "p/m.bin", "size": 10, "sha256": "\(Self.digest)"}]}]}
            """
        for (old, new) in replacements { text = text.replacingOccurrences(of: old, with: new) }
        return try ModelCatalog(json: Data(text.utf8))
    }

    @Test func anAddressIsTheOtherKindOfSource() throws {
        #expect(try catalog([]).models.count == 1)
        let packages = #""packages": [{"package": "p", "version": "1", "member": "p/m.bin", "size": 10, "sha256": "\#(Self.digest)"}]"#
        let remote = try catalog([(packages, #""url": "https://example.com/a.gguf""#)])
        #expect(remote.models[0].source == .url("https://example.com/a.gguf"))
        #expect(throws: ModelStoreError.self) { try catalog([(packages, #""url": "http://example.com/a.gguf""#)]) }
        #expect(throws: ModelStoreError.self) { try catalog([(packages, packages + #", "url": "https://example.com/a.gguf""#)]) }
        #expect(throws: ModelStoreError.self) { try catalog([(", " + packages, "")]) }
    }

    @Test(arguments: [
        ([(#""name": "a""#, #""name": "A""#)], "lower-case"),
        ([(#""name": "a""#, #""name": "../a""#)], "lower-case"),
        ([("a.gguf", "../a.gguf")], "file name ../a.gguf"),
        ([("a.gguf", ".a.gguf")], "file name .a.gguf"),
        ([("a.gguf", "a.bin")], "file name a.bin"),
        ([(#""package": "p""#, #""package": "--index-url=x""#)], "package --index-url=x==1"),
        ([(#""version": "1""#, #""version": "1 ; x""#)], "exact version"),
        ([("p/m.bin", "/m.bin")], "member /m.bin"),
        ([("p/m.bin", "p/../../m.bin")], "member p/../../m.bin"),
        ([(digest, String(repeating: "0F", count: 32))], "64 lower-case hexadecimal digits"),
        ([(digest, "0f")], "64 lower-case hexadecimal digits"),
        ([(#""file": "a.gguf", "size": 10"#, #""file": "a.gguf", "size": 11"#)], "the parts have 10 bytes together, expected 11"),
        ([(#""file": "a.gguf", "size": 10"#, #""file": "a.gguf", "size": 9"#)], "expected parts that add up to 9"),
        ([(#""file": "a.gguf", "size": 10"#, #""file": "a.gguf", "size": 0"#)], "size 0"),
        ([(#""size": 10, "sha256""#, #""size": -1, "sha256""#)], "-1 bytes"),
        ([(#""default": "a""#, #""default": "b""#)], "default model b"),
        ([(#""summary": "s", "#, "")], #"models[0] has no "summary""#),
        ([(#""size": 10,"#, #""size": "ten","#)], "not of type Int"),
        ([("{", "[")], "the top level"),
    ])
    func aBadCatalogueIsRefused(replacements: [(String, String)], says: String) {
        do {
            _ = try catalog(replacements)
            Issue.record("accepted with \(replacements)")
        } catch let error as ModelStoreError {
            #expect(error.code == .invalidCatalog)
            #expect(error.message.contains(says), "\(error)")
        } catch {
            Issue.record("\(error)")
        }
    }

    @Test func namesAndFilesAreUnique() throws {
        let one = #"{"name": "a", "architecture": "llama", "license": "MIT", "summary": "s", "file": "a.gguf", "size": 1, "sha256": "\#(Self.digest)", "url": "https://x/a.gguf"}"#
        for other in [one.replacingOccurrences(of: #""a""#, with: #""b""#), one.replacingOccurrences(of: #""a.gguf""#, with: #""b.gguf""#)] {
            #expect(throws: ModelStoreError.self) { try ModelCatalog(json: Data(#"{"default": "a", "models": [\#(one), \#(other)]}"#.utf8)) }
        }
    }

    @Test func anAbsentCatalogueIsNamed() {
        #expect { try ModelCatalog(path: "/nonexistent/catalog.json") } throws: { "\($0)".contains("/nonexistent/catalog.json cannot be read: no such file") }
    }
}
