import Modeling

/// What adapters of this process belong to: the model that is served.
public struct AdapterBase: Sendable {
    /// The model's name, as requests spell it.
    public var name: String
    /// SHA-256 of the model file, lower-case hexadecimal.
    public var digest: String
    public var configuration: ModelConfiguration
    /// How the engine computes; decides how adapters are packed.
    public var numerics: Numerics

    public init(name: String, digest: String, configuration: ModelConfiguration, numerics: Numerics) {
        self.name = name
        self.digest = digest
        self.configuration = configuration
        self.numerics = numerics
    }
}

/// Where a version's bytes came from.
public enum AdapterSource: Sendable, Equatable {
    /// An uploaded or imported PEFT directory, archive or GGUF-LoRA file.
    case peft, gguf
    /// A tuning job of this server, by id.
    case job(String)
}

/// The metadata of one published version. Versions are immutable; only `quarantine` may come to be set when its files turn out to be damaged.
public struct AdapterVersion: Sendable, Equatable {
    public var owner: String
    public var name: String
    /// 1 for the first version that ever had the name; numbers are never reused, not even after a deletion.
    public var number: Int
    /// Digest of the content (`AdapterContent.digest`), 64 lower-case hexadecimal digits.
    public var digest: String
    /// Name and digest of the base that it was published for.
    public var baseName: String, baseDigest: String
    /// The widest rank of its pairs.
    public var rank: Int
    /// Projections that it changes.
    public var pairCount: Int
    public var source: AdapterSource
    /// Seconds since 1970 UTC.
    public var createdAt: Int
    /// Of its files on disk.
    public var byteCount: Int
    /// Why it cannot be served; `nil` when it can.
    public var quarantine: String?

    public init(
        owner: String, name: String, number: Int, digest: String, baseName: String, baseDigest: String, rank: Int, pairCount: Int, source: AdapterSource,
        createdAt: Int, byteCount: Int, quarantine: String? = nil
    ) {
        self.owner = owner
        self.name = name
        self.number = number
        self.digest = digest
        self.baseName = baseName
        self.baseDigest = baseDigest
        self.rank = rank
        self.pairCount = pairCount
        self.source = source
        self.createdAt = createdAt
        self.byteCount = byteCount
        self.quarantine = quarantine
    }

    /// `name@3`.
    public var qualifiedName: String { "\(name)@\(number)" }
}

/// One adapter name with all of its versions.
public struct AdapterRecord: Sendable, Equatable {
    /// llama.cpp's integer; never reused.
    public var id: Int
    public var owner: String
    public var name: String
    /// The version that the bare name stands for; `nil` as long as none was promoted.
    public var promoted: Int?
    /// A version that gets a share (0…1, exclusive) of the bare name's traffic before it takes all.
    public var canary: AdapterCanary?
    /// The promoted version and the canary stay resident whatever the budget, once they are loaded.
    public var isPinned: Bool
    /// In ascending order of their numbers; at least one.
    public var versions: [AdapterVersion]

    public init(id: Int, owner: String, name: String, promoted: Int?, canary: AdapterCanary?, isPinned: Bool, versions: [AdapterVersion]) {
        self.id = id
        self.owner = owner
        self.name = name
        self.promoted = promoted
        self.canary = canary
        self.isPinned = isPinned
        self.versions = versions
    }
}

public struct AdapterCanary: Sendable, Equatable {
    public var number: Int
    public var share: Double

    public init(number: Int, share: Double) {
        self.number = number
        self.share = share
    }
}

/// How a request names an adapter: `name` (the promoted version), `name@3` or `name@latest`.
public struct AdapterReference: Sendable, Equatable, CustomStringConvertible {
    public enum Selector: Sendable, Equatable {
        case promoted, latest
        case number(Int)
    }

    public var name: String
    public var selector: Selector

    public init(name: String, selector: Selector = .promoted) {
        self.name = name
        self.selector = selector
    }

    /// - Returns: `nil` for text that is no such reference; names are `[A-Za-z0-9._-]{1,64}`, numbers 1 and up without sign or leading zero.
    public init?(_ text: String) {
        let parts = text.split(separator: "@", maxSplits: 1, omittingEmptySubsequences: false)
        guard let name = parts.first.map(String.init), AdapterReference.isValidName(name) else { return nil }
        self.name = name
        guard parts.count == 2 else {
            selector = .promoted
            return
        }
        if parts[1] == "latest" {
            selector = .latest
        } else if let number = Int(parts[1]), number > 0, String(number) == parts[1] {
            selector = .number(number)
        } else {
            return nil
        }
    }

    public var description: String {
        switch selector {
        case .promoted: name
        case .latest: name + "@latest"
        case .number(let number): "\(name)@\(number)"
        }
    }

    /// The characters and the length only; whether a name is free or reserved is the registry's to say.
    public static func isValidName(_ name: String) -> Bool {
        (1...64).contains(name.utf8.count)
            && name.utf8.allSatisfy {
                switch $0 {
                case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."),
                    UInt8(ascii: "_"), UInt8(ascii: "-"):
                    true
                default: false
                }
            }
    }
}

/// Why an adapter was refused or something about it could not be done. The message names the thing, what was found, what was expected and the way out.
public struct AdapterError: Error, Sendable, Equatable, CustomStringConvertible {
    public enum Code: Sendable, Equatable {
        /// The bytes are none of the formats, or damaged.
        case unreadable
        /// Readable, but asks for something that cannot be honoured exactly: DoRA, biases, embeddings, …
        case unsupported
        /// Made for another base model: shapes, layers, architecture.
        case wrongBase
        /// A name that is malformed or reserved.
        case invalidName
        /// A parameter out of its range.
        case invalidArgument
        /// No such adapter or version (another owner's looks the same).
        case notFound
        /// Something else is in the way: nothing to roll back to, deleting the promoted version, …
        case conflict
        /// The version's files are damaged and it is not served.
        case quarantined
        /// The disk is full, or failed.
        case storageFull, storage
        case outOfMemory
    }

    public let code: Code
    public let message: String

    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }

    public var description: String { message }
}

/// Figures for `/metrics`.
public struct AdapterStatistics: Sendable {
    public struct Resident: Sendable {
        public var name: String
        public var number: Int
        public var byteCount: Int

        public init(name: String, number: Int, byteCount: Int) {
            self.name = name
            self.number = number
            self.byteCount = byteCount
        }
    }

    /// Packed and ready, in memory.
    public var resident: [Resident] = []
    public var budgetBytes = 0
    /// Since the start: read from disk and packed; let go of to keep the budget, by name.
    public var loads: UInt64 = 0
    public var evictions: [String: UInt64] = [:]

    public init() {}
}

/// An adapter as files.
public struct ExportedAdapter: Sendable {
    public struct File: Sendable {
        /// `adapter_config.json`, `adapter_model.safetensors` or `<name>.gguf`.
        public var name: String
        public var bytes: [UInt8]

        public init(name: String, bytes: [UInt8]) {
            self.name = name
            self.bytes = bytes
        }
    }

    public var files: [File]

    public init(files: [File]) {
        self.files = files
    }
}

public enum AdapterFormat: String, Sendable, CaseIterable {
    case peft, gguf
}

/// The adapters of this process as the API and the command line see them. `AdapterRegistry` is the one implementation; tests may bring another.
///
/// Methods marked *blocking* read, write and sync files; call them on a `BlockingExecutor`. The others only look at memory and may be called from any thread.
public protocol AdapterService: AnyObject, Sendable {
    var base: AdapterBase { get }

    // MARK: Looking

    /// The version that a reference means now, quarantined ones included. For a bare name with a canary the choice is sticky: equal `stickyKey`s get equal
    /// versions as long as the share stands; `nil` draws anew each time.
    func resolve(_ reference: AdapterReference, owner: String, stickyKey: String?) -> AdapterVersion?
    /// The record with llama.cpp's integer.
    func record(id: Int, owner: String) -> AdapterRecord?
    /// The version that a further name, such as `ft:…`, stands for.
    func version(alias: String, owner: String) -> AdapterVersion?
    func record(named name: String, owner: String) -> AdapterRecord?
    /// Refuses a name that no adapter may get.
    func check(name: String) throws(AdapterError)
    /// All names in order of their ids.
    func records(owner: String) -> [AdapterRecord]
    /// The names of all owners in order of their ids, for what concerns the whole server.
    func records() -> [AdapterRecord]
    var statistics: AdapterStatistics { get }

    // MARK: Using

    /// The packed adapter if it is in memory; counts as a use.
    func resident(_ version: AdapterVersion) -> Adapter?
    /// Blocking. The packed adapter, read from disk if need be; others may be let go of. Verifies the digest, and quarantines what is damaged.
    func load(_ version: AdapterVersion) throws(AdapterError) -> Adapter

    /// Blocking. The version's numbers, read from disk and verified; quarantines what is damaged.
    func content(of version: AdapterVersion) throws(AdapterError) -> AdapterContent

    // MARK: Changing (all blocking; all durable when they return)

    /// A new version of `name`. The first one of a name is promoted anyway.
    /// - Parameter alias: a further name, `ft:…`, for exactly this version as long as it exists. When the owner has a version with this alias already,
    ///   nothing is published and that one is returned: whoever does not know whether it came to an end may ask again.
    func publish(
        _ content: AdapterContent, as name: String, owner: String, source: AdapterSource, promote: Bool, alias: String?
    ) throws(AdapterError) -> AdapterVersion
    /// - Parameters:
    ///   - number: `nil`: the newest.
    ///   - share: less than 1 sends that share of the bare name's traffic there and leaves the rest (0 ends a canary); `nil` or 1 promotes.
    func promote(_ name: String, number: Int?, share: Double?, owner: String) throws(AdapterError) -> AdapterRecord
    /// Ends a canary if there is one; otherwise promotes the version that was promoted before the present one.
    func rollback(_ name: String, owner: String) throws(AdapterError) -> AdapterRecord
    /// - Parameter number: `nil`: the name with all versions. Sequences that run keep what they use.
    func delete(_ name: String, number: Int?, owner: String) throws(AdapterError)
    func setPinned(_ name: String, _ isPinned: Bool, owner: String) throws(AdapterError) -> AdapterRecord
    /// Blocking. The version's files.
    func export(_ version: AdapterVersion, as format: AdapterFormat) throws(AdapterError) -> ExportedAdapter
}

extension AdapterService {
    /// A new version of `name` without a further name.
    public func publish(
        _ content: AdapterContent, as name: String, owner: String, source: AdapterSource, promote: Bool
    ) throws(AdapterError) -> AdapterVersion {
        try publish(content, as: name, owner: owner, source: source, promote: promote, alias: nil)
    }
}
