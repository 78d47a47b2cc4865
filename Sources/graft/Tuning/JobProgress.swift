import JSON
import ModelStore

/// How far a job has come, gathered from its events, and the line that a terminal shows of it. Knows no terminal and no clock.
package struct JobProgress {
    private var step = 0, stepCount = 0
    private var trainLoss: Double?, validLoss: Double?
    private var tokensPerSecond: Double?, secondsLeft: Double?
    /// Tenths of the way that a log has been told of.
    private var toldTenths = 0

    package init() {}

    /// Takes an event in.
    /// - Returns: what is worth a line of its own.
    package mutating func take(_ event: JSONValue) -> String? {
        let message = event["message"]?.string ?? ""
        guard event["type"]?.string == "metrics", let data = event["data"] else {
            let level = event["level"]?.string ?? "info"
            return level == "info" ? message : "\(level): \(message)"
        }
        step = data["step"]?.integer.map(Int.init) ?? step
        stepCount = data["total_steps"]?.integer.map(Int.init) ?? stepCount
        if let loss = data["full_valid_loss"]?.number {
            validLoss = loss
            return message
        }
        trainLoss = data["train_loss"]?.number ?? trainLoss
        tokensPerSecond = data["tokens_per_second"]?.number ?? tokensPerSecond
        secondsLeft = data["seconds_left"]?.number ?? secondsLeft
        return nil
    }

    /// Whether a log that shows no bar should be told where the job stands: once each tenth of the way.
    package mutating func isDue() -> Bool {
        let tenths = stepCount > 0 ? 10 * step / stepCount : 0
        defer { toldTenths = max(tenths, toldTenths) }
        return tenths > toldTenths
    }

    /// `━━━━━━━━────────  48%  step 72/150  loss 0.412  valid 0.388  1820 tokens/s  0:42 left`; `nil` before the first step.
    package func line(width: Int = 80) -> String? {
        guard stepCount > 0, step > 0 else { return nil }
        let fraction = Double(step) / Double(stepCount)
        var fields = [ProgressBar.percent(fraction), "step \(step)/\(stepCount)"]
        if let trainLoss { fields.append("loss \(Self.short(trainLoss))") }
        if let validLoss { fields.append("valid \(Self.short(validLoss))") }
        if let tokensPerSecond { fields.append("\(Int(tokensPerSecond.rounded())) tokens/s") }
        if let secondsLeft { fields.append("\(ProgressBar.time(secondsLeft)) left") }
        return ProgressBar.line(fraction: fraction, fields: fields, width: width)
    }

    /// Three decimals.
    package static func short(_ value: Double) -> String {
        guard value.isFinite, abs(value) < 1e12 else { return "\(value)" }
        let thousandths = Int((abs(value) * 1000).rounded()), digits = "\(thousandths % 1000)"
        return "\(value < 0 && thousandths > 0 ? "-" : "")\(thousandths / 1000)." + String(repeating: "0", count: 3 - digits.count) + digits
    }
}
