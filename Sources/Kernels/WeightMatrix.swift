import CKernels

/// A frozen weight matrix W [rows, columns], y = W x, repacked for the kernels into panels of 16 rows. Repacking keeps every value:
/// what `expandTile` and `copyRow` give is bit for bit the dequantisation of the GGUF tensor.
public final class WeightMatrix: @unchecked Sendable {
    // @unchecked: the panels are written once, in init.
    package let panels: graft_panels
    private let region: MemoryRegion

    public let type: GGMLType
    public var rows: Int { Int(panels.rows) }
    public var columns: Int { Int(panels.cols) }
    /// Bytes that the panels take in memory.
    public var byteCount: Int { region.byteCount }
    /// Whether the matrix is multiplied in integers in fast mode.
    public var isQuantized: Bool { panels.kind < Int32(GRAFT_PANEL_F16.rawValue) }

    /// - Parameters:
    ///   - source: the whole tensor as the file holds it, row-major; not needed afterwards.
    ///   - pool: packs in parallel.
    public init(type: GGMLType, rows: Int, columns: Int, source: UnsafeRawPointer, pool: ComputePool) throws(KernelError) {
        var panels = graft_panels()
        guard graft_panels_layout(&panels, Int32(type.rawValue), Int64(rows), Int64(columns)) == 1 else {
            throw KernelError(.unsupportedShape, "matrix [\(rows), \(columns)] of type \(type.name): the columns are no multiple of \(type.blockSize)")
        }
        let count = (rows + panelRows - 1) / panelRows
        region = try MemoryRegion(byteCount: count * Int(panels.panel_bytes))
        panels.data = region.base.assumingMemoryBound(to: UInt8.self)
        self.panels = panels
        self.type = type
        withExtendedLifetime(source) {
            nonisolated(unsafe) let source = source
            var packed = panels
            withUnsafePointer(to: &packed) { pointer in
                nonisolated(unsafe) let pointer = pointer
                pool.parallel(count, grain: max(1, count / (4 * pool.threadCount))) { range in
                    graft_panels_pack(pointer, Int32(type.rawValue), source, Int64(range.lowerBound), Int64(range.upperBound))
                }
            }
        }
    }

    /// A float32 matrix from its values, row-major; packed on the caller's thread.
    public init(rows: Int, columns: Int, values: [Float]) throws(KernelError) {
        precondition(rows > 0 && columns > 0 && values.count == rows * columns, "\(values.count) values for [\(rows), \(columns)]")
        var panels = graft_panels()
        guard graft_panels_layout(&panels, Int32(GGMLType.f32.rawValue), Int64(rows), Int64(columns)) == 1 else {
            throw KernelError(.unsupportedShape, "matrix [\(rows), \(columns)] of type F32")
        }
        let count = (rows + panelRows - 1) / panelRows
        region = try MemoryRegion(byteCount: count * Int(panels.panel_bytes))
        panels.data = region.base.assumingMemoryBound(to: UInt8.self)
        self.panels = panels
        type = .f32
        values.withUnsafeBytes { graft_panels_pack(&panels, Int32(GGMLType.f32.rawValue), $0.baseAddress, 0, Int64(count)) }
    }

    /// Row `row` as float32 [columns]: an embedding look-up.
    public func copyRow(_ row: Int, to destination: UnsafeMutablePointer<Float>) {
        precondition((0..<rows).contains(row), "row \(row) of a matrix of \(rows)")
        withUnsafePointer(to: panels) { graft_panels_row($0, Int64(row), destination) }
        withExtendedLifetime(region) {}
    }

    /// The float32 values of a tile, row-major [rows.count][columns.count]. Both ranges begin and end on multiples of 16 (or at the edge).
    public func expandTile(rows tileRows: Range<Int>, columns tileColumns: Range<Int>, into tile: UnsafeMutablePointer<Float>, variant: KernelVariant) {
        withExpandedPanels(tileRows, tileColumns, variant) { row, panel in
            for k in 0..<tileColumns.count { tile[row * tileColumns.count + k] = panel[k * panelRows] }
        }
    }

    /// The same tile in bfloat16 (rounded to nearest even), as pairs of rows that a dot instruction consumes: [rows.count / 2][columns.count][2].
    /// The number of rows must be even.
    public func expandTile(rows tileRows: Range<Int>, columns tileColumns: Range<Int>, intoPairs tile: UnsafeMutablePointer<UInt16>, variant: KernelVariant) {
        precondition(tileRows.count % 2 == 0, "pairs of rows")
        withExpandedPanels(tileRows, tileColumns, variant) { row, panel in
            let base = tile + (row / 2) * tileColumns.count * 2 + row % 2
            for k in 0..<tileColumns.count { base[2 * k] = bfloat16(panel[k * panelRows]) }
        }
    }

    /// Calls `body` for each row of the tile with the row's index in it and a pointer to its first value; values are 16 floats apart.
    private func withExpandedPanels(_ tileRows: Range<Int>, _ tileColumns: Range<Int>, _ variant: KernelVariant, _ body: (Int, UnsafePointer<Float>) -> Void) {
        precondition(tileRows.lowerBound % panelRows == 0 && (tileRows.upperBound % panelRows == 0 || tileRows.upperBound == rows), "rows in steps of 16")
        precondition(tileColumns.lowerBound % 16 == 0 && (tileColumns.upperBound % 16 == 0 || tileColumns.upperBound == columns), "columns in steps of 16")
        precondition(tileRows.lowerBound >= 0 && tileRows.upperBound <= rows && tileColumns.lowerBound >= 0 && tileColumns.upperBound <= columns, "a tile inside the matrix")
        withUnsafeTemporaryAllocation(of: Float.self, capacity: panelRows * tileColumns.count) { expanded in
            var panels = panels
            for first in stride(from: tileRows.lowerBound, to: tileRows.upperBound, by: panelRows) {
                variant.table.pointee.expand_panel(&panels, Int64(first / panelRows), Int64(tileColumns.lowerBound), Int64(tileColumns.upperBound), expanded.baseAddress)
                for r in 0..<min(panelRows, tileRows.upperBound - first) {
                    body(first - tileRows.lowerBound + r, expanded.baseAddress! + r)
                }
            }
            withExtendedLifetime(region) {}
        }
    }
}

/// Rows in a panel.
package let panelRows = Int(GRAFT_PANEL_ROWS)

private func bfloat16(_ value: Float) -> UInt16 {
    let bits = value.bitPattern
    if value.isNaN { return UInt16(truncatingIfNeeded: bits >> 16) | 0x40 }
    return UInt16(truncatingIfNeeded: (bits &+ 0x7fff &+ (bits >> 16 & 1)) >> 16)
}
