import GGUF
import InstructionStore
import Modeling

extension AdapterRegistry {
    // MARK: Publishing

    public func publish(
        _ content: AdapterContent, as name: String, owner: String, source: AdapterSource, promote: Bool, alias: String?
    ) throws(AdapterError) -> AdapterVersion {
        try check(name: name)
        if let alias {
            try check(alias: alias)
            if let version = version(alias: alias, owner: owner) { return version }
        }
        try check(content, name)
        let (config, weights) = PEFTAdapter.write(content, base: base.configuration, baseModelName: base.name)
        // What is published is what the bytes say, rounded as they are stored.
        let canonical = try PEFTAdapter.read(config: config, weights: weights, base: base.configuration)
        let digest = canonical.digest
        return try changing { () throws(AdapterError) in
            // Another publication with the alias may have come first.
            if let alias, let version = version(alias: alias, owner: owner) { return version }
            let number = try stored { () throws(InstructionStoreError) in try store.nextAdapterNumber(owner: owner, name: name) }
            let row = AdapterVersionContent(
                digest: digest, baseName: base.name, baseDigest: base.digest, rank: canonical.maximumRank, pairCount: canonical.pairs.count,
                source: source.stored, configByteCount: config.count, weightsByteCount: weights.count,
                folder: AdapterFolders.folder(owner: owner, name: name, number: number))
            let version = AdapterVersion(
                owner: owner, name: name, number: number, digest: digest, baseName: base.name, baseDigest: base.digest, rank: row.rank,
                pairCount: row.pairCount, source: source, createdAt: currentTime, byteCount: row.byteCount)
            let adapter = try place(version, row, config: config, weights: weights)
            try commit(version, row, adapter, promote: promote, alias: alias)
            return version
        }
    }

    /// Puts a version's files where they belong, and packs what can be read from there. On an error nothing of them is left, and what was there before stays.
    private func place(_ version: AdapterVersion, _ row: AdapterVersionContent, config: [UInt8], weights: [UInt8]) throws(AdapterError) -> Adapter {
        let temporary = try folders.stage(config: config, weights: weights)
        do {
            try reach(.written)
            try folders.synchronize(temporary)
            try reach(.synced)
            try folders.makeParents(of: row.folder)
            try reach(.parentsMade)
            try folders.rename(temporary, to: row.folder)
        } catch {
            folders.remove(temporary)
            folders.removeEmptyParents(of: row.folder)
            throw error
        }
        do {
            try reach(.renamed)
            try folders.synchronizeParents(of: row.folder)
            try reach(.parentsSynced)
            let adapter = try pack(readBack(row).content, version)
            try reach(.verified)
            return adapter
        } catch {
            folders.remove(row.folder)
            throw error
        }
    }

    private func readBack(_ row: AdapterVersionContent) throws(AdapterError) -> VerifiedContent {
        do {
            return try Self.verifiedContent(AdapterTable.Files(row), digest: row.digest, in: folders, base: base)
        } catch {
            switch error {
            case .refused(let error): throw error
            case .damaged(let reason): throw AdapterError(.storage, "\(folders.path(reason)), right after it was written; check the disk")
            }
        }
    }

    private func commit(
        _ version: AdapterVersion, _ row: AdapterVersionContent, _ adapter: Adapter, promote: Bool, alias: String?
    ) throws(AdapterError) {
        let adapterRow: AdapterRow
        do {
            adapterRow = try store.insertAdapterVersion(
                row, owner: version.owner, name: version.name, number: version.number, promote: promote, alias: alias, at: version.createdAt)
        } catch {
            // Where the row may have reached the disk after all, the files stay: the next start serves both or removes them.
            if error.code != .failed { folders.remove(row.folder) }
            throw AdapterError(error)
        }
        let released = table.withLock { table in
            let key = VersionKey(version)
            let before = table.record(key.name)?.versions ?? []
            table.setFiles(key, AdapterTable.Files(row))
            if let alias { table.setAlias(NameKey(owner: version.owner, name: alias), key) }
            return table.set(adapterRow, versions: before + [version]) + table.resident.insert(adapter, as: key)
        }
        withExtendedLifetime(released) {}
        try? reach(.committed)
    }

    /// `Adapter` and the writers take these for granted.
    private func check(_ content: AdapterContent, _ name: String) throws(AdapterError) {
        guard !content.pairs.isEmpty else { throw AdapterError(.invalidArgument, "adapter '\(name)': it changes no projection, expected at least one pair") }
        var seen: Set<Int> = []
        for pair in content.pairs {
            let place = "adapter '\(name)', layer \(pair.layer), \(pair.projection)"
            guard (0..<base.configuration.layerCount).contains(pair.layer) else {
                throw AdapterError(.wrongBase, "\(place): the base \(base.name) has layers 0 to \(base.configuration.layerCount - 1)")
            }
            guard (1...Adapter.maximumRank).contains(pair.rank) else {
                throw AdapterError(.unsupported, "\(place): found rank \(pair.rank), expected 1 to \(Adapter.maximumRank)")
            }
            let shape = base.configuration.shape(of: pair.projection)
            guard pair.a.count == pair.rank * shape.columns, pair.b.count == shape.rows * pair.rank else {
                throw AdapterError(
                    .wrongBase,
                    "\(place): found \(pair.a.count) and \(pair.b.count) values, expected A [\(pair.rank), \(shape.columns)] and "
                        + "B [\(shape.rows), \(pair.rank)] for the base \(base.name)")
            }
            guard seen.insert(pair.layer * Projection.allCases.count + pair.projection.rawValue).inserted else {
                throw AdapterError(.invalidArgument, "\(place): found two pairs, expected one")
            }
        }
    }

    // MARK: Promoting

    public func promote(_ name: String, number: Int?, share: Double?, owner: String) throws(AdapterError) -> AdapterRecord {
        if let share, !(0...1).contains(share) {
            throw AdapterError(.invalidArgument, "adapter \(shown(name)): found a share of \(share), expected 0 to 1")
        }
        return try change(name, owner) { record throws(AdapterError) in
            if share == 0 { return try stored { () throws(InstructionStoreError) in try store.setAdapterCanary(id: record.id, nil) } }
            guard let version = number.map({ number in record.versions.first { $0.number == number } }) ?? record.versions.last else {
                throw notFound(name, number)
            }
            if let error = unusable(version) { throw error }
            guard let share, share < 1 else {
                return try stored { () throws(InstructionStoreError) in try store.promoteAdapter(id: record.id, number: version.number, at: currentTime) }
            }
            guard version.number != record.promoted else {
                throw AdapterError(
                    .conflict,
                    "adapter '\(name)': version \(version.number) is promoted and gets all requests; "
                        + "a share is for another version, and 0 ends a canary")
            }
            return try stored { () throws(InstructionStoreError) in try store.setAdapterCanary(id: record.id, (version.number, share)) }
        }
    }

    public func rollback(_ name: String, owner: String) throws(AdapterError) -> AdapterRecord {
        try change(name, owner) { record throws(AdapterError) in
            if record.canary != nil { return try stored { () throws(InstructionStoreError) in try store.setAdapterCanary(id: record.id, nil) } }
            let before = try stored { () throws(InstructionStoreError) in try store.adapterBeforePromoted(id: record.id) }
            guard let before, let version = record.versions.first(where: { $0.number == before }) else {
                throw AdapterError(
                    .conflict,
                    "adapter '\(name)': there is nothing to roll back to: no version was promoted before "
                        + "\(record.promoted ?? 0), or it was deleted; promote one by its number")
            }
            if let error = unusable(version) { throw AdapterError(error.code, "\(error.message); or promote another version by its number") }
            return try stored { () throws(InstructionStoreError) in try store.rollBackAdapter(id: record.id, at: currentTime) }
        }
    }

    public func setPinned(_ name: String, _ isPinned: Bool, owner: String) throws(AdapterError) -> AdapterRecord {
        try change(name, owner) { record throws(AdapterError) in
            try stored { () throws(InstructionStoreError) in try store.setAdapterPinned(id: record.id, isPinned) }
        }
    }

    /// Changes the row of a name in the store, then in the table.
    private func change(
        _ name: String, _ owner: String, _ body: (AdapterRecord) throws(AdapterError) -> AdapterRow
    ) throws(AdapterError) -> AdapterRecord {
        try changing { () throws(AdapterError) in
            let key = NameKey(owner: owner, name: name)
            guard let record = table.withLock({ $0.record(key) }) else { throw notFound(name) }
            let row = try body(record)
            let (changed, released) = table.withLock { table in
                let released = table.set(row, versions: record.versions)
                return (table.record(key), released)
            }
            withExtendedLifetime(released) {}
            guard let changed else { throw notFound(name) }
            return changed
        }
    }

    // MARK: Deleting

    public func delete(_ name: String, number: Int?, owner: String) throws(AdapterError) {
        try changing { () throws(AdapterError) in
            let key = NameKey(owner: owner, name: name)
            guard let record = table.withLock({ $0.record(key) }) else { throw notFound(name) }
            guard let number, record.versions.count > 1 else {
                if let number, record.versions.first?.number != number { throw notFound(name, number) }
                try stored { () throws(InstructionStoreError) in try store.deleteAdapter(id: record.id) }
                forget(record.versions.map(\.number), key) { $0.remove(key) }
                return
            }
            guard record.versions.contains(where: { $0.number == number }) else { throw notFound(name, number) }
            guard record.promoted != number else {
                throw AdapterError(
                    .conflict,
                    "adapter '\(name)': version \(number) is what the bare name stands for; promote another version first, "
                        + "or delete the name with all versions")
            }
            let row = try stored { () throws(InstructionStoreError) in try store.deleteAdapterVersion(id: record.id, number: number) }
            forget([number], key) { $0.remove(VersionKey(key, number)) + $0.set(row, versions: record.versions.filter { $0.number != number }) }
        }
    }

    /// Takes versions whose rows are gone out of the table, then their files away.
    private func forget(_ numbers: [Int], _ name: NameKey, _ body: (inout AdapterTable) -> [Adapter]) {
        let (gone, released) = table.withLock { table in
            let gone = numbers.compactMap { table.files(VersionKey(name, $0))?.folder }
            return (gone, body(&table))
        }
        withExtendedLifetime(released) {}
        try? reach(.rowsDeleted)
        for folder in gone { folders.remove(folder) }
    }
}
