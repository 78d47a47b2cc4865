import CKernels

/// Rows of float32, [capacity][width], 64-byte aligned and contiguous, zero at first. One owner at a time.
public final class FloatRows {
    public let capacity: Int
    public let width: Int
    public let pointer: UnsafeMutablePointer<Float>
    private let region: MemoryRegion

    public init(capacity: Int, width: Int) throws(KernelError) {
        precondition(capacity > 0 && width > 0)
        self.capacity = capacity
        self.width = width
        // The tail lets a kernel read whole registers at the end of the last row.
        region = try MemoryRegion(byteCount: capacity * width * MemoryLayout<Float>.stride + 64)
        pointer = region.base.assumingMemoryBound(to: Float.self)
    }

    /// The memory of `rows`, cut into rows of another width.
    public init(reshaping rows: FloatRows, width: Int) {
        precondition(width > 0 && width <= rows.width)
        capacity = rows.capacity
        self.width = width
        region = rows.region
        pointer = rows.pointer
    }

    public subscript(row: Int) -> UnsafeMutablePointer<Float> { pointer + row * width }

    var stride: Int64 { Int64(width * MemoryLayout<Float>.stride) }
}

/// Rows of 8-bit activations with a scale per block of 32, as the integer kernels take them. One owner at a time.
public final class QuantizedRows {
    public let capacity: Int
    public let width: Int
    package let pointer: UnsafeMutablePointer<UInt8>
    package let layout: graft_activation_layout
    private let region: MemoryRegion

    /// - Parameter width: a multiple of 32.
    public init(capacity: Int, width: Int) throws(KernelError) {
        precondition(capacity > 0 && width > 0 && width % 32 == 0, "8-bit rows have a width in multiples of 32, not \(width)")
        self.capacity = capacity
        self.width = width
        layout = graft_activation_layout_for(Int64(width))
        region = try MemoryRegion(byteCount: capacity * Int(layout.bytes))
        pointer = region.base.assumingMemoryBound(to: UInt8.self)
    }
}

/// A small immutable vector: a norm's weight, a bias, inverse frequencies.
public final class FloatVector: @unchecked Sendable {
    // @unchecked: written once, in init.
    public let count: Int
    package let pointer: UnsafeMutablePointer<Float>

    public init(_ values: [Float]) {
        count = values.count
        let raw = UnsafeMutableRawPointer.allocate(byteCount: max(values.count, 1) * MemoryLayout<Float>.stride + 64, alignment: 64)
        pointer = raw.assumingMemoryBound(to: Float.self)
        pointer.initialize(from: values, count: values.count)
    }

    deinit { UnsafeMutableRawPointer(pointer).deallocate() }

    public var values: [Float] { Array(UnsafeBufferPointer(start: pointer, count: count)) }
}
