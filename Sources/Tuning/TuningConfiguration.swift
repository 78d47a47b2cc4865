import Training

/// Reads a training file: its bytes, and the most tokens of an example. Throws `interrupted` soon after that was asked for.
public typealias DatasetReading = @Sendable (_ bytes: [UInt8], _ maximumLength: Int, _ interruption: Interruption?) throws(DatasetError) -> Dataset

/// How a queue of jobs behaves.
public struct TuningConfiguration: Sendable {
    /// Where unfinished jobs keep their snapshots, `jobs` in the data directory; made if it is not there.
    public var directory: String
    /// Further names of the base model.
    public var baseNames: Set<String> = ["default"]
    public var defaults = JobDefaults()
    /// The most that a run may need beside the model, by the trainer's estimate; `nil`: no limit.
    public var memoryLimitBytes: Int?
    /// A snapshot is due after this time or this many steps, whichever comes first.
    public var snapshotInterval = Duration.seconds(30)
    public var snapshotSteps = 50
    /// After the disk took no more: the first pause, which doubles up to the last.
    public var storageRetry = Duration.seconds(5), storageRetryMaximum = Duration.seconds(120)
    /// Starts without a new snapshot after which a job is given up.
    public var maximumStarts = 3
    /// Added to the threads' niceness.
    public var niceness = 5
    /// Files up to this size are read when a job is made, so that the memory it needs is known exactly; of larger ones the upload's report must do.
    public var immediateCheckBytes = 4 << 20

    public init(directory: String) {
        self.directory = directory
    }
}
