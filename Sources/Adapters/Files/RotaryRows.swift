import Modeling

/// The two orders in which the rows of q and k are stored.
///
/// Hugging Face rotates row j of a head of size d with row j + d/2. llama.cpp's converter brings such rows side by side for the architecture llama:
/// row p · d/2 + j moves to 2j + p, p in {0, 1}, j < d/2. In a low-rank pair only B has the projection's rows; A stays as it is.
package enum RotaryRows {
    /// Whether the base's file holds the projection's rows in another order than Hugging Face does.
    package static func areInterleaved(_ projection: Projection, of base: ModelConfiguration) -> Bool {
        base.architecture == .llama && (projection == .q || projection == .k)
    }

    /// From Hugging Face's order to GGUF's.
    ///
    /// - Parameters:
    ///   - rows: row-major, a whole number of heads high.
    ///   - width: numbers in a row.
    package static func interleaved(_ rows: [Float], width: Int, headDim: Int) -> [Float] {
        reordered(rows, width, headDim) { source, destination, half in
            for j in 0..<half {
                (destination + 2 * j * width).update(from: source + j * width, count: width)
                (destination + (2 * j + 1) * width).update(from: source + (half + j) * width, count: width)
            }
        }
    }

    /// From GGUF's order to Hugging Face's.
    package static func halves(_ rows: [Float], width: Int, headDim: Int) -> [Float] {
        reordered(rows, width, headDim) { source, destination, half in
            for j in 0..<half {
                (destination + j * width).update(from: source + 2 * j * width, count: width)
                (destination + (half + j) * width).update(from: source + (2 * j + 1) * width, count: width)
            }
        }
    }

    /// Calls `move` for each head with its source, its destination and half of its rows.
    private static func reordered(
        _ rows: [Float], _ width: Int, _ headDim: Int, _ move: (UnsafePointer<Float>, UnsafeMutablePointer<Float>, Int) -> Void
    ) -> [Float] {
        precondition(
            width > 0 && headDim > 0 && headDim % 2 == 0 && rows.count % (headDim * width) == 0, "\(rows.count) numbers in heads of \(headDim) rows of \(width)"
        )
        return [Float](unsafeUninitializedCapacity: rows.count) { destination, initialized in
            initialized = rows.count
            rows.withUnsafeBufferPointer { source in
                guard let source = source.baseAddress, let destination = destination.baseAddress else { return }
                for head in stride(from: 0, to: rows.count, by: headDim * width) { move(source + head, destination + head, headDim / 2) }
            }
        }
    }
}
