/// A name of the table `adapters`.
public struct AdapterRow: Sendable, Equatable {
    /// Never reused.
    public var id: Int
    public var owner: String
    public var name: String
    /// The version that the bare name stands for.
    public var promoted: Int?
    /// A version that gets a share (0…1, exclusive) of the bare name's traffic; both or neither.
    public var canary: Int?, canaryShare: Double?
    public var isPinned: Bool
    /// Seconds since 1970 UTC.
    public var createdAt: Int
}

/// A version of the table `adapter_versions`.
public struct AdapterVersionRow: Sendable, Equatable {
    public var adapterID: Int
    public var number: Int
    public var content: AdapterVersionContent
    public var createdAt: Int
    /// Why it is not served; `nil` when it is.
    public var quarantine: String?

    public init(adapterID: Int, number: Int, content: AdapterVersionContent, createdAt: Int, quarantine: String? = nil) {
        self.adapterID = adapterID
        self.number = number
        self.content = content
        self.createdAt = createdAt
        self.quarantine = quarantine
    }
}

/// A further name of one version, of the table `adapter_aliases`.
public struct AdapterAliasRow: Sendable, Equatable {
    public var owner: String
    public var alias: String
    public var adapterID: Int
    public var number: Int
}

/// What is known of a version when it is published.
public struct AdapterVersionContent: Sendable, Equatable {
    /// Of the content, hexadecimal.
    public var digest: String
    /// The base that it was made for.
    public var baseName: String, baseDigest: String
    public var rank: Int
    public var pairCount: Int
    public var source: String
    /// The sizes of its two files.
    public var configByteCount: Int, weightsByteCount: Int
    /// Where they are, relative to the folder of all adapters.
    public var folder: String

    public init(
        digest: String, baseName: String, baseDigest: String, rank: Int, pairCount: Int, source: String, configByteCount: Int,
        weightsByteCount: Int, folder: String
    ) {
        self.digest = digest
        self.baseName = baseName
        self.baseDigest = baseDigest
        self.rank = rank
        self.pairCount = pairCount
        self.source = source
        self.configByteCount = configByteCount
        self.weightsByteCount = weightsByteCount
        self.folder = folder
    }
}
