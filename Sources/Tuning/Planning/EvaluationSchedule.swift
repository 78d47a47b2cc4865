/// After which steps a run is looked at: at the end of each epoch, and about ten times in all when there are that many steps.
package struct EvaluationSchedule: Sendable, Equatable {
    /// Looks at a run when there is room for as many.
    static let usualCount = 10

    /// Ascending; the last step is always among them.
    package let steps: [Int]

    package init(stepCount: Int, stepsPerEpoch: Int) {
        guard stepCount > 0, stepsPerEpoch > 0 else {
            steps = []
            return
        }
        let ends = Set(stride(from: stepsPerEpoch, through: stepCount, by: stepsPerEpoch)).union([stepCount])
        let interval = max(1, stepCount / Self.usualCount)
        // Right beside an epoch's end there is nothing new to see.
        let between = stride(from: interval, to: stepCount, by: interval).filter { step in
            let sinceEnd = step % stepsPerEpoch
            return 2 * sinceEnd >= interval && 2 * (stepsPerEpoch - sinceEnd) >= interval
        }
        steps = ends.union(between).sorted()
    }

    package func contains(_ step: Int) -> Bool {
        var low = 0, high = steps.count
        while low < high {
            let middle = (low + high) / 2
            if steps[middle] < step { low = middle + 1 } else { high = middle }
        }
        return low < steps.count && steps[low] == step
    }

    /// The last step of an epoch takes what is left.
    package static func stepCount(exampleCount: Int, batchSize: Int, epochs: Int) -> (total: Int, perEpoch: Int) {
        guard exampleCount > 0, batchSize > 0 else { return (0, 0) }
        let perEpoch = (exampleCount - 1) / batchSize + 1
        let (total, overflow) = perEpoch.multipliedReportingOverflow(by: epochs)
        return (overflow ? .max : total, perEpoch)
    }
}
