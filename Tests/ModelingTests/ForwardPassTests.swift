import Kernels
import Modeling
import Testing

/// A row's numbers do not depend on its company (bit for bit), and a LoRA delta is what adding B A to the weights would be.
struct ForwardPassTests {
    struct Fixture {
        let model: LanguageModel
        let pool: ComputePool
        let cache: KVCache
        let pass: ForwardPass

        init(_ name: String, numerics: Numerics, threads: Int = 2, variant: KernelVariant? = nil, precision: KVCache.Precision? = nil, windowBlocks: Int? = nil) throws {
            pool = try ComputePool(threads: threads)
            model = try TinyModelTests.model(name, pool: pool)
            let c = model.configuration
            cache = try KVCache(
                layers: c.layerCount, windowedLayers: windowBlocks == nil ? [] : c.windowedLayers, kvHeads: c.kvHeadCount, headDim: c.headDim, blockCount: 64,
                windowBlockCount: windowBlocks ?? 0, precision: precision ?? (numerics == .exact ? .float32 : .float16))
            pass = try ForwardPass(
                model: model, cache: cache, variant: variant ?? KernelVariant(), pool: pool, numerics: numerics, maximumRows: 1024, maximumLogitsRows: 64)
        }

        /// Logits of the last row of each segment.
        func run(_ segments: [ForwardSegment]) -> [[UInt32]] {
            let count = pass.run(segments)
            let logits = pass.logits(of: 0..<count)
            return (0..<count).map { logits[$0].map(\.bitPattern) }
        }
    }

    static let architectures = ["llama-mixed", "qwen2", "qwen3", "gemma3"]

    static func prompt(_ seed: UInt64, _ count: Int, _ vocabulary: Int) -> [Int32] {
        var state = seed &* 0x9e37_79b9_7f4a_7c15 | 1
        return (0..<count).map { _ in
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int32(state >> 33) % Int32(vocabulary)
        }
    }

    @Test(arguments: architectures, [Numerics.fast, .exact])
    func batchedIsAlone(name: String, numerics: Numerics) throws {
        let fixture = try Fixture(name, numerics: numerics)
        let vocabulary = fixture.model.configuration.vocabularySize
        let lengths = [1, 2, 3, 5, 8, 13, 21, 31, 32, 33, 40, 47, 64, 65, 70, 90]
        let prompts = lengths.enumerated().map { ForwardPassTests.prompt(UInt64($0.offset + 1), $0.element, vocabulary) }
        let tables = (0..<16).map { i in (0..<4).map { Int32(i * 4 + $0) } }
        let together = fixture.run(zip(prompts, tables).map { ForwardSegment(tokens: $0, position: 0, blocks: $1, logits: .last) })
        // One more step for all, so that decode rows are compared as well.
        let following = fixture.run(prompts.indices.map { ForwardSegment(tokens: [prompts[$0][0]], position: lengths[$0], blocks: tables[$0], logits: .last) })
        for i in prompts.indices {
            let single = try Fixture(name, numerics: numerics, threads: 1)
            #expect(single.run([ForwardSegment(tokens: prompts[i], position: 0, blocks: [9, 2, 33, 0], logits: .last)]) == [together[i]], "prompt of \(lengths[i])")
            #expect(
                single.run([ForwardSegment(tokens: [prompts[i][0]], position: lengths[i], blocks: [9, 2, 33, 0], logits: .last)]) == [following[i]],
                "token after \(lengths[i])")
        }
    }

    @Test(arguments: architectures, [Numerics.fast, .exact])
    func chunkedIsWhole(name: String, numerics: Numerics) throws {
        let prompt = ForwardPassTests.prompt(7, 90, try Fixture(name, numerics: numerics).model.configuration.vocabularySize)
        let whole = try Fixture(name, numerics: numerics).run([ForwardSegment(tokens: prompt, position: 0, blocks: [0, 1, 2], logits: .last)])
        for cuts in [[1, 2, 33], [32, 64], [89], Array(1..<90)] {
            let fixture = try Fixture(name, numerics: numerics)
            var last: [[UInt32]] = []
            for (start, end) in zip([0] + cuts, cuts + [90]) {
                last = fixture.run([ForwardSegment(tokens: Array(prompt[start..<end]), position: start, blocks: [3, 60, 5], logits: .last)])
            }
            #expect(last == whole, "cut at \(cuts)")
        }
    }

    /// Rows without logits leave the last layer early: that changes nothing for those beside them, nor for what follows on their keys and values.
    @Test(arguments: architectures, [Numerics.fast, .exact])
    func rowsWithoutLogitsLeaveTheOthersAlone(name: String, numerics: Numerics) throws {
        let fixture = try Fixture(name, numerics: numerics)
        let vocabulary = fixture.model.configuration.vocabularySize
        let prompts = (0..<4).map { ForwardPassTests.prompt(UInt64(30 + $0), 30 + 5 * $0, vocabulary) }
        func segment(_ i: Int, _ wanted: LogitsWanted, at block: Int32) -> ForwardSegment {
            ForwardSegment(tokens: prompts[i], position: 0, blocks: [block, block + 1], logits: wanted)
        }
        let all = (0..<4).map { fixture.run([segment($0, .all, at: Int32(2 * $0))]) }
        let mixed = fixture.run([segment(0, .none, at: 10), segment(1, .all, at: 12), segment(2, .last, at: 14), segment(3, .none, at: 16)])
        #expect(mixed == all[1] + [all[2].last!])
        #expect(fixture.run([segment(0, .none, at: 20), segment(3, .none, at: 22)]).isEmpty)
        // The keys and values of a prompt that wanted nothing.
        let next = ForwardSegment(tokens: [3], position: 45, blocks: [22, 23], logits: .last), other = ForwardSegment(tokens: [3], position: 45, blocks: [6, 7], logits: .last)
        #expect(fixture.run([next]) == fixture.run([other]))
    }

    /// Local layers that have no more blocks than their windows need, written over and over, compute what they compute on a cache that keeps everything.
    @Test(arguments: ["gemma3", "gemma3-scaled"], [Numerics.fast, .exact])
    func blocksBehindTheWindowAreNotMissed(name: String, numerics: Numerics) throws {
        // The rows of a chunk and what they see begin anywhere in a block.
        let most = 64, plain = try Fixture(name, numerics: numerics), window = try #require(plain.model.configuration.slidingWindow)
        let count = (window - 1 + most - 2) / KVCache.blockTokens + 2
        let fixture = try Fixture(name, numerics: numerics, windowBlocks: count), blocks = (0..<16).map { Int32($0 * 7 % 16) }
        #expect(fixture.cache.byteCount < plain.cache.byteCount / 2)
        let prompt = ForwardPassTests.prompt(9, 512, plain.model.configuration.vocabularySize)
        var start = 0
        for rows in [5, 64, 1, 30, 64, 64, 31, 1, 32, 64, 63, 1, 1, 64, 27] {
            let chunk = Array(prompt[start..<start + rows])
            let needed = max(start - window + 1, 0) / KVCache.blockTokens..<(start + rows + KVCache.blockTokens - 1) / KVCache.blockTokens
            let expected = plain.run([ForwardSegment(tokens: chunk, position: start, blocks: blocks, logits: .all)])
            let found = fixture.run([
                ForwardSegment(
                    tokens: chunk, position: start, blocks: Array(blocks[..<needed.upperBound]), windowBlocks: needed.map { Int32($0 % count) }, logits: .all)
            ])
            #expect(found == expected, "\(rows) rows from \(start)")
            start += rows
        }
        #expect(start == prompt.count)
    }

    @Test(arguments: architectures)
    func everyInstructionSetGivesEqualLogits(name: String) throws {
        var results: [[[UInt32]]] = []
        for variant in KernelVariant.available {
            for numerics in [Numerics.fast, .exact] {
                let fixture = try Fixture(name, numerics: numerics, variant: variant)
                let prompt = ForwardPassTests.prompt(3, 50, fixture.model.configuration.vocabularySize)
                results.append(fixture.run([ForwardSegment(tokens: prompt, position: 0, blocks: [0, 1], logits: .last)]))
            }
        }
        for (i, result) in results.enumerated() { #expect(result == results[i % 2], "\(KernelVariant.available[i / 2])") }
    }

    @Test func eightBitCacheStaysClose() throws {
        var logits: [[Float]] = []
        for precision in [KVCache.Precision.float32, .int8] {
            let fixture = try Fixture("llama", numerics: .exact, precision: precision)
            let prompt = ForwardPassTests.prompt(5, 80, fixture.model.configuration.vocabularySize)
            logits.append(fixture.run([ForwardSegment(tokens: prompt, position: 0, blocks: [0, 1, 2], logits: .last)])[0].map { Float(bitPattern: $0) })
        }
        let spread = logits[0].max()! - logits[0].min()!
        #expect(zip(logits[0], logits[1]).allSatisfy { abs($0 - $1) < 0.02 * spread })
        #expect(logits[0] != logits[1])
    }

    /// y = W x + s B (A x) for every projection, on the rows of its own sequence only.
    @Test(arguments: [Numerics.exact, .fast])
    func adaptersChangeTheirOwnRowsOnly(numerics: Numerics) throws {
        let fixture = try Fixture("llama", numerics: numerics)
        let c = fixture.model.configuration
        var random = RandomFloats(state: 21)
        func values(_ count: Int) -> [Float] { (0..<count).map { _ in random.next() * 0.1 } }
        var pairs: [LowRankPair] = []
        for layer in 0..<c.layerCount {
            for projection in Projection.allCases {
                let shape = c.shape(of: projection)
                pairs.append(
                    LowRankPair(layer: layer, projection: projection, scale: 2, rank: 4, a: values(4 * shape.columns), b: values(shape.rows * 4)))
            }
        }
        let adapter = try Adapter(name: "test", version: 1, digest: "d", configuration: c, numerics: numerics, pairs: pairs)
        let prompt = ForwardPassTests.prompt(2, 40, c.vocabularySize)
        func segment(_ blocks: [Int32], _ adapters: AdapterSet) -> ForwardSegment {
            ForwardSegment(tokens: prompt, position: 0, blocks: blocks, adapters: adapters, logits: .last)
        }
        let base = fixture.run([segment([0, 1], .none)])[0]
        let alone = fixture.run([segment([2, 3], AdapterSet([(adapter, 0.5)]))])[0]
        let mixed = fixture.run([
            segment([4, 5], .none), segment([6, 7], AdapterSet([(adapter, 0.5)])), segment([8, 9], .none), segment([10, 11], AdapterSet([(adapter, 0.25), (adapter, 0.25)])),
        ])
        #expect(mixed[0] == base && mixed[2] == base)
        #expect(mixed[1] == alone)
        #expect(alone != base)
        // Two halves of an adapter are the adapter, within rounding.
        let halves = zip(mixed[3], alone).map { abs(Float(bitPattern: $0) - Float(bitPattern: $1)) }.max()!
        #expect(halves < (numerics == .exact ? 1e-4 : 0.1))
        let change = zip(base, alone).map { abs(Float(bitPattern: $0) - Float(bitPattern: $1)) }.max()!
        #expect(change > 0.01)
    }

    /// Rows that leave the last layer early take their adapters with them, and those alone: whoever stays has its own, however many others there were.
    @Test(arguments: [Numerics.exact, .fast])
    func adaptersOfRowsWithoutLogitsLeaveWithThem(numerics: Numerics) throws {
        let fixture = try Fixture("llama", numerics: numerics)
        let c = fixture.model.configuration
        var random = RandomFloats(state: 22)
        func adapter(_ name: String, rank: Int, _ projections: [Projection]) throws -> Adapter {
            var pairs: [LowRankPair] = []
            for layer in 0..<c.layerCount {
                for projection in projections {
                    let shape = c.shape(of: projection)
                    func values(_ count: Int) -> [Float] { (0..<count).map { _ in random.next() * 0.1 } }
                    pairs.append(LowRankPair(layer: layer, projection: projection, scale: 2, rank: rank, a: values(rank * shape.columns), b: values(shape.rows * rank)))
                }
            }
            return try Adapter(name: name, version: 1, digest: name, configuration: c, numerics: numerics, pairs: pairs)
        }
        let x = try adapter("x", rank: 4, Projection.allCases), wide = try adapter("wide", rank: 16, Projection.allCases)
        let narrow = try adapter("narrow", rank: 8, [.q, .up]), blend = AdapterSet((0..<8).map { (try! adapter("blend \($0)", rank: 4, Projection.allCases), 0.125) })
        var next: Int32 = 0
        func segment(_ prompt: Int, _ adapters: AdapterSet, _ wanted: LogitsWanted) -> ForwardSegment {
            defer { next += 2 }
            return ForwardSegment(
                tokens: ForwardPassTests.prompt(UInt64(prompt), 33 + prompt, c.vocabularySize), position: 0, blocks: [next % 64, next % 64 + 1], adapters: adapters, logits: wanted)
        }
        let own = AdapterSet([(x, 0.5)]), others = [AdapterSet([(wide, 1)]), AdapterSet([(narrow, 1)]), blend, .none]
        let mine = fixture.run([segment(1, own, .last)]), base = fixture.run([segment(2, .none, .last)]), blended = fixture.run([segment(3, blend, .last)])
        #expect(mine != fixture.run([segment(1, .none, .last)]) && blended != fixture.run([segment(3, .none, .last)]))
        for other in others {
            #expect(fixture.run([segment(1, own, .last), segment(4, other, .none)]) == mine)
            #expect(fixture.run([segment(4, other, .none), segment(1, own, .last)]) == mine)
            #expect(fixture.run([segment(2, .none, .last), segment(4, other, .none)]) == base)
            #expect(fixture.run([segment(3, blend, .last), segment(4, other, .none), segment(5, AdapterSet([(wide, 0.5), (narrow, 1), (x, 1)]), .none)]) == blended)
        }
        let kept = fixture.run([
            segment(4, others[0], .none), segment(1, own, .last), segment(5, others[1], .none), segment(2, .none, .last), segment(3, blend, .last), segment(1, own, .last),
        ])
        #expect(kept == mine + base + blended + mine)
    }

    struct RandomFloats {
        var state: UInt64
        mutating func next() -> Float {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Float(Int32(truncatingIfNeeded: state >> 32)) / Float(Int32.max)
        }
    }
}
