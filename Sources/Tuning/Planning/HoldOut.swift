import Training

/// Parts examples into those that are trained on and those that only judge: drawn by the seed, each part in the data's own order.
package enum HoldOut {
    package static func split(_ examples: TrainingExamples, heldOut: Int, seed: UInt64) -> (training: TrainingExamples, validation: TrainingExamples?) {
        guard heldOut > 0, heldOut < examples.count else { return (examples, nil) }
        let chosen = indices(of: examples.count, choosing: heldOut, seed: seed)
        switch examples {
        case .supervised(let all):
            let (kept, held) = part(all, chosen)
            return (.supervised(kept), .supervised(held))
        case .preference(let all):
            let (kept, held) = part(all, chosen)
            return (.preference(kept), .preference(held))
        }
    }

    private static func part<Element>(_ all: [Element], _ chosen: Set<Int>) -> (kept: [Element], held: [Element]) {
        var kept: [Element] = [], held: [Element] = []
        for (index, element) in all.enumerated() {
            if chosen.contains(index) { held.append(element) } else { kept.append(element) }
        }
        return (kept, held)
    }

    /// A partial Fisher–Yates shuffle.
    package static func indices(of count: Int, choosing wanted: Int, seed: UInt64) -> Set<Int> {
        var random = SeededGenerator(seed: seed)
        var order = Array(0..<count)
        for place in 0..<min(wanted, count) {
            order.swapAt(place, place + Int(random.next() % UInt64(count - place)))
        }
        return Set(order.prefix(wanted))
    }
}

/// SplitMix64: the same numbers in every process and every version of the standard library.
struct SeededGenerator {
    private var state: UInt64

    init(seed: UInt64) {
        // Other numbers than those that a trainer draws from the same seed.
        state = seed ^ 0x6865_6C64_206F_7574
    }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var word = state
        word = (word ^ (word >> 30)) &* 0xBF58_476D_1CE4_E5B9
        word = (word ^ (word >> 27)) &* 0x94D0_49BB_1331_11EB
        return word ^ (word >> 31)
    }
}
