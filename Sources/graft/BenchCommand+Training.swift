import ArgumentParser
import Inference
import JSON
import Kernels
import Training

extension TrainingConfiguration.Precision: ExpressibleByArgument {}

extension BenchCommand {
    /// Steps of a run on random tokens; the first one, which meets cold memory, is not counted.
    func measureTraining(_ loaded: LoadedModel, tokens: Int) throws {
        var configuration = TrainingConfiguration()
        configuration.batchSize = batch
        configuration.epochs = 1
        configuration.rank = rank
        configuration.alpha = Double(2 * rank)
        configuration.precision = precision ?? Trainer.fastestPrecision(loaded.variant)
        var random = SystemRandomNumberGenerator()
        let vocabulary = Int32(loaded.model.configuration.vocabularySize), first = tokens - (trained ?? tokens - 1)
        let examples = (0..<batch * (`repeat` + 1)).map { _ in
            TokenizedExample(tokens: (0..<tokens).map { _ in Int32.random(in: 0..<vocabulary, using: &random) }, isTrained: (0..<tokens).map { $0 >= first })
        }
        let plan = TrainingPlan(configuration: configuration, training: .supervised(examples))
        func trainer(unitSeconds: Double) -> Trainer {
            Trainer(model: loaded.model, variant: loaded.variant, pool: loaded.pool, turnstile: ComputeTurnstile(), unitSeconds: unitSeconds)
        }
        let estimate = trainer(unitSeconds: Trainer.unitSeconds).memoryEstimate(for: plan)
        // An hour: no operation takes as long, so each is one unit.
        let runs = try [Trainer.unitSeconds, 3600].prefix(compareUnits ? 2 : 1).map {
            try trainer(unitSeconds: $0).start(plan, from: nil, interruption: Interruption())
        }
        var rates = [[Double]](repeating: [], count: runs.count)
        let clock = ContinuousClock()
        while runs[0].completedSteps < runs[0].stepCount {
            // Whoever is first in a round is second in the next.
            let order = runs[0].completedSteps % 2 == 0 ? Array(runs.indices) : runs.indices.reversed()
            for index in order {
                let start = clock.now
                let metrics = try runs[index].step()
                rates[index].append(Double(metrics.tokenCount) / (clock.now - start).inSeconds)
            }
        }
        let medians = rates.map { median(Array($0.dropFirst())) }
        let rate = medians[0]
        let kernels = configuration.precision == .bfloat16 ? TrainingCompute.name(loaded.variant) : loaded.variant.name
        if json {
            var object = JSONObject([
                ("model", .string(loaded.name)), ("isa", .string(kernels)), ("threads", .integer(Int64(loaded.pool.threadCount))),
                ("precision", .string(configuration.precision.rawValue)), ("openblas", .string(Trainer.openBLASCore)), ("rank", .integer(Int64(rank))),
                ("batch", .integer(Int64(batch))), ("tokens", .integer(Int64(tokens))), ("training_tokens_per_second", .number(rate)),
                ("estimated_bytes", .integer(Int64(estimate))), ("peak_resident_bytes", .integer(Int64(Environment.peakResidentBytes))),
            ])
            if compareUnits { object["whole_operations_tokens_per_second"] = .number(medians[1]) }
            print(String(decoding: JSONValue.object(object).serialized(), as: UTF8.self))
            return
        }
        line("model", loaded.name)
        line("kernels, threads", "\(kernels), \(loaded.pool.threadCount), \(configuration.precision.rawValue), OpenBLAS \(Trainer.openBLASCore)")
        line("train \(batch) × \(tokens)", "\(rate.rounded(toPlaces: 1)) tokens/s, rank \(rank) on every projection")
        if compareUnits {
            line("in whole operations", "\(medians[1].rounded(toPlaces: 1)) tokens/s; sharing leaves \((100 * rate / medians[1]).rounded(toPlaces: 1))%")
        }
        line("memory for it", "\((Double(estimate) / 1e6).rounded(toPlaces: 1)) MB estimated")
        line("peak resident", "\((Double(Environment.peakResidentBytes) / 1e6).rounded(toPlaces: 1)) MB")
    }
}
