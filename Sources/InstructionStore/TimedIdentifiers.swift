import Glibc
import Synchronization

/// Makes ids that sort by the time at which they were made: a prefix, 16 hexadecimal digits of microseconds since 1970 and 16 random ones.
///
/// So a place in a list is an id that need not exist any more: whoever deletes what he lists page by page loses nothing.
public final class TimedIdentifiers: Sendable {
    private let last = Mutex<Int64>(0)
    private let now: @Sendable () -> Int64

    /// - Parameter now: microseconds since 1970 UTC.
    public init(now: @escaping @Sendable () -> Int64 = TimedIdentifiers.systemTime) {
        self.now = now
    }

    public static let systemTime: @Sendable () -> Int64 = {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return Int64(time.tv_sec) * 1_000_000 + Int64(time.tv_nsec) / 1000
    }

    /// A new id, greater than all before it of this object, also when the clock was set back.
    public func next(prefix: String) -> String {
        let time = last.withLock { last in
            last = max(last + 1, now())
            return last
        }
        return prefix + Self.digits(UInt64(max(0, time))) + Self.digits(.random(in: .min ... .max))
    }

    /// Whether a text has the form of an id.
    public static func isValid(_ text: String, prefix: String) -> Bool {
        text.hasPrefix(prefix) && text.utf8.count == prefix.utf8.count + 32
            && text.utf8.dropFirst(prefix.utf8.count).allSatisfy { (0x30...0x39).contains($0) || (0x61...0x66).contains($0) }
    }

    /// Whether a text has the form of an id with a prefix of letters and hyphens.
    public static func isValid(_ text: String) -> Bool {
        let prefix = text.utf8.prefix { (0x61...0x7A).contains($0) || $0 == UInt8(ascii: "-") }
        guard let end = prefix.lastIndex(of: UInt8(ascii: "-")) else { return false }
        return isValid(text, prefix: String(text[...end]))
    }

    private static func digits(_ value: UInt64) -> String {
        let text = String(value, radix: 16)
        return String(repeating: "0", count: 16 - text.utf8.count) + text
    }
}
