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
        let trainer = Trainer(model: loaded.model, variant: loaded.variant, pool: loaded.pool, turnstile: ComputeTurnstile())
        let plan = TrainingPlan(configuration: configuration, training: .supervised(examples))
        let estimate = trainer.memoryEstimate(for: plan)
        let run = try trainer.start(plan, from: nil, interruption: Interruption())
        var rates: [Double] = []
        let clock = ContinuousClock()
        while run.completedSteps < run.stepCount {
            let start = clock.now
            let metrics = try run.step()
            rates.append(Double(metrics.tokenCount) / (clock.now - start).inSeconds)
        }
        let rate = median(Array(rates.dropFirst()))
        if json {
            let object = JSONObject([
                ("model", .string(loaded.name)), ("isa", .string(loaded.variant.name)), ("threads", .integer(Int64(loaded.pool.threadCount))),
                ("precision", .string(configuration.precision.rawValue)), ("openblas", .string(Trainer.openBLASCore)), ("rank", .integer(Int64(rank))),
                ("batch", .integer(Int64(batch))), ("tokens", .integer(Int64(tokens))), ("training_tokens_per_second", .number(rate)),
                ("estimated_bytes", .integer(Int64(estimate))), ("peak_resident_bytes", .integer(Int64(Environment.peakResidentBytes))),
            ])
            print(String(decoding: JSONValue.object(object).serialized(), as: UTF8.self))
            return
        }
        line("model", loaded.name)
        line("kernels, threads", "\(loaded.variant.name), \(loaded.pool.threadCount), \(configuration.precision.rawValue), OpenBLAS \(Trainer.openBLASCore)")
        line("train \(batch) × \(tokens)", "\(rate.rounded(toPlaces: 1)) tokens/s, rank \(rank) on every projection")
        line("memory for it", "\((Double(estimate) / 1e6).rounded(toPlaces: 1)) MB estimated")
        line("peak resident", "\((Double(Environment.peakResidentBytes) / 1e6).rounded(toPlaces: 1)) MB")
    }
}
