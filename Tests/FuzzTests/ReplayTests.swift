import FuzzTargets
import Testing

/// What `Scripts/fuzz` runs for minutes, here for a moment: the seeds, everything that once broke a promise, and some hundred inputs made of them.
@Suite struct ReplayTests {
    @Test(arguments: FuzzTarget.allCases) func everyKeptInputHoldsThePromises(target: FuzzTarget) throws {
        let inputs = try FuzzCorpus.inputs(of: target)
        #expect(inputs.count >= 7)
        for input in inputs {
            #expect(throws: Never.self, "\(input.path)") { try target.run(input.bytes) }
        }
    }

    /// References are patterns, and a pattern that matches nothing would go unnoticed.
    @Test(arguments: [(FuzzTarget.gguf, 4 + 8), (.safetensors, 10), (.template, 10)]) func referencesAreFound(target: FuzzTarget, least: Int) throws {
        #expect(try FuzzCorpus.inputs(of: target).count { !$0.path.hasPrefix("Tests/FuzzTests/") } >= least)
    }

    /// Cut, changed, doubled and joined: the same inputs in every run.
    @Test(arguments: FuzzTarget.allCases) func damagedInputsHoldThePromises(target: FuzzTarget) throws {
        let inputs = try FuzzCorpus.inputs(of: target).map(\.bytes).filter { $0.count <= 4096 }
        var random = Damage(seed: UInt64(target.rawValue.utf8.count))
        for _ in 0..<400 {
            let bytes = random.damaged(inputs)
            #expect(throws: Never.self, "\(bytes)") { try target.run(bytes) }
        }
    }
}

/// Makes inputs out of others.
private struct Damage: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    /// SplitMix64.
    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }

    mutating func damaged(_ inputs: [[UInt8]]) -> [UInt8] {
        var bytes = inputs.randomElement(using: &self) ?? []
        for _ in 0..<Int.random(in: 1...4, using: &self) {
            let place = Int.random(in: 0...bytes.count, using: &self)
            switch Int.random(in: 0..<6, using: &self) {
            case 0: bytes.insert(UInt8.random(in: 0...255, using: &self), at: place)
            case 1 where place < bytes.count: bytes[place] = UInt8.random(in: 0...255, using: &self)
            case 2 where place < bytes.count: bytes[place] ^= 1 << UInt8.random(in: 0..<8, using: &self)
            case 3: bytes.removeSubrange(place..<min(bytes.count, place + Int.random(in: 1...8, using: &self)))
            case 4: bytes.insert(contentsOf: bytes[place...].prefix(Int.random(in: 1...64, using: &self)), at: place)
            default: bytes.replaceSubrange(place..., with: inputs.randomElement(using: &self)?.suffix(Int.random(in: 0...200, using: &self)) ?? [])
            }
        }
        return bytes
    }
}
