import Synchronization

/// All metrics of a process and their text for Prometheus (text exposition format 0.0.4).
public final class MetricsRegistry: Sendable {
    private enum Family: Sendable {
        case counter(MetricFamily<Counter>)
        case gauge(MetricFamily<Gauge>)
        case histogram(MetricFamily<Histogram>)

        var name: String {
            switch self {
            case .counter(let family): family.name
            case .gauge(let family): family.name
            case .histogram(let family): family.name
            }
        }
    }

    private struct State {
        var families: [Family] = []
        var collectors: [@Sendable () -> Void] = []
    }

    private let state = Mutex(State())

    public init() {}

    /// The value of the `content-type` header that goes with `exposition()`.
    public static let contentType = "text/plain; version=0.0.4; charset=utf-8"

    /// Registers a counter; by convention its name ends in `_total`. A name can be registered once.
    public func counter(_ name: String, help: String, labels: [String] = []) -> MetricFamily<Counter> {
        let family = MetricFamily(name: name, help: help, labelNames: labels) { Counter() }
        register(.counter(family), labels: labels)
        return family
    }

    /// Registers a gauge. A name can be registered once.
    public func gauge(_ name: String, help: String, labels: [String] = []) -> MetricFamily<Gauge> {
        let family = MetricFamily(name: name, help: help, labelNames: labels) { Gauge() }
        register(.gauge(family), labels: labels)
        return family
    }

    /// Registers a histogram with these upper bounds (ascending, infinity is implied). A name can be registered once.
    public func histogram(_ name: String, help: String, labels: [String] = [], bounds: [Double]) -> MetricFamily<Histogram> {
        let family = MetricFamily(name: name, help: help, labelNames: labels) { Histogram(bounds: bounds) }
        register(.histogram(family), labels: labels)
        return family
    }

    /// Runs `update` before each exposition, for values that are cheaper to read then than to keep current.
    public func onCollect(_ update: @escaping @Sendable () -> Void) {
        state.withLock { $0.collectors.append(update) }
    }

    private func register(_ family: Family, labels: [String]) {
        precondition(isValidName(family.name), "'\(family.name)' is not a metric name")
        precondition(labels.allSatisfy { isValidName($0) && $0 != "le" }, "bad label name among \(labels) of \(family.name)")
        state.withLock { state in
            precondition(!state.families.contains { $0.name == family.name }, "the metric \(family.name) is registered twice")
            state.families.append(family)
        }
    }

    /// All metrics in the order of registration. Gathers what the collectors bring first.
    public func exposition() -> [UInt8] {
        let (families, collectors) = state.withLock { ($0.families, $0.collectors) }
        for collect in collectors { collect() }
        var text = ""
        for family in families {
            switch family {
            case .counter(let family):
                appendHead(family.name, family.help, "counter", to: &text)
                for (values, counter) in family.snapshot() {
                    appendSample(family.name, family.labelNames, values, String(counter.value), to: &text)
                }
            case .gauge(let family):
                appendHead(family.name, family.help, "gauge", to: &text)
                for (values, gauge) in family.snapshot() {
                    appendSample(family.name, family.labelNames, values, number(gauge.value), to: &text)
                }
            case .histogram(let family):
                appendHead(family.name, family.help, "histogram", to: &text)
                for (values, histogram) in family.snapshot() {
                    let (counts, sum) = histogram.snapshot()
                    var total: UInt64 = 0
                    for (index, count) in counts.enumerated() {
                        total += count
                        let bound = index < histogram.bounds.count ? number(histogram.bounds[index]) : "+Inf"
                        appendSample(family.name + "_bucket", family.labelNames + ["le"], values + [bound], String(total), to: &text)
                    }
                    appendSample(family.name + "_sum", family.labelNames, values, number(sum), to: &text)
                    appendSample(family.name + "_count", family.labelNames, values, String(total), to: &text)
                }
            }
        }
        return Array(text.utf8)
    }
}

private func isValidName(_ name: String) -> Bool {
    guard let first = name.utf8.first, !(UInt8(ascii: "0")...UInt8(ascii: "9")).contains(first) else { return false }
    return name.utf8.allSatisfy {
        switch $0 {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"): true
        default: false
        }
    }
}

private func number(_ value: Double) -> String {
    if value == .infinity { return "+Inf" }
    if value == -.infinity { return "-Inf" }
    if value.isNaN { return "NaN" }
    // Whole numbers are written as such: "3", not "3.0".
    if value == value.rounded(), value.magnitude < 1e15 { return String(Int64(value)) }
    return value.description
}

private func appendHead(_ name: String, _ help: String, _ type: String, to text: inout String) {
    text += "# HELP \(name) \(escaped(help, quotes: false))\n# TYPE \(name) \(type)\n"
}

private func appendSample(_ name: String, _ labels: [String], _ values: [String], _ value: String, to text: inout String) {
    text += name
    if !labels.isEmpty {
        text += "{"
        for (index, label) in labels.enumerated() {
            if index > 0 { text += "," }
            text += "\(label)=\"\(escaped(values[index], quotes: true))\""
        }
        text += "}"
    }
    text += " \(value)\n"
}

private func escaped(_ text: String, quotes: Bool) -> String {
    var result = ""
    for character in text.unicodeScalars {
        switch character {
        case "\\": result += "\\\\"
        case "\n": result += "\\n"
        case "\"" where quotes: result += "\\\""
        default: result.unicodeScalars.append(character)
        }
    }
    return result
}
