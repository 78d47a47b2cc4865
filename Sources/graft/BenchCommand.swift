import ArgumentParser
import Inference
import JSON
import Kernels
import Modeling

struct BenchCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bench",
        abstract: "Measure how fast a model reads a prompt (prefill) and writes an answer (decode).",
        discussion: "The model runs alone, without server or sampling, on random tokens. Each figure is the median of the repetitions.")

    @OptionGroup var options: ModelOptions
    @Option(help: "Tokens of the prompt.")
    var prefill = 512
    @Option(help: "Tokens of the answer, one at a time after the prompt.")
    var decode = 128
    @Option(help: "Sequences that decode together.")
    var sequences = 1
    @Option(help: "Repetitions.")
    var `repeat` = 3
    @Flag(help: "Print one JSON object instead of a table.")
    var json = false

    func validate() throws {
        guard prefill > 0, decode > 0, `repeat` > 0 else { throw ValidationError("--prefill, --decode and --repeat take numbers from 1 up.") }
        guard (1...256).contains(sequences) else { throw ValidationError("--sequences takes 1 to 256, not \(sequences).") }
    }

    func run() async throws {
        let (_, settings) = try options.engineSettings()
        let loaded = try LoadedModel(settings)
        let exact = settings.exact
        let c = loaded.model.configuration
        guard prefill <= c.contextLength, decode <= c.contextLength - prefill else {
            throw CommandError("--prefill \(prefill) and --decode \(decode) do not fit the model's context of \(c.contextLength)")
        }
        let blocksEach = (prefill + decode + KVCache.blockTokens - 1) / KVCache.blockTokens
        let cache = try KVCache(
            layers: c.layerCount, kvHeads: c.kvHeadCount, headDim: c.headDim, blockCount: blocksEach * sequences, precision: exact ? .float32 : settings.cachePrecision)
        let pass = try ForwardPass(
            model: loaded.model, cache: cache, variant: loaded.variant, pool: loaded.pool, numerics: exact ? .exact : .fast,
            maximumRows: max(512, sequences), maximumLogitsRows: sequences)
        var random = SystemRandomNumberGenerator()
        let prompt = (0..<prefill).map { _ in Int32.random(in: 0..<Int32(c.vocabularySize), using: &random) }
        var prefillRates: [Double] = [], decodeRates: [Double] = []
        let clock = ContinuousClock()
        for _ in 0..<`repeat` {
            let tables = (0..<sequences).map { s in (0..<blocksEach).map { Int32(s * blocksEach + $0) } }
            let start = clock.now
            for table in tables {
                for first in stride(from: 0, to: prefill, by: 512) {
                    let chunk = Array(prompt[first..<min(first + 512, prefill)])
                    let count = pass.run([ForwardSegment(tokens: chunk, position: first, blocks: table, logits: first + chunk.count == prefill ? .last : .none)])
                    _ = pass.logits(of: 0..<count)
                }
            }
            let middle = clock.now
            for i in 0..<decode {
                let segments = tables.map { ForwardSegment(tokens: [prompt[i % prefill]], position: prefill + i, blocks: $0, logits: .last) }
                let count = pass.run(segments)
                _ = pass.logits(of: 0..<count)
            }
            let end = clock.now
            prefillRates.append(Double(prefill * sequences) / (middle - start).inSeconds)
            decodeRates.append(Double(decode * sequences) / (end - middle).inSeconds)
        }
        report(loaded, exact: exact, prefill: median(prefillRates), decode: median(decodeRates))
    }

    private func report(_ loaded: LoadedModel, exact: Bool, prefill prefillRate: Double, decode decodeRate: Double) {
        if json {
            let object = JSONObject([
                ("model", .string(loaded.name)), ("isa", .string(loaded.variant.name)), ("threads", .integer(Int64(loaded.pool.threadCount))),
                ("exact", .bool(exact)), ("sequences", .integer(Int64(sequences))), ("prefill", .integer(Int64(prefill))), ("decode", .integer(Int64(decode))),
                ("prefill_tokens_per_second", .number(prefillRate)), ("decode_tokens_per_second", .number(decodeRate)),
                ("weights_bytes", .integer(Int64(loaded.model.byteCount))), ("peak_resident_bytes", .integer(Int64(Environment.peakResidentBytes))),
            ])
            print(String(decoding: JSONValue.object(object).serialized(), as: UTF8.self))
            return
        }
        func line(_ name: String, _ value: String) { print(name + String(repeating: " ", count: max(1, 24 - name.count)) + value) }
        line("model", loaded.name)
        line("kernels, threads", "\(loaded.variant.name), \(loaded.pool.threadCount)\(exact ? ", exact" : "")")
        line("prefill \(prefill)", "\(prefillRate.rounded(toPlaces: 1)) tokens/s")
        line("decode \(decode) × \(sequences)", "\(decodeRate.rounded(toPlaces: 1)) tokens/s")
        line("weights", "\((Double(loaded.model.byteCount) / 1e6).rounded(toPlaces: 1)) MB")
        line("peak resident", "\((Double(Environment.peakResidentBytes) / 1e6).rounded(toPlaces: 1)) MB")
    }
}

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
