import Glibc
import Logging

/// How log lines look.
public enum LogFormat: String, Sendable, CaseIterable {
    /// `2026-01-31T12:00:00.000Z info graft.server: listening address=127.0.0.1:8080`
    case text
    /// One JSON object a line, for log collectors.
    case json
}

/// Sends every `Logger` of the process to standard error, one line an entry.
///
/// Call once, before the first logger is made. Standard output stays free for what a command prints.
public func bootstrapLogging(level: Logger.Level, format: LogFormat) {
    LoggingSystem.bootstrap { label in
        LineLogHandler(label: label, level: level, format: format) { line in
            line.withUnsafeBytes { bytes in
                // One write a line keeps lines of different threads apart. There is nobody to tell when standard error is closed.
                _ = Glibc.write(STDERR_FILENO, bytes.baseAddress, bytes.count)
            }
        }
    }
}

/// Formats log entries as lines. Control characters in messages and metadata are escaped, so that no value can forge a line.
public struct LineLogHandler: LogHandler {
    private let label: String
    private let format: LogFormat
    private let write: @Sendable ([UInt8]) -> Void

    public var logLevel: Logger.Level
    public var metadata: Logger.Metadata = [:]

    /// - Parameter write: takes one whole line, its line feed included; called on the logging thread.
    public init(label: String, level: Logger.Level, format: LogFormat, write: @escaping @Sendable ([UInt8]) -> Void) {
        self.label = label
        self.format = format
        self.write = write
        logLevel = level
    }

    public subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    public func log(event: LogEvent) {
        var now = timespec()
        clock_gettime(CLOCK_REALTIME, &now)
        let time = timestamp(seconds: now.tv_sec, nanoseconds: now.tv_nsec)
        let merged = event.metadata.map { metadata.merging($0) { $1 } } ?? metadata
        let pairs = merged.sorted { $0.key < $1.key }
        var line = ""
        switch format {
        case .text:
            line += "\(time) \(event.level.rawValue) \(label): "
            appendEscaped(event.message.description, to: &line, quoted: false)
            for (key, value) in pairs {
                line += " \(key)="
                let text = value.description
                let isPlain = !text.isEmpty && text.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7F && $0 != UInt8(ascii: "\"") && $0 != UInt8(ascii: "=") }
                appendEscaped(text, to: &line, quoted: !isPlain)
            }
        case .json:
            line += "{\"time\":\"\(time)\",\"level\":\"\(event.level.rawValue)\",\"logger\":"
            appendEscaped(label, to: &line, quoted: true)
            line += ",\"message\":"
            appendEscaped(event.message.description, to: &line, quoted: true)
            for (key, value) in pairs {
                line += ","
                appendEscaped(key, to: &line, quoted: true)
                line += ":"
                appendEscaped(value.description, to: &line, quoted: true)
            }
            line += "}"
        }
        line += "\n"
        write(Array(line.utf8))
    }
}

/// A moment in UTC after RFC 3339, in milliseconds. Days are turned into a date by counting from 1 March of year 0, which puts
/// the leap day at the end of a year (Howard Hinnant, "chrono-compatible low-level date algorithms").
package func timestamp(seconds: Int, nanoseconds: Int) -> String {
    let days = Int((Double(seconds) / 86_400).rounded(.down))
    let secondOfDay = seconds - days * 86_400
    let shifted = days + 719_468
    let era = (shifted >= 0 ? shifted : shifted - 146_096) / 146_097
    let dayOfEra = shifted - era * 146_097
    let yearOfEra = (dayOfEra - dayOfEra / 1_460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
    let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
    let shiftedMonth = (5 * dayOfYear + 2) / 153
    let day = dayOfYear - (153 * shiftedMonth + 2) / 5 + 1
    let month = shiftedMonth < 10 ? shiftedMonth + 3 : shiftedMonth - 9
    let year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
    let date = "\(padded(year, 4))-\(padded(month, 2))-\(padded(day, 2))"
    let time = "\(padded(secondOfDay / 3_600, 2)):\(padded(secondOfDay / 60 % 60, 2)):\(padded(secondOfDay % 60, 2))"
    return "\(date)T\(time).\(padded(nanoseconds / 1_000_000, 3))Z"
}

private func padded(_ value: Int, _ width: Int) -> String {
    let digits = String(value)
    return String(repeating: "0", count: max(0, width - digits.count)) + digits
}

private func appendEscaped(_ text: String, to line: inout String, quoted: Bool) {
    if quoted { line += "\"" }
    for scalar in text.unicodeScalars {
        switch scalar {
        case "\n": line += "\\n"
        case "\r": line += "\\r"
        case "\t": line += "\\t"
        case "\"" where quoted: line += "\\\""
        case "\\" where quoted: line += "\\\\"
        case _ where scalar.value < 0x20 || (0x7F...0x9F).contains(scalar.value) || scalar.value == 0x2028 || scalar.value == 0x2029:
            let digits = String(scalar.value, radix: 16)
            line += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
        default: line.unicodeScalars.append(scalar)
        }
    }
    if quoted { line += "\"" }
}
