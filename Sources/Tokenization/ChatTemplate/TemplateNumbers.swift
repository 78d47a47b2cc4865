#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

extension TemplateText {
    /// Python's `int(text, base)`; nil where Python refuses, and beyond 64 bits.
    func pythonInteger(base: Int) -> Int? {
        guard base == 0 || (2...36).contains(base) else { return nil }
        var digits = stripped().string.utf8[...]
        var sign = ""
        if digits.first == UInt8(ascii: "-") || digits.first == UInt8(ascii: "+") {
            if digits.popFirst() == UInt8(ascii: "-") { sign = "-" }
        }
        var radix = base == 0 ? 10 : base
        var hasPrefix = false
        if digits.first == UInt8(ascii: "0"), digits.count > 1 {
            let prefixes: [UInt8: Int] = [UInt8(ascii: "x"): 16, UInt8(ascii: "o"): 8, UInt8(ascii: "b"): 2]
            if let named = prefixes[digits[digits.index(after: digits.startIndex)] | 0x20], base == 0 || base == named {
                radix = named
                digits = digits.dropFirst(2)
                hasPrefix = true
            }
        }
        guard let plain = Self.withoutUnderscores(digits, mayLead: hasPrefix), !plain.hasPrefix("-"), !plain.hasPrefix("+") else { return nil }
        return Int(sign + plain, radix: radix)
    }

    /// Python's `float(text)`; nil where Python refuses.
    var pythonNumber: Double? {
        let text = stripped().string.lowercased()
        let unsigned = text.hasPrefix("-") || text.hasPrefix("+") ? text.dropFirst() : text[...]
        switch unsigned {
        case "inf", "infinity": return text.hasPrefix("-") ? -.infinity : .infinity
        case "nan": return .nan
        default: break
        }
        // Swift's own parser also takes hexadecimal floats.
        guard let plain = Self.withoutUnderscores(text.utf8[...], mayLead: false),
            plain.utf8.allSatisfy({ ($0 >= 0x30 && $0 <= 0x39) || "+-.e".utf8.contains($0) })
        else { return nil }
        let hasFractionOnly = unsigned.hasPrefix(".")
        let normalized = hasFractionOnly ? plain.replacingFirstPoint() : plain
        let mantissaEnd = normalized.firstIndex(of: "e") ?? normalized.endIndex
        if normalized[..<mantissaEnd].hasSuffix(".") {
            return Double(normalized[..<mantissaEnd].dropLast() + normalized[mantissaEnd...])
        }
        return Double(normalized)
    }

    /// Digits without the single underscores that Python allows between them; nil if one stands elsewhere.
    private static func withoutUnderscores(_ digits: Substring.UTF8View, mayLead: Bool) -> String? {
        var result: [UInt8] = []
        var previous: UInt8 = mayLead ? UInt8(ascii: "0") : UInt8(ascii: "_")
        for byte in digits {
            if byte == UInt8(ascii: "_") {
                if previous == UInt8(ascii: "_") { return nil }
            } else {
                result.append(byte)
            }
            previous = byte
        }
        return previous == UInt8(ascii: "_") ? nil : String(decoding: result, as: UTF8.self)
    }
}

extension String {
    /// ".5" as "0.5", signs kept.
    fileprivate func replacingFirstPoint() -> String {
        guard let point = firstIndex(of: ".") else { return self }
        return self[..<point] + "0" + self[point...]
    }
}

extension Double {
    static func powerOfTen(_ exponent: Int) -> Double { pow(10, Double(exponent)) }

    /// Python's `round(value, digits)`: correctly rounded from the exact binary value, ties to even.
    func pythonRounded(_ digits: Int) -> Double {
        guard isFinite else { return self }
        if digits >= 0 { return Double(formatted("f", precision: digits)) ?? self }
        let scale = Self.powerOfTen(-digits)
        return (self / scale).rounded(.toNearestOrEven) * scale
    }

    /// C's `%.{precision}{conversion}`, with `e`, `f` or `g` as conversion.
    func formatted(_ conversion: Character, precision: Int, keepsPoint: Bool = false) -> String {
        guard isFinite else { return isNaN ? "nan" : (self < 0 ? "-inf" : "inf") }
        let format = "%\(keepsPoint ? "#" : "").\(precision)\(conversion)"
        // 309 digits before the point, the precision after it, and sign, point and exponent.
        var buffer = [CChar](repeating: 0, count: 330 + precision)
        let count = withVaList([self]) { vsnprintf(&buffer, buffer.count, format, $0) }
        return String(decoding: buffer.prefix(Int(count)).map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}
