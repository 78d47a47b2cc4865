import FoundationEssentials

/// The repository's root, from this file's own place in it.
public let repositoryRoot = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()

public let goldenFolder = repositoryRoot.appending(path: "Tests/Golden")

/// The path of a model file, from the folder that `GRAFT_MODELS` names or from `Models/`; prints that the test is skipped and gives
/// nil if it is not there. `make test` fetches SmolLM2, so only the larger models are ever missing.
public func testModelPath(_ fileName: String) -> String? {
    let folder = ProcessInfo.processInfo.environment["GRAFT_MODELS"].map { URL(filePath: $0) } ?? repositoryRoot.appending(path: "Models")
    let path = folder.appending(path: fileName).path
    guard FileManager.default.fileExists(atPath: path) else {
        print("skipped: \(fileName) is not in \(folder.path) (graft pull fetches it)")
        return nil
    }
    return path
}

public let smolLM2FileName = "SmolLM2-135M-Instruct.Q4_1.gguf"
