import Glibc
import HTTP1

/// What every response of a server carries: the date, made once a second, and the request's id.
package final class ResponseStamps {
    private(set) var date: [UInt8] = HTTPDate.format(unixSeconds: time(nil))
    private var second: UInt64 = .max
    private let prefix: String
    private var counter: UInt64 = 0

    /// - Parameter seed: makes ids of different servers differ.
    package init(seed: UInt64 = .random(in: .min ... .max)) {
        prefix = "req_" + ResponseStamps.hex(seed)
    }

    /// - Parameter now: the loop's milliseconds.
    func refresh(now: UInt64) {
        guard now / 1000 != second else { return }
        second = now / 1000
        date = HTTPDate.format(unixSeconds: time(nil))
    }

    /// A fresh id: unique, and no secret.
    func makeRequestID() -> String {
        counter += 1
        // An odd multiplier is a bijection of the counter, so neighbours look different at a glance and never collide.
        return prefix + ResponseStamps.hex(counter &* 0x9E37_79B9_7F4A_7C15)
    }

    /// Whether a client's id may be echoed and logged: up to 128 letters, digits, dots, underscores and hyphens, and no API key by mistake.
    static func isAcceptable(_ id: String) -> Bool {
        let bytes = id.utf8
        return (1...128).contains(bytes.count) && !id.hasPrefix("sk-")
            && bytes.allSatisfy { byte in
                switch byte {
                case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "-"): true
                default: false
                }
            }
    }

    private static func hex(_ value: UInt64) -> String {
        String(unsafeUninitializedCapacity: 16) { buffer in
            for i in 0..<16 {
                let digit = UInt8(truncatingIfNeeded: value >> (60 - 4 * UInt64(i))) & 15
                buffer[i] = digit < 10 ? 0x30 + digit : 0x57 + digit
            }
            return 16
        }
    }
}
