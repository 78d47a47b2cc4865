import Modeling

/// A run's state as bytes: little-endian, a header, then values, first and second moments as float32, then two float64 for each reference.
struct TrainingSnapshot {
    var fingerprint: UInt64
    var completedSteps: Int
    var trainedTokenCount: Int
    var references: [(Double, Double)]

    private static let magic: UInt64 = 0x3130_5241_4654_4947  // "GITFAR01"
    private static let headerBytes = 48

    init(fingerprint: UInt64, completedSteps: Int, trainedTokenCount: Int, references: [(Double, Double)]) {
        self.fingerprint = fingerprint
        self.completedSteps = completedSteps
        self.trainedTokenCount = trainedTokenCount
        self.references = references
    }

    func encoded(_ parameters: AdapterParameters) -> [UInt8] {
        let count = parameters.layout.count
        var bytes: [UInt8] = []
        bytes.reserveCapacity(TrainingSnapshot.headerBytes + 12 * count + 16 * references.count)
        for word in [Self.magic, fingerprint, UInt64(completedSteps), UInt64(trainedTokenCount), UInt64(count), UInt64(references.count)] {
            withUnsafeBytes(of: word.littleEndian) { bytes += $0 }
        }
        for part in [parameters.values, parameters.firstMoments, parameters.secondMoments] {
            bytes += UnsafeRawBufferPointer(start: part, count: 4 * count)
        }
        for (chosen, rejected) in references {
            withUnsafeBytes(of: chosen.bitPattern.littleEndian) { bytes += $0 }
            withUnsafeBytes(of: rejected.bitPattern.littleEndian) { bytes += $0 }
        }
        return bytes
    }

    init(decoding bytes: [UInt8], into parameters: AdapterParameters) throws(TrainingError) {
        let count = parameters.layout.count
        guard bytes.count >= Self.headerBytes else { throw Self.damaged("\(bytes.count) bytes, expected at least \(Self.headerBytes)") }
        let words = bytes.withUnsafeBytes { memory in
            (0..<6).map { UInt64(littleEndian: memory.loadUnaligned(fromByteOffset: 8 * $0, as: UInt64.self)) }
        }
        guard words[0] == Self.magic else { throw Self.damaged("another beginning than a snapshot's") }
        guard let steps = Int(exactly: words[2]), let tokens = Int(exactly: words[3]), words[4] == UInt64(count), let pairs = Int(exactly: words[5]),
            pairs <= bytes.count / 16, bytes.count == Self.headerBytes + 12 * count + 16 * pairs
        else {
            throw Self.damaged("\(bytes.count) bytes for \(words[4]) numbers and \(words[5]) references, expected \(count) numbers")
        }
        bytes.withUnsafeBytes { memory in
            for (i, part) in [parameters.values, parameters.firstMoments, parameters.secondMoments].enumerated() {
                UnsafeMutableRawBufferPointer(start: part, count: 4 * count)
                    .copyMemory(from: UnsafeRawBufferPointer(rebasing: memory[Self.headerBytes + 4 * count * i..<Self.headerBytes + 4 * count * (i + 1)]))
            }
        }
        let start = Self.headerBytes + 12 * count
        references = bytes.withUnsafeBytes { memory in
            (0..<pairs).map { i in
                func value(_ offset: Int) -> Double { Double(bitPattern: UInt64(littleEndian: memory.loadUnaligned(fromByteOffset: offset, as: UInt64.self))) }
                return (value(start + 16 * i), value(start + 16 * i + 8))
            }
        }
        fingerprint = words[1]
        completedSteps = steps
        trainedTokenCount = tokens
    }

    private static func damaged(_ what: String) -> TrainingError { TrainingError(.invalidSnapshot, "snapshot: found \(what); it is damaged or of another run") }

    /// FNV-1a over everything that decides what a run computes, apart from the weights.
    static func fingerprint(_ plan: TrainingPlan, _ layout: AdapterLayout) -> UInt64 {
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        func add(_ value: UInt64) {
            var value = value
            for _ in 0..<8 {
                hash = (hash ^ (value & 255)) &* 0x100_0000_01b3
                value >>= 8
            }
        }
        let c = plan.configuration
        switch c.method {
        case .supervised: add(0)
        case .preference(let beta): add(1); add(beta.bitPattern)
        }
        for number in [c.epochs, c.batchSize, c.rank, c.microBatchTokens, c.packs ? 1 : 0, c.precision == .float32 ? 0 : 1, layout.count] { add(UInt64(number)) }
        for number in [c.learningRate, c.warmupRatio, c.weightDecay, c.maximumGradientNorm, c.alpha, c.dropout, c.neftuneAlpha] { add(number.bitPattern) }
        add(UInt64(TrainingConfiguration.Schedule.allCases.firstIndex(of: c.schedule)!))
        add(c.seed)
        for slot in layout.slots {
            add(UInt64(slot.layer * Projection.allCases.count + slot.projection.rawValue))
            add(UInt64(slot.rank))
            add(UInt64(slot.scale.bitPattern))
        }
        func add(_ example: TokenizedExample) {
            add(UInt64(example.tokens.count))
            for (token, isTrained) in zip(example.tokens, example.isTrained) { add(UInt64(UInt32(bitPattern: token)) << 1 | (isTrained ? 1 : 0)) }
        }
        for examples in [plan.training, plan.validation].compactMap({ $0 }) {
            add(UInt64(examples.count))
            switch examples {
            case .supervised(let examples): for example in examples { add(example) }
            case .preference(let pairs): for pair in pairs { add(pair.chosen); add(pair.rejected) }
            }
        }
        return hash
    }
}
