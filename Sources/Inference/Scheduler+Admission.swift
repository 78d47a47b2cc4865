extension Scheduler {
    /// Takes in whom the slots and the pool have room for.
    mutating func admit(_ plan: inout StepPlan) {
        while order.count < slots.count, let index = nextWaiting() {
            let next = waiting[index]
            let blocks = BlockPool.blocks(for: next.finalCount)
            guard
                let cached = pool.admit(next.tokens, seed: next.seed, totalBlocks: blocks, usesCache: !next.wantsPromptLogprobs)
            else {
                assert(!order.isEmpty, "\(next.id) does not fit an idle pool")
                return
            }
            var sequence = waiting.remove(at: index)
            let slot = slots.firstIndex { $0 == nil }!
            let cachedTokens = cached.count * BlockPool.blockSize
            sequence.tokens.reserveCapacity(next.finalCount + 1)
            sequence.computed = cachedTokens
            sequence.cachedTokens = cachedTokens
            sequence.registeredBlocks = cached.count
            sequence.blockTable = cached
            sequence.reservedBlocks = blocks - cached.count
            slots[slot] = sequence
            order.append(slot)
            places[next.id] = .running(slot: slot)
            self.cachedTokens += UInt64(cachedTokens)
            plan.admissions.append(StepPlan.Admission(sequence: next.id, slot: slot, cachedTokens: cachedTokens))
        }
    }

    /// Who is admitted next: an index of `waiting`.
    private func nextWaiting() -> Int? {
        switch configuration.admissionOrder {
        case .arrival:
            guard order.count < configuration.maxSequences else { return nil }
            return waiting.firstIndex { !$0.isPaused }
        case .fairByOwner:
            let isSpare = order.count >= configuration.maxSequences
            if isSpare, shares.ownerCount < 2 { return nil }
            let running = runningByOwner
            var best: (index: Int, rows: UInt64, running: Int)?
            for (index, entry) in waiting.enumerated() where !entry.isPaused {
                let owner = entry.seed.owner
                let rows = shares.rows(of: owner), own = running[owner] ?? 0
                if isSpare, own > 0 { continue }
                if let best, (best.rows, best.running) <= (rows, own) { continue }
                best = (index, rows, own)
            }
            return best?.index
        }
    }
}
