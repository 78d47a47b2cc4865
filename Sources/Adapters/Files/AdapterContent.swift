import Modeling

/// What an adapter file holds, checked against a base model and independent of the format that it came in.
public struct AdapterContent: Sendable {
    /// How the numbers are stored in files; in memory they are float32.
    public enum Storage: String, Sendable {
        case float32 = "F32", float16 = "F16", bfloat16 = "BF16"
    }

    /// By layer, then projection; at most one for each. B's rows are in the order of the base's GGUF rows (for the architecture llama, q and k are interleaved).
    public var pairs: [LowRankPair]
    public var storage: Storage
    /// The base that the file names, if it names one.
    public var baseModelName: String?

    public init(pairs: [LowRankPair], storage: Storage, baseModelName: String?) {
        self.pairs = pairs
        self.storage = storage
        self.baseModelName = baseModelName
    }

    public var maximumRank: Int { pairs.map(\.rank).max() ?? 0 }
}
