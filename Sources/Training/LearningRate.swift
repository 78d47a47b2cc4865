#if canImport(Glibc)
import Glibc
#endif

extension TrainingConfiguration {
    /// The rate of a step, counted from 0: it rises linearly over the warm-up, and follows the schedule over the whole run.
    func learningRate(step: Int, of stepCount: Int) -> Double {
        let warmup = max(1, (warmupRatio * Double(stepCount)).rounded(.up))
        let rise = min(1, Double(step + 1) / warmup)
        let fall =
            switch schedule {
            case .constant: 1.0
            case .linear: 1 - Double(step) / Double(stepCount)
            case .cosine: 0.5 * (1 + cos(Double.pi * Double(step) / Double(stepCount)))
            }
        return learningRate * rise * fall
    }
}
