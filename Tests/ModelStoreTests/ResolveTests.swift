import Foundation
import ModelStore
import Testing

@Suite struct ResolveTests {
    private let warehouse: Warehouse
    private let sample: SampleModel
    private let directory: ModelDirectory

    init() throws {
        warehouse = try Warehouse()
        sample = try SampleModel()
        directory = ModelDirectory(path: warehouse.models, catalog: sample.catalog, tools: warehouse.tools)
        try FileManager.default.createDirectory(atPath: warehouse.models, withIntermediateDirectories: true)
    }

    @Test func aCatalogueNameThatIsNotThereSaysHowToGetIt() {
        #expect(throws: ModelStoreError(
            code: .notDownloaded, message: "model sample is not in \(warehouse.models): fetch it with `graft pull sample` (150.0 kB)")
        ) { try directory.resolve("sample") }
    }

    @Test(arguments: ["other", "/nonexistent/model.gguf", "", "../x"]) func anythingElseListsTheKnownNames(name: String) {
        #expect { try directory.resolve(name) } throws: { error in
            guard let error = error as? ModelStoreError else { return false }
            return error.code == .unknownModel && error.message.contains("(sample)") && error.message.contains("`graft pull NAME`")
        }
    }

    @Test func aPathIsTakenAsItIs() throws {
        let path = warehouse.root.appending(path: "my model.gguf").path
        try Data("GGUF".utf8).write(to: URL(filePath: path))
        #expect(try directory.resolve(path) == .init(name: "my model", path: path, model: nil))
    }

    @Test(arguments: ["mine", "mine.gguf"]) func aFileInTheDirectoryIsFoundByName(name: String) throws {
        let path = warehouse.models + "/mine.gguf"
        try Data("GGUF".utf8).write(to: URL(filePath: path))
        #expect(try directory.resolve(name) == .init(name: "mine", path: path, model: nil))
    }

    @Test func aDirectoryIsNoModel() {
        #expect(throws: ModelStoreError.self) { try directory.resolve(warehouse.models) }
    }

    @Test func aRelativeDirectoryBecomesAbsolute() {
        let relative = ModelDirectory(path: "Models/", catalog: sample.catalog)
        #expect(relative.path == FileManager.default.currentDirectoryPath + "/Models")
    }
}
