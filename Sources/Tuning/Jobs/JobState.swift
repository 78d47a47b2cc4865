/// Where a job stands in its life, and what may happen to it next. Without clock, thread or disk.
///
///     validating_files → queued → running → succeeded
///            ↓             ↓  ↑______↓ ↓
///          failed       cancelled     failed
///
/// A paused job is `queued` and stays so until it is resumed; so is one that waits for the disk, until that has room.
public struct JobState: Sendable, Equatable {
    public enum Status: String, Sendable, CaseIterable {
        case validatingFiles = "validating_files"
        case queued, running, succeeded, failed, cancelled

        public var isFinal: Bool {
            switch self {
            case .validatingFiles, .queued, .running: false
            case .succeeded, .failed, .cancelled: true
            }
        }
    }

    /// Why a job waits for the disk.
    public enum Storage: String, Sendable {
        case full, failed
    }

    package enum Happening: Sendable, Equatable {
        /// The files are fit to be trained on.
        case validated
        /// A process takes the job up; also when the one that had it died.
        case started
        case paused, resumed, cancelled
        /// The disk took no more.
        case storageLost(Storage)
        case succeeded, failed
    }

    public var status: Status
    public var isPaused: Bool
    public var storage: Storage?

    public init(status: Status = .validatingFiles, isPaused: Bool = false, storage: Storage? = nil) {
        self.status = status
        self.isPaused = isPaused
        self.storage = storage
    }

    /// Whether a process should take the job up now.
    package var isReady: Bool { !isPaused && (status == .queued || status == .running) }

    /// - Throws: `conflict` for what cannot happen now.
    package func after(_ happening: Happening) throws(TuningError) -> JobState {
        var next = self
        switch (happening, status) {
        case (.validated, .validatingFiles):
            next.status = .queued
        case (.started, .queued) where !isPaused, (.started, .running):
            next.status = .running
            next.storage = nil
        case (.paused, .validatingFiles), (.paused, .queued), (.paused, .running):
            guard !isPaused else { throw Self.conflict("is paused already") }
            next.isPaused = true
            if status == .running { next.status = .queued }
        case (.resumed, .validatingFiles), (.resumed, .queued):
            guard isPaused else { throw Self.conflict("is not paused") }
            next.isPaused = false
        case (.resumed, .running): throw Self.conflict("is not paused")
        case (.cancelled, .validatingFiles), (.cancelled, .queued), (.cancelled, .running):
            next = JobState(status: .cancelled)
        case (.storageLost(let storage), .running), (.storageLost(let storage), .queued):
            next.status = .queued
            next.storage = storage
        case (.storageLost(let storage), .validatingFiles):
            next.storage = storage
        case (.succeeded, .running):
            next = JobState(status: .succeeded)
        case (.failed, .validatingFiles), (.failed, .queued), (.failed, .running):
            next = JobState(status: .failed)
        default:
            throw Self.conflict(status.isFinal ? "has ended with the status \(status.rawValue)" : "has the status \(status.rawValue)")
        }
        return next
    }

    private static func conflict(_ what: String) -> TuningError {
        TuningError(.conflict, "the job \(what); GET it to see what can be done with it")
    }
}
