import InstructionStore

extension AdapterRegistry {
    /// Brings rows and files together: everything whose files are there is served.
    static func open(_ folders: AdapterFolders, store: InstructionStore, base: AdapterBase, budgetBytes: Int) throws(AdapterError) -> AdapterTable {
        let rows = try stored { () throws(InstructionStoreError) in try store.adapters() }
        let versionRows = try stored { () throws(InstructionStoreError) in try store.adapterVersions() }
        try folders.removeLeftovers(known: Set(versionRows.map(\.content.folder)))

        var table = AdapterTable(budgetBytes: budgetBytes)
        let byAdapter = Dictionary(grouping: versionRows, by: \.adapterID)
        for row in rows {
            let name = NameKey(owner: row.owner, name: row.name)
            var versions: [AdapterVersion] = []
            for versionRow in byAdapter[row.id] ?? [] {
                var version = AdapterVersion(versionRow, of: row)
                let files = AdapterTable.Files(versionRow.content)
                version.quarantine = finding(files, version, in: folders, base: base)
                if version.quarantine != versionRow.quarantine {
                    // On a full disk the note is missing, and the next start finds the same again.
                    try? store.setAdapterQuarantine(id: row.id, number: version.number, version.quarantine)
                }
                versions.append(version)
                table.setFiles(VersionKey(name, version.number), files)
            }
            guard !versions.isEmpty else { continue }
            _ = table.set(row, versions: versions)
        }
        let names = Dictionary(rows.map { ($0.id, NameKey(owner: $0.owner, name: $0.name)) }) { first, _ in first }
        for alias in try stored({ () throws(InstructionStoreError) in try store.adapterAliases() }) {
            guard let name = names[alias.adapterID] else { continue }
            table.setAlias(NameKey(owner: alias.owner, name: alias.alias), VersionKey(name, alias.number))
        }
        return table
    }

    /// Why a version is not to be served. Sizes are compared without reading; a version that was quarantined before is read, because its files may have been
    /// restored.
    private static func finding(_ files: AdapterTable.Files, _ version: AdapterVersion, in folders: AdapterFolders, base: AdapterBase) -> String? {
        if let fault = folders.fault(in: files.folder, sizes: files.sizes) { return fault }
        guard let before = version.quarantine else { return nil }
        guard version.baseDigest == base.digest else { return before }
        do {
            _ = try verifiedContent(files, digest: version.digest, in: folders, base: base)
            return nil
        } catch {
            switch error {
            case .damaged(let reason): return reason
            case .refused: return before
            }
        }
    }
}

extension AdapterVersion {
    init(_ row: AdapterVersionRow, of adapter: AdapterRow) {
        self.init(
            owner: adapter.owner, name: adapter.name, number: row.number, digest: row.content.digest, baseName: row.content.baseName,
            baseDigest: row.content.baseDigest, rank: row.content.rank, pairCount: row.content.pairCount, source: AdapterSource(stored: row.content.source),
            createdAt: row.createdAt, byteCount: row.content.byteCount, quarantine: row.quarantine)
    }
}

extension AdapterVersionContent {
    /// Of both files. The store bounds neither, hence the care.
    var byteCount: Int {
        let (sum, overflow) = configByteCount.addingReportingOverflow(weightsByteCount)
        return overflow ? .max : sum
    }
}

extension AdapterTable.Files {
    init(_ content: AdapterVersionContent) {
        self.init(folder: content.folder, sizes: AdapterFolders.Sizes(config: content.configByteCount, weights: content.weightsByteCount))
    }
}

/// In rows: `peft`, `gguf` or `job:` and its id.
extension AdapterSource {
    init(stored text: String) {
        self = text == "gguf" ? .gguf : text.hasPrefix("job:") ? .job(String(text.dropFirst(4))) : .peft
    }

    var stored: String {
        switch self {
        case .peft: "peft"
        case .gguf: "gguf"
        case .job(let id): "job:\(id)"
        }
    }
}
