import Kernels

/// Numbers between their stored form and float32, a whole tensor at a time. Loops that compilers vectorise, no call per element.
public enum TensorValues {
    /// The types that `decode` reads.
    public static func canDecode(_ type: GGMLType) -> Bool {
        switch type {
        case .f32, .f16, .bf16, .q8_0: true
        default: false
        }
    }

    /// The float32 values of `range` of a file's bytes; every value is exact, infinities and NaNs included.
    ///
    /// - Parameters:
    ///   - range: within the file, a whole number of blocks long; may lie on any address.
    ///   - type: one that `canDecode`.
    public static func decode(_ file: [UInt8], at range: Range<Int>, as type: GGMLType) -> [Float] {
        precondition(
            range.lowerBound >= 0 && range.upperBound <= file.count && range.count % type.blockBytes == 0, "\(range) of \(file.count) bytes as \(type.name)")
        let count = range.count / type.blockBytes * type.blockSize
        return [Float](unsafeUninitializedCapacity: count) { values, initialized in
            initialized = count
            guard count > 0, let values = values.baseAddress else { return }
            file.withUnsafeBytes { file in
                guard let base = file.baseAddress else { return }
                decode(base + range.lowerBound, count: count, as: type, into: values)
            }
        }
    }

    private static func decode(_ source: UnsafeRawPointer, count: Int, as type: GGMLType, into values: UnsafeMutablePointer<Float>) {
        switch type {
        case .f32:
            UnsafeMutableRawPointer(values).copyMemory(from: source, byteCount: count &* 4)
        case .f16:
            for index in 0..<count {
                values[index] = float(half: source.loadUnaligned(fromByteOffset: index &* 2, as: UInt16.self))
            }
        case .bf16:
            for index in 0..<count {
                values[index] = Float(bitPattern: UInt32(source.loadUnaligned(fromByteOffset: index &* 2, as: UInt16.self)) &<< 16)
            }
        case .q8_0:
            // A block: d as a half, then 32 signed bytes; x[i] = q[i] · d.
            for block in 0..<count / 32 {
                let start = source + block &* 34
                let scale = float(half: start.loadUnaligned(as: UInt16.self))
                for index in 0..<32 {
                    values[block &* 32 &+ index] = Float(start.loadUnaligned(fromByteOffset: 2 &+ index, as: Int8.self)) * scale
                }
            }
        default:
            preconditionFailure("numbers of type \(type.name)")
        }
    }

    /// The float with a half's value. Exponent and mantissa move to float's place, where they stand for 2^-112 of the value; the exponent of infinity
    /// and NaN is set afterwards.
    @inline(__always)
    private static func float(half: UInt16) -> Float {
        let magnitude = Float(bitPattern: UInt32(half & 0x7FFF) &<< 13) * 0x1p112
        let special: UInt32 = half & 0x7C00 == 0x7C00 ? 0x7F80_0000 : 0
        return Float(bitPattern: magnitude.bitPattern | special | UInt32(half & 0x8000) &<< 16)
    }

    /// The index of the first infinity or NaN, if there is one.
    public static func firstNonFinite(in values: [Float]) -> Int? {
        let isSuspect = values.withUnsafeBufferPointer { values in
            // Adding one to an exponent of all ones, and to no other, carries into the sign's bit.
            var carries: UInt32 = 0
            for index in 0..<values.count { carries |= (values[index].bitPattern & 0x7F80_0000) &+ 0x0080_0000 }
            return carries & 0x8000_0000 != 0
        }
        return isSuspect ? values.firstIndex { !$0.isFinite } : nil
    }

    /// The largest absolute value of finite numbers; 0 when there are none.
    public static func largestMagnitude(in values: [Float]) -> Float {
        values.withUnsafeBufferPointer { values in
            // Without their signs, finite numbers are in the order of their bits.
            var largest: UInt32 = 0
            for index in 0..<values.count { largest = max(largest, values[index].bitPattern & 0x7FFF_FFFF) }
            return Float(bitPattern: largest)
        }
    }

    /// Whether every value survives being stored as F32, F16 or BF16, bit for bit.
    public static func areExact(_ values: [Float], as type: GGMLType) -> Bool {
        values.withUnsafeBufferPointer { values in
            switch type {
            case .f32:
                return true
            case .f16:
                return values.allSatisfy { Float(Float16($0)).bitPattern == $0.bitPattern }
            case .bf16:
                var lost: UInt32 = 0
                for index in 0..<values.count { lost |= values[index].bitPattern }
                return lost & 0xFFFF == 0
            default:
                preconditionFailure("numbers of type \(type.name) are not written")
            }
        }
    }

    /// Appends values as F32, F16 or BF16, little endian, rounded to nearest even.
    public static func append(_ values: [Float], as type: GGMLType, to bytes: inout [UInt8]) {
        switch type {
        case .f32: values.withUnsafeBytes { bytes.append(contentsOf: $0) }
        case .f16: append(values.map { Float16($0).bitPattern }, to: &bytes)
        case .bf16: append(values.map { bfloat16($0) }, to: &bytes)
        default: preconditionFailure("numbers of type \(type.name) are not written")
        }
    }

    private static func append(_ numbers: [UInt16], to bytes: inout [UInt8]) {
        numbers.withUnsafeBytes { bytes.append(contentsOf: $0) }
    }

    private static func bfloat16(_ value: Float) -> UInt16 {
        let bits = value.bitPattern
        if value.isNaN { return UInt16(truncatingIfNeeded: bits >> 16) | 0x40 }
        return UInt16(truncatingIfNeeded: (bits &+ 0x7FFF &+ (bits >> 16 & 1)) >> 16)
    }
}
