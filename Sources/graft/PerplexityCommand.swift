import ArgumentParser
import FoundationEssentials
import JSON
import Kernels
import Modeling

#if canImport(Glibc)
import Glibc
#endif

struct PerplexityCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "perplexity",
        abstract: "Measure how well a model foretells a text, and what a smaller cache of keys and values costs.",
        discussion: """
            The text is cut into windows; the second half of each is foretold token by token from what stands before it in the window. The perplexity \
            is e to the power of the mean of -ln p over those tokens: lower is better, and only figures of one model and text compare. Of several \
            caches each is set beside the first, on the same tokens.

              graft perplexity book.txt --cache f16,q8
              graft perplexity book.txt --exact
            """)

    @Argument(help: ArgumentHelp("A UTF-8 text of at least one window.", valueName: "file"))
    var text: String
    @OptionGroup var options: ModelOptions
    @Option(help: ArgumentHelp("Tokens of a window.", valueName: "tokens"))
    var window = 512
    @Option(help: ArgumentHelp("How keys and values are kept: f32, f16, q8, several separated by commas. Default: the setting engine.cache_type.", valueName: "types"))
    var cache: String?
    @Flag(help: "Print one JSON object instead of a table.")
    var json = false

    func validate() throws {
        guard window >= 2 else { throw ValidationError("--window takes 2 tokens and more, not \(window).") }
        _ = try precisions()
    }

    /// The caches that --cache names, in its order.
    private func precisions() throws -> [KVCache.Precision]? {
        try cache?.split(separator: ",", omittingEmptySubsequences: false).map { name in
            guard let precision = KVCache.Precision(rawValue: String(name)) else {
                throw ValidationError("--cache: found '\(TerminalText.oneLine(String(name)))', expected \(KVCache.Precision.allCases.map(\.rawValue).joined(separator: ", ")).")
            }
            return precision
        }
    }

    func run() throws {
        let (_, settings) = try options.engineSettings()
        let precisions = try precisions() ?? [settings.exact ? .float32 : settings.cachePrecision]
        guard let contents = String(validating: try readUserFile(text, expected: "a text"), as: UTF8.self) else {
            throw CommandError("\(TerminalText.oneLine(text)): found bytes that are not UTF-8, expected a text")
        }
        let loaded = try LoadedModel(settings)
        let longest = loaded.model.configuration.contextLength
        guard window <= longest else { throw CommandError("--window: found \(window), expected at most the \(longest) positions that \(loaded.name) was trained for") }
        let tokenizer = try loaded.tokenizer()
        let ids = windows(of: tokenizer.encode(contents, addSpecial: false, parseSpecial: false), start: tokenizer.addsBOS ? tokenizer.bos : nil)
        guard !ids.isEmpty else { throw CommandError("\(TerminalText.oneLine(text)): expected a text of at least one window of \(window) tokens") }
        let surprises = try precisions.map { try surprise(of: ids, loaded, exact: settings.exact, cache: $0) }
        report(loaded, exact: settings.exact, precisions, surprises)
    }

    /// Whole windows, one after another; each begins with the token that the model's texts begin with, if there is one.
    private func windows(of text: [Int32], start: Int32?) -> [Int32] {
        let own = start == nil ? window : window - 1
        return stride(from: 0, through: text.count - own, by: own).flatMap { (start.map { [$0] } ?? []) + text[$0..<$0 + own] }
    }

    /// -ln p of each token that is foretold, in order.
    private func surprise(of ids: [Int32], _ loaded: LoadedModel, exact: Bool, cache precision: KVCache.Precision) throws -> [Double] {
        let c = loaded.model.configuration, blocks = (window + KVCache.blockTokens - 1) / KVCache.blockTokens, batch = 64
        let cache = try KVCache(layers: c.layerCount, kvHeads: c.kvHeadCount, headDim: c.headDim, blockCount: blocks, precision: precision)
        let pass = try ForwardPass(
            model: loaded.model, cache: cache, variant: loaded.variant, pool: loaded.pool, numerics: exact ? .exact : .fast, maximumRows: min(window, 512),
            maximumLogitsRows: batch)
        let table = (0..<Int32(blocks)).map { $0 }
        var surprises: [Double] = []
        for start in stride(from: 0, to: ids.count, by: window) {
            for first in stride(from: 0, to: window, by: pass.maximumRows) {
                let rows = min(pass.maximumRows, window - first)
                let kept = pass.run([ForwardSegment(tokens: Array(ids[start + first..<start + first + rows]), position: first, blocks: table, logits: .all)])
                // Row i foretells the token at its position + 1.
                let end = min(kept, window - 1 - first)
                let foretelling = min(max(window / 2 - 1 - first, 0), end)..<end
                for low in stride(from: foretelling.lowerBound, to: foretelling.upperBound, by: batch) {
                    let range = low..<min(low + batch, foretelling.upperBound)
                    let logits = pass.logits(of: range)
                    for (i, row) in range.enumerated() { surprises.append(surpriseOf(ids[start + first + row + 1], UnsafeBufferPointer(logits[i]))) }
                }
            }
        }
        return surprises
    }

    /// ln Σ eˣ - x[token].
    private func surpriseOf(_ token: Int32, _ logits: UnsafeBufferPointer<Float>) -> Double {
        let top = logits.max()!
        return withUnsafeTemporaryAllocation(of: Double.self, capacity: LogitKernels.groupCount(logits.count)) { sums in
            LogitKernels.best.exponentialSums(logits, top: top, scale: 1, into: sums)
            return log(sums.reduce(0, +)) + Double(top - logits[Int(token)])
        }
    }

    /// The mean of values and its standard error.
    private func mean(_ values: [Double]) -> (mean: Double, error: Double) {
        let count = Double(values.count), mean = values.reduce(0, +) / count
        let variance = values.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / max(count - 1, 1)
        return (mean, (variance / count).squareRoot())
    }

    private func report(_ loaded: LoadedModel, exact: Bool, _ precisions: [KVCache.Precision], _ surprises: [[Double]]) {
        struct Figure {
            var cache: String
            var perplexity: Double, error: Double
            /// Beside the first cache, as a share of its perplexity.
            var change: Double, changeError: Double
        }
        let figures = zip(precisions, surprises).map { precision, values in
            let (mean, error) = mean(values), change = self.mean(zip(values, surprises[0]).map(-))
            return Figure(
                cache: precision.rawValue, perplexity: exp(mean), error: exp(mean) * error, change: exp(change.mean) - 1, changeError: exp(change.mean) * change.error)
        }
        let foretold = surprises[0].count
        if json {
            let caches = figures.map {
                JSONValue.object(
                    JSONObject([
                        ("cache", .string($0.cache)), ("perplexity", .number($0.perplexity)), ("standard_error", .number($0.error)), ("change", .number($0.change)),
                        ("change_standard_error", .number($0.changeError)),
                    ]))
            }
            let object = JSONObject([
                ("model", .string(loaded.name)), ("exact", .bool(exact)), ("window", .integer(Int64(window))), ("tokens", .integer(Int64(foretold))),
                ("caches", .array(caches)),
            ])
            print(String(decoding: JSONValue.object(object).serialized(), as: UTF8.self))
            return
        }
        line("model", "\(loaded.name)\(exact ? ", exact" : "")")
        line("tokens foretold", "\(foretold), in windows of \(window)")
        var table = TextTable(["cache", "perplexity", "±", "change", "±"], rightAligned: [1, 2, 3, 4])
        func percent(_ share: Double) -> String { "\((100 * share).rounded(toPlaces: 3))%" }
        for (i, f) in figures.enumerated() {
            table.add([
                f.cache, "\(f.perplexity.rounded(toPlaces: 4))", "\(f.error.rounded(toPlaces: 4))", i == 0 ? "" : percent(f.change), i == 0 ? "" : percent(f.changeError),
            ])
        }
        print(table)
    }
}
