import FoundationEssentials
import Glibc

/// A program run to its end, with its output in files, so that a full pipe never stops it.
struct ChildProcess {
    /// The program, looked up in PATH, and its arguments.
    var arguments: [String]
    /// It runs here, so that nothing in the user's directory can pose as one of its modules; relative paths in its arguments count from here.
    var workingDirectory: String
    /// Added to the environment of this process.
    var environment: [String: String] = [:]
    /// Where its standard output goes; nowhere without one.
    var standardOutput: Int32?
    /// A lock's descriptor, which the child keeps open: should this process be killed, the lock is held until the child has ended too.
    var lock: Int32?

    /// How it ended.
    struct Result {
        /// The exit status, or 128 + the number of the signal that ended it.
        var status: Int32
        /// The end of what it wrote to standard error: at most three lines.
        var lastWords: String
    }

    /// Starts the program and waits, calling `poll` up to ten times a second.
    func run(poll: () -> Void) throws(ModelStoreError) -> Result {
        let errorPath = workingDirectory + "/stderr"
        let process = try start(errorPath: errorPath)
        var status: Int32 = 0
        // Short at first, because unpacking a small member takes milliseconds.
        var pause: UInt32 = 2_000
        while true {
            let ended = waitpid(process, &status, WNOHANG)
            if ended == process { break }
            if ended < 0 && errno != EINTR {
                throw ModelStoreError(code: .storage, message: "waiting for \(arguments[0]) failed: \(systemReason(errno))")
            }
            poll()
            usleep(pause)
            pause = min(100_000, pause * 2)
        }
        poll()
        let signal = status & 0x7f
        let exitStatus = signal == 0 ? (status >> 8) & 0xff : 128 + signal
        // The shell's statuses for a program that is not there, or not a program.
        if exitStatus == 126 || exitStatus == 127 {
            throw ModelStoreError(
                code: .toolMissing, message: "the program \(arguments[0]) is needed to fetch models and cannot be run: install it and try again")
        }
        return Result(status: exitStatus, lastWords: lastLines(ofFileAt: errorPath))
    }

    private func start(errorPath: String) throws(ModelStoreError) -> pid_t {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, errorPath, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
        if let standardOutput {
            posix_spawn_file_actions_adddup2(&actions, standardOutput, STDOUT_FILENO)
        } else {
            posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0)
        }

        // A descriptor duplicated onto itself loses its close-on-exec mark.
        if let lock { posix_spawn_file_actions_adddup2(&actions, lock, lock) }

        // Threads of a concurrent program block most signals, and a server ignores SIGPIPE; the child begins as if started from a shell, so that Ctrl-C ends it too.
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        var signals = sigset_t()
        sigemptyset(&signals)
        posix_spawnattr_setsigmask(&attributes, &signals)
        for signal in [SIGHUP, SIGINT, SIGQUIT, SIGPIPE, SIGTERM] { sigaddset(&signals, signal) }
        posix_spawnattr_setsigdefault(&attributes, &signals)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF))

        // The shell changes directory: Glibc's own file action for it is not visible to Swift.
        let command = ["/bin/sh", "-c", #"cd "$0" && exec "$@""#, workingDirectory] + arguments
        var variables = ProcessInfo.processInfo.environment
        variables.merge(environment) { $1 }
        var argumentPointers: [UnsafeMutablePointer<CChar>?] = command.map { strdup($0) } + [nil]
        var variablePointers: [UnsafeMutablePointer<CChar>?] = variables.map { strdup("\($0)=\($1)") } + [nil]
        defer {
            for pointer in argumentPointers + variablePointers { free(pointer) }
        }
        var process: pid_t = 0
        let failure = posix_spawn(&process, command[0], &actions, &attributes, &argumentPointers, &variablePointers)
        guard failure == 0 else {
            throw ModelStoreError(code: .toolMissing, message: "\(command[0]) cannot be started: \(systemReason(failure))")
        }
        return process
    }

    private func lastLines(ofFileAt path: String) -> String {
        guard let data = try? Data(contentsOf: URL(filePath: path)) else { return "" }
        let text = String(decoding: data.suffix(2000), as: UTF8.self)
        return text.split(whereSeparator: \.isNewline).suffix(3).joined(separator: " / ")
    }
}

/// The operating system's text for an error number.
func systemReason(_ number: Int32) -> String {
    String(cString: strerror(number))
}
