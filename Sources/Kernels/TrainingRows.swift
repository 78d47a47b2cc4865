import CKernels

/// How the rows of a run that is being trained are stored and multiplied.
public enum TrainingRowType: Sendable {
    case float32, bfloat16

    var raw: Int32 { self == .float32 ? Int32(GRAFT_ROWS_F32.rawValue) : Int32(GRAFT_ROWS_BF16.rawValue) }
    public var byteCount: Int { self == .float32 ? 4 : 2 }
}

/// Rows of one of two types, [capacity][width], 64-byte aligned, zero at first. One owner at a time.
public final class TrainingRows {
    public let capacity: Int
    public let width: Int
    public let type: TrainingRowType
    private let region: MemoryRegion
    private let offset: Int
    private let rowBytes: Int

    /// - Parameter width: a multiple of 16.
    public init(capacity: Int, width: Int, type: TrainingRowType) throws(KernelError) {
        precondition(capacity > 0 && width > 0 && width % 16 == 0, "training rows have a width in multiples of 16, not \(width)")
        self.capacity = capacity
        self.width = width
        self.type = type
        offset = 0
        rowBytes = width * type.byteCount
        region = try MemoryRegion(byteCount: capacity * rowBytes + 64)
    }

    /// Some of the rows.
    public init(rows range: Range<Int>, of rows: TrainingRows) {
        precondition(range.lowerBound >= 0 && !range.isEmpty && range.upperBound <= rows.capacity)
        capacity = range.count
        width = rows.width
        type = rows.type
        region = rows.region
        offset = rows.offset + range.lowerBound * rows.rowBytes
        rowBytes = rows.rowBytes
    }

    /// Some columns of the rows.
    public init(columns first: Int, width: Int, of rows: TrainingRows) {
        precondition(first >= 0 && width > 0 && first + width <= rows.width, "columns \(first) to \(first + width) of rows of \(rows.width)")
        capacity = rows.capacity
        self.width = width
        type = rows.type
        region = rows.region
        offset = rows.offset + first * rows.type.byteCount
        rowBytes = rows.rowBytes
    }

    /// The bytes of float32 rows, used as rows of another type with the same stride.
    public init(overlaying rows: TrainingRows, type: TrainingRowType) {
        precondition(rows.type == .float32, "only float32 rows have room for any type")
        capacity = rows.capacity
        width = rows.width
        self.type = type
        region = rows.region
        offset = rows.offset
        rowBytes = rows.rowBytes
    }

    public static func byteCount(capacity: Int, width: Int, type: TrainingRowType) -> Int { capacity * width * type.byteCount }

    package var raw: graft_rows {
        graft_rows(data: region.base.assumingMemoryBound(to: UInt8.self) + offset, stride: Int64(rowBytes), type: type.raw)
    }

    /// Float32 rows only.
    public var floats: UnsafeMutablePointer<Float> {
        precondition(type == .float32, "bfloat16 rows are not floats")
        return (region.base + offset).assumingMemoryBound(to: Float.self)
    }

    /// Floats from row to row, of float32 rows.
    public var floatStride: Int { rowBytes / 4 }

    public func copyRow(_ row: Int, from source: TrainingRows, row sourceRow: Int) {
        precondition(row < capacity && sourceRow < source.capacity && type == source.type && width == source.width)
        (region.base + offset + row * rowBytes).copyMemory(from: source.region.base + source.offset + sourceRow * source.rowBytes, byteCount: width * type.byteCount)
    }

    /// Adds a row to one of these; float32.
    public func addRow(_ row: Int, from source: TrainingRows, row sourceRow: Int) {
        precondition(row < capacity && sourceRow < source.capacity && type == .float32 && source.type == .float32 && width == source.width)
        let sums = floats + row * floatStride, values = source.floats + sourceRow * source.floatStride
        for i in 0..<width { sums[i] += values[i] }
    }
}
