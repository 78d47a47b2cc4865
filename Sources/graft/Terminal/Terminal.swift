#if canImport(Glibc)
import Glibc
#endif

/// Standard input and output as a terminal: raw mode and back, size, writing.
///
/// While raw mode is on, whatever ends the process (an error, SIGTERM, SIGHUP, a trap in the program) gives the terminal its modes back
/// first. SIGINT, SIGWINCH and SIGCONT do not end it; they are reported through `SignalPipe`.
struct Terminal: ~Copyable {
    /// Brackets around pastes, so that their line ends can be told from Enter.
    private static let enterSequence = "\u{1B}[?2004h"

    /// Whether both ends are a terminal that understands control sequences.
    static var isInteractive: Bool {
        isatty(STDIN_FILENO) == 1 && isatty(STDOUT_FILENO) == 1 && Environment["TERM"].map { $0 != "dumb" } ?? false
    }

    /// Whether standard output is a terminal, whose reader must be kept from control sequences of others.
    static var showsOutput: Bool { isatty(STDOUT_FILENO) == 1 }

    /// Columns and rows of the terminal on a descriptor; 80 × 24 where it does not say.
    static func size(_ descriptor: Int32 = STDOUT_FILENO) -> (columns: Int, rows: Int) {
        var size = winsize()
        guard ioctl(descriptor, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0, size.ws_row > 0 else { return (80, 24) }
        return (Int(size.ws_col), Int(size.ws_row))
    }

    init() throws {
        let modes = UnsafeMutablePointer<termios>.allocate(capacity: 1)
        guard tcgetattr(STDIN_FILENO, modes) == 0 else {
            modes.deallocate()
            throw CommandError("the terminal's modes cannot be read: \(String(cString: strerror(errno)))")
        }
        // Never freed: a signal handler may need it at any time.
        originalModes = modes
        for signal in [SIGTERM, SIGHUP, SIGQUIT, SIGABRT, SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE] {
            install(signal, restoreAndDie, flags: Int32(bitPattern: SA_RESETHAND))
        }
        try enterRawMode()
    }

    deinit {
        restoreTerminal()
    }

    func enterRawMode() throws {
        var modes = originalModes!.pointee
        // Keys come one by one, unechoed, Ctrl-C, Ctrl-Z, Ctrl-S and Enter as the bytes that they are. Output processing stays: `\n` begins a line.
        modes.c_lflag &= ~tcflag_t(ICANON | ECHO | ISIG | IEXTEN)
        modes.c_iflag &= ~tcflag_t(ICRNL | INLCR | IGNCR | IXON | ISTRIP)
        isRaw = true
        guard tcsetattr(STDIN_FILENO, TCSADRAIN, &modes) == 0 else {
            throw CommandError("the terminal's modes cannot be set: \(String(cString: strerror(errno)))")
        }
        write(Terminal.enterSequence)
    }

    func write(_ text: String) {
        writeAll(text, to: STDOUT_FILENO)
    }

    /// Ctrl-Z: gives the terminal back, stops the process, and takes the terminal again when the shell wakes it up.
    func suspend() throws {
        restoreTerminal()
        raiseUnblocked(SIGTSTP)
        try enterRawMode()
    }
}

/// Writes all of a text to a descriptor. A reader that is gone is no error: SIGPIPE has ended the process, or there is nobody to tell.
func writeAll(_ text: String, to descriptor: Int32) {
    var text = text
    text.withUTF8 { bytes in
        var done = 0
        while done < bytes.count {
            let count = Glibc.write(descriptor, bytes.baseAddress! + done, bytes.count - done)
            if count > 0 {
                done += count
            } else if errno == EAGAIN {
                // Another process has made the shared terminal non-blocking.
                var wait = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
                _ = poll(&wait, 1, -1)
            } else if errno != EINTR {
                return
            }
        }
    }
}

// MARK: Signal handlers

// Plain variables, because a handler may only load and store. The main writer sets them before a handler can run.
nonisolated(unsafe) private var originalModes: UnsafeMutablePointer<termios>?
nonisolated(unsafe) private var isRaw = false
nonisolated(unsafe) private var signalPipe: Int32 = -1

/// End of bracketed paste, and the text's attributes reset.
private let leaveSequence: StaticString = "\u{1B}[?2004l\u{1B}[0m"

/// Calls only what POSIX allows in a signal handler.
private func restoreTerminal() {
    guard isRaw, let originalModes else { return }
    isRaw = false
    _ = Glibc.write(STDOUT_FILENO, leaveSequence.utf8Start, leaveSequence.utf8CodeUnitCount)
    tcsetattr(STDIN_FILENO, TCSANOW, originalModes)
}

/// For signals that end the process: installed for one time, so that the signal, raised again or met again, does what it always does.
private let restoreAndDie: @convention(c) (Int32) -> Void = { signal in
    restoreTerminal()
    raise(signal)
}

private let reportSignal: @convention(c) (Int32) -> Void = { signal in
    let saved = errno
    var byte = UInt8(truncatingIfNeeded: signal)
    _ = Glibc.write(signalPipe, &byte, 1)
    errno = saved
}

private func install(_ signal: Int32, _ handler: @escaping @convention(c) (Int32) -> Void, flags: Int32 = 0) {
    var action = sigaction()
    action.__sigaction_handler.sa_handler = handler
    action.sa_flags = flags
    sigemptyset(&action.sa_mask)
    sigaction(signal, &action, nil)
}

/// A pipe that makes signals, and anything else that happens on another thread, readable for `poll`.
final class SignalPipe: Sendable {
    /// Beside signal numbers: somebody called `wake`.
    static let wakeUp: UInt8 = 0

    let readEnd: Int32
    private let writeEnd: Int32

    /// One for the process, for its whole life: signal handlers hold on to it.
    init(reporting signals: [Int32]) throws {
        var ends: [Int32] = [-1, -1]
        guard pipe(&ends) == 0 else { throw CommandError("a pipe cannot be made: \(String(cString: strerror(errno)))") }
        for end in ends {
            _ = fcntl(end, F_SETFD, FD_CLOEXEC)
            _ = fcntl(end, F_SETFL, O_NONBLOCK)
        }
        readEnd = ends[0]
        writeEnd = ends[1]
        signalPipe = ends[1]
        for signal in signals { install(signal, reportSignal, flags: SA_RESTART) }
    }

    /// From any thread. A full pipe is as good: its reader is about to wake up.
    func wake() {
        var byte = SignalPipe.wakeUp
        _ = Glibc.write(writeEnd, &byte, 1)
    }

    /// What has come since the last call: signal numbers and `wakeUp`.
    func drain() -> Set<UInt8> {
        var result: Set<UInt8> = []
        var bytes = [UInt8](repeating: 0, count: 256)
        while true {
            let count = read(readEnd, &bytes, bytes.count)
            guard count > 0 else { return result }
            result.formUnion(bytes[..<count])
        }
    }
}

/// Puts a signal's usual effect back and raises it: the process ends as if the signal had not been watched.
func die(of number: Int32) -> Never {
    signal(number, SIG_DFL)
    raiseUnblocked(number)
    exit(128 + number)
}

/// Raises a signal so that it acts before this returns. Threads that Swift's pool starts, and those started from them, block most signals.
private func raiseUnblocked(_ number: Int32) {
    var signals = sigset_t()
    sigemptyset(&signals)
    sigaddset(&signals, number)
    pthread_sigmask(SIG_UNBLOCK, &signals, nil)
    raise(number)
}
