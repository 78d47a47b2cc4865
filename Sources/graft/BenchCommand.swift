import ArgumentParser
import Inference
import JSON
import Kernels
import Modeling
import Training

struct BenchCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bench",
        abstract: "Measure how fast a model reads a prompt (prefill) and writes an answer (decode).",
        discussion: """
            The model runs alone, without server or sampling, on random tokens. Each figure is the median of the repetitions. With --train it measures how \
            fast an adapter is trained instead.
            """)

    @OptionGroup var options: ModelOptions
    @Option(help: "Tokens of the prompt.")
    var prefill = 512
    @Option(help: "Tokens of the answer, one at a time after the prompt.")
    var decode = 128
    @Option(help: "Sequences that decode together.")
    var sequences = 1
    @Option(help: "Random adapters on every projection, dealt out to the sequences in turn; the base alone is measured in the same run, in turns step by step.")
    var adapters = 0
    @Option(help: "The adapters' rank.")
    var rank = 16
    @Option(help: "Measure training, on examples of this many tokens, instead of prefill and decode.")
    var train: Int?
    @Option(help: "With --train: examples of one step.")
    var batch = 8
    @Option(help: "With --train: tokens of each example that the loss counts, at its end. Default: all.")
    var trained: Int?
    @Option(help: "With --train: float32 or bfloat16. Default: the faster one on this machine.")
    var precision: TrainingConfiguration.Precision?
    @Flag(help: "With --train: train the same once more in whole operations, in turns step by step; the share of their speed that remains is what sharing costs.")
    var compareUnits = false
    @Option(help: "Repetitions.")
    var `repeat` = 3
    @Flag(help: "Print one JSON object instead of a table.")
    var json = false

    func validate() throws {
        guard prefill > 0, decode > 0, `repeat` > 0 else { throw ValidationError("--prefill, --decode and --repeat take numbers from 1 up.") }
        guard (1...256).contains(sequences) else { throw ValidationError("--sequences takes 1 to 256, not \(sequences).") }
        guard (0...256).contains(adapters), (1...Adapter.maximumRank).contains(rank) else {
            throw ValidationError("--adapters takes 0 to 256 and --rank 1 to \(Adapter.maximumRank).")
        }
        if let train { guard train > 1, batch > 0, (1..<train).contains(trained ?? 1) else { throw ValidationError("--train takes 2 tokens and more, --batch 1 and more, --trained fewer than --train.") } }
        guard train != nil || !compareUnits else { throw ValidationError("--compare-units belongs to --train.") }
        guard adapters <= sequences else { throw ValidationError("--adapters \(adapters) need as many --sequences to be dealt out to, not \(sequences).") }
    }

    func run() async throws {
        let (_, settings) = try options.engineSettings()
        let loaded = try LoadedModel(settings)
        if let train { return try measureTraining(loaded, tokens: train) }
        let exact = settings.exact
        let c = loaded.model.configuration
        guard prefill <= c.contextLength, decode <= c.contextLength - prefill else {
            throw CommandError("--prefill \(prefill) and --decode \(decode) do not fit the model's context of \(c.contextLength)")
        }
        let blocksEach = (prefill + decode + KVCache.blockTokens - 1) / KVCache.blockTokens
        let adapters = try (0..<adapters).map { try randomAdapter(number: $0, c, exact ? .exact : .fast) }
        // The base, and beside it the same sequences with adapters.
        let runs = adapters.isEmpty ? 1 : 2
        let cache = try KVCache(
            layers: c.layerCount, kvHeads: c.kvHeadCount, headDim: c.headDim, blockCount: blocksEach * sequences * runs, precision: exact ? .float32 : settings.cachePrecision)
        let pass = try ForwardPass(
            model: loaded.model, cache: cache, variant: loaded.variant, pool: loaded.pool, numerics: exact ? .exact : .fast,
            maximumRows: max(512, sequences), maximumLogitsRows: sequences)
        var random = SystemRandomNumberGenerator()
        let prompt = (0..<prefill).map { _ in Int32.random(in: 0..<Int32(c.vocabularySize), using: &random) }
        let clock = ContinuousClock()
        let tables = (0..<runs * sequences).map { s in (0..<blocksEach).map { Int32(s * blocksEach + $0) } }
        let sets = (0..<runs * sequences).map { $0 < sequences ? AdapterSet.none : AdapterSet([(adapters[$0 % sequences % adapters.count], 1)]) }
        func seconds(_ segments: [ForwardSegment]) -> Double {
            clock.measure {
                let count = pass.run(segments)
                _ = pass.logits(of: 0..<count)
            }.inSeconds
        }
        // Memory is touched for the first time, threads and caches wake up.
        _ = seconds([ForwardSegment(tokens: Array(prompt.prefix(512)), position: 0, blocks: tables[0], adapters: sets[0], logits: .last)])
        var rates = [Rates](repeating: Rates(), count: runs)
        for _ in 0..<`repeat` {
            var prefilling = [Double](repeating: 0, count: runs), decoding = prefilling
            for s in 0..<sequences {
                for first in stride(from: 0, to: prefill, by: 512) {
                    let chunk = Array(prompt[first..<min(first + 512, prefill)])
                    let logits = first + chunk.count == prefill ? LogitsWanted.last : .none
                    for run in 0..<runs {
                        let sequence = run * sequences + s
                        prefilling[run] += seconds([ForwardSegment(tokens: chunk, position: first, blocks: tables[sequence], adapters: sets[sequence], logits: logits)])
                    }
                }
            }
            for i in 0..<decode {
                for run in 0..<runs {
                    decoding[run] += seconds((run * sequences..<(run + 1) * sequences).map {
                        ForwardSegment(tokens: [prompt[i % prefill]], position: prefill + i, blocks: tables[$0], adapters: sets[$0], logits: .last)
                    })
                }
            }
            for run in 0..<runs {
                rates[run].prefill.append(Double(prefill * sequences) / prefilling[run])
                rates[run].decode.append(Double(decode * sequences) / decoding[run])
            }
        }
        let peak = Environment.peakResidentBytes, bandwidth = try loaded.pool.memoryBandwidth()
        let positionBytes = KVCache.blockBytes(layers: c.layerCount, kvHeads: c.kvHeadCount, headDim: c.headDim, precision: exact ? .float32 : settings.cachePrecision) / KVCache.blockTokens
        // Every token of a step follows from all weights and from its sequence's own keys and values, half of the answer's on average.
        let roof = Roof(
            peakBytes: peak, bandwidth: bandwidth, stepBytes: loaded.model.bytesReadByAStep + sequences * positionBytes * (prefill + decode / 2),
            products: Compute(variant: loaded.variant, pool: loaded.pool).productCeiling(), tokenProducts: loaded.model.layerParameterCount)
        report(loaded, exact: exact, rates[0], runs > 1 ? rates[1] : nil, adapterBytes: adapters.first?.byteCount ?? 0, roof)
    }

    /// What a machine allows when nothing but its memory, or nothing but its arithmetic, takes time (Williams et al., Roofline, 2009).
    private struct Roof {
        /// Resident, before the bandwidth was measured, which takes some itself.
        var peakBytes: Int
        /// Bytes a second, and the bytes of a step.
        var bandwidth: Double
        var stepBytes: Int
        /// Multiply-adds of 8-bit numbers a second, and those of a prompt's token with the weights; attention comes on top.
        var products: Double
        var tokenProducts: Int

        /// Tokens per second that so many sequences could have.
        func decodeLimit(sequences: Int) -> Double { Double(sequences) * bandwidth / Double(stepBytes) }
        var prefillLimit: Double { products / Double(tokenProducts) }
    }

    private struct Rates {
        var prefill: [Double] = [], decode: [Double] = []
    }

    private func randomAdapter(number: Int, _ c: ModelConfiguration, _ numerics: Numerics) throws -> Adapter {
        var pairs: [LowRankPair] = []
        var state = UInt64(number) &+ 1
        func values(_ count: Int) -> [Float] {
            (0..<count).map { _ in
                state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
                return Float(Int32(truncatingIfNeeded: state >> 32)) * 0x1p-38
            }
        }
        for layer in 0..<c.layerCount {
            for projection in Projection.allCases {
                let shape = c.shape(of: projection)
                pairs.append(LowRankPair(layer: layer, projection: projection, scale: 1, rank: rank, a: values(rank * shape.columns), b: values(shape.rows * rank)))
            }
        }
        return try Adapter(name: "random-\(number)", version: 1, digest: "", configuration: c, numerics: numerics, pairs: pairs)
    }

    private func report(_ loaded: LoadedModel, exact: Bool, _ base: Rates, _ adapted: Rates?, adapterBytes: Int, _ roof: Roof) {
        let limit = roof.decodeLimit(sequences: sequences)
        let prefillRate = median(base.prefill), decodeRate = median(base.decode)
        if json {
            var object = JSONObject([
                ("model", .string(loaded.name)), ("isa", .string(loaded.variant.name)), ("threads", .integer(Int64(loaded.pool.threadCount))),
                ("exact", .bool(exact)), ("sequences", .integer(Int64(sequences))), ("prefill", .integer(Int64(prefill))), ("decode", .integer(Int64(decode))),
                ("prefill_tokens_per_second", .number(prefillRate)), ("decode_tokens_per_second", .number(decodeRate)),
                ("weights_bytes", .integer(Int64(loaded.model.byteCount))), ("peak_resident_bytes", .integer(Int64(roof.peakBytes))),
                ("memory_bytes_per_second", .number(roof.bandwidth)), ("step_bytes", .integer(Int64(roof.stepBytes))),
                ("decode_memory_limit_tokens_per_second", .number(limit)), ("products_per_second", .number(roof.products)),
                ("token_products", .integer(Int64(roof.tokenProducts))), ("prefill_product_limit_tokens_per_second", .number(roof.prefillLimit)),
            ])
            if let adapted {
                object["adapters"] = .integer(Int64(adapters))
                object["rank"] = .integer(Int64(rank))
                object["adapter_bytes"] = .integer(Int64(adapterBytes))
                object["adapted_prefill_tokens_per_second"] = .number(median(adapted.prefill))
                object["adapted_decode_tokens_per_second"] = .number(median(adapted.decode))
            }
            print(String(decoding: JSONValue.object(object).serialized(), as: UTF8.self))
            return
        }
        line("model", loaded.name)
        line("kernels, threads", "\(loaded.variant.name), \(loaded.pool.threadCount)\(exact ? ", exact" : "")")
        line("prefill \(prefill)", "\(prefillRate.rounded(toPlaces: 1)) tokens/s")
        line("decode \(decode) × \(sequences)", "\(decodeRate.rounded(toPlaces: 1)) tokens/s")
        func rounded(_ value: Double) -> Double { value.rounded(toPlaces: 1) }
        if !exact {
            line(
                "products of 8 bits", "\(rounded(roof.products / 1e9)) billion/s; \(rounded(Double(roof.tokenProducts) / 1e6)) million a token allow "
                    + "\(rounded(roof.prefillLimit)) tokens/s, of which prefill has \(rounded(100 * prefillRate / roof.prefillLimit))%")
        }
        line(
            "memory reads", "\(rounded(roof.bandwidth / 1e9)) GB/s; \(rounded(Double(roof.stepBytes) / 1e6)) MB a step allow "
                + "\(rounded(limit)) tokens/s, of which decode has \(rounded(100 * decodeRate / limit))%")
        if let adapted {
            func share(_ part: Double, _ whole: Double) -> String { "\((part / whole * 100).rounded(toPlaces: 1))% of the base" }
            let (prefilled, decoded) = (median(adapted.prefill), median(adapted.decode))
            line("\(adapters) × rank \(rank): prefill", "\(prefilled.rounded(toPlaces: 1)) tokens/s, \(share(prefilled, prefillRate))")
            line("\(adapters) × rank \(rank): decode", "\(decoded.rounded(toPlaces: 1)) tokens/s, \(share(decoded, decodeRate))")
            line("one adapter, packed", "\((Double(adapterBytes) / 1e6).rounded(toPlaces: 1)) MB")
        }
        line("weights", "\((Double(loaded.model.byteCount) / 1e6).rounded(toPlaces: 1)) MB")
        line("peak resident", "\((Double(roof.peakBytes) / 1e6).rounded(toPlaces: 1)) MB")
    }
}

/// A line of the tables.
func line(_ name: String, _ value: String) { print(name + String(repeating: " ", count: max(1, 24 - name.count)) + value) }

func median(_ values: [Double]) -> Double {
    let sorted = values.sorted()
    return sorted.count % 2 == 1 ? sorted[sorted.count / 2] : (sorted[sorted.count / 2 - 1] + sorted[sorted.count / 2]) / 2
}

extension Double {
    func rounded(toPlaces places: Int) -> Double {
        var factor = 1.0
        for _ in 0..<places { factor *= 10 }
        return (self * factor).rounded() / factor
    }
}
