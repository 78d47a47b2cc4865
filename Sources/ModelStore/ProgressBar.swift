/// The one line that a terminal shows while something long goes on. Pure functions: the caller owns the terminal, the clock and the carriage return.
public enum ProgressBar {
    /// `━━━━━━━━────────  48%  47.2/98.4 MB  23.6 MB/s  0:02 left`
    ///
    /// - Parameters:
    ///   - fraction: 0…1, or nil when the total is not known: the bar is left out.
    ///   - bytes: transferred so far.
    ///   - total: of the whole, when known.
    ///   - bytesPerSecond: when known.
    ///   - secondsLeft: when known.
    ///   - note: goes to the end of the line: `part 3 of 6`.
    ///   - width: columns of the terminal. What does not fit is left out from the right, and no line is longer.
    public static func line(
        fraction: Double?, bytes: Int, total: Int?, bytesPerSecond: Double? = nil, secondsLeft: Double? = nil, note: String? = nil, width: Int = 80
    ) -> String {
        var fields: [String] = []
        if let fraction {
            fields.append(percent(fraction))
        }
        fields.append(total.map { amounts(bytes, of: $0) } ?? amount(bytes))
        if let bytesPerSecond { fields.append("\(amount(Int(max(0, bytesPerSecond))))/s") }
        if let secondsLeft, secondsLeft.isFinite { fields.append("\(time(secondsLeft)) left") }
        if let note { fields.append(note) }
        return line(fraction: fraction, fields: fields, width: width)
    }

    /// A bar, where there is a fraction, and what is said beside it.
    /// - Parameter fields: what does not fit is left out from the right; before that the bar gets shorter, down to 8.
    public static func line(fraction: Double?, fields: [String], width: Int = 80) -> String {
        let text = fields.reduce(0) { $0 + 2 + $1.count }
        let barWidth = fraction == nil ? 0 : max(min(8, max(0, width - 20)), min(24, width - text))
        var line = fraction.map { bar($0, width: barWidth) } ?? ""
        var columns = barWidth
        for field in fields {
            let separator = columns == 0 ? "" : "  "
            guard columns + separator.count + field.count <= width else { break }
            line += separator + field
            columns += separator.count + field.count
        }
        return line
    }

    /// The line for a report of `ModelDirectory.pull`.
    public static func line(_ progress: PullProgress, rate: TransferRate, width: Int = 80) -> String {
        let note: String? =
            switch progress.phase {
            case .waiting: "waiting for another pull of it"
            case .checking: "checking what is there"
            case .verifying: "verifying"
            case .downloading: progress.partCount > 1 ? "part \(progress.part) of \(progress.partCount)" : nil
            }
        let isMoving = progress.phase == .downloading
        return line(
            fraction: progress.fraction, bytes: progress.bytes, total: progress.total,
            bytesPerSecond: isMoving ? rate.bytesPerSecond : nil,
            secondsLeft: isMoving ? progress.total.flatMap { rate.secondsLeft(total: $0) } : nil,
            note: note, width: width)
    }

    /// `98.4 MB`: decimal units, as download pages use them.
    public static func amount(_ bytes: Int) -> String {
        let unit = unit(for: bytes)
        return "\(decimal(bytes, unit)) \(unit.name)"
    }

    private static func amounts(_ bytes: Int, of total: Int) -> String {
        let unit = unit(for: total)
        let whole = decimal(total, unit)
        return "\(padded(decimal(bytes, unit), to: whole.count))/\(whole) \(unit.name)"
    }

    private struct Unit {
        var name: String
        var bytes: Int
        var decimals: Int
    }

    private static func unit(for bytes: Int) -> Unit {
        switch bytes {
        case ..<1_000: Unit(name: "B", bytes: 1, decimals: 0)
        case ..<1_000_000: Unit(name: "kB", bytes: 1_000, decimals: 1)
        case ..<1_000_000_000: Unit(name: "MB", bytes: 1_000_000, decimals: 1)
        default: Unit(name: "GB", bytes: 1_000_000_000, decimals: 2)
        }
    }

    /// Rounded down: never more than there is.
    private static func decimal(_ bytes: Int, _ unit: Unit) -> String {
        let whole = "\(bytes / unit.bytes)"
        guard unit.decimals > 0 else { return whole }
        var step = unit.bytes
        for _ in 0..<unit.decimals { step /= 10 }
        let fraction = "\(bytes % unit.bytes / step)"
        return whole + "." + String(repeating: "0", count: unit.decimals - fraction.count) + fraction
    }

    private static func bar(_ fraction: Double, width: Int) -> String {
        let filled = Int(min(1, max(0, fraction)) * Double(width))
        return String(repeating: "━", count: filled) + String(repeating: "─", count: width - filled)
    }

    /// `  48%`: rounded down, so that 100% means that it is all there.
    public static func percent(_ fraction: Double) -> String { padded("\(Int(min(1, max(0, fraction)) * 100))%", to: 4) }

    /// `0:42`, `1:02:03`
    public static func time(_ seconds: Double) -> String {
        let whole = Int(min(max(0, seconds), 359_999).rounded(.up))
        let (hours, minutes, rest) = (whole / 3600, whole / 60 % 60, whole % 60)
        let twoDigits = { (number: Int) in number < 10 ? "0\(number)" : "\(number)" }
        return hours > 0 ? "\(hours):\(twoDigits(minutes)):\(twoDigits(rest))" : "\(minutes):\(twoDigits(rest))"
    }

    private static func padded(_ text: String, to count: Int) -> String {
        String(repeating: " ", count: max(0, count - text.count)) + text
    }
}
