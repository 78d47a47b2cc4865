import FoundationEssentials
import Glibc
import InstructionStore
import TestSupport
import Testing

struct DataDirectoryTests {
    let folder: TemporaryFolder
    var path: String { "\(folder.path)/a/data" }

    init() throws {
        folder = try TemporaryFolder()
    }

    private func mode(_ path: String) -> UInt32? {
        var status = stat()
        return stat(path, &status) == 0 ? status.st_mode & 0o7777 : nil
    }

    private func refusal(_ path: String) -> DataDirectoryError? {
        do {
            _ = try DataDirectory(path: path)
            return nil
        } catch {
            return error
        }
    }

    @Test func makesDirectoriesForThisUserAlone() throws {
        let directory = try DataDirectory(path: path)
        #expect(mode(path) == 0o700)
        #expect(mode("\(folder.path)/a") == 0o700)
        #expect(mode("\(path)/lock") == 0o600)
        withExtendedLifetime(directory) {}
    }

    @Test func secondOpenerLearnsWhoHoldsIt() throws {
        let directory = try DataDirectory(path: path)
        let before = try #require(refusal(path))
        #expect(before.code == .held)
        #expect(before.holder == DataDirectoryError.Holder(processID: getpid(), address: nil))
        #expect(before.message.contains(path) && before.message.contains("process \(getpid())"))

        try directory.announce(address: "http://127.0.0.1:8080")
        let after = try #require(refusal(path))
        #expect(after.holder == DataDirectoryError.Holder(processID: getpid(), address: "http://127.0.0.1:8080"))
        #expect(after.message.contains("http://127.0.0.1:8080"))

        let fingerprint = String(repeating: "0a", count: 32)
        try directory.announce(address: "https://127.0.0.1:8080", certificate: fingerprint)
        #expect(
            refusal(path)?.holder == DataDirectoryError.Holder(processID: getpid(), address: "https://127.0.0.1:8080", certificate: fingerprint))

        // A shorter address leaves nothing of the longer one.
        try directory.announce(address: "http://[::1]:1")
        #expect(refusal(path)?.holder == DataDirectoryError.Holder(processID: getpid(), address: "http://[::1]:1"))
    }

    @Test func isFreeOnceTheHolderLetsGo() throws {
        do {
            let directory = try DataDirectory(path: path)
            try directory.announce(address: "http://127.0.0.1:8080")
        }
        let second = try DataDirectory(path: path)
        #expect(refusal(path)?.holder == DataDirectoryError.Holder(processID: getpid(), address: nil))
        withExtendedLifetime(second) {}
    }

    @Test(arguments: ["", "nonsense", "pid 999999999\naddress http://127.0.0.1:1\n", String(repeating: "x", count: 5000)])
    func takesOverWhatADeadHolderLeft(text: String) throws {
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        try Data(text.utf8).write(to: URL(filePath: "\(path)/lock"))
        let directory = try DataDirectory(path: path)
        #expect(refusal(path)?.holder == DataDirectoryError.Holder(processID: getpid(), address: nil))
        withExtendedLifetime(directory) {}
    }

    @Test func killedHolderLetsGo() throws {
        _ = try DataDirectory(path: path)
        try Data().write(to: URL(filePath: "\(path)/lock"))
        let words = ["flock", "--no-fork", "\(path)/lock", "sleep", "600"]
        var arguments: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) } + [nil]
        defer { arguments.forEach { free($0) } }
        var child: pid_t = 0
        try #require(posix_spawnp(&child, "flock", nil, nil, &arguments, environ) == 0, "flock of util-linux")
        // Until the child has the lock, this process gets it.
        var refused: DataDirectoryError?
        while refused == nil { refused = refusal(path) }
        #expect(refused?.code == .held)
        kill(child, SIGKILL)
        waitpid(child, nil, 0)
        #expect(throws: Never.self) { try DataDirectory(path: path) }
    }

    @Test func descriptorIsNotInherited() throws {
        let directory = try DataDirectory(path: path)
        let resolved = try #require(realpath("\(path)/lock", nil))
        defer { free(resolved) }
        var found = 0
        for name in try FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd") {
            guard let descriptor = Int32(name), let target = try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/fd/\(name)"),
                target == String(cString: resolved)
            else { continue }
            found += 1
            #expect(fcntl(descriptor, F_GETFD) & FD_CLOEXEC != 0)
        }
        #expect(found == 1)
        withExtendedLifetime(directory) {}
    }

    @Test(arguments: ["", "two words", "line\nbreak", "ünï", String(repeating: "a", count: 500)])
    func refusesAddressesThatAreNone(address: String) throws {
        let directory = try DataDirectory(path: path)
        try directory.announce(address: "http://127.0.0.1:8080")
        let error = #expect(throws: DataDirectoryError.self) { try directory.announce(address: address) }
        #expect(error?.code == .invalidAddress)
        #expect(refusal(path)?.holder?.address == "http://127.0.0.1:8080")
    }

    @Test func refusesWhatIsNoDirectory() throws {
        try Data("x".utf8).write(to: URL(filePath: "\(folder.path)/a"))
        let error = try #require(refusal(path))
        #expect(error.code == .storage && error.message.contains("\(folder.path)/a"))
        #expect(refusal("")?.code == .storage)
    }

    @Test func followsNoLinkForTheLock() throws {
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        try FileManager.default.createSymbolicLink(atPath: "\(path)/lock", withDestinationPath: "\(folder.path)/elsewhere")
        #expect(refusal(path)?.code == .storage)
        #expect(!FileManager.default.fileExists(atPath: "\(folder.path)/elsewhere"))
    }

    @Test func recordsAreReadWholeOrNotAtAll() {
        let fingerprint = String(repeating: "0a", count: 32)
        let longest = LockRecord(processID: .max, address: String(repeating: "a", count: LockRecord.longestAddress), certificate: fingerprint)
        for record in [LockRecord(processID: 1), LockRecord(processID: 2, address: "https://[::1]:1", certificate: fingerprint), longest] {
            let bytes = record.bytes
            #expect(bytes.count == LockRecord.byteCount)
            #expect(LockRecord(bytes) == record)
            for count in 0..<bytes.count { #expect(LockRecord(Array(bytes.prefix(count))) == nil) }
        }
        for text in ["pid 0\n", "pid -4\n", "pid x\n", "address x\n", "pid\n", "other 4\n", "pid 1\ncertificate 0a\n"] {
            let padding = [UInt8](repeating: UInt8(ascii: "\n"), count: LockRecord.byteCount - text.utf8.count)
            #expect(LockRecord(Array(text.utf8) + padding) == nil, "\(text)")
        }
    }
}
