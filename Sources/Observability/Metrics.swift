import Synchronization

/// A number that only grows, such as requests answered. Safe from any thread.
public final class Counter: Sendable {
    private let storage = Atomic<UInt64>(0)

    init() {}

    public var value: UInt64 { storage.load(ordering: .relaxed) }

    public func increment(by amount: UInt64 = 1) {
        storage.wrappingAdd(amount, ordering: .relaxed)
    }

    /// Mirrors a total that is counted elsewhere; a smaller value than the present one is ignored, because counters never fall.
    public func raise(to total: UInt64) {
        storage.max(total, ordering: .relaxed)
    }
}

/// A number that rises and falls, such as sequences running. Safe from any thread.
public final class Gauge: Sendable {
    private let bits = Atomic<UInt64>(0)

    init() {}

    public var value: Double { Double(bitPattern: bits.load(ordering: .relaxed)) }

    public func set(_ value: Double) {
        bits.store(value.bitPattern, ordering: .relaxed)
    }

    public func add(_ amount: Double) {
        var old = bits.load(ordering: .relaxed)
        while true {
            let new = (Double(bitPattern: old) + amount).bitPattern
            let (exchanged, original) = bits.weakCompareExchange(expected: old, desired: new, ordering: .relaxed)
            if exchanged { return }
            old = original
        }
    }
}

/// Counts observations by upper bound, such as times to the first token. Safe from any thread.
public final class Histogram: Sendable {
    /// Upper bounds in ascending order, without the last one, which is always infinity.
    public let bounds: [Double]

    private struct State {
        /// Observations per bucket, not cumulative; one more than there are bounds.
        var counts: [UInt64]
        var sum = 0.0
    }

    private let state: Mutex<State>

    init(bounds: [Double]) {
        precondition(zip(bounds, bounds.dropFirst()).allSatisfy(<), "histogram bounds must ascend")
        self.bounds = bounds
        state = Mutex(State(counts: [UInt64](repeating: 0, count: bounds.count + 1)))
    }

    public func observe(_ value: Double) {
        var low = 0
        var high = bounds.count
        while low < high {
            let middle = (low + high) / 2
            if value <= bounds[middle] { high = middle } else { low = middle + 1 }
        }
        state.withLock {
            $0.counts[low] += 1
            $0.sum += value
        }
    }

    /// How many observations there were in all.
    public var count: UInt64 { state.withLock { $0.counts.reduce(0, +) } }

    /// The sum of all observations.
    public var sum: Double { state.withLock { $0.sum } }

    func snapshot() -> (counts: [UInt64], sum: Double) {
        state.withLock { ($0.counts, $0.sum) }
    }
}

/// All series of one metric name, told apart by the values of its labels.
public final class MetricFamily<Metric: Sendable>: Sendable {
    /// The most series of one name. Further label values share one series whose values are all `other`, so that no client can
    /// grow the table without end.
    public static var seriesLimit: Int { 512 }
    private static var overflow: String { "other" }

    public let name: String
    let help: String
    let labelNames: [String]
    private let make: @Sendable () -> Metric

    private struct State {
        var series: [[String]: Metric] = [:]
        /// In order of first use, so that two scrapes list the series alike.
        var order: [[String]] = []
    }

    private let state = Mutex(State())

    init(name: String, help: String, labelNames: [String], make: @escaping @Sendable () -> Metric) {
        self.name = name
        self.help = help
        self.labelNames = labelNames
        self.make = make
    }

    /// The series with these label values, in the order of the label names; made at first use. Keep the result where it is used often.
    public func series(_ labelValues: String...) -> Metric {
        precondition(labelValues.count == labelNames.count, "\(name) has \(labelNames.count) labels, found \(labelValues.count) values")
        return state.withLock { state in
            if let metric = state.series[labelValues] { return metric }
            var key = labelValues
            if state.order.count >= Self.seriesLimit {
                key = labelValues.map { _ in Self.overflow }
                if let metric = state.series[key] { return metric }
            }
            let metric = make()
            state.series[key] = metric
            state.order.append(key)
            return metric
        }
    }

    /// Drops series that will not be used again, so that the next ones have a place. Who holds one may go on using it, unseen.
    public func remove(where isObsolete: ([String]) -> Bool) {
        state.withLock { state in
            state.order.removeAll { labels in
                guard isObsolete(labels) else { return false }
                state.series[labels] = nil
                return true
            }
        }
    }

    /// `remove` in two steps, for who has to find out elsewhere what is obsolete: the result drops only series that there are now. One that is
    /// first used after the finding out has begun stays, because the finding may not know of it yet. So does the one that further label values
    /// share when there are too many.
    public func beginRemoval() -> (_ isObsolete: ([String]) -> Bool) -> Void {
        let present = state.withLock { Set($0.order) }.subtracting([labelNames.map { _ in Self.overflow }])
        return { isObsolete in self.remove { present.contains($0) && isObsolete($0) } }
    }

    func snapshot() -> [(labels: [String], metric: Metric)] {
        state.withLock { state in state.order.map { ($0, state.series[$0]!) } }
    }
}
