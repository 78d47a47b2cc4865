/// Preemption: when the sequences that decode need more blocks than there are, somebody steps back. Its blocks go to the pool, where those that are full can be
/// found until they are evicted, and it waits in the queue, at the place of its arrival, that is before its owner's later requests. When it is admitted again, its
/// prompt and its answer so far are found in the cache or computed anew, to the same bits, and it goes on.
///
/// **Who.** Of those that are paused, and so use their blocks for nothing, or else of all: the owner's whose sequences hold the most blocks, promised ones
/// included, and of those the last one in order, in which one owner's go by priority. An owner that fills the cache thereby makes room for the others, not the
/// others for it, however long it has been there. For those that wait only paused ones step back (`admit`). Drafts make nobody step back: they take what is left.
///
/// **Why that ends.** The first in order that is not paused, the head, never steps back, so it gets its rows step by step and comes to its end: `check` has seen
/// that it fits, alone if need be. The places in the order are those of first admissions. Preemption leaves a sequence its place, and owners trade places only
/// among their own sequences, so ahead of a place there are ever fewer others, and one day its holder is the head. A sequence that waits is admitted again when
/// its owner's turn comes, as the shares have it (what it computes anew is not charged to its owner), and from then on nobody overtakes it while it waits for its
/// blocks. So no two can take the same blocks from each other for ever. An owner each of whose requests is more urgent than those before it hands its places
/// on without end; then it is the shares alone that hold it back.
extension Scheduler {
    /// Preempts until each sequence that decodes can have the block that its next token needs. Comes before any row of the step: who has rows keeps its blocks.
    mutating func makeRoom(_ plan: inout StepPlan) {
        while blocksNeeded > pool.unreserved {
            guard let victim = nextVictim() else { preconditionFailure("the cache is too small for the first sequence in order") }
            preempt(victim, &plan)
        }
    }

    private var blocksNeeded: Int { order.count { slots[$0]!.needsBlock } }

    private func nextVictim() -> Int? {
        let head = order.first { !slots[$0]!.isPaused }
        var held: [String: Double] = [:]
        for slot in order { held[account(of: slots[slot]!), default: 0] += pool.share(of: slots[slot]!.blockTable) + Double(slots[slot]!.reservedBlocks) }
        var best: (rank: (Int, Int, Double), slot: Int)?
        for slot in order where slot != head {
            let sequence = slots[slot]!
            // Whose blocks are all shared makes no room by giving them up. That is of use only when the others that share them have done so.
            let helps = sequence.needsBlock || sequence.reservedBlocks > 0 || pool.hasOwnBlock(sequence.blockTable)
            let rank = (helps ? 1 : 0, sequence.isPaused ? 1 : 0, held[account(of: sequence)]!)
            if let best, best.rank > rank { continue }
            best = (rank, slot)
        }
        return best?.slot
    }

    /// Takes a running sequence's slot and blocks and puts it back into the queue.
    mutating func preempt(_ slot: Int, _ plan: inout StepPlan) {
        var sequence = vacate(slot)
        plan.preemptions.append(sequence.id)
        sequence.leaveCache()
        places[sequence.id] = .waiting
        waiting.insert(sequence, at: waiting.firstIndex { $0.arrival > sequence.arrival } ?? waiting.endIndex)
        preemptions += 1
    }
}
