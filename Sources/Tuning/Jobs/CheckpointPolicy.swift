import InstructionStore

/// Which checkpoints are worth keeping, and when a run stops getting better. Decided from the checkpoints alone, so that a restart decides alike.
package enum CheckpointPolicy {
    /// The newest that are kept whatever their losses.
    static let keptCount = 3

    /// The one with the lowest validation loss, the earlier of equals; without validation the last.
    package static func best(_ checkpoints: [JobCheckpointRow]) -> JobCheckpointRow? {
        ranked(checkpoints).first
    }

    /// From the best on.
    package static func ranked(_ checkpoints: [JobCheckpointRow]) -> [JobCheckpointRow] {
        checkpoints.sorted { left, right in
            switch (comparable(left), comparable(right)) {
            case (let a?, let b?): a == b ? left.step < right.step : a < b
            case (_?, nil): true
            case (nil, _?): false
            case (nil, nil): left.step > right.step
            }
        }
    }

    /// A loss that is no number is worse than any.
    private static func comparable(_ checkpoint: JobCheckpointRow) -> Double? {
        checkpoint.validLoss.flatMap { $0.isNaN ? nil : $0 }
    }

    /// Those whose adapters can go, among checkpoints in the order of their steps.
    package static func superfluous(_ checkpoints: [JobCheckpointRow]) -> [JobCheckpointRow] {
        let best = best(checkpoints)
        return checkpoints.dropLast(keptCount).filter { $0.removedAt == nil && $0.step != best?.step }
    }

    /// Whether the last `patience` checkpoints brought no improvement. Without validation losses nothing can be said.
    package static func isExhausted(_ checkpoints: [JobCheckpointRow], patience: Int) -> Bool {
        guard patience > 0, let best = best(checkpoints), best.validLoss != nil else { return false }
        return checkpoints.filter { $0.step > best.step }.count >= patience
    }
}
