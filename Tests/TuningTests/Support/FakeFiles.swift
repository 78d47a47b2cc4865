import InstructionStore
import Synchronization
import TLS

/// Files in memory; they outlive the queues of a test as those on a disk would.
final class FakeFiles: FileService {
    struct State {
        var files: [String: (file: StoredFile, bytes: [UInt8])] = [:]
        var last = 0
        var failure: InstructionStoreError?
    }

    let state = Mutex(State())

    private func enter() throws(InstructionStoreError) {
        if let failure = state.withLock({ $0.failure }) { throw failure }
    }

    func file(id: String, owner: String) throws(InstructionStoreError) -> StoredFile? {
        try enter()
        return state.withLock { $0.files[id]?.file }.flatMap { $0.owner == owner ? $0 : nil }
    }

    func contents(of file: StoredFile) throws(InstructionStoreError) -> [UInt8] {
        try enter()
        guard let bytes = state.withLock({ $0.files[file.id]?.bytes }) else { throw InstructionStoreError(.notFound, "no \(file.id)") }
        return bytes
    }

    func add(_ contents: [UInt8], name: String, purpose: String, owner: String, status: StoredFile.Status, report: String?) throws(InstructionStoreError) -> StoredFile
    {
        try enter()
        return state.withLock { state in
            state.last += 1
            let file = StoredFile(
                id: "file-\(state.last)", owner: owner, name: name, purpose: purpose, byteCount: contents.count, digest: hexadecimal(SHA256Digest.of(contents)),
                createdAt: 1_700_000_000, expiresAt: nil, status: status, report: report)
            state.files[file.id] = (file, contents)
            return file
        }
    }

    /// Lines of words: each is an example of as many tokens as it has letters. `pair` begins a preference, `bad` is a line that cannot be used.
    @discardableResult
    func add(
        _ lines: [String], purpose: String = "fine-tune", status: StoredFile.Status = .processed, owner: String = "local"
    ) throws -> StoredFile {
        try add(Array(lines.joined(separator: "\n").utf8), name: "train.jsonl", purpose: purpose, owner: owner, status: status, report: nil)
    }

    func remove(_ id: String) { state.withLock { $0.files[id] = nil } }

    var results: [(file: StoredFile, bytes: [UInt8])] {
        state.withLock { $0.files.values.filter { $0.file.purpose == "fine-tune-results" }.sorted { $0.file.id < $1.file.id } }
    }
}
