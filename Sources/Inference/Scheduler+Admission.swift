extension Scheduler {
    /// Takes in whom the slots and the pool have room for: a sequence needs the blocks of what it comes with, and as many more must be left as there would then be
    /// sequences that still grow. So each of those has a block, that is `BlockPool.blockSize` tokens, before somebody has to be preempted: with no such room an
    /// admission would cost somebody his blocks in one of the next steps, mostly the newcomer itself, and its prompt would have been computed for nothing. Who
    /// comes to an idle engine needs no room beside his own. Before somebody has to wait for room, those that are paused give up theirs, the last in order first.
    mutating func admit(_ plan: inout StepPlan) {
        while order.count < slots.count, let index = nextWaiting() {
            let next = waiting[index]
            let blocks = BlockPool.blocks(for: next.tokens.count)
            let growing = order.count { slots[$0]!.mayGrow && !slots[$0]!.isPaused } + (BlockPool.blocks(for: next.finalCount) > blocks ? 1 : 0)
            guard
                let cached = pool.admit(next.tokens, seed: next.seed, totalBlocks: blocks, findable: next.findable, headRoom: order.isEmpty ? 0 : growing)
            else {
                assert(!order.isEmpty, "\(next.id) does not fit an idle pool")
                guard let idle = order.last(where: { slots[$0]!.isPaused }) else { return }
                preempt(idle, &plan)
                continue
            }
            var sequence = waiting.remove(at: index)
            let slot = slots.firstIndex { $0 == nil }!
            self.cachedTokens += UInt64(sequence.skip(to: cached.count * BlockPool.blockSize))
            sequence.registeredBlocks = cached.count
            sequence.blockTable = cached
            sequence.firstInWindow = pool.firstInWindow(at: sequence.computed)
            sequence.reservedBlocks = blocks - cached.count
            places[next.id] = .running(slot: slot)
            if sequence.seniority == nil {
                admissions += 1
                sequence.seniority = admissions
                sequence.tokens.reserveCapacity(sequence.finalCount + 1)
                plan.admissions.append(StepPlan.Admission(sequence: next.id, slot: slot, cachedTokens: sequence.cachedTokens))
            }
            slots[slot] = sequence
            enter(slot)
        }
    }

    /// Gives an occupied slot its place in the order. The places of one owner's sequences go to the most urgent ones first. So the order alone says who of one
    /// owner comes before whom, and no priority brings anybody past a stranger.
    private mutating func enter(_ slot: Int) {
        let entered = slots[slot]!, owner = account(of: entered)
        order.insert(slot, at: order.firstIndex { slots[$0]!.seniority! > entered.seniority! } ?? order.endIndex)
        let own = order.indices.filter { account(of: slots[order[$0]]!) == owner }
        let places = own.map { slots[order[$0]]!.seniority! }
        let ranked = own.map { order[$0] }.sorted { (slots[$0]!.priority, slots[$0]!.seniority!) < (slots[$1]!.priority, slots[$1]!.seniority!) }
        for (i, slot) in ranked.enumerated() {
            order[own[i]] = slot
            slots[slot]!.seniority = places[i]
        }
    }

    /// Who is admitted next: an index of `waiting`.
    private func nextWaiting() -> Int? {
        switch configuration.admissionOrder {
        case .arrival:
            guard order.count < configuration.maxSequences else { return nil }
            return mostUrgent { _ in true }
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
            guard let best else { return nil }
            let owner = waiting[best.index].seed.owner
            return mostUrgent { $0.seed.owner == owner }
        }
    }

    /// The waiting sequence of the lowest priority number, and of those the first to come.
    private func mostUrgent(where isCandidate: (ScheduledSequence) -> Bool) -> Int? {
        var best: (index: Int, priority: Int)?
        for (index, entry) in waiting.enumerated() where !entry.isPaused && isCandidate(entry) {
            if let best, best.priority <= entry.priority { continue }
            best = (index, entry.priority)
        }
        return best?.index
    }
}
