import JSON

#if canImport(Glibc)
import Glibc
#endif

/// Shows a job's events as they come, until it ends or the user presses Ctrl-C: on a terminal over a progress bar that changes, elsewhere line by line.
struct JobFollower {
    enum End {
        /// The job as it stands then.
        case finished(JSONValue)
        case interrupted
        /// Nobody works on it.
        case waiting(JSONValue)
    }

    private let jobs: any JobOperations
    private let signals: SignalPipe
    /// The API's events, one JSON object a line on standard output, instead of text on standard error.
    private let json: Bool
    private let isTerminal: Bool
    private var progress = JobProgress()
    private var isDrawn = false
    private static let pollMilliseconds: Int32 = 200

    init(_ jobs: any JobOperations, signals: SignalPipe, json: Bool) {
        self.jobs = jobs
        self.signals = signals
        self.json = json
        isTerminal = !json && isatty(STDERR_FILENO) == 1 && Environment["TERM"] != "dumb"
    }

    /// - Parameter number: events up to this one are known already.
    mutating func follow(_ id: String, after number: Int = 0) throws -> End {
        var last = number
        defer { clear() }
        while true {
            // The job first: what was written before it ended is among the events that are read after.
            let job = try jobs.show(id)
            while case let events = try jobs.events(of: id, after: last), !events.isEmpty {
                for event in events {
                    last = event.eventNumber
                    show(event)
                }
            }
            draw()
            if job.isFinalJob { return .finished(job) }
            if !jobs.isWorking { return .waiting(job) }
            if wait() { return .interrupted }
        }
    }

    private mutating func show(_ event: JSONValue) {
        if json { return writeAll(String(decoding: event.serialized(), as: UTF8.self) + "\n", to: STDOUT_FILENO) }
        let text = progress.take(event)
        if let text {
            clear()
            writeAll(TerminalText.oneLine(text) + "\n", to: STDERR_FILENO)
        }
        if !isTerminal, progress.isDue(), let line = progress.line(width: 200) { writeAll(line + "\n", to: STDERR_FILENO) }
    }

    private mutating func draw() {
        guard isTerminal, let line = progress.line(width: Terminal.size(STDERR_FILENO).columns - 1) else { return }
        writeAll("\r" + line + "\u{1B}[K", to: STDERR_FILENO)
        isDrawn = true
    }

    private mutating func clear() {
        if isDrawn { writeAll("\r\u{1B}[K", to: STDERR_FILENO) }
        isDrawn = false
    }

    /// - Returns: whether Ctrl-C was pressed.
    private func wait() -> Bool {
        var descriptor = pollfd(fd: signals.readEnd, events: Int16(POLLIN), revents: 0)
        poll(&descriptor, 1, Self.pollMilliseconds)
        return !signals.drain().isDisjoint(with: [UInt8(SIGINT), UInt8(SIGTERM)])
    }
}
