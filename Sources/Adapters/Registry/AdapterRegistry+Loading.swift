import InstructionStore
import Kernels
import Modeling

extension AdapterRegistry {
    public func resident(_ version: AdapterVersion) -> Adapter? {
        table.withLock { $0.resident.use(VersionKey(version)) }
    }

    public func load(_ version: AdapterVersion) throws(AdapterError) -> Adapter {
        let key = VersionKey(version)
        let (present, files) = try look(up: key)
        let ticket: LoadTicket
        switch table.withLock({ $0.beginLoad(key) }) {
        case .resident(let adapter): return adapter
        case .ticket(let shared): ticket = shared
        }
        let result = ticket.outcome.withLock { outcome in
            if let outcome { return outcome }
            let result = read(present, files)
            outcome = end(key, ticket, result)
            return outcome ?? result
        }
        return try result.get()
    }

    public func content(of version: AdapterVersion) throws(AdapterError) -> AdapterContent {
        let (present, files) = try look(up: VersionKey(version))
        return try checkedContent(present, files).content
    }

    public func export(_ version: AdapterVersion, as format: AdapterFormat) throws(AdapterError) -> ExportedAdapter {
        let (present, files) = try look(up: VersionKey(version))
        let contents = try checkedContent(present, files)
        switch format {
        case .peft:
            return ExportedAdapter(files: [
                ExportedAdapter.File(name: PEFTAdapter.configName, bytes: contents.config),
                ExportedAdapter.File(name: PEFTAdapter.weightsName, bytes: contents.weights),
            ])
        case .gguf:
            let bytes = GGUFAdapter.write(contents.content, base: base.configuration, name: present.qualifiedName)
            return ExportedAdapter(files: [ExportedAdapter.File(name: "\(present.name).gguf", bytes: bytes)])
        }
    }

    /// The version as the table has it, which the caller's copy may be older than.
    private func look(up key: VersionKey) throws(AdapterError) -> (AdapterVersion, AdapterTable.Files) {
        let found = table.withLock { table in table.version(key).flatMap { version in table.files(key).map { (version, $0) } } }
        guard let (version, files) = found else { throw notFound(key.name.name, key.number) }
        if let error = unusable(version) { throw error }
        return (version, files)
    }

    /// Reads a version for use; one that is damaged is quarantined.
    private func checkedContent(_ version: AdapterVersion, _ files: AdapterTable.Files) throws(AdapterError) -> VerifiedContent {
        do {
            return try Self.verifiedContent(files, digest: version.digest, in: folders, base: base)
        } catch {
            throw refusal(VersionKey(version), error)
        }
    }

    private func read(_ version: AdapterVersion, _ files: AdapterTable.Files) -> Result<Adapter, AdapterError> {
        Result { () throws(AdapterError) in
            let contents = try checkedContent(version, files)
            try reach(.filesRead)
            return try pack(contents.content, version)
        }
    }

    private func end(_ key: VersionKey, _ ticket: LoadTicket, _ result: Result<Adapter, AdapterError>) -> Result<Adapter, AdapterError> {
        let adapter = try? result.get()
        guard let released = table.withLock({ $0.endLoad(key, ticket, adapter) }) else { return .failure(notFound(key.name.name, key.number)) }
        withExtendedLifetime(released) {}
        return result
    }

    func pack(_ content: AdapterContent, _ version: AdapterVersion) throws(AdapterError) -> Adapter {
        do {
            return try Adapter(
                name: version.name, version: version.number, digest: version.digest, configuration: base.configuration, numerics: base.numerics,
                pairs: content.pairs)
        } catch {
            throw AdapterError(.outOfMemory, "adapter \(version.qualifiedName): cannot be packed: \(error); delete or unpin others, or use a smaller rank")
        }
    }

    // MARK: Damage

    /// A version's bytes, and what they say.
    struct VerifiedContent {
        var config: [UInt8]
        var weights: [UInt8]
        var content: AdapterContent
    }

    /// Reads a version and makes sure that it is what was published.
    static func verifiedContent(
        _ files: AdapterTable.Files, digest: String, in folders: AdapterFolders, base: AdapterBase
    ) throws(AdapterFolders.ReadFailure) -> VerifiedContent {
        let (config, weights) = try folders.read(files.folder, sizes: files.sizes)
        let content: AdapterContent
        do {
            content = try PEFTAdapter.read(config: config, weights: weights, base: base.configuration)
        } catch {
            throw error.code == .outOfMemory ? .refused(error) : .damaged("\(files.folder): \(error.message)")
        }
        let found = content.digest
        guard found == digest else { throw .damaged("\(files.folder)/\(PEFTAdapter.weightsName): found content \(found), expected \(digest)") }
        return VerifiedContent(config: config, weights: weights, content: content)
    }

    /// The error for whoever wanted to use a version that could not be read. One whose files are damaged is not served again.
    private func refusal(_ key: VersionKey, _ failure: AdapterFolders.ReadFailure) -> AdapterError {
        switch failure {
        case .refused(let error): return error
        case .damaged(let reason):
            let quarantined = try? changing { () throws(AdapterError) -> AdapterError? in
                guard let record = table.withLock({ $0.record(key.name) }), var version = table.withLock({ $0.version(key) }) else { return nil }
                if version.quarantine == nil {
                    // On a full disk the note is missing, and the next load after a restart finds the same again.
                    try? store.setAdapterQuarantine(id: record.id, number: key.number, reason)
                    table.withLock { $0.quarantine(key, reason) }
                    version.quarantine = reason
                }
                return unusable(version)
            }
            // A deletion took the files away while they were read.
            return (quarantined ?? nil) ?? notFound(key.name.name, key.number)
        }
    }
}
