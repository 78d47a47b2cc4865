/// An uploaded or generated file.
public struct StoredFile: Sendable, Equatable {
    public enum Status: String, Sendable, CaseIterable {
        /// Not looked at, because its purpose needs no look; looked at and usable; looked at and not usable.
        case uploaded, processed, error
    }

    /// `file-…`.
    public var id: String
    public var owner: String
    /// As the client named it; never a path of this machine.
    public var name: String
    public var purpose: String
    public var byteCount: Int
    /// SHA-256 of its bytes, lower-case hexadecimal.
    public var digest: String
    /// Seconds since 1970 UTC.
    public var createdAt: Int
    /// When it will be removed; `nil`: never.
    public var expiresAt: Int?
    public var status: Status
    /// What was found in it, as a JSON object; `nil` when nobody looked.
    public var report: String?

    public init(
        id: String, owner: String, name: String, purpose: String, byteCount: Int, digest: String, createdAt: Int, expiresAt: Int?, status: Status, report: String?
    ) {
        self.id = id
        self.owner = owner
        self.name = name
        self.purpose = purpose
        self.byteCount = byteCount
        self.digest = digest
        self.createdAt = createdAt
        self.expiresAt = expiresAt
        self.status = status
        self.report = report
    }
}

/// Files as jobs and the command line see them. All methods block. `FileStore` is the one implementation; tests may bring another.
public protocol FileService: AnyObject, Sendable {
    /// `nil`: no such file, or another owner's, or expired.
    func file(id: String, owner: String) throws(InstructionStoreError) -> StoredFile?
    /// The whole of a file, verified against its digest.
    func contents(of file: StoredFile) throws(InstructionStoreError) -> [UInt8]
    /// A new file; durable on return.
    func add(_ contents: [UInt8], name: String, purpose: String, owner: String, status: StoredFile.Status, report: String?) throws(InstructionStoreError) -> StoredFile
}
